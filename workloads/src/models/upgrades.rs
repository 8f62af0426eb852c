//! Upgrade waves: a fleet of canisters, one per user, upgraded a few at a time while their users go on.
//!
//! Stands for applications that give each user a canister and roll out releases through an index canister that creates and
//! upgrades them. OpenChat's `user_index` and `local_user_index` do, with a bound on how many are upgraded at once
//! (`set_max_concurrent_user_canister_upgrades` in its source): five here. Members keep their data in the heap and carry it
//! over upgrades through stable memory, the hard way. A wave for every forty requests is more than any real fleet sees:
//! releases are what is measured.

use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, ask, reply_of, tell};
use crate::management::deploy;
use crate::request::Kind;
use crate::skew::Zipf;
use crate::workload::{Deployed, Operation, Scale, Workload, check_count};
use candid::{CandidType, Deserialize, Principal};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicU64, Ordering};

const CONCURRENCY: u32 = 5;
const GROW_AT_ONCE: u32 = 10;

/// The model.
pub struct Upgrades;

struct Fleet {
    canister: Principal,
    members: Vec<Member>,
    popularity: Zipf,
    upgraded: AtomicU64,
}

/// A canister, and what was acknowledged to have been kept in it.
struct Member {
    canister: Principal,
    notes: AtomicU64,
    /// Sum of the notes' hashes.
    hashes: AtomicU64,
}

#[derive(CandidType, Deserialize)]
struct Wave {
    upgraded: u32,
    errors: Vec<String>,
}

#[derive(CandidType, Deserialize)]
struct Listed {
    canister: Principal,
    version: u64,
}

impl Workload for Upgrades {
    fn name(&self) -> &'static str {
        "upgrades"
    }

    fn about(&self) -> &'static str {
        "a canister per user, upgraded in waves while users go on"
    }

    fn deploy(&self, agent: &mut Agent, scale: &Scale) -> Result<Box<dyn Deployed>, WorkloadError> {
        let module = ByteBuf::from(canisters::MEMBER);
        let canister = deploy(agent, canisters::FLEET, &arguments_of((module,))?)?;
        let count = scale.canisters.max(1) as u32;
        let mut members = Vec::new();
        for first in (0..count).step_by(GROW_AT_ONCE as usize) {
            let argument = (GROW_AT_ONCE.min(count - first),);
            let (made,) = tell::<_, (Result<Vec<Principal>, String>,)>(agent, canister, "grow", argument)?;
            members = made.map_err(WorkloadError::Unexpected)?;
        }
        let member = |canister| Member {
            canister,
            notes: AtomicU64::new(0),
            hashes: AtomicU64::new(0),
        };
        Ok(Box::new(Fleet {
            canister,
            popularity: Zipf::new(members.len(), 0.5),
            members: members.into_iter().map(member).collect(),
            upgraded: AtomicU64::new(0),
        }))
    }
}

fn hash(note: &[u8]) -> u64 {
    let digest: [u8; 32] = Sha256::digest(note).into();
    digest
        .iter()
        .rev()
        .skip(24)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Deployed for Fleet {
    fn canister(&self) -> Principal {
        self.canister
    }

    fn next(&self, user: usize, choices: &mut ChaCha8Rng) -> Result<Operation, WorkloadError> {
        let number = self.popularity.choose(choices);
        let member = self.members[number].canister;
        let (kind, canister, method, argument) = match choices.random_range(0..40) {
            0 => (Kind::Call, self.canister, "upgrade_wave", arguments_of((CONCURRENCY,))?),
            1..28 => {
                let note = format!("user {user} keeps {:032x}", choices.random::<u128>());
                let argument = arguments_of((ByteBuf::from(note),))?;
                (Kind::Call, member, "keep", argument)
            }
            _ => (Kind::Query, member, "summary", arguments_of(())?),
        };
        Ok(Operation {
            kind,
            canister,
            method,
            argument,
            expected: number as u64,
        })
    }

    fn completed(&self, operation: &Operation, reply: &[u8]) -> Result<(), WorkloadError> {
        let member = &self.members[operation.expected as usize];
        match operation.method {
            "keep" => {
                let (note,) = reply_of::<(ByteBuf,)>(&operation.argument)?;
                member.notes.fetch_add(1, Ordering::Relaxed);
                member.hashes.fetch_add(hash(&note), Ordering::Relaxed);
                reply_of::<(u64,)>(reply).map(drop)
            }
            "upgrade_wave" => {
                let (wave,) = reply_of::<(Wave,)>(reply)?;
                self.upgraded.fetch_add(u64::from(wave.upgraded), Ordering::Relaxed);
                match wave.errors.first() {
                    None => Ok(()),
                    Some(error) => Err(WorkloadError::unexpected(format!("upgrade: {error}"))),
                }
            }
            _ => reply_of::<(u64, u64, u64)>(reply).map(drop),
        }
    }

    /// Every member runs the version that it was brought to, and holds all that was kept in it, through every upgrade.
    fn check(&self, agent: &mut Agent, is_exact: bool) -> Result<(), WorkloadError> {
        let (listed,) = ask::<_, (Vec<Listed>,)>(agent, self.canister, "members", ())?;
        let mut upgrades = 0;
        for (member, listed) in self.members.iter().zip(listed) {
            let id = member.canister;
            let (version, notes, hashes) = ask::<_, (u64, u64, u64)>(agent, id, "summary", ())?;
            if (listed.canister, listed.version) != (id, version) {
                return Err(WorkloadError::unexpected(format!(
                    "{id} runs version {version} instead of {}",
                    listed.version
                )));
            }
            upgrades += version - 1;
            check_count("notes", notes, member.notes.load(Ordering::Relaxed), is_exact)?;
            if is_exact && hashes != member.hashes.load(Ordering::Relaxed) {
                return Err(WorkloadError::unexpected(format!(
                    "{id} holds other notes than were kept"
                )));
            }
        }
        check_count("upgrades", upgrades, self.upgraded.load(Ordering::Relaxed), is_exact)
    }
}
