//! From a state directory to a state: the newest complete checkpoint, then the log after it.
//!
//! Replay executes the very batches that were executed before and compares the root before each with the one recorded.
//! A difference is never served: it ends the start with the height at which it shows.

use crate::certification::{KeyError, KeyFolder, NODE_KEY_FILE, NodeKey, ROOT_KEY_FILE, RootKey};
use crate::checkpoints::{CheckpointError, CheckpointWriter};
use crate::config::Config;
use crate::follow::FOLLOWED_KEY_FILE;
use crate::log_writer::decode_record;
use crate::machine::{CANISTER_INDICES, StateMachine};
use crate::operator_key::{open_directory, open_log};
use crate::outside::{THRESHOLD_SEED_FILE, ThresholdSecrets};
use crate::port_file::PortFile;
use replicore_engine::{Engine, EngineConfig, EngineError};
use replicore_persistence::{BatchLog, BatchLogOptions, PersistenceError, StateDirectory};
use replicore_scheduler::state::Genesis;
use replicore_scheduler::{ReplicatedState, SchedulerCores};
use replicore_types::{Height, NodeId, SubnetId};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How often a long replay says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// An opened and recovered state directory.
pub struct Recovered {
    /// The directory, locked.
    pub directory: StateDirectory,
    /// The state after the last logged batch.
    pub machine: StateMachine,
    /// The log, ready for the next batch.
    pub log: BatchLog,
    /// Writes checkpoints.
    pub writer: Arc<CheckpointWriter>,
    /// The subnet's key.
    pub root_key: Arc<RootKey>,
    /// The node's key.
    pub node_key: Arc<NodeKey>,
    /// The secrets of the subnet's threshold keys.
    pub secrets: ThresholdSecrets,
}

/// Why a directory cannot be recovered.
#[derive(Debug)]
pub enum RecoveryError {
    /// The disk, or damage in a file.
    Persistence(PersistenceError),
    /// A key file.
    Key(KeyError),
    /// The port file that a crash has left cannot be removed.
    PortFile(io::Error),
    /// The Wasm engine refuses its configuration.
    Engine(EngineError),
    /// A checkpoint that does not decode.
    Checkpoint(CheckpointError),
    /// A logged batch that does not decode.
    Record(u64, postcard::Error),
    /// The log does not continue the checkpoint: the height needed and the height found.
    Gap(Height, Height),
    /// Replay came to another root than the one recorded.
    Diverged(Height),
    /// A replay of heights that the directory does not hold.
    NothingToReplay(String),
    /// The keys in the directory belong to another subnet than the state.
    OtherSubnet(SubnetId, SubnetId),
    /// The directory is that of a replica that follows another one.
    Follower,
    /// The key that a follower believes is not that of the subnet whose state it has.
    OtherFollowed,
    /// The node's key in the directory is none of those that the state knows.
    OtherNode(NodeId),
    /// The seed of the threshold keys in the directory is not the one that the state began with.
    OtherThresholdKeys,
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Persistence(error) => error.fmt(f),
            Self::Key(error) => error.fmt(f),
            Self::PortFile(error) => write!(f, "cannot remove the old port file: {error}"),
            Self::Engine(error) => error.fmt(f),
            Self::Checkpoint(error) => error.fmt(f),
            Self::Record(height, error) => write!(f, "the logged batch {height} does not decode: {error}"),
            Self::Gap(needed, found) => write!(
                f,
                "the batch log goes on at height {found}, the checkpoint needs height {needed}: a log segment is missing"
            ),
            Self::Diverged(height) => write!(
                f,
                "replay of the batch log came to another state root before height {height} than was certified: the \
                 directory was written by an incompatible version, or is damaged; restore a backup"
            ),
            Self::NothingToReplay(what) => write!(f, "nothing can be replayed: {what}"),
            Self::OtherSubnet(keys, state) => write!(
                f,
                "the root key in the directory is that of subnet {keys}, the state is that of subnet {state}: put the \
                 original {ROOT_KEY_FILE} file back"
            ),
            Self::Follower => f.write_str(
                "the state directory is that of a follower, which has no keys of its subnet: start it with --join ADDR",
            ),
            Self::OtherFollowed => write!(
                f,
                "the key in {FOLLOWED_KEY_FILE} is not that of the state's subnet: put the original file back, or follow \
                 again with a new directory"
            ),
            Self::OtherNode(key) => write!(
                f,
                "the key in the directory is that of node {key}, which the state does not know, so that nobody would \
                 trust its signatures: put the original {NODE_KEY_FILE} file back"
            ),
            Self::OtherThresholdKeys => write!(
                f,
                "the threshold keys in the directory are not those of the state: put the original \
                 {THRESHOLD_SEED_FILE} file back"
            ),
        }
    }
}

impl std::error::Error for RecoveryError {}

impl From<PersistenceError> for RecoveryError {
    fn from(error: PersistenceError) -> Self {
        Self::Persistence(error)
    }
}

impl From<KeyError> for RecoveryError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<CheckpointError> for RecoveryError {
    fn from(error: CheckpointError) -> Self {
        Self::Checkpoint(error)
    }
}

/// Opens the directory of `config`, creating it if it does not exist, and recovers its state.
///
/// # Errors
/// [`RecoveryError`]; the directory is left as it was found.
pub fn open(config: &Config) -> Result<Recovered, RecoveryError> {
    let directory = open_directory(config)?;
    // Before the replay, which may take long: who reads the port meanwhile would read that of a dead process.
    if let Some(path) = &config.port_file {
        PortFile::remove_stale(path).map_err(RecoveryError::PortFile)?;
    }
    if is_followers(&directory) {
        return Err(RecoveryError::Follower);
    }
    let (writer, checkpoint) = CheckpointWriter::open(&directory)?;
    let keys = Keys::load(&directory, checkpoint.is_none())?;
    let engine = Arc::new(Engine::new(engine_config(config, directory.path())).map_err(RecoveryError::Engine)?);
    let state = match checkpoint {
        Some(state) => state,
        None => {
            let Keys { root, node, secrets } = &keys;
            let state = ReplicatedState::genesis(Genesis {
                subnet_id: root.subnet_id(),
                subnet: config.subnet,
                root_key: root.public_key_der().into(),
                nodes: BTreeMap::from([(node.node_id(), node.public_key_der().into())]),
                canister_indices: CANISTER_INDICES,
                threshold_public_keys: secrets.public_keys(&config.subnet.threshold_keys),
            });
            // The subnet's facts must outlive a crash before the first regular checkpoint.
            writer.write(&state)?;
            state
        }
    };
    keys.check(&state)?;
    if state.metadata.subnet != config.subnet {
        warn!(kept = ?state.metadata.subnet, configured = ?config.subnet, "the directory keeps the subnet it was created as");
    }
    let machine = StateMachine::new(state, engine, SchedulerCores(config.scheduler_cores()));
    let machine = match config.rounds.incremental_hash {
        true => machine,
        false => machine.rebuilding_the_tree(),
    };
    let (log, tail) = open_log(&directory, log_options())?;
    info!(?tail, "batch log opened");
    let machine = replay(machine, &log)?;
    Ok(Recovered {
        directory,
        machine,
        log,
        writer: Arc::new(writer),
        root_key: Arc::new(keys.root),
        node_key: Arc::new(keys.node),
        secrets: keys.secrets,
    })
}

pub(crate) fn engine_config(config: &Config, state_dir: &Path) -> EngineConfig {
    let settings = &config.engine;
    let wanted = EngineConfig {
        modules_max: NonZeroUsize::new(settings.compiled_modules_max).unwrap_or(NonZeroUsize::MIN),
        warm_canisters_max: settings.warm_instances_max,
        warm_query_canisters_max: settings.warm_instances_max,
        tiers: settings.tiers,
        write_tracking: settings.write_tracking,
        perf_map: settings.perf_map,
        jitdump: settings.jitdump,
        // Compiled code is mapped from its file, which encryption does not allow, and tells as much as the module.
        cache_folder: (settings.compilation_cache && config.encryption_key.is_none())
            .then(|| state_dir.join("compiled")),
        ..EngineConfig::default()
    };
    let Some(mappings) = mappings_max() else {
        return wanted;
    };
    let possible = wanted.clone().within_mappings(mappings);
    if possible.warm_canisters_max < wanted.warm_canisters_max {
        warn!(
            wanted = wanted.warm_canisters_max,
            possible = possible.warm_canisters_max,
            mappings,
            "fewer instances are kept warm than configured: the process may have no more memory mappings (vm.max_map_count)"
        );
    }
    possible
}

/// Memory mappings that the system gives a process, where it has such a bound.
fn mappings_max() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok()?;
    text.trim().parse().ok()
}

/// The keys of a state directory.
struct Keys {
    root: RootKey,
    node: NodeKey,
    secrets: ThresholdSecrets,
}

impl Keys {
    /// The keys in the directory; a new one gets them.
    fn load(directory: &StateDirectory, is_new: bool) -> Result<Self, KeyError> {
        let folder = || match KeyFolder::from(directory) {
            folder if is_new => folder,
            folder => folder.of_a_state(),
        };
        Ok(Self {
            root: RootKey::load_or_create(folder())?,
            node: NodeKey::load_or_create(folder())?,
            secrets: ThresholdSecrets::load_or_create(folder())?,
        })
    }

    /// Whether they are those that the state was made with.
    fn check(&self, state: &ReplicatedState) -> Result<(), RecoveryError> {
        let metadata = &state.metadata;
        if metadata.subnet_id != self.root.subnet_id() {
            return Err(RecoveryError::OtherSubnet(self.root.subnet_id(), metadata.subnet_id));
        }
        if !metadata.nodes.contains_key(&self.node.node_id()) {
            return Err(RecoveryError::OtherNode(self.node.node_id()));
        }
        if *metadata.threshold_public_keys != self.secrets.public_keys(&metadata.subnet.threshold_keys) {
            return Err(RecoveryError::OtherThresholdKeys);
        }
        Ok(())
    }
}

/// Whether the key files of a directory are there and those of its state. Writes nothing.
///
/// # Errors
/// A key file that is missing, damaged or another than the state's.
pub(crate) fn check_keys(directory: &StateDirectory, state: &ReplicatedState) -> Result<(), RecoveryError> {
    if !is_followers(directory) {
        return Keys::load(directory, false)?.check(state);
    }
    // A follower has no keys of its subnet, and its own node is none of those.
    let path = directory.path().join(FOLLOWED_KEY_FILE);
    let key = std::fs::read(&path).map_err(|error| KeyError::Io(path, error))?;
    match *key == *state.metadata.root_key {
        true => Ok(()),
        false => Err(RecoveryError::OtherFollowed),
    }
}

/// True where the directory is that of a replica that follows another one.
fn is_followers(directory: &StateDirectory) -> bool {
    directory.path().join(FOLLOWED_KEY_FILE).exists()
}

/// Executes what the log holds after the machine's state.
///
/// # Errors
/// The log does not continue the state, or comes to another root than the one recorded.
pub(crate) fn replay(mut machine: StateMachine, log: &BatchLog) -> Result<StateMachine, RecoveryError> {
    let first = machine.state().metadata.height.next();
    let (start, mut said) = (Instant::now(), Instant::now());
    let mut batches = 0_u64;
    for record in log.read_from(first.0)? {
        let (height, bytes) = record?;
        let (root_before, batch) = decode_record(&bytes).map_err(|error| RecoveryError::Record(height, error))?;
        let needed = machine.state().metadata.height.next();
        if batch.height != needed {
            return Err(RecoveryError::Gap(needed, batch.height));
        }
        if root_before != machine.state().certified.root_hash() {
            return Err(RecoveryError::Diverged(batch.height));
        }
        machine.execute_batch(batch);
        batches += 1;
        if said.elapsed() >= PROGRESS_INTERVAL {
            said = Instant::now();
            info!(batches, height, last = log.last_height(), "replaying the batch log");
        }
    }
    info!(
        batches,
        height = machine.state().metadata.height.0,
        root = hex::encode(machine.state().certified.root_hash()),
        milliseconds = start.elapsed().as_millis() as u64,
        "state recovered"
    );
    Ok(machine)
}

pub(crate) fn log_options() -> BatchLogOptions {
    BatchLogOptions {
        salt: random_salt(),
        prepare_ahead: true,
        ..BatchLogOptions::default()
    }
}

/// A salt for the log's checksums; without randomness the checksums still catch every accident.
fn random_salt() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}
