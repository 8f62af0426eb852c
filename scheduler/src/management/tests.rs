//! The management canister over a stub engine. Amounts, versions and reply bytes are those of the production replica.

mod code;
mod lifecycle;
mod outside;
mod settings;
mod snapshots;
mod stub;

pub use outside::outcall_for_test;
