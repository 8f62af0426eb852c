//! One batch in, one round out: the deterministic step of the replica.
//!
//! [`execute_round`] takes the replicated state and a batch and gives the state after the round with its statistics.
//! The result is a function of the two: not of the number of cores, of timing, of caches or of which compiler tier ran.
//! Nothing here reads a clock or draws randomness; both come with the batch.

#![forbid(unsafe_code)]

pub mod certified_state;
pub mod management;
pub mod state;

pub use state::{CanisterState, ReplicatedState};
