//! The commit thread: a round becomes visible once its batch is durable and its root is signed.
//!
//! For every round two things arrive, in this order: the batch, when the round starts, and the state, when it ended. So
//! the disk works while canisters run. What arrived meanwhile shares one sync (group commit).

use crate::certification::RootKey;
use crate::checkpoints::CheckpointQueue;
use crate::failure::Failure;
use crate::follow::{Entry, Feed};
use crate::outside::OutsideCalls;
use crate::pool::IngressPool;
use crate::snapshot::{CertifiedSnapshot, Published};
use crate::spans::{Spans, Stage};
use crate::waiters::Waiters;
use crossbeam::channel::{Receiver, Sender, bounded};
use replicore_netstack::{AnswersTogether, CallReply};
use replicore_persistence::{BatchLog, PersistenceError};
use replicore_scheduler::{ReplicatedState, RoundStats};
use replicore_types::{Batch, MessageId};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Rounds that may wait for the commit thread: enough to overlap executing with committing, few enough to bound what a
/// slow disk holds back.
const ROUNDS_WAITING_MAX: usize = 4;
/// Rounds whose result nobody can see yet: one that is executed, those that wait, and those of the group that is being
/// committed.
pub const UNPUBLISHED_ROUNDS_MAX: usize = 2 * ROUNDS_WAITING_MAX + 2;
/// Answers that wake the network threads together: as many as are made in some hundred microseconds.
const ANSWERS_TOGETHER: usize = 64;
/// How often waiting callers are checked for their deadline.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(50);

/// The record of one batch in the log: the root of the certified tree before it, which replay compares, and the batch.
pub fn encode_record(root_before: &[u8; 32], batch: &Batch) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_stdvec(&(root_before, batch))
}

/// Reads what [`encode_record`] wrote.
pub fn decode_record(bytes: &[u8]) -> Result<([u8; 32], Batch), postcard::Error> {
    postcard::from_bytes(bytes)
}

/// A round that was executed.
pub struct Committed {
    /// The state after it.
    pub state: ReplicatedState,
    /// What it did.
    pub statistics: RoundStats,
}

/// The commit thread is gone: it failed, and the replica stops.
#[derive(Debug)]
pub struct Gone;

enum Work {
    Log(Arc<Batch>),
    Certify(Box<Committed>),
}

/// The way to the commit thread.
#[derive(Clone)]
pub struct CommitQueue(Sender<Work>);

impl CommitQueue {
    /// Hands over a batch whose round starts now.
    pub fn log(&self, batch: Arc<Batch>) -> Result<(), Gone> {
        self.0.send(Work::Log(batch)).map_err(|_| Gone)
    }

    /// Hands over the round's result.
    pub fn certify(&self, committed: Committed) -> Result<(), Gone> {
        self.0.send(Work::Certify(Box::new(committed))).map_err(|_| Gone)
    }
}

/// What the commit thread owns.
pub struct Commit {
    /// The log.
    pub log: BatchLog,
    /// Signs roots.
    pub root_key: Arc<RootKey>,
    /// Root of the state before the next batch.
    pub root: [u8; 32],
    /// Batches below this height are in a durable checkpoint and need not be kept.
    pub truncate_below: Arc<AtomicU64>,
    /// Bytes logged since the process started.
    pub log_bytes: u64,
    /// Where certified states are published.
    pub published: Arc<Published>,
    /// Callers waiting for certificates.
    pub waiters: Arc<Waiters>,
    /// Where the messages of the rounds come from: it learns when they are published.
    pub pool: Arc<IngressPool>,
    /// Gets every certified state and decides whether to write it out.
    pub checkpoints: CheckpointQueue,
    /// Gets every certified state and begins the calls to the outside in it.
    pub outside: OutsideCalls,
    /// Gets every batch, once it is durable and certified, where there may be followers.
    pub feed: Option<Arc<Feed>>,
    /// Batches that are logged and not yet certified, for the feed.
    pub uncertified: VecDeque<Vec<u8>>,
    /// Where messages are traced.
    pub spans: Option<Arc<Spans>>,
    /// The sampled messages of batches that are logged and not yet certified.
    pub sampled: VecDeque<Vec<MessageId>>,
    /// Learns why the thread ends, where it ends early.
    pub failure: Arc<Failure>,
}

/// The queue to a commit thread that is started with the receiving end.
pub fn queue() -> (CommitQueue, CommitReceiver) {
    let (sender, receiver) = bounded(2 * ROUNDS_WAITING_MAX);
    (CommitQueue(sender), CommitReceiver(receiver))
}

/// The receiving end of a [`CommitQueue`].
pub struct CommitReceiver(Receiver<Work>);

impl Commit {
    /// Works until every sender is gone or the log fails. On failure nothing more is acknowledged.
    pub fn run(mut self, receiver: CommitReceiver) {
        let _watch = self.failure.watch("commit");
        if let Err(error) = self.serve(&receiver.0) {
            self.failure.set(format!("a batch could not be made durable: {error}"));
        }
    }

    fn serve(&mut self, work: &Receiver<Work>) -> Result<(), CommitError> {
        loop {
            match work.recv_timeout(EXPIRY_INTERVAL) {
                Ok(Work::Log(batch)) => {
                    let begin = self.spans.as_ref().map(|_| Instant::now());
                    self.append(&batch)?;
                    self.log_bytes += self.log.sync()?.map_or(0, |report| report.bytes_written);
                    if let (Some(spans), Some(begin)) = (&self.spans, begin) {
                        let sampled = spans.sampled(&batch);
                        spans.record_all(&sampled, Stage::Log, begin);
                        self.sampled.push_back(sampled);
                    }
                }
                Ok(Work::Certify(committed)) => {
                    let begin = self.spans.as_ref().map(|_| Instant::now());
                    self.publish(*committed);
                    if let (Some(spans), Some(begin)) = (&self.spans, begin) {
                        let sampled = self.sampled.pop_front().unwrap_or_default();
                        spans.record_all(&sampled, Stage::Certify, begin);
                    }
                    self.truncate()?;
                }
                Err(crossbeam::channel::RecvTimeoutError::Timeout) => {}
                Err(crossbeam::channel::RecvTimeoutError::Disconnected) => return Ok(()),
            }
            self.waiters.expire(Instant::now());
        }
    }

    fn append(&mut self, batch: &Batch) -> Result<(), CommitError> {
        let bytes = encode_record(&self.root, batch).map_err(CommitError::Encoding)?;
        self.log.append(batch.height.0, &bytes)?;
        if self.feed.is_some() {
            self.uncertified.push_back(bytes);
        }
        Ok(())
    }

    fn feed_followers(&mut self, snapshot: &CertifiedSnapshot) {
        let (Some(feed), Some(record)) = (&self.feed, self.uncertified.pop_front()) else {
            return;
        };
        feed.push(Entry {
            height: snapshot.state.metadata.height.0,
            record,
            root: *snapshot.root_hash(),
            signature: *snapshot.root().signature(),
        });
    }

    fn truncate(&mut self) -> Result<(), CommitError> {
        match self.truncate_below.swap(0, Ordering::AcqRel) {
            0 => Ok(()),
            height => Ok(self.log.truncate_before(height)?),
        }
    }

    /// The batch of this round is durable (its `Log` came before): sign, publish, answer.
    ///
    /// Publishing comes before looking who waits: a caller registers and then looks at what is published, so that one
    /// of the two always sees the other.
    fn publish(&mut self, committed: Committed) {
        let Committed { state, statistics } = committed;
        // Taking a state apart that nobody needs any more takes a while: that comes after the answers.
        let _previous = self.published.load();
        self.checkpoints.offer(&state, self.log_bytes);
        let snapshot = CertifiedSnapshot::certify(state, &self.root_key);
        self.root = *snapshot.root_hash();
        let snapshot = self.published.store(snapshot);
        self.outside.notice(&snapshot);
        self.feed_followers(&snapshot);
        for ids in self.waiters.awaited(&statistics.finished).chunks(ANSWERS_TOGETHER) {
            let _together = AnswersTogether::begin();
            ids.iter().for_each(|id| self.answer(id, &snapshot));
        }
        // Making the answers is a part of what callers wait for.
        self.pool.published();
        tracing::debug!(
            height = statistics.height.0,
            messages = statistics.messages_executed,
            "round committed"
        );
    }

    /// Answers all who wait for the certificate of a message.
    fn answer(&self, id: &MessageId, snapshot: &CertifiedSnapshot) {
        let certificate = snapshot.request_status_certificate(id);
        let mut waiting = self.waiters.take(id).into_iter();
        let last = waiting.next_back();
        waiting.for_each(|respond| respond(CallReply::Certificate(certificate.clone())));
        if let Some(respond) = last {
            respond(CallReply::Certificate(certificate));
        }
    }
}

/// Why the commit thread stops.
#[derive(Debug)]
enum CommitError {
    Persistence(PersistenceError),
    Encoding(postcard::Error),
}

impl fmt::Display for CommitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Persistence(error) => error.fmt(f),
            Self::Encoding(error) => write!(f, "a batch cannot be encoded: {error}"),
        }
    }
}

impl From<PersistenceError> for CommitError {
    fn from(error: PersistenceError) -> Self {
        Self::Persistence(error)
    }
}
