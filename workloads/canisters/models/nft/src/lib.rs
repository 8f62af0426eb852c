//! A collection of tokens that are all different, minted in a storm. Reads and transfers are ICRC-7's. Interface: `nft.did`.

use candid::{CandidType, Nat, Principal};
use serde::Deserialize;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Items in one call, as `icrc7_max_query_batch_size` says.
const BATCH_MAX: usize = 1_000;

#[derive(Clone, CandidType, Deserialize)]
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

#[derive(CandidType, Deserialize)]
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

#[derive(CandidType)]
enum MintError {
    SoldOut,
    WalletFull,
}

#[derive(CandidType)]
enum Value {
    Nat(Nat),
    Text(String),
}

#[derive(Default)]
struct Collection {
    supply_cap: u64,
    wallet_max: u64,
    owners: Vec<Principal>,
    holdings: BTreeMap<Principal, BTreeSet<u64>>,
    /// How many each has minted: what it gave away does not make room.
    minted: BTreeMap<Principal, u64>,
    transactions: u64,
}

thread_local! {
    static COLLECTION: RefCell<Collection> = RefCell::default();
}

/// How many there will be, and how many one wallet may mint.
#[ic_cdk::init]
fn init(supply_cap: u64, wallet_max: u64) {
    COLLECTION.with_borrow_mut(|collection| (collection.supply_cap, collection.wallet_max) = (supply_cap, wallet_max));
}

/// Mints the next token for the caller and answers its id.
#[ic_cdk::update]
fn mint() -> Result<u64, MintError> {
    let caller = ic_cdk::api::msg_caller();
    COLLECTION.with_borrow_mut(|collection| {
        let id = collection.owners.len() as u64;
        if id == collection.supply_cap {
            return Err(MintError::SoldOut);
        }
        let minted = collection.minted.entry(caller).or_default();
        if *minted == collection.wallet_max {
            return Err(MintError::WalletFull);
        }
        *minted += 1;
        collection.owners.push(caller);
        collection.holdings.entry(caller).or_default().insert(id);
        collection.transactions += 1;
        Ok(id)
    })
}

#[ic_cdk::update]
fn icrc7_transfer(transfers: Vec<TransferArg>) -> Vec<Option<Result<Nat, TransferError>>> {
    let caller = ic_cdk::api::msg_caller();
    COLLECTION.with_borrow_mut(|collection| transfers.iter().take(BATCH_MAX).map(|transfer| Some(collection.transfer(caller, transfer))).collect())
}

impl Collection {
    fn transfer(&mut self, caller: Principal, transfer: &TransferArg) -> Result<Nat, TransferError> {
        let id = number(&transfer.token_id);
        let Some(owner) = self.owners.get_mut(usize::try_from(id).unwrap_or(usize::MAX)) else {
            return Err(TransferError::NonExistingTokenId);
        };
        if *owner != caller || transfer.from_subaccount.is_some_and(|subaccount| subaccount != [0; 32]) {
            return Err(TransferError::Unauthorized);
        }
        let to = transfer.to.owner;
        if to == caller || transfer.to.subaccount.is_some_and(|subaccount| subaccount != [0; 32]) {
            return Err(TransferError::InvalidRecipient);
        }
        *owner = to;
        self.holdings.entry(caller).or_default().remove(&id);
        self.holdings.entry(to).or_default().insert(id);
        self.transactions += 1;
        Ok(Nat::from(self.transactions))
    }
}

fn number(id: &Nat) -> u64 {
    u64::try_from(&id.0).unwrap_or(u64::MAX)
}

#[ic_cdk::query]
fn icrc7_owner_of(ids: Vec<Nat>) -> Vec<Option<Account>> {
    COLLECTION.with_borrow(|collection| {
        let owner = |id: &Nat| collection.owners.get(usize::try_from(number(id)).ok()?).copied();
        ids.iter().take(BATCH_MAX).map(|id| owner(id).map(|owner| Account { owner, subaccount: None })).collect()
    })
}

#[ic_cdk::query]
fn icrc7_balance_of(accounts: Vec<Account>) -> Vec<Nat> {
    COLLECTION.with_borrow(|collection| {
        let count = |account: &Account| collection.holdings.get(&account.owner).map_or(0, BTreeSet::len);
        accounts.iter().take(BATCH_MAX).map(|account| Nat::from(count(account))).collect()
    })
}

/// Tokens of an account after `prev`, in the order of their ids.
#[ic_cdk::query]
fn icrc7_tokens_of(account: Account, prev: Option<Nat>, take: Option<Nat>) -> Vec<Nat> {
    let first = prev.map_or(0, |prev| number(&prev).saturating_add(1));
    let count = take.map_or(BATCH_MAX, |take| (number(&take) as usize).min(BATCH_MAX));
    COLLECTION.with_borrow(|collection| {
        let ids = collection.holdings.get(&account.owner).into_iter().flat_map(|ids| ids.range(first..));
        ids.take(count).map(|id| Nat::from(*id)).collect()
    })
}

/// Name and traits, made from the id as generative collections make them.
#[ic_cdk::query]
fn icrc7_token_metadata(ids: Vec<Nat>) -> Vec<Option<Vec<(String, Value)>>> {
    let supply = COLLECTION.with_borrow(|collection| collection.owners.len() as u64);
    let metadata = |id: u64| {
        let traits = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let named = |name: &str, shift: u32| (format!("trait:{name}"), Value::Nat(Nat::from(traits >> shift & 0xff)));
        let name = ("icrc97:name".to_owned(), Value::Text(format!("Token #{id}")));
        vec![name, named("background", 0), named("eyes", 8), named("hat", 16), named("mouth", 24)]
    };
    ids.iter().take(BATCH_MAX).map(|id| (number(id) < supply).then(|| metadata(number(id)))).collect()
}

#[ic_cdk::query]
fn icrc7_total_supply() -> Nat {
    COLLECTION.with_borrow(|collection| Nat::from(collection.owners.len()))
}

#[ic_cdk::query]
fn icrc7_supply_cap() -> Option<Nat> {
    COLLECTION.with_borrow(|collection| Some(Nat::from(collection.supply_cap)))
}

#[ic_cdk::query]
fn icrc7_max_query_batch_size() -> Option<Nat> {
    Some(Nat::from(BATCH_MAX))
}

#[ic_cdk::query]
fn icrc7_name() -> String {
    "Storm".to_owned()
}

#[ic_cdk::query]
fn icrc7_symbol() -> String {
    "STORM".to_owned()
}
