//! Modelled clients: identities that sign, a small agent that speaks the public HTTP interface, and load that drives it.
//!
//! Nothing here knows the replica from the inside: what it drives may be any endpoint that speaks the interface.

#![forbid(unsafe_code)]

pub mod agent;
pub mod arrival;
pub mod canisters;
pub mod certificate;
pub mod error;
pub mod http;
pub mod identity;
pub mod ledger;
pub mod load;
pub mod login;
pub mod management;
pub mod models;
pub mod passkey;
pub mod recording;
pub mod request;
pub mod skew;
pub mod workload;

pub use agent::{Agent, AgentError, CallOutcome, Embedded};
pub use error::WorkloadError;
pub use identity::Identity;
pub use workload::{Deployed, Operation, Scale, Workload};
