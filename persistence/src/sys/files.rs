//! System calls on files that std has no name for.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// Reserves disk space for the first `len` bytes of `file` and extends it to that length, reading as zeros.
///
/// # Errors
/// What fallocate says, above all a full disk.
pub(crate) fn allocate(file: &File, len: u64) -> io::Result<()> {
    let len = libc::off_t::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    loop {
        // SAFETY: a plain system call on a descriptor that `file` keeps open.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            // A file system without preallocation: a longer file does, only less quickly.
            Some(libc::EOPNOTSUPP) => return file.set_len(len as u64),
            _ => return Err(error),
        }
    }
}

/// Asks the kernel to begin writing a range of `file` to the disk. A hint, without which the next sync takes longer;
/// failures of the disk are left to that.
pub(crate) fn begin_writeback(file: &File, offset: u64, len: u64) {
    let _hint = sync_range(file, offset, len, libc::SYNC_FILE_RANGE_WRITE);
}

/// Waits until the disk has taken a range of `file`.
///
/// # Errors
/// A failure of the disk since the last sync. The kernel reports it once: a later sync may succeed.
pub(crate) fn await_writeback(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let whole = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    match sync_range(file, offset, len, whole) {
        // A file system or a file that knows no such thing.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESPIPE | libc::EINVAL | libc::ENOSYS)) => Ok(()),
        result => result,
    }
}

/// The same file once more, to be written past the kernel's cache; `None` where the file system doesn't know how.
pub(crate) fn open_past_cache(file: &File) -> Option<File> {
    // By its descriptor and not by a name, which may be another's by now.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .ok()
}

/// Asks the kernel to read a range of `file` into its cache. A hint.
pub(crate) fn begin_read(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (libc::off_t::try_from(offset), libc::off_t::try_from(len)) else {
        return;
    };
    // SAFETY: a plain system call on a descriptor that `file` keeps open.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, len, libc::POSIX_FADV_WILLNEED) };
}

fn sync_range(file: &File, offset: u64, len: u64, flags: libc::c_uint) -> io::Result<()> {
    let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let offset = libc::off64_t::try_from(offset).map_err(too_large)?;
    let len = libc::off64_t::try_from(len).map_err(too_large)?;
    // SAFETY: a plain system call on a descriptor that `file` keeps open.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes the advisory lock of `file` without waiting: true where it is ours now, false where another process has it.
/// The lock goes with the last descriptor of the open file.
///
/// # Errors
/// What flock says, other than that the lock is held.
pub(crate) fn try_lock(file: &File) -> io::Result<bool> {
    loop {
        // SAFETY: a plain system call on a descriptor that `file` keeps open.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EWOULDBLOCK) => return Ok(false),
            _ => return Err(error),
        }
    }
}
