//! What is the same for every message of a round.

use crate::limits;
use crate::state::ReplicatedState;
use replicore_types::limits::{
    MESSAGE_INSTRUCTIONS_MAX, QUERY_INSTRUCTIONS_MAX, SLICE_INSTRUCTIONS_MAX, SUBNET_MEMORY_BYTES_MAX,
    SYSTEM_MESSAGE_INSTRUCTIONS_MAX,
};
use replicore_types::{
    CanisterId, Height, NumBytes, NumInstructions, Randomness, SubnetConfig, SubnetId, SubnetType, Time,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is the same for every message of a round.
#[derive(Clone, Debug)]
pub struct RoundContext {
    /// Height of the batch.
    pub height: Height,
    /// Time of the batch.
    pub time: Time,
    /// Randomness of the batch.
    pub randomness: Randomness,
    /// The subnet.
    pub subnet_id: SubnetId,
    /// What fees and limits depend on.
    pub subnet: SubnetConfig,
    /// DER encoding of the root key.
    pub root_key: Arc<[u8]>,
    /// Memory used by or allocated to all canisters when the iteration began.
    pub subnet_memory_taken: NumBytes,
    /// Open calls that a canister may hold.
    pub callbacks_allowed: usize,
    /// Memory of messages that a canister may hold.
    pub message_memory_allowed: NumBytes,
    /// Shared by the canisters without open calls: all their response slots are free.
    pub(crate) all_slots_free: Arc<BTreeMap<CanisterId, usize>>,
}

impl RoundContext {
    /// The context of a round on `state`, whose metadata holds height and time of the batch.
    pub fn new(state: &ReplicatedState, randomness: Randomness) -> Self {
        let metadata = &state.metadata;
        Self {
            height: metadata.height,
            time: metadata.time,
            randomness,
            subnet_id: metadata.subnet_id,
            subnet: metadata.subnet,
            root_key: metadata.root_key.clone(),
            subnet_memory_taken: metadata.memory_taken,
            callbacks_allowed: limits::callbacks_allowed(state.activity.callbacks()),
            message_memory_allowed: limits::message_memory_allowed(state.activity.message_memory()),
            all_slots_free: Arc::default(),
        }
    }

    /// Instructions that one message may use.
    pub fn message_instructions_max(&self) -> NumInstructions {
        NumInstructions(match self.subnet.subnet_type {
            SubnetType::System => SYSTEM_MESSAGE_INSTRUCTIONS_MAX,
            SubnetType::Application | SubnetType::VerifiedApplication | SubnetType::CloudEngine => {
                MESSAGE_INSTRUCTIONS_MAX
            }
        })
    }

    /// Instructions that a query called as an update may use.
    pub fn replicated_query_instructions_max(&self) -> NumInstructions {
        NumInstructions(match self.subnet.subnet_type {
            SubnetType::System => SYSTEM_MESSAGE_INSTRUCTIONS_MAX,
            SubnetType::Application | SubnetType::VerifiedApplication | SubnetType::CloudEngine => {
                QUERY_INSTRUCTIONS_MAX
            }
        })
    }

    /// Instructions after which a message pauses until the next round.
    pub fn slice_instructions_max(&self) -> NumInstructions {
        NumInstructions(SLICE_INSTRUCTIONS_MAX)
    }

    /// Subnet memory that canisters may still take.
    pub fn subnet_memory_free(&self) -> NumBytes {
        NumBytes(SUBNET_MEMORY_BYTES_MAX) - self.subnet_memory_taken
    }
}
