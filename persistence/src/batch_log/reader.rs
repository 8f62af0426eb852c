//! Reading the batch log: whole groups in order, up to the tail.
//!
//! A group is written only after the one before it is durable. So an unreadable group with a later one behind it was
//! durable once and is damage; an unreadable group with nothing behind it is the torn tail of a crash, and nothing in
//! it was ever acknowledged.

use super::format::{BLOCK_BYTES, GROUP_HEADER_BYTES, GroupHeader, GroupPlace, SegmentHeader, split_records};
use super::segment_key;
use crate::disk::{Disk, DiskFile};
use crate::encryption::{Cipher, SealingKey};
use crate::error::{PersistenceError, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An intact segment file.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub header: SegmentHeader,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    /// There where its groups are sealed.
    pub key: Option<Arc<SealingKey>>,
    /// The height of its last record, once known.
    pub last_height: Option<u64>,
    /// Every block below was written, as far as this process knows.
    pub written_end: u64,
}

/// Where the readable log ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogTail {
    /// The segment file; `None` where the log has none.
    pub file: Option<PathBuf>,
    /// The first byte after the last readable group.
    pub offset: u64,
    /// True where something unreadable follows: a write that a crash cut off. It was never acknowledged. In a file that
    /// was an earlier segment, where old bytes follow anyway, a cut-off write shows only if its first block arrived.
    pub torn: bool,
}

/// A group's records, whole and checked.
pub(super) struct Group {
    pub header: GroupHeader,
    pub payload: Vec<u8>,
}

impl Group {
    pub(super) fn records(&self, place: &Path) -> Result<Vec<(u64, &[u8])>> {
        split_records(&self.payload, self.header.record_count)
            .ok_or_else(|| PersistenceError::damaged(place, 0, "a group with a right checksum holds wrong records"))
    }
}

/// Walks the groups of a log.
pub(super) struct GroupReader {
    pub segments: Vec<Segment>,
    /// The segment read now.
    pub current: usize,
    offset: u64,
    expected: u64,
}

impl GroupReader {
    /// Starts at the `first` of `segments`.
    pub(super) fn new(segments: Vec<Segment>, first: usize) -> Self {
        let expected = segments.get(first).map_or(0, |segment| segment.header.first_group);
        Self {
            segments,
            current: first,
            offset: BLOCK_BYTES,
            expected,
        }
    }

    /// The number of the group that would follow what was read.
    pub(super) fn next_group_number(&self) -> u64 {
        self.expected
    }

    /// The next group; `None` at the tail.
    pub(super) fn next_group(&mut self) -> Result<Option<Group>> {
        while let Some(segment) = self.segments.get(self.current) {
            if let Some(group) = read_group(segment, self.offset, self.expected)? {
                // `read_group` has read that many bytes, so the sum exists.
                self.offset += group.header.bytes_on_disk().unwrap_or(BLOCK_BYTES);
                self.expected += 1;
                return Ok(Some(group));
            }
            match self.segments.get(self.current + 1) {
                Some(next) if next.header.first_group == self.expected => {
                    self.current += 1;
                    self.offset = BLOCK_BYTES;
                }
                Some(next) => {
                    let what = format!(
                        "batch group {} is missing, and the log goes on with group {} in {}",
                        self.expected,
                        next.header.first_group,
                        next.path.display()
                    );
                    return Err(PersistenceError::damaged(&segment.path, self.offset, what));
                }
                None => return self.check_tail(segment).map(|()| None),
            }
        }
        Ok(None)
    }

    /// Where reading ended. Meaningful after `next_group` returned `None`.
    pub(super) fn tail(&self) -> Result<LogTail> {
        let Some(segment) = self.segments.get(self.current) else {
            return Ok(LogTail {
                file: None,
                offset: 0,
                torn: false,
            });
        };
        let torn = if segment.header.is_reused {
            // The header, whether or not the rest is there.
            expected_header(segment, self.offset, self.expected)?.is_some()
        } else {
            !zeros_in(&*segment.file, &segment.path, self.offset)?
        };
        Ok(LogTail {
            file: Some(segment.path.clone()),
            offset: self.offset,
            torn,
        })
    }

    /// Nothing readable may follow the tail.
    fn check_tail(&self, segment: &Segment) -> Result<()> {
        let end = segment
            .file
            .bytes_len()
            .map_err(PersistenceError::io(&segment.path, "read"))?;
        let mut offset = self.offset + BLOCK_BYTES;
        while offset + GROUP_HEADER_BYTES as u64 <= end {
            if let Some(header) = read_header(segment, offset)?
                && header.group > self.expected
            {
                let what = format!(
                    "batch group {} is unreadable, and group {} follows",
                    self.expected, header.group
                );
                return Err(PersistenceError::damaged(&segment.path, self.offset, what));
            }
            offset += BLOCK_BYTES;
        }
        Ok(())
    }
}

/// Opens the segment files of `directory` in order. A last segment that a crash cut off while it was created is
/// removed: nothing was ever written to it.
pub(super) fn open_segments(disk: &dyn Disk, directory: &Path, cipher: Option<&Cipher>) -> Result<Vec<Segment>> {
    let names = disk.list(directory).map_err(PersistenceError::io(directory, "list"))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let mut segments = Vec::new();
    for (position, number) in numbers.iter().enumerate() {
        let path = directory.join(segment_name(*number));
        let file = disk.open(&path).map_err(PersistenceError::io(&path, "open"))?;
        match read_segment_header(&*file, *number, &path)? {
            Some(header) if header.is_sealed && cipher.is_none() => return Err(PersistenceError::NoKey { file: path }),
            Some(header) if !header.is_sealed && cipher.is_some() => {
                let what = "a segment in clear among encrypted ones";
                return Err(PersistenceError::damaged(&path, 0, what));
            }
            Some(header) => segments.push(Segment {
                header,
                path,
                file,
                key: segment_key(cipher, header.segment),
                last_height: None,
                written_end: 0,
            }),
            None if position + 1 == numbers.len() && zeros_in(&*file, &path, BLOCK_BYTES)? => {
                disk.remove(&path).map_err(PersistenceError::io(&path, "remove"))?;
                disk.sync_directory(directory)
                    .map_err(PersistenceError::io(directory, "sync"))?;
            }
            None => return Err(PersistenceError::damaged(&path, 0, "not the header of this segment")),
        }
    }
    Ok(segments)
}

pub(super) fn segment_name(number: u64) -> String {
    format!("{number:016x}.segment")
}

fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16)
        .ok()
        .filter(|number| segment_name(*number) == name)
}

fn read_segment_header(file: &dyn DiskFile, number: u64, path: &Path) -> Result<Option<SegmentHeader>> {
    let len = file.bytes_len().map_err(PersistenceError::io(path, "read"))?;
    if len < BLOCK_BYTES {
        return Ok(None);
    }
    let mut block = vec![0; BLOCK_BYTES as usize];
    file.read_at(&mut block, 0)
        .map_err(PersistenceError::io(path, "read"))?;
    SegmentHeader::decode(&block, number, path)
}

fn read_header(segment: &Segment, offset: u64) -> Result<Option<GroupHeader>> {
    let mut bytes = [0; GROUP_HEADER_BYTES];
    segment
        .file
        .read_at(&mut bytes, offset)
        .map_err(PersistenceError::io(&segment.path, "read"))?;
    Ok(GroupHeader::decode(&bytes, group_place(segment, offset)))
}

fn group_place(segment: &Segment, offset: u64) -> GroupPlace {
    GroupPlace {
        segment: segment.header.segment,
        offset,
        salt: segment.header.salt,
    }
}

/// The header of group `expected`, if it is at `offset`, and the end of the file.
fn expected_header(segment: &Segment, offset: u64, expected: u64) -> Result<Option<(GroupHeader, u64)>> {
    let end = segment
        .file
        .bytes_len()
        .map_err(PersistenceError::io(&segment.path, "read"))?;
    if offset + GROUP_HEADER_BYTES as u64 > end {
        return Ok(None);
    }
    let header = read_header(segment, offset)?.filter(|header| header.group == expected);
    Ok(header.map(|header| (header, end)))
}

/// The group `expected` at `offset`, or `None` where there is no such thing.
fn read_group(segment: &Segment, offset: u64, expected: u64) -> Result<Option<Group>> {
    let Some((header, end)) = expected_header(segment, offset, expected)? else {
        return Ok(None);
    };
    let start = offset + GROUP_HEADER_BYTES as u64;
    // A length beyond the file is a group whose tail is lost; checked before memory is taken for it.
    if start
        .checked_add(header.payload_bytes)
        .is_none_or(|payload_end| payload_end > end)
    {
        return Ok(None);
    }
    let mut payload = vec![0; header.payload_bytes as usize];
    segment
        .file
        .read_at(&mut payload, start)
        .map_err(PersistenceError::io(&segment.path, "read"))?;
    if crc32fast::hash(&payload) != header.payload_checksum {
        return Ok(None);
    }
    let Some(key) = &segment.key else {
        return Ok(Some(Group { header, payload }));
    };
    // The checksum is right, so that this is no write that a crash cut off.
    let opened = header.open(key, group_place(segment, offset), payload);
    let what = "a group is not what was sealed here";
    let payload = opened.ok_or_else(|| PersistenceError::damaged(&segment.path, offset, what))?;
    Ok(Some(Group { header, payload }))
}

/// True where the file holds nothing but zeros from `offset` on.
fn zeros_in(file: &dyn DiskFile, path: &Path, mut offset: u64) -> Result<bool> {
    let end = file.bytes_len().map_err(PersistenceError::io(path, "read"))?;
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut chunk = vec![0; ZEROS.len()];
    while offset < end {
        let len = chunk.len().min((end - offset) as usize);
        file.read_at(&mut chunk[..len], offset)
            .map_err(PersistenceError::io(path, "read"))?;
        if chunk[..len] != ZEROS[..len] {
            return Ok(false);
        }
        offset += len as u64;
    }
    Ok(true)
}
