//! A data store: a B-tree in stable memory, which upgrades leave as it is. Interface: `store.did`.

use ic_stable_structures::memory_manager::{MemoryId, MemoryManager, VirtualMemory};
use ic_stable_structures::{DefaultMemoryImpl, StableBTreeMap};
use serde_bytes::ByteBuf;
use std::cell::RefCell;

const SCAN_MAX: usize = 1_000;

type Tree = StableBTreeMap<u64, Vec<u8>, VirtualMemory<DefaultMemoryImpl>>;

thread_local! {
    static TREE: RefCell<Tree> =
        RefCell::new(StableBTreeMap::init(MemoryManager::init(DefaultMemoryImpl::default()).get(MemoryId::new(0))));
}

/// Stores a value and says whether there was one.
#[ic_cdk::update]
fn put(key: u64, value: ByteBuf) -> bool {
    TREE.with_borrow_mut(|tree| tree.insert(key, value.into_vec()).is_some())
}

/// Stores `count` values of `bytes` bytes from `key` on, made from their keys: fills the store without sending it.
#[ic_cdk::update]
fn fill(key: u64, count: u32, bytes: u32) {
    TREE.with_borrow_mut(|tree| {
        for key in key..key + u64::from(count) {
            tree.insert(key, vec![key as u8; bytes as usize]);
        }
    });
}

#[ic_cdk::query]
fn get(key: u64) -> Option<ByteBuf> {
    TREE.with_borrow(|tree| tree.get(&key).map(ByteBuf::from))
}

/// Keys from `key` on and the sum of their values' sizes, at most 1,000.
#[ic_cdk::query]
fn scan(key: u64, count: u32) -> (Vec<u64>, u64) {
    TREE.with_borrow(|tree| {
        let found: Vec<_> = tree.range(key..).take((count as usize).min(SCAN_MAX)).collect();
        let bytes = found.iter().map(|entry| entry.value().len() as u64).sum();
        (found.iter().map(|entry| *entry.key()).collect(), bytes)
    })
}

#[ic_cdk::query]
fn count() -> u64 {
    TREE.with_borrow(|tree| tree.len())
}
