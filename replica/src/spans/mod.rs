//! Spans: when a message was at which stage, for a sample of the messages, sent to a collector that speaks OpenTelemetry.
//!
//! ```text
//! call ─────────────────────────────────────────────────────────────►  received .. answered
//!   verify ──►                                                         HTTP, envelope, signatures
//!             pool ─────►                                              ingress filter, waiting for a batch
//!                        round ────────────►                           of the batch that it is in
//!                          execute ──►                                 in a canister: one span a slice, its parent is the round
//!                        log ─────────►                                the batch made durable, beside the round
//!                                            certify ──►               root signed, certificates made and answered
//! query ───────────►                                                   received .. answered
//!   verify ──►
//!             answer ──►                                               cache, execution, signature
//! ```
//! Whether a message is sampled follows from its request id, so that stages need not tell each other; and the ids of trace
//! and spans are parts of it, so that a client who knows the request id finds its trace. Where tracing is off no stage
//! looks at the clock for it; where it is on, a message that is not sampled costs a comparison per stage.
//!
//! Nothing waits for the collector: what it does not take is lost, and counted.

mod execution;
mod otlp;
mod traced;

pub(crate) use execution::TracedExecution;
pub use otlp::traces_url;
pub use traced::Traced;

use crate::config::TracingConfig;
use crossbeam::channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use replicore_types::{Batch, MessageId};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Spans between the stages and the thread that sends them.
const WAITING_MAX: usize = 16_384;
/// Sampled calls on their way to a batch.
const ON_THE_WAY_MAX: usize = 16_384;

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A whole call.
    Call,
    /// A whole query.
    Query,
    /// HTTP, envelope, signatures.
    Verify,
    /// Ingress filter, and waiting for a batch.
    Pool,
    /// The round of its batch.
    Round,
    /// Its execution in a canister, by the number of the slice.
    Execute(u32),
    /// Its batch made durable.
    Log,
    /// Root signed, certificates made and answered.
    Certify,
    /// A query's cache, execution, signature.
    Answer,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Query => "query",
            Self::Verify => "verify",
            Self::Pool => "pool",
            Self::Round => "round",
            Self::Execute(_) => "execute",
            Self::Log => "log",
            Self::Certify => "certify",
            Self::Answer => "answer",
        }
    }

    fn is_whole(self) -> bool {
        matches!(self, Self::Call | Self::Query)
    }

    /// Tells the spans of a message apart; zero is the whole.
    fn number(self) -> u64 {
        match self {
            Self::Call | Self::Query => 0,
            Self::Verify => 1,
            Self::Pool => 2,
            Self::Round => 3,
            Self::Log => 4,
            Self::Certify => 5,
            Self::Answer => 6,
            // Above the others; a message has far fewer slices than there is room for below the bit that is always set.
            Self::Execute(slice) => 7 + u64::from(slice & 0xffff),
        }
    }
}

/// What a span tells beside its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
}

/// Attributes of a span, by name.
pub type Attributes = Vec<(&'static str, Value)>;

/// One span.
#[derive(Clone, Debug)]
struct Span {
    message: MessageId,
    stage: Stage,
    begin: Instant,
    end: Instant,
    attributes: Attributes,
    /// Why it did not end well, where it did not.
    error: Option<String>,
}

/// Takes spans of sampled messages.
pub struct Spans {
    /// The largest number that a sampled id ends with.
    sampled_max: u64,
    queue: Sender<Span>,
    /// When sampled requests came to the stage at which they are: to the network, then to the pool.
    on_the_way: Mutex<HashMap<MessageId, Instant>>,
    lost: Arc<AtomicU64>,
}

impl Spans {
    /// Begins to send spans as the configuration says; `None` where it names no collector. The thread ends when the last
    /// reference is gone and what waited is sent.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(config: &TracingConfig, subnet: &str) -> io::Result<Option<(Arc<Self>, JoinHandle<()>)>> {
        let Some(url) = &config.otlp_url else { return Ok(None) };
        let (spans, receiver) = Self::new(config.sample_one_in);
        let exporter = otlp::Exporter::new(url, subnet, Arc::clone(&spans.lost));
        let thread = std::thread::Builder::new()
            .name("spans".into())
            .spawn(move || exporter.run(&receiver))?;
        Ok(Some((spans, thread)))
    }

    fn new(sample_one_in: u64) -> (Arc<Self>, Receiver<Span>) {
        let (queue, receiver) = bounded(WAITING_MAX);
        let spans = Self {
            sampled_max: u64::MAX / sample_one_in.max(1),
            queue,
            on_the_way: Mutex::default(),
            lost: Arc::default(),
        };
        (Arc::new(spans), receiver)
    }

    /// Whether a message is sampled.
    pub fn is_sampled(&self, id: &MessageId) -> bool {
        last_number(id) <= self.sampled_max
    }

    /// The sampled messages of a batch.
    pub fn sampled(&self, batch: &Batch) -> Vec<MessageId> {
        let ids = batch.messages.iter().map(|message| message.message_id);
        ids.filter(|id| self.is_sampled(id)).collect()
    }

    /// A sampled message was at a stage from `begin` to `end`.
    pub fn record(&self, message: MessageId, stage: Stage, begin: Instant, end: Instant, attributes: Attributes) {
        self.send(Span {
            message,
            stage,
            begin,
            end,
            attributes,
            error: None,
        });
    }

    fn send(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A sampled request came to its next stage.
    fn came(&self, message: MessageId, at: Instant) {
        let mut on_the_way = self.on_the_way.lock();
        if on_the_way.len() < ON_THE_WAY_MAX {
            on_the_way.insert(message, at);
        }
    }

    /// A sampled request leaves the stage at which it was: when it came there, if that is known.
    fn gone(&self, message: &MessageId) -> Option<Instant> {
        self.on_the_way.lock().remove(message)
    }

    /// A batch was taken at `taken` and its round ended at `end`.
    pub fn executed(&self, messages: &[MessageId], taken: Instant, end: Instant, attributes: &Attributes) {
        for message in messages {
            if let Some(came) = self.gone(message) {
                self.record(*message, Stage::Pool, came, taken, Vec::new());
            }
            self.record(*message, Stage::Round, taken, end, attributes.clone());
        }
    }

    /// All of these messages were at a stage from `begin` to now.
    pub fn record_all(&self, messages: &[MessageId], stage: Stage, begin: Instant) {
        let end = Instant::now();
        for message in messages {
            self.record(*message, stage, begin, end, Vec::new());
        }
    }
}

/// Request ids are hashes: any part of one is as good as a random number.
fn last_number(id: &MessageId) -> u64 {
    part(id, 24)
}

fn part(id: &MessageId, at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&id.as_bytes()[at..at + 8]);
    u64::from_be_bytes(bytes)
}

impl Span {
    /// The trace: the first half of the request id.
    fn trace_id(&self) -> String {
        hex::encode(&self.message.as_bytes()[..16])
    }

    /// The whole message's span is named by the eight bytes after that, its parts by what follows from them.
    fn span_id(&self) -> String {
        self.id_of(self.stage)
    }

    fn parent_id(&self) -> String {
        match self.stage {
            Stage::Call | Stage::Query => String::new(),
            Stage::Execute(_) => self.id_of(Stage::Round),
            _ => self.id_of(Stage::Call),
        }
    }

    /// The name of another span of the same message.
    fn id_of(&self, stage: Stage) -> String {
        format!("{:016x}", self.whole_id() ^ stage.number())
    }

    /// Not zero, which stands for no span; nor is any of the parts, which differ from it in the lowest bytes alone.
    fn whole_id(&self) -> u64 {
        part(&self.message, 16) | 1 << 32
    }
}

/// Turns moments of this process into nanoseconds since 1970.
struct Clock {
    moment: Instant,
    nanos: u64,
}

impl Clock {
    fn new() -> Self {
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos() as u64;
        Self {
            moment: Instant::now(),
            nanos,
        }
    }

    fn nanos(&self, at: Instant) -> u64 {
        match at.checked_duration_since(self.moment) {
            Some(after) => self.nanos + after.as_nanos() as u64,
            None => self.nanos - self.moment.duration_since(at).as_nanos() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn id(number: u64) -> MessageId {
        let mut bytes = [0; 32];
        bytes[24..].copy_from_slice(&number.to_be_bytes());
        MessageId(bytes)
    }

    #[test]
    fn a_share_of_all_ids_is_sampled() {
        let (spans, _receiver) = Spans::new(4);
        assert!(spans.is_sampled(&id(0)) && spans.is_sampled(&id(u64::MAX / 4)));
        assert!(!spans.is_sampled(&id(u64::MAX / 4 + 1)) && !spans.is_sampled(&id(u64::MAX)));
        let (all, _receiver) = Spans::new(1);
        assert!(all.is_sampled(&id(u64::MAX)));
    }

    #[test]
    fn what_the_collector_does_not_take_is_lost_and_counted() {
        let (spans, receiver) = Spans::new(1);
        let now = Instant::now();
        for number in 0..WAITING_MAX as u64 + 3 {
            spans.record(id(number), Stage::Round, now, now, Vec::new());
        }
        assert_eq!(receiver.len(), WAITING_MAX);
        assert_eq!(spans.lost.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn spans_of_a_message_have_names_of_their_own_and_one_parent() {
        let now = Instant::now();
        let span = |stage| Span {
            message: id(7),
            stage,
            begin: now,
            end: now,
            attributes: Vec::new(),
            error: None,
        };
        let whole = span(Stage::Call);
        let parts = [
            Stage::Verify,
            Stage::Pool,
            Stage::Round,
            Stage::Log,
            Stage::Certify,
            Stage::Answer,
        ]
        .map(span);
        let slices = [0, 1, 300].map(|slice| span(Stage::Execute(slice)));
        let all = parts.iter().chain(&slices).chain([&whole]);
        let mut names: Vec<_> = all.map(Span::span_id).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 10);
        let round = span(Stage::Round).span_id();
        assert!(slices.iter().all(|slice| slice.parent_id() == round));
        assert!(parts.iter().all(|part| part.parent_id() == whole.span_id()));
        assert!(parts.iter().all(|part| part.trace_id() == whole.trace_id()) && whole.parent_id().is_empty());
    }

    #[test]
    fn moments_before_and_after_the_clock_was_set_are_in_order() {
        let earlier = Instant::now();
        let clock = Clock::new();
        let later = clock.moment + Duration::from_millis(5);
        assert!(clock.nanos(earlier) <= clock.nanos);
        assert_eq!(clock.nanos(later), clock.nanos + 5_000_000);
    }
}
