//! A group while it is gathered, and its bytes as they go to disk.

use super::format::{BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, GroupPlace, push_record};
use crate::encryption::{NONCE_BYTES, SealingKey};
use crc32fast::Hasher;

/// Large groups are written in pieces of this, so that the disk works on one while the next is gathered.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// Records that wait for the next sync, as they will be written.
#[derive(Debug)]
pub(super) struct PendingGroup {
    /// Unused bytes up to a page boundary in memory, then the group: the kernel copies from a buffer that is not aligned
    /// like its own pages at less than half the speed.
    bytes: Vec<u8>,
    start: usize,
    pub record_count: u32,
    first_height: u64,
    /// The checksum of the payload up to `checked`, an index of `bytes`.
    checksum: Hasher,
    checked: usize,
    /// What is on its way to the disk before the sync.
    pub ahead: Option<Ahead>,
}

/// Pieces of a group that were written before it was whole. Its first block is not among them: without the header there,
/// nothing of the group is readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ahead {
    /// The segment, and where the group begins in it.
    pub segment: u64,
    pub offset: u64,
    /// Bytes of the group up to here are written, but for the first block.
    pub end: usize,
}

impl PendingGroup {
    pub(super) fn new() -> Self {
        let mut bytes: Vec<u8> = Vec::with_capacity(KEPT_BYTES_MAX + BLOCK_BYTES as usize);
        let start = bytes
            .as_ptr()
            .align_offset(BLOCK_BYTES as usize)
            .min(BLOCK_BYTES as usize);
        bytes.resize(start + GROUP_HEADER_BYTES, 0);
        Self {
            checked: bytes.len(),
            bytes,
            start,
            record_count: 0,
            first_height: 0,
            checksum: Hasher::new(),
            ahead: None,
        }
    }

    /// Bytes of the group so far, its header included.
    pub(super) fn bytes_len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn push(&mut self, height: u64, record: &[u8]) {
        if self.record_count == 0 {
            self.first_height = height;
        }
        self.record_count += 1;
        push_record(&mut self.bytes, height, record);
    }

    /// The whole pieces so far.
    pub(super) fn pieces_end(&self) -> usize {
        self.bytes_len() / PIECE_BYTES * PIECE_BYTES
    }

    /// Bytes of the group, counted from its start.
    pub(super) fn bytes(&self, from: usize, to: usize) -> &[u8] {
        &self.bytes[self.start + from..self.start + to]
    }

    /// What of the group is written where it begins at `offset` of `segment`: bytes from its second block on, or none.
    pub(super) fn written_at(&self, segment: u64, offset: u64) -> usize {
        let there = self
            .ahead
            .filter(|ahead| (ahead.segment, ahead.offset) == (segment, offset));
        there.map_or(BLOCK_BYTES as usize, |ahead| ahead.end)
    }

    /// Takes the payload up to `end` of the group into the checksum. What was checked does not change any more.
    pub(super) fn check_until(&mut self, end: usize) {
        let end = self.start + end;
        if end > self.checked {
            self.checksum.update(&self.bytes[self.checked..end]);
            self.checked = end;
        }
    }

    /// Completes the group for `place`: header, records, sealed where there is a key, zeros to the end of its last block.
    pub(super) fn finish(&mut self, group: u64, last_height: u64, place: GroupPlace, key: Option<&SealingKey>) {
        let payload_start = self.start + GROUP_HEADER_BYTES;
        let mut header = GroupHeader {
            group,
            payload_bytes: 0,
            record_count: self.record_count,
            payload_checksum: 0,
            first_height: self.first_height,
            last_height,
            nonce: [0; NONCE_BYTES],
        };
        if let Some(key) = key {
            let tag = header.seal(key, place, &mut self.bytes[payload_start..]);
            self.bytes.extend_from_slice(&tag);
        }
        self.check_until(self.bytes_len());
        header.payload_bytes = (self.bytes.len() - payload_start) as u64;
        header.payload_checksum = self.checksum.clone().finalize();
        self.bytes[self.start..payload_start].copy_from_slice(&header.encode(place));
        let padded = self.bytes_len().next_multiple_of(BLOCK_BYTES as usize);
        self.bytes.resize(self.start + padded, 0);
    }

    /// An empty group, in the same buffer unless that has grown large.
    pub(super) fn emptied(mut self) -> Self {
        if self.bytes.capacity() > KEPT_BYTES_MAX + BLOCK_BYTES as usize {
            return Self::new();
        }
        self.bytes.truncate(self.start + GROUP_HEADER_BYTES);
        Self {
            checked: self.bytes.len(),
            record_count: 0,
            checksum: Hasher::new(),
            ahead: None,
            ..self
        }
    }
}

/// The group buffer keeps this much between groups.
const KEPT_BYTES_MAX: usize = 16 << 20;
