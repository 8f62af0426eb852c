//! A fungible token: ICRC-1 transfers, ICRC-2 approvals and transfers in other people's names, balances, the block log.
//!
//! Stands for the ledgers of tokens. Interfaces and rules are those of the ICRC-1, ICRC-2 and ICRC-3 standards
//! (github.com/dfinity/ICRC-1), balances, allowances and blocks lie in stable structures as in DFINITY's ledger suite, and
//! blocks move to archives as there: above 2,000 blocks the oldest 1,000 go (at the default of 1,000 items; the suite's
//! usual options), and an archive begins with 10 T cycles (the suite's release of 2025-02-27). The fee is a ten-thousandth of
//! a token, the ICP ledger's. Payments dominate; approvals come with the exchanges that use them, as often as the transfers
//! that they allow; the share of queries is small because wallets ask an index. These shares are round guesses.

mod audit;
mod standard;

use self::standard::{
    Account, ApproveArgs, GetBlocksArgs, GetBlocksResult, InitArgument, LedgerError, TransferArg, TransferFromArgs,
};
use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, ask, reply_of, tell};
use crate::management::deploy;
use crate::request::Kind;
use crate::workload::{Deployed, Operation, Scale, Workload, check_count};
use candid::{Nat, Principal};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

const FEE: u64 = 10_000;
const OPENING: u64 = 1_000_000_000_000;
/// What an approval allows: some hundred transfers.
const ALLOWANCE: u64 = 100_000_000;
/// Balances that fit into the argument of the installation; later holders are minted for one by one.
const INITIAL_MAX: usize = 10_000;
const ARCHIVE_CYCLES: u64 = 10_000_000_000_000;
/// Blocks that an explorer looks at.
const LOOK: u64 = 20;

/// The model.
pub struct Token;

struct Ledger {
    canister: Principal,
    /// Different principals, and by user number the place of its own.
    holders: Vec<Principal>,
    of_user: Vec<usize>,
    minting: Account,
    /// What was acknowledged, by block: a digest of what the block must record.
    acknowledged: Mutex<BTreeMap<u64, u64>>,
}

impl Workload for Token {
    fn name(&self) -> &'static str {
        "ledger"
    }

    fn about(&self) -> &'static str {
        "a fungible token: transfers, approvals, balances, a block log with archives"
    }

    fn deploy(&self, agent: &mut Agent, scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let mut places = BTreeMap::new();
        let mut holders = Vec::new();
        let of_user = scale.users.iter().map(|user| {
            *places.entry(*user).or_insert_with(|| {
                holders.push(*user);
                holders.len() - 1
            })
        });
        let of_user = of_user.collect();
        let minting = Account {
            owner: agent.identity().principal(),
            subaccount: Some([0x4d; 32]),
        };
        let (initial, later) = holders.split_at(holders.len().min(INITIAL_MAX));
        let init = InitArgument::new(minting, initial, scale.items.max(1));
        let canister = deploy(agent, canisters::TOKEN, &arguments_of((init,))?)?;
        let ledger = Ledger {
            canister,
            minting,
            acknowledged: Mutex::default(),
            of_user,
            holders: Vec::new(),
        };
        for holder in later {
            let minted = ledger.mint(agent, *holder, OPENING, None)?;
            minted.map_err(|error| WorkloadError::unexpected(format!("mint: {error:?}")))?;
        }
        ledger.try_duplicate(agent, holders[0])?;
        Ok(Box::new(Ledger { holders, ..ledger }))
    }
}

impl Ledger {
    fn mint(
        &self,
        agent: &mut Agent,
        to: Principal,
        amount: u64,
        created_at_time: Option<u64>,
    ) -> Result<Result<u64, LedgerError>, WorkloadError> {
        let argument = TransferArg {
            from_subaccount: self.minting.subaccount,
            created_at_time,
            ..TransferArg::new(Account::of(to), amount)
        };
        let (answer,) = tell::<_, (Result<Nat, LedgerError>,)>(agent, self.canister, "icrc1_transfer", (argument,))?;
        Ok(answer.map(|index| number(&index)))
    }

    /// A transaction sent twice happens once: one token is minted as of the time of the last block, twice.
    fn try_duplicate(&self, agent: &mut Agent, to: Principal) -> Result<(), WorkloadError> {
        let time = audit::time_of_block(agent, self.canister, 0)?;
        let (first, second) = (
            self.mint(agent, to, 1, Some(time))?,
            self.mint(agent, to, 1, Some(time))?,
        );
        match (first, second) {
            (Ok(first), Err(LedgerError::Duplicate { duplicate_of })) if number(&duplicate_of) == first => Ok(()),
            (first, second) => Err(WorkloadError::unexpected(format!(
                "a transaction sent twice: {first:?}, then {second:?}"
            ))),
        }
    }

    /// An update of a holder, and what its block must record.
    fn update(&self, holder: usize, choices: &mut ChaCha8Rng) -> Result<(&'static str, Vec<u8>), WorkloadError> {
        let count = self.holders.len();
        let any = Account::of(self.holders[choices.random_range(0..count)]);
        let amount = choices.random_range(1..100_000);
        Ok(match choices.random_range(0..15) {
            0 if count > 1 => {
                let spender = Account::of(self.holders[(holder + 1) % count]);
                ("icrc2_approve", arguments_of((ApproveArgs::new(spender, ALLOWANCE),))?)
            }
            1 if count > 1 => {
                let from = Account::of(self.holders[(holder + count - 1) % count]);
                let argument = TransferFromArgs::new(from, any, amount);
                ("icrc2_transfer_from", arguments_of((argument,))?)
            }
            _ => ("icrc1_transfer", arguments_of((TransferArg::new(any, amount),))?),
        })
    }

    /// Remembers what a block must record; no block records two things.
    fn acknowledge(&self, block: u64, digest: u64) -> Result<(), WorkloadError> {
        let mut acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        match acknowledged.insert(block, digest) {
            None => Ok(()),
            Some(_) => Err(WorkloadError::unexpected(format!(
                "block {block} was acknowledged twice"
            ))),
        }
    }
}

impl Deployed for Ledger {
    fn canister(&self) -> Principal {
        self.canister
    }

    fn next(&self, user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let holder = self.of_user[user];
        let (kind, (method, argument)) = match choices.random_range(0..20) {
            0..3 => {
                let account = Account::of(self.holders[holder]);
                (Kind::Query, ("icrc1_balance_of", arguments_of((account,))?))
            }
            3 => {
                let newest = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                let newest = newest.last_key_value().map_or(0, |(block, _)| *block);
                let range = GetBlocksArgs::new(newest.saturating_sub(LOOK), LOOK);
                (Kind::Query, ("icrc3_get_blocks", arguments_of((vec![range],))?))
            }
            _ => (Kind::Call, self.update(holder, choices)?),
        };
        Ok(Operation {
            kind,
            canister: self.canister,
            method,
            argument,
            expected: holder as u64,
        })
    }

    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        let own = Account::of(self.holders[operation.expected as usize]);
        let digest = match operation.method {
            "icrc1_balance_of" => return reply_of::<(Nat,)>(reply).map(drop),
            "icrc3_get_blocks" => return reply_of::<(GetBlocksResult,)>(reply).map(drop),
            "icrc1_transfer" => {
                let (argument,) = reply_of::<(TransferArg,)>(&operation.argument)?;
                audit::digest("1xfer", &own, Some(&argument.to), None, number(&argument.amount))
            }
            "icrc2_approve" => {
                let (argument,) = reply_of::<(ApproveArgs,)>(&operation.argument)?;
                audit::digest(
                    "2approve",
                    &own,
                    None,
                    Some(&argument.spender),
                    number(&argument.amount),
                )
            }
            _ => {
                let (argument,) = reply_of::<(TransferFromArgs,)>(&operation.argument)?;
                let amount = number(&argument.amount);
                audit::digest("2xfer", &argument.from, Some(&argument.to), Some(&own), amount)
            }
        };
        match reply_of::<(Result<Nat, LedgerError>,)>(reply)?.0 {
            Ok(block) => self.acknowledge(number(&block), digest),
            Err(LedgerError::InsufficientAllowance { .. }) if operation.method == "icrc2_transfer_from" => Ok(()),
            Err(error) => Err(WorkloadError::unexpected(format!("{}: {error:?}", operation.method))),
        }
    }

    /// The log, archives included, is one chain whose end is certified; it holds every acknowledged transaction once; and what
    /// it says of balances and supply, added up here, is what the ledger holds.
    fn check(&self, agent: &mut Agent, is_exact: bool) -> Result<(), WorkloadError> {
        let log = audit::read(agent, self.canister)?;
        let acknowledged = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        for (block, digest) in acknowledged.iter() {
            if log.digests.get(*block as usize) != Some(digest) {
                return Err(WorkloadError::unexpected(format!(
                    "block {block} records something else"
                )));
            }
        }
        let users = log.by_users;
        check_count("transactions of users", users, acknowledged.len() as u64, is_exact)?;
        let mut held = 0;
        for holder in &self.holders {
            let account = Account::of(*holder);
            let (balance,) = ask::<_, (Nat,)>(agent, self.canister, "icrc1_balance_of", (account,))?;
            let (balance, expected) = (number(&balance), log.balance(&account));
            if balance != expected {
                return Err(WorkloadError::unexpected(format!(
                    "{holder} holds {balance}, its blocks say {expected}"
                )));
            }
            held += balance;
        }
        let (supply,) = ask::<_, (Nat,)>(agent, self.canister, "icrc1_total_supply", ())?;
        if (number(&supply), held) == (log.supply, log.supply) {
            return Ok(());
        }
        Err(WorkloadError::unexpected(format!(
            "a supply of {supply}, {held} in accounts, {} by the blocks",
            log.supply
        )))
    }
}

fn number(nat: &Nat) -> u64 {
    u64::try_from(&nat.0).unwrap_or(u64::MAX)
}

impl InitArgument {
    fn new(minting_account: Account, holders: &[Principal], items: u64) -> Self {
        Self {
            minting_account,
            transfer_fee: FEE,
            initial_balances: holders.iter().map(|holder| (Account::of(*holder), OPENING)).collect(),
            archive: standard::ArchiveOptions {
                module: ByteBuf::from(canisters::ARCHIVE),
                trigger_threshold: 2 * items,
                num_blocks_to_archive: items,
                blocks_per_archive: 100 * items,
                cycles_for_archive_creation: ARCHIVE_CYCLES,
            },
        }
    }
}
