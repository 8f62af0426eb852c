//! One batch in, one round out: the deterministic step of the replica.
//!
//! [`execute_round`] takes the replicated state and a batch and gives the state after the round with its statistics.
//! The result is a function of the two: not of the number of cores, of timing, of caches or of which compiler tier ran.
//! Nothing here reads a clock or draws randomness; both come with the batch.

#![forbid(unsafe_code)]

mod apply;
pub mod certified_state;
mod charge;
mod context;
mod expire;
mod induct;
pub mod inspect;
pub mod limits;
pub mod management;
mod management_wave;
mod message;
pub mod outcall;
mod placement;
pub mod query;
mod round;
pub mod round_schedule;
mod round_statuses;
mod route;
mod run;
pub mod state;
mod stats;
mod streams;
mod subnet_calls;
mod tasks;
#[cfg(test)]
mod tests;
pub mod threshold;
mod workers;

pub use context::RoundContext;
pub use placement::keep_apart;
pub use round::execute_round;
pub use state::{CanisterState, NextRound, ReplicatedState};
pub use stats::RoundStats;
pub use workers::SchedulerCores;
