//! State sync: a checkpoint fetched from a peer, piece by piece.
//!
//! ```text
//! manifest      what the checkpoint consists of, by digests; its reader compares it with the state hash
//!   metadata, blobs    bytes with a digest
//!   outlines           the digests of a memory's chunks, which give the memory's digest
//!     chunks           256 pages with a digest
//! ```
//!
//! Nothing is kept that does not match a digest of the manifest. What an older checkpoint or an interrupted fetch has
//! already is not asked for. The parts fetched lie in a checkpoint store of their own until everything is there.
//!
//! How pieces travel is the business of a [`SyncSource`]; [`CheckpointSource`] is the one without a network.

mod fetch;
mod source;
#[cfg(test)]
mod tests;

pub use fetch::{FetchReport, Fetched, fetch};
pub use source::CheckpointSource;

use crate::error::PersistenceError;
use crate::page_map::Digest;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a checkpoint consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncManifest {
    /// Its height.
    pub height: u64,
    /// What its state hashes to.
    pub state_hash: Digest,
    /// Digest of what belongs to no item.
    pub system: Digest,
    /// The items, ascending by key.
    pub items: Vec<SyncItem>,
}

/// An item of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncItem {
    /// Its key.
    pub key: Vec<u8>,
    /// Digest of its metadata.
    pub metadata: Digest,
    /// Digests of its blobs.
    pub blobs: Vec<Digest>,
    /// Digests of its memories.
    pub memories: Vec<Digest>,
}

/// What can be asked for. Items are called by their position in the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SyncPiece {
    /// What belongs to no item.
    System,
    /// An item's metadata.
    Metadata(u32),
    /// One of an item's blobs.
    Blob(u32, u32),
    /// The [`Outline`](crate::Outline) of one of an item's memories.
    Outline(u32, u32),
    /// A chunk of one of an item's memories.
    Chunk(u32, u32, u64),
}

/// Where pieces come from: a peer behind a connection, or a checkpoint in this process.
pub trait SyncSource {
    /// The pieces asked for, in this order. At most [`PIECES_MAX`] are asked for at once.
    ///
    /// # Errors
    /// The peer is gone, or has nothing more of this checkpoint. What was received before is kept.
    fn pieces(&mut self, wanted: &[SyncPiece]) -> Result<Vec<Vec<u8>>, SyncError>;
}

/// Pieces asked for at once: chunks are a mebibyte each.
pub const PIECES_MAX: usize = 32;

/// Why a fetch ends early. It can be begun again and goes on where it was.
#[derive(Debug)]
pub enum SyncError {
    /// The source has nothing more to give.
    Source(String),
    /// A piece that does not match its digest: the peer is broken or lies.
    Wrong(SyncPiece),
    /// A manifest whose items are not ascending.
    Manifest,
    /// This side's disk.
    Persistence(PersistenceError),
}

impl fmt::Display for SyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(why) => write!(f, "the state cannot be fetched: {why}"),
            Self::Wrong(piece) => write!(
                f,
                "the peer sent a piece of its state that does not match its digest ({piece:?}): join another peer"
            ),
            Self::Manifest => f.write_str("the peer sent a list of its state that is none: join another peer"),
            Self::Persistence(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SyncError {}

impl From<PersistenceError> for SyncError {
    fn from(error: PersistenceError) -> Self {
        Self::Persistence(error)
    }
}
