//! Which NaN a canister sees: arithmetic gives the canonical one, and bits that were only moved stay as they were.

mod common;

use common::Canister;
use replicore_engine::{Engine, EngineConfig, GlobalValue, Tiers};
use std::sync::Arc;

/// A NaN that no arithmetic gives, as a constant.
const ODD: &str = "(f64.const -nan:0x4000000000123)";
const ODD_BITS: u64 = 0xfff4_0000_0000_0123;
const CANONICAL: u64 = 0x7ff8_0000_0000_0000;
const NEGATIVE: u64 = CANONICAL | 1 << 63;

/// Code that leaves a double, with locals `$a`, `$b` and `$c` and a parameter `$odd`, and the bits it must have. The
/// heap begins with the odd NaN; `(call $same X)` gives its parameter.
const CASES: &[(&str, u64)] = &[
    // Moved
    ("(f64.load (i32.const 0))", ODD_BITS),
    ("(local.get $odd)", ODD_BITS),
    ("(local.set $a (local.get $odd)) (local.get $a)", ODD_BITS),
    ("(call $same (f64.load (i32.const 0)))", ODD_BITS),
    ("(block (result f64) (local.get $odd))", ODD_BITS),
    ("(select (local.get $odd) (f64.const 1) (i32.const 1))", ODD_BITS),
    ("(f64.neg (local.get $odd))", ODD_BITS & !(1 << 63)),
    // Made
    ("(f64.add (local.get $odd) (f64.const 1))", CANONICAL),
    ("(f64.div (f64.const 0) (f64.const 0))", CANONICAL),
    ("(f64.sqrt (f64.const -1))", CANONICAL),
    ("(f64.sub (f64.const inf) (f64.const inf))", CANONICAL),
    ("(f64.promote_f32 (f32.demote_f64 (local.get $odd)))", CANONICAL),
    // Bits of what was made are seen
    ("(f64.neg (f64.div (f64.const 0) (f64.const 0)))", NEGATIVE),
    ("(f64.abs (f64.mul (local.get $odd) (f64.const 2)))", CANONICAL),
    (
        "(f64.copysign (f64.const 1) (f64.add (local.get $odd) (f64.const 1)))",
        0x3ff0_0000_0000_0000,
    ),
    (
        "(f64.reinterpret_i64 (i64.reinterpret_f64 (f64.sqrt (f64.const -1))))",
        CANONICAL,
    ),
    ("(call $same (f64.min (local.get $odd) (f64.const 1)))", CANONICAL),
    // Through locals
    (
        "(local.set $a (f64.mul (local.get $odd) (f64.const 2))) (local.get $a)",
        CANONICAL,
    ),
    (
        "(local.set $a (f64.sqrt (f64.const -1))) (local.set $b (local.get $a))
         (local.set $c (f64.add (local.get $b) (f64.const 1))) (local.get $c)",
        CANONICAL,
    ),
    ("(local.tee $a (f64.sqrt (f64.const -1)))", CANONICAL),
    // One local holds what was moved, at times, and what was made, at others
    (
        "(local.set $a (f64.sqrt (f64.const -1))) (local.set $a (local.get $odd)) (local.get $a)",
        ODD_BITS,
    ),
    (
        "(local.set $a (local.get $odd)) (local.set $a (f64.add (local.get $a) (f64.const 1))) (local.get $a)",
        CANONICAL,
    ),
    (
        "(loop (local.set $b (local.get $a)) (local.set $a (f64.add (local.get $odd) (local.get $b)))
           (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 3))))
         (local.get $b)",
        CANONICAL,
    ),
    // Where control meets
    (
        "(if (result f64) (i32.const 1) (then (f64.sqrt (f64.const -1))) (else (local.get $odd)))",
        CANONICAL,
    ),
    (
        "(block (result f64) (br 0 (f64.sqrt (f64.const -1))) (unreachable))",
        CANONICAL,
    ),
    (
        "(block (result f64) (drop (br_if 0 (f64.sqrt (f64.const -1)) (i32.const 1))) (f64.const 0))",
        CANONICAL,
    ),
    (
        "(select (f64.sqrt (f64.const -1)) (local.get $odd) (i32.const 0))",
        ODD_BITS,
    ),
    (
        "(select (f64.sqrt (f64.const -1)) (f64.const 2) (i32.const 1))",
        CANONICAL,
    ),
    // Lanes
    (
        "(f64x2.extract_lane 1 (f64x2.add (f64x2.splat (local.get $odd)) (f64x2.splat (f64.const 1))))",
        CANONICAL,
    ),
    ("(f64x2.extract_lane 0 (f64x2.splat (local.get $odd)))", ODD_BITS),
    (
        "(f64.reinterpret_i64 (i64x2.extract_lane 0 (f32x4.add
           (f64x2.mul (f64x2.splat (local.get $odd)) (f64x2.splat (f64.const 1))) (v128.const i64x2 0 0))))",
        0x7fc0_0000_0000_0000,
    ),
];

#[test]
fn nans_are_canonical_where_they_were_made_and_untouched_where_they_were_moved() {
    let functions: String = CASES
        .iter()
        .enumerate()
        .map(|(number, (code, _))| {
            format!(
                r#"(func $case{number} (param $odd f64) (result f64) (local $a f64) (local $b f64) (local $c f64) (local $i i32)
                     {code})
                   (func (export "canister_update {number}") (global.set $seen (call $case{number} {ODD})))"#
            )
        })
        .collect();
    let module = format!(
        r#"(module (memory 1) (data (i32.const 0) "\23\01\00\00\00\00\f4\ff") (global $seen (mut f64) (f64.const 0))
             (func $same (param f64) (result f64) (local.get 0)) {functions})"#
    );
    for tiers in [Tiers::Optimised, Tiers::Baseline] {
        let engine = Engine::new(EngineConfig {
            tiers,
            ..EngineConfig::default()
        });
        let wasm = wat::parse_str(&module).unwrap();
        let mut canister = Canister::with_engine(Arc::new(engine.unwrap()), wasm);
        for (number, (code, expected)) in CASES.iter().enumerate() {
            let done = canister.update(&number.to_string(), b"");
            assert!(done.result.is_ok(), "{code}: {:?}", done.result);
            assert_eq!(
                *canister.state.globals,
                [GlobalValue::F64(*expected)],
                "{tiers:?} {code}"
            );
        }
    }
}
