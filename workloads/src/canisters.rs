//! The modelled applications, compiled. Sources and the script that rebuilds them are in `workloads/canisters`.

/// The token ledger (C): fixed accounts by principal, one transfer per call.
pub const LEDGER: &[u8] = include_bytes!("../canisters/ledger/ledger.wasm");

/// A web site: chunked uploads, certified HTTP answers (Rust).
pub const ASSETS: &[u8] = include_bytes!("../canisters/models/assets.wasm.gz");

/// Calls from canister to canister (Rust).
pub const CHAIN: &[u8] = include_bytes!("../canisters/models/chain.wasm.gz");

/// Hashes, matrices, pictures (Rust).
pub const COMPUTE: &[u8] = include_bytes!("../canisters/models/compute.wasm.gz");

/// An order book and a constant-product pool (Rust).
pub const EXCHANGE: &[u8] = include_bytes!("../canisters/models/exchange.wasm.gz");

/// Blocks and an index over them (Rust).
pub const EXPLORER: &[u8] = include_bytes!("../canisters/models/explorer.wasm.gz");

/// A world moved by heartbeats (Rust).
pub const GAME: &[u8] = include_bytes!("../canisters/models/game.wasm.gz");

/// One author of a social network (Rust).
pub const SOCIAL: &[u8] = include_bytes!("../canisters/models/social.wasm.gz");

/// A B-tree in stable memory (Rust).
pub const STORE: &[u8] = include_bytes!("../canisters/models/store.wasm.gz");
