//! Nodes and pages where they lie in a checkpoint's files, read in place.

use crate::disk::DiskFile;
use crate::error::{PersistenceError, Result};
use crate::page_map::node::Mask;
use crate::page_map::{Digest, Page};
use crate::sys::mapping::MappedFile;
use replicore_types::OS_PAGE_BYTES;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// Exists beside a store's files where a process met damage in them while it served.
pub(super) const SUSPECT_FILE: &str = "suspect";

/// Bytes before the body of a record.
pub(crate) const RECORD_HEADER_BYTES: usize = 24;
/// Bytes of an entry of a node record: an offset and a digest.
pub(crate) const NODE_ENTRY_BYTES: usize = 40;

/// The two files of one generation of the store. They only grow; a compaction starts the next generation.
#[derive(Debug)]
pub(crate) struct Generation {
    pub number: u64,
    /// Whole pages.
    pub pages: MappedFile,
    /// Nodes, buckets, blobs and roots.
    pub records: MappedFile,
    /// The same files, to be read with an answer where the disk fails: a mapping has none.
    pub pages_file: Arc<dyn DiskFile>,
    pub records_file: Arc<dyn DiskFile>,
    pub pages_path: PathBuf,
    pub records_path: PathBuf,
    /// Pages below this offset were found here when the store was opened: each is compared with its digest before its
    /// first use. Those above were written by this process.
    pub found_pages_end: u64,
}

impl Generation {
    /// Ends the thread that met damage: whoever reads memory has no other answer that would be true. A note is left
    /// beside the files, so that the next start reads the checkpoints to their last page before it chooses one; without
    /// it every start would end at the same page.
    pub(crate) fn give_up(&self, error: &PersistenceError) -> ! {
        if let PersistenceError::Damaged { .. } = error {
            // Where even that cannot be written, the message says where the damage is.
            let _best_effort = std::fs::write(self.pages_path.with_file_name(SUSPECT_FILE), format!("{error}\n"));
        }
        panic!("{error}")
    }
}

/// Where a checkpoint holds a node.
#[derive(Clone, Debug)]
pub(crate) struct StoredNode {
    pub generation: Arc<Generation>,
    /// In the records file.
    pub offset: u64,
}

/// A leaf record, read in place. Its existence proves that the record's checksum was right when it was made and that
/// every page it points to lies before the committed end of the pages file.
#[derive(Debug)]
pub(crate) struct StoredLeaf {
    pub node: StoredNode,
    pub present: Mask,
    /// Pages that were compared with their digests. A race has them compared twice, nothing else.
    checked: AtomicU16,
}

impl Clone for StoredLeaf {
    fn clone(&self) -> Self {
        Self {
            node: self.node.clone(),
            present: self.present,
            checked: AtomicU16::new(self.checked.load(Ordering::Relaxed)),
        }
    }
}

impl StoredLeaf {
    pub(crate) fn new(node: StoredNode, present: Mask) -> Self {
        Self {
            node,
            present,
            checked: AtomicU16::new(0),
        }
    }

    /// The page, where the record has one at `slot`.
    ///
    /// # Panics
    /// Where the page is not what was written. See [`super::unread::UnreadNode::read`].
    pub(crate) fn page(&self, slot: usize) -> Option<&Page> {
        let offset = self.page_offset(slot)?;
        let generation = &self.node.generation;
        if offset < generation.found_pages_end && self.checked.load(Ordering::Relaxed) >> slot & 1 == 0 {
            self.check_page(slot).unwrap_or_else(|error| generation.give_up(&error));
        }
        Some(
            generation
                .pages
                .page(offset)
                .expect("page offsets were checked at load"),
        )
    }

    /// Compares a page with its digest. Reads the file rather than the mapping, so that a disk that fails is an error
    /// and not a signal.
    ///
    /// # Errors
    /// Damage, or what the disk says.
    pub(crate) fn check_page(&self, slot: usize) -> Result<()> {
        let (Some(offset), Some(digest)) = (self.page_offset(slot), self.page_digest(slot)) else {
            return Ok(());
        };
        let generation = &self.node.generation;
        let mut page = [0; OS_PAGE_BYTES];
        generation
            .pages_file
            .read_at(&mut page, offset)
            .map_err(PersistenceError::io(&generation.pages_path, "read"))?;
        if blake3::hash(&page).as_bytes() != digest {
            let what = "a page does not match its digest";
            return Err(PersistenceError::damaged(&generation.pages_path, offset, what));
        }
        self.checked.fetch_or(1 << slot, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn page_digest(&self, slot: usize) -> Option<&Digest> {
        self.entry(slot)?[8..].try_into().ok()
    }

    /// Where the page lies in the pages file.
    pub(crate) fn page_offset(&self, slot: usize) -> Option<u64> {
        self.entry(slot)?[..8].try_into().ok().map(u64::from_le_bytes)
    }

    fn entry(&self, slot: usize) -> Option<&[u8]> {
        if self.present >> slot & 1 == 0 {
            return None;
        }
        let rank = (self.present & ((1 << slot) - 1)).count_ones() as usize;
        let offset = self.node.offset + (RECORD_HEADER_BYTES + rank * NODE_ENTRY_BYTES) as u64;
        let entry = self.node.generation.records.bytes(offset, NODE_ENTRY_BYTES);
        Some(entry.expect("records were checked at load"))
    }

    /// True where both read the same record.
    pub(crate) fn same_as(&self, other: &StoredLeaf) -> bool {
        self.node.offset == other.node.offset && Arc::ptr_eq(&self.node.generation, &other.node.generation)
    }
}
