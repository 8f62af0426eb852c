//! A replica that follows another one.

use super::client::Peer;
use super::wire::WireEntry;
use crate::certification::{
    CertifiedRoot, KeyError, NodeKey, ROOT_KEY_FILE, state_root_message, verify_subnet_signature,
};
use crate::checkpoints::{self, CheckpointQueue, CheckpointWriter};
use crate::commit::decode_record;
use crate::config::Config;
use crate::dirty_memory::DirtyMemory;
use crate::failure::Failure;
use crate::machine::StateMachine;
use crate::operator_key::{open_directory, open_log};
use crate::pool::IngressPool;
use crate::port_file::PortFile;
use crate::queries::{self, Queries, QueryHandler};
use crate::recovery::{self, RecoveryError};
use crate::rounds::wall_clock;
use crate::snapshot::{CertifiedSnapshot, Published};
use crate::waiters::Waiters;
use replicore_engine::Engine;
use replicore_netstack::{
    CallReply, Query, QueryReply, ReadState, ReadStateError, ReplicaService, Responder, Server, ServerHandle,
    ServiceBusy, StatusReport, Target,
};
use replicore_persistence::sync::{SyncError, fetch};
use replicore_persistence::{
    BatchLog, CheckpointOptions, CheckpointStore, Cipher, FileDisk, PersistenceError, StateDirectory,
};
use replicore_scheduler::{ReplicatedState, SchedulerCores};
use replicore_types::{ErrorCode, Ingress, Payload, Time, UserError};
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tracing::{info, warn};

/// File of a follower's state directory: the key of the subnet that it follows, DER.
pub(crate) const FOLLOWED_KEY_FILE: &str = "followed_key";
/// Folder of the parts of a state while it is fetched.
const STAGING: &str = "sync";
/// From a broken connection to the next attempt.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(500);
/// Batches that are executed before those that wait are made visible.
const UNPUBLISHED_MAX: u32 = 64;
/// Bytes of those batches: they reach the disk together, and the log bounds what may.
const UNPUBLISHED_BYTES_MAX: usize = 64 * 1024 * 1024;
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

/// Why a follower does not start, or cannot go on.
#[derive(Debug)]
pub enum FollowError {
    /// The state directory.
    Recovery(RecoveryError),
    /// The peer, or a socket of this side.
    Io(String, io::Error),
    /// The state cannot be fetched.
    Sync(SyncError),
    /// The directory is that of a replica with keys of its own.
    NotAFollower,
    /// The peer belongs to another subnet than the one that is followed.
    OtherSubnet,
    /// The state that was fetched is not sound; what is wrong with it.
    Unsound(String),
    /// The peer's checkpoint, at the first height, is not newer than what this side has, at the second.
    Behind(u64, u64),
}

impl fmt::Display for FollowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recovery(error) => error.fmt(f),
            Self::Io(what, error) => write!(f, "cannot {what}: {error}"),
            Self::Sync(error) => error.fmt(f),
            Self::NotAFollower => f.write_str(
                "the state directory is that of a replica with a key of its own: start it without --join, or choose \
                 another directory",
            ),
            Self::OtherSubnet => {
                f.write_str("the peer belongs to another subnet than the one to follow: check address and root key")
            }
            Self::Unsound(what) => write!(f, "the state that the peer sent is not sound: {what}"),
            Self::Behind(peer, ours) => write!(
                f,
                "the peer has a checkpoint at height {peer} and no batch after height {ours}, which this follower has: it was \
                 restored from an older copy; follow another replica, or begin with an empty directory"
            ),
        }
    }
}

impl std::error::Error for FollowError {}

impl From<RecoveryError> for FollowError {
    fn from(error: RecoveryError) -> Self {
        Self::Recovery(error)
    }
}

impl From<PersistenceError> for FollowError {
    fn from(error: PersistenceError) -> Self {
        Self::Recovery(error.into())
    }
}

impl From<SyncError> for FollowError {
    fn from(error: SyncError) -> Self {
        Self::Sync(error)
    }
}

impl From<KeyError> for FollowError {
    fn from(error: KeyError) -> Self {
        Self::Recovery(error.into())
    }
}

impl From<checkpoints::CheckpointError> for FollowError {
    fn from(error: checkpoints::CheckpointError) -> Self {
        Self::Recovery(error.into())
    }
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

/// The connection of the moment, to be broken from outside.
#[derive(Default)]
struct Link {
    is_stopping: AtomicBool,
    breaker: parking_lot::Mutex<Option<TcpStream>>,
}

impl Link {
    fn set(&self, peer: &Peer) {
        *self.breaker.lock() = peer.breaker().ok();
        // Where the end came in between, nobody else breaks this one.
        if self.is_stopping() {
            self.stop();
        }
    }

    fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        if let Some(stream) = &*self.breaker.lock() {
            let _gone_already = stream.shutdown(Shutdown::Both);
        }
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }
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
        let server = Server::start(crate::replica::server_config(config), Arc::new(service))
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

/// Where the parts of a state lie while it is fetched.
struct Staging {
    path: PathBuf,
    cipher: Option<Cipher>,
}

impl Staging {
    fn of(directory: &StateDirectory) -> Self {
        Self {
            path: directory.path().join(STAGING),
            cipher: directory.cipher(STAGING),
        }
    }
}

/// Fetches the peer's checkpoint, as far as it is lacking here, and makes it the newest of the directory: it must be newer
/// than the height that this side has.
fn fetch_state(
    staging: &Staging,
    writer: &CheckpointWriter,
    peer: &mut Peer,
    ours: Option<u64>,
) -> Result<ReplicatedState, FollowError> {
    let manifest = peer
        .manifest()
        .map_err(|error| FollowError::Io("learn what the peer's state consists of".into(), error))?;
    if let Some(ours) = ours.filter(|ours| *ours >= manifest.height) {
        return Err(FollowError::Behind(manifest.height, ours));
    }
    let path = &staging.path;
    let failed = |what: &str, error| FollowError::Io(format!("{what} {}", path.display()), error);
    std::fs::create_dir_all(path).map_err(|error| failed("create", error))?;
    let (options, cipher) = (CheckpointOptions::default(), staging.cipher.as_ref());
    let (store, staged) = CheckpointStore::open_with(Arc::new(FileDisk), path, options, cipher)?;
    let fetched = fetch(peer, &manifest, &store, staged.latest, writer.store().latest()?)?;
    info!(height = manifest.height, report = ?fetched.report, "the peer's checkpoint is here");
    let (state, _) = checkpoints::load(fetched.checkpoint)?;
    check_modules(&state)?;
    writer.write_fetched(&state)?;
    // Read from here on from where it is durable.
    drop((state, store));
    std::fs::remove_dir_all(path).map_err(|error| failed("remove", error))?;
    let loaded = writer.store().latest()?;
    let loaded = loaded.ok_or_else(|| FollowError::Unsound("its checkpoint is not there".into()))?;
    Ok(checkpoints::load(loaded)?.0)
}

/// The state hash covers modules by their SHA-256, which nothing has compared so far.
fn check_modules(state: &ReplicatedState) -> Result<(), FollowError> {
    for (id, canister) in &state.canisters {
        let snapshots = canister.system.snapshots.values().map(|snapshot| &snapshot.execution);
        for execution in canister.execution.iter().chain(snapshots) {
            if <[u8; 32]>::from(Sha256::digest(&execution.module.bytes)) != execution.module.hash {
                return Err(FollowError::Unsound(format!(
                    "a module of canister {id} has another hash"
                )));
            }
        }
    }
    Ok(())
}

/// What the following thread owns.
struct Following {
    staging: Staging,
    peer_address: SocketAddr,
    root_key_der: Vec<u8>,
    machine: StateMachine,
    log: BatchLog,
    log_bytes: u64,
    writer: Arc<CheckpointWriter>,
    checkpoints: CheckpointQueue,
    truncate_below: Arc<AtomicU64>,
    published: Arc<Published>,
    link: Arc<Link>,
    /// Batches since the last state that is visible.
    unpublished: u32,
    /// Their bytes.
    unpublished_bytes: usize,
}

/// How a connection ended.
enum Ended {
    /// It broke; another one may last longer.
    Broken(io::Error),
    /// The peer does not have the next batch any more.
    TooOld,
}

impl Following {
    /// Follows until the link is stopped.
    fn run(mut self, first: Peer) -> Result<(), FollowError> {
        let mut peer = Some(first);
        while !self.link.is_stopping() {
            let Some(mut connected) = peer.take().or_else(|| self.reconnect()) else {
                continue;
            };
            match self.follow(&mut connected)? {
                Ended::Broken(error) if !self.link.is_stopping() => {
                    warn!(%error, "the connection to the replica that is followed broke");
                }
                Ended::Broken(_) => {}
                Ended::TooOld => self.fetch_again()?,
            }
        }
        Ok(())
    }

    fn reconnect(&self) -> Option<Peer> {
        std::thread::sleep(RECONNECT_INTERVAL);
        Peer::connect(self.peer_address)
            .ok()
            .filter(|peer| peer.root_key_der() == self.root_key_der)
    }

    fn fetch_again(&mut self) -> Result<(), FollowError> {
        let Some(mut peer) = self.reconnect() else {
            return Ok(());
        };
        self.link.set(&peer);
        let ours = self.machine.state().metadata.height.0;
        match fetch_state(&self.staging, &self.writer, &mut peer, Some(ours)) {
            Ok(state) => {
                let (engine, cores) = (Arc::clone(self.machine.engine()), self.machine.cores());
                self.machine = StateMachine::new(state, engine, cores);
                Ok(())
            }
            Err(FollowError::Io(_, error)) => {
                warn!(%error, "the peer's state could not be fetched");
                Ok(())
            }
            Err(FollowError::Sync(SyncError::Source(error))) => {
                warn!(error, "the peer's state could not be fetched");
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    fn follow(&mut self, peer: &mut Peer) -> Result<Ended, FollowError> {
        self.link.set(peer);
        if let Err(error) = peer.follow(self.machine.state().metadata.height.0) {
            return Ok(Ended::Broken(error));
        }
        loop {
            let entry = match peer.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => return Ok(Ended::TooOld),
                Err(error) => return Ok(Ended::Broken(error)),
            };
            self.execute(&entry)?;
            self.unpublished += 1;
            self.unpublished_bytes += entry.record.len();
            let are_many = self.unpublished >= UNPUBLISHED_MAX || self.unpublished_bytes >= UNPUBLISHED_BYTES_MAX;
            if !peer.has_more() || are_many {
                self.publish(&entry)?;
            }
        }
    }

    fn execute(&mut self, entry: &WireEntry) -> Result<(), FollowError> {
        let rebases = self.writer.rebases();
        let stored = rebases.take();
        self.machine.rebase(&stored);
        rebases.retire(stored);
        let record = decode_record(&entry.record).map_err(|error| RecoveryError::Record(entry.height, error));
        let (root_before, batch) = record?;
        let needed = self.machine.state().metadata.height.next();
        if batch.height != needed || entry.height != needed.0 {
            return Err(RecoveryError::Gap(needed, batch.height).into());
        }
        if root_before != self.machine.state().certified_root() {
            return Err(RecoveryError::Diverged(batch.height).into());
        }
        self.log.append(entry.height, &entry.record)?;
        self.machine.execute_batch(batch);
        if self.machine.state().certified_root() != entry.root {
            return Err(RecoveryError::Diverged(needed.next()).into());
        }
        Ok(())
    }

    /// Makes durable what was executed, and visible what the subnet has signed.
    fn publish(&mut self, entry: &WireEntry) -> Result<(), FollowError> {
        let is_signed = verify_subnet_signature(&self.root_key_der, &state_root_message(&entry.root), &entry.signature);
        let signature = entry.signature.as_slice().try_into().ok().filter(|_| is_signed);
        let signature = signature.ok_or_else(|| {
            FollowError::Unsound(format!(
                "the root after batch {} is not signed by the subnet",
                entry.height
            ))
        })?;
        self.log_bytes += self.log.sync()?.map_or(0, |report| report.bytes_written);
        match self.truncate_below.swap(0, Ordering::AcqRel) {
            0 => {}
            height => self.log.truncate_before(height)?,
        }
        let state = self.machine.state().clone();
        self.checkpoints.offer(&state, self.log_bytes);
        let root = CertifiedRoot::signed(entry.root, signature);
        self.published.store(CertifiedSnapshot::with_root(state, root));
        (self.unpublished, self.unpublished_bytes) = (0, 0);
        Ok(())
    }
}

/// What the network stack asks of a follower.
struct FollowerService {
    peer: SocketAddr,
    published: Arc<Published>,
    queries: Queries,
    root_key_der: Arc<[u8]>,
    failure: Arc<Failure>,
}

impl ReplicaService for FollowerService {
    fn status(&self) -> StatusReport {
        let snapshot = self.published.load();
        StatusReport {
            root_key: Arc::clone(&self.root_key_der),
            healthy: snapshot.is_some() && self.failure.get().is_none(),
            certified_height: snapshot.map_or(0, |snapshot| snapshot.state.metadata.height.0),
            implementation: concat!("replicore-", env!("CARGO_PKG_VERSION"), " (follower)").to_owned(),
        }
    }

    fn now(&self) -> Time {
        wall_clock()
    }

    fn call(&self, _message: Ingress, _target: Target, _wait: bool, respond: Responder<CallReply>) {
        let text = format!(
            "This replica only follows another one and takes no calls: send them to the replica that it follows ({})",
            self.peer
        );
        respond(CallReply::Rejected(UserError::new(ErrorCode::SubnetNotFound, text)));
    }

    fn query(&self, query: Query, respond: Responder<Result<QueryReply, ServiceBusy>>) {
        self.queries.ask(query, respond);
    }

    fn read_state(&self, read: ReadState, respond: Responder<Result<Payload, ReadStateError>>) {
        let _watch = self.failure.watch("network");
        respond(match self.published.load() {
            Some(snapshot) => snapshot.read_state(&read),
            None => Err(ReadStateError::Unavailable),
        });
    }
}
