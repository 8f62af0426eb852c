//! The load generator's twin without a network: the same models, users and laws of arrival against a replica in the same
//! process, in a time of its own.
//!
//! Time goes on by rounds. What became due since the last round makes its batch, so that a rate above what one round brings is
//! seen as it would be by a sequencer; queries are asked of the state before it. Nothing depends on how fast the machine is:
//! the same seed gives the same batches, the same latencies in rounds, and the same root.

use crate::BenchError;
use crate::embedded::{Machine, ROUND, Shared};
use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use replicore_engine::Engine;
use replicore_types::MessageId;
use replicore_workloads::arrival::{Arrivals, Schedule};
use replicore_workloads::request::Kind;
use replicore_workloads::skew::Zipf;
use replicore_workloads::{Agent, CallOutcome, Deployed, Embedded, Identity, Operation, Scale, Workload};
use std::sync::Arc;
use std::time::Duration;

/// Rounds after the last arrival within which everything must be answered.
const ROUNDS_AFTER: u32 = 5_000;

/// What a simulation is.
#[derive(Clone, Debug)]
pub struct SimulationOptions {
    /// Operations a second.
    pub rate: f64,
    /// Their law.
    pub arrivals: Arrivals,
    /// How long they keep arriving, in the simulation's time.
    pub duration: Duration,
    /// Zipf exponent over users.
    pub user_skew: f64,
    /// [`Scale::canisters`]
    pub canisters: u64,
    /// [`Scale::items`]
    pub items: u64,
    /// Seed of all choices.
    pub seed: u64,
}

/// What a simulation did.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// Rounds, those of the deployment included.
    pub rounds: u64,
    /// Rounds from the first arrival to the last answer.
    pub load_rounds: u64,
    /// Updates answered: milliseconds of the simulation's time from when they were due to the end of the round that answered.
    pub updates: Histogram<u64>,
    /// Queries answered.
    pub queries: u64,
    /// The most messages that one batch held.
    pub batch_max: usize,
    /// The certified root at the end.
    pub root: [u8; 32],
}

/// An update that is not answered yet.
struct Pending {
    id: MessageId,
    operation: Operation,
    due: Duration,
}

struct Run<'a> {
    replica: &'a Shared,
    deployed: &'a dyn Deployed,
    users: &'a [Identity],
    pending: Vec<Pending>,
    seen: Simulation,
}

/// Deploys an application on a new subnet, lets its users arrive, and checks every reply and the whole.
///
/// # Errors
/// A reply or the state at the end is not what the application says, or a call is not answered.
pub fn run(
    model: &dyn Workload,
    engine: Arc<Engine>,
    users: &[Identity],
    options: &SimulationOptions,
) -> Result<Simulation, BenchError> {
    let replica = Shared::new(Machine::new(engine)?);
    let scale = Scale {
        users: users.iter().map(Identity::principal).collect(),
        canisters: options.canisters,
        items: options.items,
    };
    let mut agent = Agent::embedded(Box::new(replica.clone()), Identity::numbered(0));
    let deployed = model.deploy(&mut agent, &scale).map_err(BenchError::new)?;
    let latencies = Histogram::new_with_bounds(1, 3_600_000, 3).map_err(BenchError::new)?;
    let mut run = Run {
        replica: &replica,
        deployed: deployed.as_ref(),
        users,
        pending: Vec::new(),
        seen: Simulation {
            rounds: 0,
            load_rounds: 0,
            updates: latencies,
            queries: 0,
            batch_max: 0,
            root: [0; 32],
        },
    };
    run.load(options)?;
    let mut seen = run.seen;
    deployed.check(&mut agent, true).map_err(BenchError::new)?;
    let machine = replica.lock();
    seen.rounds = machine.height();
    seen.root = machine.root();
    Ok(seen)
}

impl Run<'_> {
    fn load(&mut self, options: &SimulationOptions) -> Result<(), BenchError> {
        let mut choices = ChaCha8Rng::seed_from_u64(options.seed);
        let popularity = Zipf::new(self.users.len(), options.user_skew);
        let mut schedule = Schedule::new(options.arrivals, options.rate);
        let mut next = schedule.next(&mut choices);
        let (mut now, mut after) = (Duration::ZERO, 0);
        while next < options.duration || !self.pending.is_empty() {
            let mut batch = Vec::new();
            now += ROUND;
            while next < now.min(options.duration) {
                let user = popularity.choose(&mut choices);
                let operation = self.deployed.next(user, &mut choices).map_err(BenchError::new)?;
                batch.extend(self.begin(user, operation, next)?);
                next = schedule.next(&mut choices);
            }
            self.seen.batch_max = self.seen.batch_max.max(batch.len());
            self.seen.load_rounds += 1;
            self.replica.lock().round(batch);
            self.collect(now)?;
            after = if next < options.duration { 0 } else { after + 1 };
            if after > ROUNDS_AFTER {
                return Err(BenchError::new(format!(
                    "{} calls are not answered",
                    self.pending.len()
                )));
            }
        }
        Ok(())
    }

    /// Answers a query, or gives the message of an update that `canister_inspect_message` lets in.
    fn begin(
        &mut self,
        user: usize,
        operation: Operation,
        due: Duration,
    ) -> Result<Option<replicore_types::Ingress>, BenchError> {
        let sender = self.users[user].principal();
        if operation.kind == Kind::Query {
            let mut replica = self.replica.clone();
            let answer = replica.query(sender, operation.canister, operation.method, &operation.argument);
            self.seen.queries += 1;
            self.completed(&operation, answer.map_err(BenchError::new)?)?;
            return Ok(None);
        }
        let target = (operation.canister, operation.canister);
        let message = self
            .replica
            .lock()
            .admitted(sender, target, operation.method, &operation.argument);
        let message = message.map_err(|refused| BenchError::new(format!("{}: {refused:?}", operation.method)))?;
        self.pending.push(Pending {
            id: message.message_id,
            operation,
            due,
        });
        Ok(Some(message))
    }

    fn collect(&mut self, now: Duration) -> Result<(), BenchError> {
        for pending in std::mem::take(&mut self.pending) {
            let answer = self.replica.lock().answer(&pending.id);
            let Some(answer) = answer else {
                self.pending.push(pending);
                continue;
            };
            let waited = now.saturating_sub(pending.due).as_millis() as u64;
            self.seen.updates.saturating_record(waited.max(1));
            self.completed(&pending.operation, answer)?;
        }
        Ok(())
    }

    fn completed(&self, operation: &Operation, answer: CallOutcome) -> Result<(), BenchError> {
        match answer {
            CallOutcome::Replied(reply) => self.deployed.completed(operation, &reply).map_err(BenchError::new),
            other => Err(BenchError::new(format!("{}: {other:?}", operation.method))),
        }
    }
}
