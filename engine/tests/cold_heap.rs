//! Heaps that are not warm come in as they are touched, and nothing but the time tells.

mod common;

use common::{Canister, minor_faults, reply};
use replicore_engine::{Engine, EngineConfig, ExecutionState};
use replicore_persistence::PageIndex;
use std::sync::Arc;

/// 64 MiB: 16,384 pages, every one written by `fill`.
const PAGES: u64 = 16_384;
const MODULE: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "msg_arg_data_copy" (func $argument (param i32 i32 i32)))
    (import "ic0" "trap" (func $trap (param i32 i32)))
    (memory 1024 2048)
    (func $page (result i32)
        (call $argument (i32.const 0) (i32.const 0) (i32.const 4)) (i32.shl (i32.load (i32.const 0)) (i32.const 12)))
    (func (export "canister_update fill") (local $page i32)
        (loop $again
            (i32.store offset=8 (i32.shl (local.get $page) (i32.const 12)) (i32.add (local.get $page) (i32.const 7)))
            (br_if $again (i32.lt_u (local.tee $page (i32.add (local.get $page) (i32.const 1))) (i32.const 16384))))
        (call $reply))
    (func (export "canister_update write") (i32.store offset=8 (call $page) (i32.const 1)) (call $reply))
    (func (export "canister_update straddle")
        (i64.store offset=4092 (call $page) (i64.const 0x1111111122222222)) (call $reply))
    (func (export "canister_update write_and_trap")
        (i32.store offset=8 (call $page) (i32.const 1)) (call $trap (i32.const 0) (i32.const 0)))
    (func (export "canister_update copy") (memory.copy (i32.const 4096) (call $page) (i32.const 12288)) (call $reply))
    (func (export "canister_update grow")
        (i32.store offset=8 (i32.shl (memory.grow (i32.const 16)) (i32.const 16)) (i32.const 5)) (call $reply))
    (func $read (call $append (i32.add (call $page) (i32.const 8)) (i32.const 4)) (call $reply))
    (export "canister_query look" (func $read)) (export "canister_update read" (func $read))
    (func (export "canister_query sum") (local $page i32) (local $sum i32)
        (loop $again
            (local.set $sum (i32.add (local.get $sum) (i32.load offset=8 (i32.shl (local.get $page) (i32.const 12)))))
            (br_if $again (i32.lt_u (local.tee $page (i32.add (local.get $page) (i32.const 1))) (i32.const 16384))))
        (i32.store (i32.const 0) (local.get $sum)) (call $append (i32.const 0) (i32.const 4)) (call $reply)))"#;

/// A canister whose whole heap is written, warm.
fn filled() -> Canister {
    let mut canister = Canister::new(MODULE);
    canister.engine.finish_compiling();
    reply(&canister.update("fill", &[]));
    assert_eq!(canister.state.heap.pages.len(), PAGES);
    canister
}

/// The same canister on an engine that has the module but no instance.
fn cold(state: &ExecutionState) -> Canister {
    let mut fresh = Canister::with_engine(
        Arc::new(Engine::new(EngineConfig::default()).unwrap()),
        wat::parse_str(MODULE).unwrap(),
    );
    fresh.engine.finish_compiling();
    fresh.state = ExecutionState {
        warm_version: 0,
        ..state.clone()
    };
    fresh
}

fn number(done: &replicore_engine::WorkDone) -> u32 {
    u32::from_le_bytes(reply(done).try_into().unwrap())
}

#[test]
fn the_first_message_pays_for_what_it_touches() {
    let canister = filled();
    let mut cold = cold(&canister.state);
    let before = minor_faults();
    let done = cold.update("write", &9_000_u32.to_le_bytes());
    let faults = minor_faults() - before;
    assert!(!done.stats.warm && done.stats.heap_pages_dirtied == 2);
    assert!(faults < PAGES / 16, "{faults} faults for 2 pages");
    assert_eq!(number(&cold.update("read", &9_000_u32.to_le_bytes())), 1);
    assert_eq!(number(&cold.update("read", &9_001_u32.to_le_bytes())), 9_008);
}

#[test]
fn cold_and_warm_canisters_go_the_same_way() {
    let mut warm = filled();
    let mut cold = cold(&warm.state);
    let steps: &[(&str, u32)] = &[
        ("write", 3),
        ("write_and_trap", 5_000),
        ("straddle", 700),
        ("copy", 12_000),
        ("read", 5_000),
        ("write", 16_383),
        ("grow", 0),
        ("write_and_trap", 16_400),
        ("write", 16_390),
        ("straddle", 16_383),
        ("read", 702),
    ];
    for (method, page) in steps {
        let done = [&mut warm, &mut cold].map(|canister| canister.update(method, &page.to_le_bytes()));
        assert_eq!(done[0].result, done[1].result, "{method} {page}");
        assert_eq!(done[0].instructions, done[1].instructions, "{method} {page}");
        assert_eq!(
            warm.state.heap.pages.digest(),
            cold.state.heap.pages.digest(),
            "{method} {page}"
        );
    }
    assert_eq!(number(&warm.query("sum", &[])), number(&cold.query("sum", &[])));
}

#[test]
fn a_scan_brings_in_everything() {
    let canister = filled();
    let mut cold = cold(&canister.state);
    let expected = (0..PAGES as u32).map(|page| page + 7).sum::<u32>();
    assert_eq!(number(&cold.query("sum", &[])), expected);
    assert_eq!(number(&cold.query("sum", &[])), expected);
}

#[test]
fn a_cold_query_instance_follows_the_state() {
    let mut canister = filled();
    let page = 4_000_u32.to_le_bytes();
    assert_eq!(number(&canister.query("look", &8_000_u32.to_le_bytes())), 8_007);
    reply(&canister.update("write", &page));
    // The instance has neither page 4,000 nor page 4,001: both come from the newer state.
    assert_eq!(number(&canister.query("look", &page)), 1);
    reply(&canister.update("copy", &8_000_u32.to_le_bytes()));
    assert_eq!(number(&canister.query("look", &1_u32.to_le_bytes())), 8_007);
    assert_eq!(number(&canister.query("look", &4_001_u32.to_le_bytes())), 4_008);
    assert_eq!(
        canister.state.heap.pages.get(PageIndex(1)).unwrap()[8..12],
        8_007_u32.to_le_bytes()
    );
}

#[test]
fn accesses_outside_the_heap_still_trap() {
    let canister = filled();
    let mut cold = cold(&canister.state);
    let done = cold.update("write", &16_384_u32.to_le_bytes());
    assert!(common::error(&done).1.contains("heap out of bounds"));
    assert_eq!(cold.state.heap.pages.digest(), canister.state.heap.pages.digest());
}

#[test]
fn warm_instances_are_bounded_by_their_memory() {
    let config = EngineConfig {
        warm_bytes_max: 100 << 20,
        ..EngineConfig::default()
    };
    let engine = Arc::new(Engine::new(config).unwrap());
    let mut canister = Canister::with_engine(engine.clone(), wat::parse_str(MODULE).unwrap());
    // Better code would replace the instance.
    engine.finish_compiling();
    let empty = canister.state.clone();
    for index in 0..3 {
        canister.view.canister_id = replicore_types::CanisterId::from_index(index);
        canister.state = ExecutionState {
            warm_version: 0,
            ..empty.clone()
        };
        reply(&canister.update("fill", &[]));
        assert_eq!(
            engine.warm_instances().0,
            1,
            "two heaps of 64 MiB are more than 100 MiB"
        );
    }
    // The latest one stays.
    assert!(canister.update("read", &[0; 4]).stats.warm);
}
