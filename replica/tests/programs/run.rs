//! Scenarios on the real engine: batch by batch, with restarts where a test wants them.

use crate::canister;
use crate::generator::{CANISTERS, Message, Plan, Scenario, about_argument};
use crate::program::encode;
use replicore::StateMachine;
use replicore_engine::*;
use replicore_scheduler::{NextRound, ReplicatedState, SchedulerCores, execute_round};
use replicore_types::fees::WasmWidth;
use replicore_types::*;
use replicore_workloads::management::{InstallMode, create_argument, install_argument};
use std::sync::{Arc, LazyLock};

/// Time of the state before the first batch.
pub const START: Time = Time(1_700_000_000_000_000_000);
/// Cycles of every canister that a user makes.
pub const CYCLES: u64 = 100_000_000_000_000;
/// Instructions of a slice. Small, so that ordinary messages have several and a scenario takes milliseconds.
pub const SLICE: NumInstructions = NumInstructions(400_000);
/// Batches after the last one of the scenario until everything is answered, at most.
const DRAIN_MAX: usize = 400;

static MODULES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [canister::module(false), canister::module(true)]);

/// An engine with short slices.
pub struct ShortSlices(pub Arc<Engine>);

impl Execute for ShortSlices {
    fn prepare(
        &self,
        module: &CanisterModule,
        subnet: SubnetType,
    ) -> Result<PreparedModule, (UserError, NumInstructions)> {
        self.0.prepare(module, subnet)
    }

    fn declared_width(&self, module: &CanisterModule) -> WasmWidth {
        self.0.declared_width(module)
    }

    fn execute(&self, canister: &mut ExecutionState, call: Call<'_>, limits: InstructionLimits) -> ExecutionOutcome {
        // What runs in one go (a cleanup) goes on to do so.
        let slice = match limits.slice < limits.message {
            true => limits.slice.min(SLICE),
            false => limits.slice,
        };
        self.0.execute(canister, call, InstructionLimits { slice, ..limits })
    }

    fn resume(&self, canister: &mut ExecutionState, paused: PausedExecution) -> ExecutionOutcome {
        self.0.resume(canister, paused)
    }
}

/// A subnet on its way through a scenario.
pub struct World<'a, E> {
    pub state: ReplicatedState,
    pub engine: &'a E,
    pub cores: SchedulerCores,
    messages: u64,
}

/// The state that every scenario begins with.
pub fn genesis(engine: &Arc<Engine>) -> ReplicatedState {
    let subnet = SubnetConfig {
        heartbeat_interval_ms: 100,
        ..SubnetConfig::default()
    };
    let mut state = StateMachine::for_test(subnet, Arc::clone(engine)).state().clone();
    state.metadata.time = START;
    state
}

impl<'a, E: Execute> World<'a, E> {
    pub fn new(state: ReplicatedState, engine: &'a E, cores: usize) -> Self {
        Self {
            state,
            engine,
            cores: SchedulerCores(cores),
            messages: 0,
        }
    }

    /// The batch that carries out a plan in the state as it is.
    pub fn batch(&mut self, plan: &Plan) -> Batch {
        let height = self.state.metadata.height.next();
        let time = Time(self.state.metadata.time.0 + plan.nanoseconds);
        let messages = plan
            .messages
            .iter()
            .map(|message| self.ingress(message, time))
            .collect();
        Batch {
            height,
            time,
            randomness: Randomness([height.0 as u8; 32]),
            messages,
            ..Batch::default()
        }
    }

    /// Executes a batch.
    pub fn round(&mut self, batch: Batch) {
        let (state, statistics) = execute_round(self.state.clone(), batch, self.engine, self.cores);
        assert_eq!(statistics.root_hash, state.certified_root());
        self.state = state;
    }

    /// Carries out the scenario and goes on until nothing is left to do. `between` sees the world and the batch after
    /// every round.
    ///
    /// # Errors
    /// What `between` says, or that the subnet never comes to rest.
    pub fn run(
        &mut self,
        scenario: &Scenario,
        mut between: impl FnMut(&mut Self, Batch) -> Result<(), String>,
    ) -> Result<(), String> {
        let start = Message::Manage {
            canister: 0,
            method: "start_canister",
        };
        // What is stopped starts again, so that nothing waits for ever.
        let start_all = (0..CANISTERS + 4).map(|index| match start {
            Message::Manage { method, .. } => Message::Manage {
                canister: index,
                method,
            },
            ref other => other.clone(),
        });
        let rest = Plan {
            nanoseconds: 1,
            messages: start_all.collect(),
        };
        let idle = Plan {
            nanoseconds: 1,
            messages: Vec::new(),
        };
        let plans = scenario.batches.iter().chain([&rest]);
        for plan in plans.chain(std::iter::repeat_n(&idle, DRAIN_MAX)) {
            if std::ptr::eq(plan, &idle) && self.state.next_round() != NextRound::Now {
                return Ok(());
            }
            let batch = self.batch(plan);
            self.round(batch.clone());
            between(self, batch)?;
        }
        match self.state.next_round() {
            NextRound::Now => Err("the subnet never comes to rest".into()),
            _ => Ok(()),
        }
    }

    fn ingress(&mut self, message: &Message, time: Time) -> Ingress {
        let (receiver, about, method, argument) = match message {
            Message::Call {
                canister,
                method,
                actions,
            } => {
                let id = CanisterId::from_index(*canister);
                (id, Some(id), *method, encode(actions))
            }
            Message::Create => {
                let argument = create_argument(CYCLES.into()).expect("encodes");
                (
                    CanisterId::MANAGEMENT,
                    None,
                    "provisional_create_canister_with_cycles",
                    argument,
                )
            }
            Message::Install {
                canister,
                mode,
                has_heartbeat,
                actions,
            } => {
                let argument = install(*canister, *mode, *has_heartbeat, &encode(actions));
                let id = CanisterId::from_index(*canister);
                (CanisterId::MANAGEMENT, Some(id), "install_code", argument)
            }
            Message::Manage { canister, method } => {
                let id = CanisterId::from_index(*canister);
                (CanisterId::MANAGEMENT, Some(id), *method, about_argument(*canister))
            }
        };
        self.messages += 1;
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.messages.to_be_bytes());
        Ingress {
            message_id: MessageId(id),
            source: PrincipalId::self_authenticating(b"the public key of a user"),
            receiver,
            effective_canister_id: about,
            method_name: method.into(),
            envelope_bytes: argument.len() as u32,
            method_payload: Payload::from(argument),
            expiry: time.plus(limits::INGRESS_TTL),
            sender_info: None,
        }
    }
}

fn install(canister: u64, mode: InstallMode, has_heartbeat: bool, argument: &[u8]) -> Vec<u8> {
    let module = &MODULES[usize::from(has_heartbeat)];
    install_argument(mode, CanisterId::from_index(canister).0, module, argument).expect("encodes")
}

/// Reads the state back from what a checkpoint holds: indices, tree, live executions and warm instances are gone.
pub fn read_back(state: &ReplicatedState, engine: &Arc<Engine>) -> ReplicatedState {
    let items = state.items().map(|(key, parts)| (key.to_bytes(), parts));
    let state = ReplicatedState::from_parts(&state.system_bytes(), items).expect("what was written reads back");
    StateMachine::new(state, Arc::clone(engine), SchedulerCores(1))
        .state()
        .clone()
}
