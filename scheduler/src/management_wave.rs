//! Management calls about different canisters, side by side.
//!
//! ```text
//! gather   the next calls in the inbox that are about canisters of their own, up to a bound
//! ahead    each is executed on a state of its own, in parallel: the one before all of them
//! commit   in the order of the inbox: what a call changed is taken over where nothing that it read has changed by then;
//!          otherwise it is executed again, on what the calls before it left
//! ```
//! So a wave comes to what its calls would have come to one after the other, which is also how one core executes it.
//! Gathering depends on the calls alone.

use crate::limits::{MANAGEMENT_ITERATION_INSTRUCTIONS_MAX, MANAGEMENT_ROUND_INSTRUCTIONS_MAX, MANAGEMENT_WAVE_CALLS};
use crate::management::{self, ManagementWork};
use crate::round::Round;
use crate::state::{ReplicatedState, SubnetMessage};
use imbl::ordset::DiffItem;
use replicore_engine::Execute;
use replicore_types::CanisterId;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// Calls that cannot be executed in this iteration, in their order.
#[derive(Default)]
struct Waiting {
    messages: VecDeque<SubnetMessage>,
    /// The canisters that they are about: what comes later about one of them waits too.
    canisters: BTreeSet<CanisterId>,
}

impl Waiting {
    fn push(&mut self, message: SubnetMessage, about: CanisterId) {
        self.canisters.insert(about);
        self.messages.push_back(message);
    }
}

impl<E: Execute> Round<'_, E> {
    /// Executes management calls in their order until the iteration's share is used up; the wave that exceeds it is the
    /// last one. Calls about a canister with a message between slices wait, and those behind them about the same
    /// canister too. Returns whether one was executed.
    pub fn execute_management(&mut self) -> bool {
        let mut waiting = Waiting::default();
        let (mut spent, mut executed) = (0, false);
        while spent < MANAGEMENT_ITERATION_INSTRUCTIONS_MAX
            && self.management_instructions < MANAGEMENT_ROUND_INSTRUCTIONS_MAX
        {
            let wave = self.gather_wave(&mut waiting);
            if wave.is_empty() {
                break;
            }
            spent += self.execute_management_wave(wave, &mut waiting);
            executed = true;
        }
        waiting.messages.append(&mut self.state.subnet.inbox);
        self.state.subnet.inbox = waiting.messages;
        executed
    }

    /// Takes the next calls out of the inbox: one of any kind, or several that keep to canisters of their own.
    fn gather_wave(&mut self, waiting: &mut Waiting) -> Vec<SubnetMessage> {
        let mut wave = Vec::new();
        let mut canisters = BTreeSet::new();
        while wave.len() < MANAGEMENT_WAVE_CALLS {
            let Some(message) = self.state.subnet.inbox.pop_front() else {
                break;
            };
            let about = management::about(&message);
            if let Some(id) = about.filter(|id| self.must_wait(&message, id, waiting)) {
                waiting.push(message, id);
                continue;
            }
            let keeps_to_itself = management::keeps_to_its_canister(&message);
            let joins = wave.is_empty() || keeps_to_itself && about.is_some_and(|id| !canisters.contains(&id));
            if !joins {
                self.state.subnet.inbox.push_front(message);
                break;
            }
            wave.push(message);
            canisters.extend(about);
            if !keeps_to_itself {
                break;
            }
        }
        wave
    }

    /// True where a call about `id` cannot be executed now.
    fn must_wait(&self, message: &SubnetMessage, id: &CanisterId, waiting: &Waiting) -> bool {
        let installs = self.state.subnet.long_install.is_some() && management::is_install(message);
        installs || waiting.canisters.contains(id) || self.state.is_between_slices(id)
    }

    /// Executes the calls of a wave and returns what they count for.
    fn execute_management_wave(&mut self, wave: Vec<SubnetMessage>, waiting: &mut Waiting) -> u64 {
        let is_parallel = self.cores.0 > 1 && wave.len() > 1;
        let before = is_parallel.then(|| self.state.clone());
        let mut seats: Vec<Ahead> = wave
            .into_iter()
            .map(|message| Ahead { message, outcome: None })
            .collect();
        if let Some(before) = &before {
            let engine = self.engine;
            self.cores.for_each(&mut seats, |seat| seat.run(before, engine));
        }
        let mut spent = 0;
        for Ahead { message, outcome } in seats {
            // An install of this wave may have been paused, which holds up the others.
            if let Some(id) = management::about(&message).filter(|id| self.must_wait(&message, id, waiting)) {
                waiting.push(message, id);
                continue;
            }
            let outcome = outcome.zip(before.as_ref());
            spent += match outcome.filter(|(outcome, before)| outcome.holds(before, &self.state)) {
                Some((outcome, before)) => self.commit_management_call(&message, outcome, before),
                None => self.execute_management_call(&message),
            };
        }
        spent
    }

    fn execute_management_call(&mut self, message: &SubnetMessage) -> u64 {
        let touched_before = std::mem::take(&mut self.state.touched);
        let work = management::execute(message, &mut self.state, self.engine);
        self.finish_management_call(message, work, touched_before)
    }

    /// Takes over what a call did ahead.
    fn commit_management_call(&mut self, message: &SubnetMessage, outcome: Outcome, before: &ReplicatedState) -> u64 {
        let touched_before = std::mem::take(&mut self.state.touched);
        let Outcome { mut state, work, .. } = outcome;
        for module in new_modules(before, &state) {
            self.state.metadata.known_modules.insert(module);
        }
        if let Some(install) = state.subnet.long_install.take() {
            self.state.subnet.long_install = Some(install);
        }
        for id in std::mem::take(&mut state.touched) {
            if let Some(canister) = state.canisters.remove(&id) {
                self.state.canisters.insert(id, canister);
            }
            self.state.touched.insert(id);
        }
        // What is shared with it is copied when it is written.
        drop(state);
        self.finish_management_call(message, work, touched_before)
    }
}

/// A call of a wave, and what it came to when it was executed ahead.
struct Ahead {
    message: SubnetMessage,
    outcome: Option<Outcome>,
}

/// What a call came to on the state before its wave.
struct Outcome {
    state: ReplicatedState,
    work: ManagementWork,
    /// The canisters that it looked at.
    read: Vec<CanisterId>,
}

impl Ahead {
    fn run<E: Execute>(&mut self, before: &ReplicatedState, engine: &E) {
        let mut state = before.clone();
        state.touched.clear();
        let work = management::execute(&self.message, &mut state, engine);
        let read = management::canisters_read(&self.message);
        self.outcome = Some(Outcome { state, work, read });
    }
}

impl Outcome {
    /// True where the call would come to the same on `now` as it did on `before`.
    fn holds(&self, before: &ReplicatedState, now: &ReplicatedState) -> bool {
        let is_same = |id: &CanisterId| match (before.canisters.get(id), now.canisters.get(id)) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        // A module that another call has made known meanwhile costs less than it did.
        let is_new = |module: &[u8; 32]| !now.metadata.known_modules.contains(module);
        self.read.iter().all(is_same) && new_modules(before, &self.state).iter().all(is_new)
    }
}

/// The modules that `after` knows and `before` does not.
fn new_modules(before: &ReplicatedState, after: &ReplicatedState) -> Vec<[u8; 32]> {
    let (before, after) = (&before.metadata.known_modules, &after.metadata.known_modules);
    let changes = before.diff(after);
    changes
        .filter_map(|change| match change {
            DiffItem::Add(module) => Some(*module),
            DiffItem::Remove(_) => None,
        })
        .collect()
}
