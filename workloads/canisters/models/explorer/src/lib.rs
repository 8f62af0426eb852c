//! A block explorer: few writes, many reads over an index. Interface: `explorer.did`.

use candid::CandidType;
use serde::Deserialize;
use std::cell::RefCell;
use std::collections::BTreeMap;

const HISTORY_MAX: usize = 100;

#[derive(Clone, CandidType, Deserialize)]
struct Block {
    number: u64,
    from: u32,
    to: u32,
    amount: u64,
    memo: String,
}

#[derive(Default)]
struct Chain {
    blocks: Vec<Block>,
    by_account: BTreeMap<u32, Vec<u64>>,
}

thread_local! {
    static CHAIN: RefCell<Chain> = RefCell::default();
}

/// Appends one block and answers its number.
#[ic_cdk::update]
fn append(from: u32, to: u32, amount: u64, memo: String) -> u64 {
    CHAIN.with_borrow_mut(|chain| {
        let number = chain.blocks.len() as u64;
        chain.by_account.entry(from).or_default().push(number);
        if to != from {
            chain.by_account.entry(to).or_default().push(number);
        }
        chain.blocks.push(Block { number, from, to, amount, memo });
        number
    })
}

#[ic_cdk::query]
fn block(number: u64) -> Option<Block> {
    CHAIN.with_borrow(|chain| chain.blocks.get(usize::try_from(number).ok()?).cloned())
}

/// The newest blocks of an account, at most 100, newest first.
#[ic_cdk::query]
fn history(account: u32, count: u32) -> Vec<Block> {
    CHAIN.with_borrow(|chain| {
        let numbers = chain.by_account.get(&account).map(Vec::as_slice).unwrap_or_default();
        let newest = numbers.iter().rev().take((count as usize).min(HISTORY_MAX));
        newest.map(|number| chain.blocks[*number as usize].clone()).collect()
    })
}

/// Scans every block: the sum of amounts, and how many blocks are of at least `amount`.
#[ic_cdk::query]
fn scan(amount: u64) -> (u64, u64) {
    CHAIN.with_borrow(|chain| {
        let large = chain.blocks.iter().filter(|block| block.amount >= amount).count() as u64;
        (chain.blocks.iter().map(|block| block.amount).sum(), large)
    })
}
