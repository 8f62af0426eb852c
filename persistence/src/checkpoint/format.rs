//! The checkpoint store's bytes. FORMAT.md tells the same in prose; a golden test pins it.

use super::blob::Blob;
use super::stored::{NODE_ENTRY_BYTES, RECORD_HEADER_BYTES};
use crate::encryption::{NONCE_BYTES, SealingKey, TAG_BYTES};
use crate::error::{PersistenceError, Result};
use crate::page_map::{Digest, PageMap};
use std::path::Path;

pub(super) const SLOT_BYTES: u64 = 4096;
pub(super) const SLOT_COUNT: u64 = 2;
/// Items are spread over this many records by their key's digest: a changed item rewrites one of them.
pub(super) const BUCKET_COUNT: usize = 1024;

const MAGIC: &[u8; 8] = b"RCCHKPNT";
const CLEAR_VERSION: u32 = 1;
/// Of a superblock with a seal, of files whose pages and records are sealed.
const SEALED_VERSION: u32 = 2;
/// Where the fields of a superblock end and its seal begins.
const FIELDS_END: usize = 64;
const SEAL_END: usize = FIELDS_END + NONCE_BYTES + TAG_BYTES;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Node = 1,
    Blob = 2,
    Bucket = 3,
    Root = 4,
    /// One of the others, encrypted.
    Sealed = 5,
}

/// The commit record: which bytes of which files are a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superblock {
    pub sequence: u64,
    pub generation: u64,
    pub root_offset: u64,
    pub pages_end: u64,
    pub records_end: u64,
    pub height: u64,
}

impl Superblock {
    /// The slot that this one is written to: never the one of the checkpoint before.
    pub(super) fn slot(&self) -> u64 {
        self.sequence % SLOT_COUNT
    }

    pub(super) fn encode(&self, key: Option<&SealingKey>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SLOT_BYTES as usize);
        bytes.extend_from_slice(MAGIC);
        let version = key.map_or(CLEAR_VERSION, |_| SEALED_VERSION);
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        let words = [
            self.sequence,
            self.generation,
            self.root_offset,
            self.pages_end,
            self.records_end,
            self.height,
        ];
        for word in words {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        if let Some(key) = key {
            let (nonce, tag) = key.seal(&bytes, &mut []);
            bytes.extend_from_slice(&nonce);
            bytes.extend_from_slice(&tag);
        }
        bytes.resize(SLOT_BYTES as usize, 0);
        let checksum = crc32fast::hash(&bytes);
        bytes[12..16].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` where the slot is not an intact superblock that belongs there.
    ///
    /// # Errors
    /// An intact superblock of a later format version, or not of this key.
    pub(super) fn decode(bytes: &[u8], slot: u64, file: &Path, key: Option<&SealingKey>) -> Result<Option<Self>> {
        let mut unsealed = bytes.to_vec();
        unsealed[12..16].fill(0);
        let mut reader = Reader(&bytes[8..]);
        let (Some(version), Some(checksum)) = (reader.u32(), reader.u32()) else {
            return Ok(None);
        };
        if &bytes[..8] != MAGIC || crc32fast::hash(&unsealed) != checksum {
            return Ok(None);
        }
        let file = file.to_path_buf();
        match (version, key) {
            (CLEAR_VERSION, None) => {}
            (SEALED_VERSION, Some(key)) if is_sealed_by(key, &unsealed) => {}
            // The checksum is right, so that this is no cut-off write: somebody without the key has put it there.
            (CLEAR_VERSION | SEALED_VERSION, Some(_)) => {
                let what = "a superblock that was not written with the key of this directory";
                return Err(PersistenceError::damaged(&file, slot * SLOT_BYTES, what));
            }
            (SEALED_VERSION, None) => return Err(PersistenceError::NoKey { file }),
            _ => {
                return Err(PersistenceError::NewerFormat {
                    file,
                    found: version,
                    supported: SEALED_VERSION,
                });
            }
        }
        let mut word = || reader.u64().unwrap_or(0);
        let superblock = Self {
            sequence: word(),
            generation: word(),
            root_offset: word(),
            pages_end: word(),
            records_end: word(),
            height: word(),
        };
        Ok((superblock.slot() == slot).then_some(superblock))
    }
}

/// True for the superblock, its checksum left out, that was sealed with this key.
fn is_sealed_by(key: &SealingKey, superblock: &[u8]) -> bool {
    let (fields, seal) = superblock[..SEAL_END].split_at(FIELDS_END);
    seal.split_first_chunk()
        .is_some_and(|(nonce, tag)| key.open(fields, *nonce, &mut tag.to_vec()).is_some())
}

/// The fields of a record's header that its kind gives a meaning to.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordHeader {
    pub kind: Kind,
    /// Nodes: the level. Otherwise 0.
    pub level: u8,
    /// Nodes: which children exist. Otherwise 0.
    pub present: u16,
    /// Nodes: pages below. Otherwise 0.
    pub page_count: u64,
}

/// A record as it is written at `offset` of a generation's records file.
pub(super) fn encode_record(header: RecordHeader, body: &[u8], generation: u64, offset: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity((RECORD_HEADER_BYTES + body.len()).next_multiple_of(8));
    bytes.push(header.kind as u8);
    bytes.push(header.level);
    bytes.extend_from_slice(&header.present.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&header.page_count.to_le_bytes());
    bytes.extend_from_slice(body);
    let (start, body) = bytes.split_at(RECORD_HEADER_BYTES);
    let checksum = record_checksum(start, body, generation, offset);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Binds a record to its file and offset, so that one that strayed is not taken for the one that belongs there.
pub(super) fn record_checksum(header: &[u8], body: &[u8], generation: u64, offset: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..4]);
    hasher.update(&header[8..]);
    hasher.update(body);
    hasher.update(&generation.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.finalize()
}

/// An entry of a node, or a reference to a blob: where it is and what its digest is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reference {
    pub offset: u64,
    pub digest: Digest,
}

impl Reference {
    pub(super) fn push_to(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.offset.to_le_bytes());
        body.extend_from_slice(&self.digest);
    }

    pub(super) fn to_blob(blob: &Blob) -> Self {
        let offset = blob
            .stored_node()
            .expect("items are encoded after their blobs are stored")
            .offset;
        Self {
            offset,
            digest: *blob.digest(),
        }
    }
}

/// A memory's root node; no reference for an empty memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryReference {
    pub level: u32,
    pub root: Option<Reference>,
}

impl MemoryReference {
    pub(super) fn to_map(map: &PageMap) -> Self {
        let root = map.root.as_ref().map(|root| Reference {
            offset: root
                .stored_node()
                .expect("items are encoded after their memories are stored")
                .offset,
            digest: map.digest(),
        });
        Self { level: map.level, root }
    }
}

/// An item as a bucket holds it.
pub(super) struct ItemRecord {
    pub key: Vec<u8>,
    pub metadata: Reference,
    pub blobs: Vec<Reference>,
    pub memories: Vec<MemoryReference>,
}

impl ItemRecord {
    pub(super) fn push_to(&self, body: &mut Vec<u8>) {
        for len in [self.key.len(), self.blobs.len(), self.memories.len()] {
            body.extend_from_slice(&(len as u32).to_le_bytes());
        }
        body.extend_from_slice(&self.key);
        self.metadata.push_to(body);
        self.blobs.iter().for_each(|blob| blob.push_to(body));
        for memory in &self.memories {
            // Levels are below 16, so that this value is free.
            body.extend_from_slice(&memory.root.map_or(u32::MAX, |_| memory.level).to_le_bytes());
            memory
                .root
                .unwrap_or(Reference {
                    offset: 0,
                    digest: [0; 32],
                })
                .push_to(body);
        }
    }

    pub(super) fn read_from(reader: &mut Reader<'_>) -> Option<Self> {
        let (key_len, blob_count, memory_count) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let key = reader.take(key_len as usize)?.to_vec();
        let metadata = reader.reference()?;
        let blobs = (0..blob_count).map(|_| reader.reference()).collect::<Option<_>>()?;
        let memories = (0..memory_count)
            .map(|_| {
                let (level, root) = (reader.u32()?, reader.reference()?);
                Some(match level {
                    u32::MAX => MemoryReference { level: 0, root: None },
                    level => MemoryReference {
                        level,
                        root: Some(root),
                    },
                })
            })
            .collect::<Option<_>>()?;
        Some(Self {
            key,
            metadata,
            blobs,
            memories,
        })
    }
}

/// The root of a checkpoint.
pub(super) struct RootRecord {
    pub height: u64,
    pub state_hash: Digest,
    pub system: Reference,
    /// Number and offset of each bucket that is not empty, ascending.
    pub buckets: Vec<(u32, u64)>,
}

impl RootRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(96 + self.buckets.len() * 12);
        body.extend_from_slice(&self.height.to_le_bytes());
        body.extend_from_slice(&self.state_hash);
        self.system.push_to(&mut body);
        for (number, offset) in &self.buckets {
            body.extend_from_slice(&number.to_le_bytes());
            body.extend_from_slice(&offset.to_le_bytes());
        }
        body
    }

    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let (height, state_hash, system) = (reader.u64()?, reader.digest()?, reader.reference()?);
        let mut buckets = Vec::new();
        while !reader.is_empty() {
            buckets.push((reader.u32()?, reader.u64()?));
        }
        let in_order = buckets.is_sorted_by(|one, next| one.0 < next.0)
            && buckets
                .last()
                .is_none_or(|(number, _)| (*number as usize) < BUCKET_COUNT);
        in_order.then_some(Self {
            height,
            state_hash,
            system,
            buckets,
        })
    }
}

/// The bucket of an item.
pub(super) fn bucket_of(key: &[u8]) -> usize {
    let digest = blake3::hash(key);
    let bytes = digest.as_bytes();
    usize::from(u16::from_le_bytes([bytes[0], bytes[1]])) % BUCKET_COUNT
}

/// Takes fields off the front; `None` where the bytes end too soon.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(crate) fn digest(&mut self) -> Option<Digest> {
        self.take(32)?.try_into().ok()
    }

    pub(super) fn reference(&mut self) -> Option<Reference> {
        Some(Reference {
            offset: self.u64()?,
            digest: self.digest()?,
        })
    }
}

const _: () = assert!(NODE_ENTRY_BYTES == 8 + 32);
