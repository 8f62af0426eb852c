//! From a commit record to a state: items and the roots of their memories are read and checked; the nodes below and the
//! pages are left where they are until somebody needs them.

use super::blob::Blob;
use super::format::{ItemRecord, record_checksum};
use super::format::{Kind, MemoryReference, Reader, RecordHeader, Reference, RootRecord, Superblock, bucket_of};
use super::stored::{Generation, NODE_ENTRY_BYTES, RECORD_HEADER_BYTES, SEALED_RECORD_EXTRA, StoredLeaf, StoredNode};
use super::unread::UnreadNode;
use super::{Buckets, CheckpointItem, LoadedCheckpoint, empty_buckets, item_name};
use crate::error::{PersistenceError, Result};
use crate::page_map::node::{FANOUT, Interior, LEVEL_MAX, Leaf, Node};
use crate::page_map::{Digest, PageMap};
use crate::sys::mapping::straddles;
use std::sync::{Arc, OnceLock};

/// A checkpoint's content, with where its buckets are.
pub(super) struct Loaded {
    pub height: u64,
    pub state_hash: Digest,
    pub system: Blob,
    pub buckets: Buckets,
    pub bucket_offsets: Vec<Option<u64>>,
}

impl Loaded {
    /// The same for readers outside the store.
    pub(super) fn checkpoint(&self) -> LoadedCheckpoint {
        let items = self.buckets.iter().flatten();
        LoadedCheckpoint {
            height: self.height,
            state_hash: self.state_hash,
            system: self.system.clone(),
            items: items.map(|(key, item)| (key.clone(), item.clone())).collect(),
        }
    }
}

/// Reads records of one checkpoint, whose files are mapped.
pub(super) struct Loader {
    pub generation: Arc<Generation>,
    pub superblock: Superblock,
}

struct Record {
    header: RecordHeader,
    body: Vec<u8>,
}

impl Loader {
    /// # Errors
    /// Damage.
    pub(super) fn load(self: &Arc<Self>) -> Result<Loaded> {
        let offset = self.superblock.root_offset;
        let body = self.record(offset, Kind::Root)?.body;
        let root = RootRecord::decode(&body).ok_or_else(|| self.damaged(offset, "the root of a checkpoint"))?;
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

    fn load_bucket(self: &Arc<Self>, number: usize, offset: u64, loaded: &mut Loaded) -> Result<()> {
        let body = self.record(offset, Kind::Bucket)?.body;
        let mut reader = Reader(&body);
        while !reader.is_empty() {
            let item = ItemRecord::read_from(&mut reader).filter(|item| bucket_of(&item.key) == number);
            let item = item.ok_or_else(|| self.damaged(offset, "a bucket of items"))?;
            let key = item.key.clone();
            let content = self.load_item(item).map_err(|error| error.in_place(&item_name(&key)))?;
            loaded.buckets[number].insert(key, content);
        }
        Ok(())
    }

    fn load_item(self: &Arc<Self>, item: ItemRecord) -> Result<CheckpointItem> {
        let (blobs, memories) = (item.blobs.into_iter(), item.memories.into_iter());
        Ok(CheckpointItem {
            metadata: self.blob(item.metadata)?,
            blobs: blobs.map(|blob| self.blob(blob)).collect::<Result<_>>()?,
            memories: memories.map(|memory| self.memory(memory)).collect::<Result<_>>()?,
        })
    }

    fn blob(&self, reference: Reference) -> Result<Blob> {
        let len = self.record(reference.offset, Kind::Blob)?.body.len();
        Ok(Blob::stored(reference.digest, self.stored(reference.offset), len))
    }

    fn memory(self: &Arc<Self>, memory: MemoryReference) -> Result<PageMap> {
        let Some(root) = memory.root else {
            return Ok(PageMap::default());
        };
        if memory.level > LEVEL_MAX {
            return Err(self.damaged(root.offset, "the root of a memory"));
        }
        let unread = UnreadNode::new(self, root, memory.level);
        // Its size is asked for at once.
        unread.try_read()?;
        Ok(PageMap {
            root: Some(Arc::new(Node::Unread(unread))),
            level: memory.level,
        })
    }

    /// Reads one node; its children stay unread.
    ///
    /// # Errors
    /// Damage, or what the disk says.
    pub(super) fn node(self: &Arc<Self>, reference: Reference, level: u32) -> Result<Node> {
        let offset = reference.offset;
        let Record { header, body } = self.record(offset, Kind::Node)?;
        let entries = header.present.count_ones() as usize;
        if u32::from(header.level) != level || entries == 0 || body.len() != entries * NODE_ENTRY_BYTES {
            return Err(self.damaged(offset, format!("a node of level {level}")));
        }
        let digest = OnceLock::from(reference.digest);
        let mut reader = Reader(&body);
        let mut children: [Option<Arc<Node>>; FANOUT] = Default::default();
        for slot in (0..FANOUT).filter(|slot| header.present >> slot & 1 == 1) {
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
            children[slot] = Some(Arc::new(Node::Unread(UnreadNode::new(self, entry, level - 1))));
        }
        if level == 0 && header.page_count != entries as u64 {
            return Err(self.damaged(offset, "a node over that many pages"));
        }
        let stored = self.stored(offset);
        Ok(match level {
            0 => Node::Leaf(Leaf {
                base: Some(StoredLeaf::new(stored, header.present, &body)),
                digest,
                ..Leaf::default()
            }),
            _ => Node::Interior(Interior {
                children,
                page_count: header.page_count,
                frame_count: 0,
                digest,
                stored: Some(stored),
            }),
        })
    }

    fn check_page(&self, page_offset: u64, record_offset: u64) -> Result<()> {
        let page = self.generation.page_stride();
        let end = page_offset.checked_add(page);
        if !page_offset.is_multiple_of(page) || end.is_none_or(|end| end > self.superblock.pages_end) {
            return Err(self.damaged(record_offset, "the place of a page"));
        }
        Ok(())
    }

    fn record(&self, offset: u64, kind: Kind) -> Result<Record> {
        read_record(&self.generation, self.superblock.records_end, offset, kind)
    }

    pub(super) fn stored(&self, offset: u64) -> StoredNode {
        StoredNode {
            generation: self.generation.clone(),
            offset,
        }
    }

    pub(super) fn damaged(&self, offset: u64, expected: impl AsRef<str>) -> PersistenceError {
        damaged(&self.generation, offset, expected)
    }
}

/// The bytes of a blob of an encrypted generation, which was loaded before.
///
/// # Errors
/// Damage since then, or what the disk says.
pub(super) fn read_sealed_blob(generation: &Generation, offset: u64, len: usize) -> Result<Vec<u8>> {
    let bytes_len = RECORD_HEADER_BYTES + SEALED_RECORD_EXTRA + RECORD_HEADER_BYTES + len.next_multiple_of(8);
    let record = read_record(generation, offset + bytes_len as u64, offset, Kind::Blob)?;
    match record.body.len() == len {
        true => Ok(record.body),
        false => Err(damaged(generation, offset, "a blob of the length that it had")),
    }
}

/// Reads a record through the file rather than the mapping, so that a disk that fails is an error and not a signal. It
/// ends before `records_end`.
fn read_record(generation: &Generation, records_end: u64, offset: u64, kind: Kind) -> Result<Record> {
    let Some(seal) = &generation.seal else {
        return read_in_clear(generation, records_end, offset, kind);
    };
    let sealed = read_in_clear(generation, records_end, offset, Kind::Sealed)?;
    let opened = seal.open_record(sealed.body, offset);
    let bytes = opened.ok_or_else(|| damaged(generation, offset, "what was sealed here"))?;
    let record = split_record(bytes, generation.number, offset, kind);
    record.ok_or_else(|| damaged(generation, offset, format!("a sealed record of kind {kind:?}")))
}

fn read_in_clear(generation: &Generation, records_end: u64, offset: u64, kind: Kind) -> Result<Record> {
    let wrong = || {
        damaged(
            generation,
            offset,
            format!("a record of kind {kind:?} with a right checksum"),
        )
    };
    let read = |buffer: &mut [u8], offset| {
        let read = generation.records_file.read_at(buffer, offset);
        read.map_err(PersistenceError::io(&generation.records_path, "read"))
    };
    let ends_inside = |len: u64| {
        let end = offset.checked_add(RECORD_HEADER_BYTES as u64)?.checked_add(len)?;
        (end <= records_end && !straddles(offset, end - offset)).then_some(())
    };
    ends_inside(0).ok_or_else(wrong)?;
    let mut bytes = vec![0; RECORD_HEADER_BYTES];
    read(&mut bytes, offset)?;
    let body_len = Reader(&bytes[8..]).u64().ok_or_else(wrong)?;
    ends_inside(body_len).ok_or_else(wrong)?;
    bytes.resize(RECORD_HEADER_BYTES + body_len as usize, 0);
    read(&mut bytes[RECORD_HEADER_BYTES..], offset + RECORD_HEADER_BYTES as u64)?;
    split_record(bytes, generation.number, offset, kind).ok_or_else(wrong)
}

/// Header and body of a record's bytes, which may have padding behind them; `None` where they are not such a record.
fn split_record(mut bytes: Vec<u8>, generation: u64, offset: u64, kind: Kind) -> Option<Record> {
    let (start, rest) = bytes.split_at_checked(8)?;
    let mut reader = Reader(rest);
    let (body_len, page_count) = (reader.u64()?, reader.u64()?);
    let header = RecordHeader {
        kind,
        level: start[1],
        present: u16::from_le_bytes([start[2], start[3]]),
        page_count,
    };
    let checksum = u32::from_le_bytes(start[4..].try_into().ok()?);
    let is_kind = start[0] == kind as u8;
    let end = usize::try_from(body_len).ok()?.checked_add(RECORD_HEADER_BYTES)?;
    if end > bytes.len() || !is_kind {
        return None;
    }
    bytes.truncate(end);
    let body = bytes.split_off(RECORD_HEADER_BYTES);
    (checksum == record_checksum(&bytes, &body, generation, offset)).then_some(Record { header, body })
}

fn damaged(generation: &Generation, offset: u64, expected: impl AsRef<str>) -> PersistenceError {
    let what = format!("expected {}", expected.as_ref());
    PersistenceError::damaged(&generation.records_path, offset, what)
}
