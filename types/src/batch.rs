//! The unit of agreement: what a sequencer orders and a round executes.

use crate::{CallbackId, Height, Ingress, ResponsePayload, Time};
use serde::{Deserialize, Serialize};

/// 32 bytes that no message in the batch could have been chosen to fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Randomness(pub [u8; 32]);

/// Everything that enters one round. The state after a round is a function of the state before it and of the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// One more than the height of the batch before.
    pub height: Height,
    /// Strictly later than the time of the batch before.
    pub time: Time,
    /// Seed for `raw_rand` and everything else random.
    pub randomness: Randomness,
    /// Verified calls in the order of induction.
    pub messages: Vec<Ingress>,
    /// Answers that came from outside the subnet (HTTP outcalls).
    pub consensus_responses: Vec<ConsensusResponse>,
    /// After this round a checkpoint is taken.
    pub requires_checkpoint: bool,
}

/// The answer to a call that left the deterministic state: named by the subnet call context that waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsensusResponse {
    /// The waiting subnet call.
    pub callback: CallbackId,
    /// What came back.
    pub payload: ResponsePayload,
}
