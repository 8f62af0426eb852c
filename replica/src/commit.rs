//! The commit thread: a round becomes visible once its batch is durable and its root is signed.
//!
//! For every round two things arrive, in this order: the batch, when the round starts, and the state, when it ended. The
//! batch goes to the log thread, so that the disk works while canisters run and while earlier rounds are signed and
//! answered; the state waits here for its batch.

use crate::certification::RootKey;
use crate::checkpoints::CheckpointQueue;
use crate::failure::Failure;
use crate::follow::{Entry, Feed};
use crate::log_writer::{LogWriter, Logged, ToLog};
use crate::outside::OutsideCalls;
use crate::pool::IngressPool;
use crate::snapshot::{CertifiedSnapshot, Published};
use crate::spans::{Spans, Stage};
use crate::waiters::Waiters;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use replicore_netstack::{AnswersTogether, CallReply};
use replicore_scheduler::{ReplicatedState, RoundStats};
use replicore_types::{Batch, MessageId};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Rounds that may wait for the commit thread: enough to overlap executing with committing, few enough to bound what a
/// slow disk holds back.
const ROUNDS_WAITING_MAX: usize = 4;
/// Rounds whose result nobody can see yet: one that is executed, those that wait, and the one that is being committed.
pub const UNPUBLISHED_ROUNDS_MAX: usize = ROUNDS_WAITING_MAX + 2;
/// Answers that wake the network threads together: as many as are made in some hundred microseconds.
const ANSWERS_TOGETHER: usize = 64;
/// How often waiting callers are checked for their deadline.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(50);

/// A round that was executed.
pub struct Committed {
    /// The state after it.
    pub state: ReplicatedState,
    /// What it did.
    pub statistics: RoundStats,
}

/// The commit thread is gone: it or the log failed, and the replica stops.
#[derive(Debug)]
pub struct Gone;

/// The way to the log thread and the commit thread.
#[derive(Clone)]
pub struct CommitQueue {
    to_log: Sender<ToLog>,
    to_certify: Sender<Box<Committed>>,
}

impl CommitQueue {
    /// Hands over a batch whose round starts now, with the root of the state that it is for.
    pub fn log(&self, root_before: [u8; 32], batch: Arc<Batch>) -> Result<(), Gone> {
        self.to_log.send(ToLog { root_before, batch }).map_err(|_| Gone)
    }

    /// Hands over the round's result.
    pub fn certify(&self, committed: Committed) -> Result<(), Gone> {
        self.to_certify.send(Box::new(committed)).map_err(|_| Gone)
    }
}

/// What the commit thread owns.
pub struct Commit {
    /// Makes batches durable, on a thread of its own.
    pub log: LogWriter,
    /// What becomes of a round then.
    pub publisher: Publisher,
}

/// Signs, publishes and answers what is durable.
pub struct Publisher {
    /// Signs roots.
    pub root_key: Arc<RootKey>,
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
    /// Where messages are traced.
    pub spans: Option<Arc<Spans>>,
    /// Learns why the thread ends, where it ends early.
    pub failure: Arc<Failure>,
}

/// The queue to a commit thread that is started with the receiving end.
pub fn queue() -> (CommitQueue, CommitReceiver) {
    let (to_log, batches) = bounded(ROUNDS_WAITING_MAX);
    let (to_certify, rounds) = bounded(ROUNDS_WAITING_MAX);
    (CommitQueue { to_log, to_certify }, CommitReceiver { batches, rounds })
}

/// The receiving end of a [`CommitQueue`].
pub struct CommitReceiver {
    batches: Receiver<ToLog>,
    rounds: Receiver<Box<Committed>>,
}

impl Commit {
    /// Works until every sender is gone or the log fails. On failure nothing more is acknowledged.
    pub fn run(self, receiver: CommitReceiver) {
        let Self { log, mut publisher } = self;
        let CommitReceiver { batches, rounds } = receiver;
        let failure = Arc::clone(&publisher.failure);
        let (durable, logged) = bounded(ROUNDS_WAITING_MAX);
        thread::scope(|scope| {
            // In here: a panic is known before the scope waits for the log thread, which waits for the next batch.
            let _watch = failure.watch("commit");
            let writer = thread::Builder::new().name("log".into());
            // The thread owns its ends of the channels: they close when it ends, and whoever waits at the others learns.
            match writer.spawn_scoped(scope, move || log.run(&batches, &durable)) {
                Ok(_) => publisher.serve(rounds, logged),
                Err(error) => failure.set(format!("start the log thread: {error}")),
            }
        });
    }
}

impl Publisher {
    /// Works until no round can come any more, or no batch becomes durable any more.
    fn serve(&mut self, rounds: Receiver<Box<Committed>>, durable: Receiver<Logged>) {
        loop {
            match rounds.recv_timeout(EXPIRY_INTERVAL) {
                Ok(committed) => {
                    let Ok(mut logged) = durable.recv() else { return };
                    let (sampled, begin) = (std::mem::take(&mut logged.sampled), Instant::now());
                    self.publish(*committed, logged);
                    if let Some(spans) = &self.spans {
                        spans.record_all(&sampled, Stage::Certify, begin);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.waiters.expire(Instant::now());
        }
    }

    /// The batch of this round is durable: sign, publish, answer.
    ///
    /// Publishing comes before looking who waits: a caller registers and then looks at what is published, so that one
    /// of the two always sees the other.
    fn publish(&mut self, committed: Committed, logged: Logged) {
        let Committed { state, statistics } = committed;
        // Taking a state apart that nobody needs any more takes a while: that comes after the answers.
        let _previous = self.published.load();
        self.checkpoints.offer(&state, logged.log_bytes);
        let snapshot = CertifiedSnapshot::certify(state, &self.root_key);
        let snapshot = self.published.store(snapshot);
        self.outside.notice(&snapshot);
        if let (Some(feed), Some(record)) = (&self.feed, logged.record) {
            feed.push(entry(&snapshot, record));
        }
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

/// What followers get of a round.
fn entry(snapshot: &CertifiedSnapshot, record: Vec<u8>) -> Entry {
    Entry {
        height: snapshot.state.metadata.height.0,
        record,
        root: *snapshot.root_hash(),
        signature: *snapshot.root().signature(),
    }
}
