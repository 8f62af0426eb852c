//! The four hashes of the published tree form, each in its own domain.

use sha2::{Digest as _, Sha256};

/// SHA-256 digest of a node.
pub type Digest = [u8; 32];

/// Digest of the empty tree.
pub fn empty_digest() -> Digest {
    domain(b"\x11ic-hashtree-empty").finalize().into()
}

/// Digest of two trees side by side.
pub fn fork_digest(left: &Digest, right: &Digest) -> Digest {
    // One buffer and one call: 81 bytes are two compressions, and nothing is buffered in between.
    let mut bytes = [0; FORK_DOMAIN.len() + 64];
    bytes[..FORK_DOMAIN.len()].copy_from_slice(FORK_DOMAIN);
    bytes[FORK_DOMAIN.len()..FORK_DOMAIN.len() + 32].copy_from_slice(left);
    bytes[FORK_DOMAIN.len() + 32..].copy_from_slice(right);
    Sha256::digest(bytes).into()
}

/// Digest of a tree below a label.
pub fn labeled_digest(label: &[u8], content: &Digest) -> Digest {
    domain(b"\x13ic-hashtree-labeled")
        .chain_update(label)
        .chain_update(content)
        .finalize()
        .into()
}

/// Digest of a value.
pub fn leaf_digest(value: &[u8]) -> Digest {
    domain(b"\x10ic-hashtree-leaf").chain_update(value).finalize().into()
}

const FORK_DOMAIN: &[u8; 17] = b"\x10ic-hashtree-fork";

fn domain(separator: &[u8]) -> Sha256 {
    Sha256::new_with_prefix(separator)
}
