//! The token ledger as a workload: many users transfer small amounts to each other.
//!
//! Every transfer is acknowledged by a certificate or not at all, and the users count what was acknowledged. At the end
//! each account must hold exactly what its owner expects: a lost or doubled transfer shows.

use crate::Identity;
use crate::agent::Agent;
use crate::canisters::LEDGER;
use crate::certificate::Verifier;
use crate::error::{WorkloadError, decode, encode, replied};
use crate::management;
use candid::{CandidType, Decode, Deserialize, Encode, Principal};
use hdrhistogram::Histogram;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(CandidType)]
struct TransferArgument {
    to: Principal,
    amount: u64,
}

#[derive(CandidType, Deserialize)]
enum TransferReply {
    Ok(u64),
    Err(String),
}

/// Creates a canister and installs the ledger.
///
/// # Errors
/// The endpoint refuses.
pub fn deploy(agent: &mut Agent) -> Result<Principal, WorkloadError> {
    management::deploy(agent, LEDGER, &[])
}

/// What the load is.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The endpoint.
    pub address: SocketAddr,
    /// The ledger.
    pub ledger: Principal,
    /// Users, each on its own connection with one request in flight.
    pub users: u64,
    /// How long to go on.
    pub duration: Duration,
    /// Of 100 requests, how many are queries.
    pub query_percent: u32,
    /// Seed of the users' choices.
    pub seed: u64,
}

/// Counters that move while the load runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Transfers acknowledged.
    pub transfers: AtomicU64,
    /// Queries answered.
    pub queries: AtomicU64,
    stop: AtomicBool,
}

/// What the load did.
#[derive(Debug)]
pub struct LoadReport {
    /// How long it ran.
    pub elapsed: Duration,
    /// Transfers acknowledged.
    pub transfers: u64,
    /// Queries answered.
    pub queries: u64,
    /// Microseconds from sending a transfer to its verified certificate.
    pub transfer_latency: Histogram<u64>,
    /// Microseconds from sending a query to its answer.
    pub query_latency: Histogram<u64>,
    /// What every user expects to hold.
    pub balances: Vec<(Principal, u64)>,
}

struct User {
    agent: Agent,
    number: u64,
    choices: ChaCha8Rng,
    transfer_latency: Histogram<u64>,
    query_latency: Histogram<u64>,
    /// Amounts acknowledged, by receiving user.
    sent: Vec<(u64, u64)>,
}

/// Runs the load: closed loop, one request in flight per user.
///
/// # Errors
/// The first failure of any user; the others stop.
pub fn run(
    options: &LoadOptions,
    verifier: &Arc<Verifier>,
    progress: &Arc<Progress>,
) -> Result<LoadReport, WorkloadError> {
    let mut probe = Agent::new(options.address, Identity::numbered(0), Arc::clone(verifier));
    let opening = read_number(&mut probe, options.ledger, "opening_balance")?;
    let start = Instant::now();
    let deadline = start + options.duration;
    let users: Vec<User> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.users)
            .map(|number| {
                scope.spawn(move || {
                    let mut user = User::new(options, number, Arc::clone(verifier));
                    let result = user.run(options, deadline, progress);
                    if result.is_err() {
                        progress.stop.store(true, Ordering::Relaxed);
                    }
                    result.map(|()| user)
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(WorkloadError::Unexpected("a user's thread panicked".into())))
        });
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    Ok(report(users, opening, start.elapsed(), progress))
}

/// Checks that every user holds what it expects.
///
/// # Errors
/// The first account that differs.
pub fn check(
    address: SocketAddr,
    ledger: Principal,
    verifier: &Arc<Verifier>,
    balances: &[(Principal, u64)],
) -> Result<(), WorkloadError> {
    let mut agent = Agent::new(address, Identity::numbered(0), Arc::clone(verifier));
    for (owner, expected) in balances {
        let argument = encode(Encode!(owner))?;
        let reply = replied("balance_of", agent.query(ledger, "balance_of", &argument)?)?;
        let held: u64 = decode(Decode!(&reply, u64))?;
        if held != *expected {
            return Err(WorkloadError::Unexpected(format!(
                "{owner} holds {held} and expects {expected}"
            )));
        }
    }
    Ok(())
}

impl User {
    fn new(options: &LoadOptions, number: u64, verifier: Arc<Verifier>) -> Self {
        Self {
            agent: Agent::new(options.address, Identity::numbered(number), verifier),
            number,
            choices: ChaCha8Rng::seed_from_u64(options.seed ^ number),
            transfer_latency: histogram(),
            query_latency: histogram(),
            sent: Vec::new(),
        }
    }

    fn run(&mut self, options: &LoadOptions, deadline: Instant, progress: &Progress) -> Result<(), WorkloadError> {
        while Instant::now() < deadline && !progress.stop.load(Ordering::Relaxed) {
            let start = Instant::now();
            if self.choices.random_range(0..100) < options.query_percent {
                let argument = encode(Encode!(&self.agent.identity().principal()))?;
                replied("balance_of", self.agent.query(options.ledger, "balance_of", &argument)?)?;
                record(&mut self.query_latency, start);
                progress.queries.fetch_add(1, Ordering::Relaxed);
            } else {
                self.transfer(options)?;
                record(&mut self.transfer_latency, start);
                progress.transfers.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn transfer(&mut self, options: &LoadOptions) -> Result<(), WorkloadError> {
        let to = (self.number + 1 + self.choices.random_range(0..options.users.max(2) - 1)) % options.users.max(2);
        let amount = self.choices.random_range(1..10);
        let argument = encode(Encode!(&TransferArgument {
            to: Identity::numbered(to).principal(),
            amount
        }))?;
        let reply = replied("transfer", self.agent.update(options.ledger, "transfer", &argument)?)?;
        match decode(Decode!(&reply, TransferReply))? {
            TransferReply::Ok(_) => {
                self.sent.push((to, amount));
                Ok(())
            }
            TransferReply::Err(error) => Err(WorkloadError::Unexpected(format!("transfer refused: {error}"))),
        }
    }
}

fn report(users: Vec<User>, opening: u64, elapsed: Duration, progress: &Progress) -> LoadReport {
    let (mut transfer_latency, mut query_latency) = (histogram(), histogram());
    let mut balances = vec![opening; users.len().max(2)];
    for user in &users {
        // Histograms of equal bounds: adding cannot fail.
        let _same_bounds = transfer_latency.add(&user.transfer_latency);
        let _same_bounds = query_latency.add(&user.query_latency);
        for (to, amount) in &user.sent {
            balances[user.number as usize] -= amount;
            balances[*to as usize] += amount;
        }
    }
    let owner = |number: usize| Identity::numbered(number as u64).principal();
    LoadReport {
        elapsed,
        transfers: progress.transfers.load(Ordering::Relaxed),
        queries: progress.queries.load(Ordering::Relaxed),
        transfer_latency,
        query_latency,
        balances: balances
            .into_iter()
            .enumerate()
            .map(|(number, balance)| (owner(number), balance))
            .collect(),
    }
}

/// Asks a query that takes nothing and answers a number.
///
/// # Errors
/// [`WorkloadError`].
pub fn read_number(agent: &mut Agent, ledger: Principal, method: &str) -> Result<u64, WorkloadError> {
    let reply = replied(method, agent.query(ledger, method, &encode(Encode!(&()))?)?)?;
    decode(Decode!(&reply, u64))
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3)
        .expect("one microsecond to a minute with three digits are valid bounds")
}

fn record(histogram: &mut Histogram<u64>, start: Instant) {
    histogram.saturating_record((start.elapsed().as_micros() as u64).max(1));
}
