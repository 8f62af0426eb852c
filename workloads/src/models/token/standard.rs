//! What ICRC-1, ICRC-2 and ICRC-3 send and receive, as far as the model does.

use candid::{CandidType, Deserialize, Int, Nat, Principal, define_function};
use serde_bytes::ByteBuf;

/// An owner's account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, CandidType, Deserialize)]
pub struct Account {
    pub owner: Principal,
    pub subaccount: Option<[u8; 32]>,
}

impl Account {
    /// The account that an owner has without further ado.
    pub fn of(owner: Principal) -> Self {
        Self {
            owner,
            subaccount: None,
        }
    }
}

/// The argument of the ledger's installation.
#[derive(CandidType)]
pub struct InitArgument {
    pub minting_account: Account,
    pub transfer_fee: u64,
    pub initial_balances: Vec<(Account, u64)>,
    pub archive: ArchiveOptions,
}

/// When old blocks go to an archive, and how many.
#[derive(CandidType)]
pub struct ArchiveOptions {
    pub module: ByteBuf,
    pub trigger_threshold: u64,
    pub num_blocks_to_archive: u64,
    pub blocks_per_archive: u64,
    pub cycles_for_archive_creation: u64,
}

/// `icrc1_transfer`
#[derive(CandidType, Deserialize)]
pub struct TransferArg {
    pub from_subaccount: Option<[u8; 32]>,
    pub to: Account,
    pub amount: Nat,
    pub fee: Option<Nat>,
    pub memo: Option<ByteBuf>,
    pub created_at_time: Option<u64>,
}

impl TransferArg {
    /// A plain payment.
    pub fn new(to: Account, amount: u64) -> Self {
        Self {
            from_subaccount: None,
            to,
            amount: amount.into(),
            fee: None,
            memo: None,
            created_at_time: None,
        }
    }
}

/// `icrc2_approve`
#[derive(CandidType, Deserialize)]
pub struct ApproveArgs {
    pub from_subaccount: Option<[u8; 32]>,
    pub spender: Account,
    pub amount: Nat,
    pub expected_allowance: Option<Nat>,
    pub expires_at: Option<u64>,
    pub fee: Option<Nat>,
    pub memo: Option<ByteBuf>,
    pub created_at_time: Option<u64>,
}

impl ApproveArgs {
    /// An allowance without an end.
    pub fn new(spender: Account, amount: u64) -> Self {
        Self {
            from_subaccount: None,
            spender,
            amount: amount.into(),
            expected_allowance: None,
            expires_at: None,
            fee: None,
            memo: None,
            created_at_time: None,
        }
    }
}

/// `icrc2_transfer_from`
#[derive(CandidType, Deserialize)]
pub struct TransferFromArgs {
    pub spender_subaccount: Option<[u8; 32]>,
    pub from: Account,
    pub to: Account,
    pub amount: Nat,
    pub fee: Option<Nat>,
    pub memo: Option<ByteBuf>,
    pub created_at_time: Option<u64>,
}

impl TransferFromArgs {
    /// A payment in somebody else's name.
    pub fn new(from: Account, to: Account, amount: u64) -> Self {
        Self {
            spender_subaccount: None,
            from,
            to,
            amount: amount.into(),
            fee: None,
            memo: None,
            created_at_time: None,
        }
    }
}

/// Why a ledger refuses, for all endpoints together.
#[derive(Debug, CandidType, Deserialize)]
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

/// A generic value, of which blocks are made.
#[derive(Clone, Debug, PartialEq, CandidType, Deserialize)]
pub enum Value {
    Blob(ByteBuf),
    Text(String),
    Nat(Nat),
    Int(Int),
    Array(Vec<Value>),
    Map(Vec<(String, Value)>),
}

/// A range of blocks.
#[derive(Clone, CandidType, Deserialize)]
pub struct GetBlocksArgs {
    pub start: Nat,
    pub length: Nat,
}

impl GetBlocksArgs {
    /// So many blocks from `start` on.
    pub fn new(start: u64, length: u64) -> Self {
        Self {
            start: start.into(),
            length: length.into(),
        }
    }
}

/// A block and its place in the log.
#[derive(CandidType, Deserialize)]
pub struct BlockWithId {
    pub id: Nat,
    pub block: Value,
}

define_function!(pub GetBlocksCallback : (Vec<GetBlocksArgs>) -> (GetBlocksResult) query);

/// Blocks that are to be had elsewhere.
#[derive(CandidType, Deserialize)]
pub struct ArchivedBlocks {
    pub args: Vec<GetBlocksArgs>,
    pub callback: GetBlocksCallback,
}

/// The answer of `icrc3_get_blocks`.
#[derive(CandidType, Deserialize)]
pub struct GetBlocksResult {
    pub log_length: Nat,
    pub blocks: Vec<BlockWithId>,
    pub archived_blocks: Vec<ArchivedBlocks>,
}

/// The answer of `icrc3_get_tip_certificate`.
#[derive(CandidType, Deserialize)]
pub struct DataCertificate {
    pub certificate: ByteBuf,
    pub hash_tree: ByteBuf,
}
