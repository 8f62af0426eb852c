//! What a failed message leaves behind: nothing but its charge, its text and its log.

mod common;

use common::{Canister, error, reply};
use replicore_engine::{EntryPoint, ResponseView, WasmClosure};
use replicore_types::{Cycles, NumBytes, NumInstructions, Payload};

const COUNTER: &str = r#"(module
    (import "ic0" "msg_reply" (func $msg_reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "stable64_grow" (func $stable_grow (param i64) (result i64)))
    (import "ic0" "stable64_write" (func $stable_write (param i64 i64 i64)))
    (import "ic0" "stable64_read" (func $stable_read (param i64 i64 i64)))
    (import "ic0" "stable64_size" (func $stable_size (result i64)))
    (import "ic0" "debug_print" (func $print (param i32 i32)))
    (import "ic0" "trap" (func $trap (param i32 i32)))
    (memory (export "memory") 1)
    (table 3 funcref) (elem (i32.const 0) $callback $plain)
    (data (i32.const 100) "hello")
    (global $count (mut i64) (i64.const 0))
    (func $bump
        (global.set $count (i64.add (global.get $count) (i64.const 1)))
        (i64.store (i32.const 4093) (i64.mul (global.get $count) (i64.const 0x0101010101010101)))
        (i64.store (i32.const 20000) (global.get $count))
        (drop (call $stable_grow (i64.const 1)))
        (call $stable_write (i64.const 4090) (i64.const 4093) (i64.const 8)))
    (func $callback (param i32) unreachable)
    (func $plain)
    (func (export "canister_update bump") (call $bump) (call $msg_reply))
    (func (export "canister_update bump_grow") (call $bump) (drop (memory.grow (i32.const 1)))
        (i32.store (i32.const 70000) (i32.const 7)) (call $msg_reply))
    (func (export "canister_update bump_trap") (call $bump) unreachable)
    (func (export "canister_update grow_trap") (call $bump) (drop (memory.grow (i32.const 1))) unreachable)
    (func (export "canister_update say_trap") (call $print (i32.const 100) (i32.const 5)) (call $bump)
        (call $trap (i32.const 100) (i32.const 5)))
    (func (export "canister_update rewrite") (i32.store (i32.const 0) (i32.const 9)) (i32.store (i32.const 0) (i32.const 0))
        (call $msg_reply))
    (func (export "canister_query bump_query") (call $bump) (call $get))
    (func $get (export "canister_query get")
        (i64.store (i32.const 0) (global.get $count)) (call $append (i32.const 0) (i32.const 8))
        (call $append (i32.const 4093) (i32.const 8)) (call $append (i32.const 20000) (i32.const 8))
        (i64.store (i32.const 0) (call $stable_size)) (call $append (i32.const 0) (i32.const 8))
        (i32.store (i32.const 0) (memory.size)) (call $append (i32.const 0) (i32.const 4))
        (if (i64.ne (call $stable_size) (i64.const 0)) (then
            (call $stable_read (i64.const 0) (i64.const 4090) (i64.const 8)) (call $append (i32.const 0) (i32.const 8))))
        (call $msg_reply)))"#;

/// Everything that the canister can tell about its state.
fn state_of(canister: &mut Canister) -> Vec<u8> {
    reply(&canister.query("get", b""))
}

#[test]
fn a_trap_undoes_heap_globals_stable_memory_and_growth() {
    for failing in ["bump_trap", "grow_trap", "say_trap"] {
        let mut canister = Canister::new(COUNTER);
        reply(&canister.update("bump", b""));
        let before = state_of(&mut canister);
        let (heap, stable) = (canister.state.heap.pages.digest(), canister.state.stable.pages.digest());
        for _ in 0..3 {
            error(&canister.update(failing, b""));
            assert_eq!(state_of(&mut canister), before, "{failing}");
            assert_eq!(canister.state.heap.pages.digest(), heap);
            assert_eq!(canister.state.stable.pages.digest(), stable);
            assert_eq!(canister.state.heap.size_wasm_pages, 1);
        }
        reply(&canister.update("bump", b""));
        assert_eq!(state_of(&mut canister)[..8], 2u64.to_le_bytes());
    }
}

#[test]
fn a_trap_pays_for_the_pages_that_it_changed() {
    let mut canister = Canister::new(COUNTER);
    let good = canister.update("bump", b"");
    let bad = canister.update("bump_trap", b"");
    // The same work, but `unreachable` (1) instead of the call of `msg_reply` (5 + 500).
    assert_eq!(good.instructions.get() - bad.instructions.get(), 504);
    assert_eq!(
        good.stats.heap_pages_dirtied, 3,
        "a store over a page boundary changes both pages"
    );
}

#[test]
fn pages_written_with_their_old_content_are_free() {
    let mut canister = Canister::new(COUNTER);
    let done = canister.update("rewrite", b"");
    assert_eq!((done.stats.heap_pages_dirtied, done.instructions.get()), (0, 506 + 6));
}

#[test]
fn explicit_traps_say_their_text_and_are_logged() {
    let mut canister = Canister::new(COUNTER);
    let done = canister.update("say_trap", b"");
    let (code, text) = error(&done);
    assert_eq!(code, "IC0503");
    assert!(
        text.starts_with("Canister called `ic0.trap` with message: 'hello'"),
        "{text}"
    );
    let log: Vec<_> = done
        .changes
        .log
        .iter()
        .map(|record| String::from_utf8_lossy(&record.content))
        .collect();
    assert_eq!(log, ["hello", "[TRAP]: hello"]);
    assert!(done.changes.calls.is_empty() && done.changes.balance_taken.is_zero());
}

#[test]
fn queries_leave_no_trace() {
    let mut canister = Canister::new(COUNTER);
    reply(&canister.update("bump", b""));
    let before = state_of(&mut canister);
    let version = canister.state.warm_version;
    for _ in 0..3 {
        let seen = reply(&canister.query("bump_query", b""));
        assert_eq!(seen[..8], 2u64.to_le_bytes());
        assert_eq!(state_of(&mut canister), before);
        assert_eq!(canister.state.warm_version, version);
    }
    let replicated = canister.run(EntryPoint::ReplicatedQuery {
        method: "bump_query".into(),
        argument: Payload::default(),
    });
    assert_eq!(reply(&replicated)[..8], 2u64.to_le_bytes());
    assert_eq!(state_of(&mut canister), before);
}

#[test]
fn warm_and_cold_instances_give_the_same() {
    let mut warm = Canister::new(COUNTER);
    let mut cold = Canister::new(COUNTER);
    for method in ["bump", "bump_trap", "bump_grow", "bump", "grow_trap", "rewrite", "bump"] {
        cold.engine = common::engine();
        let (warm_done, cold_done) = (warm.update(method, b""), cold.update(method, b""));
        assert!(!cold_done.stats.warm);
        assert_eq!(warm_done.instructions, cold_done.instructions, "{method}");
        assert_eq!(warm_done.result, cold_done.result, "{method}");
        assert_eq!(
            warm.state.heap.pages.digest(),
            cold.state.heap.pages.digest(),
            "{method}"
        );
        assert_eq!(
            warm.state.stable.pages.digest(),
            cold.state.stable.pages.digest(),
            "{method}"
        );
        assert_eq!(warm.state.globals, cold.state.globals, "{method}");
    }
    assert_eq!(state_of(&mut warm), state_of(&mut cold));
}

#[test]
fn a_state_that_was_changed_outside_is_noticed() {
    let mut canister = Canister::new(COUNTER);
    let initial = canister.state.clone();
    reply(&canister.update("bump", b""));
    let later = canister.state.clone();
    let bumped = state_of(&mut canister);
    canister.state = initial;
    canister.state.warm_version = 0;
    assert_eq!(state_of(&mut canister)[..8], 0u64.to_le_bytes());
    canister.state = later;
    assert_eq!(state_of(&mut canister), bumped);
}

#[test]
fn callbacks_that_cannot_run_cost_nothing() {
    let mut canister = Canister::new(COUNTER);
    let mut callback = |function: u64| {
        canister.run(EntryPoint::Callback {
            closure: WasmClosure {
                function,
                environment: 0,
            },
            response: ResponseView::Reply(Payload::default()),
            refund: Cycles::ZERO,
            composite: false,
        })
    };
    let cases = [
        (
            1,
            "IC0504",
            "Canister violated contract: function invocation does not match its signature.",
        ),
        (
            2,
            "IC0504",
            "Canister violated contract: unexpected null function reference.",
        ),
        (
            3,
            "IC0513",
            "Canister requested to invoke a non-existent Wasm function 3 from table 0.",
        ),
    ];
    for (function, code, text) in cases {
        let done = callback(function);
        assert_eq!(error(&done).0, code);
        assert!(error(&done).1.starts_with(text), "{}", error(&done).1);
        assert_eq!(done.instructions, NumInstructions(0));
    }
    assert!(
        error(&callback(0))
            .1
            .starts_with("Canister trapped: unreachable\nCanister Backtrace:\ncallback\n")
    );
}

#[test]
fn methods_that_do_not_exist_are_named() {
    let mut canister = Canister::new(COUNTER);
    let (code, text) = error(&canister.update("nope", b""));
    assert_eq!(code, "IC0536");
    assert!(
        text.starts_with("Canister has no update method 'nope'..\nCheck that the method"),
        "{text}"
    );
}

#[test]
fn the_heap_limit_ends_the_message() {
    let mut canister = Canister::new(COUNTER);
    canister.view.memory.wasm_memory_limit = NumBytes(65_536);
    let (code, text) = error(&canister.update("bump_grow", b""));
    assert_eq!(code, "IC0539");
    assert!(
        text.contains("limit of 65536 bytes. The peak Wasm memory usage was 131072 bytes"),
        "{text}"
    );
    assert_eq!(canister.state.heap.size_wasm_pages, 1);
}

#[test]
fn deep_recursion_overflows_the_stack() {
    let mut canister = Canister::new(
        r#"(module (memory (export "memory") 1)
            (func $r (param i64) (result i64) (i64.add (i64.const 1) (call $r (local.get 0))))
            (func (export "canister_update u") (drop (call $r (i64.const 1)))))"#,
    );
    let done = canister.update("u", b"");
    let (code, text) = error(&done);
    assert_eq!(code, "IC0502");
    assert!(
        text.starts_with("Canister trapped: stack overflow\nCanister Backtrace:\nr\nr\n"),
        "{text}"
    );
    assert_eq!(text.matches("\nr").count(), 20);
}
