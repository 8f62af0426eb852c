//! The modelled applications, compiled. Sources and the script that rebuilds them are in `workloads/canisters`.

/// The token ledger (C): fixed accounts by principal, one transfer per call.
pub const LEDGER: &[u8] = include_bytes!("../canisters/ledger/ledger.wasm");
