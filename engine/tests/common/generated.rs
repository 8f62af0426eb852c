//! Canister modules made from arbitrary bytes, and what happens when they are executed.

#![allow(dead_code, reason = "every test binary uses a part of the helpers")]

use crate::common::{Canister, module};
use arbitrary::Unstructured;
use replicore_engine::{Engine, EngineConfig, EntryPoint, Execute, GlobalValue, Tiers, WriteTracking};
use replicore_types::{NumInstructions, SubnetType};
use std::num::NonZeroUsize;
use std::sync::{Arc, LazyLock};
use wasm_smith::{Config, Module};

/// Names and types of what generated modules export.
const EXPORTS: &str = r#"(module
    (func (export "canister_update a")) (func (export "canister_update b")) (func (export "canister_update c")))"#;
/// System API functions that they may call.
const IMPORTS: &str = r#"(module
    (import "ic0" "performance_counter" (func (param i32) (result i64)))
    (import "ic0" "stable64_grow" (func (param i64) (result i64)))
    (import "ic0" "stable64_write" (func (param i64 i64 i64)))
    (import "ic0" "msg_reply_data_append" (func (param i32 i32)))
    (import "ic0" "trap" (func (param i32 i32))))"#;

/// Instructions that a message may use: generated loops need not end.
const LIMIT: u64 = 100_000;

/// A module from these bytes; `None` where they are too few for one.
pub fn generate(bytes: &[u8]) -> Option<Vec<u8>> {
    // The baseline compiler refuses modules with tail calls: most are made without.
    let rare = bytes.first().is_some_and(|byte| *byte < 40);
    let config = Config {
        tail_call_enabled: rare,
        reference_types_enabled: rare,
        exports: Some(wat::parse_str(EXPORTS).expect("the names parse")),
        available_imports: Some(wat::parse_str(IMPORTS).expect("the imports parse")),
        max_memories: 1,
        max_tables: 1,
        max_instructions: 300,
        max_funcs: 8,
        max_memory32_bytes: 1 << 20,
        max_memory64_bytes: 1 << 20,
        max_table_elements: 100,
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
        table_max_size_required: true,
        ..Config::default()
    };
    Some(Module::new(config, &mut Unstructured::new(bytes)).ok()?.to_bytes())
}

/// Everything that a canister or its users can observe of an execution.
#[derive(Debug, PartialEq, Eq)]
pub struct Trace {
    /// Code and text of the refusal, or the charge for the module.
    pub prepared: Result<u64, (String, String)>,
    /// For every message: how it ended, and its instructions.
    pub messages: Vec<(String, u64)>,
    /// Hashes of heap and stable memory.
    pub memories: Option<[[u8; 32]; 2]>,
    pub heap_wasm_pages: u64,
    pub globals: Vec<GlobalValue>,
}

/// Installs the module on an engine and sends it every method twice.
pub fn execute(engine: &Arc<Engine>, wasm: &[u8]) -> Trace {
    let prepared = match engine.prepare(&module(wasm.to_vec()), SubnetType::Application) {
        Ok(prepared) => prepared,
        Err((error, _)) => {
            return Trace {
                prepared: Err((error.code.to_string(), error.description)),
                messages: Vec::new(),
                memories: None,
                heap_wasm_pages: 0,
                globals: Vec::new(),
            };
        }
    };
    let mut canister = Canister::with_engine(Arc::clone(engine), wasm.to_vec());
    canister.limits.message = NumInstructions(LIMIT);
    canister.limits.slice = NumInstructions(LIMIT / 3);
    let mut messages = Vec::new();
    let start = canister.run(EntryPoint::Start);
    messages.push((format!("{:?}", start.result), start.instructions.get()));
    for _ in 0..2 {
        for method in ["a", "b", "c"] {
            let done = canister.update(method, b"");
            messages.push((format!("{:?}", done.result), done.instructions.get()));
        }
    }
    let state = &canister.state;
    Trace {
        prepared: Ok(prepared.compile_instructions.get()),
        messages,
        memories: Some([state.heap.pages.digest(), state.stable.pages.digest()]),
        heap_wasm_pages: state.heap.size_wasm_pages,
        globals: state.globals.to_vec(),
    }
}

fn engine(tiers: Tiers, write_tracking: WriteTracking) -> Arc<Engine> {
    Arc::new(
        Engine::new(EngineConfig {
            tiers,
            write_tracking,
            modules_max: NonZeroUsize::MIN,
            warm_canisters_max: 1,
            ..EngineConfig::default()
        })
        .expect("the engine starts"),
    )
}

/// Executes a module in both tiers, and with the other way to find what was written. They must agree in everything; what
/// they agree on is returned.
pub fn compare_tiers(wasm: &[u8]) -> Trace {
    static OPTIMISED: LazyLock<Arc<Engine>> = LazyLock::new(|| engine(Tiers::Optimised, WriteTracking::Barrier));
    static OTHERS: LazyLock<[Arc<Engine>; 2]> = LazyLock::new(|| {
        [
            engine(Tiers::Baseline, WriteTracking::Barrier),
            engine(Tiers::Baseline, WriteTracking::Faults),
        ]
    });
    let optimised = execute(&OPTIMISED, wasm);
    for other in OTHERS.iter() {
        let text = || wasmprinter::print_bytes(wasm).unwrap_or_default();
        assert_eq!(optimised, execute(other, wasm), "{}", text());
    }
    optimised
}
