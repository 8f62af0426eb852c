//! Both ways to find the pages that a message wrote give the same: what is kept, what is undone, what is charged.

mod common;

use common::Canister;
use replicore_engine::{Engine, EngineConfig, Tiers, WriteTracking};
use replicore_types::NumInstructions;
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

/// A loop of stores, made from random numbers: one to three of them, in steps, at a local that something else moves, or
/// behind a condition; its turns cross pages in both directions.
fn random_loop(name: usize, mut next: impl FnMut(u32) -> u32) -> String {
    let mut body = String::new();
    for _ in 0..=next(3) {
        let (store, offset) = (["i32.store8", "i32.store16", "i32.store", "i64.store"], next(9_000));
        let which = next(4) as usize;
        let value = if which == 3 {
            "(i64.extend_i32_u (local.get $n))"
        } else {
            "(local.get $n)"
        };
        let address = ["$a", "$b", "$c"][next(3) as usize];
        let store = format!("({} offset={offset} (local.get {address}) {value})", store[which]);
        body += &match next(3) {
            0 => format!("(if (i32.and (local.get $n) (i32.const 5)) (then {store}))"),
            _ => store,
        };
    }
    let step = |next: &mut dyn FnMut(u32) -> u32| next(256) as i32 - 100;
    let (a, b) = (step(&mut next), step(&mut next));
    format!(
        r#"(func (export "canister_update {name}")
             (local $a i32) (local $b i32) (local $c i32) (local $n i32) (local $sum f64)
             (local.set $a (i32.const 120000)) (local.set $b (i32.const 90000)) (local.set $c (i32.const 70000))
             (loop $again
               {body}
               (local.set $sum (f64.add (local.get $sum) (f64.convert_i32_u (local.get $n))))
               (local.set $a (i32.add (local.get $a) (i32.const {a})))
               (local.set $b (i32.sub (local.get $b) (i32.const {b})))
               (local.set $c (i32.and (i32.mul (local.get $c) (i32.const 77777)) (i32.const 0x3ffff)))
               (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 700))))
             (f64.store (i32.const 0) (local.get $sum)) (call $reply))"#
    )
}

#[test]
fn loops_of_stores_mark_what_they_write_slice_by_slice() {
    const LOOPS: usize = 60;
    let mut random = 1_u64;
    let mut next = |below: u32| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as u32 % below
    };
    let loops: String = (0..LOOPS).map(|name| random_loop(name, &mut next)).collect();
    let module = format!(r#"(module (import "ic0" "msg_reply" (func $reply)) (memory 5) {loops})"#);
    // Slices are short: their ends fall into the loops, whose locals must survive them.
    let run = |write_tracking, tiers, slice| {
        let engine = Engine::new(EngineConfig {
            write_tracking,
            tiers,
            ..EngineConfig::default()
        });
        let mut canister = Canister::with_engine(Arc::new(engine.unwrap()), wat::parse_str(&module).unwrap());
        canister.limits.slice = NumInstructions(slice);
        canister.limits.message = NumInstructions(slice * 300);
        let step = |name: usize| {
            let done = canister.update(&name.to_string(), b"");
            let ended = format!("{:?}", done.result.map_err(|failed| failed.error.code));
            let pages = done.stats.heap_pages_dirtied;
            (ended, done.instructions, pages, canister.state.heap.pages.digest())
        };
        (0..LOOPS).map(step).collect::<Vec<_>>()
    };
    let barrier = run(WriteTracking::Barrier, Tiers::Optimised, 1_000);
    let finished = barrier.iter().filter(|(ended, ..)| ended.starts_with("Ok")).count();
    assert!(
        finished > LOOPS / 2 && finished < LOOPS,
        "{finished} loops end, others leave the heap"
    );
    assert!(barrier.iter().any(|(_, _, pages, _)| *pages > 10));
    assert_eq!(barrier, run(WriteTracking::Faults, Tiers::Optimised, 300_000));
    assert_eq!(barrier, run(WriteTracking::Barrier, Tiers::Baseline, 1_000));
}
