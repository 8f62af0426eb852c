//! Arbitrary modules: what passes validation comes out of instrumentation as a valid module.

use super::{prepare, prepare_for};
use crate::module::{CodeStyle, validate};
use proptest::prelude::*;
use wasm_smith::{Config, Module};

/// Modules that use what canister modules may use, so that many of them are accepted.
fn module(seed: &[u8]) -> Option<Vec<u8>> {
    let config = Config {
        max_imports: 0,
        max_memories: 1,
        max_tables: 1,
        max_memory32_bytes: 1 << 20,
        max_memory64_bytes: 1 << 20,
        max_table_elements: 100,
        gc_enabled: false,
        exceptions_enabled: false,
        relaxed_simd_enabled: false,
        threads_enabled: false,
        extended_const_enabled: false,
        wide_arithmetic_enabled: false,
        custom_page_sizes_enabled: false,
        table_max_size_required: true,
        ..Config::default()
    };
    Some(
        Module::new(config, &mut arbitrary::Unstructured::new(seed))
            .ok()?
            .to_bytes(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn instrumented_modules_are_valid(seed in proptest::collection::vec(any::<u8>(), 200..3000)) {
        if let Some(wasm) = module(&seed) && validate(&wasm).is_ok() {
            prepare(&wasm);
            prepare_for(&wasm, CodeStyle::Short);
        }
    }

    #[test]
    fn damaged_modules_do_not_panic(seed in proptest::collection::vec(any::<u8>(), 200..1000), at: usize, byte: u8) {
        if let Some(mut wasm) = module(&seed) {
            let at = at % wasm.len();
            wasm[at] = byte;
            if validate(&wasm).is_ok() {
                prepare(&wasm);
            }
        }
    }
}

/// The property above would hold of a generator that makes nothing acceptable.
#[test]
fn most_generated_modules_are_accepted() {
    let mut seed = [0_u8; 2000];
    let mut accepted = |n: &u8| {
        for (i, byte) in seed.iter_mut().enumerate() {
            *byte = (i as u8)
                .wrapping_mul(31)
                .wrapping_add((i / 7) as u8 ^ n.wrapping_mul(97));
        }
        module(&seed).is_some_and(|wasm| validate(&wasm).is_ok())
    };
    assert!((0..100).filter(|n| accepted(n)).count() > 10);
}
