//! A block explorer: one block appended to fifty looks at blocks, histories and scans over all.
//!
//! Stands for dashboards and indexes, which are read far more often than they are written. The Internet Computer as a whole
//! answers four queries for an update (a mean of 4,023 and of 1,076 a second, from the "Performance" page of its documentation);
//! a network's timelines were read 65 times for a post (see `social.rs`). Fifty lies between, nearer to what is only looked at.
//! Of the looks 60 % are at one block, 36 % at the last ten of an account and 4 % scan everything, as pages of a block, of an
//! address and of statistics do; these shares are guesses.

use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, ask, reply_of, tell};
use crate::management::deploy;
use crate::request::Kind;
use crate::workload::{Deployed, Operation, Scale, Workload, check_count};
use candid::{CandidType, Deserialize, Principal};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicU64, Ordering};

const ACCOUNTS: u32 = 50;
const HISTORY: u32 = 10;

/// The model.
pub struct Explorer;

struct Blocks {
    canister: Principal,
    initial: u64,
    appended: AtomicU64,
}

#[derive(CandidType, Deserialize)]
struct Block {
    number: u64,
    from: u32,
    to: u32,
    amount: u64,
    memo: String,
}

impl Workload for Explorer {
    fn name(&self) -> &'static str {
        "explorer"
    }

    fn about(&self) -> &'static str {
        "a block explorer: queries over an index, few writes"
    }

    fn deploy(&self, agent: &mut Agent, scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let canister = deploy(agent, canisters::EXPLORER, &[])?;
        let initial = scale.items.clamp(1, 1_000);
        for number in 0..initial {
            tell::<_, (u64,)>(agent, canister, "append", block(number))?;
        }
        Ok(Box::new(Blocks {
            canister,
            initial,
            appended: AtomicU64::new(0),
        }))
    }
}

/// The block that the model appends as its `seed`-th: all of it follows from the amount.
fn block(seed: u64) -> (u32, u32, u64, String) {
    let from = (seed % u64::from(ACCOUNTS)) as u32;
    (from, (from + 7) % ACCOUNTS, seed, format!("memo {seed}"))
}

fn is_whole(found: &Block) -> bool {
    (found.from, found.to, found.amount, found.memo.clone()) == block(found.amount)
}

impl Deployed for Blocks {
    fn canister(&self) -> Principal {
        self.canister
    }

    fn next(&self, _user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let number = choices.random_range(0..self.initial);
        let account = choices.random_range(0..ACCOUNTS);
        let (kind, method, argument, expected) = match choices.random_range(0..51) {
            0 => (Kind::Call, "append", arguments_of(block(number))?, 0),
            1..31 => (Kind::Query, "block", arguments_of((number,))?, number),
            31..49 => (
                Kind::Query,
                "history",
                arguments_of((account, HISTORY))?,
                u64::from(account),
            ),
            _ => (Kind::Query, "scan", arguments_of((number,))?, number),
        };
        Ok(Operation {
            kind,
            canister: self.canister,
            method,
            argument,
            expected,
        })
    }

    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        let expected = operation.expected;
        let is_right = match operation.method {
            "append" => {
                self.appended.fetch_add(1, Ordering::Relaxed);
                reply_of::<(u64,)>(reply)?.0 >= self.initial
            }
            "block" => reply_of::<(Option<Block>,)>(reply)?
                .0
                .is_some_and(|found| found.number == expected && is_whole(&found)),
            "history" => {
                let (found,) = reply_of::<(Vec<Block>,)>(reply)?;
                let is_of = |block: &Block| u64::from(block.from) == expected || u64::from(block.to) == expected;
                found.iter().all(|block| is_of(block) && is_whole(block))
                    && found.windows(2).all(|pair| pair[0].number > pair[1].number)
            }
            _ => reply_of::<(u64, u64)>(reply)?.1 >= self.initial - expected,
        };
        if is_right {
            return Ok(());
        }
        let method = operation.method;
        Err(WorkloadError::Unexpected(format!(
            "{method} of {expected}: another answer than the blocks give"
        )))
    }

    /// As many blocks as were appended.
    fn check(&self, agent: &mut Agent, is_exact: bool) -> Result<(), WorkloadError> {
        let (_, count) = ask::<_, (u64, u64)>(agent, self.canister, "scan", (0_u64,))?;
        let appended = self.initial + self.appended.load(Ordering::Relaxed);
        check_count("blocks", count, appended, is_exact)
    }
}
