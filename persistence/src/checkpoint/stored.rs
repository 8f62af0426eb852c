//! Nodes and pages where they lie in a checkpoint's files: read in place, or decrypted when they are touched.

use crate::disk::DiskFile;
use crate::encryption::{Cipher, ClearPages, NONCE_BYTES, SealingKey, TAG_BYTES};
use crate::error::{PersistenceError, Result};
use crate::page_map::node::Mask;
use crate::page_map::{Digest, Page, PageRef};
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
/// Bytes of a sealed page: the page and the tag.
pub(crate) const SEALED_PAGE_BYTES: usize = OS_PAGE_BYTES + TAG_BYTES;
/// Bytes by which the body of a sealed record is longer than the record in it.
pub(crate) const SEALED_RECORD_EXTRA: usize = NONCE_BYTES + TAG_BYTES;

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
    /// There where the store is encrypted; then nothing is read in place.
    pub seal: Option<GenerationSeal>,
}

/// The keys of a generation.
#[derive(Debug)]
pub(crate) struct GenerationSeal {
    pages: SealingKey,
    records: SealingKey,
    clear_pages: Arc<ClearPages>,
}

impl GenerationSeal {
    pub(crate) fn new(cipher: &Cipher, generation: u64, clear_pages: &Arc<ClearPages>) -> Self {
        Self {
            pages: cipher.key("pages", generation),
            records: cipher.key("records", generation),
            clear_pages: Arc::clone(clear_pages),
        }
    }

    /// A page as it goes to `offset`, its tag behind it.
    pub(crate) fn seal_page(&self, page: &Page, digest: &Digest, offset: u64) -> [u8; SEALED_PAGE_BYTES] {
        let mut sealed = [0; SEALED_PAGE_BYTES];
        let (bytes, tag) = sealed.split_at_mut(OS_PAGE_BYTES);
        bytes.copy_from_slice(page);
        tag.copy_from_slice(&self.pages.seal_known(&offset.to_le_bytes(), digest, bytes));
        sealed
    }

    /// A record as the body of the one that is written at `offset`: nonce, sealed bytes, tag.
    pub(crate) fn seal_record(&self, record: &[u8], offset: u64) -> Vec<u8> {
        let mut body = Vec::with_capacity(record.len() + SEALED_RECORD_EXTRA);
        body.extend_from_slice(&[0; NONCE_BYTES]);
        body.extend_from_slice(record);
        let (nonce, tag) = self.records.seal(&offset.to_le_bytes(), &mut body[NONCE_BYTES..]);
        body[..NONCE_BYTES].copy_from_slice(&nonce);
        body.extend_from_slice(&tag);
        body
    }

    /// The record in such a body; `None` where it is not what was sealed there.
    pub(crate) fn open_record(&self, mut body: Vec<u8>, offset: u64) -> Option<Vec<u8>> {
        let (nonce, sealed) = body.split_first_chunk_mut()?;
        let record = self.records.open(&offset.to_le_bytes(), *nonce, sealed)?;
        let len = record.len();
        body.copy_within(NONCE_BYTES..NONCE_BYTES + len, 0);
        body.truncate(len);
        Some(body)
    }
}

impl Generation {
    /// From one page to the next in the pages file.
    pub(crate) fn page_stride(&self) -> u64 {
        match self.seal {
            None => OS_PAGE_BYTES as u64,
            Some(_) => SEALED_PAGE_BYTES as u64,
        }
    }

    /// Reads the page at `offset` from the file, decrypted where it is sealed: then it is what was written there, with this
    /// digest.
    fn read_page(&self, offset: u64, digest: &Digest) -> Result<Arc<Page>> {
        let read = |buffer: &mut [u8]| {
            let read = self.pages_file.read_at(buffer, offset);
            read.map_err(PersistenceError::io(&self.pages_path, "read"))
        };
        let mut page = Arc::new([0; OS_PAGE_BYTES]);
        let bytes = Arc::get_mut(&mut page).expect("just made");
        let Some(seal) = &self.seal else {
            return read(bytes).map(|()| page);
        };
        let mut sealed = [0; SEALED_PAGE_BYTES];
        read(&mut sealed)?;
        let opened = seal.pages.open_known(&offset.to_le_bytes(), digest, &mut sealed);
        let Some(opened) = opened else {
            let what = "a page is not what was sealed here";
            return Err(PersistenceError::damaged(&self.pages_path, offset, what));
        };
        bytes.copy_from_slice(opened);
        Ok(page)
    }

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
    /// The body of the record where it is sealed; otherwise it is read in place.
    entries: Option<Arc<[u8]>>,
    /// Pages that were compared with their digests. A race has them compared twice, nothing else.
    checked: AtomicU16,
}

impl Clone for StoredLeaf {
    fn clone(&self) -> Self {
        Self {
            node: self.node.clone(),
            present: self.present,
            entries: self.entries.clone(),
            checked: AtomicU16::new(self.checked.load(Ordering::Relaxed)),
        }
    }
}

impl StoredLeaf {
    /// `body` is that of the record.
    pub(crate) fn new(node: StoredNode, present: Mask, body: &[u8]) -> Self {
        let entries = node.generation.seal.as_ref().map(|_| body.into());
        Self {
            node,
            present,
            entries,
            checked: AtomicU16::new(0),
        }
    }

    /// The page, where the record has one at `slot`.
    ///
    /// # Panics
    /// Where the page is not what was written. See [`super::unread::UnreadNode::read`].
    pub(crate) fn page(&self, slot: usize) -> Option<PageRef<'_>> {
        let offset = self.page_offset(slot)?;
        let generation = &self.node.generation;
        if let Some(seal) = &generation.seal {
            return Some(PageRef::Clear(self.clear_page(slot, offset, seal)));
        }
        if offset < generation.found_pages_end && self.checked.load(Ordering::Relaxed) >> slot & 1 == 0 {
            self.check_page(slot).unwrap_or_else(|error| generation.give_up(&error));
        }
        let page = generation.pages.page(offset);
        Some(PageRef::InPlace(page.expect("page offsets were checked at load")))
    }

    fn clear_page(&self, slot: usize, offset: u64, seal: &GenerationSeal) -> Arc<Page> {
        let generation = &self.node.generation;
        if let Some(page) = seal.clear_pages.get(generation.number, offset) {
            return page;
        }
        let digest = self.page_digest(slot).expect("a page has a digest");
        let page = generation.read_page(offset, digest);
        let page = page.unwrap_or_else(|error| generation.give_up(&error));
        seal.clear_pages.put(generation.number, offset, &page);
        page
    }

    /// True where both have a page at the same place of the same files.
    pub(crate) fn same_page_as(&self, other: &StoredLeaf, slot: usize) -> bool {
        Arc::ptr_eq(&self.node.generation, &other.node.generation) && self.page_offset(slot) == other.page_offset(slot)
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
        let page = generation.read_page(offset, digest)?;
        if blake3::hash(&*page).as_bytes() != digest {
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
        if let Some(entries) = &self.entries {
            return entries.get(rank * NODE_ENTRY_BYTES..(rank + 1) * NODE_ENTRY_BYTES);
        }
        let offset = self.node.offset + (RECORD_HEADER_BYTES + rank * NODE_ENTRY_BYTES) as u64;
        let entry = self.node.generation.records.bytes(offset, NODE_ENTRY_BYTES);
        Some(entry.expect("records were checked at load"))
    }

    /// True where both read the same record.
    pub(crate) fn same_as(&self, other: &StoredLeaf) -> bool {
        self.node.offset == other.node.offset && Arc::ptr_eq(&self.node.generation, &other.node.generation)
    }
}
