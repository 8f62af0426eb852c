//! The replicated state: everything that the next round depends on.

mod activity;
mod audit;
mod call_context;
mod canister;
mod codec;
mod daily_blocks;
mod ingress_history;
mod live_execution;
mod paused_install;
mod queues;
mod streams;
mod system;

pub use activity::Activity;
pub use audit::BrokenPromise;
pub use call_context::{
    CallContext, CallContextAction, CallContextManager, CallOrigin, CallerInfo, NoAnswer, RegisteredCallback,
};
pub use canister::{CanisterState, PausedCall, Priority, RoundTurn, StartingPoint, WorkItem};
pub use codec::{CodecError, ItemKey, ItemParts, item_digest, state_hash, state_hash_of_digests};
pub use daily_blocks::DailyBlocks;
pub use ingress_history::{HistoryPiece, IngressHistory};
pub use live_execution::LiveExecution;
pub use paused_install::{InstallStart, LiveInstall, PausedInstall};
pub(crate) use queues::response_bytes;
pub use queues::{CanisterInput, CanisterMessage, CanisterQueues, InputTurn, Pair};
pub(crate) use streams::Peer;
pub use streams::{RangesOverlap, Streams};
pub use system::*;

use crate::certified_state::CertifiedState;
use crate::outcall::HttpOutcall;
use crate::threshold::{MasterPublicKeys, ThresholdRequest};
use imbl::{OrdMap, OrdSet};
use replicore_engine::ExecutionState;
use replicore_types::limits::HTTP_OUTCALL_TIMEOUT;
use replicore_types::{
    CallbackId, CanisterId, Cycles, Height, Ingress, MessageId, NodeId, NumBytes, NumInstructions, PrincipalId,
    Request, Response, SubnetConfig, SubnetId, Time,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Everything that the next round depends on. A clone is cheap; the round after it pays for what it touches.
#[derive(Clone, Debug)]
pub struct ReplicatedState {
    /// The canisters.
    pub canisters: OrdMap<CanisterId, Arc<CanisterState>>,
    /// The subnet and its progress.
    pub metadata: SystemMetadata,
    /// What became of ingress messages.
    pub ingress_history: IngressHistory,
    /// Messages to and from the management canister.
    pub subnet: SubnetState,
    /// Which canisters have something to do. Derived.
    pub(crate) activity: Activity,
    /// The certified tree of this state. Derived.
    pub certified: CertifiedState,
    /// Canisters changed since the last call of [`ReplicatedState::settle`].
    pub(crate) touched: BTreeSet<CanisterId>,
    /// Ingress statuses changed in this round.
    pub(crate) touched_statuses: Vec<MessageId>,
}

/// When a round has something to do although no message comes from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextRound {
    /// At once.
    Now,
    /// Whenever a round is due: heartbeats, and canisters that stop.
    Periodic,
    /// When batch time reaches this: a timer or a deadline.
    At(Time),
    /// Not before a message comes.
    OnMessage,
}

/// Facts about the subnet and its progress.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SystemMetadata {
    /// Height of the last batch executed.
    pub height: Height,
    /// Time of the last batch executed.
    pub time: Time,
    /// The subnet.
    pub subnet_id: SubnetId,
    /// What fees and limits depend on.
    pub subnet: SubnetConfig,
    /// DER encoding of the root key (133 bytes).
    pub root_key: Arc<[u8]>,
    /// DER encoding of the subnet's public key; the root key where the subnet is the root.
    pub subnet_public_key: Arc<[u8]>,
    /// Nodes and their public keys (DER).
    pub nodes: Arc<BTreeMap<NodeId, Arc<[u8]>>>,
    /// First and last canister id that the subnet may give out.
    pub canister_range: (CanisterId, CanisterId),
    /// Index of the canister id given out next.
    pub next_canister_index: u64,
    /// Hashes of the modules that the subnet has compiled: compiling them again costs less.
    pub known_modules: OrdSet<[u8; 32]>,
    /// Memory used by or allocated to all canisters.
    pub memory_taken: NumBytes,
    /// Sum of the compute allocations.
    pub compute_allocation_taken: u64,
    /// Batch time at which heartbeats were given out last.
    pub heartbeats_at: Time,
    /// The master public keys of the threshold keys that the subnet holds.
    pub threshold_public_keys: Arc<MasterPublicKeys>,
    /// Counters for `/subnet/<id>/metrics`.
    pub metrics: SubnetMetrics,
    /// How far the subnet had come at the end of each day.
    pub daily_blocks: DailyBlocks,
}

/// How many heights apart [`SubnetMetrics::canister_state_bytes`] is brought up to date.
const STATE_BYTES_INTERVAL: u64 = 10;

/// Counters of the subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetMetrics {
    /// Canisters on the subnet.
    pub canisters: u64,
    /// Bytes of canister state, as of the last height that was a multiple of ten.
    pub canister_state_bytes: u64,
    /// Cycles consumed since the subnet began, those of deleted canisters included.
    pub consumed_cycles: Cycles,
    /// The part of `consumed_cycles` that no canister counts: what deleted ones consumed or still had, and what came with
    /// messages that found nobody.
    pub consumed_without_canister: Cycles,
    /// Update-like messages executed.
    pub update_transactions: u64,
    /// Instructions executed.
    pub instructions: NumInstructions,
}

/// A call of the management canister that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubnetMessage {
    /// From a user.
    Ingress(Arc<Ingress>),
    /// From a canister.
    Request(Arc<Request>),
}

/// A management call that was taken up and is answered in a later round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetCallContext {
    /// The call.
    pub message: SubnetMessage,
    /// Attached cycles that are not consumed.
    pub cycles: Cycles,
    /// When it was taken up.
    pub time: Time,
    /// What it waits for.
    pub kind: SubnetCallKind,
}

/// What a management call waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubnetCallKind {
    /// `raw_rand`: the randomness of the next batch.
    RawRand,
    /// `http_request`: a response from outside, by way of a batch.
    HttpRequest(Arc<HttpOutcall>),
    /// A signature or a vetKey from who holds the secrets, by way of a batch.
    Threshold(Arc<ThresholdRequest>),
}

/// Messages to and from the management canister and its open calls.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SubnetState {
    /// Calls that wait for their turn.
    pub inbox: VecDeque<SubnetMessage>,
    /// Calls that wait for something outside the round.
    pub call_contexts: OrdMap<CallbackId, Arc<SubnetCallContext>>,
    /// Number of the call context created last.
    pub last_call_context: u64,
    /// Requests that leave the canisters of this subnet for a place that is reached in the next round: the management
    /// canister, and canisters that do not exist here.
    pub outbound: VecDeque<Arc<Request>>,
    /// Responses delivered in the next round.
    pub responses: VecDeque<Arc<Response>>,
    /// Messages for canisters of other subnets.
    pub streams: Streams,
    /// The code install that goes on in the next round: there is at most one.
    pub long_install: Option<PausedInstall>,
}

impl SubnetState {
    /// When the outcall that waits longest is given up.
    fn next_outcall_deadline(&self) -> Option<Time> {
        // Contexts are numbered in the order of their times.
        let mut contexts = self.call_contexts.values();
        let oldest = contexts.find(|context| matches!(context.kind, SubnetCallKind::HttpRequest(_)))?;
        Some(oldest.time.plus(HTTP_OUTCALL_TIMEOUT))
    }
}

/// What a new subnet starts from.
#[derive(Clone, Debug)]
pub struct Genesis {
    /// The subnet.
    pub subnet_id: SubnetId,
    /// What fees and limits depend on.
    pub subnet: SubnetConfig,
    /// DER encoding of the root key.
    pub root_key: Arc<[u8]>,
    /// Nodes and their public keys (DER).
    pub nodes: BTreeMap<NodeId, Arc<[u8]>>,
    /// Indices of the first and last canister id.
    pub canister_indices: (u64, u64),
    /// The master public keys of the threshold keys in `subnet`.
    pub threshold_public_keys: MasterPublicKeys,
}

impl ReplicatedState {
    /// Lets `name` see the Wasm side of every canister whose version has no name. No result depends on names.
    pub fn name_versions(&mut self, mut name: impl FnMut(&mut ExecutionState)) {
        let unnamed = |canister: &CanisterState| {
            let execution = canister.execution.as_ref();
            execution.is_some_and(|execution| execution.warm_version == 0)
        };
        let ids: Vec<CanisterId> = self
            .canisters
            .iter()
            .filter(|(_, canister)| unnamed(canister))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            if let Some(execution) = self
                .canisters
                .get_mut(&id)
                .and_then(|canister| Arc::make_mut(canister).execution.as_mut())
            {
                name(execution);
            }
        }
    }

    /// The empty state at height 0.
    pub fn genesis(genesis: Genesis) -> Self {
        let (first, last) = genesis.canister_indices;
        let metadata = SystemMetadata {
            height: Height(0),
            time: Time(0),
            subnet_id: genesis.subnet_id,
            subnet: genesis.subnet,
            root_key: genesis.root_key.clone(),
            subnet_public_key: genesis.root_key,
            nodes: Arc::new(genesis.nodes),
            canister_range: (CanisterId::from_index(first), CanisterId::from_index(last)),
            next_canister_index: first,
            known_modules: OrdSet::new(),
            memory_taken: NumBytes::ZERO,
            compute_allocation_taken: 0,
            heartbeats_at: Time(0),
            threshold_public_keys: Arc::new(genesis.threshold_public_keys),
            metrics: SubnetMetrics::default(),
            daily_blocks: DailyBlocks::default(),
        };
        let mut state = Self::empty(metadata, IngressHistory::default(), SubnetState::default());
        state.certified = CertifiedState::rebuild(&state);
        state
    }

    /// A state without canisters.
    pub(crate) fn empty(metadata: SystemMetadata, ingress_history: IngressHistory, subnet: SubnetState) -> Self {
        Self {
            canisters: OrdMap::new(),
            metadata,
            ingress_history,
            subnet,
            activity: Activity::default(),
            certified: CertifiedState::default(),
            touched: BTreeSet::new(),
            touched_statuses: Vec::new(),
        }
    }

    /// Brings totals and indices up to date with the canisters that were changed, and returns those.
    pub(crate) fn settle(&mut self) -> BTreeSet<CanisterId> {
        let touched = std::mem::take(&mut self.touched);
        for id in &touched {
            self.activity
                .update(*id, self.canisters.get(id).map(|canister| &**canister));
        }
        self.metadata.memory_taken = self.activity.memory_taken();
        self.metadata.compute_allocation_taken = self.activity.compute_allocation();
        self.metadata.metrics.canisters = self.activity.len() as u64;
        // Clients see it change at these heights only (interface specification, "Subnet information").
        if self.metadata.height.0.is_multiple_of(STATE_BYTES_INTERVAL) {
            self.metadata.metrics.canister_state_bytes = self.metadata.memory_taken.0;
        }
        self.metadata.metrics.consumed_cycles =
            self.metadata.metrics.consumed_without_canister + self.activity.consumed();
        touched
    }

    /// When the next round has something to do without a message from outside.
    pub fn next_round(&self) -> NextRound {
        let subnet = &self.subnet;
        let has_mail = !(subnet.inbox.is_empty() && subnet.outbound.is_empty() && subnet.responses.is_empty());
        let waits_for_randomness = || {
            subnet
                .call_contexts
                .values()
                .any(|context| context.kind == SubnetCallKind::RawRand)
        };
        if has_mail || subnet.long_install.is_some() || self.activity.is_anything_runnable() || waits_for_randomness() {
            return NextRound::Now;
        }
        if self.activity.heartbeats().next().is_some() || self.activity.stopping().next().is_some() {
            return NextRound::Periodic;
        }
        let deadlines = self.activity.next_deadline().into_iter();
        match deadlines.chain(subnet.next_outcall_deadline()).min() {
            Some(deadline) => NextRound::At(deadline),
            None => NextRound::OnMessage,
        }
    }

    /// Root of the certified tree: what the subnet signs.
    pub fn certified_root(&self) -> [u8; 32] {
        self.certified.root_hash()
    }

    /// A canister.
    pub fn canister(&self, id: &CanisterId) -> Option<&CanisterState> {
        self.canisters.get(id).map(|canister| &**canister)
    }

    /// A canister, to be changed. What it costs, whether it is active and what of it is certified is brought up to date
    /// at the end of the round.
    pub fn canister_mut(&mut self, id: &CanisterId) -> Option<&mut CanisterState> {
        let canister = self.canisters.get_mut(id)?;
        self.touched.insert(*id);
        Some(Arc::make_mut(canister))
    }

    /// True where the canister has a message or a code install between slices: it starts nothing else, and management
    /// calls about it wait.
    pub(crate) fn is_between_slices(&self, id: &CanisterId) -> bool {
        let installs = self
            .subnet
            .long_install
            .as_ref()
            .is_some_and(|install| install.canister == *id);
        installs || self.canister(id).is_some_and(|canister| canister.paused.is_some())
    }

    /// Adds a canister, or replaces it.
    pub fn insert_canister(&mut self, canister: CanisterState) {
        let id = canister.system.canister_id;
        self.touched.insert(id);
        self.canisters.insert(id, Arc::new(canister));
    }

    /// Takes a canister out for good.
    pub fn remove_canister(&mut self, id: &CanisterId) -> Option<Arc<CanisterState>> {
        self.touched.insert(*id);
        self.canisters.remove(id)
    }

    /// Records the status of an ingress message at the time of this batch.
    pub fn set_ingress_status(&mut self, id: MessageId, status: replicore_types::IngressStatus) {
        self.ingress_history.set(id, status, self.metadata.time);
        self.touched_statuses.push(id);
    }

    /// True for principals that count as the subnet itself.
    pub fn is_subnet(&self, principal: &PrincipalId) -> bool {
        *principal == self.metadata.subnet_id.0 || *principal == CanisterId::MANAGEMENT.0
    }
}
