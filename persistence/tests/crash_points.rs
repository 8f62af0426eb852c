//! The same points as in the simulation, with a real process on real files: it ends at one of them, at once and without
//! tidying up, and the next process finds everything that was acknowledged.
//!
//! The process is this test program, started again for the one test that is otherwise ignored.

use replicore_persistence::disk::{CrashPoint, Disk, DiskFile};
use replicore_persistence::{
    BatchLog, BatchLogOptions, CheckpointItem, CheckpointItems, CheckpointOptions, CheckpointRequest, CheckpointStore,
    FileDisk, PageDelta, PageIndex, PageMap, PersistenceError,
};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const DIRECTORY: &str = "CRASH_POINTS_DIRECTORY";
const POINT: &str = "CRASH_POINTS_POINT";
const VISIT: &str = "CRASH_POINTS_VISIT";
/// Batches that a process makes durable if nothing ends it.
const BATCHES: u64 = 150;
const PAGE_BYTES: usize = 4096;

/// Real files, and the end of the process when a point is reached for this time.
#[derive(Debug)]
struct EndingDisk {
    point: CrashPoint,
    visits_left: AtomicU64,
}

impl Disk for EndingDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        FileDisk.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        FileDisk.create(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        FileDisk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        FileDisk.rename(from, to)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        FileDisk.list(directory)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        FileDisk.sync_directory(directory)
    }

    fn reached(&self, point: CrashPoint) {
        if point == self.point && self.visits_left.fetch_sub(1, Ordering::Relaxed) == 1 {
            std::process::abort();
        }
    }
}

/// A log, a store and one memory, as a replica holds them.
struct Machine {
    log: BatchLog,
    store: CheckpointStore,
    memory: PageMap,
    height: u64,
}

/// The batch of a height; some are large enough to be written ahead.
fn record(height: u64) -> Vec<u8> {
    vec![height as u8; if height % 16 == 5 { 3 << 19 } else { 100 }]
}

/// What the batch of a height does to the memory.
fn execute(memory: &mut PageMap, height: u64) {
    let mut delta = PageDelta::default();
    delta.insert(PageIndex(height % 7), &[height as u8; PAGE_BYTES]);
    memory.apply(delta);
}

impl Machine {
    fn open(disk: Arc<dyn Disk>, directory: &Path) -> Result<Self, PersistenceError> {
        let [log, checkpoints] = ["log", "checkpoints"].map(|part| directory.join(part));
        for part in [&log, &checkpoints] {
            std::fs::create_dir_all(part).unwrap();
        }
        let small = CheckpointOptions {
            allocation_bytes: 16 << 10,
            slack_bytes: 16 << 10,
        };
        let segments = BatchLogOptions {
            segment_bytes: 24 << 10,
            salt: 5,
            prepare_ahead: false,
        };
        let (store, opened) = CheckpointStore::open(Arc::clone(&disk), &checkpoints, small)?;
        let (log, _) = BatchLog::open(disk, &log, segments)?;
        let (mut memory, mut height) = match &opened.latest {
            Some(latest) => (latest.items[&vec![1]].memories[0].clone(), latest.height),
            None => (PageMap::default(), 0),
        };
        for logged in log.read_from(height + 1)? {
            let (next, bytes) = logged?;
            assert!(
                next == height + 1 && bytes == record(next),
                "height {next} after {height}"
            );
            execute(&mut memory, next);
            height = next;
        }
        Ok(Self {
            log,
            store,
            memory,
            height,
        })
    }

    fn batch(&mut self) -> Result<(), PersistenceError> {
        self.height += 1;
        self.log.append(self.height, &record(self.height))?;
        self.log.sync()?;
        execute(&mut self.memory, self.height);
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), PersistenceError> {
        let item = CheckpointItem {
            metadata: self.height.to_le_bytes().to_vec().into(),
            blobs: Vec::new(),
            memories: vec![self.memory.clone()],
        };
        self.store.write(CheckpointRequest {
            height: self.height,
            state_hash: self.memory.digest(),
            system: Vec::new().into(),
            items: CheckpointItems::All(BTreeMap::from([(vec![1], item)])),
        })?;
        match self.store.stats().previous_height {
            Some(previous) => self.log.truncate_before(previous + 1),
            None => Ok(()),
        }
    }
}

#[test]
#[ignore = "the process that ends; the other test starts it"]
fn a_process_that_ends_at_a_point() {
    let argument = |name| std::env::var(name).unwrap();
    let point = CrashPoint::ALL
        .into_iter()
        .find(|point| point.name() == argument(POINT));
    let disk = EndingDisk {
        point: point.unwrap(),
        visits_left: AtomicU64::new(argument(VISIT).parse().unwrap()),
    };
    let mut machine = Machine::open(Arc::new(disk), &PathBuf::from(argument(DIRECTORY))).unwrap();
    while machine.height < BATCHES {
        machine.batch().unwrap();
        println!("acknowledged {}", machine.height);
        if machine.height.is_multiple_of(4) {
            machine.checkpoint().unwrap();
            println!("checkpoint {}", machine.height);
        }
    }
}

#[test]
fn a_process_that_ends_at_any_named_point_loses_nothing_acknowledged() {
    for point in CrashPoint::ALL {
        for visit in [1, 3] {
            end_and_recover(point, visit);
        }
    }
}

fn end_and_recover(point: CrashPoint, visit: u64) {
    let directory = tempfile::tempdir().unwrap();
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["a_process_that_ends_at_a_point", "--exact", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .env(POINT, point.name())
        .env(VISIT, visit.to_string())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let name = point.name();
    assert!(!ended.status.success(), "{name} was not reached {visit} times");
    let said = String::from_utf8(ended.stdout).unwrap();
    let last = |what: &str| {
        let number = |line: &str| line.split_once(what)?.1.trim().parse().ok();
        said.lines().filter_map(number).next_back().unwrap_or(0u64)
    };
    let (acknowledged, checkpoint) = (last("acknowledged "), last("checkpoint "));

    let mut machine = Machine::open(Arc::new(FileDisk), directory.path()).unwrap();
    // What the process wrote, the kernel has: a group that it did not live to sync is there, too.
    let is_logged = matches!(point, CrashPoint::GroupWritten | CrashPoint::GroupSynced);
    assert_eq!(machine.height, acknowledged + u64::from(is_logged), "{name}");
    let is_switched = matches!(
        point,
        CrashPoint::SuperblockWritten
            | CrashPoint::AfterSwitch
            | CrashPoint::GenerationRemoved
            | CrashPoint::SegmentRetired
    );
    let opened = machine.store.stats().height.unwrap_or(0);
    assert_eq!(opened, if is_switched { machine.height } else { checkpoint }, "{name}");
    let mut model = PageMap::default();
    (1..=machine.height).for_each(|height| execute(&mut model, height));
    assert_eq!(machine.memory.digest(), model.digest(), "{name}");
    machine.store.verify().unwrap();
    machine.batch().and_then(|()| machine.checkpoint()).unwrap();
}
