//! The modelled applications, compiled. Sources and the script that rebuilds them are in `workloads/canisters`.

/// The small token ledger (C) of demonstrations and figures: accounts by principal, one transfer per call.
pub const LEDGER: &[u8] = include_bytes!("../canisters/ledger/ledger.wasm");

/// A table by columns (Rust).
pub const ANALYTICS: &[u8] = include_bytes!("../canisters/models/analytics.wasm.gz");

/// Blocks that a token's ledger has put away (Rust).
pub const ARCHIVE: &[u8] = include_bytes!("../canisters/models/archive.wasm.gz");

/// A web site: chunked uploads, certified HTTP answers (Rust).
pub const ASSETS: &[u8] = include_bytes!("../canisters/models/assets.wasm.gz");

/// Calls from canister to canister (Rust).
pub const CHAIN: &[u8] = include_bytes!("../canisters/models/chain.wasm.gz");

/// Hashes, QR codes, thumbnails (Rust).
pub const COMPUTE: &[u8] = include_bytes!("../canisters/models/compute.wasm.gz");

/// An order book and a constant-product pool (Rust).
pub const EXCHANGE: &[u8] = include_bytes!("../canisters/models/exchange.wasm.gz");

/// Blocks and an index over them (Rust).
pub const EXPLORER: &[u8] = include_bytes!("../canisters/models/explorer.wasm.gz");

/// Makes canisters for users and upgrades them in waves (Rust).
pub const FLEET: &[u8] = include_bytes!("../canisters/models/fleet.wasm.gz");

/// A world moved by heartbeats (Rust).
pub const GAME: &[u8] = include_bytes!("../canisters/models/game.wasm.gz");

/// Proposals, ballots, following (Rust).
pub const GOVERNANCE: &[u8] = include_bytes!("../canisters/models/governance.wasm.gz");

/// A convolutional network (Rust).
pub const INFERENCE: &[u8] = include_bytes!("../canisters/models/inference.wasm.gz");

/// Logs users in with canister signatures (Rust).
pub const ISSUER: &[u8] = include_bytes!("../canisters/models/issuer.wasm.gz");

/// What a fleet makes for each user (Rust). Not compressed: the fleet appends to it.
pub const MEMBER: &[u8] = include_bytes!("../canisters/models/member.wasm");

/// A collection of tokens that are all different (Rust).
pub const NFT: &[u8] = include_bytes!("../canisters/models/nft.wasm.gz");

/// One author of a social network (Rust).
pub const SOCIAL: &[u8] = include_bytes!("../canisters/models/social.wasm.gz");

/// A B-tree in stable memory (Rust).
pub const STORE: &[u8] = include_bytes!("../canisters/models/store.wasm.gz");

/// A fungible token: ICRC-1, ICRC-2, ICRC-3 (Rust).
pub const TOKEN: &[u8] = include_bytes!("../canisters/models/token.wasm.gz");
