//! A subnet of stub canisters, driven batch by batch.

use super::stub::{Action, Stub, execution_state, script};
use crate::certified_state::CertifiedState;
use crate::state::{CanisterSettings, Genesis, SystemState};
use crate::{CanisterState, ReplicatedState, RoundStats, SchedulerCores, execute_round};
use replicore_types::*;
use std::collections::BTreeMap;
use std::sync::Arc;

pub const START: Cycles = Cycles(100_000_000_000_000);

pub struct World {
    pub state: ReplicatedState,
    pub engine: Stub,
    pub cores: SchedulerCores,
    next_message: u64,
}

pub fn id(index: u64) -> CanisterId {
    CanisterId::from_index(index)
}

impl World {
    /// `canisters` running canisters, numbered from 0, with these system exports.
    pub fn new(canisters: u64, entry_points: &[&str]) -> Self {
        Self::with("subnet", 0, canisters, entry_points)
    }

    /// One of several subnets: its canisters are numbered from `first`.
    pub fn of_subnet(name: &str, first: u64, canisters: u64) -> Self {
        Self::with(name, first, canisters, &[])
    }

    fn with(name: &str, first: u64, canisters: u64, entry_points: &[&str]) -> Self {
        let subnet = SubnetConfig {
            subnet_type: SubnetType::Application,
            heartbeat_interval_ms: 0,
            ..SubnetConfig::default()
        };
        let mut state = ReplicatedState::genesis(Genesis {
            subnet_id: SubnetId(PrincipalId::self_authenticating(name.as_bytes())),
            subnet,
            root_key: Arc::from(&[0; 133][..]),
            nodes: BTreeMap::new(),
            canister_indices: (first, first + (1 << 20)),
            threshold_public_keys: Default::default(),
        });
        state.metadata.time = Time(1_620_328_630_000_000_000);
        for index in first..first + canisters {
            let controllers = Arc::new([PrincipalId::anonymous()].into());
            let settings = CanisterSettings {
                controllers,
                ..CanisterSettings::default()
            };
            let mut canister = CanisterState::new(SystemState::new(id(index), settings, START, state.metadata.time));
            canister.execution = Some(execution_state(entry_points));
            state.insert_canister(canister);
        }
        state.settle();
        state.certified = CertifiedState::rebuild(&state);
        Self {
            state,
            engine: Stub::default(),
            cores: SchedulerCores(1),
            next_message: 0,
        }
    }

    pub fn on_cores(mut self, cores: usize) -> Self {
        self.cores = SchedulerCores(cores);
        self
    }

    pub fn ingress(&mut self, receiver: CanisterId, method: &str, payload: Payload) -> Ingress {
        self.next_message += 1;
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&self.next_message.to_be_bytes());
        Ingress {
            message_id: MessageId(bytes),
            source: PrincipalId::anonymous(),
            receiver,
            effective_canister_id: Some(receiver),
            method_name: method.into(),
            method_payload: payload,
            expiry: self.state.metadata.time.plus(limits::INGRESS_TTL),
            envelope_bytes: 100,
            sender_info: None,
        }
    }

    pub fn update(&mut self, receiver: u64, actions: &[Action]) -> Ingress {
        self.ingress(id(receiver), "u", script(actions))
    }

    /// One round, a nanosecond after the last.
    pub fn round(&mut self, messages: Vec<Ingress>) -> RoundStats {
        self.round_after(1, messages)
    }

    pub fn round_after(&mut self, nanos: u64, messages: Vec<Ingress>) -> RoundStats {
        self.round_with(nanos, messages, Vec::new())
    }

    pub fn round_with(&mut self, nanos: u64, messages: Vec<Ingress>, stream_slices: Vec<StreamSlice>) -> RoundStats {
        let height = self.state.metadata.height.next();
        let batch = Batch {
            height,
            time: Time(self.state.metadata.time.0 + nanos),
            randomness: Randomness([height.0 as u8; 32]),
            messages,
            stream_slices,
            ..Batch::default()
        };
        let (state, stats) = execute_round(self.state.clone(), batch, &self.engine, self.cores);
        self.state = state;
        stats
    }

    /// Rounds until nothing is left to do.
    pub fn settle(&mut self) -> usize {
        for round in 0..1_000 {
            if self.state.next_round() != crate::NextRound::Now {
                return round;
            }
            self.round(Vec::new());
        }
        panic!("the subnet never comes to rest");
    }

    pub fn status(&self, message: &Ingress) -> Option<IngressState> {
        self.state
            .ingress_history
            .get(&message.message_id)
            .map(|status| status.state.clone())
    }

    pub fn reply(&self, message: &Ingress) -> Vec<u8> {
        match self.status(message) {
            Some(IngressState::Completed(reply)) => reply.to_vec(),
            other => panic!("not replied: {other:?}"),
        }
    }

    pub fn error(&self, message: &Ingress) -> UserError {
        match self.status(message) {
            Some(IngressState::Failed(error)) => error,
            other => panic!("not rejected: {other:?}"),
        }
    }

    pub fn canister(&self, index: u64) -> &CanisterState {
        self.state.canister(&id(index)).unwrap()
    }

    pub fn balance(&self, index: u64) -> Cycles {
        self.canister(index).system.balance
    }

    /// Cycles in balances and everything consumed, with what open calls hold counted as consumed.
    pub fn total_cycles(&self) -> Cycles {
        let canisters = self.state.canisters.values();
        canisters
            .map(|canister| canister.system.balance + canister.system.consumed.total())
            .sum()
    }

    pub fn counter(&self, index: u64) -> i64 {
        let execution = self.canister(index).execution.as_ref().unwrap();
        match execution.globals[0] {
            replicore_engine::GlobalValue::I64(counter) => counter,
            ref other => panic!("{other:?}"),
        }
    }
}
