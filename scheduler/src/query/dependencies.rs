//! What the answer to a query depends on: what a cache of answers compares.

use crate::state::{CanisterState, ReplicatedState};
use replicore_engine::EnvironmentReads;
use replicore_types::{Cycles, Time};

/// What an answer depends on: as long as all of this is the same, the same query has the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dependencies {
    version: CanisterVersion,
    /// Batch time, if it was read or the data certificate was: that one is made anew with every round.
    time: Option<Time>,
    /// The balance, if it was read.
    balance: Option<Cycles>,
}

/// Names what a canister is: equal versions have the same code, memories, settings and status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CanisterVersion {
    memories: u64,
    canister: u64,
    status: u32,
}

impl CanisterVersion {
    /// `None` where the memories have no name.
    fn of(canister: &CanisterState) -> Option<Self> {
        let memories = canister.execution.as_ref()?.warm_version;
        (memories != 0).then(|| Self {
            memories,
            canister: canister.system.version,
            status: canister.system.status.number(),
        })
    }
}

impl Dependencies {
    /// What an answer of `canister` depends on that has read this; `None` where nothing keeps such an answer.
    pub(super) fn of(state: &ReplicatedState, canister: &CanisterState, reads: EnvironmentReads) -> Option<Self> {
        if reads.resources {
            return None;
        }
        Some(Self {
            version: CanisterVersion::of(canister)?,
            time: (reads.time || reads.certificate).then_some(state.metadata.time),
            balance: reads.balance.then_some(canister.system.balance),
        })
    }

    /// True where an answer with these dependencies is the answer on `state` as well. The query must be one that the
    /// canister can answer at all, see [`super::check`].
    pub fn hold(&self, state: &ReplicatedState, canister: &CanisterState) -> bool {
        CanisterVersion::of(canister) == Some(self.version)
            && self.time.is_none_or(|time| time == state.metadata.time)
            && self.balance.is_none_or(|balance| balance == canister.system.balance)
    }
}
