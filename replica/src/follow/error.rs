//! Why following does not work.

use crate::certification::KeyError;
use crate::checkpoints;
use crate::recovery::RecoveryError;
use replicore_persistence::PersistenceError;
use replicore_persistence::sync::SyncError;
use std::fmt;
use std::io;

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
