//! A server that moves bytes and does nothing else: what the kernel and the ring take of a server's time, for
//! measurements.
//!
//! It is told how long a request is and what to answer; nothing is parsed, counted or timed. What [`crate::Server`] needs
//! beyond this is its own. Like the server it sends all that is due on a connection together. Where requests need work that
//! no server can leave out, a signature that is verified or a disk that is waited for, it is told that work, too, and does it
//! once for all that has come together, before it answers.

use crate::config::{NetBackend, NetLimits, RingFeatures};
use crate::ring::{self, Event, Incoming, Ring, Slot, sys};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Floor {
    address: SocketAddr,
    wake: Arc<sys::WakeFd>,
    is_stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Floor {
    /// Answers every `request_bytes` (at least 1) that come on a connection with `answer`, on a port of the loopback
    /// interface.
    ///
    /// # Errors
    /// The backend is not available, or there is no port or thread.
    pub fn start(backend: NetBackend, request_bytes: usize, answer: Vec<u8>) -> io::Result<Self> {
        Self::start_with(backend, request_bytes, answer, |_| ())
    }

    /// The same, with `work` done before answers are sent: it is told how many of them there are.
    ///
    /// # Errors
    /// As for [`Floor::start`].
    pub fn start_with(
        backend: NetBackend,
        request_bytes: usize,
        answer: Vec<u8>,
        work: impl FnMut(usize) + Send + 'static,
    ) -> io::Result<Self> {
        let listener = sys::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false)?;
        let address = listener.local_addr()?;
        let wake = Arc::new(sys::WakeFd::new()?);
        let is_stopping = Arc::new(AtomicBool::new(false));
        let (ready, started) = mpsc::channel();
        let (its_wake, ends) = (Arc::clone(&wake), Arc::clone(&is_stopping));
        let thread = thread::Builder::new().name("net-floor".to_owned()).spawn(move || {
            // The ring belongs to the thread that opens it.
            let opened = ring::open(
                (backend, RingFeatures::default()),
                listener,
                its_wake,
                &NetLimits::default(),
            );
            let (ring, outcome) = match opened {
                Ok(ring) => (Some(ring), Ok(())),
                Err(error) => (None, Err(error)),
            };
            let _ = ready.send(outcome);
            ring.map_or(Ok(()), |ring| {
                Mover::new(ring, request_bytes.max(1), answer, Box::new(work)).run(&ends)
            })
        })?;
        let floor = Self {
            address,
            wake,
            is_stopping,
            thread: Some(thread),
        };
        let outcome = started.recv();
        outcome.map_err(|_| io::Error::other("the thread ended while it started"))??;
        Ok(floor)
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.wake.wake();
        if let Some(thread) = self.thread.take() {
            // Nobody is left to hear of an error.
            let _ = thread.join();
        }
    }
}

struct Mover {
    ring: Box<dyn Ring>,
    request_bytes: usize,
    answer: Vec<u8>,
    work: Box<dyn FnMut(usize)>,
    connections: Vec<Connection>,
    free: Vec<Slot>,
    /// Connections to which something happened in this turn.
    touched: Vec<Slot>,
}

#[derive(Default)]
struct Connection {
    /// Bytes of a request that is not whole.
    bytes: usize,
    /// Whole requests that are not answered.
    due: usize,
    sending: bool,
    spare: Vec<u8>,
}

impl Mover {
    fn new(ring: Box<dyn Ring>, request_bytes: usize, answer: Vec<u8>, work: Box<dyn FnMut(usize)>) -> Self {
        Self {
            ring,
            request_bytes,
            answer,
            work,
            connections: Vec::new(),
            free: Vec::new(),
            touched: Vec::new(),
        }
    }

    fn run(mut self, is_stopping: &AtomicBool) -> io::Result<()> {
        let mut events = Vec::new();
        while !is_stopping.load(Ordering::SeqCst) {
            self.ring.wait(None, &mut events)?;
            let mut requests = 0;
            for event in events.drain(..) {
                requests += self.handle(event);
            }
            if requests > 0 {
                (self.work)(requests);
            }
            let mut touched = std::mem::take(&mut self.touched);
            touched.drain(..).for_each(|slot| self.send(slot));
            self.touched = touched;
        }
        Ok(())
    }

    /// Takes note of an event; how many requests it has made whole.
    fn handle(&mut self, event: Event) -> usize {
        match event {
            Event::Accepted(client) => self.accept(client),
            Event::Received { slot, buffer, length } => {
                self.ring.recycle(buffer);
                let connection = &mut self.connections[slot as usize];
                connection.bytes += length;
                let requests = connection.bytes / self.request_bytes;
                connection.due += requests;
                connection.bytes %= self.request_bytes;
                self.touched.push(slot);
                return requests;
            }
            Event::Sent { slot, bytes } => {
                let connection = &mut self.connections[slot as usize];
                connection.sending = false;
                connection.spare = bytes;
                self.touched.push(slot);
            }
            Event::EndOfStream { slot } | Event::Failed { slot } => {
                self.connections[slot as usize].due = 0;
                self.ring.close(slot);
            }
            Event::Closed { slot } => self.free.push(slot),
        }
        0
    }

    fn accept(&mut self, client: Incoming) {
        client.send_at_once();
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(Connection::default());
            (self.connections.len() - 1) as Slot
        });
        self.connections[slot as usize] = Connection::default();
        self.ring.watch(slot, client);
    }

    /// Sends what is due, unless something is being sent.
    fn send(&mut self, slot: Slot) {
        let connection = &mut self.connections[slot as usize];
        if connection.sending || connection.due == 0 {
            return;
        }
        let mut bytes = std::mem::take(&mut connection.spare);
        bytes.clear();
        for _ in 0..std::mem::take(&mut connection.due) {
            bytes.extend_from_slice(&self.answer);
        }
        connection.sending = true;
        self.ring.send(slot, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{LoadPlan, drive};
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    #[test]
    fn every_request_is_answered_and_worked_for() {
        const REQUEST: &[u8] = b"twelve bytes";
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsame";
        for backend in [NetBackend::Auto, NetBackend::Epoll] {
            let done = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&done);
            let work = move |requests| {
                counted.fetch_add(requests, Ordering::SeqCst);
            };
            let floor = Floor::start_with(backend, REQUEST.len(), ANSWER.to_vec(), work).unwrap();
            let plan = LoadPlan {
                address: floor.local_addr(),
                backend,
                connections: 5,
                pipeline: 3,
                rate: None,
                burst: 1,
                duration: Duration::from_secs(60),
            };
            // A second load finds the places of connections that have ended.
            for _ in 0..2 {
                let mut requests = std::iter::repeat_n(REQUEST, 1_000);
                let report = drive(&plan, &mut |bytes| {
                    requests
                        .next()
                        .map(|request| bytes.extend_from_slice(request))
                        .is_some()
                })
                .unwrap();
                assert_eq!((report.accepted, report.refused), (1_000, 0));
                assert_eq!(report.last_body, b"same");
            }
            assert_eq!(done.load(Ordering::SeqCst), 2_000, "before the answers were sent");
        }
    }
}
