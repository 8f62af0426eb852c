//! Files of blocks that are all written, made ready in the background for the segments to come.
//!
//! A block that is only reserved costs the sync that follows its first write a change of the file's metadata: several
//! milliseconds beside a checkpoint. So while a segment fills, the next one's file is written with zeros: a new one, or
//! what is left of one that is used again. Where the disk is too slow or too full for that the log goes on as it would
//! without.

use super::spares::{SUFFIX, Spare};
use crate::disk::{Disk, DiskFile};
use crate::sys::thread::work_in_background;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Zeros are written this many at a time: a sync of the log waits for one such piece at most.
const PIECE_BYTES: u64 = 1 << 20;

/// A file that is being written with zeros. Dropping it waits until the thread has let go of the file.
#[derive(Debug)]
pub(super) struct Preparation {
    thread: Option<JoinHandle<io::Result<Spare>>>,
    is_unwanted: Arc<AtomicBool>,
}

impl Preparation {
    /// Starts on a new file, or on the rest of a spare one; `None` where there is no thread to be had.
    pub(super) fn start(disk: &Arc<dyn Disk>, source: Source) -> Option<Self> {
        let is_unwanted = Arc::new(AtomicBool::new(false));
        let (disk, unwanted) = (Arc::clone(disk), Arc::clone(&is_unwanted));
        let thread = std::thread::Builder::new().name("log-prepare".to_owned());
        let thread = thread.spawn(move || {
            work_in_background();
            prepare(&*disk, source, &unwanted)
        });
        Some(Self {
            thread: Some(thread.ok()?),
            is_unwanted,
        })
    }

    pub(super) fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// The file, once it is ready; `None` where the disk refused, which matters only when the log itself meets it.
    pub(super) fn finish(mut self) -> Option<Spare> {
        self.thread.take()?.join().ok()?.ok()
    }
}

impl Drop for Preparation {
    fn drop(&mut self) {
        self.is_unwanted.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _nobody_wants_it = thread.join();
        }
    }
}

/// What becomes a file of written blocks.
pub(super) enum Source {
    /// A file with this number in its name, in this directory, and so long; it is not there.
    New(u64, PathBuf, u64),
    /// A spare one.
    Spare(Spare),
}

fn prepare(disk: &dyn Disk, source: Source, unwanted: &AtomicBool) -> io::Result<Spare> {
    match source {
        Source::Spare(spare) => {
            let file = disk.open(&spare.path)?;
            let written = write_zeros(&*file, spare.written_end, spare.bytes_len, unwanted);
            let written_end = written.inspect_err(|_| remove(disk, &spare.path))?;
            Ok(Spare { written_end, ..spare })
        }
        Source::New(number, directory, bytes_len) => {
            let path = directory.join(unready_name(number));
            let file = disk.create(&path)?;
            let written = file
                .allocate(bytes_len)
                .and_then(|()| write_zeros(&*file, 0, bytes_len, unwanted));
            let mut spare = Spare {
                written_end: written.inspect_err(|_| remove(disk, &path))?,
                path,
                bytes_len,
                is_zeros: true,
            };
            if spare.written_end == bytes_len {
                let ready = directory.join(ready_name(number));
                disk.rename(&spare.path, &ready)?;
                spare.path = ready;
            }
            Ok(spare)
        }
    }
}

/// The space is more welcome elsewhere. Where even that fails, the next start finds the file.
fn remove(disk: &dyn Disk, path: &Path) {
    let _best_effort = disk.remove(path);
}

/// What a new file is called until it is durable as a whole.
pub(super) fn unready_name(number: u64) -> String {
    format!("preparing-{number}{SUFFIX}")
}

/// What it is called then: every later process knows by the name that its blocks are written.
pub(super) fn ready_name(number: u64) -> String {
    format!("{READY_PREFIX}{number}{SUFFIX}")
}

/// How the names of files begin that were prepared and never a segment.
pub(super) const READY_PREFIX: &str = "prepared-";

/// Writes zeros from `start` to `end`, durably, and returns how far it came: to the end unless nobody wants it any more.
fn write_zeros(file: &dyn DiskFile, start: u64, end: u64, unwanted: &AtomicBool) -> io::Result<u64> {
    // Aligned as writes past the cache have to be.
    let mut buffer: Vec<u8> = vec![0; (2 * PIECE_BYTES) as usize];
    let from = buffer
        .as_ptr()
        .align_offset(PIECE_BYTES as usize)
        .min(PIECE_BYTES as usize);
    let zeros = &mut buffer[from..][..PIECE_BYTES as usize];
    let mut at = start;
    while at < end && !unwanted.load(Ordering::Relaxed) {
        // The first piece ends where whole pieces go on.
        let next = (at + 1).next_multiple_of(PIECE_BYTES).min(end);
        file.write_past_cache(&zeros[..(next - at) as usize], at)?;
        at = next;
    }
    file.sync()?;
    Ok(at)
}
