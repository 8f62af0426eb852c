//! Segment files that were truncated away and are used again.
//!
//! The first write to a reserved block changes the file's metadata, and every sync then waits for that too: a log of new
//! files takes less than half of what the disk gives to blocks that were written before. A file passes from one segment to
//! the next under a name that readers don't look at, and is given the next segment's header there, so that a file that is
//! called a segment always has its header.

use super::format::SegmentHeader;
use super::prepare::{READY_PREFIX, Source, ready_name, unready_name};
use super::reader::Segment;
use crate::disk::{CrashPoint, Disk, DiskFile};
use crate::error::{PersistenceError, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Spare files that are kept: 512 MiB of segments of the usual size, which is what a busy log takes between two
/// truncations.
const SPARES_MAX: usize = 8;

/// The spare files of a log.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<Spare>);

#[derive(Debug)]
pub(super) struct Spare {
    pub path: PathBuf,
    pub bytes_len: u64,
    /// Every block below was written; for those of an earlier process it is not known.
    pub written_end: u64,
    /// It was never a segment and holds nothing but zeros.
    pub is_zeros: bool,
}

impl Spare {
    fn is_prepared(&self) -> bool {
        self.written_end >= self.bytes_len
    }
}

/// A spare file that has become a segment.
pub(super) struct Reused {
    pub file: Arc<dyn DiskFile>,
    pub written_end: u64,
    /// Old groups may lie behind the new ones.
    pub has_old_bytes: bool,
}

impl Spares {
    /// Finds those that an earlier process left, and removes the ones beyond the bound.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn open(disk: &dyn Disk, directory: &Path) -> Result<Self> {
        let names = disk.list(directory).map_err(PersistenceError::io(directory, "list"))?;
        let mut spares = Self::default();
        for name in names.iter().filter(|name| name.ends_with(SUFFIX)) {
            let path = directory.join(name);
            if spares.0.len() == SPARES_MAX {
                disk.remove(&path).map_err(PersistenceError::io(&path, "remove"))?;
                continue;
            }
            let file = disk.open(&path).map_err(PersistenceError::io(&path, "open"))?;
            let bytes_len = file.bytes_len().map_err(PersistenceError::io(&path, "read"))?;
            let is_prepared = name.starts_with(READY_PREFIX);
            spares.0.push(Spare {
                path,
                bytes_len,
                written_end: if is_prepared { bytes_len } else { 0 },
                is_zeros: is_prepared,
            });
        }
        Ok(spares)
    }

    /// Takes back a file that was prepared.
    pub(super) fn add(&mut self, spare: Spare) {
        self.0.push(spare);
    }

    /// What to prepare so that there is a file of written blocks for the next segment: nothing where there is one.
    pub(super) fn next_to_prepare(&mut self, directory: &Path, bytes_len: u64) -> Option<Source> {
        let usual = |spare: &Spare| spare.bytes_len == bytes_len;
        if self.0.iter().any(|spare| usual(spare) && spare.is_prepared()) {
            return None;
        }
        if let Some(position) = self.0.iter().position(usual) {
            return Some(Source::Spare(self.0.swap_remove(position)));
        }
        let names = |number| [unready_name(number), ready_name(number)].map(|name| directory.join(name));
        let is_free = |number: &u64| {
            let names = names(*number);
            self.0.iter().all(|spare| !names.contains(&spare.path))
        };
        let number = (0..SPARES_MAX as u64).find(is_free)?;
        (self.0.len() < SPARES_MAX).then(|| Source::New(number, directory.to_path_buf(), bytes_len))
    }

    /// Bytes of the files.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|spare| spare.bytes_len).sum()
    }

    /// Takes a segment out of the log, durably: keeps its file where it has the usual size, nobody reads it and there is
    /// room, and removes it otherwise.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn retire(
        &mut self,
        disk: &dyn Disk,
        directory: &Path,
        segment: Segment,
        usual_bytes: u64,
    ) -> Result<()> {
        let bytes_len = segment.header.bytes_len;
        // A reader that is under way goes on in the file that it has opened.
        let is_read = Arc::strong_count(&segment.file) > 1;
        if is_read || bytes_len != usual_bytes || self.0.len() >= SPARES_MAX {
            disk.remove(&segment.path)
                .map_err(PersistenceError::io(&segment.path, "remove"))?;
        } else {
            let path = segment.path.with_extension(&SUFFIX[1..]);
            disk.rename(&segment.path, &path)
                .map_err(PersistenceError::io(&segment.path, "rename"))?;
            self.0.push(Spare {
                path,
                bytes_len,
                written_end: segment.written_end,
                is_zeros: false,
            });
        }
        disk.reached(CrashPoint::SegmentRetired);
        disk.sync_directory(directory)
            .map_err(PersistenceError::io(directory, "sync"))
    }

    /// Makes a spare file the segment of this header, durably, if there is one of its length.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn reuse(&mut self, disk: &dyn Disk, header: &SegmentHeader, path: &Path) -> Result<Option<Reused>> {
        let fitting = self.0.iter().enumerate();
        let fitting = fitting.filter(|(_, spare)| spare.bytes_len == header.bytes_len);
        let Some((position, _)) = fitting.max_by_key(|(_, spare)| spare.written_end) else {
            return Ok(None);
        };
        let spare = self.0.swap_remove(position);
        let file = disk
            .open(&spare.path)
            .map_err(PersistenceError::io(&spare.path, "open"))?;
        let header = SegmentHeader {
            is_reused: !spare.is_zeros,
            ..*header
        };
        file.write_at(&header.encode(), 0)
            .map_err(PersistenceError::io(&spare.path, "write"))?;
        file.sync().map_err(PersistenceError::io(&spare.path, "sync"))?;
        disk.rename(&spare.path, path)
            .map_err(PersistenceError::io(&spare.path, "rename"))?;
        let file = disk.open(path).map_err(PersistenceError::io(path, "open"))?;
        Ok(Some(Reused {
            file,
            written_end: spare.written_end,
            has_old_bytes: !spare.is_zeros,
        }))
    }
}

/// How names of spare files end.
pub(super) const SUFFIX: &str = ".spare";
