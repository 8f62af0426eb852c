//! One connection: bytes in, requests out; answers in, bytes out, in the order of the requests. No sockets and no
//! clock: the event loop moves the bytes and tells the time.
//!
//! ```text
//! Open --(client ends, an error, `connection: close`, drain)--> Ending --(all answered)--> Lingering --> closed
//! ```
//! `Lingering` reads and forgets what the client still sends: closing a socket with unread bytes would reset it, and
//! the client might lose the answer that explains why.

use crate::api::{Answer, Framing};
use crate::config::NetLimits;
use crate::http::parse::{Method, ParseState, Parsed, Request, parse};
use std::collections::VecDeque;

/// Unread input above which a connection that may not proceed is not received from any more.
const INPUT_BYTES_PAUSE: usize = 64 * 1024;

/// Bytes that the unread answers of one connection may take: twenty of the largest. Requests that were read together are
/// answered whole as long as they stay below.
const UNREAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes that are held for one connection, or for many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Requests that are not whole.
    pub input: usize,
    /// Answers that the client has not taken.
    pub unread: usize,
}

impl Held {
    /// One connection of the many holds `after` instead of `before`.
    pub(crate) fn change(&mut self, before: Self, after: Self) {
        self.input = self.input + after.input - before.input;
        self.unread = self.unread + after.unread - before.unread;
    }
}

/// How far a connection's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Requests are read.
    Open,
    /// No further request is read; those there are get their answers.
    Ending,
    /// All is sent; the client's end is awaited.
    Lingering,
    /// The ring has been told to close it.
    Closed,
}

/// What a connection is waiting for: decides how long it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    Request,
    Headers,
    Body,
    Answer,
    Write,
    End,
}

/// A request that is not answered yet, or whose answer has its turn later.
#[derive(Debug)]
struct Pending {
    answer: Option<Answer>,
    keep_alive: bool,
    omit_body: bool,
}

#[derive(Debug)]
pub(crate) struct Connection {
    /// Unique over the life of the loop.
    pub id: u64,
    pub phase: Phase,
    /// Bytes that are not parsed yet; empty unless they are part of a request or have to wait.
    input: Vec<u8>,
    parse: ParseState,
    pending: VecDeque<Pending>,
    /// Number of the request at the front of `pending`.
    first_sequence: u64,
    /// Encoded answers that are not handed to the ring yet.
    pub output: Vec<u8>,
    /// A send is under way.
    pub sending: bool,
    /// Bytes that it sends.
    sending_bytes: usize,
    /// Bytes of the answers in `pending`.
    answer_bytes: usize,
    /// Receiving is paused.
    pub paused: bool,
    /// The client will send nothing more.
    pub ended: bool,
    /// The server is shutting down: end once all is answered.
    pub draining: bool,
    /// It is on the loop's list of connections to look after.
    pub listed: bool,
    waiting: (Waiting, u64),
    /// When it began to wait, in milliseconds of the loop's clock.
    since: u64,
}

impl Connection {
    pub(crate) fn new(id: u64, now: u64) -> Self {
        Self {
            id,
            phase: Phase::Open,
            input: Vec::new(),
            parse: ParseState::default(),
            pending: VecDeque::new(),
            first_sequence: 0,
            output: Vec::new(),
            sending: false,
            sending_bytes: 0,
            answer_bytes: 0,
            paused: false,
            ended: false,
            draining: false,
            listed: false,
            waiting: (Waiting::Request, 0),
            since: now,
        }
    }

    /// Unparsed bytes held.
    pub(crate) fn input_bytes(&self) -> usize {
        self.input.len()
    }

    /// What is held for it.
    pub(crate) fn held(&self) -> Held {
        Held {
            input: self.input.len(),
            unread: self.answer_bytes + self.output.len() + self.sending_bytes,
        }
    }

    /// True while no further request may be read because of those that are unanswered.
    fn blocked(&self, limits: &NetLimits) -> bool {
        self.pending.len() >= limits.pipeline_max || self.answer_bytes + self.output.len() >= limits.output_bytes_max
    }

    /// Takes what is to be sent now.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        self.sending = true;
        self.sending_bytes = self.output.len();
        std::mem::take(&mut self.output)
    }

    /// Takes received bytes. `handle` is called with each whole request and its number; it gives the answer, or `None`
    /// if that will come by [`Connection::answer`].
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        limits: &NetLimits,
        handle: &mut dyn FnMut(&Request<'_>, u64) -> Option<Answer>,
    ) {
        if self.phase != Phase::Open {
            return;
        }
        if !self.input.is_empty() {
            self.append(bytes);
            return self.proceed(limits, handle);
        }
        // The usual case: whole requests, parsed where the kernel has put them.
        let consumed = self.parse_requests(bytes, limits, handle);
        if self.phase == Phase::Open && consumed < bytes.len() {
            self.append(&bytes[consumed..]);
        }
    }

    /// Reads further requests from bytes that had to wait.
    pub(crate) fn proceed(&mut self, limits: &NetLimits, handle: &mut dyn FnMut(&Request<'_>, u64) -> Option<Answer>) {
        if self.phase != Phase::Open || self.input.is_empty() {
            return;
        }
        let mut input = std::mem::take(&mut self.input);
        let consumed = self.parse_requests(&input, limits, handle);
        if self.phase == Phase::Open && consumed < input.len() {
            input.drain(..consumed);
            self.input = input;
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        if let Some(total) = self.parse.request_bytes() {
            self.input
                .reserve_exact(total.saturating_sub(self.input.len()).max(bytes.len()));
        }
        self.input.extend_from_slice(bytes);
    }

    /// Parses and handles requests from the front of `bytes` for as long as they are whole and not blocked.
    fn parse_requests(
        &mut self,
        bytes: &[u8],
        limits: &NetLimits,
        handle: &mut dyn FnMut(&Request<'_>, u64) -> Option<Answer>,
    ) -> usize {
        let mut consumed = 0;
        while consumed < bytes.len() && self.phase == Phase::Open && !self.blocked(limits) {
            match parse(&bytes[consumed..], &mut self.parse, limits) {
                Parsed::Incomplete => {
                    if self.parse.take_expects_continue() {
                        self.push(Some(Answer::Continue), true, false);
                    }
                    break;
                }
                Parsed::Request {
                    request,
                    consumed: length,
                } => {
                    consumed += length;
                    let sequence = self.first_sequence + self.pending.len() as u64;
                    let answer = handle(&request, sequence);
                    self.push(answer, request.keep_alive, request.method == Method::Head);
                    if !request.keep_alive {
                        self.phase = Phase::Ending;
                    }
                }
                Parsed::Refused(refusal) => self.refuse(Answer::text(refusal.status, refusal.text)),
            }
        }
        consumed
    }

    fn push(&mut self, answer: Option<Answer>, keep_alive: bool, omit_body: bool) {
        self.answer_bytes += answer.as_ref().map_or(0, Answer::bytes);
        self.pending.push_back(Pending {
            answer,
            keep_alive,
            omit_body,
        });
    }

    /// Answers the request that is being received, which then ends the connection.
    pub(crate) fn refuse(&mut self, answer: Answer) {
        self.push(Some(answer), false, false);
        self.phase = Phase::Ending;
        self.input = Vec::new();
        self.parse = ParseState::default();
    }

    /// Takes the answer to request `sequence`. Where the client leaves its answers unread and this one would make too
    /// many of them, it is told so instead.
    pub(crate) fn answer(&mut self, sequence: u64, answer: Answer) {
        let unread = self.held().unread;
        let answer = match unread > 0 && unread + answer.bytes() > UNREAD_BYTES_MAX {
            true => Answer::overloaded(503, "Too many answers of this connection are unread."),
            false => answer,
        };
        let index = sequence
            .checked_sub(self.first_sequence)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(pending) = index.and_then(|index| self.pending.get_mut(index)) {
            // The first answer counts: a request that timed out has one already.
            if pending.answer.is_none() {
                self.answer_bytes += answer.bytes();
                pending.answer = Some(answer);
            }
        }
    }

    /// Gives up on the request whose turn it is.
    pub(crate) fn time_out_answer(&mut self) {
        if let Some(first) = self.pending.front_mut() {
            first
                .answer
                .get_or_insert(Answer::text(504, "The request took too long."));
            first.keep_alive = false;
            self.phase = Phase::Ending;
        }
    }

    /// Encodes the answers whose turn has come.
    pub(crate) fn encode(&mut self, scratch: &mut Vec<u8>, limits: &NetLimits) {
        while self.output.len() < limits.output_bytes_max {
            let Some(Pending { answer: Some(_), .. }) = self.pending.front() else {
                break;
            };
            let Some(Pending {
                answer: Some(answer),
                keep_alive,
                omit_body,
            }) = self.pending.pop_front()
            else {
                break;
            };
            self.first_sequence += 1;
            self.answer_bytes -= answer.bytes();
            let last = self.draining && self.pending.is_empty() && self.input.is_empty();
            let keep_alive = keep_alive && !last;
            answer.write(&mut self.output, scratch, Framing { keep_alive, omit_body });
            if !keep_alive {
                // What follows an answer that ends the connection is not answered.
                self.pending.clear();
                self.answer_bytes = 0;
                self.phase = Phase::Ending;
            }
        }
    }

    /// True if [`Connection::encode`] would encode something.
    pub(crate) fn answer_ready(&self, limits: &NetLimits) -> bool {
        self.output.len() < limits.output_bytes_max
            && self.pending.front().is_some_and(|pending| pending.answer.is_some())
    }

    /// Forgets everything: the ring has been told to close it.
    pub(crate) fn retire(&mut self) {
        *self = Self {
            phase: Phase::Closed,
            listed: self.listed,
            ..Self::new(self.id, self.since)
        };
    }

    /// Ends the reading of requests if none will come any more.
    pub(crate) fn end_if_due(&mut self, limits: &NetLimits) {
        if self.phase != Phase::Open {
            return;
        }
        let starved = self.ended && !self.blocked(limits);
        let drained = self.draining && self.pending.is_empty() && self.input.is_empty();
        if starved || drained {
            self.phase = Phase::Ending;
            self.input = Vec::new();
        }
    }

    /// True once everything is answered and sent and nothing more will be.
    pub(crate) fn finished(&self) -> bool {
        self.phase == Phase::Ending && self.pending.is_empty() && self.output.is_empty() && !self.sending
    }

    /// True if receiving should be paused.
    pub(crate) fn congested(&self, limits: &NetLimits) -> bool {
        self.phase == Phase::Open && self.input.len() >= INPUT_BYTES_PAUSE && self.blocked(limits)
    }

    /// Notes what the connection is waiting for. Bytes alone do not restart the clock, only progress does: another
    /// request, another answer, another thing to wait for.
    pub(crate) fn note_waiting(&mut self, now: u64) {
        let waiting = match self.phase {
            Phase::Lingering | Phase::Closed => Waiting::End,
            _ if self.sending => Waiting::Write,
            _ if !self.pending.is_empty() => Waiting::Answer,
            _ if self.parse.in_body() => Waiting::Body,
            _ if !self.input.is_empty() => Waiting::Headers,
            _ => Waiting::Request,
        };
        let progress = self.first_sequence;
        if self.waiting != (waiting, progress) {
            self.waiting = (waiting, progress);
            self.since = now;
        }
    }

    /// A send is complete: that is progress too.
    pub(crate) fn note_sent(&mut self, now: u64) {
        self.sending = false;
        self.sending_bytes = 0;
        self.since = now;
    }

    /// What the connection has waited for longer than it may.
    pub(crate) fn overdue(&self, now: u64, limits: &NetLimits) -> Option<Waiting> {
        let limit = match self.waiting.0 {
            Waiting::Request => limits.idle_timeout_ms,
            Waiting::Headers => limits.header_timeout_ms,
            Waiting::Body => limits.body_timeout_ms,
            Waiting::Answer => limits.answer_timeout_ms,
            Waiting::Write => limits.write_timeout_ms,
            Waiting::End => LINGER_MS,
        };
        (self.phase != Phase::Closed && now.saturating_sub(self.since) > limit).then_some(self.waiting.0)
    }
}

/// How long a client may take to close its side after the last answer.
const LINGER_MS: u64 = 2_000;
