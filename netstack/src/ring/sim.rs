//! The [`Ring`] over a simulated network: one seed, one history.
//!
//! Clients are byte queues in memory. Bytes arrive in pieces of any size, sends go through piecemeal and late, events of
//! different connections come in any order, connections break at any time. The clock moves only when the loop waits.

use super::{BufferId, Event, Incoming, Ring, Slot};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// Receive buffers of the ring, and the size of each.
const BUFFERS: u16 = 8;
const BUFFER_BYTES: usize = 512;

/// Numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// True once in `times`.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// A client's end of a connection, and what the ring knows of the server's.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    /// What the client has sent and the server has not received.
    pub to_server: VecDeque<u8>,
    /// The client sends no more.
    pub ended: bool,
    /// The connection is broken.
    pub broken: bool,
    /// What the client has received.
    pub from_server: Vec<u8>,
    /// Bytes that the client takes until it is asked again; `None` if it takes all.
    pub window: Option<usize>,
    /// The server has sent its last byte.
    pub server_ended: bool,
    /// The server has closed it.
    pub closed: bool,
    slot: Option<Slot>,
    paused: bool,
    told_end: bool,
    told_failure: bool,
    sending: Option<(Vec<u8>, usize)>,
    closing: bool,
}

/// The network.
#[derive(Debug)]
pub(crate) struct World {
    pub random: Random,
    pub now: Duration,
    pub pipes: Vec<Pipe>,
    /// Connections that the server has been told of.
    announced: usize,
    accepting: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            random: Random(seed),
            now: Duration::ZERO,
            pipes: Vec::new(),
            announced: 0,
            accepting: true,
        }))
    }

    /// A new client; its number.
    pub(crate) fn connect(&mut self) -> usize {
        self.pipes.push(Pipe::default());
        self.pipes.len() - 1
    }
}

/// The server's side.
pub(crate) struct SimulatedRing {
    world: Rc<RefCell<World>>,
    buffers: Vec<Vec<u8>>,
    free: Vec<u16>,
}

impl SimulatedRing {
    pub(crate) fn new(world: Rc<RefCell<World>>) -> Self {
        Self {
            world,
            buffers: (0..BUFFERS).map(|_| Vec::new()).collect(),
            free: (0..BUFFERS).collect(),
        }
    }

    /// Receive buffers that the loop has not given back.
    pub(crate) fn buffers_in_use(&self) -> usize {
        self.buffers.len() - self.free.len()
    }

    fn with<T>(&self, slot: Slot, act: impl FnOnce(&mut Pipe) -> T) -> Option<T> {
        let mut world = self.world.borrow_mut();
        let pipe = world.pipes.iter_mut().find(|pipe| pipe.slot == Some(slot));
        pipe.map(act)
    }
}

impl Pipe {
    /// What happens next on this connection, if anything does now.
    fn step(&mut self, random: &mut Random, buffers: &mut [Vec<u8>], free: &mut Vec<u16>) -> Option<Event> {
        let slot = self.slot?;
        if self.closing {
            self.slot = None;
            self.closed = true;
            return Some(Event::Closed { slot });
        }
        if self.broken {
            return (!std::mem::replace(&mut self.told_failure, true)).then_some(Event::Failed { slot });
        }
        if self.sending.is_some() && random.one_in(2) {
            return self.progress(slot, random);
        }
        if self.paused {
            return None;
        }
        if self.to_server.is_empty() {
            if self.ended && !self.told_end {
                self.told_end = true;
                return Some(Event::EndOfStream { slot });
            }
            return None;
        }
        let buffer = free.pop()?;
        let length = 1 + random.below(self.to_server.len().min(BUFFER_BYTES));
        buffers[usize::from(buffer)] = self.to_server.drain(..length).collect();
        Some(Event::Received {
            slot,
            buffer: BufferId::whole(buffer),
            length,
        })
    }

    /// Moves a part of what is being sent to the client.
    fn progress(&mut self, slot: Slot, random: &mut Random) -> Option<Event> {
        let (bytes, sent) = self.sending.take()?;
        let rest = bytes.len() - sent;
        let count = (1 + random.below(rest)).min(self.window.unwrap_or(usize::MAX));
        self.from_server.extend_from_slice(&bytes[sent..sent + count]);
        self.window = self.window.map(|window| window - count);
        if sent + count == bytes.len() {
            return Some(Event::Sent { slot, bytes });
        }
        self.sending = Some((bytes, sent + count));
        None
    }
}

impl Ring for SimulatedRing {
    fn watch(&mut self, slot: Slot, client: Incoming) {
        let Incoming::Simulated(number) = client else {
            unreachable!("a socket in a simulation");
        };
        let mut world = self.world.borrow_mut();
        assert!(
            world.pipes.iter().all(|pipe| pipe.slot != Some(slot)),
            "slot {slot} is in use"
        );
        world.pipes[number].slot = Some(slot);
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let world = &mut *self.world.borrow_mut();
        let longest = timeout.unwrap_or(Duration::from_secs(1)).as_micros() as usize;
        let step = world.random.below(longest + 1) as u64;
        let before = events.len();
        if world.accepting && world.announced < world.pipes.len() && world.random.one_in(3) {
            events.push(Event::Accepted(Incoming::Simulated(world.announced)));
            world.announced += 1;
        }
        // At most one event of each connection, in any order.
        let mut order: Vec<_> = (0..world.pipes.len()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, world.random.below(last + 1));
        }
        for number in order {
            if world.random.one_in(2) {
                let pipe = &mut world.pipes[number];
                events.extend(pipe.step(&mut world.random, &mut self.buffers, &mut self.free));
            }
        }
        // Where something happens the wait ends early.
        world.now += Duration::from_micros(if events.len() > before { step / 100 } else { step });
        Ok(())
    }

    fn bytes(&self, buffer: &BufferId, length: usize) -> &[u8] {
        &self.buffers[usize::from(buffer.index)][..length]
    }

    fn recycle(&mut self, buffer: BufferId) {
        assert!(!self.free.contains(&buffer.index), "a buffer was given back twice");
        self.free.push(buffer.index);
    }

    fn send(&mut self, slot: Slot, bytes: Vec<u8>) {
        self.with(slot, |pipe| {
            assert!(
                pipe.sending.is_none() && !bytes.is_empty() && !pipe.server_ended,
                "one non-empty send at a time, and none after the end"
            );
            pipe.sending = Some((bytes, 0));
        });
    }

    fn pause(&mut self, slot: Slot) {
        self.with(slot, |pipe| pipe.paused = true);
    }

    fn resume(&mut self, slot: Slot) {
        self.with(slot, |pipe| pipe.paused = false);
    }

    fn shut_write(&mut self, slot: Slot) {
        self.with(slot, |pipe| {
            assert!(pipe.sending.is_none(), "the end comes after what is being sent");
            pipe.server_ended = true;
        });
    }

    fn close(&mut self, slot: Slot) {
        self.with(slot, |pipe| pipe.closing = true);
    }

    fn accept_again(&mut self) {}

    fn stop_accepting(&mut self) {
        self.world.borrow_mut().accepting = false;
    }

    fn name(&self) -> &'static str {
        "simulated"
    }
}

impl Drop for SimulatedRing {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.buffers_in_use(), 0, "receive buffers were not given back");
        }
    }
}
