//! What rounds feel of a checkpoint that is written beside them.

use super::{Memory, PAGE_BYTES, RawFile, Stored, open_log};
use crate::BenchError;
use crate::measure::{Effort, Figure, seconds};
use replicore_persistence::{BatchLog, StoredMemory, work_in_background};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// `persistence.checkpoint_stall_ms`: how much longer the longest round takes while a checkpoint of 1 GiB of dirty pages
/// is written beside it than the longest of as many rounds without. A round writes 64 pages, publishes the version
/// and makes 16 KiB of batch durable. `bare_writer_ms` is its floor: 16 KiB made durable in a plain file, again and again,
/// while a thread writes as many bytes as the checkpoint to another, 4 MiB and a sync at a time, and does nothing else.
pub fn checkpoint_stall(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let pages = effort.scale(262_144);
    let mut stored = Stored::new(pages)?;
    let mut rounds = StallRounds::new(stored.directory.path())?;
    let bare = BareStall::new(stored.directory.path(), pages * PAGE_BYTES as u64)?;
    let (mut quiet_samples, mut checkpoint_samples, mut bare_samples) = (Vec::new(), Vec::new(), Vec::new());
    let mut short = *effort;
    short.runs = short.runs.min(5);
    let samples = short.samples(|| {
        stored.memory.commit(&(0..pages).collect::<Vec<_>>());
        let request = stored.request();
        let done = AtomicBool::new(false);
        let (busy, written) = std::thread::scope(|scope| {
            let store = &stored.store;
            let done = &done;
            let writer = scope.spawn(move || {
                work_in_background();
                let written = seconds(|| store.write(request));
                done.store(true, Ordering::Release);
                written
            });
            let busy = rounds.run(&mut stored.memory, &[], |_| done.load(Ordering::Acquire));
            (busy, writer.join())
        });
        let (elapsed, written) = written.map_err(|_| BenchError::new("the checkpoint thread panicked"))?;
        let mut busy = busy?;
        // Taking over what was written is a part of some rounds, too: each takes one of these pieces.
        // Letting go of what was in memory is not: the checkpoint thread does it.
        let written = written.map_err(BenchError::new)?.memories;
        let parts: Vec<_> = written.iter().flat_map(|memory| memory.clone().divide(2_048)).collect();
        let takeover = rounds.run(&mut stored.memory, &parts, |count| count >= parts.len() as u64)?;
        busy.longest = busy.longest.max(takeover.longest);
        drop((parts, written));
        // As the replica does after a checkpoint: from now on the log writes to files that were used before.
        rounds.truncate()?;
        let quiet = rounds.run(&mut stored.memory, &[], |count| count >= busy.count)?;
        bare_samples.push(bare.measure()? * 1e3);
        quiet_samples.push(quiet.longest * 1e3);
        checkpoint_samples.push(elapsed * 1e3);
        Ok(((busy.longest - quiet.longest) * 1e3).max(0.0))
    })?;
    // How many rounds there are depends on the disk, so there is no root to compare.
    Ok(vec![
        Figure::of("persistence.checkpoint_stall_ms", "ms", samples, String::new())
            .against("bare_writer_ms", bare_samples)
            .against("longest_round_without_ms", quiet_samples)
            .against("checkpoint_ms", checkpoint_samples),
    ])
}

/// Two plain files: what the disk and the kernel make of a small sync beside a large one.
struct BareStall {
    log: RawFile,
    checkpoint: RawFile,
}

impl BareStall {
    /// Bytes that are written between two syncs of the large file.
    const PIECE_BYTES: usize = 4 << 20;

    fn new(directory: &Path, bytes: u64) -> Result<Self, BenchError> {
        let [log, checkpoint] = ["bare_log", "bare_checkpoint"].map(|name| directory.join(name));
        for path in [&log, &checkpoint] {
            std::fs::create_dir(path).map_err(BenchError::new)?;
        }
        Ok(Self {
            log: RawFile::create(&log, 64 << 20)?,
            checkpoint: RawFile::create(&checkpoint, bytes)?,
        })
    }

    /// Seconds that the longest small write took longer beside the large ones than the longest of as many alone.
    fn measure(&self) -> Result<f64, BenchError> {
        let (file, bytes, done) = (&self.checkpoint.file, self.checkpoint.len, AtomicBool::new(false));
        let (busy, written) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let piece = vec![7; Self::PIECE_BYTES.min(bytes as usize)];
                let mut places = (0..bytes / piece.len() as u64).map(|number| number * piece.len() as u64);
                let written = places.try_for_each(|at| file.write_all_at(&piece, at).and_then(|()| file.sync_data()));
                done.store(true, Ordering::Release);
                written
            });
            (self.longest(|_| done.load(Ordering::Acquire)), writer.join())
        });
        let written = written.map_err(|_| BenchError::new("the writing thread panicked"))?;
        written.map_err(BenchError::new)?;
        let busy = busy?;
        let quiet = self.longest(|count| count >= busy.count)?;
        Ok((busy.longest - quiet.longest).max(0.0))
    }

    fn longest(&self, is_over: impl Fn(u64) -> bool) -> Result<Longest, BenchError> {
        let batch = vec![3; 16 << 10];
        let mut longest = Longest { longest: 0.0, count: 0 };
        while !is_over(longest.count) {
            longest.longest = longest.longest.max(self.log.write(&batch)?);
            longest.count += 1;
        }
        Ok(longest)
    }
}

struct StallRounds {
    log: BatchLog,
    height: u64,
}

struct Longest {
    longest: f64,
    count: u64,
}

impl StallRounds {
    fn new(directory: &Path) -> Result<Self, BenchError> {
        let log = open_log(&directory.join("log"))?;
        Ok(Self { log, height: 0 })
    }

    fn truncate(&mut self) -> Result<(), BenchError> {
        self.log.truncate_before(self.height).map_err(BenchError::new)
    }

    /// Rounds until it is over. Each takes over one of the parts first, as long as there are any.
    fn run(
        &mut self,
        memory: &mut Memory,
        parts: &[StoredMemory],
        is_over: impl Fn(u64) -> bool,
    ) -> Result<Longest, BenchError> {
        let mut parts = parts.iter();
        let batch = vec![3; 16 << 10];
        let mut longest = Longest { longest: 0.0, count: 0 };
        let mut published = memory.map.clone();
        while !is_over(longest.count) {
            let places = memory.places(64);
            let start = Instant::now();
            if let Some(part) = parts.next() {
                memory.map = part.rebase(&memory.map);
            }
            memory.commit(&places);
            self.height += 1;
            self.log.append(self.height, &batch).map_err(BenchError::new)?;
            self.log.sync().map_err(BenchError::new)?;
            published = memory.map.clone();
            longest.longest = longest.longest.max(start.elapsed().as_secs_f64());
            longest.count += 1;
        }
        drop(published);
        Ok(longest)
    }
}
