//! A data store: reads, a write to every nineteen of them, and a few scans of a B-tree in stable memory.
//!
//! Stands for records of users and documents. Records of 1,000 bytes, keys by a Zipf law of exponent 0.99, 95 reads to 5
//! writes are those of workload B of the Yahoo! Cloud Serving Benchmark (Cooper et al., 2010; github.com/brianfrankcooper/YCSB,
//! "Core Workloads"); one read in nineteen is a scan of up to a hundred records as in its workload E. `--items` counts
//! records: 10,700,000 are 10 GiB.

use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, ask, reply_of, tell};
use crate::management::deploy;
use crate::request::Kind;
use crate::skew::Zipf;
use crate::workload::{Deployed, Operation, Scale, Workload, check_count};
use candid::Principal;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_bytes::ByteBuf;
use std::sync::atomic::{AtomicU64, Ordering};

const RECORD_BYTES: usize = 1_000;
const FILL_AT_ONCE: u64 = 2_000;
const SCAN_MAX: u32 = 100;

/// The model.
pub struct Store;

struct Tree {
    canister: Principal,
    keys: u64,
    popularity: Zipf,
    puts: AtomicU64,
}

impl Workload for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    fn about(&self) -> &'static str {
        "reads, writes and scans of a B-tree in stable memory"
    }

    fn deploy(&self, agent: &mut Agent, scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let canister = deploy(agent, canisters::STORE, &[])?;
        let keys = scale.items.max(1);
        for first in (0..keys).step_by(FILL_AT_ONCE as usize) {
            let count = FILL_AT_ONCE.min(keys - first) as u32;
            tell::<_, ()>(agent, canister, "fill", (first, count, RECORD_BYTES as u32))?;
        }
        Ok(Box::new(Tree {
            canister,
            keys,
            popularity: Zipf::new(keys as usize, 0.99),
            puts: AtomicU64::new(0),
        }))
    }
}

impl Deployed for Tree {
    fn canister(&self) -> Principal {
        self.canister
    }

    fn next(&self, _user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let key = self.popularity.choose(choices) as u64;
        let (kind, method, argument) = match choices.random_range(0..20) {
            0 => {
                let value = ByteBuf::from(vec![key as u8; RECORD_BYTES]);
                (Kind::Call, "put", arguments_of((key, value))?)
            }
            1 => {
                let count = choices.random_range(1..=SCAN_MAX);
                (Kind::Query, "scan", arguments_of((key, count))?)
            }
            _ => (Kind::Query, "get", arguments_of((key,))?),
        };
        Ok(Operation {
            kind,
            canister: self.canister,
            method,
            argument,
            expected: key,
        })
    }

    /// Values are made of their key's lowest byte: one that answers for another key shows.
    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        let is_right = match operation.method {
            "put" => {
                self.puts.fetch_add(1, Ordering::Relaxed);
                reply_of::<(bool,)>(reply)?.0
            }
            "get" => reply_of::<(Option<ByteBuf>,)>(reply)?
                .0
                .is_some_and(|value| value[..] == [operation.expected as u8; RECORD_BYTES]),
            _ => {
                let (_, count) = reply_of::<(u64, u32)>(&operation.argument)?;
                let last = self.keys.min(operation.expected + u64::from(count));
                let (keys, bytes) = reply_of::<(Vec<u64>, u64)>(reply)?;
                bytes == (keys.len() * RECORD_BYTES) as u64 && keys.into_iter().eq(operation.expected..last)
            }
        };
        if is_right {
            return Ok(());
        }
        let Operation { method, expected, .. } = operation;
        Err(WorkloadError::Unexpected(format!(
            "{method} of key {expected} answers for something else"
        )))
    }

    /// No key came or went.
    fn check(&self, agent: &mut Agent, _is_exact: bool) -> Result<(), WorkloadError> {
        let (count,) = ask::<_, (u64,)>(agent, self.canister, "count", ())?;
        check_count("keys", count, self.keys, true)
    }
}
