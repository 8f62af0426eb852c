//! One network thread: its ring, its connections, its mailbox.
//!
//! ```text
//! wait -> events: accept, receive (parse, check), sent, closed
//!      -> verify together what came together, hand it to the service (earlier where enough has come)
//!      -> replies from the mailbox to their connections
//!      -> settle every connection that something happened to: encode, send, pause, end
//! ```
//! Requests are handled to completion on this thread, and everything that is ready for a connection leaves in one send.

use crate::api::{Answer, Work};
use crate::config::NetLimits;
use crate::connection::{Connection, Held, Phase, Waiting};
use crate::crowd::{Crowd, Place, peer_name};
use crate::handler::{Handler, Turn};
use crate::mailbox::{Gauge, Mailbox, Permit, Reply, ReplyAddress};
use crate::ring::{BufferId, Event, Incoming, Ring, Slot};
use crate::verify::Batch;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often waiting connections are looked at; their time-outs are this much imprecise.
const TICK: Duration = Duration::from_millis(250);
/// The same while there are no connections.
const IDLE_TICK: Duration = Duration::from_secs(1);
/// Send buffers kept for reuse, and the size above which one is not kept.
const SPARE_BUFFERS_MAX: usize = 64;
const SPARE_BUFFER_BYTES_MAX: usize = 64 * 1024;

pub(crate) struct EventLoop {
    ring: Box<dyn Ring>,
    handler: Arc<dyn Handler>,
    /// Requests of this turn whose signatures are verified at the end of it.
    batch: Batch<Work>,
    limits: NetLimits,
    mailbox: Arc<Mailbox>,
    open: Arc<Gauge>,
    peers: Arc<Crowd>,
    slots: Vec<Option<Tenant>>,
    free: Vec<Slot>,
    next_id: u64,
    /// Connections that something has happened to.
    listed: Vec<Slot>,
    /// Bytes over all connections.
    held: Held,
    scratch: Vec<u8>,
    spare: Vec<Vec<u8>>,
    /// Empty between turns; kept for their memory.
    events: Vec<Event>,
    replies: Vec<Reply>,
    /// Time since the start.
    clock: Box<dyn Fn() -> Duration>,
    /// Milliseconds of `clock`, read once per turn.
    now: u64,
    /// `clock` when what this turn deals with was there.
    turn_began: Duration,
    next_tick: u64,
    stopping: Option<Instant>,
}

/// A connection in its slot, counted.
struct Tenant {
    connection: Connection,
    peer: Option<IpAddr>,
    _place: Option<Place>,
    _open: Permit,
}

impl EventLoop {
    pub(crate) fn new(
        ring: Box<dyn Ring>,
        handler: Arc<dyn Handler>,
        limits: NetLimits,
        mailbox: Arc<Mailbox>,
        open: Arc<Gauge>,
        peers: Arc<Crowd>,
    ) -> Self {
        Self {
            ring,
            handler,
            batch: Batch::default(),
            limits,
            mailbox,
            open,
            peers,
            slots: Vec::new(),
            free: Vec::new(),
            next_id: 0,
            listed: Vec::new(),
            held: Held::default(),
            scratch: Vec::new(),
            spare: Vec::new(),
            clock: real_clock(),
            events: Vec::new(),
            replies: Vec::new(),
            now: 0,
            turn_began: Duration::ZERO,
            next_tick: 0,
            stopping: None,
        }
    }

    /// The same with another clock, for simulations.
    #[cfg(test)]
    pub(crate) fn with_clock(self, clock: Box<dyn Fn() -> Duration>) -> Self {
        Self { clock, ..self }
    }

    /// Bytes of incomplete requests that are held.
    #[cfg(test)]
    pub(crate) fn held(&self) -> Held {
        self.held
    }

    /// Runs until the mailbox says stop.
    pub(crate) fn run(mut self) -> io::Result<()> {
        while !self.turn()? {}
        Ok(())
    }

    /// Waits for something to happen and deals with it; true if the loop is to end.
    pub(crate) fn turn(&mut self) -> io::Result<bool> {
        let timeout = if self.mailbox.may_sleep() {
            self.timeout()
        } else {
            Duration::ZERO
        };
        let mut events = std::mem::take(&mut self.events);
        let waited = self.ring.wait(Some(timeout), &mut events);
        self.mailbox.awake();
        waited?;
        self.turn_began = (self.clock)();
        self.now = self.turn_began.as_millis() as u64;
        for event in events.drain(..) {
            self.handle(event);
            // What is verified counts, and what is refused because of it need not be verified.
            if self.batch.is_full() {
                self.handler.end_turn(&mut self.batch);
            }
        }
        self.events = events;
        self.handler.end_turn(&mut self.batch);
        let mut replies = std::mem::take(&mut self.replies);
        self.mailbox.take(&mut replies);
        self.deliver(&mut replies);
        self.replies = replies;
        self.settle_listed();
        if self.now >= self.next_tick {
            self.tick();
        }
        // Requests that had to wait for room came to be read only just now.
        self.handler.end_turn(&mut self.batch);
        Ok(self.may_stop())
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.next_tick.saturating_sub(self.now).max(1))
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Accepted(client) => self.accept(client),
            Event::Received { slot, buffer, length } => {
                self.receive(slot, &buffer, length);
                self.ring.recycle(buffer);
            }
            Event::EndOfStream { slot } => {
                if let Some(connection) = self.connection(slot) {
                    connection.ended = true;
                    self.list(slot);
                }
            }
            Event::Sent { slot, bytes } => {
                let now = self.now;
                if let Some(Some(Tenant { connection, .. })) = self.slots.get_mut(slot as usize) {
                    let before = connection.held();
                    connection.note_sent(now);
                    self.held.change(before, connection.held());
                    self.list(slot);
                }
                self.keep_spare(bytes);
            }
            Event::Failed { slot } => self.close(slot),
            Event::Closed { slot } => {
                self.slots[slot as usize] = None;
                self.free.push(slot);
            }
        }
    }

    fn connection(&mut self, slot: Slot) -> Option<&mut Connection> {
        self.slots
            .get_mut(slot as usize)?
            .as_mut()
            .map(|tenant| &mut tenant.connection)
    }

    fn list(&mut self, slot: Slot) {
        if let Some(Some(tenant)) = self.slots.get_mut(slot as usize)
            && !std::mem::replace(&mut tenant.connection.listed, true)
        {
            self.listed.push(slot);
        }
    }

    fn accept(&mut self, client: Incoming) {
        let Some(permit) = self.open.enter().filter(|_| self.stopping.is_none()) else {
            return turn_away(client);
        };
        let peer = client.peer();
        let place = match peer.map(|address| self.peers.enter(&peer_name(address))) {
            None => None,
            Some(Some(place)) => Some(place),
            Some(None) => return turn_away(client),
        };
        client.send_at_once();
        let connection = Connection::new(self.next_id, self.now);
        self.next_id += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as Slot
        });
        self.slots[slot as usize] = Some(Tenant {
            connection,
            peer,
            _place: place,
            _open: permit,
        });
        self.ring.watch(slot, client);
    }

    fn receive(&mut self, slot: Slot, buffer: &BufferId, length: usize) {
        let bytes = self.ring.bytes(buffer, length);
        let Some(Some(Tenant { connection, peer, .. })) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let before = connection.held();
        if self.held.input + length > self.limits.buffered_bytes_max && connection.phase == Phase::Open {
            connection.refuse(Answer::overloaded(
                503,
                "Too many incomplete requests, try again later.",
            ));
        } else {
            let mut turn = Turn {
                batch: &mut self.batch,
                age: (self.clock)().saturating_sub(self.turn_began),
            };
            let address = (&self.mailbox, slot, connection.id, *peer);
            let mut handle = handle_with(&*self.handler, &mut turn, address);
            connection.receive(bytes, &self.limits, &mut handle);
        }
        self.held.change(before, connection.held());
        self.list(slot);
    }

    fn deliver(&mut self, replies: &mut Vec<Reply>) {
        for Reply {
            slot,
            connection: id,
            sequence,
            answer,
        } in replies.drain(..)
        {
            let answer = self.made_room_for(slot, answer);
            let Some(Some(Tenant { connection, .. })) = self.slots.get_mut(slot as usize) else {
                continue;
            };
            if connection.id != id {
                continue;
            }
            let before = connection.held();
            connection.answer(sequence, answer);
            self.held.change(before, connection.held());
            self.list(slot);
        }
    }

    /// The answer, if it has room among those that nobody has read yet. Where it has none, the connection with the most
    /// of them is closed, unless that would be this one: then the client is told to come again.
    fn made_room_for(&mut self, slot: Slot, answer: Answer) -> Answer {
        if self.held.unread + answer.bytes() <= self.limits.buffered_bytes_max {
            return answer;
        }
        let unread = |tenant: &Option<Tenant>| tenant.as_ref().map_or(0, |tenant| tenant.connection.held().unread);
        let own = self.slots.get(slot as usize).map_or(0, unread);
        let most = (0..self.slots.len()).max_by_key(|other| unread(&self.slots[*other]));
        match most.filter(|other| unread(&self.slots[*other]) > own + answer.bytes()) {
            Some(other) => {
                self.close(other as Slot);
                answer
            }
            None => Answer::overloaded(503, "Too many answers are unread, try again later."),
        }
    }

    fn settle_listed(&mut self) {
        let mut listed = std::mem::take(&mut self.listed);
        for slot in listed.drain(..) {
            self.settle(slot);
        }
        // Settling hands requests to the service, whose answers come with the next turn; it lists nothing.
        self.listed = listed;
    }

    /// Does all that is due for a connection.
    fn settle(&mut self, slot: Slot) {
        let Some(Some(Tenant { connection, peer, .. })) = self.slots.get_mut(slot as usize) else {
            return;
        };
        connection.listed = false;
        if connection.phase == Phase::Closed {
            return;
        }
        let before = connection.held();
        loop {
            if connection.output.capacity() == 0 {
                connection.output = self.spare.pop().unwrap_or_default();
            }
            connection.encode(&mut self.scratch, &self.limits);
            if !connection.sending && !connection.output.is_empty() {
                self.ring.send(slot, connection.take_output());
            }
            let unparsed = connection.input_bytes();
            let mut turn = Turn {
                batch: &mut self.batch,
                age: match unparsed {
                    0 => Duration::ZERO,
                    _ => (self.clock)().saturating_sub(self.turn_began),
                },
            };
            let address = (&self.mailbox, slot, connection.id, *peer);
            let mut handle = handle_with(&*self.handler, &mut turn, address);
            connection.proceed(&self.limits, &mut handle);
            // Each turn consumes input or encodes an answer, so that this ends.
            if connection.input_bytes() == unparsed && !connection.answer_ready(&self.limits) {
                break;
            }
        }
        connection.end_if_due(&self.limits);
        self.held.change(before, connection.held());
        connection.note_waiting(self.now);
        self.settle_reading(slot);
    }

    /// Pauses, resumes or ends the receiving.
    fn settle_reading(&mut self, slot: Slot) {
        let Some(Some(Tenant { connection, .. })) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let congested = connection.congested(&self.limits);
        if congested != connection.paused {
            connection.paused = congested;
            if congested {
                self.ring.pause(slot)
            } else {
                self.ring.resume(slot)
            }
        }
        if connection.finished() {
            if !connection.ended {
                connection.phase = Phase::Lingering;
                connection.note_waiting(self.now);
                self.ring.shut_write(slot);
                return;
            }
            self.close(slot);
        } else if connection.phase == Phase::Lingering && connection.ended {
            self.close(slot);
        } else if !connection.sending && connection.output.is_empty() {
            let output = std::mem::take(&mut connection.output);
            self.keep_spare(output);
        }
    }

    fn close(&mut self, slot: Slot) {
        let Some(Some(Tenant { connection, .. })) = self.slots.get_mut(slot as usize) else {
            return;
        };
        if connection.phase == Phase::Closed {
            return;
        }
        self.held.change(connection.held(), Held::default());
        connection.retire();
        self.ring.close(slot);
    }

    fn keep_spare(&mut self, mut bytes: Vec<u8>) {
        if bytes.capacity() > 0 && bytes.capacity() <= SPARE_BUFFER_BYTES_MAX && self.spare.len() < SPARE_BUFFERS_MAX {
            bytes.clear();
            self.spare.push(bytes);
        }
    }

    /// Looks after connections that nothing happens to.
    fn tick(&mut self) {
        let tick = if self.open.count() > 0 { TICK } else { IDLE_TICK };
        self.next_tick = self.now + tick.as_millis() as u64;
        if self.scratch.capacity() > SPARE_BUFFER_BYTES_MAX {
            self.scratch = Vec::new();
        }
        self.ring.accept_again();
        for slot in 0..self.slots.len() as Slot {
            let Some(Some(Tenant { connection, .. })) = self.slots.get_mut(slot as usize) else {
                continue;
            };
            let Some(waiting) = connection.overdue(self.now, &self.limits) else {
                continue;
            };
            let before = connection.held();
            match waiting {
                Waiting::Headers | Waiting::Body => {
                    connection.refuse(Answer::text(408, "The request took too long to arrive."));
                }
                Waiting::Answer => connection.time_out_answer(),
                Waiting::Request | Waiting::Write | Waiting::End => {
                    self.close(slot);
                    continue;
                }
            }
            self.held.change(before, connection.held());
            self.settle(slot);
        }
    }

    /// Begins to stop once asked to; true when nothing is left to do or the time for it is over.
    fn may_stop(&mut self) -> bool {
        if self.stopping.is_none() {
            let Some(deadline) = self.mailbox.stop_deadline() else {
                return false;
            };
            self.stopping = Some(deadline);
            self.ring.stop_accepting();
            for slot in 0..self.slots.len() as Slot {
                if let Some(connection) = self.connection(slot) {
                    connection.draining = true;
                    self.settle(slot);
                }
            }
        }
        // Connections whose answers are all sent are not worth waiting for.
        let busy = self
            .slots
            .iter()
            .flatten()
            .any(|tenant| tenant.connection.phase < Phase::Lingering);
        !busy || self.stopping.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// The clock of the machine, counted from now.
fn real_clock() -> Box<dyn Fn() -> Duration> {
    let started = Instant::now();
    Box::new(move || started.elapsed())
}

/// Hands requests of one connection to the endpoints.
fn handle_with<'a>(
    handler: &'a dyn Handler,
    turn: &'a mut Turn<'_>,
    (mailbox, slot, connection, peer): (&'a Arc<Mailbox>, Slot, u64, Option<IpAddr>),
) -> impl FnMut(&crate::http::parse::Request<'_>, u64) -> Option<Answer> {
    move |request, sequence| {
        let address = ReplyAddress {
            mailbox: mailbox.clone(),
            slot,
            connection,
            sequence,
            peer,
        };
        handler.handle(request, address, turn)
    }
}

/// Answers a client for which there is no room, as far as that goes without waiting.
fn turn_away(client: Incoming) {
    let mut response = Vec::new();
    let framing = crate::api::Framing {
        keep_alive: false,
        omit_body: false,
    };
    let answer = Answer::overloaded(503, "Too many connections, try again later.");
    answer.write(&mut response, &mut Vec::new(), framing);
    client.turn_away(&response);
}

#[cfg(test)]
mod tests;
