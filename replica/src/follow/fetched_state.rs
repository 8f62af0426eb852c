//! A state that is fetched from the peer, checked, and made the newest of the directory.

use super::client::Peer;
use super::error::FollowError;
use crate::checkpoints::{self, CheckpointWriter};
use replicore_persistence::sync::fetch;
use replicore_persistence::{CheckpointOptions, CheckpointStore, Cipher, FileDisk, StateDirectory};
use replicore_scheduler::ReplicatedState;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::Arc;
use tracing::info;

/// Folder of the parts of a state while it is fetched.
const STAGING: &str = "sync";

/// Where the parts of a state lie while it is fetched.
pub(super) struct Staging {
    path: PathBuf,
    cipher: Option<Cipher>,
}

impl Staging {
    pub(super) fn of(directory: &StateDirectory) -> Self {
        Self {
            path: directory.path().join(STAGING),
            cipher: directory.cipher(STAGING),
        }
    }
}

/// Fetches the peer's checkpoint, as far as it is lacking here, and makes it the newest of the directory: it must be newer
/// than the height that this side has.
pub(super) fn fetch_state(
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
