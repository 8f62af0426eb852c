//! The words in which System API functions refuse what a canister asks of them: part of what users read and tools match
//! on, full stops included.

mod common;

use common::{Canister, error, reply};
use replicore_engine::EntryPoint;
use replicore_types::{Cycles, Payload};
use std::sync::Arc;

/// Runs `body` as an update of a module with one page of heap and these imports.
fn run(imports: &str, body: &str) -> (String, String) {
    let mut canister = with_body("canister_update", imports, body);
    error(&canister.update("m", b""))
}

fn with_body(kind: &str, imports: &str, body: &str) -> Canister {
    Canister::new(&format!(
        r#"(module {imports}
            (import "ic0" "msg_reply" (func $msg_reply))
            (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
            (memory 1) (data (i32.const 0) "\ff\feabc")
            (func (export "{kind} m") {body}))"#
    ))
}

/// The first line of the text of a broken rule.
#[track_caller]
fn check(imports: &str, body: &str, expected: &str) {
    let (code, text) = run(imports, body);
    assert_eq!(code, "IC0504", "{text}");
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("Canister violated contract: ").unwrap_or(line);
    assert_eq!(line, expected);
}

#[test]
fn addresses_out_of_bounds_are_named_by_function_and_side() {
    let copy = |name: &str| format!(r#"(import "ic0" "{name}" (func $f (param i32 i32 i32)))"#);
    for (name, source) in [
        ("canister_self_copy", "id"),
        ("subnet_self_copy", "id"),
        ("root_key_copy", "bytes"),
        ("msg_caller_copy", "id"),
        ("msg_arg_data_copy", "payload"),
        ("msg_caller_info_data_copy", "info"),
    ] {
        let imports = copy(name);
        let beyond = "(call $f (i32.const 0) (i32.const 0) (i32.const 1000))";
        let (_, text) = run(&imports, beyond);
        let expected =
            format!("Canister violated contract: ic0.{name} {source}: src=0 + length=1000 exceeds the slice size=");
        assert!(text.starts_with(&expected), "{text}");
        // The heap is looked at first.
        let both = "(call $f (i32.const 65536) (i32.const 0) (i32.const 1000))";
        let expected = format!("ic0.{name} heap: src=65536 + length=1000 exceeds the slice size=65536.");
        check(&imports, both, &expected);
    }
    check(
        r#"(import "ic0" "canister_cycle_balance128" (func $f (param i32)))"#,
        "(call $f (i32.const 65521))",
        "ic0_canister_cycle_balance128 failed because dst + size is out of bounds.Found dst = 65521 and size = 16 while \
         must be <= 65536.",
    );
    check(
        r#"(import "ic0" "certified_data_set" (func $f (param i32 i32)))"#,
        "(call $f (i32.const 65530) (i32.const 10))",
        "ic0_certified_data_set failed because src + size is out of bounds. Found src = 65530 and size = 10 while src + \
         size must be <= 65536.",
    );
}

#[test]
fn certificates_are_read_within_their_bounds_and_in_queries_only() {
    let imports = r#"(import "ic0" "data_certificate_copy" (func $f (param i32 i32 i32)))
        (import "ic0" "data_certificate_size" (func $size (result i32)))"#;
    let mut canister = with_body(
        "canister_query",
        imports,
        "(call $f (i32.const 65536) (i32.const 5) (i32.const 7))",
    );
    let (_, text) = error(&canister.query("m", b""));
    let offset = "Canister violated contract: ic0_data_certificate_copy failed because offset + size is out of bounds. \
                  Found offset = 5 and size = 7 while offset + size must be <= 11.";
    assert!(text.starts_with(offset), "{text}");
    let mut canister = with_body(
        "canister_query",
        imports,
        "(call $f (i32.const 65536) (i32.const 5) (i32.const 6))",
    );
    let (_, text) = error(&canister.query("m", b""));
    let target = "Canister violated contract: ic0_data_certificate_copy failed because dst + size is out of bounds. \
                  Found dst = 65536 and size = 6 while dst + size must be <= 65536.";
    assert!(text.starts_with(target), "{text}");
    // A query that another canister makes has none: that is the wrong mode, too.
    let mut canister = with_body("canister_query", imports, "(drop (call $size))");
    let (_, text) = error(&canister.run(EntryPoint::Query {
        method: "m".into(),
        argument: Payload::default(),
        data_certificate: None,
    }));
    let mode =
        "Canister violated contract: \"ic0_data_certificate_size\" cannot be executed in non replicated query mode.";
    assert!(text.starts_with(mode), "{text}");
}

#[test]
fn answers_and_calls_in_the_wrong_order() {
    check(
        "",
        "(call $msg_reply) (call $msg_reply)",
        "ic0.msg_reply: the call is already replied.",
    );
    check(
        "",
        "(call $msg_reply) (call $append (i32.const 0) (i32.const 0))",
        "ic0.msg_reply_data_append: the call is already replied..",
    );
    check(
        r#"(import "ic0" "call_cycles_add128" (func $f (param i64 i64)))"#,
        "(call $f (i64.const 0) (i64.const 1))",
        "ic0_call_cycles_add128 called when no call is under construction..",
    );
    check(
        r#"(import "ic0" "call_data_append" (func $f (param i32 i32)))"#,
        "(call $f (i32.const 0) (i32.const 1))",
        "ic0.call_data_append called when no call is under construction..",
    );
}

#[test]
fn names_that_are_no_text() {
    check(
        r#"(import "ic0" "env_var_name_exists" (func $f (param i32 i32) (result i32)))"#,
        "(drop (call $f (i32.const 0) (i32.const 2)))",
        "ic0.env_var_name_exists: Variable name is not a valid UTF-8 string..",
    );
    check(
        r#"(import "ic0" "env_var_value_size" (func $f (param i32 i32) (result i32)))"#,
        "(drop (call $f (i32.const 0) (i32.const 200)))",
        "ic0.env_var_value_size: Variable name is too large.",
    );
    check(
        r#"(import "ic0" "env_var_value_copy" (func $f (param i32 i32 i32 i32 i32)))"#,
        "(call $f (i32.const 65536) (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 0))",
        "ic0.env_var_value_copy name: src=65536 + length=2 exceeds the slice size=65536.",
    );
    check(
        r#"(import "ic0" "cost_sign_with_ecdsa" (func $f (param i32 i32 i32 i32) (result i32)))"#,
        "(drop (call $f (i32.const 0) (i32.const 2) (i32.const 7) (i32.const 0)))",
        "Failed to decode key name \u{fffd}\u{fffd}.",
    );
}

#[test]
fn explicit_traps_keep_the_beginning_of_their_text() {
    let trap = r#"(import "ic0" "trap" (func $trap (param i32 i32)))"#;
    // 100,000 bytes reach out of the heap, the 32 KiB that are kept do not.
    let mut canister = with_body("canister_update", trap, "(call $trap (i32.const 2) (i32.const 100000))");
    let done = canister.update("m", b"");
    let (code, text) = error(&done);
    assert_eq!(code, "IC0503");
    assert!(
        text.starts_with("Canister called `ic0.trap` with message: 'abc"),
        "{:.80}",
        text
    );
    let mut canister = with_body("canister_update", trap, "(call $trap (i32.const 0) (i32.const 0))");
    let done = canister.update("m", b"");
    assert!(
        error(&done)
            .1
            .starts_with("Canister called `ic0.trap` with message: ''")
    );
    assert_eq!(&*done.changes.log[0].content, b"[TRAP]: (no message)");
}

#[test]
fn what_needs_a_memory_says_so() {
    let mut canister = Canister::new(
        r#"(module (import "ic0" "trap" (func $trap (param i32 i32)))
            (func (export "canister_update m") (call $trap (i32.const 0) (i32.const 0))))"#,
    );
    let (code, text) = error(&canister.update("m", b""));
    assert_eq!(code, "IC0504");
    assert!(
        text.starts_with("Canister violated contract: WebAssembly module must define memory.\n"),
        "{text}"
    );
}

/// A call that the balance could pay, were it not for the storage of the response that it waits for.
#[test]
fn calls_leave_the_freezing_threshold_for_the_room_that_they_take() {
    let imports = r#"
        (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
        (import "ic0" "call_with_best_effort_response" (func $best_effort (param i32)))
        (import "ic0" "call_perform" (func $perform (result i32)))"#;
    let call = |best_effort: &str| {
        format!(
            "(call $call_new (i32.const 2) (i32.const 1) (i32.const 2) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const 0))
            {best_effort}
            (i32.store (i32.const 8) (call $perform))
            (call $append (i32.const 8) (i32.const 4)) (call $msg_reply)"
        )
    };
    let answer = |best_effort: &str, balance: Cycles| {
        let mut canister = with_body("canister_update", imports, &call(best_effort));
        canister.view.balance = balance;
        reply(&canister.update("m", b""))[0]
    };
    // 40e9 instructions and 5e6 of the response, 2 MiB of it, the call, one byte of name.
    let fees = 40_000_000_000 + 5_000_000 + 2_097_152_000 + 260_000 + 1_000;
    let month_of_response = 2_097_152 * 317_500 * 2_592_000 / (1u128 << 30);
    let best_effort = "(call $best_effort (i32.const 10))";
    assert_eq!(answer("", Cycles(fees)), 2);
    assert_eq!(answer("", Cycles(fees + month_of_response - 1_000_000)), 2);
    assert_eq!(answer("", Cycles(fees + month_of_response + 1_000_000)), 0);
    assert_eq!(answer(best_effort, Cycles(fees + 1_000_000)), 0);
}

#[test]
fn outcalls_are_priced_by_their_work() {
    let parameters = candid::encode_one(Parameters {
        request_bytes: 100,
        http_roundtrip_time_ms: 20,
        raw_response_bytes: 1_000,
        transformed_response_bytes: 10,
        transform_instructions: 25,
    });
    let parameters = parameters.expect("a record has an encoding");
    let imports = r#"(import "ic0" "cost_http_request_v2" (func $cost (param i32 i32 i32)))
        (import "ic0" "msg_arg_data_size" (func $size (result i32)))
        (import "ic0" "msg_arg_data_copy" (func $copy (param i32 i32 i32)))"#;
    let body = "(call $copy (i32.const 100) (i32.const 0) (call $size))
        (call $cost (i32.const 100) (call $size) (i32.const 0))
        (call $append (i32.const 0) (i32.const 16)) (call $msg_reply)";
    let mut canister = with_body("canister_update", imports, body);
    let cost = reply(&canister.update("m", &parameters));
    let work = replicore_types::fees::HttpOutcallWork {
        request: replicore_types::NumBytes(100),
        roundtrip: std::time::Duration::from_millis(20),
        raw_response: replicore_types::NumBytes(1_000),
        transformed_response: replicore_types::NumBytes(10),
        transform: replicore_types::NumInstructions(25),
    };
    let expected = Arc::new(canister.view.clone()).subnet.http_request_fee_v2(work);
    assert_eq!(cost, expected.get().to_le_bytes());
    let (code, text) = error(&canister.update("m", b"DIDL"));
    assert_eq!(code, "IC0504");
    let beginning = "Canister violated contract: Failed to decode HttpRequestV2CostParams from Candid: ";
    assert!(text.starts_with(beginning), "{text}");
}

#[derive(candid::CandidType)]
struct Parameters {
    request_bytes: u64,
    http_roundtrip_time_ms: u64,
    raw_response_bytes: u64,
    transformed_response_bytes: u64,
    transform_instructions: u64,
}
