//! Read-only mappings of append-only files.

use crate::page_map::Page;
use memmap2::{Mmap, MmapOptions};
use replicore_types::OS_PAGE_BYTES;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::OnceLock;

/// A file is mapped in windows of this size, each when it is first needed. A window may reach beyond the end of the
/// file: what is appended later appears in it, so that a growing file needs no new mapping per checkpoint.
pub(crate) const WINDOW_BYTES: u64 = 1 << 30;

/// Windows per file: 4 TiB, eight times the largest state.
const WINDOWS_MAX: usize = 4096;

/// A file that only grows, readable in place. Nothing is ever overwritten before `readable` end, which is what makes
/// references into it sound; unlinking the file leaves the mapping whole.
pub(crate) struct MappedFile {
    file: File,
    windows: Box<[OnceLock<Mmap>]>,
}

impl MappedFile {
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            windows: (0..WINDOWS_MAX).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Maps what lies before `end`, so that `bytes` below it cannot fail.
    ///
    /// # Errors
    /// When the file is shorter than `end`, too large, or cannot be mapped.
    pub(crate) fn ensure(&self, end: u64) -> io::Result<()> {
        if self.file.metadata()?.len() < end {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file is shorter than its commit record says",
            ));
        }
        let windows = usize::try_from(end.div_ceil(WINDOW_BYTES)).unwrap_or(usize::MAX);
        if windows > WINDOWS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the file is larger than 4 TiB",
            ));
        }
        for (number, window) in self.windows[..windows].iter().enumerate() {
            if window.get().is_some() {
                continue;
            }
            let mut options = MmapOptions::new();
            options.offset(number as u64 * WINDOW_BYTES).len(WINDOW_BYTES as usize);
            // SAFETY: the state directory is locked, the file is ours, and this process only appends to it; bytes
            // before the committed end never change. Bytes beyond the end of the file are never touched: readers ask
            // only for ranges before a committed end that was checked against the file's length above.
            let map = unsafe { options.map(&self.file)? };
            let _ = window.set(map);
        }
        Ok(())
    }

    /// The bytes at `offset`, as far as they lie in one window that is mapped.
    pub(crate) fn bytes(&self, offset: u64, len: usize) -> Option<&[u8]> {
        let window = self.windows.get(usize::try_from(offset / WINDOW_BYTES).ok()?)?.get()?;
        let start = (offset % WINDOW_BYTES) as usize;
        window.get(start..start.checked_add(len)?)
    }

    /// The page at `offset`.
    pub(crate) fn page(&self, offset: u64) -> Option<&Page> {
        self.bytes(offset, OS_PAGE_BYTES)?.try_into().ok()
    }
}

impl fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MappedFile({:?})", self.file)
    }
}

/// True where a record of `len` bytes at `offset` would straddle two windows: writers skip to the next window.
pub(crate) fn straddles(offset: u64, len: u64) -> bool {
    len > 0 && offset / WINDOW_BYTES != (offset + len - 1) / WINDOW_BYTES
}
