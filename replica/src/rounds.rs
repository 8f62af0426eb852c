//! The round thread: takes what waits in the pool as a batch and executes it.
//!
//! This is the `solo` sequencer. There are no ticks: an idle replica starts a round with the first message, a loaded one
//! takes everything that arrived during the round before. Rounds without messages happen only while the state itself
//! has something to do (messages between canisters, slices, heartbeats, timers, deadlines).

use crate::checkpoints::Rebases;
use crate::commit::{CommitQueue, Committed};
use crate::config::RoundsConfig;
use crate::machine::StateMachine;
use crate::pool::{IngressPool, Woken};
use replicore_scheduler::NextRound;
use replicore_types::{Batch, Randomness, Time};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

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
}

impl Rounds {
    /// Runs until the pool is closed and empty, or the commit thread is gone. Returns the final state.
    pub fn run(mut self) -> StateMachine {
        loop {
            match self.pool.wait(self.deadline()) {
                Woken::Closed => break,
                Woken::Messages | Woken::Deadline => {}
            }
            if self.round().is_err() {
                break;
            }
        }
        self.machine
    }

    /// When the next round is due without messages.
    fn deadline(&self) -> Option<Instant> {
        let (now, clock) = (Instant::now(), wall_clock());
        let state = self.machine.state();
        let interval = Duration::from_millis(self.config.idle_interval_ms);
        // Counted from the certified time: after a long stop the first round is due at once.
        let age = clock.since(state.metadata.time);
        let stale = now + Duration::from_millis(self.config.freshness_ms).saturating_sub(age);
        match state.next_round() {
            NextRound::Now => Some(now),
            NextRound::Periodic => Some(stale.min(now + interval.saturating_sub(age))),
            NextRound::At(time) => Some(stale.min(now + time.since(clock))),
            NextRound::OnMessage => Some(stale),
        }
    }

    fn round(&mut self) -> Result<(), crate::commit::Gone> {
        self.machine.rebase(self.rebases.take());
        let metadata = &self.machine.state().metadata;
        // Batch time strictly increases, whatever the clock does.
        let time = wall_clock().max(Time(metadata.time.0 + 1));
        let batch = Arc::new(Batch {
            height: metadata.height.next(),
            time,
            randomness: randomness(time),
            messages: self
                .pool
                .take(self.config.batch_messages_max, self.config.batch_bytes_max, time),
            consensus_responses: Vec::new(),
            requires_checkpoint: false,
        });
        // The log starts on the batch while the round runs.
        self.commit.log(Arc::clone(&batch))?;
        let statistics = self.machine.execute_batch((*batch).clone());
        self.commit.certify(Committed {
            state: self.machine.state().clone(),
            statistics,
        })
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

/// Fresh randomness; where the system has none, the batch time stands in (a `solo` replica trusts itself).
fn randomness(time: Time) -> Randomness {
    let mut bytes = [0; 32];
    if getrandom::fill(&mut bytes).is_err() {
        bytes[..8].copy_from_slice(&time.0.to_le_bytes());
    }
    Randomness(bytes)
}
