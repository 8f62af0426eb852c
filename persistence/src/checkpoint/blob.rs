//! Bytes that a checkpoint holds as one piece.

use super::load::read_sealed_blob;
use super::stored::{RECORD_HEADER_BYTES, StoredNode};
use crate::page_map::Digest;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Immutable bytes with their BLAKE3 digest: in memory, or read from a checkpoint, in place unless that is encrypted. A blob is written once
/// however many items and checkpoints refer to it.
#[derive(Clone)]
pub struct Blob {
    digest: Digest,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Memory(Arc<[u8]>),
    Stored(StoredNode, usize),
}

impl Blob {
    /// The bytes. Those of an encrypted checkpoint are decrypted for each caller.
    ///
    /// # Panics
    /// Where they are no longer what they were when the checkpoint was loaded, or cannot be read.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        match &self.place {
            Place::Memory(bytes) => Cow::Borrowed(bytes),
            Place::Stored(node, len) if node.generation.seal.is_none() => {
                let start = node.offset + RECORD_HEADER_BYTES as u64;
                let bytes = node.generation.records.bytes(start, *len);
                Cow::Borrowed(bytes.expect("records were checked at load"))
            }
            Place::Stored(node, len) => {
                let bytes = read_sealed_blob(&node.generation, node.offset, *len);
                Cow::Owned(bytes.unwrap_or_else(|error| node.generation.give_up(&error)))
            }
        }
    }

    /// BLAKE3 of the bytes.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(super) fn stored(digest: Digest, node: StoredNode, len: usize) -> Self {
        Self {
            digest,
            place: Place::Stored(node, len),
        }
    }

    /// Where a checkpoint holds it, if one does.
    pub(super) fn stored_node(&self) -> Option<&StoredNode> {
        match &self.place {
            Place::Memory(_) => None,
            Place::Stored(node, _) => Some(node),
        }
    }

    pub(super) fn bytes_len(&self) -> usize {
        match &self.place {
            Place::Memory(bytes) => bytes.len(),
            Place::Stored(_, len) => *len,
        }
    }
}

impl From<Arc<[u8]>> for Blob {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self {
            digest: *blake3::hash(&bytes).as_bytes(),
            place: Place::Memory(bytes),
        }
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Arc::<[u8]>::from(bytes))
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Blob {}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.bytes_len())
    }
}
