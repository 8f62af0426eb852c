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
//! An opened log never writes into an old segment, so that no byte that is still needed is at risk again. The files of
//! segments that are needed no more become new segments: the disk is fastest where it has written before.

mod format;
mod group;
mod prepare;
mod reader;
mod spares;
#[cfg(test)]
mod tests;

pub use reader::LogTail;

use crate::disk::{CrashPoint, Disk};
use crate::encryption::{Cipher, SealingKey, TAG_BYTES};
use crate::error::{PersistenceError, Result};
use format::{BLOCK_BYTES, GroupPlace, RECORD_HEADER_BYTES, SegmentHeader};
use group::{Ahead, PIECE_BYTES, PendingGroup};
use prepare::Preparation;
use reader::{GroupReader, Segment, open_segments, segment_name};
use spares::{Reused, Spares};
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
    /// Whether a thread of the log writes the next segment's blocks with zeros while this one fills. For who writes
    /// a log, not for who looks at one.
    pub prepare_ahead: bool,
}

impl Default for BatchLogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            salt: 0,
            prepare_ahead: false,
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
    spares: Spares,
    /// The next spare file, where one is being made ready.
    preparation: Option<Preparation>,
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
    /// Every block up to here was written, if only with zeros. Reserved space that was never written costs a change of
    /// the file's metadata with every sync, more than twice the time of a small group.
    zeros_end: u64,
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
            preparation: None,
            spares: Spares::open(&*disk, directory)?,
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

    /// Adds a record to the group that the next `sync` makes durable. Of a large group the disk begins to write what is
    /// there.
    ///
    /// # Errors
    /// A height that does not increase, a group that grows too large, or an earlier failure, with nothing changed; or what
    /// the disk says, after which the log refuses everything.
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
        let begun = group.ahead.map_or(0, |ahead| ahead.end);
        if self.cipher.is_none() && group.pieces_end() > begun {
            let written = self.write_ahead();
            self.poisoning(written)?;
        }
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

    /// Takes away whole segments whose records are all below `height`, oldest first. Some of their files are kept, to be
    /// used again.
    ///
    /// # Errors
    /// What the disk says. From then on the log refuses everything.
    pub fn truncate_before(&mut self, height: u64) -> Result<()> {
        self.check_poison()?;
        let removed = self.remove_before(height);
        self.poisoning(removed)
    }

    /// Bytes of the log's files on disk, those that wait to be used again included.
    pub fn bytes_on_disk(&self) -> u64 {
        let segments = self.segments.iter().map(|segment| segment.header.bytes_len);
        segments.sum::<u64>() + self.spares.bytes()
    }

    /// Number of segments.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    fn remove_before(&mut self, height: u64) -> Result<()> {
        while let Some(oldest) = self.segments.front() {
            // The last segment stays: it carries the group number on.
            if self.segments.len() == 1 || oldest.last_height.is_some_and(|last| last >= height) {
                break;
            }
            let Some(oldest) = self.segments.pop_front() else { break };
            // One by one: a crash that kept an older segment and lost a younger one would look like damage.
            self.spares
                .retire(&*self.disk, &self.directory, oldest, self.usual_segment_bytes())?;
        }
        Ok(())
    }

    /// Writes the whole pieces of the pending group that are not written yet, where it will lie if it still fits there.
    fn write_ahead(&mut self) -> Result<()> {
        let Some(mut group) = self.group.take() else {
            return Ok(());
        };
        let end = group.pieces_end();
        if group.ahead.is_some() && !self.has_room(end as u64) {
            // It goes to a segment of its own size, which shows at the sync.
            self.group = Some(group);
            return Ok(());
        }
        self.make_room(end as u64)?;
        let offset = self.writing.as_ref().map_or(0, |writing| writing.offset);
        let segment = self.segments.back_mut().expect("room was made in it");
        let written = group.written_at(segment.header.segment, offset);
        group.check_until(end);
        write_pieces(segment, offset, written, group.bytes(written, end))?;
        group.ahead = Some(Ahead {
            segment: segment.header.segment,
            offset,
            end,
        });
        self.disk.reached(CrashPoint::GroupWrittenAhead);
        self.group = Some(group);
        Ok(())
    }

    fn write_group(&mut self, group: &mut PendingGroup, last_height: u64) -> Result<u64> {
        let tag_bytes = self.cipher.as_ref().map_or(0, |_| TAG_BYTES);
        let bytes_needed = ((group.bytes_len() + tag_bytes) as u64).next_multiple_of(BLOCK_BYTES);
        self.make_room(bytes_needed)?;
        let mut writing = self.writing.take().expect("room was made");
        let segment = self.segments.back_mut().expect("room was made in it");
        let place = GroupPlace {
            segment: segment.header.segment,
            offset: writing.offset,
            salt: segment.header.salt,
        };
        group.finish(self.next_group, last_height, place, segment.key.as_deref());
        if group.ahead.is_some() {
            let written = group.written_at(place.segment, place.offset);
            write_pieces(
                segment,
                place.offset,
                written,
                group.bytes(written, bytes_needed as usize),
            )?;
            write_pieces(segment, place.offset, 0, group.bytes(0, FIRST_BLOCK))?;
        } else {
            write_pieces(segment, place.offset, 0, group.bytes(0, bytes_needed as usize))?;
        }
        let zeros = writing.advance(bytes_needed);
        if !zeros.is_empty() {
            let bytes = vec![0; (zeros.end - zeros.start) as usize];
            segment
                .file
                .write_at(&bytes, zeros.start)
                .map_err(PersistenceError::io(&segment.path, "write"))?;
        }
        self.disk.reached(CrashPoint::GroupWritten);
        segment
            .file
            .sync()
            .map_err(PersistenceError::io(&segment.path, "sync"))?;
        self.disk.reached(CrashPoint::GroupSynced);
        segment.last_height = Some(last_height);
        segment.written_end = writing.zeros_end;
        self.next_group += 1;
        let wants_next = writing.offset >= writing.end / PREPARE_AHEAD_PART;
        self.writing = Some(writing);
        if wants_next {
            self.prepare_ahead();
        }
        Ok(bytes_needed)
    }

    /// Starts a segment where the last one has no room for a group of so many bytes.
    fn make_room(&mut self, bytes_needed: u64) -> Result<()> {
        if !self.has_room(bytes_needed) {
            self.writing = Some(self.start_segment(bytes_needed)?);
        }
        Ok(())
    }

    fn has_room(&self, bytes_needed: u64) -> bool {
        let fits = |writing: &Writing| writing.offset + bytes_needed <= writing.end;
        self.writing.as_ref().is_some_and(fits)
    }

    fn usual_segment_bytes(&self) -> u64 {
        self.options.segment_bytes.next_multiple_of(BLOCK_BYTES)
    }

    /// Creates the next segment, durable before anything is written to it, and returns where its first group goes.
    fn start_segment(&mut self, bytes_needed: u64) -> Result<Writing> {
        let mut header = SegmentHeader {
            segment: self.next_segment,
            first_group: self.next_group,
            bytes_len: self.usual_segment_bytes().max(BLOCK_BYTES + bytes_needed),
            salt: self.options.salt,
            is_sealed: self.cipher.is_some(),
            is_reused: false,
        };
        let path = self.directory.join(segment_name(header.segment));
        self.take_prepared();
        let reused = self.spares.reuse(&*self.disk, &header, &path)?;
        header.is_reused = reused.as_ref().is_some_and(|reused| reused.has_old_bytes);
        let Reused { file, written_end, .. } = match reused {
            Some(reused) => reused,
            None => self.create_segment(&header, &path)?,
        };
        self.disk.reached(CrashPoint::SegmentHeaderSynced);
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
            written_end,
        });
        Ok(Writing {
            offset: BLOCK_BYTES,
            end: header.bytes_len,
            zeros_end: written_end.max(BLOCK_BYTES),
        })
    }

    fn create_segment(&self, header: &SegmentHeader, path: &Path) -> Result<Reused> {
        let file = self.disk.create(path).map_err(PersistenceError::io(path, "create"))?;
        file.allocate(header.bytes_len)
            .map_err(PersistenceError::io(path, "reserve space for"))?;
        file.write_at(&header.encode(), 0)
            .map_err(PersistenceError::io(path, "write"))?;
        file.sync().map_err(PersistenceError::io(path, "sync"))?;
        Ok(Reused {
            file,
            written_end: 0,
            has_old_bytes: false,
        })
    }

    /// Takes what was made ready to the spare files, if it is.
    fn take_prepared(&mut self) {
        if let Some(preparation) = self.preparation.take_if(|preparation| preparation.is_finished())
            && let Some(spare) = preparation.finish()
        {
            self.spares.add(spare);
        }
    }

    /// Lets the next segment's file be made ready, where none is and nobody is at it.
    fn prepare_ahead(&mut self) {
        if !self.options.prepare_ahead || self.preparation.is_some() {
            return;
        }
        let usual_bytes = self.usual_segment_bytes();
        if let Some(source) = self.spares.next_to_prepare(&self.directory, usual_bytes) {
            self.preparation = Preparation::start(&self.disk, source);
        }
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

/// Writes bytes of a group that begins at `offset`, from byte `from` of the group on, and lets the disk begin with each
/// piece.
fn write_pieces(segment: &Segment, offset: u64, from: usize, bytes: &[u8]) -> Result<()> {
    let mut at = offset + from as u64;
    for piece in bytes.chunks(PIECE_BYTES) {
        segment
            .file
            .write_at(piece, at)
            .map_err(PersistenceError::io(&segment.path, "write"))?;
        segment.file.begin_sync(at, piece.len() as u64);
        at += piece.len() as u64;
    }
    Ok(())
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

/// When this part of a segment is full the next one's file is prepared: so late that a log of little doesn't need one, so
/// early that a log of much has it in time.
const PREPARE_AHEAD_PART: u64 = 8;
/// What of a group that was written ahead follows last.
const FIRST_BLOCK: usize = BLOCK_BYTES as usize;
/// Zeros are written this far ahead at a time: seldom enough that one group in some hundred pays for it.
const ZEROS_BYTES: u64 = 4 << 20;
