//! Pages, checkpoints and the batch log on the disk of the temporary directory. Raw writes of the same bytes to a file
//! beside them, in the same run, say what the disk gives.

pub(crate) mod counted;
mod stall;

pub use stall::checkpoint_stall;

use crate::BenchError;
use crate::measure::{Effort, Figure, seconds};
use replicore_persistence::{
    BatchLog, BatchLogOptions, CheckpointItem, CheckpointItems, CheckpointOptions, CheckpointRequest, CheckpointStore,
    Cipher, FileDisk, OpenedCheckpoints, PageDelta, PageIndex, PageMap, PersistenceError, WrittenCheckpoint,
};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

const PAGE_BYTES: usize = 4096;

/// Numbers that are the same in every run.
struct Sequence(u64);

impl Sequence {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 20) % bound
    }

    fn page(&mut self) -> [u8; PAGE_BYTES] {
        let mut page = [0; PAGE_BYTES];
        for word in page.chunks_exact_mut(8) {
            word.copy_from_slice(&self.below(u64::MAX).to_le_bytes());
        }
        page
    }
}

/// A page as a canister's memory has it: aligned.
#[derive(Clone, Copy)]
#[repr(align(4096))]
struct AlignedPage([u8; PAGE_BYTES]);

/// A memory with random pages, and random writes to it.
pub(crate) struct Memory {
    pub map: PageMap,
    pages: u64,
    sequence: Sequence,
    page: AlignedPage,
}

impl Memory {
    fn new(pages: u64) -> Self {
        let mut sequence = Sequence(7);
        let mut memory = Self {
            map: PageMap::default(),
            pages,
            page: AlignedPage(sequence.page()),
            sequence,
        };
        (0..pages).for_each(|index| memory.write_one(index));
        memory
    }

    /// Chunks keep the list of writes small while a large memory is filled.
    fn write_one(&mut self, index: u64) {
        let mut delta = PageDelta::default();
        delta.insert(PageIndex(index), &self.next_page().0);
        self.map.apply(delta);
    }

    /// A page that no other has: cheap to make, because making it is not what is measured.
    fn next_page(&mut self) -> &AlignedPage {
        let at = self.sequence.below(PAGE_BYTES as u64 / 8) as usize * 8;
        let word = self.sequence.below(u64::MAX);
        self.page.0[at..at + 8].copy_from_slice(&word.to_le_bytes());
        &self.page
    }

    /// `count` pages anywhere, ascending as the scan of a memory finds them.
    pub fn places(&mut self, count: u64) -> Vec<u64> {
        let mut places: Vec<u64> = (0..count).map(|_| self.sequence.below(self.pages)).collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Writes `places` as a round does. The seconds it took, without making the pages.
    pub fn commit(&mut self, places: &[u64]) -> f64 {
        let mut pages = Vec::with_capacity(places.len());
        for _ in places {
            pages.push(*self.next_page());
        }
        self.write(places, &pages)
    }

    /// Seconds to write these pages there.
    fn write(&mut self, places: &[u64], pages: &[AlignedPage]) -> f64 {
        seconds(|| {
            let mut delta = PageDelta::default();
            let pages = places.iter().zip(pages);
            delta.extend(pages.map(|(place, page)| (PageIndex(*place), &page.0)));
            self.map.apply(delta);
        })
        .0
    }
}

/// `persistence.page_commit_us`: one of 256 random pages that a round changed, copied into the next version of a memory
/// of 256 MiB while the last version is still read; 64 rounds a sample, then a checkpoint, as a replica works. Beside it
/// two floors, with the same pages in the same rounds: `plain_copy_us` copies them to where nothing was lately, as free
/// frames are, and `bare_versions_us` puts a reference to each of these copies into a tree of versions that does nothing
/// but share.
pub fn page_commit(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut stored = Stored::new(effort.scale(65_536))?;
    let rounds = effort.scale(64) as usize;
    let mut targets = vec![AlignedPage([1; PAGE_BYTES]); rounds * 256];
    let (mut copies, mut bare) = (Vec::new(), Vec::new());
    let samples = effort.samples(|| {
        let (mut elapsed, mut copied, mut shared, mut count) = (0.0, 0.0, 0.0, 0);
        let mut versions = Versions::all();
        for round in 0..rounds {
            let published = (stored.memory.map.clone(), Arc::clone(&versions));
            let places = stored.memory.places(256);
            let pages: Vec<AlignedPage> = places.iter().map(|_| *stored.memory.next_page()).collect();
            elapsed += stored.memory.write(&places, &pages);
            let targets = &mut targets[round * 256..][..pages.len()];
            copied += seconds(|| targets.copy_from_slice(black_box(&pages))).0;
            shared += seconds(|| Versions::write(&mut versions, Versions::LEVELS, &places)).0;
            count += places.len();
            drop(published);
        }
        stored.checkpoint()?;
        let per_page = 1e6 / count as f64;
        copies.push(copied * per_page);
        bare.push((copied + shared) * per_page);
        Ok(elapsed * per_page)
    })?;
    let root = hex::encode(stored.memory.map.digest());
    let figure = Figure::of("persistence.page_commit_us", "us", samples, root);
    Ok(vec![
        figure
            .against("plain_copy_us", copies)
            .against("bare_versions_us", bare),
    ])
}

/// The least that versions that share can be: a tree of references, copied along the way to what changes. It counts
/// nothing, hashes nothing, and knows nothing of files.
#[derive(Clone)]
enum Versions {
    Node([Option<Arc<Versions>>; 16]),
    Leaf([Option<Arc<u64>>; 16]),
}

impl Versions {
    /// Levels above the leaves: 65,536 pages.
    const LEVELS: u32 = 3;

    /// With every leaf and no page, as a memory of which a checkpoint has everything.
    fn all() -> Arc<Self> {
        let leaf = || Arc::new(Self::Leaf(Default::default()));
        let of =
            |children: &mut dyn FnMut() -> Arc<Self>| Arc::new(Self::Node(std::array::from_fn(|_| Some(children()))));
        of(&mut || of(&mut || of(&mut || leaf())))
    }

    /// Puts something new to ascending places below `node`, which is on `level`.
    fn write(node: &mut Arc<Self>, level: u32, places: &[u64]) {
        let slot = |place: u64| (place >> (4 * level)) as usize & 15;
        match Arc::make_mut(node) {
            Self::Leaf(pages) => {
                for place in places {
                    pages[slot(*place)] = Some(Arc::new(*place));
                }
            }
            Self::Node(children) => {
                for run in places.chunk_by(|one, next| slot(*one) == slot(*next)) {
                    if let Some(child) = &mut children[slot(run[0])] {
                        Self::write(child, level - 1, run);
                    }
                }
            }
        }
    }
}

/// A store with one memory in it.
pub(crate) struct Stored {
    store: CheckpointStore,
    pub memory: Memory,
    height: u64,
    cipher: Option<Cipher>,
    directory: TempDir,
}

impl Stored {
    fn new(pages: u64) -> Result<Self, BenchError> {
        Self::with(pages, None)
    }

    /// Encrypted where there is a cipher.
    pub fn with(pages: u64, cipher: Option<Cipher>) -> Result<Self, BenchError> {
        let directory = tempfile::tempdir().map_err(BenchError::new)?;
        let mut stored = Self {
            store: open_store(directory.path(), cipher.as_ref())?.0,
            cipher,
            memory: Memory::new(pages),
            height: 0,
            directory,
        };
        stored.checkpoint()?;
        Ok(stored)
    }

    /// Opens the store again and takes the memory from its files.
    pub fn reopen(&mut self) -> Result<(), BenchError> {
        let (store, opened) = open_store(self.directory.path(), self.cipher.as_ref())?;
        let latest = opened.latest.ok_or_else(|| BenchError::new("there is no checkpoint"))?;
        self.memory.map = latest.items[&vec![1]].memories[0].clone();
        self.store = store;
        Ok(())
    }

    pub fn checkpoint(&mut self) -> Result<f64, BenchError> {
        let request = self.request();
        let (elapsed, written) = seconds(|| self.store.write(request));
        self.rebase(&written.map_err(BenchError::new)?);
        Ok(elapsed)
    }

    fn request(&mut self) -> CheckpointRequest {
        self.height += 1;
        let item = CheckpointItem {
            metadata: self.height.to_le_bytes().to_vec().into(),
            blobs: Vec::new(),
            memories: vec![self.memory.map.clone()],
        };
        CheckpointRequest {
            height: self.height,
            state_hash: [0; 32],
            system: Vec::new().into(),
            items: CheckpointItems::All(BTreeMap::from([(vec![1], item)])),
        }
    }

    fn rebase(&mut self, written: &WrittenCheckpoint) {
        for memory in &written.memories {
            self.memory.map = self.memory.map.rebase(&memory.snapshot, &memory.stored);
        }
    }
}

fn open_store(directory: &Path, cipher: Option<&Cipher>) -> Result<(CheckpointStore, OpenedCheckpoints), BenchError> {
    let options = CheckpointOptions::default();
    CheckpointStore::open_with(Arc::new(FileDisk), directory, options, cipher).map_err(BenchError::new)
}

/// `persistence.checkpoint_page_us` and `persistence.checkpoint_256_ms`: from 4,096 (256) dirty pages of a memory of
/// 256 MiB to a checkpoint that is hashed and durable; for the first, per page. Beside it the same pages written raw,
/// one after another, and synced.
pub fn checkpoint(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut stored = Stored::new(effort.scale(65_536))?;
    let raw = RawFile::create(stored.directory.path(), effort.scale(64 << 20))?;
    let mut figures = Vec::new();
    for (id, unit, pages, per) in [
        (
            "persistence.checkpoint_page_us",
            "us",
            effort.scale(4_096),
            1e6 / effort.scale(4_096) as f64,
        ),
        ("persistence.checkpoint_256_ms", "ms", 256, 1e3),
    ] {
        let bytes = vec![5; pages as usize * PAGE_BYTES];
        let mut raw_samples = Vec::new();
        let samples = effort.samples(|| {
            let places = stored.memory.places(pages);
            stored.memory.commit(&places);
            raw_samples.push(raw.write(&bytes)? * per);
            Ok(stored.checkpoint()? * per)
        })?;
        let root = hex::encode(stored.memory.map.digest());
        figures.push(Figure::of(id, unit, samples, root).against("raw_write", raw_samples));
    }
    Ok(figures)
}

fn open_log(directory: &Path) -> Result<BatchLog, BenchError> {
    std::fs::create_dir_all(directory).map_err(BenchError::new)?;
    // As the replica has it.
    let options = BatchLogOptions {
        prepare_ahead: true,
        ..BatchLogOptions::default()
    };
    let (log, _) = BatchLog::open(Arc::new(FileDisk), directory, options).map_err(BenchError::new)?;
    Ok(log)
}

/// `persistence.group_commit_ratio`: batches made durable one group at a time, of 4, 16 and 64 KiB in turn, against
/// write and fdatasync of the same bytes to a file whose blocks are all written already; the rate of the one over that
/// of the other.
pub fn group_commit(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let directory = tempfile::tempdir().map_err(BenchError::new)?;
    let mut log = open_log(&directory.path().join("log"))?;
    let raw = RawFile::create(directory.path(), 64 << 20)?;
    let (mut height, groups) = (0, effort.scale(300));
    let (mut all, mut all_raw) = (Vec::new(), Vec::new());
    let samples = effort.samples(|| {
        let (mut ours, mut theirs) = (0.0, 0.0);
        for number in 0..groups {
            let bytes = vec![number as u8; (4096 << (2 * (number % 3))) as usize - 128];
            height += 1;
            let (elapsed, synced) = seconds(|| log.append(height, &bytes).and_then(|()| log.sync()));
            synced.map_err(BenchError::new)?;
            ours += elapsed;
            all.push(elapsed * 1e6);
            let bytes = vec![number as u8; bytes.len() + 128];
            let elapsed = raw.write(&bytes)?;
            theirs += elapsed;
            all_raw.push(elapsed * 1e6);
        }
        Ok(theirs / ours)
    })?;
    let mut figure = Figure::of("persistence.group_commit_ratio", "x", samples, String::new())
        .against("p99_us", vec![quantile(&mut all, 0.99)])
        .against("raw_p99_us", vec![quantile(&mut all_raw, 0.99)]);
    figure = figure.against("p50_us", all).against("raw_p50_us", all_raw);
    Ok(vec![figure])
}

/// `persistence.log_append_ratio`: bytes a second through the log in groups of 8 MiB, each synced, against a plain
/// sequential write of the same bytes in pieces of 1 MiB with one sync at the end, to a file of written blocks. The log
/// is truncated after each sample, as checkpoints do it, and its files are used again; `new_files_ratio` is
/// the same before there are any to use again.
pub fn log_append(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let directory = tempfile::tempdir().map_err(BenchError::new)?;
    let bytes = effort.scale(256 << 20).max(8 << 20);
    let (raw, piece) = (RawFile::create(directory.path(), bytes)?, vec![9; 1 << 20]);
    let (mut rates, mut raw_rates, mut new_files) = (Vec::new(), Vec::new(), Vec::new());
    for name in ["first", "second"] {
        let mut appends = LogAppends::new(&directory.path().join(name))?;
        let theirs = raw.write_sequentially(&piece, bytes >> 20)?;
        new_files.push(theirs / appends.append(bytes)?);
    }
    let mut appends = LogAppends::new(&directory.path().join("log"))?;
    let theirs = raw.write_sequentially(&piece, bytes >> 20)?;
    new_files.push(theirs / appends.append(bytes)?);
    appends.truncate()?;
    let samples = effort.samples(|| {
        let ours = appends.append(bytes)?;
        let theirs = raw.write_sequentially(&piece, bytes >> 20)?;
        appends.truncate()?;
        rates.push(bytes as f64 / 1e6 / ours);
        raw_rates.push(bytes as f64 / 1e6 / theirs);
        Ok(theirs / ours)
    })?;
    let figure = Figure::of("persistence.log_append_ratio", "x", samples, String::new());
    Ok(vec![
        figure
            .against("new_files_ratio", new_files)
            .against("megabytes_per_second", rates)
            .against("raw_megabytes_per_second", raw_rates),
    ])
}

struct LogAppends {
    log: BatchLog,
    batch: Vec<u8>,
    height: u64,
}

impl LogAppends {
    fn new(directory: &Path) -> Result<Self, BenchError> {
        Ok(Self {
            log: open_log(directory)?,
            batch: vec![9; (1 << 20) - 128],
            height: 0,
        })
    }

    /// Seconds for so many bytes in groups of 8 MiB.
    fn append(&mut self, bytes: u64) -> Result<f64, BenchError> {
        let (elapsed, appended) = seconds(|| {
            for _ in 0..bytes >> 23 {
                for _ in 0..8 {
                    self.height += 1;
                    self.log.append(self.height, &self.batch)?;
                }
                self.log.sync()?;
            }
            Ok(())
        });
        appended.map_err(|error: PersistenceError| BenchError::new(error))?;
        Ok(elapsed)
    }

    fn truncate(&mut self) -> Result<(), BenchError> {
        self.log.truncate_before(self.height).map_err(BenchError::new)
    }
}

/// A file whose blocks are all written and that is overwritten.
struct RawFile {
    file: File,
    len: u64,
    next: std::cell::Cell<u64>,
}

impl RawFile {
    fn create(directory: &Path, len: u64) -> Result<Self, BenchError> {
        let len = len.max(1 << 20);
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .truncate(true)
            .write(true)
            .open(directory.join("raw"));
        let file = file.map_err(BenchError::new)?;
        let zeros = vec![0; 1 << 20];
        for offset in (0..len).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset).map_err(BenchError::new)?;
        }
        file.sync_all().map_err(BenchError::new)?;
        Ok(Self {
            file,
            len,
            next: std::cell::Cell::new(0),
        })
    }

    /// Writes behind the last piece and syncs: seconds.
    fn write(&self, bytes: &[u8]) -> Result<f64, BenchError> {
        let offset = match self.next.get() {
            offset if offset + bytes.len() as u64 > self.len => 0,
            offset => offset,
        };
        self.next.set(offset + bytes.len() as u64);
        let (elapsed, written) = seconds(|| {
            self.file
                .write_all_at(bytes, offset)
                .and_then(|()| self.file.sync_data())
        });
        written.map_err(BenchError::new)?;
        Ok(elapsed)
    }

    fn write_sequentially(&self, piece: &[u8], count: u64) -> Result<f64, BenchError> {
        let (elapsed, written) = seconds(|| {
            for number in 0..count {
                self.file.write_all_at(piece, number * piece.len() as u64)?;
            }
            self.file.sync_data()
        });
        written.map_err(BenchError::new)?;
        Ok(elapsed)
    }
}

fn quantile(samples: &mut [f64], quantile: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[((samples.len() - 1) as f64 * quantile) as usize]
}
