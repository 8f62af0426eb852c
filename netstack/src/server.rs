//! Starting and stopping.

use crate::api::Api;
use crate::config::ServerConfig;
use crate::crowd::Crowd;
use crate::event_loop::EventLoop;
use crate::handler::Handler;
use crate::mailbox::{Gauge, Mailbox};
use crate::plain::{HttpService, Plain};
use crate::ring::{self, sys};
use crate::service::ReplicaService;
use crate::verify::{BatchStats, CacheStats, KeyStats};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Serves the public HTTP interface.
pub struct Server;

/// What a server has done and is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetStats {
    /// Requests received since the start.
    pub requests: u64,
    /// Connections open.
    pub connections: usize,
    /// Calls that are unanswered.
    pub calls_in_flight: usize,
    /// Queries that are unanswered.
    pub queries_in_flight: usize,
    /// `read_state` requests that are unanswered.
    pub read_states_in_flight: usize,
    /// How the signature cache has fared; `None` if it is switched off.
    pub signature_cache: Option<CacheStats>,
    /// How often the curve points of keys were known, by scheme.
    pub keys: [(&'static str, KeyStats); 2],
    /// Ed25519 signatures that were verified together, and by themselves after that or for lack of company. Those of
    /// requests that came with other schemes' faults are not counted.
    pub signature_batches: BatchStats,
}

/// A running server. Dropping it stops it without waiting for requests in flight.
pub struct ServerHandle {
    address: SocketAddr,
    backend: &'static str,
    handler: Arc<dyn Handler>,
    open: Arc<Gauge>,
    peers: Arc<Crowd>,
    mailboxes: Vec<Arc<Mailbox>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Server {
    /// Listens and serves until the handle is shut down or dropped.
    ///
    /// # Errors
    /// The address cannot be listened on, a limit makes no sense, or the backend asked for is not available.
    pub fn start(config: ServerConfig, service: Arc<dyn ReplicaService>) -> io::Result<ServerHandle> {
        Self::start_placed(config, service, |_, _| ())
    }

    /// The same with `place` called first on each network thread, with its index and how many there are: where threads
    /// run is for who knows what else runs in the process.
    ///
    /// # Errors
    /// As for [`Server::start`].
    pub fn start_placed(
        config: ServerConfig,
        service: Arc<dyn ReplicaService>,
        place: Placement,
    ) -> io::Result<ServerHandle> {
        let api = Arc::new(Api::new(&config, service)?);
        Self::serve(config, api, place)
    }

    /// Serves plain HTTP on event loops of its own, until the handle is shut down or dropped.
    ///
    /// # Errors
    /// As for [`Server::start`].
    pub fn start_plain(config: ServerConfig, service: Arc<dyn HttpService>) -> io::Result<ServerHandle> {
        Self::serve(config, Arc::new(Plain::new(service)), |_, _| ())
    }

    fn serve(config: ServerConfig, handler: Arc<dyn Handler>, place: Placement) -> io::Result<ServerHandle> {
        let invalid = |text| io::Error::new(io::ErrorKind::InvalidInput, text);
        config.limits.check().map_err(invalid)?;
        let listeners = listen(&config)?;
        let address = listeners[0].local_addr()?;
        let open = Gauge::new(config.limits.connections_max);
        let mut handle = ServerHandle {
            address,
            backend: "",
            handler,
            open,
            peers: Crowd::new(config.limits.connections_per_peer_max),
            mailboxes: Vec::new(),
            threads: Vec::new(),
        };
        let threads = listeners.len();
        for (index, listener) in listeners.into_iter().enumerate() {
            // An error drops the handle and with it the threads that have begun.
            handle.backend = handle.start_loop(index, listener, &config, move || place(index, threads))?;
        }
        Ok(handle)
    }
}

/// Says where a network thread runs: called on it with its index and the number of network threads.
pub type Placement = fn(usize, usize);

/// One listener for each thread, all on the same port.
fn listen(config: &ServerConfig) -> io::Result<Vec<TcpListener>> {
    let threads = match config.threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let first = sys::listen(config.listen, false)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {}: {error}", config.listen)))?;
    if threads == 1 {
        return Ok(vec![first]);
    }
    // The port is ours alone; now take it again in the way that several listeners can share.
    let address = first.local_addr()?;
    drop(first);
    (0..threads).map(|_| sys::listen(address, true)).collect()
}

/// A reader of a server's statistics that anybody may keep: it does not keep the server or its service alive.
#[derive(Clone)]
pub struct ServerObserver {
    handler: Weak<dyn Handler>,
    open: Arc<Gauge>,
}

impl ServerObserver {
    /// What the server has done and is doing; zeros once it is gone.
    pub fn stats(&self) -> NetStats {
        let mut stats = NetStats {
            connections: self.open.count(),
            ..NetStats::default()
        };
        if let Some(handler) = self.handler.upgrade() {
            handler.add_stats(&mut stats);
        }
        stats
    }
}

impl ServerHandle {
    fn start_loop(
        &mut self,
        index: usize,
        listener: TcpListener,
        config: &ServerConfig,
        place: impl FnOnce() + Send + 'static,
    ) -> io::Result<&'static str> {
        let wake = Arc::new(sys::WakeFd::new()?);
        let mailbox = Arc::new(Mailbox::new(wake.clone()));
        let (ready, started) = mpsc::channel();
        let (backend, features, limits) = (config.backend, config.ring, config.limits.clone());
        let (handler, open, its_mailbox) = (self.handler.clone(), self.open.clone(), mailbox.clone());
        let peers = self.peers.clone();
        let thread = thread::Builder::new().name(format!("net-{index}")).spawn(move || {
            place();
            // The ring belongs to the thread that opens it.
            match ring::open((backend, features), listener, wake, &limits) {
                Ok(ring) => {
                    let _ = ready.send(Ok(ring.name()));
                    EventLoop::new(ring, handler, limits, its_mailbox, open, peers).run()
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    Ok(())
                }
            }
        })?;
        self.mailboxes.push(mailbox);
        self.threads.push(thread);
        started
            .recv()
            .map_err(|_| io::Error::other("a network thread ended while it started"))?
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The backend that moves the bytes: `io_uring` or `epoll`.
    pub fn backend(&self) -> &'static str {
        self.backend
    }

    /// What the server has done and is doing.
    pub fn stats(&self) -> NetStats {
        self.observer().stats()
    }

    /// A reader of the statistics that outlives this handle.
    pub fn observer(&self) -> ServerObserver {
        ServerObserver {
            handler: Arc::downgrade(&self.handler),
            open: self.open.clone(),
        }
    }

    /// Accepts nothing more, waits up to `drain` for the requests in flight to be answered, and ends all threads.
    ///
    /// # Errors
    /// The first error that ended a network thread before its time, if one did.
    pub fn shutdown(mut self, drain: Duration) -> io::Result<()> {
        self.stop(drain)
    }

    fn stop(&mut self, drain: Duration) -> io::Result<()> {
        let deadline = Instant::now() + drain;
        for mailbox in &self.mailboxes {
            mailbox.stop(deadline);
        }
        let mut outcome = Ok(());
        for thread in self.threads.drain(..) {
            let ended = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a network thread panicked")));
            outcome = outcome.and(ended);
        }
        outcome
    }
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        // Nobody is left to hear of an error.
        let _ = self.stop(Duration::ZERO);
    }
}
