//! Heartbeats and timers: given out once a round, taken back where a round ends before they run.

use crate::round::Round;
use crate::state::{CanisterState, RoundTurn, SystemTask};
use replicore_engine::Execute;
use replicore_types::CanisterId;
use std::collections::BTreeSet;
use std::time::Duration;

impl<E: Execute> Round<'_, E> {
    /// Gives heartbeat and timer to the canisters whose turn it is.
    pub fn add_tasks(&mut self) {
        let now = self.context.time;
        let interval = Duration::from_millis(u64::from(self.context.subnet.heartbeat_interval_ms));
        let heartbeats_are_due = now.since(self.state.metadata.heartbeats_at) >= interval;
        let mut candidates = BTreeSet::new();
        if heartbeats_are_due {
            self.state.metadata.heartbeats_at = now;
            candidates.extend(self.state.activity.heartbeats());
        }
        candidates.extend(self.state.activity.due_timers(now));
        // A management call of this round may have installed code, or made a timer due.
        candidates.extend(self.state.touched.iter().copied());
        for id in candidates {
            if !self.runs_tasks(&id) {
                continue;
            }
            let Some(canister) = self.state.canister(&id) else {
                continue;
            };
            let has_heartbeat = heartbeats_are_due && canister.exports("canister_heartbeat");
            let has_timer = canister.exports("canister_global_timer")
                && canister.system.global_timer.is_some_and(|deadline| deadline <= now);
            if !(has_heartbeat || has_timer) {
                continue;
            }
            let Some(canister) = self.state.canister_mut(&id) else {
                continue;
            };
            take_turn(canister, has_heartbeat, has_timer);
            self.wake(id);
        }
    }

    /// Takes back tasks that did not run: the next round gives them out anew.
    pub fn drop_tasks(&mut self) {
        let waiting: Vec<CanisterId> = self.state.touched.iter().copied().collect();
        for id in waiting {
            let has_tasks = self
                .state
                .canister(&id)
                .is_some_and(|canister| !canister.system.tasks.is_empty());
            if !has_tasks {
                continue;
            }
            if let Some(canister) = self.state.canister_mut(&id) {
                canister.system.tasks.clear();
            }
        }
    }
}

/// Moves the canister's turn on to the first that has something to do, and queues its task. A task brings the other one
/// along; a message in its turn runs without tasks.
fn take_turn(canister: &mut CanisterState, has_heartbeat: bool, has_timer: bool) {
    use SystemTask::{GlobalTimer, Heartbeat};
    for _ in 0..3 {
        let turn = canister.priority.turn;
        canister.priority.turn = turn.next();
        let tasks: &[SystemTask] = match turn {
            RoundTurn::Message if canister.system.queues.has_input() => return,
            RoundTurn::Heartbeat if has_heartbeat && has_timer => &[Heartbeat, GlobalTimer],
            RoundTurn::Heartbeat if has_heartbeat => &[Heartbeat],
            RoundTurn::GlobalTimer if has_timer && has_heartbeat => &[GlobalTimer, Heartbeat],
            RoundTurn::GlobalTimer if has_timer => &[GlobalTimer],
            RoundTurn::Message | RoundTurn::Heartbeat | RoundTurn::GlobalTimer => continue,
        };
        canister.system.tasks.extend(tasks);
        return;
    }
}
