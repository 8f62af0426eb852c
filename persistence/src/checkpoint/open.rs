//! Finding the newest complete checkpoint of a directory.

use super::format::{SLOT_BYTES, SLOT_COUNT, Superblock};
use super::layout::{GenerationFiles, Layout, StoreSeal};
use super::load::Loaded;
use super::stored::StoredLeaf;
use super::write::BlobUse;
use super::{CheckpointOptions, CheckpointStats, CheckpointStore, Last, LoadedCheckpoint, OpenedCheckpoints, State};
use super::{empty_buckets, item_name, live_bytes_of};
use crate::disk::{Disk, DiskFile};
use crate::encryption::Cipher;
use crate::error::{PersistenceError, Result};
use crate::page_map::Digest;
use crate::page_map::node::{FANOUT, Node};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

impl CheckpointStore {
    /// Opens the store in `directory`, which exists, and the newest complete checkpoint in it. Reads metadata and, up to
    /// a bound, what the newest checkpoint added to the one before; everything else is read, and compared with its
    /// digest, when it is touched. A checkpoint that is damaged is passed over for the one before, and stays on disk
    /// until the next one is written. Where a process before this one met damage in what it had not read when it opened,
    /// everything is read before a checkpoint is chosen.
    ///
    /// # Errors
    /// What the disk says, or damage that leaves no checkpoint to open.
    pub fn open(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: CheckpointOptions,
    ) -> Result<(Self, OpenedCheckpoints)> {
        Self::open_with(disk, directory, options, None)
    }

    /// The same, encrypted where there is a cipher; a store is one or the other for all its life.
    ///
    /// # Errors
    /// As for [`CheckpointStore::open`]; [`PersistenceError::NoKey`] for an encrypted store without a cipher. To another
    /// cipher everything is damaged.
    pub fn open_with(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: CheckpointOptions,
        cipher: Option<&Cipher>,
    ) -> Result<(Self, OpenedCheckpoints)> {
        let layout = Layout {
            disk,
            directory: directory.to_path_buf(),
            seal: cipher.map(StoreSeal::new),
        };
        let superblocks = layout.open_superblocks()?;
        let (slots, unreadable) = read_slots(&layout, &*superblocks)?;
        let is_suspect = layout.has_suspicion()?;
        let mut found = newest_complete(&layout, &slots, is_suspect)?;
        let newer_is_damaged = !found.skipped.is_empty();
        // One cut-off superblock is what a crash leaves; two are not.
        if unreadable.len() as u64 == SLOT_COUNT {
            return Err(unreadable.into_iter().next().expect("there are two"));
        }
        found.skipped.extend(unreadable);
        let mut state = State {
            superblocks,
            slots,
            last: None,
            buckets: empty_buckets(),
            next_generation: layout.last_generation()?.map_or(0, |number| number + 1),
            next_sequence: 0,
            last_height: None,
            poison: None,
            last_was_suspect: is_suspect,
        };
        let mut latest = None;
        if let Some((superblock, files, loaded)) = found.complete {
            latest = Some(state.take_over(superblock, files, loaded));
        }
        if newer_is_damaged {
            // Its superblock stays valid until the next commit, so nothing that it names may change before: the next
            // checkpoint goes to new files.
            state.last = None;
        }
        let store = Self {
            layout,
            options,
            writer: Mutex::new(state),
            stats: Mutex::new(CheckpointStats::default()),
        };
        store.publish_stats(&store.writer.lock());
        Ok((
            store,
            OpenedCheckpoints {
                latest,
                skipped: found.skipped,
            },
        ))
    }
}

impl CheckpointStore {
    /// The checkpoint before the last one, where there is one.
    ///
    /// # Errors
    /// Damage, or what the disk says.
    pub fn previous(&self) -> Result<Option<LoadedCheckpoint>> {
        self.load_back(2)
    }

    /// The last checkpoint, where there is one.
    ///
    /// # Errors
    /// Damage, or what the disk says.
    pub fn latest(&self) -> Result<Option<LoadedCheckpoint>> {
        self.load_back(1)
    }

    /// The checkpoint so many before the next.
    fn load_back(&self, distance: u64) -> Result<Option<LoadedCheckpoint>> {
        let state = self.writer.lock();
        let is_it = |superblock: &&Superblock| superblock.sequence + distance == state.next_sequence;
        let Some(superblock) = state.slots.iter().flatten().find(is_it) else {
            return Ok(None);
        };
        let (_, loaded) = load(&self.layout, *superblock)?;
        Ok(Some(loaded.checkpoint()))
    }
}

impl State {
    fn take_over(&mut self, superblock: Superblock, files: GenerationFiles, loaded: Loaded) -> LoadedCheckpoint {
        let items = || loaded.buckets.iter().flatten();
        let mut blobs: BTreeMap<Digest, BlobUse> = BTreeMap::new();
        for blob in items().flat_map(|(_, item)| &item.blobs) {
            blobs
                .entry(*blob.digest())
                .or_insert_with(|| BlobUse {
                    blob: blob.clone(),
                    uses: 0,
                })
                .uses += 1;
        }
        let item_bytes = items().map(|(_, item)| live_bytes_of(item)).sum();
        let checkpoint = loaded.checkpoint();
        self.next_sequence = superblock.sequence + 1;
        self.last_height = Some(loaded.height);
        self.buckets = loaded.buckets;
        self.last = Some(Last {
            files,
            superblock,
            bucket_offsets: loaded.bucket_offsets,
            blobs,
            item_bytes,
        });
        checkpoint
    }
}

pub(super) type Slots = [Option<Superblock>; SLOT_COUNT as usize];

/// The superblocks, and the damage of slots that hold something else.
pub(super) fn read_slots(layout: &Layout, file: &dyn DiskFile) -> Result<(Slots, Vec<PersistenceError>)> {
    let path = layout.superblocks_path();
    let (mut slots, mut unreadable) = ([None; SLOT_COUNT as usize], Vec::new());
    for slot in 0..SLOT_COUNT {
        let mut bytes = vec![0; SLOT_BYTES as usize];
        file.read_at(&mut bytes, slot * SLOT_BYTES)
            .map_err(PersistenceError::io(&path, "read"))?;
        slots[slot as usize] = Superblock::decode(&bytes, slot, &path, layout.superblock_key())?;
        if slots[slot as usize].is_none() && bytes.iter().any(|byte| *byte != 0) {
            unreadable.push(PersistenceError::damaged(&path, slot * SLOT_BYTES, "not a superblock"));
        }
    }
    Ok((slots, unreadable))
}

struct Found {
    complete: Option<(Superblock, GenerationFiles, Loaded)>,
    skipped: Vec<PersistenceError>,
}

fn newest_complete(layout: &Layout, slots: &Slots, is_suspect: bool) -> Result<Found> {
    let mut candidates: Vec<Superblock> = slots.iter().flatten().copied().collect();
    candidates.sort_by_key(|superblock| std::cmp::Reverse(superblock.sequence));
    let mut found = Found {
        complete: None,
        skipped: Vec::new(),
    };
    for (position, superblock) in candidates.iter().copied().enumerate() {
        let previous = candidates.get(position + 1);
        let checked = load(layout, superblock).and_then(|(files, loaded)| {
            let added = match is_suspect {
                true => Added::EVERYTHING,
                false => Added::since(superblock, previous),
            };
            added.check_all(&loaded)?;
            Ok((files, loaded))
        });
        match checked {
            Ok((files, loaded)) => {
                found.complete = Some((superblock, files, loaded));
                return Ok(found);
            }
            Err(error @ PersistenceError::Damaged { .. }) => found.skipped.push(error),
            Err(error) => return Err(error),
        }
    }
    match found.skipped.is_empty() {
        true => Ok(found),
        false => Err(found.skipped.swap_remove(0)),
    }
}

pub(super) fn load(layout: &Layout, superblock: Superblock) -> Result<(GenerationFiles, Loaded)> {
    let files = layout.open_generation(superblock.generation, superblock.pages_end)?;
    layout.map(&files.generation, &superblock)?;
    let loaded = layout.loader(&files.generation, superblock).load()?;
    Ok((files, loaded))
}

/// Nodes and pages that opening reads beyond what it needs: some ten milliseconds on a disk of one gigabyte a second.
const NODES_CHECKED_MAX: u64 = 16_384;
pub(super) const PAGES_CHECKED_MAX: u64 = 4_096;

/// What of a checkpoint is looked at when it is opened.
struct Added {
    records_from: u64,
    pages_from: u64,
    nodes_left: u64,
    pages_left: u64,
}

impl Added {
    const EVERYTHING: Self = Self {
        records_from: 0,
        pages_from: 0,
        nodes_left: u64::MAX,
        pages_left: u64::MAX,
    };

    /// What a checkpoint has and the one before has not, as far as that is little: only there the one before is a way
    /// out. What both share is checked when it is touched.
    fn since(superblock: Superblock, previous: Option<&Superblock>) -> Self {
        let shared = previous.filter(|previous| previous.generation == superblock.generation);
        Self {
            records_from: shared.map_or(0, |previous| previous.records_end),
            pages_from: shared.map_or(0, |previous| previous.pages_end),
            nodes_left: NODES_CHECKED_MAX,
            pages_left: PAGES_CHECKED_MAX,
        }
    }

    fn check_all(mut self, loaded: &Loaded) -> Result<()> {
        for (key, item) in loaded.buckets.iter().flatten() {
            for (position, memory) in item.memories.iter().enumerate() {
                let Some(root) = memory.root.as_deref() else { continue };
                self.check(root)
                    .map_err(|error| error.in_place(&format!("memory {position} of {}", item_name(key))))?;
            }
        }
        Ok(())
    }

    fn check(&mut self, node: &Node) -> Result<()> {
        let is_shared = node
            .stored_node()
            .is_some_and(|stored| stored.offset < self.records_from);
        if is_shared || self.nodes_left == 0 {
            return Ok(());
        }
        self.nodes_left -= 1;
        let node = match node {
            Node::Unread(unread) => unread.try_read()?,
            read => read,
        };
        match node {
            Node::Interior(interior) => interior
                .children
                .iter()
                .flatten()
                .try_for_each(|child| self.check(child)),
            Node::Leaf(leaf) => leaf.base.as_ref().map_or(Ok(()), |base| self.check_pages(base)),
            Node::Unread(_) => unreachable!("read above"),
        }
    }

    fn check_pages(&mut self, leaf: &StoredLeaf) -> Result<()> {
        for slot in (0..FANOUT).filter(|slot| leaf.present >> slot & 1 == 1) {
            let is_added = leaf.page_offset(slot).is_some_and(|offset| offset >= self.pages_from);
            if is_added && self.pages_left > 0 {
                self.pages_left -= 1;
                leaf.check_page(slot)?;
            }
        }
        Ok(())
    }
}
