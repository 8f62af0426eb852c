//! The [`Ring`] over io_uring: multishot accept, multishot receive into a ring of provided buffers, and completions that
//! run only when the loop asks for them (`DEFER_TASKRUN`), so that nothing interrupts a request half-way.
//!
//! Who owns what while the kernel works: a send's bytes stay in the connection's `sending` until its completion; a
//! connection's socket stays open until no operation on it is under way; the buffer ring and the buffers live until
//! the io_uring instance itself is gone (see the field order of [`Uring`]).

use super::buffers::{BUFFER_GROUP, BufferRing};
use super::sys::{self, WakeFd};
use super::{BufferId, Event, Incoming, Ring, Slot};
use crate::config::{NetLimits, RingFeatures};
use io_uring::types::{Fd, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;
use std::time::Duration;

/// Submissions gathered before the kernel is entered; more just enter it earlier.
const SUBMISSIONS: u32 = 1024;
/// Completions the kernel holds for us; it keeps any surplus aside.
const COMPLETIONS: u32 = 8192;

/// What a completion belongs to: the upper half of its user data; the lower half is the slot.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Operation {
    Accept = 1,
    Wake = 2,
    Receive = 3,
    Send = 4,
    Cancel = 5,
}

const fn user_data(operation: Operation, slot: Slot) -> u64 {
    (operation as u64) << 32 | slot as u64
}

pub(super) struct Uring {
    /// First, so that it is dropped first: with it the kernel gives up all it was using of the fields below.
    ring: IoUring,
    buffers: BufferRing,
    features: RingFeatures,
    /// Slots whose sockets can be registered with the ring.
    registered_max: Slot,
    connections: Vec<Option<Connection>>,
    listener: Option<TcpListener>,
    accepting: bool,
    wake: Arc<WakeFd>,
    /// Connections whose receive ended for want of buffers.
    starved: Vec<Slot>,
    /// Events that calls have caused; they are told with the next wait.
    waiting_events: Vec<Event>,
}

struct Connection {
    socket: TcpStream,
    /// The ring knows the socket by the number of its slot.
    registered: bool,
    /// A multishot receive is with the kernel.
    armed: bool,
    /// Receiving is wanted.
    receiving: bool,
    /// The stream has ended or broken; nothing more is received.
    ended: bool,
    /// The bytes of the send that is with the kernel, and how many of them are through.
    sending: Option<(Vec<u8>, usize)>,
    closing: bool,
}

impl Connection {
    /// No operation on the socket is with the kernel.
    fn quiet(&self) -> bool {
        !self.armed && self.sending.is_none()
    }
}

impl Uring {
    /// Opens the ring, or says why not and returns the listener.
    pub(super) fn open(
        features: RingFeatures,
        listener: TcpListener,
        wake: Arc<WakeFd>,
        limits: &NetLimits,
    ) -> Result<Self, (io::Error, TcpListener)> {
        let parts = build(features.deferred).and_then(|ring| {
            let (count, bytes) = (limits.receive_buffers, limits.receive_buffer_bytes);
            let buffers = BufferRing::register(&ring, count, bytes, features.incremental_buffers)?;
            Ok((ring, buffers))
        });
        let (ring, buffers) = match parts {
            Ok(parts) => parts,
            Err(error) => return Err((error, listener)),
        };
        let registered_max = match features.registered_files {
            true => register_files(&ring, limits.connections_max),
            false => 0,
        };
        let mut uring = Self {
            ring,
            buffers,
            features,
            registered_max,
            connections: Vec::new(),
            listener: Some(listener),
            accepting: false,
            wake,
            starved: Vec::new(),
            waiting_events: Vec::new(),
        };
        uring.arm_accept();
        uring.arm_wake();
        Ok(uring)
    }

    fn submit(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: every entry made here points to memory that this struct keeps until the operation completes:
            // send buffers in `Connection::sending`, nothing else; descriptors are owned by `connections`, `listener`
            // and `wake` and outlive their operations.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            // The queue is full: hand it over. An error here comes back with the next wait.
            let _ = self.ring.submit();
        }
    }

    fn arm_accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        let fd = Fd(listener.as_raw_fd());
        let entry = if self.features.multishot {
            opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build()
        } else {
            opcode::Accept::new(fd, std::ptr::null_mut(), std::ptr::null_mut())
                .flags(libc::SOCK_CLOEXEC)
                .build()
        };
        let entry = entry.user_data(user_data(Operation::Accept, 0));
        self.accepting = true;
        self.submit(&entry);
    }

    fn arm_wake(&mut self) {
        let entry = opcode::PollAdd::new(Fd(self.wake.as_raw_fd()), libc::POLLIN as u32)
            .multi(true)
            .build()
            .user_data(user_data(Operation::Wake, 0));
        self.submit(&entry);
    }

    fn arm_receive(&mut self, slot: Slot) {
        let Some(Some(connection)) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if connection.armed || connection.ended || connection.closing || !connection.receiving {
            return;
        }
        connection.armed = true;
        let fd = Fd(connection.socket.as_raw_fd());
        let entry = match (self.features.multishot, connection.registered) {
            (true, true) => opcode::RecvMulti::new(Fixed(slot), BUFFER_GROUP).build(),
            (true, false) => opcode::RecvMulti::new(fd, BUFFER_GROUP).build(),
            (false, true) => receive_once(opcode::Recv::new(Fixed(slot), std::ptr::null_mut(), 0)),
            (false, false) => receive_once(opcode::Recv::new(fd, std::ptr::null_mut(), 0)),
        };
        self.submit(&entry.user_data(user_data(Operation::Receive, slot)));
    }

    fn arm_send(&mut self, slot: Slot) {
        let Some(Some(connection)) = self.connections.get(slot as usize) else {
            return;
        };
        let Some((bytes, sent)) = &connection.sending else {
            return;
        };
        let rest = &bytes[*sent..];
        let (start, length) = (rest.as_ptr(), rest.len() as u32);
        let send = match connection.registered {
            true => opcode::Send::new(Fixed(slot), start, length),
            false => opcode::Send::new(Fd(connection.socket.as_raw_fd()), start, length),
        };
        let entry = send
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build()
            .user_data(user_data(Operation::Send, slot));
        self.submit(&entry);
    }

    fn handle_completion(&mut self, completion: &cqueue::Entry, events: &mut Vec<Event>) {
        let slot = completion.user_data() as Slot;
        match completion.user_data() >> 32 {
            kind if kind == Operation::Receive as u64 => self.received(slot, completion, events),
            kind if kind == Operation::Send as u64 => self.sent(slot, completion.result(), events),
            kind if kind == Operation::Accept as u64 => self.accepted(completion, events),
            kind if kind == Operation::Wake as u64 => {
                self.wake.clear();
                if !cqueue::more(completion.flags()) {
                    self.arm_wake();
                }
            }
            // The cancelled operation completes by itself; how the cancel fared does not matter.
            _ => {}
        }
    }

    fn accepted(&mut self, completion: &cqueue::Entry, events: &mut Vec<Event>) {
        if completion.result() >= 0 {
            // SAFETY: a successful accept completion transfers a new descriptor that nobody else owns.
            let socket = unsafe { TcpStream::from_raw_fd(completion.result()) };
            events.push(Event::Accepted(Incoming::Socket(socket)));
        }
        if !cqueue::more(completion.flags()) {
            // After an error (out of descriptors) the loop decides when to try again.
            self.accepting = false;
            let gone = completion.result() == -libc::ECONNABORTED;
            if completion.result() >= 0 || gone {
                self.arm_accept();
            }
        }
    }

    fn received(&mut self, slot: Slot, completion: &cqueue::Entry, events: &mut Vec<Event>) {
        let result = completion.result();
        let more = cqueue::buffer_more(completion.flags());
        let buffer = cqueue::buffer_select(completion.flags())
            .map(|index| self.buffers.take(index, result.max(0) as usize, more));
        let Some(Some(connection)) = self.connections.get_mut(slot as usize) else {
            unreachable!("slot {slot} was freed while a receive was with the kernel");
        };
        connection.armed = cqueue::more(completion.flags());
        match (result, buffer) {
            (length @ 1.., Some(buffer)) if !connection.closing => {
                events.push(Event::Received {
                    slot,
                    buffer,
                    length: length as usize,
                });
            }
            (_, Some(buffer)) => self.buffers.recycle(&buffer),
            (0, None) => {
                connection.ended = true;
                if !connection.closing {
                    events.push(Event::EndOfStream { slot });
                }
            }
            (error, None) if error == -libc::ENOBUFS => self.starved.push(slot),
            // A pause; a resume may have come in between.
            (error, None) if error == -libc::ECANCELED => {}
            (_, None) => {
                connection.ended = true;
                if !connection.closing {
                    events.push(Event::Failed { slot });
                }
            }
        }
        self.after_completion(slot, result != -libc::ENOBUFS, events);
    }

    fn sent(&mut self, slot: Slot, result: i32, events: &mut Vec<Event>) {
        let Some(Some(connection)) = self.connections.get_mut(slot as usize) else {
            unreachable!("slot {slot} was freed while a send was with the kernel");
        };
        let Some((bytes, sent)) = connection.sending.take() else {
            unreachable!("slot {slot} had no send under way");
        };
        let sent = sent + result.max(0) as usize;
        let retry = result > 0 || result == -libc::EINTR || result == -libc::EAGAIN;
        if connection.closing {
            // Nobody waits for the outcome.
        } else if sent == bytes.len() {
            events.push(Event::Sent { slot, bytes });
        } else if retry {
            connection.sending = Some((bytes, sent));
            self.arm_send(slot);
        } else {
            events.push(Event::Failed { slot });
        }
        self.after_completion(slot, false, events);
    }

    /// Arms the next receive if one is wanted, or completes a close.
    fn after_completion(&mut self, slot: Slot, receive_again: bool, events: &mut Vec<Event>) {
        let Some(Some(connection)) = self.connections.get(slot as usize) else {
            return;
        };
        if connection.closing {
            if connection.quiet() {
                self.forget(slot);
                events.push(Event::Closed { slot });
            }
        } else if receive_again {
            self.arm_receive(slot);
        }
    }
}

/// A receive of one piece, into a buffer of the kernel's choice.
fn receive_once(receive: opcode::Recv) -> squeue::Entry {
    receive
        .buf_group(BUFFER_GROUP)
        .build()
        .flags(squeue::Flags::BUFFER_SELECT)
}

/// Makes room for the sockets of so many slots; how many there is room for.
fn register_files(ring: &IoUring, connections_max: usize) -> Slot {
    let count = (connections_max as u64).min(sys::open_files_max()).min(1 << 20) as Slot;
    match ring.submitter().register_files_sparse(count) {
        Ok(()) => count,
        // Sockets are looked up for each operation then, nothing else.
        Err(_) => 0,
    }
}

/// A ring with the best of the flags that the kernel knows, or without those that defer completions. Multishot receive
/// came with 6.0, the same release as `SINGLE_ISSUER`, so that the latter stands for the former.
fn build(deferred: bool) -> io::Result<IoUring> {
    if !deferred {
        return IoUring::builder()
            .setup_single_issuer()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS);
    }
    let deferred = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(COMPLETIONS)
        .build(SUBMISSIONS);
    match deferred {
        Err(error) if error.kind() == ErrorKind::InvalidInput => IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS),
        built => built,
    }
}

impl Uring {
    /// Lets go of a connection that is quiet, which closes its socket.
    fn forget(&mut self, slot: Slot) {
        let connection = self.connections[slot as usize].take();
        if let Some(Connection {
            registered: true,
            socket,
            ..
        }) = connection
        {
            // A registered socket stays open until its place in the table is empty, so that is seen to first. Should it
            // fail the client has to learn all the same that this is the end.
            if self.ring.submitter().register_files_update(slot, &[-1]).is_err() {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

impl Ring for Uring {
    fn watch(&mut self, slot: Slot, client: Incoming) {
        let socket = client.into_socket();
        let index = slot as usize;
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        assert!(self.connections[index].is_none(), "slot {slot} is in use");
        let registered = slot < self.registered_max && {
            let fd = [socket.as_raw_fd()];
            self.ring.submitter().register_files_update(slot, &fd).is_ok()
        };
        self.connections[index] = Some(Connection {
            socket,
            registered,
            armed: false,
            receiving: true,
            ended: false,
            sending: None,
            closing: false,
        });
        self.arm_receive(slot);
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.append(&mut self.waiting_events);
        for slot in std::mem::take(&mut self.starved) {
            self.arm_receive(slot);
        }
        let timeout = if events.is_empty() {
            timeout
        } else {
            Some(Duration::ZERO)
        };
        let entered = match timeout {
            None => self.ring.submit_and_wait(1),
            Some(timeout) => {
                let timespec = Timespec::from(timeout);
                self.ring
                    .submitter()
                    .submit_with_args(1, &SubmitArgs::new().timespec(&timespec))
            }
        };
        match entered {
            Ok(_) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => {}
            Err(error) => return Err(error),
        }
        while let Some(completion) = { self.ring.completion().next() } {
            self.handle_completion(&completion, events);
        }
        Ok(())
    }

    fn bytes(&self, buffer: &BufferId, length: usize) -> &[u8] {
        self.buffers.bytes(buffer, length)
    }

    fn recycle(&mut self, buffer: BufferId) {
        self.buffers.recycle(&buffer);
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
        self.arm_send(slot);
    }

    fn pause(&mut self, slot: Slot) {
        let Some(Some(connection)) = self.connections.get_mut(slot as usize) else {
            return;
        };
        connection.receiving = false;
        if connection.armed {
            let entry = opcode::AsyncCancel::new(user_data(Operation::Receive, slot))
                .build()
                .user_data(user_data(Operation::Cancel, slot));
            self.submit(&entry);
        }
    }

    fn resume(&mut self, slot: Slot) {
        if let Some(Some(connection)) = self.connections.get_mut(slot as usize) {
            connection.receiving = true;
            self.arm_receive(slot);
        }
    }

    fn shut_write(&mut self, slot: Slot) {
        if let Some(Some(connection)) = self.connections.get_mut(slot as usize) {
            // Fails only if the client is gone, which the receive tells.
            let _ = connection.socket.shutdown(Shutdown::Write);
        }
    }

    fn close(&mut self, slot: Slot) {
        let Some(Some(connection)) = self.connections.get_mut(slot as usize) else {
            return;
        };
        if connection.closing {
            return;
        }
        connection.closing = true;
        if connection.quiet() {
            self.forget(slot);
            self.waiting_events.push(Event::Closed { slot });
        } else {
            // Ends the operations under way; their completions end the connection.
            let _ = connection.socket.shutdown(Shutdown::Both);
        }
    }

    fn accept_again(&mut self) {
        if !self.accepting {
            self.arm_accept();
        }
    }

    fn stop_accepting(&mut self) {
        if let Some(listener) = &self.listener {
            // Closing a listener does not end an accept that is with the kernel; shutting it down does.
            sys::shutdown(listener);
        }
        self.listener = None;
    }

    fn name(&self) -> &'static str {
        "io_uring"
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // The kernel may still read from send buffers and write to receive buffers; end that before they are freed.
        for connection in self.connections.iter().flatten() {
            let _ = connection.socket.shutdown(Shutdown::Both);
        }
        let mut events = Vec::new();
        for slot in 0..self.connections.len() as Slot {
            self.close(slot);
        }
        for _ in 0..1000 {
            if self.connections.iter().all(Option::is_none) {
                return;
            }
            if self.wait(Some(Duration::from_millis(5)), &mut events).is_err() {
                break;
            }
            for event in events.drain(..) {
                if let Event::Received { buffer, .. } = event {
                    self.buffers.recycle(&buffer);
                }
            }
        }
        // Not reached unless the kernel misbehaves: rather lose the memory than have it written to after it is freed.
        std::mem::forget(std::mem::take(&mut self.connections));
        self.buffers.leak();
    }
}
