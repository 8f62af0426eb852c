//! Modelled clients: identities that sign, a small agent that speaks the public HTTP interface, and load that drives it.
//!
//! Nothing here knows the replica from the inside: what it drives may be any endpoint that speaks the interface.

#![forbid(unsafe_code)]

pub mod agent;
pub mod canisters;
pub mod certificate;
pub mod http;
pub mod identity;
pub mod ledger;
pub mod request;

pub use agent::{Agent, AgentError, CallOutcome};
pub use identity::Identity;
