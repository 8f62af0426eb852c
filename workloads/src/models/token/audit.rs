//! The block log, read and added up from its first block: what an auditor does who trusts nothing but the certified end.

use super::standard::{Account, BlockWithId, DataCertificate, GetBlocksArgs, GetBlocksResult, Value};
use crate::agent::Agent;
use crate::certificate::{certified_data, decode_tree};
use crate::error::{WorkloadError, ask};
use crate::request::{hash, hash_of_map};
use candid::Principal;
use ic_certification::LookupResult;
use std::collections::BTreeMap;

/// Blocks asked for at once, as many as ledger and archives give.
const PAGE: u64 = 1_000;

/// What the log says.
#[derive(Default)]
pub struct Log {
    /// A digest of what each block records.
    pub digests: Vec<u64>,
    /// Tokens minted and neither burned nor paid as fees.
    pub supply: u64,
    /// Transactions other than mints.
    pub by_users: u64,
    balances: BTreeMap<Account, i128>,
    allowances: BTreeMap<(Account, Account), i128>,
    parent: Option<[u8; 32]>,
}

impl Log {
    /// What an account holds.
    pub fn balance(&self, account: &Account) -> u64 {
        let balance = self.balances.get(account).copied().unwrap_or_default();
        u64::try_from(balance).unwrap_or(u64::MAX)
    }
}

/// Reads the whole log and checks its chain, its end and that nobody spent what it did not have or was not allowed to.
///
/// # Errors
/// What is wrong.
pub fn read(agent: &mut Agent, ledger: Principal) -> Result<Log, WorkloadError> {
    let tip = tip(agent, ledger)?;
    let mut log = Log::default();
    while (log.digests.len() as u64) < tip.0 + 1 {
        let first = log.digests.len() as u64;
        for found in blocks(agent, ledger, first)? {
            if log.digests.len() as u64 > tip.0 {
                break;
            }
            log.append(&found)
                .map_err(|what| WorkloadError::unexpected(format!("block {}: {what}", found.id)))?;
        }
        if log.digests.len() as u64 == first {
            return Err(WorkloadError::unexpected(format!("block {first} is not to be had")));
        }
    }
    match log.parent == Some(tip.1) {
        true => Ok(log),
        false => Err(WorkloadError::unexpected("the certified end is of another log")),
    }
}

/// When a block was made, nanoseconds since 1970.
///
/// # Errors
/// There is no such block.
pub fn time_of_block(agent: &mut Agent, ledger: Principal, index: u64) -> Result<u64, WorkloadError> {
    let found = blocks(agent, ledger, index)?;
    let time = found.first().and_then(|found| field(&found.block, "ts").and_then(nat));
    time.ok_or_else(|| WorkloadError::unexpected(format!("no block {index}")))
}

/// Blocks from `first` on, from wherever they are, in order.
fn blocks(agent: &mut Agent, ledger: Principal, first: u64) -> Result<Vec<BlockWithId>, WorkloadError> {
    let argument = vec![GetBlocksArgs::new(first, PAGE)];
    let (answer,) = ask::<_, (GetBlocksResult,)>(agent, ledger, "icrc3_get_blocks", (argument,))?;
    let mut found = Vec::new();
    for archived in answer.archived_blocks {
        let callback = &archived.callback.0;
        let (answer,) = ask::<_, (GetBlocksResult,)>(agent, callback.principal, &callback.method, (archived.args,))?;
        found.extend(answer.blocks);
    }
    found.extend(answer.blocks);
    Ok(found)
}

/// Index and hash of the last block, as the certificate says.
fn tip(agent: &mut Agent, ledger: Principal) -> Result<(u64, [u8; 32]), WorkloadError> {
    let answer = ask::<_, (Option<DataCertificate>,)>(agent, ledger, "icrc3_get_tip_certificate", ())?.0;
    let answer = answer.ok_or_else(|| WorkloadError::unexpected("no certificate of the last block"))?;
    let untrusted = |error| WorkloadError::unexpected(error);
    agent.verify_root(&answer.certificate).map_err(WorkloadError::Agent)?;
    let tree = decode_tree(&answer.hash_tree).map_err(untrusted)?;
    if certified_data(&answer.certificate, ledger).map_err(untrusted)? != tree.digest() {
        return Err(WorkloadError::unexpected(
            "the certificate vouches for another last block",
        ));
    }
    let leaf = |label: &[u8]| match tree.lookup_path([label]) {
        LookupResult::Found(bytes) => Ok(bytes.to_vec()),
        _ => Err(WorkloadError::unexpected("the certificate lacks the last block")),
    };
    let index = leb128::read::unsigned(&mut &leaf(b"last_block_index")?[..]);
    let digest = <[u8; 32]>::try_from(leaf(b"last_block_hash")?);
    index
        .ok()
        .zip(digest.ok())
        .ok_or_else(|| WorkloadError::unexpected("the certificate's last block is malformed"))
}

impl Log {
    fn append(&mut self, found: &BlockWithId) -> Result<(), String> {
        let block = &found.block;
        let index = self.digests.len() as u64;
        let parent = field(block, "phash").and_then(blob);
        if found.id != index || parent != self.parent.as_ref().map(|hash| &hash[..]) {
            return Err(format!("not the one after block {}", index.wrapping_sub(1)));
        }
        let transaction = field(block, "tx").ok_or("no transaction")?;
        let kind = field(block, "btype").and_then(text).ok_or("no type")?;
        let account =
            |name| field(transaction, name).map(|value| account(value).ok_or(format!("{name} is no account")));
        let (from, to) = (account("from").transpose()?, account("to").transpose()?);
        let spender = account("spender").transpose()?;
        let amount = field(transaction, "amt").and_then(nat).ok_or("no amount")?;
        let fee = field(block, "fee")
            .or_else(|| field(transaction, "fee"))
            .and_then(nat)
            .unwrap_or(0);
        let total = i128::from(amount) + i128::from(fee);
        match (kind, from, to, spender) {
            ("1mint", None, Some(to), None) => {
                self.add(to, amount.into())?;
                self.supply += amount;
            }
            ("1xfer", Some(from), Some(to), None) => self.pay(from, to, amount, fee)?,
            ("2xfer", Some(from), Some(to), Some(spender)) => {
                let allowance = self.allowances.entry((from, spender)).or_default();
                *allowance -= total;
                if *allowance < 0 {
                    return Err("more than was allowed".to_owned());
                }
                self.pay(from, to, amount, fee)?;
            }
            ("2approve", Some(from), None, Some(spender)) => {
                self.allowances.insert((from, spender), amount.into());
                self.add(from, -i128::from(fee))?;
                self.supply -= fee;
            }
            _ => return Err(format!("a {kind} with the wrong accounts")),
        }
        self.by_users += u64::from(kind != "1mint");
        let nobody = Account::of(Principal::management_canister());
        let by = from.unwrap_or(nobody);
        self.digests
            .push(digest(kind, &by, to.as_ref(), spender.as_ref(), amount));
        self.parent = Some(hash_of_value(block));
        Ok(())
    }

    fn pay(&mut self, from: Account, to: Account, amount: u64, fee: u64) -> Result<(), String> {
        self.add(from, -i128::from(amount) - i128::from(fee))?;
        self.supply -= fee;
        self.add(to, amount.into())
    }

    fn add(&mut self, account: Account, amount: i128) -> Result<(), String> {
        let balance = self.balances.entry(account).or_default();
        *balance += amount;
        match *balance {
            ..0 => Err(format!("{} spends what it does not have", account.owner)),
            0.. => Ok(()),
        }
    }
}

/// A number for what a transaction does; two that differ have the same one once in 2^64.
pub fn digest(kind: &str, by: &Account, to: Option<&Account>, spender: Option<&Account>, amount: u64) -> u64 {
    let mut bytes = amount.to_le_bytes().to_vec();
    bytes.extend(kind.as_bytes());
    for account in [Some(by), to, spender] {
        bytes.push(u8::from(account.is_some()));
        if let Some(account) = account {
            bytes.push(account.owner.as_slice().len() as u8);
            bytes.extend(account.owner.as_slice());
            bytes.extend(account.subaccount.unwrap_or_default());
        }
    }
    hash(&bytes)
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The representation-independent hash of a block.
fn hash_of_value(value: &Value) -> [u8; 32] {
    match value {
        Value::Blob(bytes) => hash(bytes),
        Value::Text(text) => hash(text.as_bytes()),
        Value::Nat(number) => {
            let mut bytes = Vec::new();
            // Writing to memory does not fail.
            let _written = number.encode(&mut bytes);
            hash(&bytes)
        }
        Value::Int(number) => {
            let mut bytes = Vec::new();
            let _written = number.encode(&mut bytes);
            hash(&bytes)
        }
        Value::Array(values) => hash(&values.iter().flat_map(hash_of_value).collect::<Vec<u8>>()),
        Value::Map(fields) => {
            let mut fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| (name.as_str(), hash_of_value(value)))
                .collect();
            hash_of_map(&mut fields)
        }
    }
}

fn field<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    match map {
        Value::Map(fields) => fields.iter().find(|(key, _)| key == name).map(|(_, value)| value),
        _ => None,
    }
}

fn nat(value: &Value) -> Option<u64> {
    match value {
        Value::Nat(number) => u64::try_from(&number.0).ok(),
        _ => None,
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

fn blob(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Blob(bytes) => Some(bytes),
        _ => None,
    }
}

fn account(value: &Value) -> Option<Account> {
    let Value::Array(parts) = value else { return None };
    let owner = Principal::try_from_slice(blob(parts.first()?)?).ok()?;
    let subaccount = match parts.get(1) {
        Some(part) => Some(blob(part)?.try_into().ok()?),
        None => None,
    };
    Some(Account { owner, subaccount })
}
