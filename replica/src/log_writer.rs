//! The log thread: makes batches durable while their rounds run and while rounds before them are certified.
//!
//! Batches that came while the disk was busy share one sync (group commit): the slower the disk, the more of them.

use crate::failure::Failure;
use crate::spans::{Spans, Stage};
use crossbeam::channel::{Receiver, Sender};
use replicore_persistence::{BatchLog, PersistenceError};
use replicore_types::{Batch, MessageId};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The record of one batch in the log: the root of the certified tree before it, which replay compares, and the batch.
pub fn encode_record(root_before: &[u8; 32], batch: &Batch) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_stdvec(&(root_before, batch))
}

/// Reads what [`encode_record`] wrote.
pub fn decode_record(bytes: &[u8]) -> Result<([u8; 32], Batch), postcard::Error> {
    postcard::from_bytes(bytes)
}

/// A batch on its way into the log.
pub struct ToLog {
    /// Root of the state that the batch is for.
    pub root_before: [u8; 32],
    /// The batch.
    pub batch: Arc<Batch>,
}

/// A batch that is durable.
pub struct Logged {
    /// Bytes logged since the process started.
    pub log_bytes: u64,
    /// Its record, where followers may want it.
    pub record: Option<Vec<u8>>,
    /// Its sampled messages, where messages are traced.
    pub sampled: Vec<MessageId>,
}

/// What the log thread owns.
pub struct LogWriter {
    /// The log.
    pub log: BatchLog,
    /// Batches below this height are in a durable checkpoint and need not be kept.
    pub truncate_below: Arc<AtomicU64>,
    /// Bytes logged since the process started.
    pub log_bytes: u64,
    /// Whether there may be followers.
    pub has_followers: bool,
    /// Where messages are traced.
    pub spans: Option<Arc<Spans>>,
    /// Learns why the thread ends, where it ends early.
    pub failure: Arc<Failure>,
}

impl LogWriter {
    /// Works until no batch can come any more, nobody wants to know what is durable, or the log fails: then nothing more is
    /// durable.
    pub fn run(mut self, batches: &Receiver<ToLog>, durable: &Sender<Logged>) {
        let _watch = self.failure.watch("log");
        if let Err(error) = self.serve(batches, durable) {
            self.failure.set(format!("a batch could not be made durable: {error}"));
        }
    }

    fn serve(&mut self, batches: &Receiver<ToLog>, durable: &Sender<Logged>) -> Result<(), LogError> {
        while let Ok(first) = batches.recv() {
            let begin = Instant::now();
            // The channel is short, and so is the group.
            let group = std::iter::once(first).chain(batches.try_iter());
            let mut logged = group.map(|one| self.append(&one)).collect::<Result<Vec<_>, _>>()?;
            self.log_bytes += self.log.sync()?.map_or(0, |report| report.bytes_written);
            for one in logged.drain(..) {
                if let Some(spans) = &self.spans {
                    spans.record_all(&one.sampled, Stage::Log, begin);
                }
                let log_bytes = self.log_bytes;
                if durable.send(Logged { log_bytes, ..one }).is_err() {
                    return Ok(());
                }
            }
            self.truncate()?;
        }
        Ok(())
    }

    fn append(&mut self, ToLog { root_before, batch }: &ToLog) -> Result<Logged, LogError> {
        let bytes = encode_record(root_before, batch).map_err(LogError::Encoding)?;
        self.log.append(batch.height.0, &bytes)?;
        let spans = self.spans.as_ref();
        Ok(Logged {
            log_bytes: self.log_bytes,
            record: self.has_followers.then_some(bytes),
            sampled: spans.map(|spans| spans.sampled(batch)).unwrap_or_default(),
        })
    }

    fn truncate(&mut self) -> Result<(), LogError> {
        match self.truncate_below.swap(0, Ordering::AcqRel) {
            0 => Ok(()),
            height => Ok(self.log.truncate_before(height)?),
        }
    }
}

/// Why the log thread stops.
#[derive(Debug)]
enum LogError {
    Persistence(PersistenceError),
    Encoding(postcard::Error),
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Persistence(error) => error.fmt(f),
            Self::Encoding(error) => write!(f, "a batch cannot be encoded: {error}"),
        }
    }
}

impl From<PersistenceError> for LogError {
    fn from(error: PersistenceError) -> Self {
        Self::Persistence(error)
    }
}
