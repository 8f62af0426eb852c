//! The stack that functions take by the rule.

use crate::module::validate;

/// The frame of a function with an `i64` parameter, an `i64` local and this body; 0 where it is not counted.
fn frame(body: &str) -> u32 {
    let text = format!(
        "(module (import \"ic0\" \"time\" (func $host (result i64))) (memory 1) (table 1 funcref)
           (func $f (param i64) (result i64) (local i64) {body})
           (func $leaf (param i64) (result i64) (local.get 0)))"
    );
    let wasm = wat::parse_str(&text).unwrap();
    let frame = validate(&wasm).unwrap_or_else(|error| panic!("{body}: {error}")).frames[0];
    if frame.counted { frame.bytes } else { 0 }
}

#[test]
fn functions_that_call_none_of_the_module_are_not_counted() {
    assert_eq!(frame("(local.get 0)"), 0);
    assert_eq!(frame("(call $host)"), 0);
    assert_eq!(frame("(return_call $f (local.get 0))"), 0);
    assert_eq!(frame("(call $leaf (local.get 0))"), 16);
    assert_eq!(
        frame("(call_indirect (param i64) (result i64) (local.get 0) (i32.const 0))"),
        16
    );
}

#[test]
fn operands_and_locals_that_are_read_again_survive_a_call() {
    // The frame that the production replica's stack overflow transcript shows.
    assert_eq!(frame("(i64.add (i64.const 1) (call $f (local.get 0)))"), 32);
    assert_eq!(frame("(i64.add (call $f (local.get 0)) (local.get 0))"), 32);
    assert_eq!(frame("(local.set 1 (call $f (local.get 0))) (local.get 1)"), 16);
    assert_eq!(frame("(drop (call $f (local.get 0))) (call $host)"), 32);
    // Two numbers, the first result and the instance.
    assert_eq!(
        frame("(i64.add (i64.const 1) (i64.add (call $f (local.get 0)) (call $f (local.get 0))))"),
        48
    );
}

#[test]
fn what_a_loop_reads_from_its_last_turn_survives_its_calls() {
    let turn = "(br_if 0 (i64.eqz (call $f (i64.const 1))))";
    assert_eq!(frame(&format!("(loop {turn}) (i64.const 1)")), 32);
    assert_eq!(
        frame(&format!(
            "(loop (drop (local.get 0)) (drop (local.get 1)) {turn}) (i64.const 1)"
        )),
        48
    );
    assert_eq!(
        frame(&format!(
            "(loop (local.set 1 (i64.const 1)) (drop (local.get 1)) {turn}) (i64.const 1)"
        )),
        32
    );
    assert_eq!(
        frame(&format!("(loop (drop (local.get 0))) (loop {turn}) (i64.const 1)")),
        32
    );
}

#[test]
fn large_functions_take_a_share_of_what_a_machine_needs() {
    let long = "(drop (i64.const 1))".repeat(1_000);
    // 2,003 operators, two locals and an operand.
    assert_eq!(
        frame(&format!("{long} (call $f (local.get 0))")),
        (2 + 1 + 2_003 / 4 + 8_u32).next_multiple_of(16)
    );
}
