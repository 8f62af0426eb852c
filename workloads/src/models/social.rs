//! A social network: a canister per author, one post to nine looks at a timeline, posts fanned out to ten followers.
//!
//! Stands for feeds and group chats that deliver when a post is written, so that a look is one query. Twitter did so and told
//! its rates in 2012: 4,600 posts and 300,000 looks at timelines a second, 75 deliveries of a post (R. Krikorian, "Timelines at
//! Scale", QCon San Francisco 2012; worked through in Kleppmann, "Designing Data-Intensive Applications", 2017, chapter 1).
//! That is 65 looks for a post; here nine, and ten followers instead of 75, so that about as many deliveries (one for each
//! operation) fall on the canisters and the fan-out rather than the queries is what is loaded. Authors are chosen by Zipf's
//! law with exponent 1; that a timeline shows twenty posts is a guess.

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
use std::sync::atomic::{AtomicU64, Ordering};

const FOLLOWERS: usize = 10;
const POST_PERCENT: u32 = 10;
const TIMELINE: u32 = 20;

/// The model.
pub struct Social;

struct Network {
    canisters: Vec<Principal>,
    followers: u64,
    popularity: Zipf,
    delivered: AtomicU64,
}

impl Workload for Social {
    fn name(&self) -> &'static str {
        "social"
    }

    fn about(&self) -> &'static str {
        "a canister per author; posts fanned out to followers' canisters, timelines read"
    }

    fn deploy(&self, agent: &mut Agent, scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let count = scale.canisters.max(2);
        let canisters: Vec<_> = (0..count)
            .map(|_| deploy(agent, canisters::SOCIAL, &[]))
            .collect::<Result<_, _>>()?;
        let followers = FOLLOWERS.min(canisters.len() - 1);
        for (author, canister) in canisters.iter().enumerate() {
            let next: Vec<Principal> = (1..=followers)
                .map(|step| canisters[(author + step) % canisters.len()])
                .collect();
            tell::<_, ()>(agent, *canister, "set_followers", (next,))?;
        }
        Ok(Box::new(Network {
            popularity: Zipf::new(canisters.len(), 1.0),
            canisters,
            followers: followers as u64,
            delivered: AtomicU64::new(0),
        }))
    }
}

impl Deployed for Network {
    fn canister(&self) -> Principal {
        self.canisters[0]
    }

    fn next(&self, user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let canister = self.canisters[self.popularity.choose(choices)];
        let (kind, method, argument) = if choices.random_range(0..100) < POST_PERCENT {
            let text = format!(
                "user {user} says {:016x}, which is news to most",
                choices.random::<u64>()
            );
            (Kind::Call, "post", arguments_of((text,))?)
        } else {
            (Kind::Query, "timeline", arguments_of((TIMELINE,))?)
        };
        Ok(Operation {
            kind,
            canister,
            method,
            argument,
            expected: self.followers,
        })
    }

    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        if operation.kind == Kind::Query {
            let (posts,) = reply_of::<(Vec<(Principal, String)>,)>(reply)?;
            return match posts.iter().all(|(author, _)| self.canisters.contains(author)) {
                true => Ok(()),
                false => Err(WorkloadError::unexpected("a timeline shows a post of nobody")),
            };
        }
        let (delivered,) = reply_of::<(u64,)>(reply)?;
        self.delivered.fetch_add(delivered, Ordering::Relaxed);
        check_count("deliveries of one post", delivered, operation.expected, true)
    }

    /// Every post reached every follower once.
    fn check(&self, agent: &mut Agent, is_exact: bool) -> Result<(), WorkloadError> {
        let mut received = 0;
        for canister in &self.canisters {
            received += ask::<_, (u64,)>(agent, *canister, "received", ())?.0;
        }
        check_count(
            "posts received",
            received,
            self.delivered.load(Ordering::Relaxed),
            is_exact,
        )
    }
}
