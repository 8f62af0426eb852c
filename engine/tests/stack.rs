//! Where recursion ends: by the rule, hence the same in every build.

mod common;

use common::{Canister, error};
use replicore_types::WasmResult;

/// Stack in bytes, as the rule counts.
const STACK: u64 = 5 * 1024 * 1024 - 320;

#[test]
fn recursion_ends_where_the_production_replica_ends_it() {
    let mut canister = Canister::new(
        r#"(module (func $f (param i64) (result i64) (i64.add (i64.const 1) (call $f (local.get 0))))
             (func (export "canister_update u") (drop (call $f (i64.const 1)))))"#,
    );
    for _ in 0..2 {
        let done = canister.update("u", b"");
        assert_eq!(done.instructions.get(), 1_474_469);
        let (code, text) = error(&done);
        assert_eq!(code, "IC0502");
        let frames = "f\n".repeat(20);
        assert!(
            text.starts_with(&format!(
                "Canister trapped: stack overflow\nCanister Backtrace:\n{frames}.\n"
            )),
            "{text}"
        );
    }
}

#[test]
fn tail_calls_take_no_stack_and_returns_give_it_back() {
    let mut canister = Canister::new(
        r#"(module (import "ic0" "msg_reply" (func $msg_reply)) (table 1 funcref) (elem (i32.const 0) $tail)
             (func $leaf (result i32) (i32.const 1))
             (func $one (drop (call $leaf)))
             (func $tail (param i32) (call $one)
               (if (local.get 0) (then
                 (return_call_indirect (param i32) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0)))))
             (func (export "canister_update u") (call $tail (i32.const 1000000)) (call $msg_reply)))"#,
    );
    let done = canister.update("u", b"");
    assert!(
        matches!(done.result, Ok(Some(WasmResult::Reply(_)))),
        "{:?}",
        done.result
    );
}

/// A frame that is as large as they get still ends by the rule: its locals take machine stack in a baseline compiler.
#[test]
fn large_frames_end_by_the_rule_too() {
    const LOCALS: u64 = 20_000;
    let locals = "i64 ".repeat(LOCALS as usize);
    let mut canister = Canister::new(&format!(
        r#"(module (func $f (param i32) (local {locals}) (call $f (local.get 0)))
             (func (export "canister_update u") (call $f (i32.const 1))))"#
    ));
    let done = canister.update("u", b"");
    assert!(error(&done).1.starts_with("Canister trapped: stack overflow"));
    // Locals, one operand, three operators, a word.
    let frame = (LOCALS + 1 + 1 + 8).next_multiple_of(16);
    let calls = (STACK - 16) / frame;
    assert_eq!(done.instructions.get(), 7 + 7 * calls);
}

/// What a function said to be left when it called another one stays so at its end: the next message begins with all.
#[test]
fn a_message_has_the_whole_stack_whatever_ran_before() {
    let locals = "i64 ".repeat(20_000);
    let mut canister = Canister::new(&format!(
        r#"(module (import "ic0" "msg_reply" (func $msg_reply))
             (func $leaf) (func $middle (call $leaf) (call $msg_reply))
             (func (export "canister_update u") (local {locals}) (call $middle)))"#
    ));
    // Frames of 20,016 bytes would be too many after 262 messages.
    for message in 0..300 {
        let done = canister.update("u", b"");
        let replied = matches!(done.result, Ok(Some(WasmResult::Reply(_))));
        assert!(replied, "message {message}: {:?}", done.result);
    }
}
