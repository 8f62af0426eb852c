//! What the disk alone leaves to whoever is answered once something is durable.

use crate::BenchError;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Bytes of the file, written once before the clock starts, so that no sync has a size or new blocks to write down.
const FILE_BYTES: usize = 32 * 1024 * 1024;
/// Bytes that a message takes in a record.
const MESSAGE_BYTES: f64 = 200.0;

/// A file that is written and synced again and again, by nobody but us, on the disk that states are on.
pub(super) struct DiskFloor {
    file: File,
    /// Where the next group goes.
    offset: usize,
}

impl DiskFloor {
    pub(super) fn new() -> Result<Self, BenchError> {
        let file = tempfile::tempfile().map_err(BenchError::new)?;
        file.write_all_at(&vec![0; FILE_BYTES], 0).map_err(BenchError::new)?;
        file.sync_all().map_err(BenchError::new)?;
        Ok(Self { file, offset: 0 })
    }

    /// Nanoseconds that the share `quantile` of messages does not exceed, from when they are due, `rate` a second, until the
    /// first sync that begins after that is over; each sync begins when the one before is over and has what came
    /// meanwhile.
    pub(super) fn latency_at(&mut self, quantile: f64, rate: f64, duration: Duration) -> Result<u64, BenchError> {
        let (start, interval) = (Instant::now(), Duration::from_secs_f64(1.0 / rate));
        let (mut due, mut latencies) = (Duration::ZERO, Vec::new());
        while start.elapsed() < duration {
            let begin = start.elapsed();
            let waiting = begin.saturating_sub(due).as_secs_f64() * rate;
            let group = vec![1; ((waiting + 1.0) * MESSAGE_BYTES) as usize % (FILE_BYTES / 4)];
            if self.offset + group.len() > FILE_BYTES {
                self.offset = 0;
            }
            self.file
                .write_all_at(&group, self.offset as u64)
                .map_err(BenchError::new)?;
            self.offset += group.len();
            self.file.sync_data().map_err(BenchError::new)?;
            let end = start.elapsed();
            while due <= begin {
                latencies.push((end - due).as_nanos() as u64);
                due += interval;
            }
        }
        latencies.sort_unstable();
        let index = (latencies.len().saturating_sub(1)) as f64 * quantile;
        Ok(latencies.get(index.round() as usize).copied().unwrap_or(0))
    }
}
