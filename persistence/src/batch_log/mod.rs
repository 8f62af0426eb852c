//! The batch log: every batch durable before its replies leave.
//!
//! ```text
//! log/0000000000000007.segment    one preallocated file after another
//!   header | group 41 | group 42 | ... | zeros
//!            └─ records that one sync made durable, whole or not at all
//! ```
//!
//! One thread owns the log: it appends what has arrived, syncs once, reports, and takes what has arrived meanwhile.
//! After a failure nothing more is written: what the disk holds is known again only after a restart.
//! An opened log never writes into an old segment, so that no byte that was ever durable is at risk again.

mod format;
mod reader;
#[cfg(test)]
mod tests;

pub use reader::LogTail;

use crate::disk::Disk;
use crate::encryption::{Cipher, NONCE_BYTES, SealingKey, TAG_BYTES};
use crate::error::{PersistenceError, Result};
use format::{
    BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, GroupPlace, RECORD_HEADER_BYTES, SegmentHeader, push_record,
};
use reader::{GroupReader, Segment, open_segments, segment_name};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that may wait for one sync: what a recovering reader takes into memory at once.
pub const GROUP_BYTES_MAX: usize = 1 << 30;

/// How a log is laid out.
#[derive(Clone, Copy, Debug)]
pub struct BatchLogOptions {
    /// Size of a segment file. Larger ones are created less often, smaller ones deleted sooner. A group that is
    /// larger gets a segment of its own size.
    pub segment_bytes: u64,
    /// A number that senders of messages cannot guess. It goes into every checksum, so that nobody can hide a forged
    /// group in a message.
    pub salt: u64,
}

impl Default for BatchLogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            salt: 0,
        }
    }
}

/// What a sync made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncReport {
    /// Records in the group.
    pub record_count: u32,
    /// The height of the last one.
    pub last_height: u64,
    /// Bytes written, padding included.
    pub bytes_written: u64,
}

/// An open log. Heights of records strictly increase.
#[derive(Debug)]
pub struct BatchLog {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    options: BatchLogOptions,
    /// There where the log is encrypted.
    cipher: Option<Cipher>,
    segments: VecDeque<Segment>,
    writing: Option<Writing>,
    next_group: u64,
    next_segment: u64,
    last_height: Option<u64>,
    /// Taken while it is written, and for good by a failure.
    group: Option<PendingGroup>,
    /// The failure after which nothing more is written.
    poison: Option<(PathBuf, String)>,
}

/// The place of the next group, in the last of the segments.
#[derive(Debug)]
struct Writing {
    offset: u64,
    end: u64,
    /// Zeros are on disk up to here. Reserved space that was never written costs a change of the file's metadata with
    /// every sync, more than twice the time of a small group.
    zeros_end: u64,
}

/// Records that wait for the next sync, as they will be written.
#[derive(Debug)]
struct PendingGroup {
    /// Unused bytes up to a page boundary in memory, then the group: the kernel copies from a buffer that is not aligned
    /// like its own pages at less than half the speed.
    bytes: Vec<u8>,
    start: usize,
    record_count: u32,
    first_height: u64,
}

impl BatchLog {
    /// Opens the log in `directory`, which exists, checks it to its tail and reports where that is.
    ///
    /// # Errors
    /// What the disk says, or damage before the tail.
    pub fn open(disk: Arc<dyn Disk>, directory: &Path, options: BatchLogOptions) -> Result<(Self, LogTail)> {
        Self::open_with(disk, directory, options, None)
    }

    /// The same, encrypted where there is a cipher; a log is one or the other for all its life.
    ///
    /// # Errors
    /// As for [`BatchLog::open`]; [`PersistenceError::NoKey`] for an encrypted log without a cipher. To another cipher
    /// everything is damaged.
    pub fn open_with(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: BatchLogOptions,
        cipher: Option<&Cipher>,
    ) -> Result<(Self, LogTail)> {
        let mut reader = GroupReader::new(open_segments(&*disk, directory, cipher)?, 0);
        let mut last_height = None;
        while let Some(group) = reader.next_group()? {
            last_height = Some(group.header.last_height);
            let current = reader.current;
            reader.segments[current].last_height = last_height;
        }
        let tail = reader.tail()?;
        let next_group = reader.next_group_number();
        let next_segment = reader.segments.last().map_or(0, |segment| segment.header.segment + 1);
        let log = Self {
            disk,
            directory: directory.to_path_buf(),
            options,
            cipher: cipher.cloned(),
            segments: reader.segments.into(),
            writing: None,
            next_group,
            next_segment,
            last_height,
            group: Some(PendingGroup::new()),
            poison: None,
        };
        Ok((log, tail))
    }

    /// The height of the last durable record, where the log holds one.
    pub fn last_height(&self) -> Option<u64> {
        self.segments.iter().rev().find_map(|segment| segment.last_height)
    }

    /// Adds a record to the group that the next `sync` makes durable.
    ///
    /// # Errors
    /// A height that does not increase, a group that grows too large, or an earlier failure.
    pub fn append(&mut self, height: u64, record: &[u8]) -> Result<()> {
        self.check_poison()?;
        if let Some(last) = self.last_height.filter(|last| *last >= height) {
            let what = format!("a batch of height {height} after one of height {last}");
            return Err(PersistenceError::refused(&self.directory, what));
        }
        let Some(group) = &mut self.group else { return Ok(()) };
        if group.bytes_len() + RECORD_HEADER_BYTES + record.len() + 8 > GROUP_BYTES_MAX {
            let what = format!("more than {GROUP_BYTES_MAX} bytes of batches in one sync");
            return Err(PersistenceError::refused(&self.directory, what));
        }
        group.push(height, record);
        self.last_height = Some(height);
        Ok(())
    }

    /// Makes everything appended durable: one write, one fdatasync. `None` where nothing was appended.
    ///
    /// # Errors
    /// What the disk says. From then on the log refuses everything.
    pub fn sync(&mut self) -> Result<Option<SyncReport>> {
        self.check_poison()?;
        let Some(last_height) = self
            .last_height
            .filter(|_| self.group.as_ref().is_some_and(|group| group.record_count > 0))
        else {
            return Ok(None);
        };
        let Some(mut group) = self.group.take() else {
            return Ok(None);
        };
        let written = self.write_group(&mut group, last_height);
        let bytes_written = self.poisoning(written)?;
        let record_count = group.record_count;
        self.group = Some(group.emptied());
        Ok(Some(SyncReport {
            record_count,
            last_height,
            bytes_written,
        }))
    }

    /// The durable records of `height` and above, in order. Reads the files as it goes.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read_from(&self, height: u64) -> Result<LogRecords> {
        let needed = self
            .segments
            .iter()
            .position(|segment| segment.last_height.is_some_and(|last| last >= height));
        let segments: Vec<Segment> = self.segments.iter().cloned().collect();
        let first = needed.unwrap_or(segments.len());
        Ok(LogRecords {
            reader: GroupReader::new(segments, first),
            from: height,
            ready: VecDeque::new(),
        })
    }

    /// Deletes whole segments whose records are all below `height`, oldest first.
    ///
    /// # Errors
    /// What the disk says. From then on the log refuses everything.
    pub fn truncate_before(&mut self, height: u64) -> Result<()> {
        self.check_poison()?;
        let removed = self.remove_before(height);
        self.poisoning(removed)
    }

    /// Bytes of the segment files on disk.
    pub fn bytes_on_disk(&self) -> u64 {
        self.segments.iter().map(|segment| segment.header.bytes_len).sum()
    }

    /// Number of segment files.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    fn remove_before(&mut self, height: u64) -> Result<()> {
        while let Some(oldest) = self.segments.front() {
            // The last segment stays: it carries the group number on.
            if self.segments.len() == 1 || oldest.last_height.is_some_and(|last| last >= height) {
                break;
            }
            self.disk
                .remove(&oldest.path)
                .map_err(PersistenceError::io(&oldest.path, "remove"))?;
            // One by one: a crash that kept an older segment and lost a younger one would look like damage.
            self.disk
                .sync_directory(&self.directory)
                .map_err(PersistenceError::io(&self.directory, "sync"))?;
            self.segments.pop_front();
        }
        Ok(())
    }

    fn write_group(&mut self, group: &mut PendingGroup, last_height: u64) -> Result<u64> {
        let tag_bytes = self.cipher.as_ref().map_or(0, |_| TAG_BYTES);
        let bytes_needed = ((group.bytes_len() + tag_bytes) as u64).next_multiple_of(BLOCK_BYTES);
        let mut writing = match self.writing.take() {
            Some(writing) if writing.offset + bytes_needed <= writing.end => writing,
            _ => self.start_segment(bytes_needed)?,
        };
        let segment = self.segments.back_mut().expect("a segment was started");
        let place = GroupPlace {
            segment: segment.header.segment,
            offset: writing.offset,
            salt: segment.header.salt,
        };
        let bytes = group.finish(self.next_group, last_height, place, segment.key.as_deref());
        for (number, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            let offset = writing.offset + (number * PIECE_BYTES) as u64;
            segment
                .file
                .write_at(piece, offset)
                .map_err(PersistenceError::io(&segment.path, "write"))?;
            segment.file.begin_sync(offset, piece.len() as u64);
        }
        let zeros = writing.advance(bytes_needed);
        if !zeros.is_empty() {
            let bytes = vec![0; (zeros.end - zeros.start) as usize];
            segment
                .file
                .write_at(&bytes, zeros.start)
                .map_err(PersistenceError::io(&segment.path, "write"))?;
        }
        segment
            .file
            .sync()
            .map_err(PersistenceError::io(&segment.path, "sync"))?;
        segment.last_height = Some(last_height);
        self.next_group += 1;
        self.writing = Some(writing);
        Ok(bytes_needed)
    }

    /// Creates the next segment, durable before anything is written to it, and returns where its first group goes.
    fn start_segment(&mut self, bytes_needed: u64) -> Result<Writing> {
        let header = SegmentHeader {
            segment: self.next_segment,
            first_group: self.next_group,
            bytes_len: self
                .options
                .segment_bytes
                .max(BLOCK_BYTES + bytes_needed)
                .next_multiple_of(BLOCK_BYTES),
            salt: self.options.salt,
            is_sealed: self.cipher.is_some(),
        };
        let path = self.directory.join(segment_name(header.segment));
        let file = self.disk.create(&path).map_err(PersistenceError::io(&path, "create"))?;
        file.allocate(header.bytes_len)
            .map_err(PersistenceError::io(&path, "reserve space for"))?;
        file.write_at(&header.encode(), 0)
            .map_err(PersistenceError::io(&path, "write"))?;
        file.sync().map_err(PersistenceError::io(&path, "sync"))?;
        self.disk
            .sync_directory(&self.directory)
            .map_err(PersistenceError::io(&self.directory, "sync"))?;
        self.next_segment += 1;
        self.segments.push_back(Segment {
            header,
            path,
            file,
            key: segment_key(self.cipher.as_ref(), header.segment),
            last_height: None,
        });
        Ok(Writing {
            offset: BLOCK_BYTES,
            end: header.bytes_len,
            zeros_end: BLOCK_BYTES,
        })
    }

    fn check_poison(&self) -> Result<()> {
        match &self.poison {
            Some((file, earlier)) => Err(PersistenceError::Poisoned {
                file: file.clone(),
                earlier: earlier.clone(),
            }),
            None => Ok(()),
        }
    }

    fn poisoning<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.poison = Some((self.directory.clone(), error.to_string()));
        }
        result
    }
}

impl Writing {
    /// Moves behind a group. The zeros to write there: none where there are some, nor behind a large group, for which
    /// metadata doesn't matter.
    fn advance(&mut self, group_bytes: u64) -> std::ops::Range<u64> {
        self.offset += group_bytes;
        if self.offset < self.zeros_end || group_bytes >= PIECE_BYTES as u64 {
            self.zeros_end = self.zeros_end.max(self.offset);
            return 0..0;
        }
        self.zeros_end = (self.offset + ZEROS_BYTES).min(self.end);
        self.offset..self.zeros_end
    }
}

impl PendingGroup {
    fn new() -> Self {
        let mut bytes: Vec<u8> = Vec::with_capacity(KEPT_BYTES_MAX + BLOCK_BYTES as usize);
        let start = bytes
            .as_ptr()
            .align_offset(BLOCK_BYTES as usize)
            .min(BLOCK_BYTES as usize);
        bytes.resize(start + GROUP_HEADER_BYTES, 0);
        Self {
            bytes,
            start,
            record_count: 0,
            first_height: 0,
        }
    }

    /// Bytes of the group so far, its header included.
    fn bytes_len(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn push(&mut self, height: u64, record: &[u8]) {
        if self.record_count == 0 {
            self.first_height = height;
        }
        self.record_count += 1;
        push_record(&mut self.bytes, height, record);
    }

    /// The group as it goes to `place`: header, records, sealed where there is a key, zeros to the end of its last block.
    fn finish(&mut self, group: u64, last_height: u64, place: GroupPlace, key: Option<&SealingKey>) -> &[u8] {
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
        let payload = &self.bytes[payload_start..];
        header.payload_bytes = payload.len() as u64;
        header.payload_checksum = crc32fast::hash(payload);
        self.bytes[self.start..self.start + GROUP_HEADER_BYTES].copy_from_slice(&header.encode(place));
        let padded = self.bytes_len().next_multiple_of(BLOCK_BYTES as usize);
        self.bytes.resize(self.start + padded, 0);
        &self.bytes[self.start..]
    }

    /// An empty group, in the same buffer unless that has grown large.
    fn emptied(mut self) -> Self {
        if self.bytes.capacity() > KEPT_BYTES_MAX + BLOCK_BYTES as usize {
            return Self::new();
        }
        self.bytes.truncate(self.start + GROUP_HEADER_BYTES);
        self.record_count = 0;
        self
    }
}

/// The key of a segment's groups, where the log is encrypted.
fn segment_key(cipher: Option<&Cipher>, segment: u64) -> Option<Arc<SealingKey>> {
    cipher.map(|cipher| Arc::new(cipher.key("segment", segment)))
}

/// Records in order, read group by group. After an error it ends.
pub struct LogRecords {
    reader: GroupReader,
    from: u64,
    ready: VecDeque<(u64, Vec<u8>)>,
}

impl Iterator for LogRecords {
    type Item = Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() {
            match self.read_group() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.reader.segments.clear();
                    return Some(Err(error));
                }
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

impl LogRecords {
    fn read_group(&mut self) -> Result<bool> {
        let Some(group) = self.reader.next_group()? else {
            return Ok(false);
        };
        if group.header.last_height >= self.from {
            let path = &self.reader.segments[self.reader.current].path;
            let records = group
                .records(path)?
                .into_iter()
                .filter(|(height, _)| *height >= self.from);
            self.ready
                .extend(records.map(|(height, record)| (height, record.to_vec())));
        }
        Ok(true)
    }
}

/// The group buffer keeps this much between groups.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// Large groups are written in pieces of this, so that the disk works on one while the next is copied.
const PIECE_BYTES: usize = 1 << 20;
/// Zeros are written this far ahead at a time: seldom enough that one group in some hundred pays for it.
const ZEROS_BYTES: u64 = 4 << 20;
