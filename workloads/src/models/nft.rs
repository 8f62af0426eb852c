//! A mint storm: a collection of tokens that are all different is opened, and everybody mints at once.
//!
//! Stands for the first minutes of a drop. Nearly all requests are mints, of one canister, and most of the rest are looks at
//! how many are left. Yuga Labs' Otherdeed sale of 30 April 2022, the largest of its kind, had 55,000 tokens and two for a
//! wallet (reported by The Verge, 2 May 2022): the same here for every thousand items, with a limit of a hundred because a
//! user of the load stands for fifty wallets. `--arrivals bursts` is the storm's law. Reads and transfers are those of the
//! ICRC-7 standard; that one request in twelve gives a token away again is a guess.

use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, ask, reply_of};
use crate::management::deploy;
use crate::request::Kind;
use crate::workload::{Deployed, Operation, Scale, Workload, check_count};
use candid::{CandidType, Deserialize, Nat, Principal};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const CAP_PER_ITEM: u64 = 55;
const WALLET_MAX: u64 = 100;
const PAGE: u64 = 500;

/// The model.
pub struct Nft;

struct Collection {
    canister: Principal,
    users: Arc<[Principal]>,
    supply_cap: u64,
    known: Mutex<Known>,
}

/// What acknowledgements tell.
#[derive(Default)]
struct Known {
    owners: BTreeMap<u64, Principal>,
    /// Tokens that an owner holds and nothing is being done with.
    at_rest: BTreeMap<Principal, Vec<u64>>,
    /// To whom tokens are on their way.
    moving: BTreeMap<u64, Principal>,
}

#[derive(CandidType, Deserialize)]
struct Account {
    owner: Principal,
    subaccount: Option<[u8; 32]>,
}

#[derive(CandidType, Deserialize)]
struct TransferArg {
    from_subaccount: Option<[u8; 32]>,
    to: Account,
    token_id: Nat,
    memo: Option<Vec<u8>>,
    created_at_time: Option<u64>,
}

#[derive(Debug, CandidType, Deserialize)]
enum TransferError {
    NonExistingTokenId,
    InvalidRecipient,
    Unauthorized,
    TooOld,
    CreatedInFuture { ledger_time: u64 },
    Duplicate { duplicate_of: Nat },
    GenericError { error_code: Nat, message: String },
    GenericBatchError { error_code: Nat, message: String },
}

#[derive(CandidType, Deserialize)]
enum MintError {
    SoldOut,
    WalletFull,
}

impl Workload for Nft {
    fn name(&self) -> &'static str {
        "nft"
    }

    fn about(&self) -> &'static str {
        "a mint storm on one collection: mints, looks at what is left, tokens given away"
    }

    fn deploy(&self, agent: &mut Agent, scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let supply_cap = scale.items.max(1) * CAP_PER_ITEM;
        let canister = deploy(agent, canisters::NFT, &arguments_of((supply_cap, WALLET_MAX))?)?;
        Ok(Box::new(Collection {
            canister,
            users: Arc::clone(&scale.users),
            supply_cap,
            known: Mutex::default(),
        }))
    }
}

impl Collection {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token of the user's, on its way to somebody else from now on.
    fn give_away(&self, user: Principal, choices: &mut ChaCha8Rng) -> Option<(u64, Principal)> {
        let to = self.users[choices.random_range(0..self.users.len())];
        let mut known = self.known();
        if to == user {
            return None;
        }
        let token = known.at_rest.get_mut(&user)?.pop()?;
        known.moving.insert(token, to);
        Some((token, to))
    }

    fn minted(&self, user: Principal, token: u64) -> Result<(), WorkloadError> {
        let mut known = self.known();
        known.at_rest.entry(user).or_default().push(token);
        match known.owners.insert(token, user) {
            None => Ok(()),
            Some(first) => Err(WorkloadError::unexpected(format!(
                "token {token} was minted for {first} and for {user}"
            ))),
        }
    }

    fn moved(&self, token: u64, to: Principal) {
        let mut known = self.known();
        known.moving.remove(&token);
        known.owners.insert(token, to);
        known.at_rest.entry(to).or_default().push(token);
    }
}

impl Deployed for Collection {
    fn canister(&self) -> Principal {
        self.canister
    }

    fn next(&self, user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let owner = self.users[user];
        let choice = choices.random_range(0..12);
        let gift = (choice == 0).then(|| self.give_away(owner, choices)).flatten();
        let (kind, method, argument) = match (gift, choice) {
            (Some((token, to)), _) => {
                let transfer = TransferArg {
                    from_subaccount: None,
                    to: Account {
                        owner: to,
                        subaccount: None,
                    },
                    token_id: Nat::from(token),
                    memo: None,
                    created_at_time: None,
                };
                (Kind::Call, "icrc7_transfer", arguments_of((vec![transfer],))?)
            }
            (None, 1) => (Kind::Query, "icrc7_total_supply", arguments_of(())?),
            (None, 2) => {
                let account = Account {
                    owner,
                    subaccount: None,
                };
                let argument = arguments_of((account, None::<Nat>, Some(Nat::from(100_u8))))?;
                (Kind::Query, "icrc7_tokens_of", argument)
            }
            (None, _) => (Kind::Call, "mint", arguments_of(())?),
        };
        Ok(Operation {
            kind,
            canister: self.canister,
            method,
            argument,
            expected: user as u64,
        })
    }

    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        let user = self.users[operation.expected as usize];
        match operation.method {
            "mint" => match reply_of::<(Result<u64, MintError>,)>(reply)?.0 {
                Ok(token) => self.minted(user, token),
                Err(MintError::SoldOut | MintError::WalletFull) => Ok(()),
            },
            "icrc7_transfer" => {
                let (transfers,) = reply_of::<(Vec<TransferArg>,)>(&operation.argument)?;
                let (mut answers,) = reply_of::<(Vec<Option<Result<Nat, TransferError>>>,)>(reply)?;
                let (Some(transfer), Some(Some(Ok(_)))) = (transfers.first(), answers.pop()) else {
                    return Err(WorkloadError::unexpected(
                        "a token that its owner gives away is not taken",
                    ));
                };
                self.moved(number(&transfer.token_id), transfer.to.owner);
                Ok(())
            }
            "icrc7_total_supply" => {
                let supply = number(&reply_of::<(Nat,)>(reply)?.0);
                match supply <= self.supply_cap {
                    true => Ok(()),
                    false => Err(WorkloadError::unexpected(format!(
                        "{supply} tokens of {}",
                        self.supply_cap
                    ))),
                }
            }
            _ => {
                let (tokens,) = reply_of::<(Vec<Nat>,)>(reply)?;
                match tokens.windows(2).all(|pair| pair[0] < pair[1]) {
                    true => Ok(()),
                    false => Err(WorkloadError::unexpected("the tokens of an owner are not in order")),
                }
            }
        }
    }

    /// As many tokens as were minted, no id twice, each with whom it was minted for or given to.
    fn check(&self, agent: &mut Agent, is_exact: bool) -> Result<(), WorkloadError> {
        let supply = number(&ask::<_, (Nat,)>(agent, self.canister, "icrc7_total_supply", ())?.0);
        let known = self.known();
        check_count("tokens", supply, known.owners.len() as u64, is_exact)?;
        for first in (0..supply).step_by(PAGE as usize) {
            let ids: Vec<_> = (first..supply.min(first + PAGE)).collect();
            let argument: Vec<_> = ids.iter().map(|id| Nat::from(*id)).collect();
            let (owners,) = ask::<_, (Vec<Option<Account>>,)>(agent, self.canister, "icrc7_owner_of", (argument,))?;
            for (id, owner) in ids.iter().zip(owners) {
                let owner = owner.map(|account| account.owner);
                let (expected, may_be) = (known.owners.get(id), known.moving.get(id));
                let is_right = owner.is_some() && (owner.as_ref() == expected || owner.as_ref() == may_be);
                // One whose mint was not answered may belong to anybody.
                if !is_right && (is_exact || expected.is_some()) {
                    return Err(WorkloadError::unexpected(format!(
                        "token {id} is with {owner:?} instead of {expected:?}"
                    )));
                }
            }
        }
        Ok(())
    }
}

fn number(nat: &Nat) -> u64 {
    u64::try_from(&nat.0).unwrap_or(u64::MAX)
}
