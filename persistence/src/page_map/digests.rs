//! The digest of a memory: of the pages and nodes that changed since it was last asked for, many at once and on two
//! threads.

use super::hashing::{LANES, NODE_BYTES_MAX, full_node_digests, page_digests};
use super::node::{FANOUT, Interior, Leaf, Node, NodeBytes};
use super::{Digest, Page, PageMap};
use crate::sys::frame::Frame;
use std::array;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// From this many pages in memory on, a second thread helps: starting one costs as much as 50 pages.
const SHARED_WORK_FRAMES: usize = 512;
/// Pages that a thread takes at a time, at least.
const SHARE_FRAMES: usize = 64;

impl PageMap {
    /// A collision-resistant digest of the content: the same for the same pages whatever the history, and a page of
    /// zeros counts as absent. Costs time for what changed since it was last asked for.
    pub fn digest(&self) -> Digest {
        let Some(root) = &self.root else {
            return NodeBytes::of(0, std::iter::empty()).digest();
        };
        if root.cached_digest().is_none() {
            let mut work = Work::default();
            work.collect(root, self.level);
            work.digest();
        }
        *root.digest(self.level)
    }
}

/// The nodes without a digest.
#[derive(Default)]
struct Work<'a> {
    leaves: Vec<&'a Leaf>,
    /// Those on level 1, 2, and so on.
    interiors: Vec<Vec<&'a Interior>>,
    /// Pieces of `leaves` that a thread takes at a time.
    shares: Vec<Range<usize>>,
    frames: usize,
    frames_shared: usize,
}

impl<'a> Work<'a> {
    fn collect(&mut self, node: &'a Node, level: u32) {
        if node.cached_digest().is_some() {
            return;
        }
        match node {
            Node::Interior(interior) => {
                for child in interior.children.iter().flatten() {
                    self.collect(child, level - 1);
                }
                let above_leaves = level as usize - 1;
                if self.interiors.len() <= above_leaves {
                    self.interiors.resize_with(above_leaves + 1, Vec::new);
                }
                self.interiors[above_leaves].push(interior);
            }
            Node::Leaf(leaf) => {
                self.frames += leaf.in_memory.count_ones() as usize;
                self.leaves.push(leaf);
                if self.frames - self.frames_shared >= SHARE_FRAMES {
                    self.end_share();
                }
            }
            Node::Unread(_) => unreachable!("has a digest"),
        }
    }

    fn end_share(&mut self) {
        let start = self.shares.last().map_or(0, |share| share.end);
        self.shares.push(start..self.leaves.len());
        self.frames_shared = self.frames;
    }

    fn digest(&mut self) {
        self.end_share();
        let next = AtomicUsize::new(0);
        let take_shares = || {
            while let Some(share) = self.shares.get(next.fetch_add(1, Ordering::Relaxed)) {
                digest_leaves(&self.leaves[share.clone()]);
            }
        };
        if self.frames < SHARED_WORK_FRAMES {
            take_shares();
        } else {
            std::thread::scope(|scope| {
                scope.spawn(take_shares);
                take_shares();
            });
        }
        for (below, interiors) in self.interiors.iter().enumerate() {
            for nodes in interiors.chunks(LANES) {
                let bytes: Vec<NodeBytes> = nodes.iter().map(|node| node.bytes(below as u32 + 1)).collect();
                for (node, digest) in nodes.iter().zip(node_digests(&bytes)) {
                    node.digest.get_or_init(|| digest);
                }
            }
        }
    }
}

fn digest_leaves(leaves: &[&Leaf]) {
    let held = leaves.iter().flat_map(|leaf| leaf.frames.iter().flatten());
    let mut frames: Vec<&Frame> = Vec::with_capacity(SHARE_FRAMES + FANOUT);
    frames.extend(held.map(|frame| &**frame).filter(|frame| !frame.has_digest()));
    for frames in frames.chunks(LANES) {
        // More than there are only repeat the first; no list on the heap for so few.
        let pages: [&Page; LANES] = array::from_fn(|lane| frames.get(lane).unwrap_or(&frames[0]).page());
        for (frame, digest) in frames.iter().zip(page_digests(&pages[..frames.len()])) {
            frame.note_digest(digest);
        }
    }
    for leaves in leaves.chunks(LANES) {
        let bytes: Vec<NodeBytes> = leaves.iter().map(|leaf| leaf.bytes()).collect();
        for (leaf, digest) in leaves.iter().zip(node_digests(&bytes)) {
            leaf.digest.get_or_init(|| digest);
        }
    }
}

/// The digests of up to sixteen nodes, in their order; what is behind them in the array means nothing.
fn node_digests(nodes: &[NodeBytes]) -> [Digest; LANES] {
    let mut full = [&[0; NODE_BYTES_MAX]; LANES];
    let mut count = 0;
    for bytes in nodes.iter().filter_map(NodeBytes::full) {
        full[count] = bytes;
        count += 1;
    }
    let mut full_digests = full_node_digests(&full[..count]).into_iter();
    array::from_fn(|lane| match nodes.get(lane) {
        Some(node) if node.full().is_some() => full_digests.next().expect("one for each full node"),
        Some(node) => node.digest(),
        None => Digest::default(),
    })
}
