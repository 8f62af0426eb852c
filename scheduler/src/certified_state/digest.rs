//! The four hashes of the published tree form, each in its own domain.

use sha2::block_api::compress256;
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
/// and padded here: one call of the block function, and nothing is buffered in between.
#[inline(always)]
fn digest_of<const PARTS: usize>(parts: [&[u8]; PARTS]) -> Digest {
    let mut blocks = [[0; BLOCK_BYTES]; 2];
    let bytes = blocks.as_flattened_mut();
    let mut length = 0;
    for part in parts {
        let Some(place) = bytes[..TWO_BLOCKS_BYTES].get_mut(length..length + part.len()) else {
            let hasher = parts
                .into_iter()
                .fold(Sha256::new(), |hasher, part| hasher.chain_update(part));
            return hasher.finalize().into();
        };
        place.copy_from_slice(part);
        length += part.len();
    }
    // FIPS 180-4, 5.1.1: a one, zeros, and the length in bits at the end of the last block.
    bytes[length] = 0x80;
    let count = if length > ONE_BLOCK_BYTES { 2 } else { 1 };
    let end = count * BLOCK_BYTES;
    bytes[end - 8..end].copy_from_slice(&(length as u64 * 8).to_be_bytes());
    let mut state = INITIAL_STATE;
    compress256(&mut state, &blocks[..count]);
    let mut digest = [0; 32];
    for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    digest
}

/// A block of SHA-256.
const BLOCK_BYTES: usize = 64;
/// One block without the padding.
const ONE_BLOCK_BYTES: usize = BLOCK_BYTES - 9;
/// Two blocks without the padding.
const TWO_BLOCKS_BYTES: usize = 2 * BLOCK_BYTES - 9;
/// What SHA-256 begins with: FIPS 180-4, 5.3.3.
const INITIAL_STATE: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_blocks_are_the_hash_of_every_length() {
        let bytes: Vec<u8> = (0..=255).collect();
        for length in 0..bytes.len() {
            let (left, right) = bytes[..length].split_at(length / 3);
            let whole: Digest = Sha256::digest(&bytes[..length]).into();
            assert_eq!(digest_of([left, right]), whole, "{length} bytes");
        }
    }
}
