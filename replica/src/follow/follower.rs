//! A replica that follows another one.

use super::client::Peer;
use super::error::FollowError;
use super::fetched_state::{Staging, fetch_state};
use super::following::{Following, Link};
use super::service::FollowerService;
use crate::certification::{NodeKey, ROOT_KEY_FILE};
use crate::checkpoints::{self, CheckpointWriter};
use crate::config::Config;
use crate::dirty_memory::DirtyMemory;
use crate::failure::Failure;
use crate::machine::StateMachine;
use crate::operator_key::{open_directory, open_log};
use crate::pool::IngressPool;
use crate::port_file::PortFile;
use crate::queries::{self, QueryHandler};
use crate::recovery::{self, RecoveryError};
use crate::snapshot::Published;
use crate::waiters::Waiters;
use replicore_engine::Engine;
use replicore_netstack::{Server, ServerHandle};
use replicore_persistence::StateDirectory;
use replicore_scheduler::{SchedulerCores, keep_apart};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;
use tracing::{info, warn};

/// File of a follower's state directory: the key of the subnet that it follows, DER.
pub(crate) const FOLLOWED_KEY_FILE: &str = "followed_key";
/// How long open requests are given on shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// Whom to follow.
#[derive(Clone, Debug)]
pub struct FollowerOptions {
    /// Where the other replica listens for followers.
    pub peer: SocketAddr,
    /// DER encoding of the subnet's key. Where it is not given, the one that the peer names first is believed and kept.
    pub root_key_der: Option<Vec<u8>>,
}

/// A running follower. Dropping it ends its threads.
pub struct Follower {
    server: Option<ServerHandle>,
    address: SocketAddr,
    link: Arc<Link>,
    published: Arc<Published>,
    failure: Arc<Failure>,
    writer: Arc<CheckpointWriter>,
    following: Option<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    // Last, so that the lock outlives everything that writes.
    port_file: Option<PortFile>,
    _directory: StateDirectory,
}

impl Follower {
    /// Fetches the state that the directory lacks, and serves it. Returns once queries are answered.
    ///
    /// # Errors
    /// [`FollowError`]; what was fetched is kept for the next attempt.
    pub fn start(config: &Config, options: &FollowerOptions) -> Result<Self, FollowError> {
        let directory = open_directory(config)?;
        if directory.path().join(ROOT_KEY_FILE).exists() {
            return Err(FollowError::NotAFollower);
        }
        if let Some(path) = &config.port_file {
            PortFile::remove_stale(path).map_err(|error| FollowError::Io("remove the old port file".into(), error))?;
        }
        let connect = || format!("reach the replica to follow at {}", options.peer);
        let mut peer = Peer::connect(options.peer).map_err(|error| FollowError::Io(connect(), error))?;
        let root_key_der = pin_key(directory.path(), &peer, options.root_key_der.as_deref())?;
        let node_key = Arc::new(NodeKey::load_or_create(&directory)?);
        let engine_config = recovery::engine_config(config, directory.path());
        let engine = Arc::new(Engine::new(engine_config).map_err(RecoveryError::Engine)?);
        let (writer, state) = CheckpointWriter::open(&directory)?;
        let (log, _) = open_log(&directory, recovery::log_options())?;
        let cores = SchedulerCores(config.scheduler_cores());
        let staging = Staging::of(&directory);
        let recovered = state.map(|state| {
            let height = state.metadata.height.0;
            let machine = StateMachine::new(state, Arc::clone(&engine), cores);
            recovery::replay(machine, &log).map_err(|error| (height, error))
        });
        let machine = match recovered {
            Some(Ok(machine)) => machine,
            Some(Err((height, error @ RecoveryError::Gap(..)))) => {
                // The log has a gap before every checkpoint that was fetched, and that one is damaged.
                warn!(%error, "the state is fetched again");
                let state = fetch_state(&staging, &writer, &mut peer, Some(height))?;
                recovery::replay(StateMachine::new(state, Arc::clone(&engine), cores), &log)?
            }
            Some(Err((_, error))) => return Err(error.into()),
            None => {
                let state = fetch_state(&staging, &writer, &mut peer, None)?;
                StateMachine::new(state, Arc::clone(&engine), cores)
            }
        };
        let (pool, waiters) = (
            Arc::new(IngressPool::new(config.pool.clone())),
            Arc::new(Waiters::default()),
        );
        let failure = Arc::new(Failure::new(pool, waiters));
        let (writer, published, link) = (
            Arc::new(writer),
            Arc::new(Published::default()),
            Arc::new(Link::default()),
        );
        let (memory, truncate_below) = (
            Arc::new(DirtyMemory::new(&config.checkpoints)),
            Arc::new(AtomicU64::new(0)),
        );
        let thread = |error| FollowError::Io("start a thread".into(), error);
        let (queue, checkpoint_thread) = checkpoints::start(
            Arc::clone(&writer),
            &config.checkpoints,
            memory,
            Arc::clone(&truncate_below),
            &failure,
        )
        .map_err(thread)?;
        let following = Following {
            staging,
            peer_address: options.peer,
            root_key_der: root_key_der.clone(),
            machine,
            log,
            log_bytes: 0,
            writer: Arc::clone(&writer),
            checkpoints: queue,
            truncate_below,
            published: Arc::clone(&published),
            link: Arc::clone(&link),
            unpublished: 0,
            unpublished_bytes: 0,
        };
        let watched = Arc::clone(&failure);
        let spawned = std::thread::Builder::new().name("follow".into()).spawn(move || {
            let _watch = watched.watch("follow");
            if let Err(error) = following.run(peer) {
                watched.set(error.to_string());
            }
        });
        let mut follower = Self {
            server: None,
            address: config.listen,
            link,
            published: Arc::clone(&published),
            failure: Arc::clone(&failure),
            writer,
            following: Some(spawned.map_err(thread)?),
            others: vec![checkpoint_thread],
            port_file: None,
            _directory: directory,
        };
        let handler = QueryHandler::new(
            Arc::clone(&published),
            engine,
            node_key,
            Arc::clone(&failure),
            &config.queries,
        );
        let (queries, threads) = queries::start(handler, config.query_threads()).map_err(thread)?;
        follower.others.extend(threads);
        let service = FollowerService {
            peer: options.peer,
            published,
            queries,
            root_key_der: root_key_der.into(),
            failure,
        };
        let server = Server::start_placed(crate::replica::server_config(config), Arc::new(service), keep_apart)
            .map_err(|error| FollowError::Io("start the HTTP interface".into(), error))?;
        follower.address = server.local_addr();
        follower.server = Some(server);
        let port_file = config
            .port_file
            .as_deref()
            .map(|path| PortFile::write(path, follower.address.port()));
        follower.port_file = port_file
            .transpose()
            .map_err(|error| FollowError::Io("write the port file".into(), error))?;
        info!(address = %follower.address, peer = %options.peer, "following");
        Ok(follower)
    }

    /// The address that the HTTP interface is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The height of the state that queries see; `None` before the first batch of the peer.
    pub fn height(&self) -> Option<u64> {
        let snapshot = self.published.load()?;
        Some(snapshot.state.metadata.height.0)
    }

    /// Why the follower cannot go on, once that has happened.
    pub fn failure(&self) -> Option<String> {
        self.failure.get()
    }

    /// Ends every thread and writes a checkpoint, so that the next start has little to execute.
    ///
    /// # Errors
    /// The checkpoint. The log still holds everything.
    pub fn stop(mut self) -> Result<(), FollowError> {
        let last = self.published.load();
        self.end();
        match last {
            Some(last) if self.failure.get().is_none() => Ok(self.writer.write(&last.state)?),
            _ => Ok(()),
        }
    }

    fn end(&mut self) {
        self.link.stop();
        let _panic_is_recorded = self.following.take().map(JoinHandle::join);
        drop(self.port_file.take());
        if let Some(server) = self.server.take() {
            let _what_was_open_is_closed = server.shutdown(DRAIN);
        }
        for thread in self.others.drain(..) {
            let _panic_is_recorded = thread.join();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.end();
    }
}

/// The key to believe: the one given, the one of earlier, or for the first time the peer's own.
fn pin_key(directory: &Path, peer: &Peer, given: Option<&[u8]>) -> Result<Vec<u8>, FollowError> {
    let path = directory.join(FOLLOWED_KEY_FILE);
    let known = match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(FollowError::Io(format!("read {}", path.display()), error)),
    };
    let key = peer.root_key_der();
    if [known.as_deref(), given]
        .into_iter()
        .flatten()
        .any(|expected| expected != key)
    {
        return Err(FollowError::OtherSubnet);
    }
    if known.is_none() {
        if given.is_none() {
            warn!(
                key = hex::encode(key),
                "the peer's root key is believed because none was given"
            );
        }
        let new = path.with_extension("new");
        let written = std::fs::write(&new, key)
            .and_then(|()| std::fs::File::open(&new)?.sync_all())
            .and_then(|()| std::fs::rename(&new, &path));
        written.map_err(|error| FollowError::Io(format!("write {}", path.display()), error))?;
    }
    Ok(key.to_vec())
}
