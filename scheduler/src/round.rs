//! One round: the phases in order.
//!
//! ```text
//! expire -> take over streams -> induct -> install under way -> [ management -> tasks (once) -> execute -> commit -> route ]* -> stop -> charge -> prune -> certify
//! ```
//! The bracket is an iteration; it repeats while something can run and the round's limits last.

use crate::context::RoundContext;
use crate::limits::{
    FIRST_WAVE_CANISTERS, ROUND_PATH_INSTRUCTIONS_MAX, ROUND_TOTAL_INSTRUCTIONS_MAX, TURNS_AHEAD_MAX, next_wave,
};
use crate::round_schedule;
use crate::round_statuses::RoundStatuses;
use crate::run::{Runner, Turn};
use crate::state::{CanisterState, CanisterStatus, ReplicatedState, SystemState};
use crate::stats::RoundStats;
use crate::workers::SchedulerCores;
use replicore_engine::Execute;
use replicore_types::limits::HEAP_DELTA_PER_ROUND_BYTES_MAX;
use replicore_types::{Batch, CanisterId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The deterministic step: the state after `batch`.
///
/// The batch's height is one more than the state's and its time is later. `cores` never changes the result.
pub fn execute_round<E: Execute>(
    state: ReplicatedState,
    batch: Batch,
    engine: &E,
    cores: SchedulerCores,
) -> (ReplicatedState, RoundStats) {
    // A large round runs among the threads that it shares its work with, a small one where it is.
    let size = batch.messages.len() + state.activity.runnable().count();
    cores.inside(cores.are_worth_it(size), || {
        let mut round = Round::begin(state, &batch, engine, cores);
        round.expire();
        round.answer_waiting(batch.randomness, batch.consensus_responses);
        round.deliver_outbound();
        round.induct_streams(batch.stream_slices);
        round.induct(batch.messages);
        round.resume_install();
        round.execute();
        round.stop_canisters();
        round.charge();
        round.end()
    })
}

/// A round under way.
pub(crate) struct Round<'a, E> {
    pub state: ReplicatedState,
    pub engine: &'a E,
    pub cores: SchedulerCores,
    pub context: RoundContext,
    pub stats: RoundStats,
    /// New ingress statuses; they enter the history at the end.
    pub statuses: RoundStatuses,
    /// Canisters that may have something to execute in the next iteration.
    pub ready: BTreeSet<CanisterId>,
    /// Canisters with output that is not routed.
    pub unrouted: BTreeSet<CanisterId>,
    /// Canisters that execute nothing more in this round.
    exhausted: BTreeSet<CanisterId>,
    /// Canisters that executed something.
    executed: BTreeSet<CanisterId>,
    /// The longest turn of every iteration so far.
    pub path_instructions: u64,
    /// Instructions of management calls, overhead included.
    pub management_instructions: u64,
    /// Instructions of all canisters, overhead included.
    pub total_instructions: u64,
    /// Stands in the state for a canister that is out with a worker.
    placeholder: Arc<CanisterState>,
}

impl<'a, E: Execute> Round<'a, E> {
    fn begin(mut state: ReplicatedState, batch: &Batch, engine: &'a E, cores: SchedulerCores) -> Self {
        state.metadata.height = batch.height;
        state.metadata.time = batch.time;
        state.metadata.daily_blocks.note(batch.time, batch.height);
        let nobody = SystemState::new(
            CanisterId::MANAGEMENT,
            Default::default(),
            Default::default(),
            batch.time,
        );
        Self {
            context: RoundContext::new(&state, batch.randomness),
            ready: state.activity.runnable().collect(),
            stats: RoundStats {
                height: batch.height,
                ..RoundStats::default()
            },
            state,
            engine,
            cores,
            statuses: RoundStatuses::default(),
            unrouted: BTreeSet::new(),
            exhausted: BTreeSet::new(),
            executed: BTreeSet::new(),
            path_instructions: 0,
            management_instructions: 0,
            total_instructions: 0,
            placeholder: Arc::new(CanisterState::new(nobody)),
        }
    }

    /// Iterations until nothing can run or the limits of the round are reached.
    fn execute(&mut self) {
        let mut tasks_added = false;
        loop {
            self.stats.iterations += 1;
            let managed = self.execute_management();
            if !tasks_added {
                self.add_tasks();
                tasks_added = true;
            }
            let executed = self.execute_canisters();
            self.route();
            let is_over = self.path_instructions >= ROUND_PATH_INSTRUCTIONS_MAX
                || self.total_instructions >= ROUND_TOTAL_INSTRUCTIONS_MAX
                || self.stats.heap_delta_bytes >= HEAP_DELTA_PER_ROUND_BYTES_MAX;
            if is_over || !(managed || executed) {
                break;
            }
        }
        self.drop_tasks();
    }

    /// Executes a turn of every canister that can run, in waves. Returns whether anything was executed.
    fn execute_canisters(&mut self) -> bool {
        let runnable: Vec<CanisterId> = std::mem::take(&mut self.ready)
            .into_iter()
            .filter(|id| !self.exhausted.contains(id))
            .filter(|id| self.state.canister(id).is_some_and(|canister| self.may_run(canister)))
            .collect();
        let order = round_schedule::order(&self.state, runnable);
        self.context.subnet_memory_taken = self.state.activity.memory_taken();
        let mut wave = FIRST_WAVE_CANISTERS;
        let mut rest = &order[..];
        let mut longest = 0;
        // Turns that were executed before their wave; those whose wave does not come are dropped.
        let mut ahead = BTreeMap::new();
        while !rest.is_empty() {
            let left = ROUND_TOTAL_INSTRUCTIONS_MAX.saturating_sub(self.total_instructions);
            if left == 0
                || self.path_instructions >= ROUND_PATH_INSTRUCTIONS_MAX
                || self.stats.heap_delta_bytes >= HEAP_DELTA_PER_ROUND_BYTES_MAX
            {
                // What did not run waits for the next round.
                self.ready.extend(rest);
                break;
            }
            let (now, later) = rest.split_at(wave.min(rest.len()));
            let heaviest = self.execute_wave(now, later, &mut ahead);
            wave = next_wave(wave, heaviest.total, left);
            longest = longest.max(heaviest.path);
            rest = later;
        }
        self.path_instructions += longest;
        !order.is_empty()
    }

    /// Executes one turn of each canister of a wave, in parallel, and commits the turns by canister id. Returns the largest
    /// weights among them.
    ///
    /// A core that would wait for the last turns of the wave executes turns of the next ones, `later`, on copies of their
    /// canisters: within an iteration a turn comes to the same whenever it is executed, and whether it counts is decided
    /// when its wave comes.
    fn execute_wave(
        &mut self,
        canisters: &[CanisterId],
        later: &[CanisterId],
        ahead: &mut BTreeMap<CanisterId, Seat>,
    ) -> TurnWeight {
        let (mut turns, mut done) = (Vec::with_capacity(canisters.len()), Vec::new());
        for id in canisters {
            match ahead.remove(id) {
                Some(seat) => done.push(seat),
                None => turns.extend(self.take_out(*id)),
            }
        }
        let mut next = self.seats_ahead(later, ahead);
        let runner = Runner {
            context: &self.context,
            engine: self.engine,
        };
        let path = self.path_instructions;
        let run = |seat: &mut Seat| seat.turn = Some(runner.run_turn(Arc::make_mut(&mut seat.canister), path));
        self.cores.for_each_and_ahead(&mut turns, &mut next, run, run);
        ahead.extend(
            next.into_iter()
                .filter(|seat| seat.turn.is_some())
                .map(|seat| (seat.id, seat)),
        );
        turns.append(&mut done);
        turns.sort_unstable_by_key(|seat| seat.id);
        turns.into_iter().fold(TurnWeight::default(), |heaviest, seat| {
            let weight = self.commit(seat);
            TurnWeight {
                path: heaviest.path.max(weight.path),
                total: heaviest.total.max(weight.total),
            }
        })
    }

    /// The canisters that may have their turn ahead of their wave, with copies of their own: the state keeps what they
    /// were. None while the round is so full that their waves may not come.
    fn seats_ahead(&self, later: &[CanisterId], ahead: &BTreeMap<CanisterId, Seat>) -> Vec<Seat> {
        if self.cores.0 < 2 || self.total_instructions > ROUND_TOTAL_INSTRUCTIONS_MAX / 2 {
            return Vec::new();
        }
        let candidates = later.iter().filter(|id| !ahead.contains_key(*id)).take(TURNS_AHEAD_MAX);
        candidates
            .filter_map(|id| {
                let canister = self.state.canisters.get(id)?;
                // What hangs on a message between slices can be taken up once only.
                canister.paused.is_none().then(|| Seat {
                    id: *id,
                    canister: Arc::clone(canister),
                    turn: None,
                })
            })
            .collect()
    }

    /// True where the canister has something to execute and nothing holds it up.
    fn may_run(&self, canister: &CanisterState) -> bool {
        let id = canister.id();
        let installs = self
            .state
            .subnet
            .long_install
            .as_ref()
            .is_some_and(|install| install.canister == id);
        let is_limited = self.context.subnet.rate_limits && canister.system.is_rate_limited(self.context.height);
        canister.is_runnable() && !installs && !is_limited
    }

    fn take_out(&mut self, id: CanisterId) -> Option<Seat> {
        Some(Seat {
            id,
            canister: self.take_canister(id)?,
            turn: None,
        })
    }

    /// Takes a canister out of the state, to be put back by [`Round::put_canister`]: alone with it, a worker changes it
    /// in place.
    pub fn take_canister(&mut self, id: CanisterId) -> Option<Arc<CanisterState>> {
        let slot = self.state.canisters.get_mut(&id)?;
        Some(std::mem::replace(slot, Arc::clone(&self.placeholder)))
    }

    /// Puts a changed canister back into its place.
    pub fn put_canister(&mut self, id: CanisterId, canister: Arc<CanisterState>) {
        if let Some(slot) = self.state.canisters.get_mut(&id) {
            *slot = canister;
        }
        self.state.touched.insert(id);
    }

    /// Puts a canister back with what its turn did.
    fn commit(&mut self, seat: Seat) -> TurnWeight {
        let Seat { id, canister, turn } = seat;
        let turn = turn.unwrap_or_default();
        let weight = TurnWeight {
            path: turn.path_instructions,
            total: turn.total_instructions(),
        };
        let can_go_on = !turn.slice_used && self.path_instructions + weight.path < ROUND_PATH_INSTRUCTIONS_MAX;
        if !can_go_on {
            self.exhausted.insert(id);
        }
        if canister.is_runnable() && can_go_on {
            self.ready.insert(id);
        }
        if canister.system.queues.has_output() {
            self.unrouted.insert(id);
        }
        self.executed.insert(id);
        self.total_instructions += weight.total;
        self.stats.messages_executed += u64::from(turn.messages);
        self.stats.messages_failed += u64::from(turn.failed);
        self.stats.instructions += turn.instructions;
        self.stats.heap_delta_bytes += turn.heap_delta_bytes;
        self.statuses.give_all(turn.statuses);
        self.put_canister(id, canister);
        weight
    }

    /// A canister may have something to do now.
    pub fn wake(&mut self, id: CanisterId) {
        let Some(canister) = self.state.canister(&id) else {
            return;
        };
        let (runnable, output) = (canister.is_runnable(), canister.system.queues.has_output());
        if runnable {
            self.ready.insert(id);
        }
        if output {
            self.unrouted.insert(id);
        }
    }

    /// Statuses into the history, priorities, index and the certified tree.
    fn end(mut self) -> (ReplicatedState, RoundStats) {
        let now = self.context.time;
        let statuses = std::mem::take(&mut self.statuses);
        let statuses = statuses.into_sorted(&self.state.ingress_history, now, self.cores);
        let finished = statuses.iter().filter(|(_, status)| status.state.is_terminal());
        self.stats.finished.extend(finished.map(|(id, _)| *id));
        // Two large structures that know nothing of each other.
        let mut certified = std::mem::take(&mut self.state.certified);
        let history = &mut self.state.ingress_history;
        let is_parallel = self.cores.are_worth_it(statuses.len());
        self.cores.join(
            is_parallel,
            || history.set_all(&statuses, now),
            || certified.update_statuses(&statuses, is_parallel),
        );
        let mut changed = std::mem::take(&mut self.state.touched_statuses);
        changed.extend(self.state.ingress_history.prune(now));
        self.update_priorities();
        let metrics = &mut self.state.metadata.metrics;
        metrics.update_transactions += self.stats.messages_executed;
        metrics.instructions += replicore_types::NumInstructions(self.stats.instructions);
        let touched: Vec<CanisterId> = self.state.settle().into_iter().collect();
        self.stats.canisters_touched = touched.len() as u64;
        self.stats.canisters_waiting = self.state.activity.runnable().count() as u64;
        self.stats.root_hash = certified.update_with(&self.state, &touched, &changed, self.cores.0 > 1);
        self.state.certified = certified;
        (self.state, self.stats)
    }

    fn update_priorities(&mut self) {
        let height = self.context.height;
        for id in std::mem::take(&mut self.executed) {
            let Some(canister) = self.state.canister_mut(&id) else {
                continue;
            };
            canister.priority.last_turn = height;
            canister.system.rounds_executed += 1;
        }
    }

    /// True where tasks may be given to the canister.
    pub fn runs_tasks(&self, id: &CanisterId) -> bool {
        let is_running = |canister: &CanisterState| canister.system.status == CanisterStatus::Running;
        self.state.canister(id).is_some_and(is_running) && !self.state.is_between_slices(id)
    }
}

/// A canister on its way through a worker.
struct Seat {
    id: CanisterId,
    canister: Arc<CanisterState>,
    /// What it did; `None` before that.
    turn: Option<Turn>,
}

/// What a turn counts for in the two measures of a round.
#[derive(Clone, Copy, Debug, Default)]
struct TurnWeight {
    path: u64,
    total: u64,
}
