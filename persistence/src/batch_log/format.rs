//! The batch log's bytes. FORMAT.md tells the same in prose; a golden test pins it.

use crate::encryption::{NONCE_BYTES, SealingKey, TAG_BYTES};
use crate::error::{PersistenceError, Result};
use std::path::Path;

/// Everything starts at a multiple of this: a block that is durable is never written again.
pub(super) const BLOCK_BYTES: u64 = 4096;
pub(super) const GROUP_HEADER_BYTES: usize = 64;
pub(super) const RECORD_HEADER_BYTES: usize = 16;

const SEGMENT_MAGIC: &[u8; 8] = b"RCBATLOG";
const GROUP_MAGIC: &[u8; 4] = b"RCGP";
const CLEAR_VERSION: u32 = 1;
/// Of a segment whose groups are sealed.
const SEALED_VERSION: u32 = 2;

/// The first block of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub segment: u64,
    pub first_group: u64,
    pub bytes_len: u64,
    pub salt: u64,
    /// Whether the groups are encrypted.
    pub is_sealed: bool,
    /// Whether the file was an earlier segment: then what lies behind the groups is not zeros.
    pub is_reused: bool,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES as usize];
        block[..8].copy_from_slice(SEGMENT_MAGIC);
        let version = if self.is_sealed { SEALED_VERSION } else { CLEAR_VERSION };
        block[8..12].copy_from_slice(&version.to_le_bytes());
        put_u64(&mut block, 16, self.segment);
        put_u64(&mut block, 24, self.first_group);
        put_u64(&mut block, 32, self.bytes_len);
        put_u64(&mut block, 40, self.salt);
        put_u64(&mut block, 48, u64::from(self.is_reused));
        let checksum = crc32fast::hash(&block);
        block[12..16].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    /// `None` where the block is not the intact header of `segment`.
    ///
    /// # Errors
    /// An intact header of a later format version.
    pub(super) fn decode(block: &[u8], segment: u64, file: &Path) -> Result<Option<Self>> {
        let mut unsealed = block.to_vec();
        unsealed[12..16].fill(0);
        if crc32fast::hash(&unsealed) != get_u32(block, 12) || &block[..8] != SEGMENT_MAGIC {
            return Ok(None);
        }
        let version = get_u32(block, 8);
        if ![CLEAR_VERSION, SEALED_VERSION].contains(&version) {
            return Err(PersistenceError::NewerFormat {
                file: file.to_path_buf(),
                found: version,
                supported: SEALED_VERSION,
            });
        }
        let header = Self {
            segment: get_u64(block, 16),
            first_group: get_u64(block, 24),
            bytes_len: get_u64(block, 32),
            salt: get_u64(block, 40),
            is_sealed: version == SEALED_VERSION,
            is_reused: get_u64(block, 48) == 1,
        };
        Ok((header.segment == segment).then_some(header))
    }
}

/// What precedes the records that were made durable together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupHeader {
    pub group: u64,
    pub payload_bytes: u64,
    pub record_count: u32,
    pub payload_checksum: u32,
    pub first_height: u64,
    pub last_height: u64,
    /// Of a sealed payload; zeros otherwise.
    pub nonce: [u8; NONCE_BYTES],
}

/// Where a group is: part of its checksum, so that a group at another place is not mistaken for one that belongs.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupPlace {
    pub segment: u64,
    pub offset: u64,
    pub salt: u64,
}

impl GroupHeader {
    pub(super) fn encode(&self, place: GroupPlace) -> [u8; GROUP_HEADER_BYTES] {
        let mut bytes = [0; GROUP_HEADER_BYTES];
        bytes[..4].copy_from_slice(GROUP_MAGIC);
        put_u64(&mut bytes, 8, self.group);
        put_u64(&mut bytes, 16, self.payload_bytes);
        bytes[24..28].copy_from_slice(&self.record_count.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.payload_checksum.to_le_bytes());
        put_u64(&mut bytes, 32, self.first_height);
        put_u64(&mut bytes, 40, self.last_height);
        bytes[48..48 + NONCE_BYTES].copy_from_slice(&self.nonce);
        let checksum = header_checksum(&bytes, place);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` where the bytes are not an intact header at this place.
    pub(super) fn decode(bytes: &[u8; GROUP_HEADER_BYTES], place: GroupPlace) -> Option<Self> {
        if &bytes[..4] != GROUP_MAGIC || get_u32(bytes, 4) != header_checksum(bytes, place) {
            return None;
        }
        Some(Self {
            group: get_u64(bytes, 8),
            payload_bytes: get_u64(bytes, 16),
            record_count: get_u32(bytes, 24),
            payload_checksum: get_u32(bytes, 28),
            first_height: get_u64(bytes, 32),
            last_height: get_u64(bytes, 40),
            nonce: bytes[48..48 + NONCE_BYTES].try_into().expect("twelve bytes"),
        })
    }

    /// What a sealed payload is bound to.
    fn seal_place(&self, place: GroupPlace) -> [u8; 56] {
        let words = [
            place.segment,
            place.offset,
            place.salt,
            self.group,
            u64::from(self.record_count),
            self.first_height,
            self.last_height,
        ];
        let mut bytes = [0; 56];
        for (target, word) in bytes.chunks_exact_mut(8).zip(words) {
            target.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Encrypts the payload, and says so in the header. The tag belongs behind the payload.
    pub(super) fn seal(&mut self, key: &SealingKey, place: GroupPlace, payload: &mut [u8]) -> [u8; TAG_BYTES] {
        let (nonce, tag) = key.seal(&self.seal_place(place), payload);
        self.nonce = nonce;
        tag
    }

    /// Decrypts a payload with its tag; `None` where it is not what was sealed at this place.
    pub(super) fn open(&self, key: &SealingKey, place: GroupPlace, mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let len = key.open(&self.seal_place(place), self.nonce, &mut sealed)?.len();
        sealed.truncate(len);
        Some(sealed)
    }

    /// Bytes from this group's start to the next one's; `None` for a length that no file has.
    pub(super) fn bytes_on_disk(&self) -> Option<u64> {
        self.payload_bytes
            .checked_add(GROUP_HEADER_BYTES as u64)?
            .checked_next_multiple_of(BLOCK_BYTES)
    }
}

fn header_checksum(bytes: &[u8; GROUP_HEADER_BYTES], place: GroupPlace) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..4]);
    hasher.update(&bytes[8..]);
    for word in [place.segment, place.offset, place.salt] {
        hasher.update(&word.to_le_bytes());
    }
    hasher.finalize()
}

/// Appends a record to a group's payload.
pub(super) fn push_record(payload: &mut Vec<u8>, height: u64, record: &[u8]) {
    payload.extend_from_slice(&height.to_le_bytes());
    payload.extend_from_slice(&(record.len() as u64).to_le_bytes());
    payload.extend_from_slice(record);
    let padding = record.len().next_multiple_of(8) - record.len();
    payload.resize(payload.len() + padding, 0);
}

/// The records of a payload whose checksum is right; `None` where it is not a sequence of records all the same.
pub(super) fn split_records(payload: &[u8], record_count: u32) -> Option<Vec<(u64, &[u8])>> {
    let mut records = Vec::new();
    let mut rest = payload;
    while !rest.is_empty() {
        let (header, beyond) = rest.split_at_checked(RECORD_HEADER_BYTES)?;
        let len = usize::try_from(get_u64(header, 8)).ok()?;
        let (padded, beyond) = beyond.split_at_checked(len.checked_next_multiple_of(8)?)?;
        records.push((get_u64(header, 0), &padded[..len]));
        rest = beyond;
    }
    (records.len() == record_count as usize).then_some(records)
}

fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn get_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn get_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
