//! Real files.

use super::{Disk, DiskFile};
use crate::sys::files;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileDisk;

impl Disk for FileDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile::new(file)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(RealFile::new(file)))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            // Names that are not text are not ours.
            names.extend(entry?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }
}

/// A file of the operating system.
#[derive(Debug)]
struct RealFile {
    file: File,
    /// The same file, written past the kernel's cache; `None` where the file system doesn't let us.
    past_cache: OnceLock<Option<File>>,
}

impl RealFile {
    fn new(file: File) -> Self {
        Self {
            file,
            past_cache: OnceLock::new(),
        }
    }

    /// Writes past the cache: false where that cannot be, with nothing changed that a usual write would not put right.
    fn try_past_cache(&self, bytes: &[u8], offset: u64) -> io::Result<bool> {
        let Some(file) = self.past_cache.get_or_init(|| files::open_past_cache(&self.file)) else {
            return Ok(false);
        };
        match file.write_all_at(bytes, offset) {
            Ok(()) => Ok(true),
            // What is not aligned as this disk wants it.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl DiskFile for RealFile {
    fn bytes_len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        files::allocate(&self.file, len)
    }

    fn begin_sync(&self, offset: u64, len: u64) {
        files::begin_writeback(&self.file, offset, len);
    }

    fn await_begun(&self, offset: u64, len: u64) -> io::Result<()> {
        files::await_writeback(&self.file, offset, len)
    }

    fn write_past_cache(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.try_past_cache(bytes, offset)? {
            return Ok(());
        }
        self.write_at(bytes, offset)?;
        self.begin_sync(offset, bytes.len() as u64);
        Ok(())
    }

    fn begin_read(&self, offset: u64, len: u64) {
        files::begin_read(&self.file, offset, len);
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn mappable(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_past_the_cache_is_read_through_it_whatever_its_alignment() {
        let directory = tempfile::tempdir().unwrap();
        let file = FileDisk.create(&directory.path().join("file")).unwrap();
        file.allocate(64 << 10).unwrap();
        let bytes: Vec<u8> = (0..40_000).map(|at| (at % 251) as u8).collect();
        let mut before = vec![1; 64 << 10];
        file.read_at(&mut before, 0).unwrap();
        // At the start of a page in memory and on the disk, at neither, and in the middle of what was written.
        for (from, len, offset) in [(0, 8_192, 4_096), (3, 777, 13), (1, 4_096, 8_192), (5, 30_000, 20_001)] {
            file.write_past_cache(&bytes[from..from + len], offset).unwrap();
            let mut read = vec![0; len];
            file.read_at(&mut read, offset).unwrap();
            assert_eq!(read, bytes[from..from + len]);
        }
        file.sync().unwrap();
    }
}
