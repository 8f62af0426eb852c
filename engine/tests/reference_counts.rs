//! The engine against the reference interpreter, and the reference interpreter against an established one.
//!
//! `REPLICORE_CASES` sets the number of modules of each comparison; `engine/fuzz` makes the first without end.

mod common;
mod reference;

use arbitrary::Unstructured;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use reference::{Machine, Module, against_engine};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wasm_smith::Config;
use wasmparser::ValType;

/// Modules compared in an ordinary test run.
const CASES: u64 = 60;
/// The reference calls itself for calls.
const STACK_BYTES: usize = 512 << 20;

/// Runs `compare` for the number of modules that is asked for, made from different random bytes.
fn cases(compare: impl Fn(&[u8]) + Send + 'static) {
    let cases = std::env::var("REPLICORE_CASES").map_or(CASES, |cases| cases.parse().expect("a number"));
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let run = move || {
        let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        for _ in 0..cases {
            let mut bytes = vec![0; 4096];
            random.fill_bytes(&mut bytes);
            compare(&bytes);
        }
    };
    if let Err(panic) = thread.spawn(run).expect("a thread").join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn the_engine_counts_and_computes_as_the_reference_does() {
    let (tried, accepted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counts = (Arc::clone(&tried), Arc::clone(&accepted));
    cases(move |bytes| {
        if let Some(wasm) = against_engine::canister_module(bytes) {
            counts.0.fetch_add(1, Ordering::Relaxed);
            counts
                .1
                .fetch_add(u64::from(against_engine::compare(&wasm)), Ordering::Relaxed);
        }
    });
    let (tried, accepted) = (tried.load(Ordering::Relaxed), accepted.load(Ordering::Relaxed));
    assert!(accepted * 2 > tried, "{accepted} of {tried} modules accepted");
}

/// Calls of every function with these arguments, bits of any type.
const ARGUMENTS: [u64; 3] = [0, 7, 0xbff8_0000_c000_0001];

#[test]
fn the_reference_computes_as_an_established_interpreter_does() {
    cases(|bytes| {
        let config = Config {
            export_everything: true,
            allow_start_export: false,
            max_imports: 0,
            // Which NaN arithmetic gives is left to the machine where nobody says so.
            canonicalize_nans: true,
            ..against_engine::config()
        };
        let Ok(mut module) = wasm_smith::Module::new(config, &mut Unstructured::new(bytes)) else {
            return;
        };
        if module.ensure_termination(300).is_ok() {
            compare_with_established(&module.to_bytes());
        }
    });
}

fn compare_with_established(wasm: &[u8]) {
    let module = Module::parse(wasm).expect("generated modules are valid");
    let engine = wasmi::Engine::default();
    let mut store = wasmi::Store::new(&engine, ());
    let established = wasmi::Module::new(&engine, wasm).expect("valid for both");
    // Data segments may lie outside of the memory.
    let Ok(instance) = wasmi::Linker::new(&engine).instantiate_and_start(&mut store, &established) else {
        return;
    };
    let mut machine = Machine::new(&module, u64::MAX >> 1);
    for (name, function) in &module.exports {
        for argument in ARGUMENTS {
            let ty = module.function_type(*function);
            let arguments: Vec<u64> = ty.params().iter().map(|ty| of_width(*ty, argument)).collect();
            let inputs: Vec<_> = ty
                .params()
                .iter()
                .zip(&arguments)
                .map(|(ty, bits)| value(*ty, *bits))
                .collect();
            let mut outputs: Vec<_> = ty.results().iter().map(|ty| value(*ty, 0)).collect();
            let callee = instance.get_func(&store, name).expect("it is exported");
            let theirs = callee.call(&mut store, &inputs, &mut outputs);
            let ours = machine.call_export(*function, arguments);
            assert_eq!(theirs.is_ok(), ours.is_ok(), "{name}: {theirs:?} {ours:?}");
            if let Ok(ours) = ours {
                assert_eq!(outputs.iter().map(bits).collect::<Vec<_>>(), ours, "{name}");
            }
        }
    }
    let exports: Vec<_> = instance.exports(&store).map(|export| export.into_extern()).collect();
    for export in exports {
        if let Some(memory) = export.into_memory() {
            assert!(memory.data(&store) == machine.memory, "memories differ");
        }
    }
}

fn of_width(ty: ValType, bits: u64) -> u64 {
    match ty {
        ValType::I32 | ValType::F32 => bits & u64::from(u32::MAX),
        _ => bits,
    }
}

fn value(ty: ValType, bits: u64) -> wasmi::Val {
    match ty {
        ValType::I32 => wasmi::Val::I32(bits as i32),
        ValType::I64 => wasmi::Val::I64(bits as i64),
        ValType::F32 => wasmi::Val::F32(wasmi::F32::from_bits(bits as u32)),
        _ => wasmi::Val::F64(wasmi::F64::from_bits(bits)),
    }
}

fn bits(value: &wasmi::Val) -> u64 {
    match value {
        wasmi::Val::I32(value) => u64::from(*value as u32),
        wasmi::Val::I64(value) => *value as u64,
        wasmi::Val::F32(value) => u64::from(value.to_bits()),
        wasmi::Val::F64(value) => value.to_bits(),
        other => panic!("modules without references and vectors give none: {other:?}"),
    }
}
