//! The paths of the disk whose cost is counted.

use super::{Stored, open_log};
use crate::BenchError;
use crate::counts::Step;

/// Changed pages of the checkpoint that is counted.
pub(crate) const CHECKPOINT_PAGES: u64 = 256;
/// Pages of the memory.
const MEMORY_PAGES: u64 = 4_096;
const RECORD_BYTES: usize = 1_024;

/// A batch appended to the log and synced.
pub(crate) fn log_batch() -> Result<Step, BenchError> {
    let directory = tempfile::tempdir().map_err(BenchError::new)?;
    let mut log = open_log(&directory.path().join("log"))?;
    let mut height = 0;
    Ok(Box::new(move || {
        // Kept as long as the log is.
        let _directory = &directory;
        height += 1;
        log.append(height, &[height as u8; RECORD_BYTES])
            .map_err(BenchError::new)?;
        log.sync().map(drop).map_err(BenchError::new)
    }))
}

/// A checkpoint of a memory with changed pages.
pub(crate) fn checkpoint() -> Result<Step, BenchError> {
    let mut stored = Stored::new(MEMORY_PAGES)?;
    Ok(Box::new(move || {
        let places = stored.memory.places(CHECKPOINT_PAGES);
        stored.memory.commit(&places);
        stored.checkpoint().map(drop)
    }))
}
