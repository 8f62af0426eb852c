//! Log and checkpoints together, as a replica uses them, on a disk that stops, loses, misdirects and fails.
//!
//! The model is a list of numbers, one page each. A batch writes some of them; recovery is the newest checkpoint and the
//! batches behind it. Whatever the disk did: what was acknowledged is there, or the damage is reported.

mod points;

use crate::batch_log::{BatchLog, BatchLogOptions};
use crate::checkpoint::{CheckpointItem, CheckpointItems, CheckpointOptions, CheckpointRequest, CheckpointStore};
use crate::disk::{Operation, SimDisk};
use crate::encryption::Cipher;
use crate::error::{PersistenceError, Result};
use crate::page_map::{PageDelta, PageIndex, PageMap};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use replicore_types::OS_PAGE_BYTES;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

const LOG: BatchLogOptions = BatchLogOptions {
    segment_bytes: 24 << 10,
    salt: 5,
    prepare_ahead: false,
};
const CHECKPOINTS: CheckpointOptions = CheckpointOptions {
    allocation_bytes: 16 << 10,
    slack_bytes: 64 << 10,
};

/// Bytes of a record that name pages; what follows only makes it larger.
const PLACES_MAX: usize = 4;

/// Of a large batch: more than a piece that the log writes ahead.
const LARGE_BYTES: usize = 3 << 19;

/// A state directory with its state, as a replica holds them.
struct Machine {
    log: BatchLog,
    store: CheckpointStore,
    memory: PageMap,
    height: u64,
}

/// What a batch of this height writes: the same whenever it is executed.
fn execute(memory: &mut PageMap, record: &[u8]) {
    let mut delta = PageDelta::default();
    let (places, head) = (record.iter().take(PLACES_MAX), &record[..record.len().min(PLACES_MAX)]);
    for place in places {
        let mut page = [*place; OS_PAGE_BYTES];
        page[..head.len()].copy_from_slice(head);
        delta.insert(PageIndex(u64::from(*place)), &page);
    }
    memory.apply(delta);
}

impl Machine {
    fn open(disk: &SimDisk, directory: &Path, cipher: Option<&Cipher>) -> Result<Self> {
        let disk = Arc::new(disk.clone());
        for part in ["log", "checkpoints"] {
            fs::create_dir_all(directory.join(part)).expect("a directory");
        }
        let (store, opened) =
            CheckpointStore::open_with(disk.clone(), &directory.join("checkpoints"), CHECKPOINTS, cipher)?;
        let (log, _) = BatchLog::open_with(disk, &directory.join("log"), LOG, cipher)?;
        let (mut memory, mut height) = match &opened.latest {
            Some(latest) => (latest.items[&vec![1]].memories[0].clone(), latest.height),
            None => (PageMap::default(), 0),
        };
        for record in log.read_from(height + 1)? {
            let (next, record) = record?;
            if next != height + 1 {
                return Err(PersistenceError::damaged(
                    directory,
                    0,
                    "a gap between checkpoint and log",
                ));
            }
            execute(&mut memory, &record);
            height = next;
        }
        Ok(Self {
            log,
            store,
            memory,
            height,
        })
    }

    fn batch(&mut self, rng: &mut ChaCha8Rng) -> Result<()> {
        let count = rng.random_range(1..=PLACES_MAX);
        self.write(&(0..count).map(|_| rng.random_range(0..40)).collect::<Vec<u8>>())
    }

    /// A batch with this record.
    fn write(&mut self, record: &[u8]) -> Result<()> {
        self.log.append(self.height + 1, record)?;
        self.log.sync()?;
        execute(&mut self.memory, record);
        self.height += 1;
        Ok(())
    }

    /// As the checkpoint thread and the commit thread do it.
    fn checkpoint(&mut self) -> Result<()> {
        let item = CheckpointItem {
            metadata: self.height.to_le_bytes().to_vec().into(),
            blobs: Vec::new(),
            memories: vec![self.memory.clone()],
        };
        let written = self.store.write(CheckpointRequest {
            height: self.height,
            state_hash: self.memory.digest(),
            system: Vec::new().into(),
            items: CheckpointItems::All(BTreeMap::from([(vec![1], item)])),
        })?;
        for memory in &written.memories {
            self.memory = self.memory.rebase(&memory.snapshot, &memory.stored);
        }
        match self.store.stats().previous_height {
            Some(previous) => self.log.truncate_before(previous + 1),
            None => Ok(()),
        }
    }
}

/// A run, and after each acknowledged batch how many operations the disk had seen and what the state was.
struct History {
    cipher: Option<Cipher>,
    disk: SimDisk,
    source: tempfile::TempDir,
    acknowledged: Vec<(usize, u64)>,
    checkpoints: Vec<Written>,
    digests: BTreeMap<u64, [u8; 32]>,
}

/// A checkpoint of a run, and how many operations the disk had seen before and after it.
struct Written {
    height: u64,
    begin: usize,
    end: usize,
}

fn run(seed: u64, batches: u64, cipher: Option<Cipher>) -> History {
    run_with(seed, batches, cipher, |_| false)
}

/// Some of the batches, counted from 0, are large.
fn run_with(seed: u64, batches: u64, cipher: Option<Cipher>, is_large: impl Fn(u64) -> bool) -> History {
    let (disk, source) = (SimDisk::default(), tempfile::tempdir().expect("a directory"));
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut machine = Machine::open(&disk, source.path(), cipher.as_ref()).expect("an empty directory");
    let mut history = History {
        acknowledged: vec![(0, 0)],
        checkpoints: Vec::new(),
        digests: BTreeMap::from([(0, machine.memory.digest())]),
        cipher,
        disk: disk.clone(),
        source,
    };
    for number in 0..batches {
        match is_large(number) {
            false => machine.batch(&mut rng).expect("logged"),
            true => machine.write(&vec![number as u8; LARGE_BYTES]).expect("logged"),
        }
        history.acknowledged.push((disk.operation_count(), machine.height));
        history.digests.insert(machine.height, machine.memory.digest());
        if rng.random_bool(0.2) {
            let begin = disk.operation_count();
            machine.checkpoint().expect("written");
            let (height, end) = (machine.height, disk.operation_count());
            history.checkpoints.push(Written { height, begin, end });
        }
        if rng.random_bool(0.03) {
            drop(machine);
            machine = history.open(&disk, history.source.path()).expect("reopened");
        }
    }
    history
}

impl History {
    fn open(&self, disk: &SimDisk, directory: &Path) -> Result<Machine> {
        Machine::open(disk, directory, self.cipher.as_ref())
    }
}

#[test]
fn a_crash_at_any_operation_recovers_every_acknowledged_batch() {
    check_crashes(0..3, None);
}

#[test]
fn a_crash_at_any_operation_recovers_every_acknowledged_batch_of_an_encrypted_directory() {
    check_crashes(3..4, Some(Cipher::new([6; 32])));
}

fn check_crashes(seeds: std::ops::Range<u64>, cipher: Option<Cipher>) {
    let (mut points, points_min) = (0, 350 * (seeds.end - seeds.start));
    for seed in seeds {
        let history = run(seed, 90, cipher.clone());
        let mut rng = ChaCha8Rng::seed_from_u64(100 + seed);
        for point in 0..=history.disk.operation_count() {
            let target = tempfile::tempdir().expect("a directory");
            let choose = &mut |bound| rng.random_range(0..bound);
            history
                .disk
                .crash_at(point, history.source.path(), target.path(), choose)
                .expect("laid out");
            let mut machine = history
                .open(&SimDisk::default(), target.path())
                .unwrap_or_else(|error| panic!("seed {seed}, crash after {point}: {error}"));
            let by_then = history.acknowledged.iter().rfind(|(at, _)| *at <= point);
            let acknowledged = by_then.map_or(0, |(_, height)| *height);
            assert!(
                machine.height == acknowledged || machine.height == acknowledged + 1,
                "seed {seed}, crash after {point}: {} instead of {acknowledged}",
                machine.height
            );
            assert_eq!(
                machine.memory.digest(),
                history.digests[&machine.height],
                "seed {seed}, {point}"
            );
            if point % 8 == 0 {
                machine
                    .batch(&mut rng)
                    .and_then(|()| machine.checkpoint())
                    .expect("goes on");
            }
            points += 1;
        }
    }
    assert!(points > points_min, "{points} crash points");
}

#[test]
fn a_lost_or_misdirected_write_is_reported_or_changes_nothing() {
    check_lost(None);
}

#[test]
fn a_lost_or_misdirected_write_to_an_encrypted_directory_is_reported_or_changes_nothing() {
    check_lost(Some(Cipher::new([6; 32])));
}

fn check_lost(cipher: Option<Cipher>) {
    let history = run(7, 40, cipher);
    let operations = history.disk.operations();
    let (mut reported, mut unaffected) = (0, 0);
    for (number, operation) in operations.iter().enumerate() {
        let Operation::Write(_, offset, bytes) = operation else {
            continue;
        };
        // Elsewhere in the same file: a few blocks up or down.
        for elsewhere in [None, Some(offset + 8192), offset.checked_sub(4096)] {
            let target = tempfile::tempdir().expect("a directory");
            history
                .disk
                .lay_out_misdirected(number, elsewhere, history.source.path(), target.path())
                .expect("laid out");
            let recovered = history.open(&SimDisk::default(), target.path()).and_then(|machine| {
                machine.store.verify()?;
                Ok((machine.height, machine.memory.digest()))
            });
            match recovered {
                Err(PersistenceError::Damaged { .. }) => reported += 1,
                Err(other) => panic!("write {number} of {} bytes at {offset}: {other}", bytes.len()),
                // A last group that never arrived can't be told from one that was never written.
                Ok((height, digest)) => {
                    assert_eq!(digest, history.digests[&height], "write {number} to {elsewhere:?}");
                    let is_tail = operations[number + 1..]
                        .iter()
                        .all(|later| !matches!(later, Operation::Write(path, ..) if path.ends_with("superblocks") || path.to_string_lossy().ends_with(".segment")));
                    assert!(
                        height == 40 || is_tail || height == 39,
                        "write {number}: height {height}"
                    );
                    unaffected += 1;
                }
            }
        }
    }
    assert!(
        reported > 20 && unaffected > 20,
        "{reported} reported, {unaffected} unaffected"
    );
}

#[test]
fn a_disk_that_fails_while_it_is_read_is_an_error_and_nothing_else() {
    let history = run(9, 30, None);
    let mut failures = 0;
    for reads in 0.. {
        let disk = SimDisk::default();
        disk.fail_reads_after(Some(reads));
        match history.open(&disk, history.source.path()) {
            Err(PersistenceError::Io { .. }) => failures += 1,
            Err(other) => panic!("after {reads} reads: {other}"),
            Ok(machine) => {
                assert_eq!(machine.height, 30);
                break;
            }
        }
    }
    assert!(failures > 20, "{failures}");
}
