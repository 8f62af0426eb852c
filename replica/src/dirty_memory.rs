//! Changed pages in memory, and their bound.
//!
//! A page that a round wrote stays in memory until a checkpoint has it; then it is read from the checkpoint's file, and
//! the kernel may let go of it. So the checkpoint is what spills: it comes early where many pages wait for it, and rounds
//! wait for it where they would fill memory faster than the disk takes it.

use crate::config::CheckpointsConfig;
use replicore_persistence::frames_in_use;
use replicore_types::OS_PAGE_BYTES;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a waiting round looks again.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// Longest sleep of a paced compaction: how late it notices that it should hurry.
const PACE_INTERVAL: Duration = Duration::from_millis(20);

/// What the round thread, the commit thread and the checkpoint thread share about memory.
pub struct DirtyMemory {
    bytes_max: u64,
    compaction_bytes_per_second: u64,
    is_checkpointing: AtomicBool,
    is_ending: AtomicBool,
    is_checkpoint_asked_for: AtomicBool,
}

impl DirtyMemory {
    /// Bounds as configured.
    pub fn new(config: &CheckpointsConfig) -> Self {
        Self {
            bytes_max: config.dirty_bytes_max,
            compaction_bytes_per_second: config.compaction_bytes_per_second,
            is_checkpointing: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            is_checkpoint_asked_for: AtomicBool::new(false),
        }
    }

    /// Bytes of page frames of this process.
    pub fn bytes() -> u64 {
        frames_in_use() * OS_PAGE_BYTES as u64
    }

    /// True where half the bound is used.
    pub fn is_pressing(&self) -> bool {
        Self::bytes() >= self.bytes_max / 2
    }

    /// Has the next checkpoint come with the next round.
    pub fn ask_for_checkpoint(&self) {
        self.is_checkpoint_asked_for.store(true, Ordering::Relaxed);
    }

    /// True where a checkpoint should come early: somebody has asked for it, or half the bound is used, and a
    /// quarter of it since there was least.
    /// Pages that a checkpoint cannot free (queries hold old versions) thus don't cause one after the other.
    pub fn wants_checkpoint(&self, least: u64) -> bool {
        if self.is_checkpoint_asked_for.load(Ordering::Relaxed) {
            return true;
        }
        self.is_pressing() && Self::bytes().saturating_sub(least) >= self.bytes_max / 4
    }

    /// Takes the turn to write a checkpoint; false where one is being written.
    pub fn begin_checkpoint(&self) -> bool {
        let is_ours = !self.is_checkpointing.swap(true, Ordering::AcqRel);
        if is_ours {
            self.is_checkpoint_asked_for.store(false, Ordering::Relaxed);
        }
        is_ours
    }

    /// Gives the turn back.
    pub fn end_checkpoint(&self) {
        self.is_checkpointing.store(false, Ordering::Release);
    }

    /// From now on nothing takes its time: the replica stops.
    pub fn hurry(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// True while a checkpoint is being written.
    pub fn is_checkpointing(&self) -> bool {
        self.is_checkpointing.load(Ordering::Acquire)
    }

    /// Waits while the bound is reached. `meanwhile` is called again and again, takes over what a checkpoint has written,
    /// and says whether there is something to wait for.
    pub fn wait_for_room(&self, mut meanwhile: impl FnMut() -> bool) {
        while meanwhile() && Self::bytes() >= self.bytes_max {
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// A pace for one compaction, to be told of what it wrote.
    pub fn compaction_pace(&self) -> impl Fn(u64) {
        let (begun, written) = (Instant::now(), std::cell::Cell::new(0_u64));
        move |bytes| {
            written.set(written.get() + bytes);
            let Some(due) = nanoseconds(written.get(), self.compaction_bytes_per_second) else {
                return;
            };
            while let Some(left) = due.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) {
                if self.is_ending.load(Ordering::Relaxed) || self.is_pressing() {
                    return;
                }
                std::thread::sleep(left.min(PACE_INTERVAL));
            }
        }
    }
}

/// How long `bytes` take; `None` where there is no rate.
fn nanoseconds(bytes: u64, bytes_per_second: u64) -> Option<Duration> {
    let nanoseconds = (u128::from(bytes) * 1_000_000_000).checked_div(u128::from(bytes_per_second))?;
    Some(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compaction_takes_its_time_unless_the_replica_stops() {
        let config = CheckpointsConfig {
            compaction_bytes_per_second: 10_000_000,
            ..CheckpointsConfig::default()
        };
        let memory = DirtyMemory::new(&config);
        let (pace, start) = (memory.compaction_pace(), Instant::now());
        (0..5).for_each(|_| pace(100_000));
        assert!(start.elapsed() >= Duration::from_millis(50));
        memory.hurry();
        let (pace, start) = (memory.compaction_pace(), Instant::now());
        pace(100 * config.compaction_bytes_per_second);
        assert!(start.elapsed() < Duration::from_secs(50), "it waits for nothing");
        assert_eq!(nanoseconds(5, 0), None);
    }
}
