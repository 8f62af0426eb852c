//! The messages of one canister, from the pool into rounds.

use super::flow::{Aim, Flow, Mark};
use super::share::Share;
use crate::config::PoolConfig;
use replicore_types::{CanisterId, Ingress};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Messages of one canister that may be under way whatever the waiting time: users of a canister whose messages take long
/// wait for each other, and only a crowd of them is told to come again.
pub(super) const UNDER_WAY_MIN: usize = 1_000;

/// The same while nothing is known of a canister: an eighth of a second of what the quickest ones do on two cores.
const UNDER_WAY_AT_FIRST: usize = 5_000;

/// The messages of one canister.
pub(super) struct Line {
    waiting: VecDeque<Entry>,
    /// Calls of the management canister about this one. They go first: who controls a canister that is flooded has to get
    /// at it.
    management: VecDeque<Entry>,
    pub flow: Flow,
    /// What a round may have of `waiting`.
    share: Share,
    /// Those in rounds that are not published yet, oldest first.
    rounds: VecDeque<InRound>,
}

/// A message that waits, and how it found its line and the pool.
pub(super) struct Entry {
    pub message: Ingress,
    pub in_line: Mark,
    pub in_all: Mark,
}

/// What one round has of a line.
struct InRound {
    round: u64,
    messages: usize,
    /// The message that waited longest.
    first: Mark,
}

/// What a line is held to.
fn aim_of_line(bounds: &PoolConfig) -> Aim {
    Aim {
        target: Duration::from_millis(bounds.waiting_ms_max),
        least: UNDER_WAY_MIN,
        first: UNDER_WAY_AT_FIRST,
    }
}

impl Line {
    pub(super) fn new(bounds: &PoolConfig) -> Self {
        Self {
            waiting: VecDeque::new(),
            management: VecDeque::new(),
            flow: Flow::new(aim_of_line(bounds)),
            share: Share::new(),
            rounds: VecDeque::new(),
        }
    }

    /// Messages that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.management.len()
    }

    /// One more message waits.
    pub(super) fn push(&mut self, entry: Entry) {
        match entry.message.receiver == CanisterId::MANAGEMENT {
            true => self.management.push_back(entry),
            false => self.waiting.push_back(entry),
        }
    }

    /// True if the round with this number, which executes `most` of a canister, may have the next message. `in_state` says how many wait in its state.
    pub(super) fn may_give(&mut self, (round, most): (u64, usize), in_state: impl FnOnce() -> usize) -> bool {
        !self.management.is_empty() || self.share.has_room((round, most), in_state)
    }

    /// Takes the next message, if it fits.
    pub(super) fn pop(&mut self, fits: impl FnOnce(&Ingress) -> bool) -> Option<Entry> {
        if !self.management.is_empty() {
            return self.management.pop_front_if(|entry| fits(&entry.message));
        }
        let entry = self.waiting.pop_front_if(|entry| fits(&entry.message));
        if entry.is_some() {
            self.share.give();
        }
        entry
    }

    /// One more message is in the round with this number; true if it is the first of the line.
    pub(super) fn add_to_round(&mut self, round: u64, mark: Mark) -> bool {
        if let Some(part) = self.rounds.back_mut().filter(|part| part.round == round) {
            part.messages += 1;
            return false;
        }
        self.rounds.push_back(InRound {
            round,
            messages: 1,
            first: mark,
        });
        true
    }

    /// The oldest round that has messages of it is published.
    pub(super) fn published(&mut self, bounds: &PoolConfig, now: Instant) {
        if let Some(part) = self.rounds.pop_front() {
            self.flow.learn(part.first, part.messages, now, aim_of_line(bounds));
            self.flow.leave(part.messages);
        }
    }
}
