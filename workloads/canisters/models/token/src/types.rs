//! What ICRC-1, ICRC-2 and ICRC-3 send and receive.

use crate::block::{Account, Hash, Value};
use candid::{CandidType, Nat, Principal, define_function};
use serde::Deserialize;
use serde_bytes::ByteBuf;

#[derive(CandidType, Deserialize)]
pub struct InitArgument {
    pub minting_account: Account,
    pub transfer_fee: u64,
    pub initial_balances: Vec<(Account, u64)>,
    pub archive: ArchiveOptions,
}

/// When old blocks go to an archive, and how many.
#[derive(Clone, CandidType, Deserialize)]
pub struct ArchiveOptions {
    pub module: ByteBuf,
    pub trigger_threshold: u64,
    pub num_blocks_to_archive: u64,
    pub blocks_per_archive: u64,
    pub cycles_for_archive_creation: u64,
}

#[derive(CandidType, Deserialize)]
pub struct TransferArg {
    pub from_subaccount: Option<Hash>,
    pub to: Account,
    pub amount: Nat,
    pub fee: Option<Nat>,
    pub memo: Option<ByteBuf>,
    pub created_at_time: Option<u64>,
}

#[derive(CandidType, Deserialize)]
pub struct ApproveArgs {
    pub from_subaccount: Option<Hash>,
    pub spender: Account,
    pub amount: Nat,
    pub expected_allowance: Option<Nat>,
    pub expires_at: Option<u64>,
    pub fee: Option<Nat>,
    pub memo: Option<ByteBuf>,
    pub created_at_time: Option<u64>,
}

#[derive(CandidType, Deserialize)]
pub struct TransferFromArgs {
    pub spender_subaccount: Option<Hash>,
    pub from: Account,
    pub to: Account,
    pub amount: Nat,
    pub fee: Option<Nat>,
    pub memo: Option<ByteBuf>,
    pub created_at_time: Option<u64>,
}

#[derive(CandidType, Deserialize)]
pub struct AllowanceArgs {
    pub account: Account,
    pub spender: Account,
}

#[derive(CandidType)]
pub struct Allowance {
    pub allowance: Nat,
    pub expires_at: Option<u64>,
}

/// Why a ledger refuses; each endpoint's type has some of these, which Candid takes as a subtype.
#[derive(CandidType)]
pub enum LedgerError {
    BadFee { expected_fee: Nat },
    BadBurn { min_burn_amount: Nat },
    InsufficientFunds { balance: Nat },
    InsufficientAllowance { allowance: Nat },
    AllowanceChanged { current_allowance: Nat },
    Expired { ledger_time: u64 },
    TooOld,
    CreatedInFuture { ledger_time: u64 },
    Duplicate { duplicate_of: Nat },
    GenericError { error_code: Nat, message: String },
}

#[derive(CandidType)]
pub struct Standard {
    pub name: String,
    pub url: String,
}

#[derive(CandidType)]
pub enum MetadataValue {
    Nat(Nat),
    Text(String),
}

#[derive(Clone, CandidType, Deserialize)]
pub struct GetBlocksArgs {
    pub start: Nat,
    pub length: Nat,
}

#[derive(CandidType, Deserialize)]
pub struct BlockWithId {
    pub id: Nat,
    pub block: Value,
}

define_function!(pub GetBlocksCallback : (Vec<GetBlocksArgs>) -> (GetBlocksResult) query);

#[derive(CandidType, Deserialize)]
pub struct ArchivedBlocks {
    pub args: Vec<GetBlocksArgs>,
    pub callback: GetBlocksCallback,
}

#[derive(CandidType, Deserialize)]
pub struct GetBlocksResult {
    pub log_length: Nat,
    pub blocks: Vec<BlockWithId>,
    pub archived_blocks: Vec<ArchivedBlocks>,
}

#[derive(CandidType, Deserialize)]
pub struct GetArchivesArgs {
    pub from: Option<Principal>,
}

#[derive(CandidType)]
pub struct ArchiveInfo {
    pub canister_id: Principal,
    pub start: Nat,
    pub end: Nat,
}

#[derive(CandidType)]
pub struct DataCertificate {
    pub certificate: ByteBuf,
    pub hash_tree: ByteBuf,
}

#[derive(CandidType)]
pub struct BlockType {
    pub block_type: String,
    pub url: String,
}
