//! The same bytes in one piece and in pieces: no panic, and the same requests.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| replicore_netstack::fuzzing::http(bytes));
