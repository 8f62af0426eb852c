//! The round thread: takes what waits in the pool as a batch and executes it.
//!
//! This is the `solo` sequencer. There are no ticks: an idle replica starts a round with the first message, a loaded one
//! takes everything that arrived during the round before. Rounds without messages happen only while the state itself
//! has something to do (messages between canisters, slices, heartbeats, timers, deadlines).

use crate::checkpoints::Rebases;
use crate::commit::{CommitQueue, Committed, Gone};
use crate::config::RoundsConfig;
use crate::dirty_memory::DirtyMemory;
use crate::failure::Failure;
use crate::machine::StateMachine;
use crate::metrics::Metrics;
use crate::pool::{BatchRoom, IngressPool, Woken};
use crate::spans::{Spans, Value};
use replicore_scheduler::limits::{PATH_MESSAGE_INSTRUCTIONS, ROUND_PATH_INSTRUCTIONS_MAX};
use replicore_scheduler::{NextRound, RoundStats};
use replicore_types::{Batch, CanisterId, Randomness, Time};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Rounds without messages that may follow each other at once. Messages between canisters and slices rarely need more.
const EAGER_ROUNDS_MAX: u32 = 8;
/// From one round without messages to the next after that, at least: a canister that always has something to do (a timer
/// that sets itself again, a heartbeat that asks for randomness) must not fill the log at full speed. Slices of long
/// executions take longer anyway.
const PACED_ROUND_INTERVAL: Duration = Duration::from_millis(10);

/// Messages of one canister that a round executes at most.
const OF_CANISTER_MAX: usize = (ROUND_PATH_INSTRUCTIONS_MAX / PATH_MESSAGE_INSTRUCTIONS) as usize;

/// What the round thread needs.
pub struct Rounds {
    /// The state and what executes it.
    pub machine: StateMachine,
    /// Where messages wait.
    pub pool: Arc<IngressPool>,
    /// Where executed rounds go.
    pub commit: CommitQueue,
    /// Bounds of a batch.
    pub config: RoundsConfig,
    /// Memories that a checkpoint has written: to be read from its files from now on.
    pub rebases: Rebases,
    /// Has rounds wait where memory is full of what no checkpoint holds.
    pub memory: Arc<DirtyMemory>,
    /// Adds up what rounds do.
    pub metrics: Arc<Metrics>,
    /// Where messages are traced.
    pub spans: Option<Arc<Spans>>,
    /// Learns why the thread ends, where it ends early.
    pub failure: Arc<Failure>,
}

impl Rounds {
    /// Runs until the pool is closed and empty, or the commit thread is gone. Returns the final state.
    pub fn run(mut self) -> StateMachine {
        let _watch = self.failure.watch("round");
        let mut pace = Pace::default();
        loop {
            let now = Instant::now();
            let due = pace.due(now, self.due_in(wall_clock()));
            if self.pool.wait(Some(due)) == Woken::Closed {
                break;
            }
            let start = Instant::now();
            match self.round() {
                Ok(has_messages) => pace.note(start, has_messages),
                Err(Stopped::CommitGone) => break,
                Err(Stopped::NoRandomness(error)) => {
                    self.failure
                        .set(format!("the system gives no randomness for a batch: {error}"));
                    break;
                }
            }
        }
        self.machine
    }

    /// How long a round without messages has time.
    fn due_in(&self, now: Time) -> Duration {
        let interval = Duration::from_millis(self.config.idle_interval_ms);
        let state = self.machine.state();
        // Counted from the state's own time, so that a replica that was down for long begins with a round.
        let stale = state
            .metadata
            .time
            .plus(Duration::from_millis(self.config.freshness_ms));
        let freshness = stale.since(now);
        match state.next_round() {
            NextRound::Now => Duration::ZERO,
            NextRound::Periodic => interval.min(freshness),
            NextRound::At(time) => time.since(now).min(freshness),
            NextRound::OnMessage => freshness,
        }
    }

    /// One round; true where its batch had messages or answers.
    fn round(&mut self) -> Result<bool, Stopped> {
        let memory = Arc::clone(&self.memory);
        memory.wait_for_room(|| {
            let stored = self.rebases.take_some();
            self.machine.rebase(&stored);
            self.rebases.retire(stored);
            (memory.is_checkpointing() || self.rebases.are_under_way()) && self.failure.get().is_none()
        });
        let state = self.machine.state();
        let metadata = &state.metadata;
        let in_state = |id: &CanisterId| {
            state
                .canister(id)
                .map_or(0, |canister| canister.system.queues.ingress_len())
        };
        // Batch time strictly increases, whatever the clock does.
        let time = wall_clock().max(Time(metadata.time.0 + 1));
        let batch = Arc::new(Batch {
            height: metadata.height.next(),
            time,
            randomness: randomness()?,
            messages: self.pool.take(&BatchRoom {
                messages_max: self.config.batch_messages_max,
                bytes_max: self.config.batch_bytes_max,
                of_canister_max: OF_CANISTER_MAX,
                time,
                in_state: &in_state,
            }),
            consensus_responses: self.pool.take_answers(self.config.batch_bytes_max),
            // A replica process hosts one subnet; those who embed several exchange slices themselves.
            stream_slices: Vec::new(),
            requires_checkpoint: false,
        });
        let has_messages = !(batch.messages.is_empty() && batch.consensus_responses.is_empty());
        // The log starts on the batch while the round runs.
        self.commit.log(state.certified_root(), Arc::clone(&batch))?;
        let start = Instant::now();
        let spans = self.spans.as_deref();
        let statistics = self.machine.execute_batch_traced((*batch).clone(), spans);
        self.metrics.round(&statistics, start.elapsed());
        if let Some(spans) = spans {
            trace(spans, &batch, start, &statistics);
        }
        self.commit.certify(Committed {
            state: self.machine.state().clone(),
            statistics,
        })?;
        Ok(has_messages)
    }
}

/// The sampled messages of the batch were in the pool, and then in this round.
fn trace(spans: &Spans, batch: &Batch, start: Instant, statistics: &RoundStats) {
    let sampled = spans.sampled(batch);
    if sampled.is_empty() {
        return;
    }
    let attributes = [
        ("replicore.height", statistics.height.0),
        ("replicore.batch.messages", batch.messages.len() as u64),
        ("replicore.round.messages_executed", statistics.messages_executed),
        ("replicore.round.instructions", statistics.instructions),
        ("replicore.round.iterations", u64::from(statistics.iterations)),
    ];
    let attributes = attributes.map(|(name, number)| (name, Value::Number(number))).to_vec();
    spans.executed(&sampled, start, Instant::now(), &attributes);
}

/// Spaces rounds that no message asked for.
#[derive(Default)]
struct Pace {
    last: Option<Instant>,
    without_messages: u32,
}

impl Pace {
    /// When the next round is due that would be due in `due_in` by itself.
    fn due(&self, now: Instant, due_in: Duration) -> Instant {
        let due = now + due_in;
        match self.last {
            Some(last) if self.without_messages >= EAGER_ROUNDS_MAX => due.max(last + PACED_ROUND_INTERVAL),
            _ => due,
        }
    }

    /// A round that started at `start` is over.
    fn note(&mut self, start: Instant, has_messages: bool) {
        let was_paced = self.last.is_some_and(|last| start - last > 2 * PACED_ROUND_INTERVAL);
        self.without_messages = match has_messages || was_paced {
            true => 0,
            false => self.without_messages + 1,
        };
        self.last = Some(start);
    }
}

/// Why the round thread ends before it is told to.
#[derive(Debug)]
enum Stopped {
    CommitGone,
    NoRandomness(getrandom::Error),
}

impl From<Gone> for Stopped {
    fn from(Gone: Gone) -> Self {
        Self::CommitGone
    }
}

/// Nanoseconds since 1970 by this machine's clock.
pub fn wall_clock() -> Time {
    Time(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64),
    )
}

/// What no sender of a message could have foreseen.
fn randomness() -> Result<Randomness, Stopped> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(Stopped::NoRandomness)?;
    Ok(Randomness(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_that_nobody_asked_for_are_spaced_after_a_few() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for _ in 0..EAGER_ROUNDS_MAX {
            assert_eq!(pace.due(now, Duration::ZERO), now, "at first they follow at once");
            pace.note(now, false);
            now += Duration::from_micros(10);
        }
        for _ in 0..3 {
            let due = pace.due(now, Duration::ZERO);
            assert_eq!(due, pace.last.unwrap() + PACED_ROUND_INTERVAL);
            now = due;
            pace.note(now, false);
        }
        pace.note(now, true);
        assert_eq!(pace.due(now, Duration::ZERO), now, "a message makes them eager again");
    }

    #[test]
    fn slow_rounds_are_not_delayed() {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        for _ in 0..3 * EAGER_ROUNDS_MAX {
            assert_eq!(pace.due(now, Duration::ZERO), now);
            pace.note(now, false);
            now += 3 * PACED_ROUND_INTERVAL;
        }
    }
}
