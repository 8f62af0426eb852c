//! What `call_perform` takes and hands over.

mod common;

use common::{Canister, TIME, error, reply};
use replicore_types::limits::REPLY_BYTES_MAX;
use replicore_types::{CallbackId, CanisterId, CoarseTime, Cycles, NumBytes, PrincipalId};
use std::collections::BTreeMap;
use std::sync::Arc;

const CALLER: &str = r#"(module
    (import "ic0" "msg_reply" (func $msg_reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "canister_cycle_balance128" (func $balance (param i32)))
    (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "ic0" "call_on_cleanup" (func $on_cleanup (param i32 i32)))
    (import "ic0" "call_data_append" (func $data (param i32 i32)))
    (import "ic0" "call_cycles_add128" (func $cycles (param i64 i64)))
    (import "ic0" "call_with_best_effort_response" (func $best_effort (param i32)))
    (import "ic0" "call_perform" (func $perform (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\00\00\00\00\00\00\00\09\01\01echo")
    (func $new (call $call_new (i32.const 0) (i32.const 10) (i32.const 10) (i32.const 4)
        (i32.const 1) (i32.const 11) (i32.const 2) (i32.const 12)))
    (func $answer (param i32) (i32.store (i32.const 100) (local.get 0))
        (call $append (i32.const 100) (i32.const 4)) (call $msg_reply))"#;

/// A canister whose method `go` has this body.
fn canister(body: &str) -> Canister {
    Canister::new(&format!("{CALLER} (func (export \"canister_update go\") {body}))"))
}

/// Prepaid for any call's response on 13 nodes: 5 M + 40 G instructions, and 2 MiB transmitted.
const RESPONSE_EXECUTION: u128 = 40_005_000_000;
const RESPONSE_TRANSMISSION: u128 = 2_097_152_000;

#[test]
fn a_call_takes_fees_prepayments_and_what_is_attached() {
    let mut canister = canister(
        "(call $new) (call $data (i32.const 0) (i32.const 6)) (call $cycles (i64.const 0) (i64.const 1000))
         (call $on_cleanup (i32.const 3) (i32.const 13)) (call $answer (call $perform))",
    );
    let done = canister.update("go", b"");
    assert_eq!(reply(&done), 0u32.to_le_bytes());
    let transmission = 260_000 + 1_000 * 10;
    assert_eq!(
        done.changes.balance_taken,
        Cycles(transmission + RESPONSE_EXECUTION + RESPONSE_TRANSMISSION + 1_000)
    );
    let [call] = &done.changes.calls[..] else {
        panic!("one call")
    };
    assert_eq!(call.transmission_fee, Cycles(transmission));
    assert_eq!(call.callback_id, CallbackId(1));
    assert_eq!(call.request.sender_reply_callback, CallbackId(1));
    assert_eq!(call.request.receiver, CanisterId::from_index(9));
    assert_eq!(
        (call.request.method_name.as_str(), call.request.payload.as_slice()),
        ("echo", &[0u8; 6][..])
    );
    assert_eq!(
        (call.request.payment, call.callback.cycles_sent),
        (Cycles(1_000), Cycles(1_000))
    );
    assert_eq!(call.request.deadline, None);
    assert_eq!(
        call.callback.prepayment_for_response_execution,
        Cycles(RESPONSE_EXECUTION)
    );
    assert_eq!(
        call.callback.prepayment_for_response_transmission,
        Cycles(RESPONSE_TRANSMISSION)
    );
    let closures = [
        call.callback.on_reply,
        call.callback.on_reject,
        call.callback.on_cleanup.expect("a cleanup"),
    ];
    assert_eq!(
        closures.map(|closure| (closure.function, closure.environment)),
        [(1, 11), (2, 12), (3, 13)]
    );
}

#[test]
fn too_few_cycles_or_no_room_answer_2_and_cost_nothing() {
    let body = "(call $new) (call $cycles (i64.const 0) (i64.const 1000)) (call $answer (call $perform))";
    let price = 264_000 + RESPONSE_EXECUTION + RESPONSE_TRANSMISSION + 1_000;
    for (balance, answer) in [(price, 0u32), (price - 1, 2)] {
        let mut canister = canister(body);
        canister.view.balance = Cycles(balance);
        canister.view.freezing_threshold_seconds = 0;
        let done = canister.update("go", b"");
        assert_eq!(reply(&done), answer.to_le_bytes());
        assert_eq!(done.changes.balance_taken, Cycles(if answer == 0 { price } else { 0 }));
        assert_eq!(done.changes.calls.len(), usize::from(answer == 0));
    }
    let mut full = canister(body);
    full.view.free_slots = Arc::new(BTreeMap::from([(CanisterId::from_index(9), 0)]));
    assert_eq!(reply(&full.update("go", b"")), 2u32.to_le_bytes());
}

#[test]
fn a_message_makes_as_many_calls_as_callbacks_are_free() {
    for (free, answer) in [(0usize, 2u32), (1, 2), (2, 0)] {
        let mut canister = canister("(call $new) (drop (call $perform)) (call $new) (call $answer (call $perform))");
        canister.view.free_callbacks = free;
        let done = canister.update("go", b"");
        assert_eq!(reply(&done), answer.to_le_bytes());
        assert_eq!(done.changes.calls.len(), free);
    }
}

#[test]
fn a_message_sends_what_has_room_in_message_memory() {
    let twice = |deadline: &str| {
        format!("(call $new) {deadline} (drop (call $perform)) (call $new) {deadline} (call $answer (call $perform))")
    };
    let guaranteed = twice("");
    let best_effort = twice("(call $best_effort (i32.const 10))");
    let room = REPLY_BYTES_MAX as u64;
    for (body, free, answer) in [
        (&guaranteed, room - 1, 2u32),
        (&guaranteed, 2 * room - 1, 2),
        (&guaranteed, 2 * room, 0),
        (&best_effort, 2 * room, 0),
        (&best_effort, 7, 2),
        (&best_effort, 8, 0),
    ] {
        let mut canister = canister(body);
        canister.view.memory.message_memory_free = NumBytes(free);
        let done = canister.update("go", b"");
        assert_eq!(reply(&done), answer.to_le_bytes(), "{free}");
    }
}

#[test]
fn cycles_beyond_the_balance_end_the_message() {
    let mut canister =
        canister("(call $new) (call $cycles (i64.const 1) (i64.const 0)) (call $answer (call $perform))");
    let (code, text) = error(&canister.update("go", b""));
    assert_eq!(
        (code.as_str(), text.as_str()),
        ("IC0504", "Canister rwlgt-iiaaa-aaaaa-aaaaa-cai is out of cycles")
    );
}

#[test]
fn a_call_that_is_not_performed_gives_its_cycles_back() {
    let mut canister = canister(
        "(call $new) (call $cycles (i64.const 0) (i64.const 1000)) (call $new)
         (call $cycles (i64.const 0) (i64.const 5)) (call $balance (i32.const 200))
         (call $append (i32.const 200) (i32.const 16)) (call $answer (i32.const 0))",
    );
    let done = canister.update("go", b"");
    assert_eq!(reply(&done)[..16], (canister.view.balance.get() - 5).to_le_bytes());
    assert!(done.changes.balance_taken.is_zero() && done.changes.calls.is_empty());
}

#[test]
fn best_effort_calls_have_a_bounded_deadline_in_whole_seconds() {
    for (timeout, seconds) in [(0u32, 0), (17, 17), (100_000, 300)] {
        let mut canister = canister(&format!(
            "(call $new) (call $best_effort (i32.const {timeout})) (call $answer (call $perform))"
        ));
        let done = canister.update("go", b"");
        let expected = CoarseTime(CoarseTime::floor(TIME).0 + seconds);
        assert_eq!(done.changes.calls[0].request.deadline, Some(expected));
        assert_eq!(done.changes.calls[0].callback.deadline, Some(expected));
    }
}

#[test]
fn the_501st_call_to_one_canister_finds_no_room() {
    let mut canister = canister(
        "(local $i i32) (local $failed i32)
         (loop $l (call $new) (local.set $failed (i32.add (local.get $failed) (call $perform)))
           (local.set $i (i32.add (local.get $i) (i32.const 1))) (br_if $l (i32.lt_u (local.get $i) (i32.const 501))))
         (call $answer (local.get $failed))",
    );
    let done = canister.update("go", b"");
    assert_eq!(reply(&done), 2u32.to_le_bytes());
    assert_eq!(done.changes.calls.len(), 500);
    assert_eq!(done.changes.calls[499].callback_id, CallbackId(500));
}

#[test]
fn principals_longer_than_29_bytes_are_refused() {
    let mut canister = canister(
        "(call $call_new (i32.const 0) (i32.const 30) (i32.const 10) (i32.const 4)
            (i32.const 1) (i32.const 0) (i32.const 2) (i32.const 0)) (call $answer (i32.const 0))",
    );
    let (code, text) = error(&canister.update("go", b""));
    assert_eq!(code, "IC0504");
    assert!(
        text.starts_with("Canister provided invalid principal id.\nIf you are running"),
        "{text}"
    );
    assert!(PrincipalId::try_from_slice(&[0; 30]).is_err());
}
