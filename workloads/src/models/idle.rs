//! Many canisters of which few are used: transfers on ledgers chosen by Zipf's law.
//!
//! Stands for a subnet with its long tail of canisters; an exponent of 1 leaves most of them untouched.

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
        let count = scale.canisters.max(1);
        let canisters: Vec<_> = (0..count)
            .map(|_| deploy(agent, canisters::LEDGER, &[]))
            .collect::<Result<_, _>>()?;
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
        let mut used = 0;
        for canister in &self.canisters {
            let mut number = |method| ask::<_, (u64,)>(agent, *canister, method, ()).map(|(number,)| number);
            let (supply, accounts) = (number("total_supply")?, number("accounts")?);
            let opening = number("opening_balance")?;
            if supply != accounts * opening {
                return Err(WorkloadError::Unexpected(format!(
                    "{canister}: {accounts} accounts hold {supply}"
                )));
            }
            used += u64::from(accounts > 0);
        }
        let transfers = self.transfers.load(Ordering::Relaxed);
        check_count("used ledgers", used.min(1), transfers.min(1), is_exact)
    }
}
