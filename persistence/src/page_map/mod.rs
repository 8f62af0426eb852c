//! A sparse array of OS pages as a value: a cheap clone that shares every untouched page.
//!
//! ```text
//! PageMap ── root ─┬─ interior ─┬─ leaf ─┬─ frame (written since the last checkpoint, in memory)
//!                  │            │        └─ page of a checkpoint (in its file, read when touched)
//!                  │            └─ leaf
//!                  └─ interior (shared with other versions)
//! ```
//!
//! Nodes are reference-counted. A node that only one version holds is changed in place, a shared one is copied first.
//! The shape is a function of the content alone: no empty node, and a root no higher than the highest page needs.
//! That makes the digest one too.

mod changes;
mod chunks;
mod delta;
mod digests;
mod hashing;
pub(crate) mod node;
mod page_ref;
pub(crate) mod rebase;
#[cfg(test)]
mod tests;

pub use chunks::{CHUNK_PAGES, Outline};
pub use delta::PageDelta;
pub use page_ref::PageRef;

use delta::Write;
use node::{FANOUT, Interior, LEVEL_MAX, Node, child_of, level_for};
use replicore_types::OS_PAGE_BYTES;
use std::fmt;
use std::sync::Arc;

/// The content of one OS page.
pub type Page = [u8; OS_PAGE_BYTES];

/// A BLAKE3 digest.
pub type Digest = [u8; 32];

/// The number of an OS page in a memory, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageIndex(pub u64);

/// A version of one memory. Absent pages read as zeros, and pages of zeros are absent.
#[derive(Clone, Default)]
pub struct PageMap {
    pub(crate) root: Option<Arc<Node>>,
    /// The level of the root; 0 for an empty map.
    pub(crate) level: u32,
}

impl PageMap {
    /// The page at `index`; `None` reads as zeros.
    pub fn get(&self, index: PageIndex) -> Option<PageRef<'_>> {
        if level_for(index.0) > self.level {
            return None;
        }
        let mut node: &Node = self.root.as_deref()?;
        let mut level = self.level;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.page(child_of(index.0, 0)),
                Node::Interior(interior) => {
                    node = interior.children[child_of(index.0, level)].as_deref()?;
                    level -= 1;
                }
                Node::Unread(unread) => node = unread.read(),
            }
        }
    }

    /// The version that follows from writing `delta`. `self` is unchanged and shares every other page.
    #[must_use]
    pub fn update(&self, delta: PageDelta) -> PageMap {
        let mut next = self.clone();
        next.apply(delta);
        next
    }

    /// Writes `delta` into this version. Nodes that no other version holds change in place.
    pub fn apply(&mut self, delta: PageDelta) {
        let (mut ascending, mut scattered) = delta.into_runs();
        for writes in [&mut ascending, &mut scattered] {
            self.apply_ascending(writes);
        }
        self.lower_root();
    }

    /// Number of pages that are not all zeros.
    pub fn len(&self) -> u64 {
        self.root.as_ref().map_or(0, |root| root.page_count())
    }

    /// True where every page reads as zeros.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Number of pages held in memory because no checkpoint that this version rests on has them. Frames shared with
    /// other versions are counted in each.
    pub fn frame_count(&self) -> u64 {
        self.root.as_ref().map_or(0, |root| root.frame_count())
    }

    /// True where both are the same version or share all their pages; false says nothing.
    pub fn is_same_version(&self, other: &PageMap) -> bool {
        match (&self.root, &other.root) {
            (Some(one), Some(another)) => Arc::ptr_eq(one, another),
            (None, None) => true,
            _ => false,
        }
    }

    fn apply_ascending(&mut self, writes: &mut [Write]) {
        let Some(highest) = writes
            .iter()
            .rev()
            .find(|(_, frame)| frame.is_some())
            .map(|(index, _)| index.0)
        else {
            // Only zeros: nothing to reach beyond the present root.
            let reached = writes.partition_point(|(index, _)| level_for(index.0) <= self.level);
            return apply_to(&mut self.root, self.level, &mut writes[..reached]);
        };
        self.raise_root(level_for(highest));
        let reached = writes.partition_point(|(index, _)| level_for(index.0) <= self.level);
        apply_to(&mut self.root, self.level, &mut writes[..reached]);
    }

    /// The prefix of a child: what its pages' indices start with, or on a leaf the index itself.
    pub(crate) fn child_prefix(prefix: u64, slot: usize) -> u64 {
        prefix << node::FANOUT_BITS | slot as u64
    }

    pub(crate) fn raise_root(&mut self, level: u32) {
        debug_assert!(level <= LEVEL_MAX);
        while self.level < level {
            self.level += 1;
            if let Some(root) = self.root.take() {
                let mut children: [Option<Arc<Node>>; FANOUT] = Default::default();
                children[0] = Some(root);
                self.root = Some(Arc::new(Node::Interior(Interior::over(children))));
            }
        }
    }

    fn lower_root(&mut self) {
        while self.level > 0 {
            let only_child = match self.root.as_deref().map(Node::read) {
                None => None,
                Some(Node::Interior(interior)) if interior.children[1..].iter().all(Option::is_none) => {
                    interior.children[0].clone()
                }
                Some(_) => return,
            };
            self.root = only_child;
            self.level -= 1;
        }
    }
}

/// Applies ascending writes that all lie under `place`, a node on `level` or nothing.
fn apply_to(place: &mut Option<Arc<Node>>, level: u32, writes: &mut [Write]) {
    if writes.is_empty() || (place.is_none() && writes.iter().all(|(_, frame)| frame.is_none())) {
        return;
    }
    let node = Node::make_mut(place.get_or_insert_with(|| Arc::new(Node::empty(level))));
    match node {
        Node::Leaf(leaf) => {
            for (index, frame) in writes {
                leaf.set(child_of(index.0, 0), frame.take());
            }
        }
        Node::Interior(interior) => {
            let mut rest = writes;
            while let Some((first, _)) = rest.first() {
                let child = child_of(first.0, level);
                let here = rest.partition_point(|(index, _)| child_of(index.0, level) == child);
                let (run, beyond) = rest.split_at_mut(here);
                interior.change_child(child, |child| apply_to(child, level - 1, run));
                rest = beyond;
            }
        }
        Node::Unread(_) => unreachable!("made mutable, so read"),
    }
    if node.page_count() == 0 {
        *place = None;
    }
}

impl fmt::Debug for PageMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageMap({} pages, {} in memory)", self.len(), self.frame_count())
    }
}
