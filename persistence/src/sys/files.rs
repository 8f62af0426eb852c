//! System calls on files that std has no name for.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

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

/// Asks the kernel to begin writing a range of `file` to the disk.
pub(crate) fn begin_writeback(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (libc::off64_t::try_from(offset), libc::off64_t::try_from(len)) else {
        return;
    };
    // SAFETY: a plain system call on a descriptor that `file` keeps open. It is a hint: a failure of the disk is reported
    // by the sync that follows, which is the one that counts.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
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
