//! A module made from any bytes, vectors and tail calls included: both compiler tiers give the same results, counts,
//! memories and globals.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/common/generated.rs"]
mod generated;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(wasm) = generated::generate(bytes) {
        generated::compare_tiers(&wasm);
    }
});
