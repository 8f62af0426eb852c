//! Rounds through [`StateMachine`]: induction, execution, commit and certified tree; no network, no signature, no disk.

use crate::BenchError;
use crate::measure::{Effort, Figure, seconds};
use candid::{CandidType, Encode, Principal};
use replicore::StateMachine;
use replicore_engine::{Engine, EngineConfig};
use replicore_scheduler::certified_state::CertifiedState;
use replicore_scheduler::{ReplicatedState, SchedulerCores};
use replicore_types::{
    Batch, CanisterId, CostSchedule, Ingress, IngressState, IngressStatus, MessageId, Payload, PrincipalId, Randomness,
    SubnetConfig, Time,
};
use sha2::{Digest, Sha256};
use std::sync::{Arc, Barrier};

const START: Time = Time(1_600_000_000_000_000_000);

/// Rounds of each side in one sample of a comparison: what the host does meanwhile meets both.
const TURNS_PER_SAMPLE: usize = 8;

/// Replies nothing to `noop`; `relay` calls `noop` of the canister in its argument and replies when that has.
const MODULE: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
    (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
    (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
    (import "ic0" "call_perform" (func $call_perform (result i32)))
    (memory 1)
    (data (i32.const 100) "noop")
    (table funcref (elem $on_reply))
    (func $on_reply (param i32) (call $reply))
    (func (export "canister_update noop") (call $reply))
    (func (export "canister_update relay")
        (call $arg_copy (i32.const 0) (i32.const 0) (call $arg_size))
        (call $call_new (i32.const 0) (call $arg_size) (i32.const 100) (i32.const 4)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
        (drop (call $call_perform))))"#;

#[derive(CandidType)]
struct Create {
    amount: Option<candid::Nat>,
}

#[derive(CandidType, candid::Deserialize)]
enum InstallMode {
    #[serde(rename = "install")]
    Install,
}

#[derive(CandidType)]
struct Install {
    mode: InstallMode,
    canister_id: Principal,
    wasm_module: Vec<u8>,
    arg: Vec<u8>,
}

/// A subnet in memory, with canisters of one module.
pub(crate) struct Subnet {
    pub(crate) machine: StateMachine,
    next_message: u64,
    canisters: Vec<CanisterId>,
    /// Batch time from one round to the next, in nanoseconds.
    pub(crate) round_nanos: u64,
}

/// `scheduler.empty_round_us` and `scheduler.single_update_round_us`: a round without messages, and with one.
pub fn small_rounds(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut subnet = Subnet::new(1, 1)?;
    let rounds = effort.scale(2_000);
    let (mut empty, mut single) = (Vec::new(), Vec::new());
    for _ in 0..effort.runs {
        let (elapsed, ()) = seconds(|| (0..rounds).for_each(|_| subnet.round(Vec::new())));
        empty.push(elapsed / rounds as f64 * 1e6);
        let messages: Vec<_> = (0..rounds).map(|_| subnet.message(0, "noop", &[])).collect();
        let (elapsed, ()) = seconds(|| messages.into_iter().for_each(|message| subnet.round(vec![message])));
        single.push(elapsed / rounds as f64 * 1e6);
    }
    let root = subnet.root();
    Ok(vec![
        Figure::of("scheduler.empty_round_us", "us", empty, root.clone()),
        Figure::of("scheduler.single_update_round_us", "us", single, root),
    ])
}

/// `scheduler.noop_update_us`: one of 1,000 no-op updates of a round, one canister, one core. Beside it the same while
/// somebody holds the state before the round, as readers do: what the round changes is copied first.
pub fn noop_update(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let (mut subnet, mut held) = (Subnet::new(1, 1)?, Subnet::new(1, 1)?);
    let per_message = |seconds: f64| seconds * 1e6 / 1_000.0;
    let mut copying = Vec::new();
    let samples = effort.samples(|| {
        let before = held.machine.state().clone();
        copying.push(per_message(held.noop_round(1_000)));
        drop(before);
        Ok(per_message(subnet.noop_round(1_000)))
    })?;
    subnet.check_all_replied()?;
    subnet.check_same_root(&held)?;
    let figure = Figure::of("scheduler.noop_update_us", "us", samples, subnet.root());
    Ok(vec![figure.against("state_held", copying)])
}

/// `scheduler.two_core_speedup`: rounds of 5,000 no-op updates of 100 canisters, one core against two, round by round in
/// turn. Beside it `host`: what two such rounds of different subnets, on one core each and at the same time, come to
/// against one alone. No scheduler gets more out of the machine.
pub fn two_core_speedup(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let subnet = |cores| Subnet::new(100, cores);
    let (mut one, mut two, mut others) = (subnet(1)?, subnet(2)?, [subnet(1)?, subnet(1)?]);
    let messages = effort.scale(5_000);
    let mut host = Vec::new();
    let samples = effort.samples(|| {
        let (mut alone, mut shared, mut apart) = (0.0, 0.0, 0.0);
        for _ in 0..TURNS_PER_SAMPLE {
            alone += one.noop_round(messages);
            shared += two.noop_round(messages);
            apart += side_by_side(&mut others, messages);
        }
        host.push(2.0 * alone / apart);
        Ok(alone / shared)
    })?;
    one.check_same_root(&two)?;
    for other in &others {
        one.check_same_root(other)?;
    }
    let figure = Figure::of("scheduler.two_core_speedup", "x", samples, one.root());
    Ok(vec![figure.against("host", host)])
}

/// Seconds until both have executed a round of no-op updates that they begin together.
fn side_by_side(subnets: &mut [Subnet; 2], messages: u64) -> f64 {
    let start = Barrier::new(subnets.len() + 1);
    std::thread::scope(|scope| {
        let threads = subnets.each_mut().map(|subnet| {
            let (messages, start) = (subnet.noop_messages(messages), &start);
            scope.spawn(move || {
                start.wait();
                subnet.round(messages);
            })
        });
        start.wait();
        seconds(|| threads.into_iter().for_each(|thread| drop(thread.join()))).0
    })
}

/// `scheduler.call_roundtrip_us`: an update that calls another canister and replies in the callback, of 1,000 in a round.
pub fn call_roundtrip(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut subnet = Subnet::new(2, 1)?;
    // At most as many calls in flight as the queue between the two takes.
    let calls = effort.scale(500);
    let callee = subnet.canisters[1];
    let mut samples = Vec::new();
    for _ in 0..effort.runs {
        let messages: Vec<_> = (0..calls)
            .map(|_| subnet.message(0, "relay", callee.as_slice()))
            .collect();
        let (elapsed, ()) = seconds(|| {
            subnet.round(messages);
            while subnet.machine.state().next_round() == replicore_scheduler::NextRound::Now {
                subnet.round(Vec::new());
            }
        });
        samples.push(elapsed / calls as f64 * 1e6);
    }
    subnet.check_all_replied()?;
    Ok(vec![Figure::of(
        "scheduler.call_roundtrip_us",
        "us",
        samples,
        subnet.root(),
    )])
}

/// `scheduler.one_canister_ratio`: throughput of rounds of 1,000 no-op updates to one canister on two cores against one
/// core, round by round in turn. What cannot be shared must not become slower.
pub fn one_canister_ratio(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let (mut one, mut two) = (Subnet::new(1, 1)?, Subnet::new(1, 2)?);
    let messages = effort.scale(1_000);
    let samples = effort.samples(|| {
        let (mut alone, mut shared) = (0.0, 0.0);
        for _ in 0..TURNS_PER_SAMPLE {
            alone += one.noop_round(messages);
            shared += two.noop_round(messages);
        }
        Ok(alone / shared)
    })?;
    one.check_same_root(&two)?;
    Ok(vec![Figure::of(
        "scheduler.one_canister_ratio",
        "x",
        samples,
        one.root(),
    )])
}

/// `scheduler.idle_100k_round_us`: a round with a no-op update for each of 10 canisters, among 100,000 that do nothing.
pub fn idle_round(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let canisters = effort.scale(100_000).max(10);
    let (mut one, mut two) = (Subnet::of_copies(canisters, 1)?, Subnet::of_copies(canisters, 2)?);
    let rounds = effort.scale(200);
    let samples = effort.samples(|| {
        let mut elapsed = 0.0;
        for _ in 0..rounds {
            let messages = one.one_for_each(10);
            elapsed += seconds(|| one.round(messages)).0;
        }
        Ok(elapsed / rounds as f64 * 1e6)
    })?;
    for _ in 0..samples.len() as u64 * rounds {
        let messages = two.one_for_each(10);
        two.round(messages);
    }
    one.check_same_root(&two)?;
    Ok(vec![Figure::of(
        "scheduler.idle_100k_round_us",
        "us",
        samples,
        one.root(),
    )])
}

/// `scheduler.active_20k_round_ms`: one round in which each of 20,000 canisters executes a no-op update, on two cores:
/// far more canisters than warm instances.
pub fn active_round(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let canisters = effort.scale(20_000);
    let mut two = Subnet::of_copies(canisters, 2)?;
    let samples = effort.samples(|| {
        let messages = two.one_for_each(canisters);
        Ok(seconds(|| two.round(messages)).0 * 1e3)
    })?;
    two.check_all_replied()?;
    // Only now, so that the two are not in memory while the first is measured.
    let mut one = Subnet::of_copies(canisters, 1)?;
    for _ in 0..samples.len() {
        let messages = one.one_for_each(canisters);
        one.round(messages);
    }
    one.check_same_root(&two)?;
    Ok(vec![Figure::of(
        "scheduler.active_20k_round_ms",
        "ms",
        samples,
        two.root(),
    )])
}

/// `scheduler.state_tree_1000_ms`: bringing the certified tree up to date with 1,000 new answers among 600,000.
pub fn state_tree(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let engine = Arc::new(Engine::new(EngineConfig::default()).map_err(BenchError::new)?);
    let mut state = StateMachine::for_test(SubnetConfig::default(), engine).state().clone();
    let mut next = 0_u64;
    let mut answers = |state: &mut ReplicatedState, count: u64| -> Vec<MessageId> {
        let ids = (next..next + count).map(|number| MessageId(Sha256::digest(number.to_be_bytes()).into()));
        next += count;
        ids.inspect(|&id| {
            let status = IngressStatus {
                receiver: CanisterId::from_index(0),
                source: PrincipalId::anonymous(),
                time: START,
                state: IngressState::Completed(Payload::from(id.as_bytes().to_vec())),
            };
            state.ingress_history.set(id, status, START);
        })
        .collect()
    };
    answers(&mut state, effort.scale(600_000));
    let mut tree = CertifiedState::rebuild(&state);
    let samples = effort.samples(|| {
        let ids = answers(&mut state, 1_000);
        Ok(seconds(|| tree.update(&state, &[], &ids)).0 * 1e3)
    })?;
    if tree.root_hash() != CertifiedState::rebuild(&state).root_hash() {
        return Err(BenchError::new(
            "the tree brought up to date differs from one built anew",
        ));
    }
    let root = hex::encode(tree.root_hash());
    Ok(vec![Figure::of("scheduler.state_tree_1000_ms", "ms", samples, root)])
}

impl Subnet {
    /// A subnet of many canisters with the same code: one is installed, the others are copies of it.
    pub(crate) fn of_copies(canisters: u64, cores: usize) -> Result<Self, BenchError> {
        let mut subnet = Self::new(1, cores)?;
        let mut state = subnet.machine.state().clone();
        let original = state
            .canister(&subnet.canisters[0])
            .cloned()
            .ok_or_else(|| BenchError::new("the canister is not there"))?;
        for index in 1..canisters {
            let id = CanisterId::from_index(index);
            let mut copy = original.clone();
            copy.system.canister_id = id;
            state.insert_canister(copy);
            subnet.canisters.push(id);
        }
        let engine = Arc::clone(subnet.machine.engine());
        subnet.machine = StateMachine::new(state, engine, SchedulerCores(cores));
        // The round that takes them into the indices and the certified tree.
        subnet.round(Vec::new());
        Ok(subnet)
    }

    /// A no-op update for each of the first canisters.
    pub(crate) fn one_for_each(&mut self, canisters: u64) -> Vec<Ingress> {
        (0..canisters)
            .map(|number| self.message(number as usize, "noop", &[]))
            .collect()
    }

    pub(crate) fn check_same_root(&self, other: &Self) -> Result<(), BenchError> {
        if self.root() == other.root() {
            return Ok(());
        }
        Err(BenchError::new("one and two cores came to different state roots"))
    }

    pub(crate) fn new(canisters: usize, cores: usize) -> Result<Self, BenchError> {
        Self::of_module(MODULE, canisters, cores)
    }

    /// Canisters with a module (as text) that exports `canister_update noop`.
    pub(crate) fn of_module(module: &str, canisters: usize, cores: usize) -> Result<Self, BenchError> {
        let engine = Arc::new(Engine::new(EngineConfig::default()).map_err(BenchError::new)?);
        let config = SubnetConfig {
            cost_schedule: CostSchedule::Free,
            rate_limits: false,
            ..SubnetConfig::default()
        };
        let empty = StateMachine::for_test(config, Arc::clone(&engine));
        let machine = StateMachine::new(empty.state().clone(), engine, SchedulerCores(cores));
        let mut subnet = Self {
            machine,
            next_message: 0,
            canisters: Vec::new(),
            round_nanos: 1_000_000,
        };
        let wasm = wat::parse_str(module).map_err(BenchError::new)?;
        for index in 0..canisters {
            let id = CanisterId::from_index(index as u64);
            let create = Encode!(&Create {
                amount: Some((1_u128 << 70).into())
            })
            .map_err(BenchError::new)?;
            subnet.management("provisional_create_canister_with_cycles", create, None)?;
            let install = Install {
                mode: InstallMode::Install,
                canister_id: id.0,
                wasm_module: wasm.clone(),
                arg: Vec::new(),
            };
            subnet.management("install_code", Encode!(&install).map_err(BenchError::new)?, Some(id))?;
            subnet.canisters.push(id);
        }
        // Warm instances and code paths.
        subnet.noop_round(canisters as u64);
        Ok(subnet)
    }

    fn management(&mut self, method: &str, argument: Vec<u8>, about: Option<CanisterId>) -> Result<(), BenchError> {
        let message = self.ingress(CanisterId::MANAGEMENT, about, method, argument);
        let id = message.message_id;
        self.round(vec![message]);
        match self
            .machine
            .state()
            .ingress_history
            .get(&id)
            .map(|status| &status.state)
        {
            Some(IngressState::Completed(_)) => Ok(()),
            other => Err(BenchError::new(format!("{method}: {other:?}"))),
        }
    }

    /// Seconds of one round of no-op updates, spread over the canisters.
    pub(crate) fn noop_round(&mut self, messages: u64) -> f64 {
        let messages = self.noop_messages(messages);
        seconds(|| self.round(messages)).0
    }

    /// No-op updates, spread over the canisters.
    fn noop_messages(&mut self, messages: u64) -> Vec<Ingress> {
        let canisters = self.canisters.len() as u64;
        (0..messages)
            .map(|number| self.noop((number % canisters) as usize))
            .collect()
    }

    /// A no-op update for one of the canisters.
    pub(crate) fn noop(&mut self, canister: usize) -> Ingress {
        self.message(canister, "noop", &[])
    }

    /// No-op updates that go round all canisters, on from where the last ones ended.
    pub(crate) fn noops(&mut self, count: u64) -> Vec<Ingress> {
        let canisters = self.canisters.len() as u64;
        let first = self.next_message;
        (first..first + count)
            .map(|number| self.noop((number % canisters) as usize))
            .collect()
    }

    pub(crate) fn message(&mut self, canister: usize, method: &str, argument: &[u8]) -> Ingress {
        let id = self.canisters[canister];
        self.ingress(id, Some(id), method, argument.to_vec())
    }

    fn ingress(&mut self, receiver: CanisterId, about: Option<CanisterId>, method: &str, argument: Vec<u8>) -> Ingress {
        self.next_message += 1;
        Ingress {
            message_id: MessageId(Sha256::digest(self.next_message.to_be_bytes()).into()),
            source: PrincipalId::anonymous(),
            receiver,
            effective_canister_id: about,
            method_name: method.into(),
            method_payload: Payload::from(argument),
            expiry: Time(self.machine.state().metadata.time.0.max(START.0) + 60_000_000_000),
            envelope_bytes: 400,
            sender_info: None,
        }
    }

    /// Executes one batch.
    pub(crate) fn round(&mut self, messages: Vec<Ingress>) {
        let metadata = &self.machine.state().metadata;
        self.machine.execute_batch(Batch {
            height: metadata.height.next(),
            time: Time(metadata.time.0.max(START.0) + self.round_nanos),
            randomness: Randomness([7; 32]),
            messages,
            ..Batch::default()
        });
    }

    pub(crate) fn check_all_replied(&self) -> Result<(), BenchError> {
        let history = &self.machine.state().ingress_history;
        match history
            .iter()
            .find(|(_, status)| !matches!(status.state, IngressState::Completed(_)))
        {
            None => Ok(()),
            Some((id, status)) => Err(BenchError::new(format!(
                "message {id} was not replied to: {:?}",
                status.state
            ))),
        }
    }

    pub(crate) fn root(&self) -> String {
        hex::encode(self.machine.state().certified_root())
    }
}
