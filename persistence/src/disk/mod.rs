//! The seam between this crate and the file system: real files, or real files under a recorder that can fail and can
//! show every state a crash may leave.

mod file;
mod points;
mod sim;

pub use file::FileDisk;
pub use points::CrashPoint;
pub use sim::{Operation, SimDisk};

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What the batch log and the checkpoint store need of a file system.
///
/// A file's content is durable after [`DiskFile::sync`], its name after [`Disk::sync_directory`].
pub trait Disk: Send + Sync + Debug {
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// What the file system says.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a file that must not exist.
    ///
    /// # Errors
    /// What the file system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Removes a file's name. Open handles and mappings stay whole.
    ///
    /// # Errors
    /// What the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Gives a file another name in the same directory, where none has it. A crash leaves one of the two names. Handles
    /// stay valid.
    ///
    /// # Errors
    /// What the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// The names of the files in a directory, sorted.
    ///
    /// # Errors
    /// What the file system says.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Makes creations, removals and new names in a directory durable.
    ///
    /// # Errors
    /// What the file system says.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;

    /// Hears that the log or a checkpoint is at a point where a crash means something. Nothing, on a real disk.
    fn reached(&self, _point: CrashPoint) {}
}

/// An open file.
pub trait DiskFile: Send + Sync + Debug {
    /// Length in bytes.
    ///
    /// # Errors
    /// What the file system says.
    fn bytes_len(&self) -> io::Result<u64>;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// What the file system says; `UnexpectedEof` where the file ends before.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, extending the file as needed.
    ///
    /// # Errors
    /// What the file system says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reserves space for the first `len` bytes; new ones read as zeros.
    ///
    /// # Errors
    /// What the file system says, above all a full disk.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Lets the disk begin with what was written at `offset`, so that a later [`DiskFile::sync`] finds less to do. Promises
    /// nothing: a failure shows at the sync.
    fn begin_sync(&self, _offset: u64, _len: u64) {}

    /// Waits until the disk has taken what [`DiskFile::begin_sync`] began in this range; it is durable only after a
    /// sync. Who writes much waits now and then, so that the syncs of others find a short queue.
    ///
    /// # Errors
    /// What the file system says. The sync may not say it again.
    fn await_begun(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }

    /// Writes all of `bytes` at `offset` and returns when the disk has taken them, where the file system can do that past
    /// the kernel's cache; they are durable only after a sync. For much at a time: it leaves the kernel nothing to write
    /// later, which the syncs of others would wait for.
    ///
    /// # Errors
    /// What the file system says.
    fn write_past_cache(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_at(bytes, offset)?;
        self.begin_sync(offset, bytes.len() as u64);
        Ok(())
    }

    /// Lets the disk read what will be read soon. Promises nothing.
    fn begin_read(&self, _offset: u64, _len: u64) {}

    /// Makes the content durable.
    ///
    /// # Errors
    /// What the file system says. After an error, what is on disk is unknown.
    fn sync(&self) -> io::Result<()>;

    /// A handle to map the file with.
    ///
    /// # Errors
    /// What the file system says.
    fn mappable(&self) -> io::Result<File>;
}
