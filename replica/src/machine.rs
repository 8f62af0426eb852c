//! The deterministic part alone: state, engine, and the step from batch to batch.

use crate::certification::RootKey;
use crate::outside::ThresholdSecrets;
use crate::snapshot::CertifiedSnapshot;
use crate::spans::{Spans, TracedExecution};
use replicore_engine::{DataCertificate, Engine};
use replicore_netstack::QueryResponse;
use replicore_persistence::StoredMemory;
use replicore_scheduler::query::QueryCall;
use replicore_scheduler::state::Genesis;
use replicore_scheduler::{ReplicatedState, RoundStats, SchedulerCores, execute_round};
use replicore_types::{Batch, CanisterId, Ingress, NodeId, Payload, PrincipalId, SubnetConfig, SubnetId, UserError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Canister ids that belong to the subnet: the first 2^26 of the canonical numbering. They include the well-known ids of
/// system canisters that tools look for, so that their absence can be certified here.
pub const CANISTER_INDICES: (u64, u64) = (0, (1 << 26) - 1);

/// A replicated state and the engine that executes batches on it: what an embedder drives with its own ordering.
///
/// A batch changes the state in place wherever nobody else holds it; a clone of the state, as readers keep one, costs the
/// next batch a copy of every node that it touches.
pub struct StateMachine {
    /// Out while a batch is executed, and for good where that panicked.
    state: Option<ReplicatedState>,
    engine: Arc<Engine>,
    cores: SchedulerCores,
}

impl StateMachine {
    /// A machine in the given state. `cores` never changes a result.
    pub fn new(mut state: ReplicatedState, engine: Arc<Engine>, cores: SchedulerCores) -> Self {
        // Names are not persisted. Without them queries would find no warm instance until a canister's next update.
        state.name_versions(|execution| engine.name_version(execution));
        Self {
            state: Some(state),
            engine,
            cores,
        }
    }

    /// The same machine, whose rounds make all of the certified tree anew instead of what changed: what there is to measure
    /// the incremental tree against. The roots are the same.
    #[must_use]
    pub fn rebuilding_the_tree(mut self) -> Self {
        self.state_mut().certified.rebuild_always();
        self
    }

    /// An empty subnet with made-up keys, for tests and transcripts.
    pub fn for_test(subnet: SubnetConfig, engine: Arc<Engine>) -> Self {
        let root_key: Arc<[u8]> = Arc::from(&[7; 133][..]);
        let node_key: Arc<[u8]> = Arc::from(&[8; 44][..]);
        let state = ReplicatedState::genesis(Genesis {
            subnet_id: SubnetId(PrincipalId::self_authenticating(&root_key)),
            subnet,
            nodes: BTreeMap::from([(NodeId(PrincipalId::self_authenticating(&node_key)), node_key)]),
            root_key,
            canister_indices: CANISTER_INDICES,
            threshold_public_keys: ThresholdSecrets::from_seed([9; 32]).public_keys(&subnet.threshold_keys),
        });
        Self::new(state, engine, SchedulerCores(1))
    }

    /// The state after the last batch.
    ///
    /// # Panics
    /// A batch panicked before: half of it may have been done, so no state is left.
    pub fn state(&self) -> &ReplicatedState {
        self.state.as_ref().expect(STATE_IS_THERE)
    }

    fn state_mut(&mut self) -> &mut ReplicatedState {
        self.state.as_mut().expect(STATE_IS_THERE)
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The threads that execute canisters.
    pub fn cores(&self) -> SchedulerCores {
        self.cores
    }

    /// Executes one batch. Its height must be one more than the state's, its time later.
    ///
    /// # Panics
    /// A batch panicked before, see [`StateMachine::state`].
    pub fn execute_batch(&mut self, batch: Batch) -> RoundStats {
        self.execute_batch_traced(batch, None)
    }

    /// Executes one batch, with spans around the messages that are sampled. They change no result.
    pub(crate) fn execute_batch_traced(&mut self, batch: Batch, spans: Option<&Spans>) -> RoundStats {
        let state = self.state.take().expect(STATE_IS_THERE);
        let engine = TracedExecution {
            engine: &*self.engine,
            spans,
        };
        let (state, statistics) = execute_round(state, batch, &engine, self.cores);
        self.state = Some(state);
        statistics
    }

    /// Reads memories from the checkpoint that holds them by now. Content does not change, so no result does.
    pub fn rebase(&mut self, stored: &[StoredMemory]) {
        for memory in stored {
            let Ok(id) = PrincipalId::try_from_slice(&memory.key) else {
                continue;
            };
            self.state_mut().rebase(&CanisterId(id), memory);
        }
    }

    /// The ingress filter: whether a message may enter a batch.
    ///
    /// # Errors
    /// The rejection that its sender gets.
    pub fn inspect(&self, message: &Ingress) -> Result<(), UserError> {
        replicore_scheduler::inspect::should_accept(self.state(), &*self.engine, message)
    }

    /// A query on the current state, without a data certificate.
    pub fn query(&self, source: PrincipalId, receiver: CanisterId, method: String, argument: Payload) -> QueryResponse {
        self.evaluate((source, receiver, method, argument), None)
    }

    /// A query whose data certificate is signed with `key`, as a canister reads it on a certified state.
    pub fn certified_query(
        &self,
        key: &RootKey,
        source: PrincipalId,
        receiver: CanisterId,
        method: String,
        argument: Payload,
    ) -> QueryResponse {
        let snapshot = CertifiedSnapshot::certify(self.state().clone(), key);
        let certificate = DataCertificate(Arc::new(snapshot));
        self.evaluate((source, receiver, method, argument), Some(certificate))
    }

    fn evaluate(
        &self,
        (source, receiver, method, argument): (PrincipalId, CanisterId, String, Payload),
        certificate: Option<DataCertificate>,
    ) -> QueryResponse {
        let call = QueryCall {
            source,
            receiver,
            method,
            argument,
            caller_info: None,
        };
        crate::queries::evaluate(self.state(), &self.engine, call, certificate)
    }
}

/// Why the state is there: only a batch that panics keeps it.
const STATE_IS_THERE: &str = "no batch panicked on this machine";
