//! A client that keeps a server busy: one thread, many connections, the same rings that the server uses.
//!
//! Closed loop: every connection has up to `pipeline` requests unanswered, and an answer makes room for the next one.
//! Open loop (with a `rate`): requests are due at fixed times whatever the server does, and latency counts from when a
//! request was due, so that a server that stalls does not hide it by stalling the client too.
//! The client parses no more of an answer than its status and its length, so that it costs less than what it measures.

use crate::config::{NetBackend, NetLimits, RingFeatures};
use crate::ring::{self, Event, Incoming, Ring, Slot, sys};
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Header lines of an answer that are looked at.
const HEADERS_MAX: usize = 64;
/// An answer that takes longer ends the run with an error.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// What to send, to whom, and how much at a time.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// The server.
    pub address: SocketAddr,
    /// How the client moves its bytes.
    pub backend: NetBackend,
    /// Connections, opened before the clock starts; at least 1.
    pub connections: usize,
    /// Unanswered requests that each connection may have; at least 1.
    pub pipeline: usize,
    /// Requests per second that are due, for an open loop; `None` for a closed one.
    pub rate: Option<f64>,
    /// Requests that are due at the same time and leave on one connection, in an open loop; at least 1. More than one is
    /// what a proxy or a client with many users does.
    pub burst: usize,
    /// When the run ends, requests in flight still awaited. A source that ends earlier ends it too.
    pub duration: Duration,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct LoadReport {
    /// Answers with a status below 300.
    pub accepted: u64,
    /// Other answers.
    pub refused: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Nanoseconds from when each accepted request was sent (open loop: was due) until its answer was read.
    pub latencies: Vec<u64>,
    /// The same from when each was really sent: without what a client that shares its cores with the server is late by.
    pub latencies_from_sending: Vec<u64>,
    /// The last accepted answer's body.
    pub last_body: Vec<u8>,
    /// Status of the last answer that was not accepted, with its body.
    pub last_refusal: Option<(u16, Vec<u8>)>,
}

impl LoadReport {
    /// Accepted answers per second.
    pub fn accepted_per_second(&self) -> f64 {
        self.accepted as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The latency in nanoseconds that the share `quantile` of the accepted requests did not exceed; 0 without any.
    pub fn latency_at(&self, quantile: f64) -> u64 {
        at_quantile(&self.latencies, quantile)
    }

    /// The same of [`LoadReport::latencies_from_sending`].
    pub fn latency_from_sending_at(&self, quantile: f64) -> u64 {
        at_quantile(&self.latencies_from_sending, quantile)
    }
}

fn at_quantile(latencies: &[u64], quantile: f64) -> u64 {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let index = (sorted.len().saturating_sub(1)) as f64 * quantile.clamp(0.0, 1.0);
    sorted.get(index.round() as usize).copied().unwrap_or(0)
}

/// Drives a server as `plan` says. `next` appends one whole HTTP request to its argument, or returns false when there
/// are no more.
///
/// # Errors
/// The server cannot be reached, closes a connection, sends something that is not HTTP, or does not answer in time.
pub fn drive(plan: &LoadPlan, next: &mut dyn FnMut(&mut Vec<u8>) -> bool) -> io::Result<LoadReport> {
    let wake = Arc::new(sys::WakeFd::new()?);
    // A ring comes with a listener; nobody knows the address of this one.
    let listener = sys::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false)?;
    let ring = ring::open(
        (plan.backend, RingFeatures::default()),
        listener,
        wake,
        &NetLimits::default(),
    )?;
    let mut client = Client {
        ring,
        connections: Vec::with_capacity(plan.connections),
        report: LoadReport::default(),
        exhausted: false,
        in_flight: 0,
        schedule: plan.rate.map(Schedule::new),
    };
    for slot in 0..plan.connections.max(1) {
        let socket = TcpStream::connect(plan.address)?;
        socket.set_nodelay(true)?;
        client.ring.watch(slot as Slot, Incoming::Socket(socket));
        client.connections.push(Conversation::default());
    }
    client.run(plan, next)?;
    Ok(client.report)
}

struct Client {
    ring: Box<dyn Ring>,
    connections: Vec<Conversation>,
    report: LoadReport,
    exhausted: bool,
    in_flight: usize,
    /// When requests are due, in an open loop.
    schedule: Option<Schedule>,
}

/// The due times of an open loop.
struct Schedule {
    interval_nanos: f64,
    /// Requests whose time has come and that have been sent.
    issued: u64,
    /// Connection that the next request goes to, if it has room.
    next_slot: usize,
}

impl Schedule {
    fn new(rate: f64) -> Self {
        Self {
            interval_nanos: 1e9 / rate.max(1e-3),
            issued: 0,
            next_slot: 0,
        }
    }

    /// When the next request is due, counted from the start.
    fn due(&self) -> Duration {
        Duration::from_nanos((self.issued as f64 * self.interval_nanos) as u64)
    }
}

/// A request that is not answered yet.
struct Sent {
    /// When it was due; in a closed loop, when it was sent.
    due: Instant,
    at: Instant,
}

/// One connection as the client sees it.
#[derive(Default)]
struct Conversation {
    /// The unanswered requests, oldest first.
    sent: VecDeque<Sent>,
    /// Bytes of an answer that is not whole.
    input: Vec<u8>,
    sending: bool,
    spare: Vec<u8>,
}

impl Client {
    fn run(&mut self, plan: &LoadPlan, next: &mut dyn FnMut(&mut Vec<u8>) -> bool) -> io::Result<()> {
        let started = Instant::now();
        let mut now = started;
        let mut events = Vec::new();
        let mut touched: Vec<Slot> = (0..self.connections.len() as Slot).collect();
        let mut last_event = started;
        loop {
            self.exhausted |= now.duration_since(started) >= plan.duration;
            match self.schedule {
                None => touched
                    .drain(..)
                    .for_each(|slot| self.fill(slot, plan.pipeline, now, next)),
                Some(_) => self.issue_due(started, now, plan, next),
            }
            if self.in_flight == 0 && self.exhausted {
                break;
            }
            self.ring.wait(Some(self.patience(started, now)), &mut events)?;
            now = Instant::now();
            if !events.is_empty() {
                last_event = now;
            } else if self.in_flight > 0 && now.duration_since(last_event) >= ANSWER_TIMEOUT {
                return Err(io::Error::new(ErrorKind::TimedOut, "the server does not answer"));
            }
            touched.clear();
            for event in events.drain(..) {
                self.handle(event, now, &mut touched)?;
            }
        }
        self.report.elapsed = now.duration_since(started);
        Ok(())
    }

    /// How long to wait for something to happen.
    fn patience(&self, started: Instant, now: Instant) -> Duration {
        match &self.schedule {
            Some(schedule) if !self.exhausted => {
                // Late requests wait for a connection with room; looking more often than this would not help them.
                let until_due = schedule.due().saturating_sub(now.duration_since(started));
                until_due.max(Duration::from_micros(50))
            }
            _ => ANSWER_TIMEOUT,
        }
    }

    /// Sends the requests whose time has come, on connections that have room, in turn.
    fn issue_due(
        &mut self,
        started: Instant,
        now: Instant,
        plan: &LoadPlan,
        next: &mut dyn FnMut(&mut Vec<u8>) -> bool,
    ) {
        let elapsed = now.duration_since(started);
        let mut full = 0;
        while let Some(schedule) = &mut self.schedule
            && !self.exhausted
            && schedule.due() <= elapsed
            && full < self.connections.len()
        {
            let slot = schedule.next_slot;
            schedule.next_slot = (slot + 1) % self.connections.len();
            let conversation = &mut self.connections[slot];
            if conversation.sending || conversation.sent.len() >= plan.pipeline {
                full += 1;
                continue;
            }
            full = 0;
            let mut bytes = conversation.take_spare();
            let room = plan.burst.max(1).min(plan.pipeline - conversation.sent.len());
            for _ in 0..room {
                if schedule.due() > elapsed {
                    break;
                }
                if !next(&mut bytes) {
                    self.exhausted = true;
                    break;
                }
                let due = started + schedule.due();
                conversation.sent.push_back(Sent { due, at: now });
                schedule.issued += 1;
                self.in_flight += 1;
            }
            self.send(slot as Slot, bytes);
        }
    }

    fn handle(&mut self, event: Event, now: Instant, touched: &mut Vec<Slot>) -> io::Result<()> {
        match event {
            Event::Received { slot, buffer, length } => {
                let bytes = self.ring.bytes(&buffer, length);
                let conversation = &mut self.connections[slot as usize];
                let answers = conversation.receive(bytes, now, &mut self.report);
                self.ring.recycle(buffer);
                self.in_flight -= answers?;
                touched.push(slot);
            }
            Event::Sent { slot, bytes } => {
                let conversation = &mut self.connections[slot as usize];
                conversation.sending = false;
                conversation.spare = bytes;
                touched.push(slot);
            }
            Event::EndOfStream { slot } | Event::Failed { slot } => {
                let unanswered = self.connections[slot as usize].sent.len();
                return Err(io::Error::new(
                    ErrorKind::ConnectionReset,
                    format!("the server closed a connection with {unanswered} unanswered requests"),
                ));
            }
            Event::Accepted(_) | Event::Closed { .. } => {}
        }
        Ok(())
    }

    /// Sends as many requests as there is room for.
    fn fill(&mut self, slot: Slot, pipeline: usize, now: Instant, next: &mut dyn FnMut(&mut Vec<u8>) -> bool) {
        let conversation = &mut self.connections[slot as usize];
        if conversation.sending {
            return;
        }
        let mut bytes = conversation.take_spare();
        while !self.exhausted && conversation.sent.len() < pipeline {
            if !next(&mut bytes) {
                self.exhausted = true;
                break;
            }
            conversation.sent.push_back(Sent { due: now, at: now });
            self.in_flight += 1;
        }
        self.send(slot, bytes);
    }

    fn send(&mut self, slot: Slot, bytes: Vec<u8>) {
        let conversation = &mut self.connections[slot as usize];
        if bytes.is_empty() {
            conversation.spare = bytes;
        } else {
            conversation.sending = true;
            self.ring.send(slot, bytes);
        }
    }
}

impl Conversation {
    /// Room for requests, empty.
    fn take_spare(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.spare);
        bytes.clear();
        bytes
    }

    /// Takes received bytes and gives the number of answers that they completed.
    fn receive(&mut self, bytes: &[u8], now: Instant, report: &mut LoadReport) -> io::Result<usize> {
        if self.input.is_empty() {
            let (consumed, answers) = self.read_answers(bytes, now, report)?;
            self.input.extend_from_slice(&bytes[consumed..]);
            return Ok(answers);
        }
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let (consumed, answers) = self.read_answers(&input, now, report)?;
        self.input = input;
        self.input.drain(..consumed);
        Ok(answers)
    }

    fn read_answers(&mut self, bytes: &[u8], now: Instant, report: &mut LoadReport) -> io::Result<(usize, usize)> {
        let (mut consumed, mut answers) = (0, 0);
        while let Some(answer) = WholeAnswer::read(&bytes[consumed..])? {
            let Some(sent) = self.sent.pop_front() else {
                return Err(malformed("an answer that nobody asked for"));
            };
            if answer.status < 300 {
                report.accepted += 1;
                report.latencies.push(now.duration_since(sent.due).as_nanos() as u64);
                let latency = now.duration_since(sent.at).as_nanos() as u64;
                report.latencies_from_sending.push(latency);
                replace(&mut report.last_body, answer.body);
            } else {
                report.refused += 1;
                let (status, body) = report.last_refusal.get_or_insert_default();
                *status = answer.status;
                replace(body, answer.body);
            }
            consumed += answer.length;
            answers += 1;
        }
        Ok((consumed, answers))
    }
}

/// Has `kept` hold `bytes`, in the memory that it has.
fn replace(kept: &mut Vec<u8>, bytes: &[u8]) {
    kept.clear();
    kept.extend_from_slice(bytes);
}

struct WholeAnswer<'a> {
    status: u16,
    body: &'a [u8],
    /// Bytes of head and body.
    length: usize,
}

impl<'a> WholeAnswer<'a> {
    /// The answer that `bytes` begins with, if all of it is there.
    fn read(bytes: &'a [u8]) -> io::Result<Option<Self>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        // Two kilobytes that an answer with four headers would otherwise be charged for.
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let head = match parser.parse_response_with_uninit_headers(&mut response, bytes, &mut headers) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(malformed("an answer that is not HTTP/1.1")),
        };
        let length = response
            .headers
            .iter()
            .find(|header| header.name.len() == 14 && header.name.eq_ignore_ascii_case("content-length"));
        let length = length
            .and_then(|header| std::str::from_utf8(header.value).ok())
            .and_then(|text| text.trim().parse::<usize>().ok())
            .ok_or_else(|| malformed("an answer without content-length"))?;
        Ok(bytes.get(head..head + length).map(|body| Self {
            status: response.code.unwrap_or(0),
            body,
            length: head + length,
        }))
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
