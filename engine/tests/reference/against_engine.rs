//! The engine against the reference: the same module, the same messages.

#![allow(dead_code, reason = "every test binary uses a part of it")]

use super::{Ending, Machine, Module};
use crate::common::{self, Canister};
use arbitrary::Unstructured;
use replicore_engine::{Engine, EngineConfig, EntryPoint, Execute, GlobalValue, Tiers, WorkDone};
use replicore_types::{NumInstructions, OS_PAGE_BYTES, SubnetType};
use std::sync::{Arc, LazyLock};
use wasm_smith::Config;
use wasmparser::ValType;

/// Instructions that a message may use.
const LIMIT: u64 = 20_000;

/// What both sides know: no vectors, no references, no tail calls.
pub fn config() -> Config {
    Config {
        simd_enabled: false,
        reference_types_enabled: false,
        tail_call_enabled: false,
        max_memories: 1,
        max_tables: 1,
        max_instructions: 300,
        max_funcs: 8,
        max_memory32_bytes: 1 << 20,
        max_memory64_bytes: 1 << 20,
        memory_max_size_required: true,
        max_table_elements: 100,
        table_max_size_required: true,
        memory_offset_choices: wasm_smith::MemoryOffsetChoices(90, 8, 2),
        compact_imports_enabled: false,
        gc_enabled: false,
        exceptions_enabled: false,
        relaxed_simd_enabled: false,
        threads_enabled: false,
        extended_const_enabled: false,
        wide_arithmetic_enabled: false,
        custom_page_sizes_enabled: false,
        custom_descriptors_enabled: false,
        ..Config::default()
    }
}

const EXPORTS: &str = r#"(module
    (func (export "canister_update a")) (func (export "canister_update b")) (func (export "canister_update c")))"#;
const IMPORTS: &str = r#"(module (import "ic0" "performance_counter" (func (param i32) (result i64))))"#;

/// A canister that both sides can execute; `None` where these bytes make none.
pub fn canister_module(bytes: &[u8]) -> Option<Vec<u8>> {
    let config = Config {
        exports: Some(wat::parse_str(EXPORTS).expect("the names parse")),
        available_imports: Some(wat::parse_str(IMPORTS).expect("the imports parse")),
        ..config()
    };
    Some(
        wasm_smith::Module::new(config, &mut Unstructured::new(bytes))
            .ok()?
            .to_bytes(),
    )
}

fn engine(tiers: Tiers) -> Arc<Engine> {
    let config = EngineConfig {
        tiers,
        ..EngineConfig::default()
    };
    Arc::new(Engine::new(config).expect("the engine starts"))
}

/// An engine for each tier, the optimising one first.
pub static ENGINES: LazyLock<[Arc<Engine>; 2]> = LazyLock::new(|| [engine(Tiers::Optimised), engine(Tiers::Baseline)]);

/// Executes a module in both tiers and in the reference, and says whether it was accepted. They must agree in how every
/// message ends, in its instructions, and in heap and globals behind it.
pub fn compare(wasm: &[u8]) -> bool {
    compare_within(wasm, LIMIT)
}

/// The same where a message may use `limit` instructions.
pub fn compare_within(wasm: &[u8], limit: u64) -> bool {
    ENGINES.iter().all(|engine| compare_with(engine, wasm, limit))
}

fn compare_with(engine: &Arc<Engine>, wasm: &[u8], limit: u64) -> bool {
    let installed = engine.prepare(&common::module(wasm.to_vec()), SubnetType::Application);
    if installed.is_err() {
        return false;
    }
    let mut canister = Canister::with_engine(Arc::clone(engine), wasm.to_vec());
    canister.limits.message = NumInstructions(limit);
    canister.limits.slice = NumInstructions(limit);
    let module = Module::parse(wasm).expect("the engine accepts it");
    let mut machine = Machine::new(&module, limit);
    let text = || {
        let text = wasmprinter::print_bytes(wasm).unwrap_or_default();
        format!("{limit} instructions\n{text}")
    };
    let start = canister.run(EntryPoint::Start);
    if let Some(function) = module.start {
        assert_same(&start, machine.message(function), &text);
    }
    for method in ["a", "b", "c", "a", "b", "c"] {
        let expected = machine.message(module.exports[format!("canister_update {method}").as_str()]);
        let done = canister.update(method, b"");
        assert_same(&done, expected, &text);
        assert_eq!(heap(&canister), trimmed(&machine.memory), "{}", text());
        assert_eq!(
            canister.state.globals.to_vec(),
            mutable_globals(&module, &machine),
            "{}",
            text()
        );
    }
    true
}

#[track_caller]
fn assert_same(done: &WorkDone, (end, instructions): (Result<(), Ending>, u64), text: &impl Fn() -> String) {
    let described = match &done.result {
        Ok(_) => String::new(),
        Err(failed) => failed.error.description.clone(),
    };
    let expected = match end {
        Ok(()) => "",
        Err(Ending::Unreachable) => "unreachable",
        Err(Ending::HeapOutOfBounds) => "heap out of bounds",
        Err(Ending::TableOutOfBounds) => "table out of bounds",
        Err(Ending::DivisionByZero) => "integer division by 0",
        Err(Ending::WrongSignature) => "function invocation does not match its signature",
        Err(Ending::OtherTrap) => "unknown",
        Err(Ending::NoSuchCounter) => "Error getting performance counter type",
        Err(Ending::OutOfInstructions) => "exceeded the limit of ",
    };
    assert_eq!(end.is_ok(), described.is_empty(), "{end:?}, {described}\n{}", text());
    assert!(described.contains(expected), "{end:?}, {described}\n{}", text());
    assert_eq!(done.instructions.get(), instructions, "{end:?}\n{}", text());
}

/// The heap without the zeros at its end.
fn heap(canister: &Canister) -> Vec<u8> {
    let heap = &canister.state.heap;
    let mut bytes = vec![0; heap.size_wasm_pages as usize * 65_536];
    heap.pages.for_each_change(&Default::default(), |index, page| {
        if let Some(page) = page {
            let start = index.0 as usize * OS_PAGE_BYTES;
            bytes[start..start + OS_PAGE_BYTES].copy_from_slice(&*page);
        }
    });
    trimmed(&bytes)
}

fn trimmed(bytes: &[u8]) -> Vec<u8> {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes[..used].to_vec()
}

fn mutable_globals(module: &Module<'_>, machine: &Machine<'_, '_>) -> Vec<GlobalValue> {
    let globals = module.globals.iter().zip(&machine.globals);
    globals
        .filter(|((_, mutable, _), _)| *mutable)
        .map(|((ty, _, _), value)| match ty {
            ValType::I32 => GlobalValue::I32(*value as i32),
            ValType::I64 => GlobalValue::I64(*value as i64),
            ValType::F32 => GlobalValue::F32(*value as u32),
            _ => GlobalValue::F64(*value),
        })
        .collect()
}
