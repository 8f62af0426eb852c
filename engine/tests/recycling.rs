//! Instances that go from one canister to another of the same module: each canister finds its own memory and nothing of
//! the others'.

mod common;

use common::{Canister, reply};
use replicore_engine::{Engine, EngineConfig};
use replicore_types::CanisterId;
use std::sync::Arc;

/// `write` adds its argument to a counter, writes the counter to the page of that number and grows by as many Wasm
/// pages as the second byte says; `refuse` does that and traps; `read` tells all of it.
const MODULE: &str = r#"(module
    (import "ic0" "msg_reply" (func $msg_reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "msg_arg_data_copy" (func $argument (param i32 i32 i32)))
    (memory 2)
    (data (i32.const 100) "hello")
    (global $count (mut i64) (i64.const 0))
    (func $go
        (call $argument (i32.const 0) (i32.const 0) (i32.const 2))
        (global.set $count (i64.add (global.get $count) (i64.load8_u (i32.const 0))))
        (drop (memory.grow (i32.load8_u (i32.const 1))))
        (i64.store (i32.mul (i32.load8_u (i32.const 0)) (i32.const 4096)) (global.get $count))
        (i32.store16 (i32.const 0) (i32.const 0)))
    (func (export "canister_update write") (call $go) (call $msg_reply))
    (func (export "canister_update refuse") (call $go) unreachable)
    (func (export "canister_query read")
        (i64.store (i32.const 0) (global.get $count))
        (i32.store (i32.const 8) (memory.size))
        (call $append (i32.const 0) (i32.mul (memory.size) (i32.const 65536)))
        (call $msg_reply)))"#;

fn engine(warm_canisters_max: usize) -> Arc<Engine> {
    let config = EngineConfig {
        warm_canisters_max,
        warm_query_canisters_max: warm_canisters_max,
        ..EngineConfig::default()
    };
    Arc::new(Engine::new(config).expect("the engine starts"))
}

/// Canisters that meet in one shard of the pool.
fn canisters(engine: &Arc<Engine>, count: u64) -> Vec<Canister> {
    let canister = |number: u64| {
        let mut canister =
            Canister::with_engine(Arc::clone(engine), wat::parse_str(MODULE).expect("the module parses"));
        canister.view.canister_id = CanisterId::from_index(16 * number);
        canister
    };
    let canisters = (0..count).map(canister).collect();
    engine.finish_compiling();
    canisters
}

#[test]
fn a_recycled_instance_holds_the_other_canister_and_nothing_else() {
    let shared = engine(1);
    let mut recycled = canisters(&shared, 3);
    // Every message gets a new instance.
    let mut fresh = canisters(&engine(0), 3);
    let script: [(usize, &str, [u8; 2]); 12] = [
        (0, "write", [1, 0]),
        (1, "write", [2, 0]),
        (2, "refuse", [3, 0]),
        (0, "write", [31, 0]),
        (2, "write", [4, 1]),
        (1, "write", [1, 0]),
        (2, "write", [40, 2]),
        (0, "refuse", [9, 1]),
        (1, "write", [2, 3]),
        (0, "write", [5, 0]),
        (2, "write", [6, 0]),
        (1, "refuse", [7, 0]),
    ];
    for (number, method, argument) in script {
        let [left, right] = [&mut recycled[number], &mut fresh[number]].map(|canister| {
            let done = canister.update(method, &argument);
            (done.result, done.instructions, canister.state.globals.clone())
        });
        assert_eq!(left, right, "{method} {argument:?}");
        for (recycled, fresh) in recycled.iter_mut().zip(&mut fresh) {
            assert_eq!(recycled.state.heap.size_wasm_pages, fresh.state.heap.size_wasm_pages);
            assert_eq!(recycled.state.heap.pages.digest(), fresh.state.heap.pages.digest());
            assert_eq!(reply(&recycled.query("read", &[])), reply(&fresh.query("read", &[])));
        }
    }
}

#[test]
fn canisters_of_one_module_share_the_instances_that_there_is_room_for() {
    let engine = engine(16);
    let mut canisters = canisters(&engine, 4);
    for round in 1..=5 {
        for canister in &mut canisters {
            reply(&canister.update("write", &[1, 0]));
        }
        assert_eq!(engine.warm_instances().0, 1, "round {round}");
    }
    assert_eq!(engine.instances_made(), 1);
    // One whose heap is larger cannot become one whose heap is smaller.
    reply(&canisters[0].update("write", &[1, 1]));
    assert_eq!(engine.instances_made(), 1);
    reply(&canisters[1].update("write", &[1, 0]));
    assert_eq!(engine.instances_made(), 2);
}

#[test]
fn while_there_is_room_no_instance_is_taken_away() {
    let engine = engine(64);
    let mut canisters = canisters(&engine, 4);
    for canister in &mut canisters {
        reply(&canister.update("write", &[1, 0]));
    }
    assert_eq!((engine.warm_instances().0, engine.instances_made()), (4, 4));
    for canister in &mut canisters {
        assert!(canister.update("write", &[1, 0]).stats.warm);
    }
}
