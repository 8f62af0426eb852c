//! The token ledger as a service: the canister behind the whole replica, and the same ledger on databases.

use crate::BenchError;
use crate::measure::{Effort, Figure};
use crate::netstack::Running;
use crate::peers::service::{Service, body};
use crate::peers::{OPENING_BALANCE, Store, postgres::Postgres, redis::Redis};
use candid::{CandidType, Decode, Deserialize, Encode, Principal};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use replicore_workloads::http::Connection;
use replicore_workloads::{Agent, CallOutcome, Identity};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Clients, each with one transfer in flight. A database has a connection for each.
const CLIENTS: u64 = 64;
/// Accounts that transfers go to: so many that two transfers in flight seldom share one, which would make a database wait.
const ACCOUNTS: u64 = 5_000;

/// `ledger.transfers_rps`: signed transfers of 64 users in a closed loop, replica and clients on the same machine.
pub fn transfers(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let running = Running::start()?;
    let mut last_root = String::new();
    let samples = effort.samples(|| {
        let (report, root) = running.load(CLIENTS, slice(effort), 0)?;
        last_root = root;
        Ok(report.transfers as f64 / report.elapsed.as_secs_f64())
    })?;
    running.stop()?;
    Ok(vec![Figure::of("ledger.transfers_rps", "1/s", samples, last_root)])
}

/// `ledger.postgres_ratio`: transfers per second of the canister over those of PostgreSQL behind a plain service, in turn;
/// beside it the rates themselves, and that of the service without signatures.
pub fn postgres_ratio(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let accounts = accounts(effort);
    let payers: Vec<Principal> = (0..CLIENTS)
        .map(|number| Identity::numbered(number).principal())
        .collect();
    let owners: Vec<&[u8]> = payers.iter().chain(accounts.iter()).map(Principal::as_slice).collect();
    let mut distinct = owners.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let database = Arc::new(Postgres::start(&distinct)?);
    let opening = Arc::clone(&database);
    let service = Service::start(Arc::new(move || Ok(Box::new(opening.connect()?) as Box<dyn Store>)))?;
    let peer = Peer {
        names: ["postgres_rps", "postgres_trusted_rps"],
        service,
        relaxed: None,
    };
    let (figure, transfers) = compare("ledger.postgres_ratio", effort, &peer, &accounts)?;
    drop(peer);
    let (held, numbered) = database.totals()?;
    if held != OPENING_BALANCE * distinct.len() as i64 || numbered.unsigned_abs() != transfers {
        return Err(BenchError::new(format!(
            "PostgreSQL holds {held} after {numbered} transfers; {transfers} were acknowledged"
        )));
    }
    Ok(vec![figure])
}

/// `ledger.redis_always_ratio`: the same with Redis, whose append-only file is synced before every answer; beside it the rate
/// where the file is synced once a second, so that a crash of the machine loses what was acknowledged since.
pub fn redis_always_ratio(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let accounts = accounts(effort);
    let database = Arc::new(Redis::start()?);
    let opening = Arc::clone(&database);
    let service = Service::start(Arc::new(move || Ok(Box::new(opening.connect()?) as Box<dyn Store>)))?;
    let switched = Arc::clone(&database);
    let peer = Peer {
        names: ["redis_always_rps", "redis_always_trusted_rps"],
        service,
        relaxed: Some(Relaxed {
            name: "redis_everysec_rps",
            switch: Box::new(move |is_relaxed| switched.sync_every_second(is_relaxed)),
        }),
    };
    let (figure, transfers) = compare("ledger.redis_always_ratio", effort, &peer, &accounts)?;
    drop(peer);
    let numbered = database.transfers()?;
    if numbered != transfers {
        return Err(BenchError::new(format!(
            "Redis counts {numbered} transfers; {transfers} were acknowledged"
        )));
    }
    Ok(vec![figure])
}

/// A database behind its service.
struct Peer {
    /// Of the rates with and without signatures.
    names: [&'static str; 2],
    service: Service,
    relaxed: Option<Relaxed>,
}

/// Durability that a peer offers below that of the canister: for comparison, not part of the ratio.
struct Relaxed {
    /// Of the rate with it.
    name: &'static str,
    /// Turns it on and off.
    switch: Box<dyn Fn(bool) -> Result<(), BenchError>>,
}

/// Measures canister and peer in turn. Gives the figure and how many transfers the peer acknowledged.
fn compare(
    id: &'static str,
    effort: &Effort,
    peer: &Peer,
    accounts: &Arc<[Principal]>,
) -> Result<(Figure, u64), BenchError> {
    let running = Running::start()?;
    let mut canister: Vec<ToCanister> = (0..CLIENTS).map(|number| ToCanister::new(&running, number)).collect();
    let mut to_peer: Vec<ToPeer> = (0..CLIENTS).map(|number| ToPeer::new(peer, number)).collect();
    let time = slice(effort) / 2;
    let mut acknowledged = 0;
    let samples = effort.samples(|| {
        let ours = drive(&mut canister, accounts, time)?;
        let mut drive_peer = |path| {
            to_peer.iter_mut().for_each(|client| client.path = path);
            drive(&mut to_peer, accounts, time)
        };
        let (theirs, theirs_trusted) = (drive_peer("/transfer")?, drive_peer("/trusted")?);
        acknowledged += theirs.0 + theirs_trusted.0;
        let mut relaxed_rate = 0.0;
        if let Some(relaxed) = &peer.relaxed {
            (relaxed.switch)(true)?;
            let relaxed_run = drive_peer("/transfer")?;
            (relaxed.switch)(false)?;
            acknowledged += relaxed_run.0;
            relaxed_rate = relaxed_run.1;
        }
        Ok([ours.1, theirs.1, theirs_trusted.1, relaxed_rate])
    })?;
    let column = |index: usize| samples.iter().map(|rates| rates[index]).collect::<Vec<_>>();
    let ratios = samples.iter().map(|[ours, theirs, ..]| ours / theirs).collect();
    let root = running.check_supply()?;
    running.stop()?;
    let mut figure = Figure::of(id, "x", ratios, root)
        .against("canister_rps", column(0))
        .against(peer.names[0], column(1))
        .against(peer.names[1], column(2));
    if let Some(relaxed) = &peer.relaxed {
        figure = figure.against(relaxed.name, column(3));
    }
    Ok((figure, acknowledged))
}

/// One client.
trait Transfer: Send {
    fn transfer(&mut self, payee: &Principal, amount: u64) -> Result<(), BenchError>;
    fn choices(&mut self) -> &mut ChaCha8Rng;
}

/// All clients at once for a while, closed loop: transfers and their rate.
fn drive<T: Transfer>(
    clients: &mut [T],
    accounts: &Arc<[Principal]>,
    time: Duration,
) -> Result<(u64, f64), BenchError> {
    let count = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                let count = &count;
                scope.spawn(move || -> Result<(), BenchError> {
                    while start.elapsed() < time {
                        let payee = client.choices().random_range(0..accounts.len());
                        let amount = client.choices().random_range(1..10);
                        client.transfer(&accounts[payee], amount)?;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(BenchError::new("a client's thread panicked")))
        })
    })?;
    let count = count.into_inner();
    Ok((count, count as f64 / start.elapsed().as_secs_f64()))
}

struct ToCanister {
    agent: Agent,
    canister: Principal,
    choices: ChaCha8Rng,
}

#[derive(CandidType)]
struct TransferArgument {
    to: Principal,
    amount: u64,
}

#[derive(CandidType, Deserialize, Debug)]
enum TransferReply {
    Ok(u64),
    Err(String),
}

impl ToCanister {
    fn new(running: &Running, number: u64) -> Self {
        Self {
            agent: running.agent(number),
            canister: running.canister(),
            choices: ChaCha8Rng::seed_from_u64(number),
        }
    }
}

impl Transfer for ToCanister {
    fn transfer(&mut self, payee: &Principal, amount: u64) -> Result<(), BenchError> {
        let argument = Encode!(&TransferArgument { to: *payee, amount }).map_err(BenchError::new)?;
        let outcome = self.agent.update(self.canister, "transfer", &argument);
        let CallOutcome::Replied(reply) = outcome.map_err(BenchError::new)? else {
            return Err(BenchError::new("the transfer was not replied to"));
        };
        match Decode!(&reply, TransferReply).map_err(BenchError::new)? {
            TransferReply::Ok(_) => Ok(()),
            TransferReply::Err(error) => Err(BenchError::new(error)),
        }
    }

    fn choices(&mut self) -> &mut ChaCha8Rng {
        &mut self.choices
    }
}

struct ToPeer {
    connection: Connection,
    identity: Identity,
    path: &'static str,
    nonce: u64,
    choices: ChaCha8Rng,
}

impl ToPeer {
    fn new(peer: &Peer, number: u64) -> Self {
        Self {
            connection: Connection::new(peer.service.address()),
            identity: Identity::numbered(number),
            path: "/transfer",
            nonce: 0,
            choices: ChaCha8Rng::seed_from_u64(number),
        }
    }
}

impl Transfer for ToPeer {
    fn transfer(&mut self, payee: &Principal, amount: u64) -> Result<(), BenchError> {
        self.nonce += 1;
        let body = body(&self.identity, payee, amount, self.nonce);
        let answer = self
            .connection
            .request("POST", self.path, &body)
            .map_err(BenchError::new)?;
        match answer.status {
            200 => Ok(()),
            status => Err(BenchError::new(format!(
                "HTTP {status}: {}",
                String::from_utf8_lossy(&answer.body)
            ))),
        }
    }

    fn choices(&mut self) -> &mut ChaCha8Rng {
        &mut self.choices
    }
}

fn accounts(effort: &Effort) -> Arc<[Principal]> {
    let count = effort.scale(ACCOUNTS);
    // Beyond the numbers of the clients: no transfer goes to its own payer.
    (CLIENTS..CLIENTS + count)
        .map(|number| Identity::numbered(number).principal())
        .collect()
}

/// Time of one run: a slice of the measurement's time, long enough for hundreds of rounds.
fn slice(effort: &Effort) -> Duration {
    let runs = effort.runs.min(5) as u32;
    (effort.time_left() / (runs * 2)).clamp(Duration::from_millis(300), Duration::from_secs(5))
}
