//! Modelled applications on a replica in the same process: no network, no disk, no clock. The same seed gives the same
//! batches, hence the same state and the same profile, on every machine.

use crate::BenchError;
use candid::Principal;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use replicore::StateMachine;
use replicore::certification::RootKey;
use replicore_engine::Engine;
use replicore_netstack::QueryResponse;
use replicore_scheduler::RoundStats;
use replicore_types::{
    Batch, CanisterId, Ingress, IngressState, MessageId, Payload, PrincipalId, Randomness, SubnetConfig, Time,
    UserError,
};
use replicore_workloads::request::Kind;
use replicore_workloads::skew::Zipf;
use replicore_workloads::{Agent, AgentError, CallOutcome, Embedded, Identity, Scale, Workload};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Batch time of the first round.
const START: Time = Time(1_700_000_000_000_000_000);
/// From one batch to the next: fifty rounds are a second, so that heartbeats and timers have their turn.
pub(crate) const ROUND: Duration = Duration::from_millis(20);
/// Rounds after which a call is given up.
const ROUNDS_MAX: u32 = 1_000;

/// What a run is.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedOptions {
    /// Operations, one after the other.
    pub operations: u64,
    /// Users, chosen by Zipf's law with exponent 1/2.
    pub users: u64,
    /// [`Scale::canisters`]
    pub canisters: u64,
    /// [`Scale::items`]
    pub items: u64,
    /// Seed of all choices.
    pub seed: u64,
}

/// What a run did.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedRun {
    /// Rounds, those of the deployment included.
    pub rounds: u64,
    /// Operations answered.
    pub operations: u64,
    /// The certified root at the end.
    pub root: [u8; 32],
}

/// Deploys an application on a new subnet, drives it, and checks every reply and the whole.
///
/// # Errors
/// A reply or the state at the end is not what the application says.
pub fn run(model: &dyn Workload, engine: Arc<Engine>, options: &EmbeddedOptions) -> Result<EmbeddedRun, BenchError> {
    let replica = Shared::new(Machine::new(engine)?);
    let users: Vec<_> = (0..options.users.max(1)).map(Identity::numbered).collect();
    let scale = Scale {
        users: users.iter().map(Identity::principal).collect(),
        canisters: options.canisters,
        items: options.items,
    };
    let mut agent = Agent::embedded(Box::new(replica.clone()), users[0].clone());
    let deployed = model.deploy(&mut agent, &scale).map_err(BenchError::new)?;
    let mut choices = ChaCha8Rng::seed_from_u64(options.seed);
    let popularity = Zipf::new(users.len(), 0.5);
    for _ in 0..options.operations {
        let user = popularity.choose(&mut choices);
        let operation = deployed.next(user, &mut choices).map_err(BenchError::new)?;
        agent.set_identity(users[user].clone());
        let outcome = match operation.kind {
            Kind::Call => agent.update(operation.canister, operation.method, &operation.argument),
            Kind::Query => agent.query(operation.canister, operation.method, &operation.argument),
        };
        match outcome.map_err(BenchError::new)? {
            CallOutcome::Replied(reply) => deployed.completed(&operation, &reply).map_err(BenchError::new)?,
            other => return Err(BenchError::new(format!("{}: {other:?}", operation.method))),
        }
    }
    deployed.check(&mut agent, true).map_err(BenchError::new)?;
    let machine = replica.lock();
    Ok(EmbeddedRun {
        rounds: machine.height(),
        operations: options.operations,
        root: machine.root(),
    })
}

/// A state machine with what a sequencer would add.
pub(crate) struct Machine {
    machine: StateMachine,
    key: RootKey,
    messages: u64,
}

impl Machine {
    /// An empty subnet.
    pub(crate) fn new(engine: Arc<Engine>) -> Result<Self, BenchError> {
        Ok(Self {
            machine: StateMachine::for_test(SubnetConfig::default(), engine),
            key: RootKey::from_seed(&[1; 32]).map_err(BenchError::new)?,
            messages: 0,
        })
    }

    /// The height that the state has.
    pub(crate) fn height(&self) -> u64 {
        self.machine.state().metadata.height.0
    }

    /// Its certified root.
    pub(crate) fn root(&self) -> [u8; 32] {
        self.machine.state().certified_root()
    }

    /// Executes a batch.
    pub(crate) fn round(&mut self, messages: Vec<Ingress>) -> RoundStats {
        let height = self.machine.state().metadata.height.next();
        let mut randomness = [0; 32];
        randomness[..8].copy_from_slice(&height.0.to_be_bytes());
        self.machine.execute_batch(Batch {
            height,
            time: START.plus(ROUND * height.0 as u32),
            randomness: Randomness(randomness),
            messages,
            ..Batch::default()
        })
    }

    fn message(&mut self, sender: Principal, (canister, effective): (Principal, Principal)) -> Ingress {
        self.messages += 1;
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.messages.to_be_bytes());
        Ingress {
            message_id: MessageId(id),
            source: PrincipalId::from_slice(sender.as_slice()),
            receiver: canister_id(canister),
            effective_canister_id: (effective != Principal::management_canister()).then(|| canister_id(effective)),
            method_name: String::new(),
            method_payload: Payload::default(),
            expiry: START.plus(ROUND * (self.machine.state().metadata.height.0 as u32 + ROUNDS_MAX)),
            envelope_bytes: 0,
            sender_info: None,
        }
    }

    /// A message that the canister is willing to take.
    pub(crate) fn admitted(
        &mut self,
        sender: Principal,
        target: (Principal, Principal),
        method: &str,
        argument: &[u8],
    ) -> Result<Ingress, CallOutcome> {
        let message = Ingress {
            method_name: method.to_owned(),
            method_payload: Payload::from(argument),
            envelope_bytes: (argument.len() + method.len() + 200) as u32,
            ..self.message(sender, target)
        };
        match self.machine.inspect(&message) {
            Ok(_) => Ok(message),
            Err(error) => Err(rejected(&error)),
        }
    }

    /// What became of a message, once that is final.
    pub(crate) fn answer(&self, id: &MessageId) -> Option<CallOutcome> {
        match &self.machine.state().ingress_history.get(id)?.state {
            IngressState::Completed(reply) => Some(CallOutcome::Replied(reply.to_vec())),
            IngressState::Failed(error) => Some(rejected(error)),
            _ => None,
        }
    }
}

/// The machine, as agents share it.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Machine>>);

impl Shared {
    pub(crate) fn new(machine: Machine) -> Self {
        Self(Arc::new(Mutex::new(machine)))
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, Machine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Embedded for Shared {
    fn update(
        &mut self,
        sender: Principal,
        canister: Principal,
        effective: Principal,
        method: &str,
        argument: &[u8],
    ) -> Result<CallOutcome, AgentError> {
        let mut machine = self.lock();
        let message = match machine.admitted(sender, (canister, effective), method, argument) {
            Ok(message) => message,
            Err(refused) => return Ok(refused),
        };
        let id = message.message_id;
        machine.round(vec![message]);
        for _ in 0..ROUNDS_MAX {
            if let Some(answer) = machine.answer(&id) {
                return Ok(answer);
            }
            machine.round(Vec::new());
        }
        Ok(CallOutcome::Accepted)
    }

    fn query(
        &mut self,
        sender: Principal,
        canister: Principal,
        method: &str,
        argument: &[u8],
    ) -> Result<CallOutcome, AgentError> {
        let machine = self.lock();
        let source = PrincipalId::from_slice(sender.as_slice());
        let (receiver, argument) = (canister_id(canister), Payload::from(argument));
        let response = machine
            .machine
            .certified_query(&machine.key, source, receiver, method.to_owned(), argument);
        Ok(match response {
            QueryResponse::Replied(reply) => CallOutcome::Replied(reply.to_vec()),
            QueryResponse::Rejected(error) => rejected(&error),
        })
    }

    fn root_key(&self) -> Vec<u8> {
        self.lock().key.public_key_der().to_vec()
    }
}

fn canister_id(principal: Principal) -> CanisterId {
    CanisterId(PrincipalId::from_slice(principal.as_slice()))
}

fn rejected(error: &UserError) -> CallOutcome {
    CallOutcome::Rejected(
        error.reject_code() as u64,
        error.description.clone(),
        error.code.to_string(),
    )
}
