//! A message in slices ends as it would have ended in one.

mod common;

use common::{Canister, error, reply};
use replicore_engine::{EntryPoint, Execute, ExecutionOutcome, InstructionLimits, WorkDone};
use replicore_types::{NumInstructions, Payload};
use std::sync::Arc;

const WORK: &str = r#"(module
    (import "ic0" "msg_reply" (func $msg_reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "performance_counter" (func $counter (param i32) (result i64)))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (memory (export "memory") 4)
    (func (export "canister_update work") (local $i i32)
        (drop (call $grow (i64.const 4)))
        (loop $next
            (i32.store (i32.mul (local.get $i) (i32.const 256)) (local.get $i))
            (call $write (i64.extend_i32_u (i32.mul (local.get $i) (i32.const 256))) (i64.const 0) (i64.const 900))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $i) (i32.const 1000))))
        (i64.store (i32.const 0) (call $counter (i32.const 0)))
        (call $append (i32.const 0) (i32.const 8)) (call $msg_reply))
    (func (export "canister_update forever") (loop $l (br $l)))
    (func (export "canister_update copy") (call $append (i32.const 0) (i32.const 100000)) (call $msg_reply)))"#;

/// Runs in slices; the number of pauses comes back too.
fn run(method: &str, message: u64, slice: u64) -> (WorkDone, u32, Canister) {
    let mut canister = Canister::new(WORK);
    canister.limits = InstructionLimits {
        message: NumInstructions(message),
        slice: NumInstructions(slice),
    };
    let view = Arc::new(canister.view.clone());
    let entry = EntryPoint::Update {
        method: method.into(),
        argument: Payload::default(),
    };
    let before = canister.state.heap.pages.digest();
    let call = canister.call(entry, &view);
    let mut outcome = canister.engine.execute(&mut canister.state, call, canister.limits);
    let (mut pauses, mut executed) = (0, 0);
    loop {
        match outcome {
            ExecutionOutcome::Finished(done) => return (*done, pauses, canister),
            ExecutionOutcome::Paused(paused) => {
                assert_eq!(
                    canister.state.heap.pages.digest(),
                    before,
                    "a paused message has changed nothing"
                );
                assert!(paused.instructions.get() > executed);
                executed = paused.instructions.get();
                pauses += 1;
                outcome = canister.engine.resume(&mut canister.state, paused);
            }
        }
    }
}

#[test]
fn slices_do_not_show() {
    let (whole, pauses, one) = run("work", 40_000_000, 40_000_000);
    assert_eq!(pauses, 0);
    for slice in [400_000, 99_991, 50_000] {
        let (sliced, pauses, other) = run("work", 40_000_000, slice);
        assert_eq!(reply(&sliced), reply(&whole));
        assert_eq!(sliced.instructions, whole.instructions);
        assert_eq!(sliced.stats.slices, pauses + 1);
        let expected = whole.instructions.get() / slice;
        assert!(
            u64::from(pauses) <= expected && u64::from(pauses) + 1 >= expected / 2,
            "{pauses} pauses of {slice}"
        );
        assert_eq!(other.state.heap.pages.digest(), one.state.heap.pages.digest());
        assert_eq!(other.state.stable.pages.digest(), one.state.stable.pages.digest());
    }
}

#[test]
fn the_message_limit_ends_all_slices() {
    let (done, pauses, _) = run("forever", 1_000_000, 100_000);
    let (code, text) = error(&done);
    assert_eq!(code, "IC0522");
    assert!(text.starts_with("Canister exceeded the limit of 1000000 instructions for single message execution.."));
    assert_eq!(done.instructions.get(), 1_000_000);
    assert_eq!(pauses, 9);
}

#[test]
fn one_operation_above_two_slices_is_refused() {
    let (done, _, _) = run("copy", 40_000_000, 2_000_000);
    let (code, text) = error(&done);
    assert_eq!(code, "IC0522");
    assert!(
        text.contains("used 5000513 instructions and exceeded the slice limit 2000000.."),
        "{text}"
    );
    assert_eq!(run("copy", 40_000_000, 4_000_000).0.instructions.get(), 5_001_013);
}

#[test]
fn a_paused_message_that_is_dropped_can_start_again() {
    let mut canister = Canister::new(WORK);
    canister.limits = InstructionLimits {
        message: NumInstructions(40_000_000),
        slice: NumInstructions(100_000),
    };
    let view = Arc::new(canister.view.clone());
    let entry = EntryPoint::Update {
        method: "work".into(),
        argument: Payload::default(),
    };
    let first = canister.call(entry, &view);
    let paused = canister
        .engine
        .execute(&mut canister.state, first.clone(), canister.limits);
    assert!(matches!(paused, ExecutionOutcome::Paused(_)));
    drop(paused);
    let again = canister.update("work", b"");
    assert_eq!(reply(&again), reply(&run("work", 40_000_000, 40_000_000).0));
}
