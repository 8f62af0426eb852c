//! Checkpoints: durable versions of the replicated state, each written as its difference from the last.
//!
//! ```text
//! checkpoints/superblocks   two commit records, written in turn; the newer intact one names the checkpoint
//!             pages-N       pages, in the order they were written
//!             records-N     everything else, children before parents:
//!                           root -> buckets -> items -> metadata, blobs, and per memory a tree of nodes -> pages
//! ```
//!
//! In an encrypted store pages and records are sealed one by one, and read by decrypting what is touched.
//!
//! A checkpoint appends what is new, makes both files durable, and then writes a superblock over the one before last.
//! A crash before that leaves the last checkpoint, whose bytes nothing touched. When less than half of the files is
//! still in use, a checkpoint is written whole into files N + 1, and files N go once no superblock names them.

mod blob;
mod format;
mod layout;
mod load;
mod open;
pub(crate) mod stored;
#[cfg(test)]
mod tests;
pub(crate) mod unread;
mod verify;
mod write;

pub use blob::Blob;
pub(crate) use format::Reader;
pub use verify::VerifyReport;

use crate::disk::{CrashPoint, DiskFile};
use crate::error::{PersistenceError, Result};
use crate::page_map::{Digest, PageMap, rebase::ALL_PAGES};
use format::{BUCKET_COUNT, ItemRecord, Kind, MemoryReference, RecordHeader, Reference, RootRecord, SLOT_BYTES};
use format::{Superblock, bucket_of};
use layout::{GenerationFiles, Layout};
use parking_lot::Mutex;
use replicore_types::{OS_PAGE_BYTES, PrincipalId};
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::sync::Arc;
use stored::{NODE_ENTRY_BYTES, RECORD_HEADER_BYTES};
use write::{Appender, BlobUse, PAST_CACHE_PAGES_MIN, Writer, read_back};

/// How a store is laid out.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointOptions {
    /// Files grow in steps of this.
    pub allocation_bytes: u64,
    /// Unused bytes that are always tolerated, so that a small state is not rewritten all the time.
    pub slack_bytes: u64,
}

impl Default for CheckpointOptions {
    fn default() -> Self {
        Self {
            allocation_bytes: 64 << 20,
            slack_bytes: 256 << 20,
        }
    }
}

/// One thing that a state consists of, for example a canister.
#[derive(Clone, Debug)]
pub struct CheckpointItem {
    /// What changes often: written anew whenever it differs.
    pub metadata: Blob,
    /// Large pieces that change seldom or that items share, for example modules.
    pub blobs: Vec<Blob>,
    /// Memories, told apart by position. Written page by page.
    pub memories: Vec<PageMap>,
}

/// The items of a checkpoint to write.
#[derive(Clone, Debug)]
pub enum CheckpointItems {
    /// All of them. Costs time for all, and writes for those that changed.
    All(BTreeMap<Vec<u8>, CheckpointItem>),
    /// What changed since the last checkpoint: costs follow the change.
    Since {
        /// The height of that checkpoint.
        height: u64,
        /// New or changed items; `None` removes one.
        changed: BTreeMap<Vec<u8>, Option<CheckpointItem>>,
    },
}

/// A state to write.
#[derive(Clone, Debug)]
pub struct CheckpointRequest {
    /// Its height; above that of the last checkpoint.
    pub height: u64,
    /// What the state hashes to, for the reader to compare.
    pub state_hash: Digest,
    /// What belongs to no item.
    pub system: Blob,
    /// The items, by key.
    pub items: CheckpointItems,
}

/// A state as a checkpoint has it. Pages and blobs are read from the files when they are touched.
#[derive(Clone, Debug)]
pub struct LoadedCheckpoint {
    /// As written.
    pub height: u64,
    /// As written.
    pub state_hash: Digest,
    /// As written.
    pub system: Blob,
    /// As written.
    pub items: BTreeMap<Vec<u8>, CheckpointItem>,
}

/// A memory that a checkpoint holds by now, or a part of it: what it was given and the same content in its files, to pass
/// to [`PageMap::rebase`], or to be divided first.
#[derive(Clone, Debug)]
pub struct StoredMemory {
    /// The item.
    pub key: Vec<u8>,
    /// Which of its memories.
    pub position: usize,
    /// The version that the checkpoint was given, or, after a compaction, the one that lies in the old files.
    pub snapshot: PageMap,
    /// The same content in the checkpoint's files.
    pub stored: PageMap,
    /// Pages of the part that the snapshot has in memory: what [`StoredMemory::rebase`] has to do.
    pub frames: u64,
    pages: RangeInclusive<u64>,
}

impl StoredMemory {
    /// Parts with little more than `frames_max` pages in memory each: what a round does at a time is bounded by
    /// that.
    pub fn divide(self, frames_max: u64) -> Vec<StoredMemory> {
        let ranges = self.snapshot.ranges_in_memory(frames_max).into_iter();
        let parts = ranges.map(|(pages, frames)| Self {
            frames,
            pages,
            ..self.clone()
        });
        parts.collect()
    }

    /// `memory`, which is the snapshot or a later version of it, with the pages of this part resting on the files.
    pub fn rebase(&self, memory: &PageMap) -> PageMap {
        memory.rebase_within(&self.snapshot, &self.stored, &self.pages)
    }
}

/// A checkpoint that is durable.
#[derive(Clone, Debug)]
pub struct WrittenCheckpoint {
    /// Its height.
    pub height: u64,
    /// The memories that were written. Rebasing live versions on them frees their frames, and after a compaction
    /// lets go of the old files.
    pub memories: Vec<StoredMemory>,
    /// Pages written.
    pub pages_written: u64,
    /// Bytes appended to both files.
    pub bytes_written: u64,
    /// True where everything was written anew, to leave unused bytes behind.
    pub compacted: bool,
}

/// Sizes of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointStats {
    /// Height of the last checkpoint; `None` before the first.
    pub height: Option<u64>,
    /// Height of the one before, where it can still be opened.
    pub previous_height: Option<u64>,
    /// Bytes that the last checkpoint uses. What memories of different items share counts for each.
    pub live_bytes: u64,
    /// Bytes appended to the files so far. Divided by the former it is the space amplification.
    pub total_bytes: u64,
}

/// What opening a store found.
#[derive(Debug)]
pub struct OpenedCheckpoints {
    /// The newest complete checkpoint; `None` where none was ever written.
    pub latest: Option<LoadedCheckpoint>,
    /// Damage that made a newer checkpoint unusable. Not empty only when `latest` is an older one.
    pub skipped: Vec<PersistenceError>,
}

/// The items of a checkpoint, by bucket and key.
type Buckets = Vec<BTreeMap<Vec<u8>, CheckpointItem>>;

/// New and changed items of a bucket as they are stored now; `None` is one that was removed.
type BucketChanges = BTreeMap<Vec<u8>, Option<CheckpointItem>>;

fn empty_buckets() -> Buckets {
    vec![BTreeMap::new(); BUCKET_COUNT]
}

/// The store in one directory. Writing takes `&self` and blocks only other writers: versions that readers hold are
/// values, and files are only appended to.
#[derive(Debug)]
pub struct CheckpointStore {
    layout: Layout,
    options: CheckpointOptions,
    writer: Mutex<State>,
    stats: Mutex<CheckpointStats>,
}

/// What the next checkpoint builds on.
#[derive(Debug)]
struct State {
    superblocks: Arc<dyn DiskFile>,
    /// The superblocks on disk, by slot.
    slots: [Option<Superblock>; 2],
    /// The last checkpoint; `None` before the first, and where the next is to be written whole into new files.
    last: Option<Last>,
    /// The items of the last checkpoint.
    buckets: Buckets,
    next_generation: u64,
    next_sequence: u64,
    last_height: Option<u64>,
    poison: Option<String>,
    /// A process before this one met damage while it served; see [`stored::Generation::give_up`].
    last_was_suspect: bool,
}

/// The files that the last checkpoint is in.
#[derive(Debug)]
struct Last {
    files: GenerationFiles,
    superblock: Superblock,
    bucket_offsets: Vec<Option<u64>>,
    blobs: BTreeMap<Digest, BlobUse>,
    /// What the items use, but for their blobs.
    item_bytes: u64,
}

impl Last {
    fn live_bytes(&self) -> u64 {
        let used = self.blobs.values().filter(|used| used.uses > 0);
        self.item_bytes
            + used
                .map(|used| (used.blob.bytes_len() + RECORD_HEADER_BYTES) as u64)
                .sum::<u64>()
    }

    fn total_bytes(&self) -> u64 {
        self.superblock.pages_end + self.superblock.records_end
    }
}

/// A checkpoint that is written but not yet committed.
struct Prepared {
    last: Last,
    /// What changed, by bucket.
    changes: BTreeMap<usize, BucketChanges>,
    written: WrittenCheckpoint,
    /// What of the pages the kernel doesn't have in its cache.
    past_cache: Range<u64>,
}

impl CheckpointStore {
    /// Writes a checkpoint and returns once it is durable. Meant for a background thread.
    ///
    /// # Errors
    /// A height that does not increase or a wrong base, with nothing changed; or what the disk says, after which the
    /// store refuses everything: the last checkpoint is untouched.
    pub fn write(&self, request: CheckpointRequest) -> Result<WrittenCheckpoint> {
        self.write_paced(request, &|_| {})
    }

    /// The same. Where it becomes a compaction, which writes everything anew, `pace` hears of every piece of so many bytes
    /// that was written, and may take its time.
    ///
    /// # Errors
    /// As [`CheckpointStore::write`].
    pub fn write_paced(&self, request: CheckpointRequest, pace: &dyn Fn(u64)) -> Result<WrittenCheckpoint> {
        let mut state = self.writer.lock();
        if let Some(earlier) = &state.poison {
            return Err(PersistenceError::Poisoned {
                file: self.layout.directory.clone(),
                earlier: earlier.clone(),
            });
        }
        let changes = self.changes(&state, &request)?;
        let result = self
            .prepare(&mut state, &request, changes, pace)
            .and_then(|prepared| self.commit(&mut state, prepared));
        if let Err(error) = &result {
            state.poison = Some(error.to_string());
        }
        result
    }

    /// Sizes and heights, without waiting for a checkpoint that is being written.
    pub fn stats(&self) -> CheckpointStats {
        *self.stats.lock()
    }

    /// Checks the request and brings it to one form: what changed since the last checkpoint.
    fn changes(&self, state: &State, request: &CheckpointRequest) -> Result<BTreeMap<Vec<u8>, Option<CheckpointItem>>> {
        if let Some(last) = state.last_height.filter(|last| *last >= request.height) {
            let what = format!("a checkpoint of height {} after one of height {last}", request.height);
            return Err(PersistenceError::refused(&self.layout.directory, what));
        }
        match &request.items {
            CheckpointItems::All(items) => {
                let removed = state
                    .buckets
                    .iter()
                    .flat_map(BTreeMap::keys)
                    .filter(|key| !items.contains_key(*key));
                let mut changes: BTreeMap<_, _> = removed.map(|key| (key.clone(), None)).collect();
                for (key, item) in items {
                    let before = state.buckets[bucket_of(key)].get(key);
                    if before.is_none_or(|before| !same_item(before, item)) {
                        changes.insert(key.clone(), Some(item.clone()));
                    }
                }
                Ok(changes)
            }
            CheckpointItems::Since { height, changed } if state.last_height == Some(*height) => Ok(changed.clone()),
            CheckpointItems::Since { height, .. } => {
                let what = format!(
                    "changes since height {height} over a checkpoint of {:?}",
                    state.last_height
                );
                Err(PersistenceError::refused(&self.layout.directory, what))
            }
        }
    }

    /// Writes everything but the superblock.
    fn prepare(
        &self,
        state: &mut State,
        request: &CheckpointRequest,
        mut changes: BTreeMap<Vec<u8>, Option<CheckpointItem>>,
        pace: &dyn Fn(u64),
    ) -> Result<Prepared> {
        let last = state.last.as_ref().filter(|last| !self.wants_compaction(last));
        let compacted = last.is_none() && state.last_height.is_some();
        let mut bucket_offsets = match last {
            Some(last) => last.bucket_offsets.clone(),
            None => {
                for (key, item) in state.buckets.iter().flatten() {
                    changes.entry(key.clone()).or_insert_with(|| Some(item.clone()));
                }
                vec![None; BUCKET_COUNT]
            }
        };
        let mut item_bytes = last.map_or(0, |last| last.item_bytes);
        let files = match last {
            Some(last) => last.files.clone(),
            None => {
                let number = state.next_generation;
                state.next_generation += 1;
                self.layout.create_generation(number)?
            }
        };
        let mut writer = self.writer_at(&files, last, if compacted { pace } else { &|_| {} })?;
        let (pages_before, bytes_before) = (writer.pages.end(), writer.pages.end() + writer.records.end());
        if pages_to_write(&changes, last.is_none()) >= PAST_CACHE_PAGES_MIN {
            writer.pages.write_past_cache();
        }
        let (mut memories, mut stored_changes) = (Vec::new(), BTreeMap::<usize, BucketChanges>::new());
        for (key, change) in changes {
            let number = bucket_of(&key);
            let previous = state.buckets[number].get(&key);
            if let Some(previous) = previous.filter(|_| last.is_some()) {
                item_bytes -= live_bytes_of(previous);
                writer.release_blobs(previous);
            }
            let stored = match &change {
                Some(item) => Some(writer.store_item(item, previous)?),
                None => None,
            };
            if let (Some(item), Some(stored)) = (&change, &stored) {
                item_bytes += live_bytes_of(stored);
                note_stored_memories(&key, item, stored, &mut memories);
            }
            stored_changes.entry(number).or_default().insert(key, stored);
        }
        for (number, changes) in &stored_changes {
            bucket_offsets[*number] = write_bucket(&mut writer, &state.buckets[*number], changes)?;
        }
        let system = writer.store_blob(&request.system)?;
        let root_offset = write_root(&mut writer, request, &system, &bucket_offsets)?;
        // Both are on their way to the disk before the first is waited for.
        writer.pages.flush()?;
        writer.records.flush()?;
        self.layout.disk.reached(CrashPoint::PagesWritten);
        writer.pages.sync()?;
        self.layout.disk.reached(CrashPoint::PagesSynced);
        writer.records.sync()?;
        self.layout.disk.reached(CrashPoint::BeforeSwitch);
        let superblock = Superblock {
            sequence: state.next_sequence,
            generation: files.generation.number,
            root_offset,
            pages_end: writer.pages.end(),
            records_end: writer.records.end(),
            height: request.height,
        };
        self.layout.map(&files.generation, &superblock)?;
        let past_cache = writer.pages.past_cache_since(pages_before);
        let written = WrittenCheckpoint {
            height: request.height,
            memories,
            pages_written: writer.pages_written,
            bytes_written: superblock.pages_end + superblock.records_end - bytes_before,
            compacted,
        };
        let last = Last {
            files,
            superblock,
            bucket_offsets,
            blobs: writer.blobs,
            item_bytes,
        };
        Ok(Prepared {
            last,
            changes: stored_changes,
            written,
            past_cache,
        })
    }

    /// The commit point: one superblock. After it the new checkpoint is the one that opens.
    fn commit(&self, state: &mut State, prepared: Prepared) -> Result<WrittenCheckpoint> {
        let Prepared {
            last,
            changes,
            written,
            past_cache,
        } = prepared;
        let superblock = last.superblock;
        let path = self.layout.superblocks_path();
        let offset = superblock.slot() * SLOT_BYTES;
        state
            .superblocks
            .write_at(&superblock.encode(self.layout.superblock_key()), offset)
            .map_err(PersistenceError::io(&path, "write"))?;
        self.layout.disk.reached(CrashPoint::SuperblockWritten);
        state.superblocks.sync().map_err(PersistenceError::io(&path, "sync"))?;
        self.layout.disk.reached(CrashPoint::AfterSwitch);
        state.slots[superblock.slot() as usize] = Some(superblock);
        state.next_sequence += 1;
        state.last_height = Some(superblock.height);
        for (number, changes) in changes {
            let bucket = &mut state.buckets[number];
            for (key, item) in changes {
                match item {
                    Some(item) => bucket.insert(key, item),
                    None => bucket.remove(&key),
                };
            }
        }
        read_back(&*last.files.pages, past_cache);
        state.last = Some(last);
        self.publish_stats(state);
        let named = state.slots.iter().flatten().map(|slot| slot.generation).collect();
        self.layout.remove_generations_except(&named)?;
        if state.last_was_suspect {
            // What was damaged is in no checkpoint that opens from now on, or was never there.
            self.layout.remove_suspicion()?;
            state.last_was_suspect = false;
        }
        Ok(written)
    }

    fn wants_compaction(&self, last: &Last) -> bool {
        last.total_bytes()
            > last
                .live_bytes()
                .saturating_mul(2)
                .saturating_add(self.options.slack_bytes)
    }

    fn publish_stats(&self, state: &State) {
        let heights = |sequence: u64| {
            let slots = state.slots.iter().flatten();
            slots
                .filter(|slot| slot.sequence + 1 == sequence)
                .map(|slot| slot.height)
                .next()
        };
        *self.stats.lock() = CheckpointStats {
            height: state.last_height,
            previous_height: heights(state.next_sequence.saturating_sub(1)),
            live_bytes: state.last.as_ref().map_or(0, Last::live_bytes),
            total_bytes: state.last.as_ref().map_or(0, Last::total_bytes),
        };
    }

    /// A writer behind the last checkpoint. What a crash left there is overwritten: no superblock names it.
    fn writer_at<'a>(&self, files: &GenerationFiles, last: Option<&Last>, pace: &'a dyn Fn(u64)) -> Result<Writer<'a>> {
        let (number, step) = (files.generation.number, self.options.allocation_bytes);
        let (pages_end, records_end) =
            last.map_or((0, 0), |last| (last.superblock.pages_end, last.superblock.records_end));
        Ok(Writer {
            generation: files.generation.clone(),
            pages: Appender::new(&files.pages, self.layout.pages_path(number), pages_end, step, pace)?,
            records: Appender::new(
                &files.records,
                self.layout.records_path(number),
                records_end,
                step,
                pace,
            )?,
            blobs: last.map_or_else(BTreeMap::new, |last| last.blobs.clone()),
            pages_written: 0,
        })
    }

    /// The directory of the store.
    pub fn directory(&self) -> &Path {
        &self.layout.directory
    }
}

fn same_item(one: &CheckpointItem, another: &CheckpointItem) -> bool {
    let same_memories = || {
        let memories = one.memories.iter().zip(&another.memories);
        one.memories.len() == another.memories.len()
            && memories
                .into_iter()
                .all(|(one, another)| one.is_same_version(another) || one.digest() == another.digest())
    };
    one.metadata == another.metadata && one.blobs == another.blobs && same_memories()
}

/// How many pages a checkpoint of these items may write, of all that they have or of those in memory.
fn pages_to_write(changes: &BTreeMap<Vec<u8>, Option<CheckpointItem>>, all: bool) -> u64 {
    let memories = changes.values().flatten().flat_map(|item| &item.memories);
    memories
        .map(|memory| if all { memory.len() } else { memory.frame_count() })
        .sum()
}

/// How an item is called in errors: keys are the ids of canisters.
fn item_name(key: &[u8]) -> String {
    match PrincipalId::try_from_slice(key) {
        Ok(id) => format!("canister {id}"),
        Err(_) => key.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// What an item takes in the files, but for blobs. Nodes are estimated at their share of a full tree.
fn live_bytes_of(item: &CheckpointItem) -> u64 {
    let page = (OS_PAGE_BYTES + NODE_ENTRY_BYTES + 2 * RECORD_HEADER_BYTES / 16) as u64;
    let pages: u64 = item.memories.iter().map(PageMap::len).sum();
    pages * page + (item.metadata.bytes_len() + RECORD_HEADER_BYTES) as u64
}

fn note_stored_memories(key: &[u8], item: &CheckpointItem, stored: &CheckpointItem, memories: &mut Vec<StoredMemory>) {
    for (position, (snapshot, stored)) in item.memories.iter().zip(&stored.memories).enumerate() {
        if !snapshot.is_same_version(stored) {
            memories.push(StoredMemory {
                key: key.to_vec(),
                position,
                snapshot: snapshot.clone(),
                stored: stored.clone(),
                frames: snapshot.frame_count(),
                pages: ALL_PAGES,
            });
        }
    }
}

/// Writes a bucket as `changes` make it, and returns where it lies; `None` where nothing is left in it. The bucket is left
/// as it is: of a hundred items one may have changed, and copying the others takes longer than writing them.
fn write_bucket(
    writer: &mut Writer<'_>,
    bucket: &BTreeMap<Vec<u8>, CheckpointItem>,
    changes: &BucketChanges,
) -> Result<Option<u64>> {
    let kept = bucket.iter().filter(|(key, _)| !changes.contains_key(*key));
    let changed = changes.iter().filter_map(|(key, item)| Some((key, item.as_ref()?)));
    let mut items: Vec<_> = kept.chain(changed).collect();
    if items.is_empty() {
        return Ok(None);
    }
    items.sort_by_key(|(key, _)| *key);
    let mut body = Vec::new();
    for (key, item) in items {
        let record = ItemRecord {
            key: key.clone(),
            metadata: Reference::to_blob(&item.metadata),
            blobs: item.blobs.iter().map(Reference::to_blob).collect(),
            memories: item.memories.iter().map(MemoryReference::to_map).collect(),
        };
        record.push_to(&mut body);
    }
    let header = RecordHeader {
        kind: Kind::Bucket,
        level: 0,
        present: 0,
        page_count: 0,
    };
    writer.push_record(header, &body).map(Some)
}

fn write_root(
    writer: &mut Writer<'_>,
    request: &CheckpointRequest,
    system: &Blob,
    bucket_offsets: &[Option<u64>],
) -> Result<u64> {
    let buckets = bucket_offsets.iter().enumerate();
    let root = RootRecord {
        height: request.height,
        state_hash: request.state_hash,
        system: Reference::to_blob(system),
        buckets: buckets
            .filter_map(|(number, offset)| Some((number as u32, (*offset)?)))
            .collect(),
    };
    writer.push_record(
        RecordHeader {
            kind: Kind::Root,
            level: 0,
            present: 0,
            page_count: 0,
        },
        &root.encode(),
    )
}
