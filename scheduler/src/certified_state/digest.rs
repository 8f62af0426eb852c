//! The four hashes of the published tree form, each in its own domain.

use sha2::{Digest as _, Sha256};

/// SHA-256 digest of a node.
pub type Digest = [u8; 32];

/// Digest of the empty tree.
pub fn empty_digest() -> Digest {
    digest_of([b"\x11ic-hashtree-empty"])
}

/// Digest of two trees side by side.
pub fn fork_digest(left: &Digest, right: &Digest) -> Digest {
    digest_of([b"\x10ic-hashtree-fork", left, right])
}

/// Digest of a tree below a label.
pub fn labeled_digest(label: &[u8], content: &Digest) -> Digest {
    digest_of([b"\x13ic-hashtree-labeled", label, content])
}

/// Digest of a value.
pub fn leaf_digest(value: &[u8]) -> Digest {
    digest_of([b"\x10ic-hashtree-leaf", value])
}

/// Digest of the parts one after the other. What fits two blocks of the hash, as nearly everything does, is put together
/// first: one call, and nothing is buffered in between.
#[inline(always)]
fn digest_of<const PARTS: usize>(parts: [&[u8]; PARTS]) -> Digest {
    let mut bytes = [0; TWO_BLOCKS_BYTES];
    let mut length = 0;
    for part in parts {
        let Some(place) = bytes.get_mut(length..length + part.len()) else {
            let hasher = parts
                .into_iter()
                .fold(Sha256::new(), |hasher, part| hasher.chain_update(part));
            return hasher.finalize().into();
        };
        place.copy_from_slice(part);
        length += part.len();
    }
    Sha256::digest(&bytes[..length]).into()
}

/// Two blocks without the padding.
const TWO_BLOCKS_BYTES: usize = 2 * 64 - 9;
