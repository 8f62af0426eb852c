//! The [`Ring`] over epoll: level-triggered readiness, at most one receive buffer per ready connection and turn.

use super::sys::{self, WakeFd};
use super::{BufferId, Event, Incoming, Ring, Slot};
use crate::config::NetLimits;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Key of the listener; connections use their slot.
const LISTENER: u64 = u64::MAX;
/// Key of the wake-up counter.
const WAKE: u64 = u64::MAX - 1;
/// Clients taken from the listener per turn, so that a storm of them does not hold up the others.
const ACCEPTS_PER_TURN: usize = 64;
/// Readiness reports taken per turn.
const REPORTS_PER_TURN: usize = 256;

pub(super) struct Epoll {
    epoll: OwnedFd,
    wake: Arc<WakeFd>,
    listener: Option<TcpListener>,
    /// False while accepting has stopped because of an error.
    accepting: bool,
    connections: Vec<Option<Connection>>,
    buffers: Vec<Box<[u8]>>,
    free_buffers: Vec<u16>,
    /// Events that calls have caused; they are told with the next wait.
    waiting_events: Vec<Event>,
    reports: Vec<libc::epoll_event>,
}

struct Connection {
    socket: TcpStream,
    /// Receiving is wanted; false while paused and after the end of the stream.
    receiving: bool,
    ended: bool,
    /// A send that the socket had no room for, and how much of it is through.
    sending: Option<(Vec<u8>, usize)>,
    /// What epoll watches for at present.
    interest: u32,
}

impl Connection {
    fn wanted(&self) -> u32 {
        let receive = if self.receiving && !self.ended {
            libc::EPOLLIN | libc::EPOLLRDHUP
        } else {
            0
        };
        let send = if self.sending.is_some() { libc::EPOLLOUT } else { 0 };
        (receive | send) as u32
    }
}

impl Epoll {
    pub(super) fn open(listener: TcpListener, wake: Arc<WakeFd>, limits: &NetLimits) -> io::Result<Self> {
        // SAFETY: epoll_create1 takes no pointers; the result is checked before it is owned.
        let epoll = sys::own(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let ring = Self {
            epoll,
            accepting: true,
            connections: Vec::new(),
            buffers: (0..limits.receive_buffers)
                .map(|_| vec![0; limits.receive_buffer_bytes].into_boxed_slice())
                .collect(),
            free_buffers: (0..limits.receive_buffers).rev().collect(),
            waiting_events: Vec::new(),
            reports: Vec::with_capacity(REPORTS_PER_TURN),
            wake,
            listener: None,
        };
        ring.control(
            libc::EPOLL_CTL_ADD,
            listener.as_raw_fd(),
            libc::EPOLLIN as u32,
            LISTENER,
        )?;
        ring.control(libc::EPOLL_CTL_ADD, ring.wake.as_raw_fd(), libc::EPOLLIN as u32, WAKE)?;
        Ok(Self {
            listener: Some(listener),
            ..ring
        })
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, events: u32, key: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events, u64: key };
        // SAFETY: `event` lives across the call; the kernel copies it.
        sys::check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) })?;
        Ok(())
    }

    /// Makes epoll watch for what the connection wants now.
    fn update_interest(&mut self, slot: Slot) {
        let Some(Some(connection)) = self.connections.get_mut(slot as usize) else {
            return;
        };
        let wanted = connection.wanted();
        if wanted == connection.interest {
            return;
        }
        connection.interest = wanted;
        let fd = connection.socket.as_raw_fd();
        if self.control(libc::EPOLL_CTL_MOD, fd, wanted, u64::from(slot)).is_err() {
            self.waiting_events.push(Event::Failed { slot });
        }
    }

    fn accept(&mut self, events: &mut Vec<Event>) {
        let Some(listener) = &self.listener else { return };
        for _ in 0..ACCEPTS_PER_TURN {
            match listener.accept() {
                Ok((socket, _)) => events.push(Event::Accepted(Incoming::Socket(socket))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // A client that gave up before we came to it.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(_) => {
                    // Out of descriptors: level-triggered readiness would spin, so wait for `accept_again`.
                    self.accepting = false;
                    let fd = listener.as_raw_fd();
                    let _ = self.control(libc::EPOLL_CTL_MOD, fd, 0, LISTENER);
                    return;
                }
            }
        }
    }

    fn receive(&mut self, slot: Slot, events: &mut Vec<Event>) {
        let Some(Some(connection)) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if !connection.receiving || connection.ended {
            return;
        }
        // Without a free buffer the socket stays ready and is reported again.
        let Some(index) = self.free_buffers.pop() else { return };
        let event = loop {
            match connection.socket.read(&mut self.buffers[usize::from(index)]) {
                Ok(0) => {
                    connection.ended = true;
                    break Some(Event::EndOfStream { slot });
                }
                Ok(length) => {
                    events.push(Event::Received {
                        slot,
                        buffer: BufferId::whole(index),
                        length,
                    });
                    return;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break None,
                Err(_) => {
                    connection.ended = true;
                    break Some(Event::Failed { slot });
                }
            }
        };
        self.free_buffers.push(index);
        events.extend(event);
        self.update_interest(slot);
    }

    /// Writes as much of a pending send as the socket takes.
    fn continue_send(&mut self, slot: Slot, events: &mut Vec<Event>) {
        let Some(Some(connection)) = self.connections.get_mut(slot as usize) else {
            return;
        };
        let Some((bytes, mut sent)) = connection.sending.take() else {
            return;
        };
        let outcome = loop {
            match connection.socket.write(&bytes[sent..]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break None,
                Err(_) => break Some(Event::Failed { slot }),
            }
            if sent == bytes.len() {
                break Some(Event::Sent {
                    slot,
                    bytes: Vec::new(),
                });
            }
        };
        match outcome {
            None => connection.sending = Some((bytes, sent)),
            Some(Event::Sent { .. }) => events.push(Event::Sent { slot, bytes }),
            Some(other) => events.push(other),
        }
        self.update_interest(slot);
    }

    fn handle_report(&mut self, report: libc::epoll_event, events: &mut Vec<Event>) {
        let (ready, key) = (report.events, report.u64);
        match key {
            WAKE => self.wake.clear(),
            LISTENER => self.accept(events),
            slot => {
                let slot = slot as Slot;
                if ready & libc::EPOLLOUT as u32 != 0 {
                    self.continue_send(slot, events);
                }
                if ready & (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32 != 0 {
                    self.receive_or_fail(slot, ready, events);
                }
            }
        }
    }

    /// A connection that is paused learns of a broken socket only by the report's flags.
    fn receive_or_fail(&mut self, slot: Slot, ready: u32, events: &mut Vec<Event>) {
        let broken = ready & (libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0;
        let Some(Some(connection)) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if connection.receiving && !connection.ended {
            self.receive(slot, events);
        } else if broken {
            let fd = connection.socket.as_raw_fd();
            // Hang-ups are reported whatever the interest; without this they would be reported for ever.
            let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, u64::from(slot));
            events.push(Event::Failed { slot });
        }
    }
}

impl Ring for Epoll {
    fn watch(&mut self, slot: Slot, client: Incoming) {
        let socket = client.into_socket();
        let index = slot as usize;
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        assert!(self.connections[index].is_none(), "slot {slot} is in use");
        let interest = (libc::EPOLLIN | libc::EPOLLRDHUP) as u32;
        let ready = socket
            .set_nonblocking(true)
            .and_then(|()| self.control(libc::EPOLL_CTL_ADD, socket.as_raw_fd(), interest, u64::from(slot)));
        self.connections[index] = Some(Connection {
            socket,
            receiving: true,
            ended: false,
            sending: None,
            interest,
        });
        if ready.is_err() {
            self.waiting_events.push(Event::Failed { slot });
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.append(&mut self.waiting_events);
        let milliseconds = match timeout {
            _ if !events.is_empty() => 0,
            None => -1,
            // Rounded up, so that a short timeout does not become a spin.
            Some(timeout) => timeout.as_nanos().div_ceil(1_000_000).min(60_000) as libc::c_int,
        };
        let mut reports = std::mem::take(&mut self.reports);
        reports.clear();
        let spare = reports.spare_capacity_mut();
        // SAFETY: the kernel writes at most `spare.len()` entries into the spare capacity.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                spare.as_mut_ptr().cast(),
                spare.len().min(REPORTS_PER_TURN) as libc::c_int,
                milliseconds,
            )
        };
        match sys::check(count) {
            // SAFETY: the kernel has filled the first `count` entries.
            Ok(count) => unsafe { reports.set_len(count as usize) },
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        for report in &reports {
            self.handle_report(*report, events);
        }
        self.reports = reports;
        Ok(())
    }

    fn bytes(&self, buffer: &BufferId, length: usize) -> &[u8] {
        &self.buffers[usize::from(buffer.index)][..length]
    }

    fn recycle(&mut self, buffer: BufferId) {
        self.free_buffers.push(buffer.index);
    }

    fn send(&mut self, slot: Slot, bytes: Vec<u8>) {
        let Some(Some(connection)) = self.connections.get_mut(slot as usize) else {
            return;
        };
        assert!(
            connection.sending.is_none() && !bytes.is_empty(),
            "one non-empty send at a time"
        );
        connection.sending = Some((bytes, 0));
        let mut events = std::mem::take(&mut self.waiting_events);
        self.continue_send(slot, &mut events);
        self.waiting_events.append(&mut events);
    }

    fn pause(&mut self, slot: Slot) {
        if let Some(Some(connection)) = self.connections.get_mut(slot as usize) {
            connection.receiving = false;
            self.update_interest(slot);
        }
    }

    fn resume(&mut self, slot: Slot) {
        if let Some(Some(connection)) = self.connections.get_mut(slot as usize) {
            connection.receiving = true;
            self.update_interest(slot);
        }
    }

    fn shut_write(&mut self, slot: Slot) {
        if let Some(Some(connection)) = self.connections.get_mut(slot as usize) {
            // Fails only if the client is gone, which the next receive tells.
            let _ = connection.socket.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, slot: Slot) {
        // Dropping the socket closes it, which also takes it out of the epoll set.
        if self.connections.get_mut(slot as usize).and_then(Option::take).is_some() {
            self.waiting_events.push(Event::Closed { slot });
        }
    }

    fn accept_again(&mut self) {
        if let (Some(listener), false) = (&self.listener, self.accepting) {
            let fd = listener.as_raw_fd();
            self.accepting = self
                .control(libc::EPOLL_CTL_MOD, fd, libc::EPOLLIN as u32, LISTENER)
                .is_ok();
        }
    }

    fn stop_accepting(&mut self) {
        self.listener = None;
    }

    fn name(&self) -> &'static str {
        "epoll"
    }
}
