//! From a state to bytes behind the last checkpoint: only what that one does not hold.

use super::CheckpointItem;
use super::blob::Blob;
use super::format::{Kind, RecordHeader, Reference, encode_record};
use super::stored::{Generation, NODE_ENTRY_BYTES, RECORD_HEADER_BYTES, SEALED_RECORD_EXTRA, StoredLeaf, StoredNode};
use crate::disk::DiskFile;
use crate::error::{PersistenceError, Result};
use crate::page_map::node::{FANOUT, Interior, Leaf, Mask, Node};
use crate::page_map::{Digest, Page, PageMap};
use crate::sys::mapping::{WINDOW_BYTES, straddles};
use replicore_types::OS_PAGE_BYTES;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// Writes are gathered to this size: large enough for the disk's full rate, small enough for the cache.
const WRITE_BYTES: usize = 1 << 20;

/// Bytes that the disk is asked to write at the same time: enough to keep it busy, few enough that a batch, which becomes
/// durable meanwhile, doesn't wait behind a whole checkpoint.
const IN_FLIGHT_BYTES: u64 = 4 << 20;

/// Pages from which on a checkpoint goes past the kernel's cache (32 MiB). Fewer are written sooner through it, and the
/// disk is done with them in the time of a round or two.
pub(super) const PAST_CACHE_PAGES_MIN: u64 = 8_192;

/// What went past the cache is read into it again, at most this much: the first readers of pages that were in memory a
/// moment ago would wait for the disk otherwise.
const READ_BACK_BYTES_MAX: u64 = 1 << 30;

/// A file that is written at its end.
pub(super) struct Appender<'a> {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    /// Space is reserved in steps of this.
    allocation_bytes: u64,
    allocated: u64,
    /// Where `waiting` goes.
    flushed: u64,
    /// Unused bytes up to a page boundary in memory, then what waits to be written. The kernel copies from a buffer that
    /// is not aligned like its own pages at less than half the speed.
    waiting: Vec<u8>,
    waiting_from: usize,
    /// Whole pages go past the kernel's cache.
    past_cache: bool,
    /// Hears how many bytes were written.
    pace: &'a dyn Fn(u64),
}

impl<'a> Appender<'a> {
    /// # Errors
    /// What the disk says.
    pub(super) fn new(
        file: &Arc<dyn DiskFile>,
        path: PathBuf,
        end: u64,
        allocation_bytes: u64,
        pace: &'a dyn Fn(u64),
    ) -> Result<Self> {
        let allocated = file.bytes_len().map_err(PersistenceError::io(&path, "read"))?;
        let mut waiting: Vec<u8> = Vec::with_capacity(WRITE_BYTES + OS_PAGE_BYTES);
        let waiting_from = waiting.as_ptr().align_offset(OS_PAGE_BYTES).min(OS_PAGE_BYTES);
        waiting.resize(waiting_from, 0);
        Ok(Self {
            file: Arc::clone(file),
            path,
            allocation_bytes,
            allocated,
            flushed: end,
            waiting,
            waiting_from,
            past_cache: false,
            pace,
        })
    }

    /// From here on whole pages go past the kernel's cache, for a checkpoint of many.
    pub(super) fn write_past_cache(&mut self) {
        self.past_cache = true;
    }

    /// The offset of what is pushed next.
    pub(super) fn end(&self) -> u64 {
        self.flushed + (self.waiting.len() - self.waiting_from) as u64
    }

    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = WRITE_BYTES - (self.waiting.len() - self.waiting_from);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.waiting.extend_from_slice(now);
            bytes = later;
            if now.len() == room {
                self.flush()?;
            }
        }
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        let end = self.end();
        if end > self.allocated {
            let len = end.next_multiple_of(self.allocation_bytes);
            self.file
                .allocate(len)
                .map_err(PersistenceError::io(&self.path, "reserve space for"))?;
            self.allocated = len;
        }
        self.write_waiting()
            .map_err(PersistenceError::io(&self.path, "write"))?;
        self.waiting.truncate(self.waiting_from);
        self.flushed = end;
        Ok(())
    }

    fn write_waiting(&self) -> io::Result<()> {
        let bytes = &self.waiting[self.waiting_from..];
        if bytes.is_empty() {
            return Ok(());
        }
        let are_pages = bytes.len().is_multiple_of(OS_PAGE_BYTES) && self.flushed.is_multiple_of(OS_PAGE_BYTES as u64);
        if self.past_cache && are_pages {
            self.file.write_past_cache(bytes, self.flushed)?;
        } else {
            self.file.write_at(bytes, self.flushed)?;
            self.file.begin_sync(self.flushed, bytes.len() as u64);
        }
        (self.pace)(bytes.len() as u64);
        match self.flushed.checked_sub(IN_FLIGHT_BYTES) {
            // Nothing is under way there where it went past the cache.
            Some(offset) => self.file.await_begun(offset, WRITE_BYTES as u64),
            None => Ok(()),
        }
    }

    pub(super) fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.file.sync().map_err(PersistenceError::io(&self.path, "sync"))
    }

    /// Where what went past the cache lies, of what was written since the end was at `start`: the last of it, if it is much.
    pub(super) fn past_cache_since(&self, start: u64) -> Range<u64> {
        match self.past_cache {
            true => start.max(self.flushed.saturating_sub(READ_BACK_BYTES_MAX))..self.flushed,
            false => 0..0,
        }
    }

    /// Makes room for `len` bytes that readers get as one slice.
    fn skip_window_edge(&mut self, len: u64) -> Result<()> {
        if straddles(self.end(), len) {
            self.flush()?;
            self.flushed = self.flushed.next_multiple_of(WINDOW_BYTES);
        }
        Ok(())
    }
}

/// Reads a range of a file into the kernel's cache, piece by piece, so that whoever else reads or writes does not wait
/// behind all of it. Where the disk cannot, those who need the bytes will hear of it.
pub(super) fn read_back(file: &dyn DiskFile, range: Range<u64>) {
    let mut last_page = [0; OS_PAGE_BYTES];
    for start in range.clone().step_by(WRITE_BYTES) {
        let end = (start + WRITE_BYTES as u64).min(range.end);
        file.begin_read(start, end - start);
        if file.read_at(&mut last_page, end - OS_PAGE_BYTES as u64).is_err() {
            return;
        }
    }
}

/// A blob of the generation's files and how many times the items name it.
#[derive(Clone, Debug)]
pub(super) struct BlobUse {
    pub blob: Blob,
    pub uses: u64,
}

/// Writes the parts of one checkpoint. What it returns may be read only after both files are flushed and mapped.
pub(super) struct Writer<'a> {
    pub generation: Arc<Generation>,
    pub pages: Appender<'a>,
    pub records: Appender<'a>,
    /// Blobs that the generation holds by the end of this checkpoint, by digest.
    pub blobs: BTreeMap<Digest, BlobUse>,
    pub pages_written: u64,
}

impl Writer<'_> {
    /// The same item, held by the generation. `previous` is the item's last stored version, if any.
    pub(super) fn store_item(
        &mut self,
        item: &CheckpointItem,
        previous: Option<&CheckpointItem>,
    ) -> Result<CheckpointItem> {
        let metadata = match previous.map(|previous| &previous.metadata) {
            Some(stored) if *stored == item.metadata && self.holds(stored.stored_node()) => stored.clone(),
            _ => self.store_blob(&item.metadata)?,
        };
        let mut blobs = Vec::with_capacity(item.blobs.len());
        for blob in &item.blobs {
            if !self.blobs.contains_key(blob.digest()) {
                let blob = self.store_blob(blob)?;
                self.blobs.insert(*blob.digest(), BlobUse { blob, uses: 0 });
            }
            let used = self.blobs.get_mut(blob.digest()).expect("just stored");
            used.uses += 1;
            blobs.push(used.blob.clone());
        }
        let mut memories = Vec::with_capacity(item.memories.len());
        for (position, memory) in item.memories.iter().enumerate() {
            let before = previous.and_then(|previous| previous.memories.get(position));
            memories.push(self.store_memory(memory, before)?);
        }
        Ok(CheckpointItem {
            metadata,
            blobs,
            memories,
        })
    }

    /// Takes back the uses of an item that is replaced or removed.
    pub(super) fn release_blobs(&mut self, item: &CheckpointItem) {
        for blob in &item.blobs {
            if let Some(used) = self.blobs.get_mut(blob.digest()) {
                used.uses -= 1;
            }
        }
    }

    /// Writes a blob, wherever else it may be.
    pub(super) fn store_blob(&mut self, blob: &Blob) -> Result<Blob> {
        if self.holds(blob.stored_node()) {
            return Ok(blob.clone());
        }
        let header = RecordHeader {
            kind: Kind::Blob,
            level: 0,
            present: 0,
            page_count: 0,
        };
        let offset = self.push_record(header, &blob.bytes())?;
        Ok(Blob::stored(*blob.digest(), self.stored(offset), blob.bytes_len()))
    }

    pub(super) fn push_record(&mut self, header: RecordHeader, body: &[u8]) -> Result<u64> {
        let mut len = (RECORD_HEADER_BYTES + body.len()).next_multiple_of(8) as u64;
        if self.generation.seal.is_some() {
            len = (RECORD_HEADER_BYTES as u64 + len + SEALED_RECORD_EXTRA as u64).next_multiple_of(8);
        }
        if len > WINDOW_BYTES {
            let what = format!("one piece of {} bytes; at most {WINDOW_BYTES} fit", body.len());
            return Err(PersistenceError::refused(&self.records.path, what));
        }
        self.records.skip_window_edge(len)?;
        let offset = self.records.end();
        let mut record = encode_record(header, body, self.generation.number, offset);
        if let Some(seal) = &self.generation.seal {
            let header = RecordHeader {
                kind: Kind::Sealed,
                level: 0,
                present: 0,
                page_count: 0,
            };
            let body = seal.seal_record(&record, offset);
            record = encode_record(header, &body, self.generation.number, offset);
        }
        self.records.push(&record)?;
        Ok(offset)
    }

    fn store_memory(&mut self, memory: &PageMap, previous: Option<&PageMap>) -> Result<PageMap> {
        let Some(root) = &memory.root else {
            return Ok(PageMap::default());
        };
        // All at once, which is faster than where each is needed.
        memory.digest();
        let before = previous.and_then(|previous| node_at_level(previous, memory.level));
        let root = self.store_node(root, memory.level, before.as_ref())?;
        Ok(PageMap {
            root: Some(root),
            level: memory.level,
        })
    }

    /// The same node, held by the generation. `before` is the node that the last checkpoint has at this place.
    fn store_node(&mut self, node: &Arc<Node>, level: u32, before: Option<&Arc<Node>>) -> Result<Arc<Node>> {
        if self.holds(node.stored_node()) {
            return Ok(node.clone());
        }
        if let Some(before) = before.filter(|before| self.holds(before.stored_node()))
            && before.digest(level) == node.digest(level)
        {
            return Ok(before.clone());
        }
        match node.read() {
            Node::Leaf(leaf) => self.store_leaf(leaf, before),
            Node::Interior(interior) => self.store_interior(interior, level, before),
            Node::Unread(_) => unreachable!("read here"),
        }
    }

    fn store_interior(&mut self, interior: &Interior, level: u32, before: Option<&Arc<Node>>) -> Result<Arc<Node>> {
        let mut children: [Option<Arc<Node>>; FANOUT] = Default::default();
        let (mut body, mut present): (Vec<u8>, Mask) = (Vec::with_capacity(FANOUT * NODE_ENTRY_BYTES), 0);
        for (slot, child) in interior.children.iter().enumerate() {
            let Some(child) = child else { continue };
            let child_before = match before.map(|before| before.read()) {
                Some(Node::Interior(before)) => before.children[slot].as_ref(),
                _ => None,
            };
            let stored = self.store_node(child, level - 1, child_before)?;
            let offset = stored.stored_node().expect("just stored").offset;
            Reference {
                offset,
                digest: *stored.digest(level - 1),
            }
            .push_to(&mut body);
            present |= 1 << slot;
            children[slot] = Some(stored);
        }
        let page_count = interior.page_count;
        let header = RecordHeader {
            kind: Kind::Node,
            level: level as u8,
            present,
            page_count,
        };
        let offset = self.push_record(header, &body)?;
        let digest = OnceLock::from(*interior.digest(level));
        let stored = Interior {
            digest,
            stored: Some(self.stored(offset)),
            ..Interior::over(children)
        };
        Ok(Arc::new(Node::Interior(stored)))
    }

    fn store_leaf(&mut self, leaf: &Leaf, before: Option<&Arc<Node>>) -> Result<Arc<Node>> {
        let before = match before.map(|before| before.read()) {
            Some(Node::Leaf(before)) => before.base.as_ref().filter(|base| self.holds(Some(&base.node))),
            _ => None,
        };
        let present = leaf.present();
        let mut body = Vec::with_capacity(FANOUT * NODE_ENTRY_BYTES);
        for slot in 0..FANOUT {
            let Some(digest) = leaf.page_digest(slot) else {
                continue;
            };
            let base = leaf
                .base
                .as_ref()
                .filter(|base| leaf.in_base() >> slot & 1 == 1 && self.holds(Some(&base.node)));
            let held = base.and_then(|base| base.page_offset(slot)).or_else(|| {
                let before = before.filter(|before| before.page_digest(slot) == Some(digest))?;
                before.page_offset(slot)
            });
            let offset = match held {
                Some(offset) => offset,
                None => self.push_page(&leaf.page(slot).expect("a page with a digest"), digest)?,
            };
            Reference {
                offset,
                digest: *digest,
            }
            .push_to(&mut body);
        }
        let page_count = u64::from(present.count_ones());
        let header = RecordHeader {
            kind: Kind::Node,
            level: 0,
            present,
            page_count,
        };
        let node = StoredNode {
            generation: self.generation.clone(),
            offset: self.push_record(header, &body)?,
        };
        let digest = OnceLock::from(*leaf.digest());
        Ok(Arc::new(Node::Leaf(Leaf {
            base: Some(StoredLeaf::new(node, present, &body)),
            digest,
            ..Leaf::default()
        })))
    }

    fn push_page(&mut self, page: &Page, digest: &Digest) -> Result<u64> {
        let offset = self.pages.end();
        match &self.generation.seal {
            None => self.pages.push(page)?,
            Some(seal) => self.pages.push(&seal.seal_page(page, digest, offset))?,
        }
        self.pages_written += 1;
        Ok(offset)
    }

    fn stored(&self, offset: u64) -> StoredNode {
        StoredNode {
            generation: self.generation.clone(),
            offset,
        }
    }

    fn holds(&self, stored: Option<&StoredNode>) -> bool {
        stored.is_some_and(|stored| Arc::ptr_eq(&stored.generation, &self.generation))
    }
}

/// The node of `map` that covers what a root on `level` covers, made for the purpose where the map is lower.
fn node_at_level(map: &PageMap, level: u32) -> Option<Arc<Node>> {
    let mut raised = map.clone();
    raised.raise_root(level);
    let mut node = raised.root?;
    for _ in level..map.level {
        let Node::Interior(interior) = node.read() else {
            return None;
        };
        node = interior.children[0].clone()?;
    }
    Some(node)
}
