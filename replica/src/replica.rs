//! The process: opens a state directory, recovers it, starts the threads, and stops them in order.

use crate::certification::{KeyError, NodeKey};
use crate::checkpoints::{self, CheckpointError, CheckpointWriter};
use crate::commit::{self, Commit};
use crate::config::Config;
use crate::machine::StateMachine;
use crate::pool::IngressPool;
use crate::queries::{self, QueryHandler};
use crate::recovery::{self, Recovered, RecoveryError};
use crate::rounds::Rounds;
use crate::service::Service;
use crate::snapshot::{CertifiedSnapshot, Published};
use crate::waiters::Waiters;
use parking_lot::Mutex;
use replicore_netstack::{Server, ServerConfig, ServerHandle, SignatureCacheConfig};
use replicore_persistence::StateDirectory;
use replicore_types::SubnetId;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;
use tracing::info;

/// How long open requests are given on shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// A running replica. Dropping it without [`Replica::stop`] ends it as a crash would: nothing acknowledged is lost.
pub struct Replica {
    server: ServerHandle,
    pool: Arc<IngressPool>,
    failure: Arc<Mutex<Option<String>>>,
    round: JoinHandle<StateMachine>,
    commit: JoinHandle<()>,
    checkpoint: JoinHandle<()>,
    queries: Vec<JoinHandle<()>>,
    writer: Arc<CheckpointWriter>,
    root_key_der: Arc<[u8]>,
    subnet_id: SubnetId,
    // Last, so that the lock outlives everything that writes.
    _directory: StateDirectory,
}

/// Why a replica does not start or does not stop cleanly.
#[derive(Debug)]
pub enum ReplicaError {
    /// The state directory cannot be opened or recovered.
    Recovery(RecoveryError),
    /// A thread or a socket cannot be had; what for.
    Io(&'static str, io::Error),
    /// The final checkpoint failed; the batch log still holds everything.
    Checkpoint(CheckpointError),
    /// A thread ended with an error while serving.
    Failed(String),
}

impl fmt::Display for ReplicaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recovery(error) => error.fmt(f),
            Self::Io(what, error) => write!(f, "cannot {what}: {error}"),
            Self::Checkpoint(error) => write!(f, "the final checkpoint failed (the log holds every batch): {error}"),
            Self::Failed(text) => write!(f, "the replica failed: {text}"),
        }
    }
}

impl std::error::Error for ReplicaError {}

impl From<RecoveryError> for ReplicaError {
    fn from(error: RecoveryError) -> Self {
        Self::Recovery(error)
    }
}

impl From<KeyError> for ReplicaError {
    fn from(error: KeyError) -> Self {
        Self::Recovery(error.into())
    }
}

impl Replica {
    /// Opens the state directory of `config`, recovers it, and serves it.
    ///
    /// # Errors
    /// [`ReplicaError`] with what to do about it. Nothing keeps running after an error.
    pub fn start(config: &Config) -> Result<Self, ReplicaError> {
        let Recovered {
            directory,
            machine,
            log,
            writer,
            root_key,
        } = recovery::open(config)?;
        let node_key = Arc::new(NodeKey::load_or_create(directory.path())?);
        let engine = Arc::clone(machine.engine());
        let (pool, waiters) = (
            Arc::new(IngressPool::new(config.pool.clone())),
            Arc::new(Waiters::default()),
        );
        let (published, failure) = (Arc::new(Published::default()), Arc::new(Mutex::new(None)));
        let root_key_der: Arc<[u8]> = root_key.public_key_der().into();
        let subnet_id = root_key.subnet_id();
        let snapshot = CertifiedSnapshot::certify(machine.state().clone(), &root_key);
        let root = *snapshot.root_hash();
        published.store(snapshot);

        let truncate_below = Arc::new(AtomicU64::new(0));
        let (checkpoints, checkpoint) =
            checkpoints::start(Arc::clone(&writer), &config.checkpoints, Arc::clone(&truncate_below))
                .map_err(|error| ReplicaError::Io("start the checkpoint thread", error))?;
        let (commit_queue, receiver) = commit::queue();
        let commit = Commit {
            log,
            root_key,
            root,
            log_bytes: 0,
            truncate_below,
            published: Arc::clone(&published),
            waiters: Arc::clone(&waiters),
            checkpoints,
            failure: Arc::clone(&failure),
        };
        let commit = spawn("commit", move || commit.run(receiver))?;
        let rounds = Rounds {
            machine,
            pool: Arc::clone(&pool),
            commit: commit_queue,
            config: config.rounds.clone(),
            rebases: writer.rebases(),
        };
        let round = spawn("round", move || rounds.run())?;
        let handler = QueryHandler {
            published: Arc::clone(&published),
            engine: Arc::clone(&engine),
            node_key: Arc::clone(&node_key),
        };
        let (query_queue, queries) =
            queries::start(Arc::new(handler), config.query_threads(), config.queries.waiting_max)
                .map_err(|error| ReplicaError::Io("start the query threads", error))?;
        let service = Service {
            published,
            pool: Arc::clone(&pool),
            waiters,
            queries: query_queue,
            engine,
            root_key_der: Arc::clone(&root_key_der),
            call_wait: Duration::from_millis(config.pool.call_wait_ms),
        };
        let server = Server::start(server_config(config), Arc::new(service))
            .map_err(|error| ReplicaError::Io("start the HTTP interface", error))?;
        info!(address = %server.local_addr(), %subnet_id, "serving");
        Ok(Self {
            server,
            pool,
            failure,
            round,
            commit,
            checkpoint,
            queries,
            writer,
            root_key_der,
            subnet_id,
            _directory: directory,
        })
    }

    /// The address that the HTTP interface is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.server.local_addr()
    }

    /// DER encoding of the root key.
    pub fn root_key_der(&self) -> &[u8] {
        &self.root_key_der
    }

    /// The subnet.
    pub fn subnet_id(&self) -> SubnetId {
        self.subnet_id
    }

    /// Why the replica cannot go on, once that has happened.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Finishes what was accepted, answers it, writes a checkpoint and ends every thread.
    ///
    /// # Errors
    /// A thread failed, or the final checkpoint did. Nothing acknowledged is lost by either.
    pub fn stop(self) -> Result<(), ReplicaError> {
        self.pool.close();
        let panicked = |thread: &str| ReplicaError::Failed(format!("the {thread} thread panicked"));
        let machine = self.round.join().map_err(|_| panicked("round"))?;
        self.commit.join().map_err(|_| panicked("commit"))?;
        self.server
            .shutdown(DRAIN)
            .map_err(|error| ReplicaError::Io("shut the HTTP interface down", error))?;
        for thread in self.queries {
            thread.join().map_err(|_| panicked("query"))?;
        }
        self.checkpoint.join().map_err(|_| panicked("checkpoint"))?;
        if let Some(failure) = self.failure.lock().take() {
            return Err(ReplicaError::Failed(failure));
        }
        self.writer.write(machine.state()).map_err(ReplicaError::Checkpoint)
    }
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, ReplicaError> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|error| ReplicaError::Io("start a thread", error))
}

fn server_config(config: &Config) -> ServerConfig {
    ServerConfig {
        listen: config.listen,
        threads: config.net_threads,
        backend: config.net,
        limits: config.http.clone(),
        signature_cache: SignatureCacheConfig::default(),
    }
}
