//! Profiles: their sums are the instructions that are reported, and nobody notices that they are made.
//!
//! `REPLICORE_CASES` sets the number of generated modules.

#[path = "common/generated.rs"]
mod generated;

mod common;

use common::{Canister, engine, reply};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use replicore_engine::profile::{CallNode, PAGES_CHANGED};
use replicore_engine::{Engine, EngineConfig, Tiers};
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Modules compared in an ordinary test run.
const CASES: u64 = 25;

fn profiling() -> Arc<Engine> {
    let config = EngineConfig {
        profile: true,
        modules_max: NonZeroUsize::MIN,
        ..EngineConfig::default()
    };
    Arc::new(Engine::new(config).expect("the engine starts"))
}

/// Every way out of a function: its end, a return, branches to its outermost label, a tail call, a trap; one result, two,
/// none.
const WAYS_OUT: &str = r#"(module
    (import "ic0" "msg_reply" (func $msg_reply))
    (memory 4)
    (func $end (param i32) (result i32) (i32.add (local.get 0) (i32.load offset=8192 (i32.const 4))))
    (func $returns (param i32) (result i32 i64)
        (block (br_if 0 (local.get 0)) (return (i32.const 1) (i64.const 2)))
        (i32.const 3) (i64.const 4))
    (func $branches (param i32)
        (block (loop (br_if 2 (local.get 0)) (br_table 1 1 2 (local.get 0))))
        (drop (call $end (i32.const 1))))
    (func $tail (param i32) (result i32) (return_call $end (local.get 0)))
    (func $recurses (param i32)
        (if (local.get 0) (then (call $recurses (i32.sub (local.get 0) (i32.const 1))))))
    (func (export "canister_update go")
        (drop (call $end (i32.const 1)))
        (call $returns (i32.const 0)) (drop) (drop)
        (call $returns (i32.const 1)) (drop) (drop)
        (call $branches (i32.const 0))
        (call $branches (i32.const 1))
        (drop (call $tail (i32.const 7)))
        (memory.copy (i32.const 0) (i32.const 12289) (i32.const 8192))
        (i32.store (i32.const 40960) (i32.const 1))
        (call $recurses (i32.const 1000))
        (call $msg_reply))
    (func (export "canister_update fail") (drop (call $tail (i32.const 1))) (unreachable)))"#;

#[test]
fn every_way_out_of_a_function_is_seen() {
    let wasm = wat::parse_str(WAYS_OUT).expect("the test's module parses");
    let engine = profiling();
    let mut profiled = Canister::with_engine(Arc::clone(&engine), wasm.clone());
    let mut plain = Canister::with_engine(common::engine(), wasm);
    for _ in 0..2 {
        let (seen, expected) = (profiled.update("go", b""), plain.update("go", b""));
        assert_eq!(
            (reply(&seen), seen.instructions),
            (reply(&expected), expected.instructions)
        );
        let (seen, expected) = (profiled.update("fail", b""), plain.update("fail", b""));
        assert_eq!(common::error(&seen), common::error(&expected));
        assert_eq!(seen.instructions, expected.instructions);
    }

    let profile = engine.profile().expect("the engine profiles");
    let id = profiled.view.canister_id;
    let go = &profile.entries[&(id, "canister_update go".to_owned())];
    let expected = plain.update("go", b"").instructions.get();
    assert_eq!((go.messages, go.failed), (2, 0));
    assert_eq!(go.calls.instructions(), go.instructions);
    assert!(
        go.instructions.abs_diff(2 * expected) <= 2_000,
        "one page more was new at first"
    );
    // The method itself is the one function without a name.
    let method = &go.calls.callees["function 6"];
    let calls = |name: &str| method.callees.get(name).map_or(0, |node| node.calls);
    assert_eq!(
        ["end", "returns", "branches", "tail", "recurses", "ic0.msg_reply"].map(calls),
        // A tail call stands in its caller's place.
        [4, 4, 4, 2, 2, 2]
    );
    assert_eq!(method.callees["branches"].callees["end"].calls, 2);
    assert_eq!(method.callees["ic0.msg_reply"].own_instructions, 2 * 500);
    assert_eq!(depth(&method.callees["recurses"]), 249, "deep calls are folded");
    assert_eq!(go.heap_pages_read.keys().copied().collect::<Vec<_>>(), [2, 3, 4, 5]);
    // What was copied were zeros over zeros.
    assert_eq!(
        go.heap_pages_written.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>(),
        [(10, 1)]
    );
    assert_eq!(go.calls.callees[PAGES_CHANGED].own_instructions, 1_000);

    let fail = &profile.entries[&(id, "canister_update fail".to_owned())];
    assert_eq!((fail.messages, fail.failed), (2, 2));
    assert_eq!(fail.calls.instructions(), fail.instructions);
}

fn depth(node: &CallNode) -> u64 {
    1 + node.callees.values().map(depth).max().unwrap_or(0)
}

#[test]
fn an_ordinary_engine_makes_no_profile() {
    assert!(engine().profile().is_none());
}

#[test]
fn generated_modules_do_the_same_when_profiled() {
    let cases = std::env::var("REPLICORE_CASES").map_or(CASES, |cases| cases.parse().expect("a number"));
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let plain = Arc::new(
        Engine::new(EngineConfig {
            tiers: replicore_engine::Tiers::Optimised,
            ..EngineConfig::default()
        })
        .expect("the engine starts"),
    );
    let (mut executed, mut accepted) = (0, 0);
    for _ in 0..cases {
        let mut bytes = vec![0; 4096];
        random.fill_bytes(&mut bytes);
        let Some(wasm) = generated::generate(&bytes) else {
            continue;
        };
        let engine = profiling();
        let trace = generated::execute(&engine, &wasm);
        let expected = generated::execute(&plain, &wasm);
        assert_eq!(
            trace,
            expected,
            "{}",
            wasmprinter::print_bytes(&wasm).unwrap_or_default()
        );
        let profile = engine.profile().expect("the engine profiles");
        let total: u64 = trace.messages.iter().map(|(_, instructions)| instructions).sum();
        let entries = profile.entries.values();
        assert_eq!(entries.clone().map(|entry| entry.instructions).sum::<u64>(), total);
        assert_eq!(entries.map(|entry| entry.calls.instructions()).sum::<u64>(), total);
        accepted += u64::from(trace.prepared.is_ok());
        executed += total;
    }
    assert!(
        accepted * 4 > cases && executed > 0,
        "{accepted} accepted, {executed} instructions"
    );
}

/// The next number of a dump.
fn number<const BYTES: usize>(bytes: &mut &[u8]) -> u64 {
    let mut wide = [0; 8];
    wide[..BYTES].copy_from_slice(&bytes[..BYTES]);
    *bytes = &bytes[BYTES..];
    u64::from_le_bytes(wide)
}

#[test]
#[cfg(target_endian = "little")]
fn perf_finds_the_code_of_functions() {
    let config = EngineConfig {
        jitdump: true,
        tiers: Tiers::Optimised,
        ..EngineConfig::default()
    };
    let path = format!("/tmp/jit-{}.dump", std::process::id());
    let engine = Arc::new(Engine::new(config.clone()).expect("the dump can be made"));
    assert!(Engine::new(config).is_err(), "a process has one dump");
    let wasm = wat::parse_str(WAYS_OUT).expect("the test's module parses");
    reply(&Canister::with_engine(engine, wasm).update("go", b""));
    let dump = std::fs::read(&path).expect("the dump is there");
    std::fs::remove_file(&path).expect("the dump is ours");
    let mut rest = &dump[..];
    let process = u64::from(std::process::id());
    let header: [u64; 6] = std::array::from_fn(|_| number::<4>(&mut rest));
    assert_eq!(
        [header[0], header[1], header[2], header[5]],
        [0x4A69_5444, 1, 40, process]
    );
    let began = number::<8>(&mut rest);
    assert_eq!(number::<8>(&mut rest), 0, "no flags");
    let (mut names, mut last) = (Vec::new(), began);
    while !rest.is_empty() {
        let record = rest;
        assert_eq!(number::<4>(&mut rest), 0, "only code that came");
        let bytes = number::<4>(&mut rest) as usize;
        let at = number::<8>(&mut rest);
        assert!(at >= last && began > 0);
        last = at;
        assert_eq!([number::<4>(&mut rest), number::<4>(&mut rest)], [process, process]);
        let [address, same, length, index]: [u64; 4] = std::array::from_fn(|_| number::<8>(&mut rest));
        assert!(address == same && address > 4096 && length > 0 && index == names.len() as u64);
        let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
        assert_eq!(bytes, 56 + name.len() + 1 + length as usize);
        names.push(String::from_utf8(name.to_vec()).expect("names are text"));
        rest = &record[bytes..];
    }
    for wanted in ["recurses", "instrumentation"] {
        let is_there = names
            .iter()
            .any(|name| name.contains("optimised") && name.contains(wanted));
        assert!(is_there, "no {wanted} in {names:?}");
    }
}

#[test]
fn perf_finds_the_names_of_functions() {
    let config = EngineConfig {
        perf_map: true,
        ..EngineConfig::default()
    };
    let path = format!("/tmp/perf-{}.map", std::process::id());
    let engine = Arc::new(Engine::new(config.clone()).expect("the map can be made"));
    assert!(Engine::new(config).is_err(), "a process has one map");
    let wasm = wat::parse_str(WAYS_OUT).expect("the test's module parses");
    reply(&Canister::with_engine(Arc::clone(&engine), wasm).update("go", b""));
    engine.finish_compiling();
    let map = std::fs::read_to_string(&path).expect("the map is there");
    std::fs::remove_file(&path).expect("the map is ours");
    for (tier, name) in [("optimised", "recurses"), ("optimised", "instrumentation")] {
        let line = map.lines().find(|line| line.contains(tier) && line.contains(name));
        let mut words = line.unwrap_or_else(|| panic!("no {tier} {name} in\n{map}")).split(' ');
        let mut number = || u64::from_str_radix(words.next().unwrap_or_default(), 16);
        assert!(number().unwrap() > 4096 && number().unwrap() > 0);
    }
}
