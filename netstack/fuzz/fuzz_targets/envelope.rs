//! Any body to any endpoint: no panic, and what is accepted is verified the same way, cached or not, batched or alone.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| replicore_netstack::fuzzing::envelope(bytes));
