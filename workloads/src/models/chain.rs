//! Calls that call: chains over up to five canisters, and one canister that asks up to eight at once.
//!
//! Stands for applications made of several canisters, where one click crosses a few of them. How services call each other is
//! published of Alibaba's (Luo et al., "Characterizing Microservice Dependency and Performance", SoCC 2021): graphs like trees,
//! most of them small, with a heavy tail. The tail is left out: what a call between canisters costs does not grow with the
//! length of the chain, and a load with few long chains measures little. Three chains to one fan-out, and their lengths, are
//! guesses.

use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, ask, reply_of};
use crate::management::deploy;
use crate::request::Kind;
use crate::workload::{Deployed, Operation, Scale, Workload, check_count};
use candid::Principal;
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicU64, Ordering};

const HOPS: std::ops::Range<usize> = 1..5;
const FAN: std::ops::Range<usize> = 2..9;

/// The model.
pub struct Chain;

struct Canisters {
    canisters: Vec<Principal>,
    visits: AtomicU64,
}

impl Workload for Chain {
    fn name(&self) -> &'static str {
        "chain"
    }

    fn about(&self) -> &'static str {
        "calls from canister to canister: chains and fan-out"
    }

    fn deploy(&self, agent: &mut Agent, scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let count = scale.canisters.max(2);
        let canisters = (0..count)
            .map(|_| deploy(agent, canisters::CHAIN, &[]))
            .collect::<Result<_, _>>()?;
        Ok(Box::new(Canisters {
            canisters,
            visits: AtomicU64::new(0),
        }))
    }
}

impl Deployed for Canisters {
    fn canister(&self) -> Principal {
        self.canisters[0]
    }

    fn next(&self, _user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let (method, length) = match choices.random_range(0..4) {
            0 => ("fan_out", choices.random_range(FAN)),
            _ => ("walk", choices.random_range(HOPS)),
        };
        let mut any = || *self.canisters.choose(choices).expect("there are at least two");
        let (canister, path): (_, Vec<Principal>) = (any(), (0..length).map(|_| any()).collect());
        Ok(Operation {
            kind: Kind::Call,
            canister,
            method,
            argument: arguments_of((path,))?,
            expected: length as u64 + 1,
        })
    }

    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        let (visited,) = reply_of::<(u64,)>(reply)?;
        self.visits.fetch_add(visited, Ordering::Relaxed);
        check_count("visits of one call", visited, operation.expected, true)
    }

    /// Every call arrived once.
    fn check(&self, agent: &mut Agent, is_exact: bool) -> Result<(), WorkloadError> {
        let mut visits = 0;
        for canister in &self.canisters {
            visits += ask::<_, (u64,)>(agent, *canister, "visits", ())?.0;
        }
        check_count("visits", visits, self.visits.load(Ordering::Relaxed), is_exact)
    }
}
