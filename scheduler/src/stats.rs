//! What a round did, for the rim to record. No result depends on it.

use replicore_types::Height;

/// What a batch came to: the counters of its round, the requests that it finished, and the certified root after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoundStats {
    /// Height of the batch.
    pub height: Height,
    /// Ingress messages of the batch that were inducted.
    pub ingress_inducted: u64,
    /// Ingress messages of the batch that were refused with an error status.
    pub ingress_refused: u64,
    /// Ingress messages of the batch that were dropped: duplicates and expired ones.
    pub ingress_dropped: u64,
    /// Messages and tasks executed; a slice counts as one.
    pub messages_executed: u64,
    /// Those of them that failed.
    pub messages_failed: u64,
    /// Calls of the management canister executed.
    pub management_calls: u64,
    /// Instructions executed by canisters.
    pub instructions: u64,
    /// Bytes of pages written.
    pub heap_delta_bytes: u64,
    /// Messages delivered from canister to canister.
    pub messages_routed: u64,
    /// Messages taken over from other subnets.
    pub stream_messages_received: u64,
    /// Iterations.
    pub iterations: u32,
    /// Canisters changed.
    pub canisters_touched: u64,
    /// Canisters with something left to execute.
    pub canisters_waiting: u64,
    /// Ingress statuses that became final in this round, in the order of their request ids.
    pub finished: Vec<replicore_types::MessageId>,
    /// Root of the certified state after the round.
    pub root_hash: [u8; 32],
}
