//! A fungible token: ICRC-1, ICRC-2, and the block log of ICRC-3 with archives. Interface: `token.did`.

mod archiving;
mod block;
mod ledger;
mod types;

use crate::block::{Account, Value};
use crate::ledger::Ledger;
use crate::types::{
    Allowance, AllowanceArgs, ApproveArgs, ArchiveInfo, ArchivedBlocks, BlockType, BlockWithId, DataCertificate,
    GetArchivesArgs, GetBlocksArgs, GetBlocksCallback, GetBlocksResult, InitArgument, LedgerError, MetadataValue, Standard,
    TransferArg, TransferFromArgs,
};
use candid::Nat;
use ic_certified_map::{HashTree, fork, labeled, labeled_hash, leaf_hash};
use serde_bytes::ByteBuf;
use std::borrow::Cow;
use std::cell::RefCell;

/// Blocks in one answer.
const BLOCKS_MAX: u64 = 1_000;

thread_local! {
    static LEDGER: RefCell<Option<Ledger>> = const { RefCell::new(None) };
}

fn with<R>(read: impl FnOnce(&Ledger) -> R) -> R {
    LEDGER.with_borrow(|ledger| read(ledger.as_ref().expect("initialised")))
}

fn with_mut<R>(change: impl FnOnce(&mut Ledger) -> R) -> R {
    LEDGER.with_borrow_mut(|ledger| change(ledger.as_mut().expect("initialised")))
}

#[ic_cdk::init]
fn init(argument: InitArgument) {
    LEDGER.set(Some(Ledger::new(argument)));
    certify();
}

#[ic_cdk::pre_upgrade]
fn pre_upgrade() {
    with_mut(Ledger::save);
}

#[ic_cdk::post_upgrade]
fn post_upgrade() {
    LEDGER.set(Some(Ledger::saved()));
    certify();
}

/// Makes a change, certifies the tip that it leaves and moves old blocks.
fn change(change: impl FnOnce(&mut Ledger, u64) -> Result<u64, LedgerError>) -> Result<Nat, LedgerError> {
    let index = with_mut(|ledger| change(ledger, ic_cdk::api::time()))?;
    certify();
    archiving::begin_if_due();
    Ok(Nat::from(index))
}

#[ic_cdk::update]
fn icrc1_transfer(argument: TransferArg) -> Result<Nat, LedgerError> {
    change(|ledger, now| ledger.transfer(ic_cdk::api::msg_caller(), &argument, now))
}

#[ic_cdk::update]
fn icrc2_approve(argument: ApproveArgs) -> Result<Nat, LedgerError> {
    change(|ledger, now| ledger.approve(ic_cdk::api::msg_caller(), &argument, now))
}

#[ic_cdk::update]
fn icrc2_transfer_from(argument: TransferFromArgs) -> Result<Nat, LedgerError> {
    change(|ledger, now| ledger.transfer_from(ic_cdk::api::msg_caller(), &argument, now))
}

#[ic_cdk::query]
fn icrc2_allowance(argument: AllowanceArgs) -> Allowance {
    let (allowance, expires_at) = with(|ledger| ledger.allowance(&argument.account, &argument.spender, ic_cdk::api::time()));
    Allowance { allowance: Nat::from(allowance), expires_at }
}

#[ic_cdk::query]
fn icrc1_balance_of(account: Account) -> Nat {
    Nat::from(with(|ledger| ledger.balance(&account)))
}

#[ic_cdk::query]
fn icrc1_total_supply() -> Nat {
    Nat::from(with(|ledger| ledger.settings.supply))
}

#[ic_cdk::query]
fn icrc1_fee() -> Nat {
    Nat::from(with(|ledger| ledger.settings.fee))
}

#[ic_cdk::query]
fn icrc1_minting_account() -> Option<Account> {
    Some(with(|ledger| ledger.settings.minting_account))
}

#[ic_cdk::query]
fn icrc1_name() -> String {
    "Workload".to_owned()
}

#[ic_cdk::query]
fn icrc1_symbol() -> String {
    "WORK".to_owned()
}

#[ic_cdk::query]
fn icrc1_decimals() -> u8 {
    8
}

#[ic_cdk::query]
fn icrc1_metadata() -> Vec<(String, MetadataValue)> {
    vec![
        ("icrc1:name".to_owned(), MetadataValue::Text(icrc1_name())),
        ("icrc1:symbol".to_owned(), MetadataValue::Text(icrc1_symbol())),
        ("icrc1:decimals".to_owned(), MetadataValue::Nat(Nat::from(icrc1_decimals()))),
        ("icrc1:fee".to_owned(), MetadataValue::Nat(icrc1_fee())),
    ]
}

#[ic_cdk::query]
fn icrc1_supported_standards() -> Vec<Standard> {
    let url = |number: u8| format!("https://github.com/dfinity/ICRC-1/tree/main/standards/ICRC-{number}");
    [1, 2, 3].map(|number| Standard { name: format!("ICRC-{number}"), url: url(number) }).into()
}

#[ic_cdk::query]
fn icrc3_supported_block_types() -> Vec<BlockType> {
    let kinds = ["1mint", "1burn", "1xfer", "2approve", "2xfer"];
    let url = |kind: &str| format!("https://github.com/dfinity/ICRC-1/tree/main/standards/ICRC-{}", &kind[..1]);
    kinds.map(|kind| BlockType { block_type: kind.to_owned(), url: url(kind) }).into()
}

/// Blocks that are here, and where those are that are not.
#[ic_cdk::query]
fn icrc3_get_blocks(ranges: Vec<GetBlocksArgs>) -> GetBlocksResult {
    with(|ledger| {
        let (mut blocks, mut archived) = (Vec::new(), Vec::new());
        for (start, end) in ranges.iter().map(bounds) {
            let end = end.min(ledger.settings.end);
            for archive in &ledger.settings.archives {
                let (start, end) = (start.max(archive.first), end.min(archive.end));
                if start < end {
                    archived.push(ArchivedBlocks {
                        args: vec![GetBlocksArgs { start: Nat::from(start), length: Nat::from(end - start) }],
                        callback: GetBlocksCallback::new(archive.canister, "icrc3_get_blocks".to_owned()),
                    });
                }
            }
            let here = ledger.blocks.range(start.max(ledger.settings.first)..end.max(ledger.settings.first));
            let left = (BLOCKS_MAX as usize).saturating_sub(blocks.len());
            blocks.extend(here.take(left).map(|entry| BlockWithId {
                id: Nat::from(*entry.key()),
                block: candid::decode_one::<Value>(&entry.value()).expect("written by this ledger"),
            }));
        }
        GetBlocksResult { log_length: Nat::from(ledger.settings.end), blocks, archived_blocks: archived }
    })
}

/// First block and the one after the last.
fn bounds(range: &GetBlocksArgs) -> (u64, u64) {
    let number = |nat: &Nat| u64::try_from(&nat.0).unwrap_or(u64::MAX);
    let start = number(&range.start);
    (start, start.saturating_add(number(&range.length)))
}

#[ic_cdk::query]
fn icrc3_get_archives(argument: GetArchivesArgs) -> Vec<ArchiveInfo> {
    with(|ledger| {
        let after = |from| ledger.settings.archives.iter().position(|archive| archive.canister == from).map(|place| place + 1);
        let skipped = argument.from.and_then(after).unwrap_or_default();
        let held = ledger.settings.archives.iter().skip(skipped).filter(|archive| archive.end > archive.first);
        held.map(|archive| ArchiveInfo {
            canister_id: archive.canister,
            start: Nat::from(archive.first),
            end: Nat::from(archive.end - 1),
        })
        .collect()
    })
}

/// Certifies index and hash of the last block.
fn certify() {
    with(|ledger| {
        let Some(hash) = ledger.settings.last_hash else { return };
        let root = ic_certified_map::fork_hash(
            &labeled_hash(b"last_block_hash", &leaf_hash(&hash)),
            &labeled_hash(b"last_block_index", &leaf_hash(&leb128(ledger.settings.end - 1))),
        );
        ic_cdk::api::certified_data_set(root);
    });
}

fn leb128(number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    Nat::from(number).encode(&mut bytes).expect("writing to memory does not fail");
    bytes
}

#[ic_cdk::query]
fn icrc3_get_tip_certificate() -> Option<DataCertificate> {
    let certificate = ByteBuf::from(ic_cdk::api::data_certificate()?);
    with(|ledger| {
        let hash = ledger.settings.last_hash?;
        let leaf = |bytes: Vec<u8>| HashTree::Leaf(Cow::Owned(bytes));
        let tree = fork(
            labeled(b"last_block_hash", leaf(hash.to_vec())),
            labeled(b"last_block_index", leaf(leb128(ledger.settings.end - 1))),
        );
        let mut hash_tree = vec![0xd9, 0xd9, 0xf7];
        write_tree(&tree, &mut hash_tree);
        Some(DataCertificate { certificate, hash_tree: ByteBuf::from(hash_tree) })
    })
}

/// CBOR of the two labelled leaves under their fork: arrays of a number and its parts.
fn write_tree(tree: &HashTree<'_>, out: &mut Vec<u8>) {
    match tree {
        HashTree::Empty => out.extend([0x81, 0]),
        HashTree::Fork(both) => {
            out.extend([0x83, 1]);
            write_tree(&both.0, out);
            write_tree(&both.1, out);
        }
        HashTree::Labeled(label, tree) => {
            out.extend([0x83, 2]);
            write_bytes(label, out);
            write_tree(tree, out);
        }
        HashTree::Leaf(bytes) => {
            out.extend([0x82, 3]);
            write_bytes(bytes, out);
        }
        HashTree::Pruned(hash) => {
            out.extend([0x82, 4]);
            write_bytes(hash, out);
        }
    }
}

/// CBOR of bytes; none here are longer than a hash.
fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend([0x58, bytes.len() as u8]);
    out.extend(bytes);
}
