//! Instruction counts of System API calls, as published and as observed in production.

mod common;

use common::{Canister, reply};

/// One method a case: its name, its code before `msg_reply`, its instructions.
const CASES: &[(&str, &str, u64)] = &[
    ("empty", "", 506),
    ("append_nothing", "(call $append (i32.const 0) (i32.const 0))", 1_013),
    ("append_100", "(call $append (i32.const 0) (i32.const 100))", 6_013),
    (
        "append_twice",
        "(call $append (i32.const 0) (i32.const 3)) (call $append (i32.const 0) (i32.const 4))",
        1_870,
    ),
    ("print_100", "(call $print (i32.const 0) (i32.const 100))", 5_813),
    ("print_5000", "(call $print (i32.const 0) (i32.const 5000))", 213_605),
    ("time", "(drop (call $time))", 1_012),
    ("counter", "(drop (call $counter (i32.const 0)))", 713),
    (
        "controller",
        "(drop (call $controller (i32.const 0) (i32.const 10)))",
        1_524,
    ),
    ("certified", "(call $certified (i32.const 0) (i32.const 32))", 1_045),
    ("balance", "(call $balance (i32.const 8))", 2_012),
    ("stable_size", "(drop (call $size))", 512),
    ("grow_nothing", "(drop (call $grow (i64.const 0)))", 613),
    ("grow_too_much", "(drop (call $grow (i64.const 100000000)))", 613),
    (
        "write_nothing",
        "(call $write (i64.const 0) (i64.const 0) (i64.const 0))",
        534,
    ),
    (
        "write_1",
        "(call $write (i64.const 0) (i64.const 0) (i64.const 1))",
        1_535,
    ),
    (
        "write_5000",
        "(call $write (i64.const 0) (i64.const 0) (i64.const 5000))",
        7_534,
    ),
    (
        "write_pages",
        "(call $write (i64.const 4090) (i64.const 0) (i64.const 30000))",
        39_534,
    ),
    (
        "write_again",
        "(call $write (i64.const 4090) (i64.const 0) (i64.const 30000))
         (call $write (i64.const 4090) (i64.const 0) (i64.const 30000))",
        69_562,
    ),
    (
        "read_100",
        "(call $read (i64.const 1000) (i64.const 100000) (i64.const 100))",
        634,
    ),
];

#[test]
fn system_api_calls_cost_what_is_published() {
    let methods: String = CASES
        .iter()
        .map(|(name, code, _)| format!(r#"(func (export "canister_update {name}") {code} (call $msg_reply))"#))
        .collect();
    let mut canister = Canister::new(&format!(
        r#"(module
            (import "ic0" "msg_reply" (func $msg_reply))
            (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
            (import "ic0" "debug_print" (func $print (param i32 i32)))
            (import "ic0" "time" (func $time (result i64)))
            (import "ic0" "performance_counter" (func $counter (param i32) (result i64)))
            (import "ic0" "is_controller" (func $controller (param i32 i32) (result i32)))
            (import "ic0" "certified_data_set" (func $certified (param i32 i32)))
            (import "ic0" "canister_cycle_balance128" (func $balance (param i32)))
            (import "ic0" "stable64_size" (func $size (result i64)))
            (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
            (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
            (import "ic0" "stable64_read" (func $read (param i64 i64 i64)))
            (memory (export "memory") 1)
            (func (export "canister_update setup") (drop (call $grow (i64.const 2))) (call $msg_reply))
            {methods})"#
    ));
    reply(&canister.update("setup", b""));
    for (name, _, instructions) in CASES {
        let done = canister.update(name, b"");
        reply(&done);
        assert_eq!(done.instructions.get(), *instructions, "{name}");
        assert!(done.stats.warm);
    }
}

#[test]
fn wasm64_pays_four_times_for_a_changed_page() {
    let module = |address: &str| {
        format!(
            r#"(module (import "ic0" "msg_reply" (func $msg_reply)) (memory {} 1)
                (func (export "canister_update store") (i32.store ({address}.const 0) (i32.const 7)) (call $msg_reply)))"#,
            if address == "i64" { "i64" } else { "" }
        )
    };
    let narrow = Canister::new(&module("i32")).update("store", b"").instructions.get();
    let wide = Canister::new(&module("i64")).update("store", b"").instructions.get();
    assert_eq!(narrow, 506 + 3 + 1_000);
    assert_eq!(wide, 506 + 4 + 4_000);
}
