//! Both ways to find the pages that a message wrote give the same: what is kept, what is undone, what is charged.

mod common;

use common::Canister;
use replicore_engine::{Engine, EngineConfig, WriteTracking};
use std::sync::Arc;

/// Writes by stores that straddle pages, by bulk operations, by the host and into pages that are new; and traps.
const MODULE: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "trap" (func $trap (param i32 i32)))
    (import "ic0" "msg_arg_data_copy" (func $argument (param i32 i32 i32)))
    (memory 4) (data "passive")
    (func $write
        (i64.store (i32.const 8190) (i64.const -1))
        (i32.store (i32.const 70000) (i32.const 7))
        (memory.fill (i32.const 100000) (i32.const 9) (i32.const 20000))
        (memory.copy (i32.const 150001) (i32.const 100000) (i32.const 5000))
        (memory.init 0 (i32.const 16382) (i32.const 0) (i32.const 7))
        (call $argument (i32.const 200000) (i32.const 0) (i32.const 5)))
    (func (export "canister_update write") (call $write) (call $reply))
    (func (export "canister_update nothing") (i32.store (i32.const 30000) (i32.load (i32.const 30000))) (call $reply))
    (func (export "canister_update trap") (i32.store (i32.const 40000) (i32.const 1)) (call $write) (unreachable))
    (func (export "canister_update grow")
        (i32.store (i32.shl (memory.grow (i32.const 2)) (i32.const 16)) (i32.const 5)) (call $reply))
    (func (export "canister_update grow_and_trap")
        (i32.store (i32.shl (memory.grow (i32.const 1)) (i32.const 16)) (i32.const 6)) (call $trap (i32.const 0) (i32.const 0)))
    (func (export "canister_update beyond") (i32.store (i32.const 50000) (i32.const 1)) (i32.store (i32.const -8) (i32.const 1)))
    (func (export "canister_query look") (call $write) (call $reply)))"#;

const METHODS: [&str; 12] = [
    "nothing",
    "write",
    "write",
    "trap",
    "nothing",
    "grow",
    "write",
    "grow_and_trap",
    "beyond",
    "write",
    "grow",
    "trap",
];

#[test]
fn what_is_written_does_not_depend_on_how_it_is_found() {
    let run = |write_tracking| {
        let engine = Engine::new(EngineConfig {
            write_tracking,
            ..EngineConfig::default()
        });
        let mut canister = Canister::with_engine(Arc::new(engine.unwrap()), wat::parse_str(MODULE).unwrap());
        let mut seen = Vec::new();
        for (number, method) in METHODS.iter().enumerate() {
            let argument = [number as u8; 5];
            let query = canister.query("look", &argument);
            let done = canister.update(method, &argument);
            seen.push((
                (format!("{:?}", query.result), query.instructions),
                (format!("{:?}", done.result), done.instructions),
                done.stats.heap_pages_dirtied,
                canister.state.heap.pages.digest(),
                canister.state.heap.size_wasm_pages,
            ));
        }
        seen
    };
    let (barrier, faults) = (run(WriteTracking::Barrier), run(WriteTracking::Faults));
    for (method, (barrier, faults)) in METHODS.iter().zip(barrier.iter().zip(&faults)) {
        assert_eq!(barrier, faults, "{method}");
    }
    assert!(barrier.iter().any(|(_, _, pages, ..)| *pages > 5));
}
