//! Many canisters of which few are used: transfers on ledgers chosen by Zipf's law.
//!
//! Stands for a subnet with its long tail of canisters. `--canisters 100000` is the size that DFINITY's replica is measured at
//! itself (`rs/execution_environment/benches/100k_canisters.rs` in github.com/dfinity/ic). With an exponent of 1 the busiest of
//! 100,000 ledgers gets one operation in twelve, and a load of 10,000 operations touches about 4,300 of them: requests for
//! anything popular are distributed like that, with exponents from 0.64 up (see `assets.rs`); what the exponent is of canisters
//! is not published, and 1 is a guess.

use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, ask, reply_of};
use crate::management::deploy;
use crate::request::Kind;
use crate::skew::Zipf;
use crate::workload::{Deployed, Operation, Scale, Workload, check_count};
use candid::{CandidType, Deserialize, Principal};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Connections over which canisters are made and looked at.
const CONNECTIONS: usize = 32;

/// The model.
pub struct Idle;

struct Fleet {
    canisters: Vec<Principal>,
    popularity: Zipf,
    users: Arc<[Principal]>,
    transfers: AtomicU64,
}

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

impl Workload for Idle {
    fn name(&self) -> &'static str {
        "idle"
    }

    fn about(&self) -> &'static str {
        "many installed canisters, a few of them busy"
    }

    fn deploy(&self, agent: &mut Agent, scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let count = scale.canisters.max(1) as usize;
        let canisters = side_by_side(agent, count, |agent, _| deploy(agent, canisters::LEDGER, &[]))?;
        Ok(Box::new(Fleet {
            popularity: Zipf::new(canisters.len(), 1.0),
            canisters,
            users: Arc::clone(&scale.users),
            transfers: AtomicU64::new(0),
        }))
    }
}

impl Deployed for Fleet {
    fn canister(&self) -> Principal {
        self.canisters[0]
    }

    fn next(&self, _user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let to = self.users[choices.random_range(0..self.users.len())];
        Ok(Operation {
            kind: Kind::Call,
            canister: self.canisters[self.popularity.choose(choices)],
            method: "transfer",
            argument: arguments_of((TransferArgument { to, amount: 1 },))?,
            expected: 0,
        })
    }

    fn completed(&self, _operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        match reply_of::<(TransferReply,)>(reply)?.0 {
            TransferReply::Ok(_) => {
                self.transfers.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            TransferReply::Err(error) => Err(WorkloadError::Unexpected(format!("transfer: {error}"))),
        }
    }

    /// Every ledger holds what its accounts began with, and those that were never chosen are as they were.
    fn check(&self, agent: &mut Agent, is_exact: bool) -> Result<(), WorkloadError> {
        let used = side_by_side(agent, self.canisters.len(), |agent, number| {
            is_used(agent, self.canisters[number])
        })?;
        let used = used.into_iter().filter(|used| *used).count() as u64;
        let transfers = self.transfers.load(Ordering::Relaxed);
        check_count("used ledgers", used.min(1), transfers.min(1), is_exact)
    }
}

/// Whether a ledger has accounts, which hold what they began with.
fn is_used(agent: &mut Agent, ledger: Principal) -> Result<bool, WorkloadError> {
    let mut number = |method| ask::<_, (u64,)>(agent, ledger, method, ()).map(|(number,)| number);
    let (supply, accounts) = (number("total_supply")?, number("accounts")?);
    if supply != accounts * number("opening_balance")? {
        return Err(WorkloadError::Unexpected(format!(
            "{ledger}: {accounts} accounts hold {supply}"
        )));
    }
    Ok(accounts > 0)
}

/// Does something for every number below `count`, for many of them at once where the agent's route allows it: what came of
/// each, in their order.
fn side_by_side<T: Send>(
    agent: &mut Agent,
    count: usize,
    work: impl Fn(&mut Agent, usize) -> Result<T, WorkloadError> + Sync,
) -> Result<Vec<T>, WorkloadError> {
    let mut companions = agent.companions(CONNECTIONS.min(count));
    if companions.is_empty() {
        return (0..count).map(|number| work(agent, number)).collect();
    }
    let (share, work) = (count.div_ceil(companions.len()), &work);
    let shares = std::thread::scope(|scope| {
        let threads: Vec<_> = companions
            .iter_mut()
            .enumerate()
            .map(|(place, agent)| {
                let numbers = (place * share).min(count)..((place + 1) * share).min(count);
                scope.spawn(move || numbers.map(|number| work(agent, number)).collect::<Result<Vec<T>, _>>())
            })
            .collect();
        let joined = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(WorkloadError::unexpected("a thread panicked")))
        });
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    Ok(shares.into_iter().flatten().collect())
}
