//! BLAKE3 of many pages and nodes at once.
//!
//! One page is four chunks, and the processor's widest instructions work on sixteen: alone, a page leaves three quarters
//! of them idle. Sixteen pages side by side take half the time, and sixteen nodes a quarter. The digests are those of
//! `blake3::hash`; a test compares them. Decision 38 says why the library's inner interface is used.

use super::node::FANOUT;
use super::{Digest, Page};
use blake3::IncrementCounter;
use blake3::platform::Platform;
use replicore_types::OS_PAGE_BYTES;
use std::array;

/// Pages, or nodes, that are hashed side by side.
pub(super) const LANES: usize = 16;

/// What a node's digest is that of, with all its children: eight bytes and their digests.
pub(super) const NODE_BYTES_MAX: usize = 8 + FANOUT * DIGEST_BYTES;

const DIGEST_BYTES: usize = 32;
const BLOCK_BYTES: usize = 64;
const CHUNK_BYTES: usize = 1024;
const CHUNKS: usize = OS_PAGE_BYTES / CHUNK_BYTES;
/// The whole blocks of a full node's bytes, and what is left of them.
const NODE_BLOCKS_BYTES: usize = NODE_BYTES_MAX / BLOCK_BYTES * BLOCK_BYTES;
const NODE_REST_BYTES: usize = NODE_BYTES_MAX - NODE_BLOCKS_BYTES;
const _: () = assert!(CHUNKS == 4 && NODE_BYTES_MAX < CHUNK_BYTES && NODE_REST_BYTES > 0);

/// BLAKE3's key where there is none, and its flags.
const KEY: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];
const CHUNK_START: u8 = 1;
const CHUNK_END: u8 = 2;
const PARENT: u8 = 4;
const ROOT: u8 = 8;

/// The digests of up to sixteen pages, in their order; what is behind them in the array means nothing.
pub(super) fn page_digests(pages: &[&Page]) -> [Digest; LANES] {
    let Some(any) = pages.first() else {
        return [[0; DIGEST_BYTES]; LANES];
    };
    let platform = Platform::detect();
    let mut chunks = [[0; LANES * DIGEST_BYTES]; CHUNKS];
    for (number, values) in chunks.iter_mut().enumerate() {
        let inputs: [&[u8; CHUNK_BYTES]; LANES] = array::from_fn(|lane| piece(*pages.get(lane).unwrap_or(any), number));
        let inputs = &inputs[..pages.len()];
        let none = IncrementCounter::No;
        platform.hash_many(inputs, &KEY, number as u64, none, 0, CHUNK_START, CHUNK_END, values);
    }
    let mut pairs = [[0; 2 * LANES * DIGEST_BYTES]; CHUNKS / 2];
    for (half, pairs) in pairs.iter_mut().enumerate() {
        for lane in 0..pages.len() {
            let pair = &mut pairs[lane * BLOCK_BYTES..][..BLOCK_BYTES];
            pair[..DIGEST_BYTES].copy_from_slice(digest_at(&chunks[2 * half], lane));
            pair[DIGEST_BYTES..].copy_from_slice(digest_at(&chunks[2 * half + 1], lane));
        }
    }
    let mut tops = [0; 2 * LANES * DIGEST_BYTES];
    for (half, pairs) in pairs.iter().enumerate() {
        let parents = parents(&platform, pairs, pages.len(), PARENT);
        for lane in 0..pages.len() {
            let place = lane * BLOCK_BYTES + half * DIGEST_BYTES;
            tops[place..place + DIGEST_BYTES].copy_from_slice(digest_at(&parents, lane));
        }
    }
    let roots = parents(&platform, &tops, pages.len(), PARENT | ROOT);
    array::from_fn(|lane| *digest_at(&roots, lane))
}

/// The digests of up to sixteen nodes that have all their children.
pub(super) fn full_node_digests(nodes: &[&[u8; NODE_BYTES_MAX]]) -> [Digest; LANES] {
    let mut values = [0; LANES * DIGEST_BYTES];
    let Some(any) = nodes.first() else {
        return [[0; DIGEST_BYTES]; LANES];
    };
    let platform = Platform::detect();
    let inputs: [&[u8; NODE_BLOCKS_BYTES]; LANES] = array::from_fn(|lane| piece(*nodes.get(lane).unwrap_or(any), 0));
    let inputs = &inputs[..nodes.len()];
    platform.hash_many(inputs, &KEY, 0, IncrementCounter::No, 0, CHUNK_START, 0, &mut values);
    array::from_fn(|lane| {
        let Some(node) = nodes.get(lane) else {
            return [0; DIGEST_BYTES];
        };
        let mut last = [0; BLOCK_BYTES];
        last[..NODE_REST_BYTES].copy_from_slice(&node[NODE_BLOCKS_BYTES..]);
        let words = digest_at(&values, lane).chunks_exact(4);
        let mut words = words.map(|word| u32::from_le_bytes(word.try_into().expect("four bytes")));
        let mut value: [u32; 8] = array::from_fn(|_| words.next().expect("eight words"));
        platform.compress_in_place(&mut value, &last, NODE_REST_BYTES as u8, 0, CHUNK_END | ROOT);
        let mut digest = [0; DIGEST_BYTES];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(value) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        digest
    })
}

/// The chaining values of `count` pairs that lie one after another.
fn parents(platform: &Platform, pairs: &[u8], count: usize, flags: u8) -> [u8; LANES * DIGEST_BYTES] {
    let mut values = [0; LANES * DIGEST_BYTES];
    let inputs: [&[u8; BLOCK_BYTES]; LANES] = array::from_fn(|lane| piece(pairs, lane));
    let inputs = &inputs[..count];
    platform.hash_many(inputs, &KEY, 0, IncrementCounter::No, flags, 0, 0, &mut values);
    values
}

/// Piece `number` of `bytes`, where all pieces are `N` long.
fn piece<const N: usize>(bytes: &[u8], number: usize) -> &[u8; N] {
    bytes[number * N..][..N].try_into().expect("N bytes")
}

fn digest_at(values: &[u8], lane: usize) -> &Digest {
    piece(values, lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that differ everywhere.
    fn noise(seed: usize, len: usize) -> Vec<u8> {
        (0..len)
            .map(|at| (((at + 1) * (seed * 2 + 3) * 0x9e37_79b9) >> 13) as u8)
            .collect()
    }

    #[test]
    fn pages_and_nodes_side_by_side_have_the_digests_that_they_have_alone() {
        let pages: Vec<Vec<u8>> = (0..LANES).map(|seed| noise(seed, OS_PAGE_BYTES)).collect();
        let nodes: Vec<Vec<u8>> = (0..LANES).map(|seed| noise(seed, NODE_BYTES_MAX)).collect();
        for count in 0..=LANES {
            let these: Vec<&Page> = pages[..count].iter().map(|page| piece(page, 0)).collect();
            for (page, digest) in pages.iter().zip(&page_digests(&these)[..count]) {
                assert_eq!(blake3::hash(page).as_bytes(), digest, "{count} pages");
            }
            let these: Vec<&[u8; NODE_BYTES_MAX]> = nodes[..count].iter().map(|node| piece(node, 0)).collect();
            for (node, digest) in nodes.iter().zip(&full_node_digests(&these)[..count]) {
                assert_eq!(blake3::hash(node).as_bytes(), digest, "{count} nodes");
            }
        }
    }
}
