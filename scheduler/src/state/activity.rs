//! Which canisters have something to do, and when: so that the others cost nothing.
//!
//! Derived from the canisters, never serialised. Brought up to date once a round for the canisters that were touched.

use crate::state::{CanisterState, CanisterStatus};
use imbl::{OrdMap, OrdSet};
use replicore_types::{CanisterId, Cycles, NumBytes, Time};

/// What one canister contributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    runnable: bool,
    heartbeat: bool,
    stopping: bool,
    timer: Option<Time>,
    expiry: Option<Time>,
    charged_until: Time,
    memory_taken: NumBytes,
    compute_allocation: u64,
    consumed: Cycles,
    callbacks: usize,
    message_bytes: u64,
}

impl Entry {
    fn of(canister: &CanisterState) -> Self {
        let system = &canister.system;
        let runs_tasks = system.status == CanisterStatus::Running;
        let callbacks = system
            .calls
            .deadlines
            .get_min()
            .map(|((deadline, _), ())| deadline.to_time());
        Self {
            runnable: canister.is_runnable(),
            heartbeat: runs_tasks && canister.exports("canister_heartbeat"),
            stopping: matches!(system.status, CanisterStatus::Stopping(_)),
            timer: system
                .global_timer
                .filter(|_| runs_tasks && canister.exports("canister_global_timer")),
            expiry: callbacks.into_iter().chain(system.queues.next_expiry()).min(),
            charged_until: system.charged_until,
            memory_taken: canister.memory_taken(),
            compute_allocation: system.settings.compute_allocation,
            consumed: system.consumed.total(),
            callbacks: system.calls.callbacks.len(),
            message_bytes: system.queues.message_bytes(),
        }
    }
}

/// Canisters by what they have to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    entries: OrdMap<CanisterId, Entry>,
    runnable: OrdSet<CanisterId>,
    heartbeats: OrdSet<CanisterId>,
    stopping: OrdSet<CanisterId>,
    timers: OrdSet<(Time, CanisterId)>,
    expiries: OrdSet<(Time, CanisterId)>,
    charges: OrdSet<(Time, CanisterId)>,
    memory_taken: NumBytes,
    compute_allocation: u64,
    consumed: Cycles,
    callbacks: usize,
    message_bytes: u64,
}

impl Activity {
    /// Brings the entry of a canister up to date; `None` where it is gone.
    pub fn update(&mut self, id: CanisterId, canister: Option<&CanisterState>) {
        let new = canister.map(Entry::of);
        let old = self.entries.get(&id).copied();
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.remove(id, &old, new.as_ref());
        }
        match new {
            Some(new) => {
                self.insert(id, old.as_ref(), &new);
                self.entries.insert(id, new);
            }
            None => {
                self.entries.remove(&id);
            }
        }
    }

    fn remove(&mut self, id: CanisterId, old: &Entry, new: Option<&Entry>) {
        let default = Entry {
            charged_until: Time(u64::MAX),
            ..Entry::default()
        };
        let new = new.unwrap_or(&default);
        for (set, was, is) in [
            (&mut self.runnable, old.runnable, new.runnable),
            (&mut self.heartbeats, old.heartbeat, new.heartbeat),
            (&mut self.stopping, old.stopping, new.stopping),
        ] {
            if was && !is {
                set.remove(&id);
            }
        }
        for (set, was, is) in [
            (&mut self.timers, old.timer, new.timer),
            (&mut self.expiries, old.expiry, new.expiry),
            (&mut self.charges, Some(old.charged_until), Some(new.charged_until)),
        ] {
            if let Some(time) = was.filter(|_| was != is) {
                set.remove(&(time, id));
            }
        }
        self.memory_taken -= old.memory_taken;
        self.compute_allocation -= old.compute_allocation;
        self.consumed -= old.consumed;
        self.callbacks -= old.callbacks;
        self.message_bytes -= old.message_bytes;
    }

    fn insert(&mut self, id: CanisterId, old: Option<&Entry>, new: &Entry) {
        let default = Entry {
            charged_until: Time(u64::MAX),
            ..Entry::default()
        };
        let old = old.unwrap_or(&default);
        for (set, was, is) in [
            (&mut self.runnable, old.runnable, new.runnable),
            (&mut self.heartbeats, old.heartbeat, new.heartbeat),
            (&mut self.stopping, old.stopping, new.stopping),
        ] {
            if is && !was {
                set.insert(id);
            }
        }
        for (set, was, is) in [
            (&mut self.timers, old.timer, new.timer),
            (&mut self.expiries, old.expiry, new.expiry),
            (&mut self.charges, Some(old.charged_until), Some(new.charged_until)),
        ] {
            if let Some(time) = is.filter(|_| was != is) {
                set.insert((time, id));
            }
        }
        self.memory_taken += new.memory_taken;
        self.compute_allocation += new.compute_allocation;
        self.consumed += new.consumed;
        self.callbacks += new.callbacks;
        self.message_bytes += new.message_bytes;
    }

    /// Canisters with a paused message, a task or input, by id.
    pub fn runnable(&self) -> impl Iterator<Item = CanisterId> + '_ {
        self.runnable.iter().copied()
    }

    /// True while some canister has something to execute.
    pub fn is_anything_runnable(&self) -> bool {
        !self.runnable.is_empty()
    }

    /// Running canisters with a heartbeat.
    pub fn heartbeats(&self) -> impl Iterator<Item = CanisterId> + '_ {
        self.heartbeats.iter().copied()
    }

    /// Stopping canisters.
    pub fn stopping(&self) -> impl Iterator<Item = CanisterId> + '_ {
        self.stopping.iter().copied()
    }

    /// Canisters whose timer is due at `now`.
    pub fn due_timers(&self, now: Time) -> impl Iterator<Item = CanisterId> + '_ {
        due(&self.timers, now)
    }

    /// Canisters with a message or callback that expires at `now` or before.
    pub fn due_expiries(&self, now: Time) -> impl Iterator<Item = CanisterId> + '_ {
        due(&self.expiries, now)
    }

    /// Canisters that have paid up to `paid_until` or less, those first that have paid least.
    pub fn unpaid(&self, paid_until: Time) -> impl Iterator<Item = CanisterId> + '_ {
        due(&self.charges, paid_until)
    }

    /// The earliest timer or expiry.
    pub fn next_deadline(&self) -> Option<Time> {
        let first = |set: &OrdSet<(Time, CanisterId)>| set.get_min().map(|(time, _)| *time);
        first(&self.timers).into_iter().chain(first(&self.expiries)).min()
    }

    /// Memory that all canisters take.
    pub fn memory_taken(&self) -> NumBytes {
        self.memory_taken
    }

    /// Sum of the compute allocations.
    pub fn compute_allocation(&self) -> u64 {
        self.compute_allocation
    }

    /// Cycles that all canisters consumed.
    pub fn consumed(&self) -> Cycles {
        self.consumed
    }

    /// Open calls of all canisters.
    pub fn callbacks(&self) -> usize {
        self.callbacks
    }

    /// Memory of the messages of all canisters.
    pub fn message_memory(&self) -> NumBytes {
        NumBytes(self.message_bytes)
    }

    /// Number of canisters.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True for an empty subnet.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn due(set: &OrdSet<(Time, CanisterId)>, now: Time) -> impl Iterator<Item = CanisterId> + '_ {
    set.iter().take_while(move |(time, _)| *time <= now).map(|(_, id)| *id)
}
