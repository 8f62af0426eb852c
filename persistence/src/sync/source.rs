//! A checkpoint as a source of pieces.

use super::{SyncError, SyncItem, SyncManifest, SyncPiece, SyncSource};
use crate::checkpoint::{CheckpointItem, LoadedCheckpoint};
use crate::page_map::PageMap;

/// Gives the pieces of a checkpoint of this process.
#[derive(Clone, Debug)]
pub struct CheckpointSource {
    height: u64,
    state_hash: crate::Digest,
    system: crate::Blob,
    items: Vec<(Vec<u8>, CheckpointItem)>,
}

impl CheckpointSource {
    /// The source of a checkpoint. It stays readable as long as the source lives, whatever is written meanwhile.
    pub fn new(loaded: LoadedCheckpoint) -> Self {
        Self {
            height: loaded.height,
            state_hash: loaded.state_hash,
            system: loaded.system,
            items: loaded.items.into_iter().collect(),
        }
    }

    /// What it consists of.
    pub fn manifest(&self) -> SyncManifest {
        let item = |(key, item): &(Vec<u8>, CheckpointItem)| SyncItem {
            key: key.clone(),
            metadata: *item.metadata.digest(),
            blobs: item.blobs.iter().map(|blob| *blob.digest()).collect(),
            memories: item.memories.iter().map(PageMap::digest).collect(),
        };
        SyncManifest {
            height: self.height,
            state_hash: self.state_hash,
            system: *self.system.digest(),
            items: self.items.iter().map(item).collect(),
        }
    }

    /// A piece; `None` where the checkpoint has no such thing.
    pub fn piece(&self, piece: &SyncPiece) -> Option<Vec<u8>> {
        let item = |item: u32| self.items.get(item as usize).map(|(_, item)| item);
        let memory = |number: u32, position: u32| item(number)?.memories.get(position as usize);
        Some(match *piece {
            SyncPiece::System => self.system.bytes().into_owned(),
            SyncPiece::Metadata(number) => item(number)?.metadata.bytes().into_owned(),
            SyncPiece::Blob(number, position) => item(number)?.blobs.get(position as usize)?.bytes().into_owned(),
            SyncPiece::Outline(number, position) => memory(number, position)?.outline().encode(),
            SyncPiece::Chunk(number, position, chunk) => memory(number, position)?.chunk(chunk),
        })
    }
}

impl SyncSource for CheckpointSource {
    fn pieces(&mut self, wanted: &[SyncPiece]) -> Result<Vec<Vec<u8>>, SyncError> {
        let piece = |piece: &SyncPiece| {
            self.piece(piece)
                .ok_or_else(|| SyncError::Source(format!("there is no {piece:?}")))
        };
        wanted.iter().map(piece).collect()
    }
}
