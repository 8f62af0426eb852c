//! Code gets better between messages, and nobody notices.

mod common;

use common::{Canister, reply};
use replicore_engine::{Engine, EngineConfig, Tiers};
use std::sync::Arc;

/// Adds up floats, among them a NaN whose bits are observed, and counts its calls.
const MODULE: &str = r#"(module
    (import "ic0" "msg_reply" (func $msg_reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (memory 1)
    (global $calls (mut i32) (i32.const 0))
    (func (export "canister_update go") (local $sum f64)
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (local.set $sum (f64.div (f64.load (i32.const 1024)) (f64.load (i32.const 1024))))
        (f64.store (i32.const 0) (f64.add (local.get $sum) (f64.reinterpret_i64 (i64.const 0xfff8dead00000001))))
        (f32.store (i32.const 8) (f32.sqrt (f32.const -1)))
        (v128.store (i32.const 16) (f32x4.add (v128.const i32x4 0x7fa00000 0 0 0x7f800000)
                                              (v128.const i32x4 0 0 0 0xff800000)))
        (i32.store (i32.const 32) (global.get $calls))
        (call $append (i32.const 0) (i32.const 36))
        (call $msg_reply)))"#;

fn engine(tiers: Tiers) -> Arc<Engine> {
    let config = EngineConfig {
        tiers,
        ..EngineConfig::default()
    };
    Arc::new(Engine::new(config).expect("the engine starts"))
}

#[test]
fn optimised_code_takes_over_between_messages() {
    let wasm = wat::parse_str(MODULE).expect("the test's module parses");
    let mut traces = Vec::new();
    for tiers in [Tiers::Baseline, Tiers::Both, Tiers::Optimised] {
        let engine = engine(tiers);
        let mut canister = Canister::with_engine(Arc::clone(&engine), wasm.clone());
        let mut trace = Vec::new();
        for message in 0..3 {
            let done = canister.update("go", b"");
            trace.push((reply(&done), done.instructions));
            // The first message may still meet baseline code; the second meets a new instance with the better code.
            let cold = message == 0 || (tiers == Tiers::Both && message == 1);
            assert_eq!(done.stats.warm, !cold, "{tiers:?}, message {message}");
            engine.finish_compiling();
        }
        traces.push(trace);
    }
    assert_eq!(traces[0], traces[1]);
    assert_eq!(traces[1], traces[2]);
    let (bytes, _) = &traces[0][2];
    assert_eq!(bytes[..8], 0x7ff8_0000_0000_0000_u64.to_le_bytes());
    assert_eq!(bytes[8..12], 0x7fc0_0000_u32.to_le_bytes());
    assert_eq!(bytes[16..20], 0x7fc0_0000_u32.to_le_bytes());
    assert_eq!(bytes[28..32], 0x7fc0_0000_u32.to_le_bytes());
    assert_eq!(bytes[32..], 3_u32.to_le_bytes());
}

#[test]
fn what_the_baseline_compiler_cannot_compile_the_other_does() {
    let mut canister = Canister::with_engine(
        engine(Tiers::Baseline),
        wat::parse_str(
            r#"(module (import "ic0" "msg_reply" (func $msg_reply))
                 (func (export "canister_update go") (return_call $msg_reply)))"#,
        )
        .expect("the test's module parses"),
    );
    reply(&canister.update("go", b""));
}
