//! From a commit record to a state: everything but pages is checked, pages are left where they are.

use super::blob::Blob;
use super::format::{ItemRecord, record_checksum};
use super::format::{Kind, MemoryReference, Reader, RecordHeader, Reference, RootRecord, Superblock, bucket_of};
use super::stored::{Generation, NODE_ENTRY_BYTES, RECORD_HEADER_BYTES, StoredLeaf, StoredNode};
use super::{Buckets, CheckpointItem, empty_buckets};
use crate::error::{PersistenceError, Result};
use crate::page_map::node::{FANOUT, Interior, LEVEL_MAX, Leaf, Node};
use crate::page_map::{Digest, PageMap};
use replicore_types::OS_PAGE_BYTES;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// A checkpoint's content, with where its buckets are.
pub(super) struct Loaded {
    pub height: u64,
    pub state_hash: Digest,
    pub system: Blob,
    pub buckets: Buckets,
    pub bucket_offsets: Vec<Option<u64>>,
}

/// Reads records of one checkpoint, whose files are mapped.
pub(super) struct Loader {
    pub generation: Arc<Generation>,
    pub superblock: Superblock,
    pub records_path: PathBuf,
}

struct Record<'a> {
    header: RecordHeader,
    body: &'a [u8],
}

impl Loader {
    /// # Errors
    /// Damage.
    pub(super) fn load(&self) -> Result<Loaded> {
        let offset = self.superblock.root_offset;
        let body = self.record(offset, Kind::Root)?.body;
        let root = RootRecord::decode(body).ok_or_else(|| self.damaged(offset, "the root of a checkpoint"))?;
        let mut loaded = Loaded {
            height: root.height,
            state_hash: root.state_hash,
            system: self.blob(root.system)?,
            buckets: empty_buckets(),
            bucket_offsets: vec![None; super::format::BUCKET_COUNT],
        };
        for (number, offset) in root.buckets {
            loaded.bucket_offsets[number as usize] = Some(offset);
            self.load_bucket(number as usize, offset, &mut loaded)?;
        }
        Ok(loaded)
    }

    fn load_bucket(&self, number: usize, offset: u64, loaded: &mut Loaded) -> Result<()> {
        let mut reader = Reader(self.record(offset, Kind::Bucket)?.body);
        while !reader.is_empty() {
            let item = ItemRecord::read_from(&mut reader).filter(|item| bucket_of(&item.key) == number);
            let item = item.ok_or_else(|| self.damaged(offset, "a bucket of items"))?;
            let content = CheckpointItem {
                metadata: self.blob(item.metadata)?,
                blobs: item
                    .blobs
                    .into_iter()
                    .map(|blob| self.blob(blob))
                    .collect::<Result<_>>()?,
                memories: item
                    .memories
                    .into_iter()
                    .map(|memory| self.memory(memory))
                    .collect::<Result<_>>()?,
            };
            loaded.buckets[number].insert(item.key, content);
        }
        Ok(())
    }

    fn blob(&self, reference: Reference) -> Result<Blob> {
        let len = self.record(reference.offset, Kind::Blob)?.body.len();
        Ok(Blob::stored(reference.digest, self.stored(reference.offset), len))
    }

    fn memory(&self, memory: MemoryReference) -> Result<PageMap> {
        let Some(root) = memory.root else {
            return Ok(PageMap::default());
        };
        if memory.level > LEVEL_MAX {
            return Err(self.damaged(root.offset, "the root of a memory"));
        }
        let node = self.node(root, memory.level)?;
        Ok(PageMap {
            root: Some(node),
            level: memory.level,
        })
    }

    fn node(&self, reference: Reference, level: u32) -> Result<Arc<Node>> {
        let offset = reference.offset;
        let record = self.record(offset, Kind::Node)?;
        let present = record.header.present;
        let entries = present.count_ones() as usize;
        if u32::from(record.header.level) != level || entries == 0 || record.body.len() != entries * NODE_ENTRY_BYTES {
            return Err(self.damaged(offset, format!("a node of level {level}")));
        }
        let stored = self.stored(offset);
        let digest = OnceLock::from(reference.digest);
        let mut reader = Reader(record.body);
        let mut children: [Option<Arc<Node>>; FANOUT] = Default::default();
        for slot in (0..FANOUT).filter(|slot| present >> slot & 1 == 1) {
            let entry = reader
                .reference()
                .ok_or_else(|| self.damaged(offset, "an entry of a node"))?;
            if level == 0 {
                self.check_page(entry.offset, offset)?;
                continue;
            }
            // A child is written before its parent; so no cycle, whatever the bytes say.
            if entry.offset >= offset {
                return Err(self.damaged(offset, "a child that lies before its parent"));
            }
            children[slot] = Some(self.node(entry, level - 1)?);
        }
        let node = if level == 0 {
            Node::Leaf(Leaf {
                base: Some(StoredLeaf { node: stored, present }),
                digest,
                ..Leaf::default()
            })
        } else {
            Node::Interior(Interior {
                digest,
                stored: Some(stored),
                ..Interior::over(children)
            })
        };
        if node.page_count() != record.header.page_count {
            return Err(self.damaged(offset, "a node over that many pages"));
        }
        Ok(Arc::new(node))
    }

    fn check_page(&self, page_offset: u64, record_offset: u64) -> Result<()> {
        let page = OS_PAGE_BYTES as u64;
        let end = page_offset.checked_add(page);
        if !page_offset.is_multiple_of(page) || end.is_none_or(|end| end > self.superblock.pages_end) {
            return Err(self.damaged(record_offset, "the place of a page"));
        }
        Ok(())
    }

    fn record(&self, offset: u64, kind: Kind) -> Result<Record<'_>> {
        let wrong = || self.damaged(offset, format!("a record of kind {kind:?} with a right checksum"));
        let header_end = offset
            .checked_add(RECORD_HEADER_BYTES as u64)
            .filter(|end| *end <= self.superblock.records_end);
        header_end.ok_or_else(wrong)?;
        let header = self
            .generation
            .records
            .bytes(offset, RECORD_HEADER_BYTES)
            .ok_or_else(wrong)?;
        let mut reader = Reader(&header[8..]);
        let (Some(body_len), Some(page_count)) = (reader.u64(), reader.u64()) else {
            return Err(wrong());
        };
        let end = offset
            .checked_add(RECORD_HEADER_BYTES as u64)
            .and_then(|start| start.checked_add(body_len));
        end.filter(|end| *end <= self.superblock.records_end)
            .ok_or_else(wrong)?;
        let len = RECORD_HEADER_BYTES + body_len as usize;
        let bytes = self.generation.records.bytes(offset, len).ok_or_else(wrong)?;
        let checksum = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes"));
        if checksum != record_checksum(bytes, self.generation.number, offset) || bytes[0] != kind as u8 {
            return Err(wrong());
        }
        let present = u16::from_le_bytes([bytes[2], bytes[3]]);
        let header = RecordHeader {
            kind,
            level: bytes[1],
            present,
            page_count,
        };
        Ok(Record {
            header,
            body: &bytes[RECORD_HEADER_BYTES..],
        })
    }

    fn stored(&self, offset: u64) -> StoredNode {
        StoredNode {
            generation: self.generation.clone(),
            offset,
        }
    }

    pub(super) fn damaged(&self, offset: u64, expected: impl AsRef<str>) -> PersistenceError {
        PersistenceError::damaged(&self.records_path, offset, format!("expected {}", expected.as_ref()))
    }
}
