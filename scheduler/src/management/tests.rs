//! The management canister over a stub engine. Amounts, versions and reply bytes are those of the production replica.

mod code;
mod lifecycle;
mod settings;
mod snapshots;
mod stub;
