//! Nodes and pages where they lie in a checkpoint's files, read in place.

use crate::page_map::node::Mask;
use crate::page_map::{Digest, Page};
use crate::sys::mapping::MappedFile;
use std::sync::Arc;

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
#[derive(Clone, Debug)]
pub(crate) struct StoredLeaf {
    pub node: StoredNode,
    pub present: Mask,
}

impl StoredLeaf {
    /// The page, where the record has one at `slot`.
    pub(crate) fn page(&self, slot: usize) -> Option<&Page> {
        let offset = self.page_offset(slot)?;
        Some(
            self.node
                .generation
                .pages
                .page(offset)
                .expect("page offsets were checked at load"),
        )
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
