//! A state directory looked at while no replica works on it: verified, inspected, replayed.

use crate::checkpoints::{self, CheckpointWriter};
use crate::config::Config;
use crate::log_writer::decode_record;
use crate::machine::StateMachine;
use crate::operator_key::open_log;
use crate::recovery::{RecoveryError, check_keys, engine_config};
use replicore_engine::Engine;
use replicore_persistence::{BatchLogOptions, LogTail, OperatorKey, StateDirectory};
use replicore_scheduler::{ReplicatedState, SchedulerCores};
use replicore_types::{CanisterId, Height, OS_PAGE_BYTES};
use std::path::Path;
use std::sync::Arc;

/// A state directory to look at.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Where it is.
    pub state_dir: &'a Path,
    /// The key of an encrypted one.
    pub key: Option<&'a OperatorKey>,
}

impl<'a> From<&'a Path> for Place<'a> {
    /// A directory in clear.
    fn from(state_dir: &'a Path) -> Self {
        Self { state_dir, key: None }
    }
}

impl Place<'_> {
    fn open(&self) -> Result<StateDirectory, RecoveryError> {
        Ok(StateDirectory::open_existing(self.state_dir, self.key)?)
    }
}

/// What [`verify`] read and found whole.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Checkpoints whose every page, node and blob matches its digest.
    pub checkpoints: u64,
    /// Pages read and hashed.
    pub pages: u64,
    /// Bytes hashed.
    pub bytes: u64,
    /// Batches in the log.
    pub batches: u64,
    /// Damage, each naming file, offset and, where there is one, canister. Empty where everything is whole.
    pub damage: Vec<String>,
}

/// Reads everything in the directory and compares it with its checksums, digests and recorded hashes, and the keys with
/// the state. Goes on after damage with what does not depend on it.
///
/// # Errors
/// The directory cannot be looked at: there is none, or a replica works on it.
pub fn verify<'a>(place: impl Into<Place<'a>>) -> Result<Verified, RecoveryError> {
    let directory = place.into().open()?;
    let mut verified = Verified::default();
    match CheckpointWriter::open(&directory) {
        Err(error) => verified.damage.push(error.to_string()),
        Ok((writer, state)) => {
            let keys = state.map_or(Ok(()), |state| check_keys(&directory, &state));
            verified.damage.extend(keys.err().map(|error| error.to_string()));
            verified.damage.extend(writer.passed_over().iter().cloned());
            match writer.store().verify() {
                Err(error) => verified.damage.push(error.to_string()),
                Ok(report) => {
                    verified.checkpoints = report.checkpoints;
                    verified.pages = report.pages;
                    verified.bytes = report.bytes;
                }
            }
        }
    }
    match read_log(&directory) {
        Err(error) => verified.damage.push(error.to_string()),
        Ok(log) => verified.batches = log.batches,
    }
    Ok(verified)
}

/// Puts an encrypted directory under another operator's key. Writes one small file, whatever the size of the state; copies
/// of the directory that were made before still open with the old key.
///
/// # Errors
/// The directory cannot be opened with `old`, or the disk.
pub fn rekey(state_dir: &Path, old: &OperatorKey, new: &OperatorKey) -> Result<(), RecoveryError> {
    Ok(StateDirectory::rekey(state_dir, old, new)?)
}

/// One canister of an [`Inspection`].
#[derive(Clone, Debug)]
pub struct InspectedCanister {
    /// Its id.
    pub id: CanisterId,
    /// SHA-256 of its module, where one is installed.
    pub module_hash: Option<[u8; 32]>,
    /// Bytes of heap pages that are not zeros.
    pub heap_bytes: u64,
    /// Bytes of stable memory pages that are not zeros.
    pub stable_bytes: u64,
    /// Snapshots.
    pub snapshots: u64,
}

/// What is in a state directory.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Height of the newest checkpoint.
    pub checkpoint: Option<Height>,
    /// Height of the one before.
    pub previous_checkpoint: Option<Height>,
    /// Bytes that the newest checkpoint uses.
    pub live_bytes: u64,
    /// Bytes of the checkpoint files. Divided by the former it is the space amplification.
    pub total_bytes: u64,
    /// The log.
    pub log: InspectedLog,
    /// The canisters of the newest checkpoint, ascending by id.
    pub canisters: Vec<InspectedCanister>,
}

/// The log of an [`Inspection`].
#[derive(Clone, Debug)]
pub struct InspectedLog {
    /// Segment files.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Batches in them.
    pub batches: u64,
    /// Heights of the first and the last batch.
    pub heights: Option<(Height, Height)>,
    /// Where it ends.
    pub tail: LogTail,
}

/// Looks at what is in the directory. Reads metadata and the log, no page.
///
/// # Errors
/// The directory cannot be opened, or is damaged where this looks.
pub fn inspect<'a>(place: impl Into<Place<'a>>) -> Result<Inspection, RecoveryError> {
    let directory = place.into().open()?;
    let (writer, state) = CheckpointWriter::open(&directory)?;
    let stats = writer.store().stats();
    let log = read_log(&directory)?;
    Ok(Inspection {
        checkpoint: stats.height.map(Height),
        previous_checkpoint: stats.previous_height.map(Height),
        live_bytes: stats.live_bytes,
        total_bytes: stats.total_bytes,
        log,
        canisters: state.iter().flat_map(inspect_canisters).collect(),
    })
}

/// What [`replay`] executed.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The checkpoint that it began with.
    pub checkpoint: Height,
    /// The height that it reached.
    pub height: Height,
    /// Batches executed; the certified root before each was the one recorded.
    pub batches: u64,
    /// The certified root at the end.
    pub root: [u8; 32],
    /// The height of a newer checkpoint whose state hash execution came to as well.
    pub confirmed_checkpoint: Option<Height>,
}

/// Executes the log again from the older checkpoint (the newer, where `from` lies behind it) up to `to` or the end, and
/// compares every root with the one recorded. Changes nothing.
///
/// # Errors
/// What is missing or damaged, or the height before which another root comes out.
pub fn replay<'a>(
    place: impl Into<Place<'a>>,
    from: Option<u64>,
    to: Option<u64>,
    config: &Config,
) -> Result<Replayed, RecoveryError> {
    let place = place.into();
    let engine = Engine::new(engine_config(config, place.state_dir)).map_err(RecoveryError::Engine)?;
    let cores = SchedulerCores(config.scheduler_cores());
    let make = |state| match config.rounds.incremental_hash {
        true => StateMachine::new(state, Arc::new(engine), cores),
        false => StateMachine::new(state, Arc::new(engine), cores).rebuilding_the_tree(),
    };
    replay_with(make, place, from, to)
}

/// [`replay`] on an engine of the caller's: one that profiles, for instance.
///
/// # Errors
/// As for [`replay`].
pub fn replay_on<'a>(
    engine: Arc<Engine>,
    cores: SchedulerCores,
    place: impl Into<Place<'a>>,
    from: Option<u64>,
    to: Option<u64>,
) -> Result<Replayed, RecoveryError> {
    replay_with(|state| StateMachine::new(state, engine, cores), place.into(), from, to)
}

fn replay_with(
    make: impl FnOnce(ReplicatedState) -> StateMachine,
    place: Place<'_>,
    from: Option<u64>,
    to: Option<u64>,
) -> Result<Replayed, RecoveryError> {
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        let what = format!("height {from}, the first, comes after height {to}, the last");
        return Err(RecoveryError::NothingToReplay(what));
    }
    let directory = place.open()?;
    let (writer, newest) = CheckpointWriter::open(&directory)?;
    let newest = newest.ok_or_else(|| RecoveryError::NothingToReplay("there is no checkpoint".to_owned()))?;
    let newest_height = newest.metadata.height;
    let start = match writer.store().previous()? {
        Some(previous) if from.is_none_or(|from| from <= newest_height.0) => checkpoints::load(previous)?.0,
        _ => newest.clone(),
    };
    let checkpoint = start.metadata.height;
    if let Some(from) = from.filter(|from| *from <= checkpoint.0) {
        let what = format!("height {from} is asked for, and the oldest checkpoint is at height {checkpoint}");
        return Err(RecoveryError::NothingToReplay(what));
    }
    let mut machine = make(start);
    let (log, _) = open_log(&directory, BatchLogOptions::default())?;
    let mut replayed = Replayed {
        checkpoint,
        height: checkpoint,
        batches: 0,
        root: machine.state().certified_root(),
        confirmed_checkpoint: None,
    };
    for record in log.read_from(checkpoint.next().0)? {
        let (height, bytes) = record?;
        if to.is_some_and(|to| height > to) {
            break;
        }
        let (root_before, batch) = decode_record(&bytes).map_err(|error| RecoveryError::Record(height, error))?;
        let needed = machine.state().metadata.height.next();
        if batch.height != needed {
            return Err(RecoveryError::Gap(needed, batch.height));
        }
        if root_before != replayed.root {
            return Err(RecoveryError::Diverged(batch.height));
        }
        machine.execute_batch(batch);
        replayed.batches += 1;
        replayed.height = needed;
        replayed.root = machine.state().certified_root();
        if needed == newest_height {
            if machine.state().state_hash() != newest.state_hash() {
                return Err(RecoveryError::Diverged(needed));
            }
            replayed.confirmed_checkpoint = Some(needed);
        }
    }
    match from {
        Some(from) if from > replayed.height.0 => Err(RecoveryError::NothingToReplay(format!(
            "height {from} is asked for, and the log ends at height {}",
            replayed.height
        ))),
        _ => Ok(replayed),
    }
}

fn inspect_canisters(state: &ReplicatedState) -> impl Iterator<Item = InspectedCanister> {
    state.canisters.iter().map(|(id, canister)| {
        let execution = canister.execution.as_ref();
        let bytes = |pages: u64| pages * OS_PAGE_BYTES as u64;
        InspectedCanister {
            id: *id,
            module_hash: execution.map(|execution| execution.module.hash),
            heap_bytes: execution.map_or(0, |execution| bytes(execution.heap.pages.len())),
            stable_bytes: execution.map_or(0, |execution| bytes(execution.stable.pages.len())),
            snapshots: canister.system.snapshots.len() as u64,
        }
    })
}

/// Opens the log and reads all of it.
fn read_log(directory: &StateDirectory) -> Result<InspectedLog, RecoveryError> {
    let (log, tail) = open_log(directory, BatchLogOptions::default())?;
    let (mut batches, mut heights) = (0, None);
    for record in log.read_from(0)? {
        let (height, bytes) = record?;
        decode_record(&bytes).map_err(|error| RecoveryError::Record(height, error))?;
        batches += 1;
        heights = Some((heights.map_or(Height(height), |(first, _)| first), Height(height)));
    }
    Ok(InspectedLog {
        segments: log.segment_count() as u64,
        bytes: log.bytes_on_disk(),
        batches,
        heights,
        tail,
    })
}
