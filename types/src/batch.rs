//! The unit of agreement: what a sequencer orders and a round executes.

use crate::{CallbackId, Cycles, Height, Ingress, Request, Response, ResponsePayload, SubnetId, Time};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

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
    /// What the streams of other subnets bring, each read from a certificate of its subnet.
    pub stream_slices: Vec<StreamSlice>,
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

/// A message from a canister of one subnet to a canister of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamMessage {
    /// A call.
    Request(Arc<Request>),
    /// The answer to a call.
    Response(Arc<Response>),
}

impl StreamMessage {
    /// Cycles that travel with it.
    pub fn cycles(&self) -> Cycles {
        match self {
            Self::Request(request) => request.payment,
            Self::Response(response) => response.refund,
        }
    }
}

/// The ends of the streams between two subnets, as one of them certifies them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHeader {
    /// Index of the oldest message that it keeps for the other.
    pub begin: u64,
    /// Index of the next message that it will send.
    pub end: u64,
    /// Messages of the other that it has taken over: the other need not keep them.
    pub received: u64,
}

/// Consecutive messages of one subnet's stream to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSlice {
    /// The subnet that sends.
    pub from: SubnetId,
    /// The header of its streams.
    pub header: StreamHeader,
    /// Index of the first message.
    pub begin: u64,
    /// The messages.
    pub messages: Vec<StreamMessage>,
}
