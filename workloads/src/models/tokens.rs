//! A token ledger: four transfers to one look at a balance, any user to any other.
//!
//! Stands for the transfers of a fungible token. The share of queries is small because wallets ask an index, not the ledger.

use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, ask, reply_of};
use crate::management::deploy;
use crate::request::Kind;
use crate::workload::{Deployed, Operation, Scale, Workload};
use candid::{CandidType, Deserialize, Principal};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

const QUERY_PERCENT: u32 = 20;

/// The model.
pub struct Tokens;

struct Ledger {
    canister: Principal,
    users: Arc<[Principal]>,
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

impl Workload for Tokens {
    fn name(&self) -> &'static str {
        "ledger"
    }

    fn about(&self) -> &'static str {
        "transfers of a fungible token between users, and looks at balances"
    }

    fn deploy(&self, agent: &mut Agent, scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let canister = deploy(agent, canisters::LEDGER, &[])?;
        let users = Arc::clone(&scale.users);
        Ok(Box::new(Ledger { canister, users }))
    }
}

impl Deployed for Ledger {
    fn canister(&self) -> Principal {
        self.canister
    }

    fn next(&self, user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let is_query = choices.random_range(0..100) < QUERY_PERCENT;
        let (kind, method, argument) = if is_query {
            (Kind::Query, "balance_of", arguments_of((self.users[user],))?)
        } else {
            let to = self.users[choices.random_range(0..self.users.len())];
            let amount = choices.random_range(1..10);
            (
                Kind::Call,
                "transfer",
                arguments_of((TransferArgument { to, amount },))?,
            )
        };
        Ok(Operation {
            kind,
            canister: self.canister,
            method,
            argument,
            expected: 0,
        })
    }

    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        if operation.kind == Kind::Query {
            return reply_of::<(u64,)>(reply).map(drop);
        }
        match reply_of::<(TransferReply,)>(reply)?.0 {
            TransferReply::Ok(_) => Ok(()),
            TransferReply::Err(error) => Err(WorkloadError::Unexpected(format!("transfer: {error}"))),
        }
    }

    /// No token was made or lost.
    fn check(&self, agent: &mut Agent, _is_exact: bool) -> Result<(), WorkloadError> {
        let mut number = |method| ask::<_, (u64,)>(agent, self.canister, method, ()).map(|(number,)| number);
        let (supply, accounts, opening) = (number("total_supply")?, number("accounts")?, number("opening_balance")?);
        if supply == accounts * opening {
            return Ok(());
        }
        Err(WorkloadError::Unexpected(format!(
            "{accounts} accounts hold {supply} together"
        )))
    }
}
