//! Checkpoints: snapshots of the state written in the background, while rounds go on.

use crate::config::CheckpointsConfig;
use crate::failure::Failure;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use imbl::OrdMap;
use parking_lot::Mutex;
use replicore_persistence::{
    Blob, CheckpointItem, CheckpointItems, CheckpointOptions, CheckpointRequest, CheckpointStore, Digest, FileDisk,
    LoadedCheckpoint, PersistenceError, StateDirectory, StoredMemory,
};
use replicore_scheduler::state::{CanisterParts, CodecError, state_hash};
use replicore_scheduler::{CanisterState, ReplicatedState};
use replicore_types::CanisterId;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{error, info, warn};

/// Why a checkpoint cannot be written or read.
#[derive(Debug)]
pub enum CheckpointError {
    /// The disk, or damage in a file.
    Persistence(PersistenceError),
    /// A checkpoint of another version, or damage that checksums did not catch.
    Codec(CodecError),
    /// The checkpoint decodes to another state than the one that was written.
    StateHash(u64),
}

impl fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Persistence(error) => error.fmt(f),
            Self::Codec(error) => error.fmt(f),
            Self::StateHash(height) => write!(
                f,
                "the checkpoint at height {height} does not have the hash it was written with"
            ),
        }
    }
}

impl std::error::Error for CheckpointError {}

impl From<PersistenceError> for CheckpointError {
    fn from(error: PersistenceError) -> Self {
        Self::Persistence(error)
    }
}

impl From<CodecError> for CheckpointError {
    fn from(error: CodecError) -> Self {
        Self::Codec(error)
    }
}

/// Memories that a checkpoint holds by now, on their way to the round thread and back.
///
/// Letting go of a gigabyte of page frames takes a large part of a second. It is the checkpoint thread that does it: what
/// the round thread has taken over comes back here, and is dropped when nobody else holds it any more.
#[derive(Clone, Default)]
pub struct Rebases(Arc<Mutex<RebaseLists>>);

#[derive(Default)]
struct RebaseLists {
    incoming: Vec<StoredMemory>,
    retired: Vec<(Instant, Vec<StoredMemory>)>,
}

/// Published states that still hold the old frames are gone after this long, as long as there are rounds.
const RETIREMENT: Duration = Duration::from_millis(500);

impl Rebases {
    /// Takes what has come in.
    pub fn take(&self) -> Vec<StoredMemory> {
        std::mem::take(&mut self.0.lock().incoming)
    }

    /// Gives back what was taken over.
    pub fn retire(&self, memories: Vec<StoredMemory>) {
        if !memories.is_empty() {
            self.0.lock().retired.push((Instant::now(), memories));
        }
    }

    /// Lets go of what was given back a while ago.
    fn drop_retired(&self) {
        let is_over = |(since, _): &(Instant, Vec<StoredMemory>)| since.elapsed() >= RETIREMENT;
        let mut lists = self.0.lock();
        let (over, waiting) = std::mem::take(&mut lists.retired).into_iter().partition(is_over);
        lists.retired = waiting;
        drop(lists);
        let over: Vec<_> = over;
        drop(over);
    }
}

/// Writes states to the checkpoint store; each costs what changed since the last.
pub struct CheckpointWriter {
    store: CheckpointStore,
    last: Mutex<Last>,
    rebases: Rebases,
    passed_over: Vec<String>,
}

/// What the last checkpoint was written from.
#[derive(Default)]
struct Last {
    height: Option<u64>,
    canisters: OrdMap<CanisterId, Arc<CanisterState>>,
    digests: OrdMap<CanisterId, [u8; 32]>,
}

impl CheckpointWriter {
    /// Opens the store and the state of its newest complete checkpoint, if there is one.
    ///
    /// # Errors
    /// No checkpoint can be opened though some were written.
    pub fn open(directory: &StateDirectory) -> Result<(Self, Option<ReplicatedState>), CheckpointError> {
        let options = CheckpointOptions::default();
        let (store, opened) = CheckpointStore::open(Arc::new(FileDisk), &directory.checkpoints(), options)?;
        for damage in &opened.skipped {
            warn!(%damage, "a damaged checkpoint was passed over for the one before");
        }
        let (state, last) = match opened.latest {
            None => (None, Last::default()),
            Some(loaded) => {
                let (state, digests) = load(loaded)?;
                let last = Last {
                    height: Some(state.metadata.height.0),
                    canisters: state.canisters.clone(),
                    digests,
                };
                (Some(state), last)
            }
        };
        Ok((
            Self {
                store,
                last: Mutex::new(last),
                rebases: Rebases::default(),
                passed_over: opened.skipped.iter().map(ToString::to_string).collect(),
            },
            state,
        ))
    }

    /// Damage for which a newer checkpoint was passed over at the start.
    pub fn passed_over(&self) -> &[String] {
        &self.passed_over
    }

    /// The store, for those who look at it from outside.
    pub fn store(&self) -> &CheckpointStore {
        &self.store
    }

    /// Where memories come in that are to be read from the checkpoint's files.
    pub fn rebases(&self) -> Rebases {
        self.rebases.clone()
    }

    /// Writes a state and returns once it is durable. A height that is written already is left as it is.
    ///
    /// # Errors
    /// What the disk says; the last checkpoint is then untouched.
    pub fn write(&self, state: &ReplicatedState) -> Result<(), CheckpointError> {
        let mut last = self.last.lock();
        let height = state.metadata.height.0;
        if last.height.is_some_and(|last| last >= height) {
            return Ok(());
        }
        let start = Instant::now();
        let mut digests = last.digests.clone();
        let changed = changed_items(&last.canisters, &state.canisters, &mut digests);
        let canisters = changed.len();
        let system = state.system_bytes();
        let state_hash = state_hash(&system, digests.iter().map(|(id, digest)| (*id, *digest)));
        let items = match last.height {
            Some(height) => CheckpointItems::Since { height, changed },
            None => CheckpointItems::All(
                changed
                    .into_iter()
                    .filter_map(|(key, item)| Some((key, item?)))
                    .collect(),
            ),
        };
        let request = CheckpointRequest {
            height,
            state_hash,
            system: Blob::from(system),
            items,
        };
        let written = self.store.write(request)?;
        *last = Last {
            height: Some(height),
            canisters: state.canisters.clone(),
            digests,
        };
        self.rebases.0.lock().incoming.extend(written.memories);
        info!(
            height,
            canisters,
            pages = written.pages_written,
            bytes = written.bytes_written,
            compacted = written.compacted,
            milliseconds = start.elapsed().as_millis() as u64,
            "checkpoint written"
        );
        Ok(())
    }
}

/// The canisters that differ between two states, as items; brings `digests` up to date.
fn changed_items(
    old: &OrdMap<CanisterId, Arc<CanisterState>>,
    new: &OrdMap<CanisterId, Arc<CanisterState>>,
    digests: &mut OrdMap<CanisterId, [u8; 32]>,
) -> BTreeMap<Vec<u8>, Option<CheckpointItem>> {
    let mut changed = BTreeMap::new();
    for (id, canister) in new {
        if old.get(id).is_some_and(|old| Arc::ptr_eq(old, canister)) {
            continue;
        }
        let parts = canister.to_parts();
        digests.insert(*id, parts.digest());
        changed.insert(id.as_slice().to_vec(), Some(item(parts)));
    }
    for id in old.keys().filter(|id| !new.contains_key(*id)) {
        digests.remove(id);
        changed.insert(id.as_slice().to_vec(), None);
    }
    changed
}

fn item(parts: CanisterParts) -> CheckpointItem {
    CheckpointItem {
        metadata: Blob::from(parts.metadata),
        blobs: parts.blobs.into_iter().map(Blob::from).collect(),
        memories: parts.memories,
    }
}

/// The state of a checkpoint and the digests of its canisters.
///
/// # Errors
/// Damage, or a checkpoint of another version.
pub fn load(loaded: LoadedCheckpoint) -> Result<(ReplicatedState, OrdMap<CanisterId, [u8; 32]>), CheckpointError> {
    let mut digests = OrdMap::new();
    // Canisters share modules, and go on doing so.
    let mut modules: BTreeMap<Digest, Arc<[u8]>> = BTreeMap::new();
    let mut items = Vec::with_capacity(loaded.items.len());
    for (key, item) in loaded.items {
        let parts = CanisterParts {
            metadata: item.metadata.bytes().to_vec(),
            blobs: item
                .blobs
                .iter()
                .map(|blob| Arc::clone(modules.entry(*blob.digest()).or_insert_with(|| blob.bytes().into())))
                .collect(),
            memories: item.memories,
        };
        if let Ok(id) = replicore_types::PrincipalId::try_from_slice(&key) {
            digests.insert(CanisterId(id), parts.digest());
        }
        items.push((key, parts));
    }
    let system = loaded.system.bytes();
    if state_hash(system, digests.iter().map(|(id, digest)| (*id, *digest))) != loaded.state_hash {
        return Err(CheckpointError::StateHash(loaded.height));
    }
    Ok((ReplicatedState::from_parts(system, items)?, digests))
}

/// Where the commit thread offers every certified state; decides when one is written out.
pub struct CheckpointQueue {
    states: Sender<ReplicatedState>,
    config: CheckpointsConfig,
    busy: Arc<AtomicBool>,
    last_height: u64,
    last_log_bytes: u64,
}

impl CheckpointQueue {
    /// Offers a state. Where a checkpoint is due and none is being written, it is handed over.
    pub fn offer(&mut self, state: &ReplicatedState, log_bytes: u64) {
        let height = state.metadata.height.0;
        let is_due = height - self.last_height >= self.config.interval_rounds
            || log_bytes - self.last_log_bytes >= self.config.interval_log_bytes;
        if !is_due || self.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        (self.last_height, self.last_log_bytes) = (height, log_bytes);
        // The thread is gone only after a failure that is logged; the batch log then keeps growing.
        let _gone = self.states.try_send(state.clone());
    }
}

/// Starts the checkpoint thread; it ends when the queue is dropped. Heights below which batches are not needed any more
/// appear in `truncate_below`.
///
/// # Errors
/// The system gives no thread.
pub fn start(
    writer: Arc<CheckpointWriter>,
    config: &CheckpointsConfig,
    truncate_below: Arc<AtomicU64>,
    failure: &Arc<Failure>,
) -> std::io::Result<(CheckpointQueue, JoinHandle<()>)> {
    let (states, receiver) = bounded(1);
    let busy = Arc::new(AtomicBool::new(false));
    let last_height = writer.last.lock().height.unwrap_or(0);
    let queue = CheckpointQueue {
        states,
        config: config.clone(),
        busy: Arc::clone(&busy),
        last_height,
        last_log_bytes: 0,
    };
    let failure = Arc::clone(failure);
    let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(move || {
        let _watch = failure.watch("checkpoint");
        work(&writer, &receiver, &busy, &truncate_below);
    })?;
    Ok((queue, thread))
}

fn work(writer: &CheckpointWriter, states: &Receiver<ReplicatedState>, busy: &AtomicBool, truncate_below: &AtomicU64) {
    loop {
        let state = match states.recv_timeout(RETIREMENT) {
            Ok(state) => state,
            Err(RecvTimeoutError::Timeout) => {
                writer.rebases.drop_retired();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        match writer.write(&state) {
            // Batches after the checkpoint before this one stay: it is what recovery falls back to.
            Ok(()) => {
                let kept_from = writer.store.stats().previous_height.map_or(0, |height| height + 1);
                truncate_below.store(kept_from, Ordering::Release);
            }
            Err(error) => {
                // Serving goes on: the log holds every batch. Starting again retries.
                error!(%error, "no checkpoint could be written");
                return;
            }
        }
        busy.store(false, Ordering::Release);
    }
}
