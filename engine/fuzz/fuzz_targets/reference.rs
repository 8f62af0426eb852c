//! A module made from any bytes: both compiler tiers do and count what the reference interpreter does and counts.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/reference/mod.rs"]
mod reference;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(wasm) = reference::against_engine::canister_module(bytes) {
        // The reference calls itself for calls.
        let thread = std::thread::Builder::new().stack_size(256 << 20);
        let compared = thread.spawn(move || reference::against_engine::compare(&wasm));
        compared.expect("a thread").join().expect("both agree");
    }
});
