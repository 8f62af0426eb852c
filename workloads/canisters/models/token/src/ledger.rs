//! The state of a ledger and its rules. Balances, allowances and blocks lie in stable structures, as in the ledgers in use.

use crate::block::{Account, Hash, Transaction, Value};
use crate::types::{ApproveArgs, ArchiveOptions, InitArgument, LedgerError, TransferArg, TransferFromArgs};
use candid::{CandidType, Nat, Principal};
use ic_stable_structures::memory_manager::{MemoryId, MemoryManager, VirtualMemory};
use ic_stable_structures::{DefaultMemoryImpl, StableBTreeMap, StableCell};
use serde::Deserialize;
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;

/// How long transactions are recognised, and how far clocks may be apart.
const WINDOW: u64 = 24 * 60 * 60 * 1_000_000_000;
const DRIFT: u64 = 2 * 60 * 1_000_000_000;
const MEMO_BYTES_MAX: usize = 32;

type Memory = VirtualMemory<DefaultMemoryImpl>;

/// An archive and the blocks that it holds.
#[derive(Clone, CandidType, Deserialize)]
pub struct Archive {
    pub canister: Principal,
    pub first: u64,
    pub end: u64,
}

/// What lies in the heap; upgrades carry it over.
#[derive(CandidType, Deserialize)]
pub struct Settings {
    pub minting_account: Account,
    pub fee: u64,
    pub supply: u64,
    pub archive: ArchiveOptions,
    pub archives: Vec<Archive>,
    /// The first block that is here, and the one to come.
    pub first: u64,
    pub end: u64,
    pub last_hash: Option<Hash>,
    /// Transactions with a time of creation, by that time and their hash.
    pub recent: BTreeMap<(u64, Hash), u64>,
}

pub struct Ledger {
    pub settings: Settings,
    pub blocks: StableBTreeMap<u64, Vec<u8>, Memory>,
    balances: StableBTreeMap<[u8; 62], u64, Memory>,
    /// By owner and spender: how much, and until when (0: for ever).
    allowances: StableBTreeMap<[u8; 124], (u64, u64), Memory>,
    saved: StableCell<Vec<u8>, Memory>,
    pub is_archiving: bool,
}

/// What the endpoints have in common.
struct Common<'a> {
    fee: Option<&'a Nat>,
    memo: Option<&'a ByteBuf>,
    created_at_time: Option<u64>,
}

/// A number of tokens; none of this ledger is larger than what a `u64` holds.
fn amount(nat: &Nat) -> u64 {
    u64::try_from(&nat.0).unwrap_or(u64::MAX)
}

impl Ledger {
    fn with(settings: Option<Settings>) -> Self {
        let manager = MemoryManager::init(DefaultMemoryImpl::default());
        let memory = |number| manager.get(MemoryId::new(number));
        let saved = StableCell::init(memory(3), Vec::new());
        let settings = settings.unwrap_or_else(|| candid::decode_one(saved.get()).expect("the settings were saved"));
        Self {
            settings,
            blocks: StableBTreeMap::init(memory(0)),
            balances: StableBTreeMap::init(memory(1)),
            allowances: StableBTreeMap::init(memory(2)),
            saved,
            is_archiving: false,
        }
    }

    pub fn new(init: InitArgument) -> Self {
        let mut ledger = Self::with(Some(Settings {
            minting_account: init.minting_account,
            fee: init.transfer_fee,
            supply: 0,
            archive: init.archive,
            archives: Vec::new(),
            first: 0,
            end: 0,
            last_hash: None,
            recent: BTreeMap::new(),
        }));
        for (account, amount) in init.initial_balances {
            ledger.mint(account, amount);
        }
        ledger
    }

    /// What upgrades leave.
    pub fn saved() -> Self {
        Self::with(None)
    }

    pub fn save(&mut self) {
        self.saved.set(candid::encode_one(&self.settings).expect("settings have a Candid form"));
    }

    pub fn balance(&self, account: &Account) -> u64 {
        self.balances.get(&account.key()).unwrap_or_default()
    }

    /// How much a spender may take, and until when.
    pub fn allowance(&self, owner: &Account, spender: &Account, now: u64) -> (u64, Option<u64>) {
        match self.allowances.get(&pair(owner, spender)) {
            Some((amount, 0)) => (amount, None),
            Some((amount, expires_at)) if expires_at > now => (amount, Some(expires_at)),
            _ => (0, None),
        }
    }

    pub fn transfer(&mut self, caller: Principal, argument: &TransferArg, now: u64) -> Result<u64, LedgerError> {
        let from = Account { owner: caller, subaccount: argument.from_subaccount };
        let common = Common {
            fee: argument.fee.as_ref(),
            memo: argument.memo.as_ref(),
            created_at_time: argument.created_at_time,
        };
        self.pay(from, argument.to, None, amount(&argument.amount), &common, now)
    }

    pub fn transfer_from(&mut self, caller: Principal, argument: &TransferFromArgs, now: u64) -> Result<u64, LedgerError> {
        let spender = Account { owner: caller, subaccount: argument.spender_subaccount };
        let common = Common {
            fee: argument.fee.as_ref(),
            memo: argument.memo.as_ref(),
            created_at_time: argument.created_at_time,
        };
        let spender = (spender.key() != argument.from.key()).then_some(spender);
        self.pay(argument.from, argument.to, spender, amount(&argument.amount), &common, now)
    }

    /// Moves tokens: checks first, then nothing can fail.
    fn pay(
        &mut self,
        from: Account,
        to: Account,
        spender: Option<Account>,
        amount: u64,
        common: &Common<'_>,
        now: u64,
    ) -> Result<u64, LedgerError> {
        let minting = self.settings.minting_account.key();
        let (is_mint, is_burn) = (from.key() == minting, to.key() == minting);
        let fee = if is_mint || is_burn { 0 } else { self.settings.fee };
        self.check_fee(common, fee)?;
        if is_burn && amount < self.settings.fee {
            return Err(LedgerError::BadBurn { min_burn_amount: Nat::from(self.settings.fee) });
        }
        let transaction = Transaction {
            kind: match (is_mint, is_burn, spender) {
                (true, _, _) => "1mint",
                (_, true, _) => "1burn",
                (_, _, None) => "1xfer",
                (_, _, Some(_)) => "2xfer",
            },
            from: (!is_mint).then_some(from),
            to: (!is_burn).then_some(to),
            spender,
            amount,
            fee: (fee > 0).then_some((fee, common.fee.is_some())),
            memo: common.memo,
            created_at_time: common.created_at_time,
            expected_allowance: None,
            expires_at: None,
        };
        let hash = self.check_recent(&transaction, now)?;
        let total = amount.saturating_add(fee);
        let (allowance, expires_at) = match &spender {
            Some(spender) => self.allowance(&from, spender, now),
            None => (u64::MAX, None),
        };
        if allowance < total {
            return Err(LedgerError::InsufficientAllowance { allowance: Nat::from(allowance) });
        }
        let balance = self.balance(&from);
        if !is_mint && balance < total {
            return Err(LedgerError::InsufficientFunds { balance: Nat::from(balance) });
        }
        if is_mint && self.settings.supply.checked_add(amount).is_none() {
            return Err(LedgerError::GenericError { error_code: Nat::from(1_u8), message: "the supply is exhausted".to_owned() });
        }
        if let Some(spender) = &spender {
            self.allowances.insert(pair(&from, spender), (allowance - total, expires_at.unwrap_or_default()));
        }
        if is_mint {
            self.settings.supply += amount;
        } else {
            self.set_balance(&from, balance - total);
            self.settings.supply -= if is_burn { amount } else { fee };
        }
        if !is_burn {
            self.set_balance(&to, self.balance(&to) + amount);
        }
        Ok(self.append(&transaction, hash, now))
    }

    pub fn approve(&mut self, caller: Principal, argument: &ApproveArgs, now: u64) -> Result<u64, LedgerError> {
        let from = Account { owner: caller, subaccount: argument.from_subaccount };
        assert_ne!(argument.spender.owner, caller, "nobody approves itself");
        let common = Common {
            fee: argument.fee.as_ref(),
            memo: argument.memo.as_ref(),
            created_at_time: argument.created_at_time,
        };
        self.check_fee(&common, self.settings.fee)?;
        if argument.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(LedgerError::Expired { ledger_time: now });
        }
        let transaction = Transaction {
            kind: "2approve",
            from: Some(from),
            to: None,
            spender: Some(argument.spender),
            amount: amount(&argument.amount),
            fee: Some((self.settings.fee, argument.fee.is_some())),
            memo: argument.memo.as_ref(),
            created_at_time: argument.created_at_time,
            expected_allowance: argument.expected_allowance.as_ref().map(amount),
            expires_at: argument.expires_at,
        };
        let hash = self.check_recent(&transaction, now)?;
        let (current, _) = self.allowance(&from, &argument.spender, now);
        if transaction.expected_allowance.is_some_and(|expected| expected != current) {
            return Err(LedgerError::AllowanceChanged { current_allowance: Nat::from(current) });
        }
        let balance = self.balance(&from);
        if balance < self.settings.fee {
            return Err(LedgerError::InsufficientFunds { balance: Nat::from(balance) });
        }
        self.set_balance(&from, balance - self.settings.fee);
        self.settings.supply -= self.settings.fee;
        let allowance = (transaction.amount, argument.expires_at.unwrap_or_default());
        self.allowances.insert(pair(&from, &argument.spender), allowance);
        Ok(self.append(&transaction, hash, now))
    }

    fn check_fee(&self, common: &Common<'_>, expected: u64) -> Result<(), LedgerError> {
        assert!(common.memo.is_none_or(|memo| memo.len() <= MEMO_BYTES_MAX), "the memo is too long");
        match common.fee {
            Some(fee) if amount(fee) != expected => Err(LedgerError::BadFee { expected_fee: Nat::from(expected) }),
            _ => Ok(()),
        }
    }

    /// The key under which the transaction will be recognised, if it has a time of creation.
    fn check_recent(&mut self, transaction: &Transaction<'_>, now: u64) -> Result<Option<(u64, Hash)>, LedgerError> {
        let Some(created) = transaction.created_at_time else { return Ok(None) };
        if created.saturating_add(WINDOW + DRIFT) < now {
            return Err(LedgerError::TooOld);
        }
        if created > now + DRIFT {
            return Err(LedgerError::CreatedInFuture { ledger_time: now });
        }
        let key = (created, Value::Array(vec![Value::Text(transaction.kind.to_owned()), transaction.value()]).hash());
        match self.settings.recent.get(&key) {
            Some(block) => Err(LedgerError::Duplicate { duplicate_of: Nat::from(*block) }),
            None => Ok(Some(key)),
        }
    }

    fn set_balance(&mut self, account: &Account, balance: u64) {
        match balance {
            0 => self.balances.remove(&account.key()),
            balance => self.balances.insert(account.key(), balance),
        };
    }

    fn mint(&mut self, to: Account, amount: u64) {
        let transaction = Transaction {
            kind: "1mint",
            from: None,
            to: Some(to),
            spender: None,
            amount,
            fee: None,
            memo: None,
            created_at_time: None,
            expected_allowance: None,
            expires_at: None,
        };
        self.settings.supply = self.settings.supply.checked_add(amount).expect("the initial supply fits");
        self.set_balance(&to, self.balance(&to) + amount);
        self.append(&transaction, None, ic_cdk::api::time());
    }

    fn append(&mut self, transaction: &Transaction<'_>, recent: Option<(u64, Hash)>, now: u64) -> u64 {
        let block = transaction.block(self.settings.last_hash, now);
        let index = self.settings.end;
        self.blocks.insert(index, candid::encode_one(&block).expect("blocks have a Candid form"));
        self.settings.end += 1;
        self.settings.last_hash = Some(block.hash());
        let old = now.saturating_sub(WINDOW + DRIFT);
        while self.settings.recent.first_key_value().is_some_and(|((created, _), _)| *created < old) {
            self.settings.recent.pop_first();
        }
        self.settings.recent.extend(recent.map(|key| (key, index)));
        index
    }
}

fn pair(owner: &Account, spender: &Account) -> [u8; 124] {
    let mut key = [0; 124];
    key[..62].copy_from_slice(&owner.key());
    key[62..].copy_from_slice(&spender.key());
    key
}
