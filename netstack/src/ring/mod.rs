//! Sockets: the one place that talks to the kernel, and all `unsafe` of the crate.
//!
//! An event loop owns one [`Ring`]. It adds connections under slot numbers of its own choice and learns by [`Event`]s
//! what became of them. Two implementations behave the same, [`uring`] and
//! [`epoll`]; a third, `sim`, is a simulated network for tests.
//!
//! ```text
//! Accepted(socket) -> watch(slot, socket) -> Received* -> EndOfStream | Failed
//!                     send(slot, bytes) -> Sent | Failed          (one send at a time)
//!                     close(slot) -> Closed                       (only then may the slot be used again)
//! ```

mod buffers;
mod epoll;
#[cfg(test)]
pub(crate) mod sim;
pub(crate) mod sys;
mod uring;

use crate::config::{NetBackend, NetLimits, RingFeatures};
use std::io::{self, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use sys::WakeFd;

/// The number under which a loop knows a connection.
pub(crate) type Slot = u32;

/// Names a receive buffer, or a part of one, until it is given back by [`Ring::recycle`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BufferId {
    index: u16,
    /// Where the part begins.
    offset: u32,
}

impl BufferId {
    /// A buffer from its beginning.
    fn whole(index: u16) -> Self {
        Self { index, offset: 0 }
    }
}

/// A client that has connected.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// On a real socket.
    Socket(TcpStream),
    /// The client of a simulation with this number.
    #[cfg(test)]
    Simulated(usize),
}

impl Incoming {
    /// Its address, if it has one and is still there.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Socket(socket) => socket.peer_addr().ok().map(|address| address.ip()),
            #[cfg(test)]
            Self::Simulated(_) => None,
        }
    }

    /// Lets small answers leave at once: they are written whole, so that waiting for more would only delay them.
    pub(crate) fn send_at_once(&self) {
        match self {
            // Where this fails answers are slower, nothing else.
            Self::Socket(socket) => drop(socket.set_nodelay(true)),
            #[cfg(test)]
            Self::Simulated(_) => {}
        }
    }

    /// Sends `response` as far as that goes without waiting, and ends the connection.
    pub(crate) fn turn_away(self, response: &[u8]) {
        match self {
            Self::Socket(mut socket) => {
                // If its socket buffer has no room for this the client will see the connection end.
                let _ = socket
                    .set_nonblocking(true)
                    .and_then(|()| socket.write(response).map(drop));
                let _ = socket.shutdown(Shutdown::Write);
            }
            #[cfg(test)]
            Self::Simulated(_) => {}
        }
    }

    /// The socket; simulated clients have none.
    fn into_socket(self) -> TcpStream {
        match self {
            Self::Socket(socket) => socket,
            #[cfg(test)]
            Self::Simulated(_) => unreachable!("a simulated client on a real ring"),
        }
    }
}

/// Something that the kernel has to say.
#[derive(Debug)]
pub(crate) enum Event {
    /// A client has connected; nothing is read from it before [`Ring::watch`].
    Accepted(Incoming),
    /// Bytes have arrived: [`Ring::bytes`] gives them, [`Ring::recycle`] must follow.
    Received {
        slot: Slot,
        buffer: BufferId,
        length: usize,
    },
    /// The client will send nothing more; it may still read.
    EndOfStream { slot: Slot },
    /// All bytes of a send are with the kernel; the buffer comes back.
    Sent { slot: Slot, bytes: Vec<u8> },
    /// The connection is broken; it is to be closed.
    Failed { slot: Slot },
    /// A [`Ring::close`] is complete.
    Closed { slot: Slot },
}

/// What an event loop asks of the kernel.
pub(crate) trait Ring {
    /// Begins to receive from `client` under `slot`, which must be free.
    fn watch(&mut self, slot: Slot, client: Incoming);

    /// Waits up to `timeout` (forever if `None`) for something to happen, or for a wake-up, and appends it to `events`.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// The bytes of a [`Event::Received`].
    fn bytes(&self, buffer: &BufferId, length: usize) -> &[u8];

    /// Gives a receive buffer back.
    fn recycle(&mut self, buffer: BufferId);

    /// Sends `bytes`, which are not empty. No other send of the slot may be under way.
    fn send(&mut self, slot: Slot, bytes: Vec<u8>);

    /// Stops receiving from the slot; what is already received may still be delivered.
    fn pause(&mut self, slot: Slot);

    /// Receives again after [`Ring::pause`].
    fn resume(&mut self, slot: Slot);

    /// Tells the client that nothing more will be sent; receiving goes on.
    fn shut_write(&mut self, slot: Slot);

    /// Gives the connection up at once; [`Event::Closed`] follows and is the last event of the slot.
    fn close(&mut self, slot: Slot);

    /// Accepts again, if accepting has stopped because of an error such as too many open files.
    fn accept_again(&mut self);

    /// Accepts no further client and closes the listener.
    fn stop_accepting(&mut self);

    /// What this implementation is called.
    fn name(&self) -> &'static str;
}

/// Opens the ring that `backend` asks for. Must be called on the thread that is going to use it.
pub(crate) fn open(
    (backend, features): (NetBackend, RingFeatures),
    listener: TcpListener,
    wake: Arc<WakeFd>,
    limits: &NetLimits,
) -> io::Result<Box<dyn Ring>> {
    match backend {
        NetBackend::Epoll => Ok(Box::new(epoll::Epoll::open(listener, wake, limits)?)),
        NetBackend::Uring => match uring::Uring::open(features, listener, wake, limits) {
            Ok(ring) => Ok(Box::new(ring)),
            Err((error, _)) => Err(io::Error::new(
                error.kind(),
                format!("io_uring is required (backend = \"uring\") but not available: {error}"),
            )),
        },
        NetBackend::Auto => match uring::Uring::open(features, listener, wake.clone(), limits) {
            Ok(ring) => Ok(Box::new(ring)),
            Err((_, listener)) => Ok(Box::new(epoll::Epoll::open(listener, wake, limits)?)),
        },
    }
}
