//! Blocks that a ledger has put away. Interface: `archive.did`.

use candid::{CandidType, Int, Nat, define_function};
use ic_stable_structures::memory_manager::{MemoryId, MemoryManager, VirtualMemory};
use ic_stable_structures::{DefaultMemoryImpl, StableBTreeMap, StableCell};
use serde::Deserialize;
use serde_bytes::ByteBuf;
use std::cell::RefCell;

/// Blocks in one answer.
const BLOCKS_MAX: usize = 1_000;

type Memory = VirtualMemory<DefaultMemoryImpl>;

struct Archive {
    blocks: StableBTreeMap<u64, Vec<u8>, Memory>,
    /// The first block, and how many there may be.
    bounds: StableCell<(u64, u64), Memory>,
}

#[derive(Clone, CandidType, Deserialize)]
enum Value {
    Blob(ByteBuf),
    Text(String),
    Nat(Nat),
    Int(Int),
    Array(Vec<Value>),
    Map(Vec<(String, Value)>),
}

#[derive(CandidType, Deserialize)]
struct GetBlocksArgs {
    start: Nat,
    length: Nat,
}

#[derive(CandidType, Deserialize)]
struct BlockWithId {
    id: Nat,
    block: Value,
}

define_function!(GetBlocksCallback : (Vec<GetBlocksArgs>) -> (GetBlocksResult) query);

/// Never made here: an archive knows of no other.
#[derive(CandidType, Deserialize)]
struct ArchivedBlocks {
    args: Vec<GetBlocksArgs>,
    callback: GetBlocksCallback,
}

#[derive(CandidType, Deserialize)]
struct GetBlocksResult {
    log_length: Nat,
    blocks: Vec<BlockWithId>,
    archived_blocks: Vec<ArchivedBlocks>,
}

thread_local! {
    static ARCHIVE: RefCell<Archive> = RefCell::new({
        let manager = MemoryManager::init(DefaultMemoryImpl::default());
        Archive {
            blocks: StableBTreeMap::init(manager.get(MemoryId::new(0))),
            bounds: StableCell::init(manager.get(MemoryId::new(1)), (0, 0)),
        }
    });
}

#[ic_cdk::init]
fn init(first: u64, blocks_max: u64) {
    ARCHIVE.with_borrow_mut(|archive| archive.bounds.set((first, blocks_max)));
}

/// Takes the blocks that follow those that are here, from the ledger alone.
#[ic_cdk::update]
fn append_blocks(first: u64, blocks: Vec<ByteBuf>) {
    assert!(ic_cdk::api::is_controller(&ic_cdk::api::msg_caller()), "only the ledger archives");
    ARCHIVE.with_borrow_mut(|archive| {
        let (own_first, blocks_max) = *archive.bounds.get();
        assert_eq!(first, own_first + archive.blocks.len(), "a gap or an overlap");
        assert!(archive.blocks.len() + blocks.len() as u64 <= blocks_max, "the archive is full");
        for (index, block) in (first..).zip(blocks) {
            archive.blocks.insert(index, block.into_vec());
        }
    });
}

#[ic_cdk::query]
fn icrc3_get_blocks(ranges: Vec<GetBlocksArgs>) -> GetBlocksResult {
    let number = |nat: &Nat| u64::try_from(&nat.0).unwrap_or(u64::MAX);
    ARCHIVE.with_borrow(|archive| {
        let mut blocks = Vec::new();
        for range in &ranges {
            let start = number(&range.start);
            let asked = archive.blocks.range(start..start.saturating_add(number(&range.length)));
            let left = BLOCKS_MAX.saturating_sub(blocks.len());
            blocks.extend(asked.take(left).map(|entry| BlockWithId {
                id: Nat::from(*entry.key()),
                block: candid::decode_one(&entry.value()).expect("written by the ledger"),
            }));
        }
        let end = archive.bounds.get().0 + archive.blocks.len();
        GetBlocksResult { log_length: Nat::from(end), blocks, archived_blocks: Vec::new() }
    })
}

#[ic_cdk::query]
fn remaining_capacity() -> u64 {
    ARCHIVE.with_borrow(|archive| archive.bounds.get().1 - archive.blocks.len())
}
