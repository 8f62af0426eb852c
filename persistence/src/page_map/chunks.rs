//! A memory in chunks of 256 consecutive pages: what a peer sends, and what can be checked piece by piece.
//!
//! A chunk is a node on level 1 of the tree, so that its digest follows from its pages alone, and the digest of the
//! memory from those of its chunks.

use super::node::{FANOUT, FANOUT_BITS, LEVEL_MAX, Node, node_digest};
use super::{Digest, Page, PageDelta, PageIndex, PageMap, delta::ZERO_PAGE};
use crate::checkpoint::Reader;
use replicore_types::OS_PAGE_BYTES;
use std::sync::Arc;

/// Pages of a chunk: one mebibyte.
pub const CHUNK_PAGES: u64 = 1 << (2 * FANOUT_BITS);
/// The level of the nodes that chunks are.
const CHUNK_LEVEL: u32 = 1;
/// Bytes of the mask that says which pages of a chunk are there.
const MASK_BYTES: usize = CHUNK_PAGES as usize / 8;

/// The digests of the chunks of a memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The level of the memory's root. On level 0 there is one chunk, and its digest is that of the root.
    level: u32,
    /// Number and digest of each chunk that is not all zeros, ascending.
    chunks: Vec<(u64, Digest)>,
}

impl Outline {
    /// Number and digest of each chunk that is not all zeros, ascending.
    pub fn chunks(&self) -> &[(u64, Digest)] {
        &self.chunks
    }

    /// As it is sent: level (4), then number (8) and digest (32) of each chunk.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + self.chunks.len() * 40);
        bytes.extend_from_slice(&self.level.to_le_bytes());
        for (number, digest) in &self.chunks {
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(digest);
        }
        bytes
    }

    /// What [`Outline::encode`] made. `None` where the bytes are not the outline of the memory with this digest: so
    /// holding one proves that its chunks are that memory's.
    pub fn decode(bytes: &[u8], memory: &Digest) -> Option<Self> {
        let mut reader = Reader(bytes);
        let level = reader.u32()?;
        let mut chunks = Vec::new();
        while !reader.is_empty() {
            chunks.push((reader.u64()?, reader.digest()?));
        }
        let outline = Self { level, chunks };
        (outline.digest()? == *memory).then_some(outline)
    }

    /// The digest of the memory; `None` where the chunks are none of a memory.
    fn digest(&self) -> Option<Digest> {
        if self.level > LEVEL_MAX || !self.chunks.is_sorted_by(|one, next| one.0 < next.0) {
            return None;
        }
        if self.chunks.is_empty() {
            return (self.level == 0).then(|| PageMap::default().digest());
        }
        let mut nodes = self.chunks.clone();
        for level in CHUNK_LEVEL + 1..=self.level {
            let parents = nodes.chunk_by(|(one, _), (next, _)| one >> FANOUT_BITS == next >> FANOUT_BITS);
            let parents = parents.map(|children| {
                let slot = |number: u64| number as usize & (FANOUT - 1);
                let digests = children.iter().map(|(number, digest)| (slot(*number), digest));
                (children[0].0 >> FANOUT_BITS, node_digest(level, digests))
            });
            nodes = parents.collect();
        }
        match nodes[..] {
            [(0, digest)] => Some(digest),
            _ => None,
        }
    }

    /// The pages of a chunk as [`PageMap::chunk`] sends them, checked against the chunk's digest: as a change that makes
    /// the chunk of any memory what it should be. `None` where they are not that chunk's.
    pub fn check_chunk(&self, number: u64, bytes: &[u8]) -> Option<PageDelta> {
        let position = self.chunks.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (mask, mut rest) = bytes.split_at_checked(MASK_BYTES)?;
        let (mut own, mut delta) = (PageDelta::default(), PageDelta::default());
        for slot in 0..CHUNK_PAGES {
            let place = PageIndex(number * CHUNK_PAGES + slot);
            if mask[slot as usize / 8] >> (slot % 8) & 1 == 0 {
                delta.insert(place, &ZERO_PAGE);
                continue;
            }
            let (page, beyond) = rest.split_at_checked(OS_PAGE_BYTES)?;
            let page: &Page = page.try_into().ok()?;
            own.insert(PageIndex(slot), page);
            delta.insert(place, page);
            rest = beyond;
        }
        let alone = PageMap::default().update(own);
        (rest.is_empty() && alone.digest_on(self.level.min(CHUNK_LEVEL))? == self.chunks[position].1).then_some(delta)
    }
}

impl PageMap {
    /// The digests of the chunks.
    pub fn outline(&self) -> Outline {
        let mut outline = Outline {
            level: self.level,
            chunks: Vec::new(),
        };
        if let Some(root) = &self.root {
            collect(root, self.level, 0, &mut outline.chunks);
        }
        outline
    }

    /// The pages of a chunk: a mask with a bit for each that is not all zeros, and those pages.
    pub fn chunk(&self, number: u64) -> Vec<u8> {
        let mut bytes = vec![0; MASK_BYTES];
        for slot in 0..CHUNK_PAGES {
            if let Some(page) = self.get(PageIndex(number * CHUNK_PAGES + slot)) {
                bytes[slot as usize / 8] |= 1 << (slot % 8);
                bytes.extend_from_slice(&*page);
            }
        }
        bytes
    }

    /// What makes a chunk all zeros.
    pub fn without_chunk(number: u64) -> PageDelta {
        let mut delta = PageDelta::default();
        for slot in 0..CHUNK_PAGES {
            delta.insert(PageIndex(number * CHUNK_PAGES + slot), &ZERO_PAGE);
        }
        delta
    }

    /// The digest that a root on this level has, or has over this map's root; `None` where the map is higher or empty.
    fn digest_on(&self, level: u32) -> Option<Digest> {
        let mut raised = self.clone();
        raised.raise_root(level);
        (raised.level == level && raised.root.is_some()).then(|| raised.digest())
    }
}

fn collect(node: &Arc<Node>, level: u32, prefix: u64, chunks: &mut Vec<(u64, Digest)>) {
    if level <= CHUNK_LEVEL {
        return chunks.push((prefix, *node.digest(level)));
    }
    if let Node::Interior(interior) = node.read() {
        for (slot, child) in interior.children.iter().enumerate() {
            let Some(child) = child else { continue };
            collect(child, level - 1, PageMap::child_prefix(prefix, slot), chunks);
        }
    }
}
