//! Checkpoints: snapshots of the state written in the background, while rounds go on.

use crate::config::CheckpointsConfig;
use crate::dirty_memory::DirtyMemory;
use crate::failure::Failure;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use imbl::OrdMap;
use parking_lot::Mutex;
use replicore_persistence::{
    Blob, CheckpointItem, CheckpointItems, CheckpointOptions, CheckpointRequest, CheckpointStore, Digest, FileDisk,
    LoadedCheckpoint, PersistenceError, StateDirectory, StoredMemory, work_in_background,
};
use replicore_scheduler::state::{CodecError, HistoryPiece, IngressHistory, ItemKey, ItemParts, state_hash};
use replicore_scheduler::{CanisterState, ReplicatedState};
use replicore_types::{CanisterId, Time};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::{info, warn};

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
                "the checkpoint at height {height} does not have the hash it was written with: it is damaged, or of \
                 another version"
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
    incoming: VecDeque<StoredMemory>,
    retired: Vec<(Instant, Vec<StoredMemory>)>,
}

/// Pages in memory that a round lets go of, or little more: 2,048 of them scattered over a memory take about a
/// millisecond.
const REBASED_FRAMES_MAX: u64 = 2_048;

/// Published states that still hold the old frames are gone after this long, as long as there are rounds.
const RETIREMENT: Duration = Duration::from_millis(500);
/// The same where memory is short and rounds may wait for it.
const RETIREMENT_UNDER_PRESSURE: Duration = Duration::from_millis(5);

impl Rebases {
    /// Takes all that has come in.
    pub fn take(&self) -> Vec<StoredMemory> {
        std::mem::take(&mut self.0.lock().incoming).into()
    }

    /// Takes of that what a round has time for.
    pub fn take_some(&self) -> Vec<StoredMemory> {
        let (mut some, mut work) = (Vec::new(), 0);
        let mut lists = self.0.lock();
        while work < REBASED_FRAMES_MAX
            && let Some(part) = lists.incoming.pop_front()
        {
            // Finding the canister is work, too.
            work += part.frames + 1;
            some.push(part);
        }
        some
    }

    /// Gives back what was taken over.
    pub fn retire(&self, memories: Vec<StoredMemory>) {
        if !memories.is_empty() {
            self.0.lock().retired.push((Instant::now(), memories));
        }
    }

    /// True where something is to be taken, or was given back and is not dropped yet.
    pub fn are_under_way(&self) -> bool {
        let lists = self.0.lock();
        !(lists.incoming.is_empty() && lists.retired.is_empty())
    }

    /// Lets go of what was given back this long ago.
    fn drop_retired(&self, age: Duration) {
        let is_over = |(since, _): &(Instant, Vec<StoredMemory>)| since.elapsed() >= age;
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

/// Where a state comes from, seen from the last checkpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// From the state in it, by rounds: its history knows what changed since.
    Rounds,
    /// From another replica: when its parts changed says nothing about the checkpoint.
    Elsewhere,
}

/// What the last checkpoint was written from.
#[derive(Default)]
struct Last {
    height: Option<u64>,
    /// Its batch time.
    time: Time,
    /// The versions of the canisters, to be recognised, not to be kept: their pages are let go of.
    canisters: OrdMap<CanisterId, Weak<CanisterState>>,
    digests: OrdMap<ItemKey, [u8; 32]>,
}

impl CheckpointWriter {
    /// Opens the store and the state of its newest complete checkpoint, if there is one.
    ///
    /// # Errors
    /// No checkpoint can be opened though some were written.
    pub fn open(directory: &StateDirectory) -> Result<(Self, Option<ReplicatedState>), CheckpointError> {
        let options = CheckpointOptions::default();
        let cipher = directory.cipher("checkpoints");
        let (store, opened) =
            CheckpointStore::open_with(Arc::new(FileDisk), &directory.checkpoints(), options, cipher.as_ref())?;
        for damage in &opened.skipped {
            warn!(%damage, "a damaged checkpoint was passed over for the one before");
        }
        let (state, last) = match opened.latest {
            None => (None, Last::default()),
            Some(loaded) => {
                let (state, digests) = load(loaded)?;
                let last = Last {
                    height: Some(state.metadata.height.0),
                    time: state.metadata.time,
                    canisters: versions(&state),
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

    /// Writes a state that rounds have made of the one in the last checkpoint, and returns once it is durable. A height
    /// that is written already is left as it is.
    ///
    /// # Errors
    /// What the disk says; the last checkpoint is then untouched.
    pub fn write(&self, state: &ReplicatedState) -> Result<(), CheckpointError> {
        self.write_paced(state, &|_| {})
    }

    /// The same, where `pace` hears of what a compaction writes and may take its time.
    ///
    /// # Errors
    /// As [`CheckpointWriter::write`].
    pub fn write_paced(&self, state: &ReplicatedState, pace: &dyn Fn(u64)) -> Result<(), CheckpointError> {
        self.write_changes(state, pace, Origin::Rounds)
    }

    /// Writes a state that came from elsewhere, whatever the last checkpoint holds.
    ///
    /// # Errors
    /// As [`CheckpointWriter::write`].
    pub fn write_fetched(&self, state: &ReplicatedState) -> Result<(), CheckpointError> {
        self.write_changes(state, &|_| {}, Origin::Elsewhere)
    }

    fn write_changes(
        &self,
        state: &ReplicatedState,
        pace: &dyn Fn(u64),
        origin: Origin,
    ) -> Result<(), CheckpointError> {
        let mut last = self.last.lock();
        let height = state.metadata.height.0;
        if last.height.is_some_and(|last| last >= height) {
            return Ok(());
        }
        let start = Instant::now();
        let (mut canisters, mut digests) = (last.canisters.clone(), last.digests.clone());
        let mut changed = changed_canisters(&mut canisters, &state.canisters, &mut digests);
        let changed_count = changed.len();
        let since = match origin {
            Origin::Rounds => last.height.map(|_| last.time),
            Origin::Elsewhere => None,
        };
        changed.extend(changed_pieces(state, since, &mut digests));
        let system = state.system_bytes();
        let state_hash = state_hash(&system, digests.iter().map(|(key, digest)| (*key, *digest)));
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
        let written = self.store.write_paced(request, pace)?;
        *last = Last {
            height: Some(height),
            time: state.metadata.time,
            canisters,
            digests,
        };
        let memories = written.memories.into_iter();
        let parts = memories.flat_map(|memory| memory.divide(REBASED_FRAMES_MAX));
        self.rebases.0.lock().incoming.extend(parts);
        info!(
            height,
            canisters = changed_count,
            pages = written.pages_written,
            bytes = written.bytes_written,
            compacted = written.compacted,
            milliseconds = start.elapsed().as_millis() as u64,
            "checkpoint written"
        );
        Ok(())
    }
}

fn versions(state: &ReplicatedState) -> OrdMap<CanisterId, Weak<CanisterState>> {
    let canisters = state.canisters.iter();
    canisters
        .map(|(id, canister)| (*id, Arc::downgrade(canister)))
        .collect()
}

/// Changed items by the bytes of their keys; `None` for those that are gone.
type Changed = BTreeMap<Vec<u8>, Option<CheckpointItem>>;

/// The canisters that differ between two states, as items; brings the versions in `old` and `digests` up to date.
fn changed_canisters(
    old: &mut OrdMap<CanisterId, Weak<CanisterState>>,
    new: &OrdMap<CanisterId, Arc<CanisterState>>,
    digests: &mut OrdMap<ItemKey, [u8; 32]>,
) -> Changed {
    let mut changed = Changed::new();
    // Both are in order, so that one walk along them finds each canister's last version: looking every one of many
    // thousand up cost more than the rest of a small checkpoint.
    let mut last_versions = old.iter().peekable();
    let mut versions = Vec::new();
    for (id, canister) in new {
        while last_versions.next_if(|(last, _)| *last < id).is_some() {}
        let last = last_versions.next_if(|(last, _)| *last == id);
        // As long as there is a weak reference to it, no other version comes to lie at the same address.
        if last.is_some_and(|(_, last)| std::ptr::eq(last.as_ptr(), Arc::as_ptr(canister))) {
            continue;
        }
        versions.push((*id, Arc::downgrade(canister)));
        note(ItemKey::Canister(*id), Some(canister.to_parts()), digests, &mut changed);
    }
    old.extend(versions);
    // Every canister of `new` is in `old` by now: as many mean the same.
    let removed: Vec<CanisterId> = match old.len() == new.len() {
        true => Vec::new(),
        false => old.keys().filter(|id| !new.contains_key(*id)).copied().collect(),
    };
    for id in removed {
        old.remove(&id);
        note(ItemKey::Canister(id), None, digests, &mut changed);
    }
    changed
}

/// The pieces of the ingress history that changed after batch time `since`, as items; brings `digests` up to date.
fn changed_pieces(state: &ReplicatedState, since: Option<Time>, digests: &mut OrdMap<ItemKey, [u8; 32]>) -> Changed {
    let mut changed = Changed::new();
    let pieces = state.ingress_history.pieces();
    for (piece, _) in pieces
        .iter()
        .filter(|(_, time)| since.is_none_or(|since| **time > since))
    {
        note(
            ItemKey::History(*piece),
            state.history_parts(*piece),
            digests,
            &mut changed,
        );
    }
    for key in gone_pieces(&state.ingress_history, digests) {
        note(key, None, digests, &mut changed);
    }
    changed
}

/// The keys of pieces that `digests` has and the history has not.
fn gone_pieces(history: &IngressHistory, digests: &OrdMap<ItemKey, [u8; 32]>) -> Vec<ItemKey> {
    let first = ItemKey::History(HistoryPiece::FIRST);
    let is_gone = |key: &ItemKey| matches!(key, ItemKey::History(piece) if !history.pieces().contains_key(piece));
    let pieces = digests.range(first..).map(|(key, _)| *key);
    pieces.filter(is_gone).collect()
}

/// Notes what an item is by now, or that it is gone.
fn note(key: ItemKey, parts: Option<ItemParts>, digests: &mut OrdMap<ItemKey, [u8; 32]>, changed: &mut Changed) {
    match &parts {
        Some(parts) => digests.insert(key, parts.digest()),
        None => digests.remove(&key),
    };
    changed.insert(key.to_bytes(), parts.map(item));
}

fn item(parts: ItemParts) -> CheckpointItem {
    CheckpointItem {
        metadata: Blob::from(parts.metadata),
        blobs: parts.blobs.into_iter().map(Blob::from).collect(),
        memories: parts.memories,
    }
}

/// The state of a checkpoint and the digests of its items.
///
/// # Errors
/// Damage, or a checkpoint of another version.
pub fn load(loaded: LoadedCheckpoint) -> Result<(ReplicatedState, OrdMap<ItemKey, [u8; 32]>), CheckpointError> {
    let mut digests = OrdMap::new();
    // Canisters share modules, and go on doing so.
    let mut modules: BTreeMap<Digest, Arc<[u8]>> = BTreeMap::new();
    let mut items = Vec::with_capacity(loaded.items.len());
    for (key, item) in loaded.items {
        let parts = ItemParts {
            metadata: item.metadata.bytes().into_owned(),
            blobs: item
                .blobs
                .iter()
                .map(|blob| {
                    Arc::clone(
                        modules
                            .entry(*blob.digest())
                            .or_insert_with(|| Arc::from(&*blob.bytes())),
                    )
                })
                .collect(),
            memories: item.memories,
        };
        if let Some(key) = ItemKey::from_bytes(&key) {
            digests.insert(key, parts.digest());
        }
        items.push((key, parts));
    }
    let system = loaded.system.bytes();
    if state_hash(&system, digests.iter().map(|(key, digest)| (*key, *digest))) != loaded.state_hash {
        return Err(CheckpointError::StateHash(loaded.height));
    }
    Ok((ReplicatedState::from_parts(&system, items)?, digests))
}

/// Where the commit thread offers every certified state; decides when one is written out.
pub struct CheckpointQueue {
    states: Sender<ReplicatedState>,
    config: CheckpointsConfig,
    memory: Arc<DirtyMemory>,
    last_height: u64,
    last_log_bytes: u64,
    /// The least bytes of page frames since the last one.
    least_bytes: u64,
}

impl CheckpointQueue {
    /// Offers a state. Where a checkpoint is due and none is being written, it is handed over.
    pub fn offer(&mut self, state: &ReplicatedState, log_bytes: u64) {
        let height = state.metadata.height.0;
        self.least_bytes = self.least_bytes.min(DirtyMemory::bytes());
        let is_due = height - self.last_height >= self.config.interval_rounds
            || log_bytes - self.last_log_bytes >= self.config.interval_log_bytes
            || self.memory.wants_checkpoint(self.least_bytes);
        if !is_due || !self.memory.begin_checkpoint() {
            return;
        }
        (self.last_height, self.last_log_bytes) = (height, log_bytes);
        self.least_bytes = DirtyMemory::bytes();
        // The thread is gone only after a failure, which stops the replica.
        let _gone = self.states.try_send(state.clone());
    }
}

impl Drop for CheckpointQueue {
    fn drop(&mut self) {
        self.memory.hurry();
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
    memory: Arc<DirtyMemory>,
    truncate_below: Arc<AtomicU64>,
    failure: &Arc<Failure>,
) -> std::io::Result<(CheckpointQueue, JoinHandle<()>)> {
    let (states, receiver) = bounded(1);
    let last_height = writer.last.lock().height.unwrap_or(0);
    let queue = CheckpointQueue {
        states,
        config: config.clone(),
        memory: Arc::clone(&memory),
        last_height,
        last_log_bytes: 0,
        least_bytes: u64::MAX,
    };
    let failure = Arc::clone(failure);
    let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(move || {
        let _watch = failure.watch("checkpoint");
        work_in_background();
        if let Err(error) = work(&writer, &receiver, &memory, &truncate_below) {
            // Going on would fill memory with pages and the disk with log.
            failure.set(format!("no checkpoint could be written: {error}"));
        }
    })?;
    Ok((queue, thread))
}

fn work(
    writer: &CheckpointWriter,
    states: &Receiver<ReplicatedState>,
    memory: &DirtyMemory,
    truncate_below: &AtomicU64,
) -> Result<(), CheckpointError> {
    loop {
        let retirement = match memory.is_pressing() {
            true => RETIREMENT_UNDER_PRESSURE,
            false => RETIREMENT,
        };
        writer.rebases.drop_retired(retirement);
        let state = match states.recv_timeout(retirement) {
            Ok(state) => state,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        writer.write_paced(&state, &memory.compaction_pace())?;
        // Batches after the checkpoint before this one stay: it is what recovery falls back to.
        let kept_from = writer.store.stats().previous_height.map_or(0, |height| height + 1);
        truncate_below.store(kept_from, Ordering::Release);
        drop(state);
        memory.end_checkpoint();
    }
}
