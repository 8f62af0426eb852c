//! The nodes of a page map's radix tree.
//!
//! Fan-out 16: a node that is shared is copied before it changes, which costs an atomic increment in each child, and
//! its digest is a pass over its children's digests. For scattered writes both sum to a third of what a fan-out of 64
//! costs, and a look-up in 4 GiB is five steps instead of four.

use super::hashing::NODE_BYTES_MAX;
use super::{Digest, PageRef};
use crate::checkpoint::stored::{StoredLeaf, StoredNode};
use crate::checkpoint::unread::UnreadNode;
use crate::sys::frame::Frame;
use std::sync::{Arc, OnceLock};

pub(crate) const FANOUT_BITS: u32 = 4;
pub(crate) const FANOUT: usize = 1 << FANOUT_BITS;

/// One bit per child or page of a node.
pub(crate) type Mask = u16;
const _: () = assert!(Mask::BITS as usize == FANOUT);

/// The level of the root when the tree covers every possible index. Leaves are on level 0.
pub(crate) const LEVEL_MAX: u32 = u64::BITS / FANOUT_BITS - 1;

/// The child of a node on `level` on the way to `index`.
pub(crate) fn child_of(index: u64, level: u32) -> usize {
    (index >> (level * FANOUT_BITS)) as usize & (FANOUT - 1)
}

/// The level that a root must have to reach `index`.
pub(crate) fn level_for(index: u64) -> u32 {
    (u64::BITS - index.leading_zeros()).saturating_sub(1) / FANOUT_BITS
}

#[derive(Clone)]
pub(crate) enum Node {
    Interior(Interior),
    Leaf(Leaf),
    /// In a checkpoint's file, and read from there when it is first needed: opening a state reads no tree.
    Unread(UnreadNode),
}

/// A node with children on the level below; never without one.
#[derive(Clone, Default)]
pub(crate) struct Interior {
    pub children: [Option<Arc<Node>>; FANOUT],
    pub page_count: u64,
    pub frame_count: u64,
    pub digest: OnceLock<Digest>,
    /// Where a checkpoint holds exactly this node.
    pub stored: Option<StoredNode>,
}

/// Sixteen pages: those that a checkpoint holds, under those that were written since.
#[derive(Clone, Default)]
pub(crate) struct Leaf {
    pub base: Option<StoredLeaf>,
    /// The pages where `frames` decides; `None` there is a page of zeros.
    pub overridden: Mask,
    /// The pages that have a frame; among `overridden`.
    pub in_memory: Mask,
    pub frames: [Option<Arc<Frame>>; FANOUT],
    pub digest: OnceLock<Digest>,
}

impl Node {
    pub(crate) fn empty(level: u32) -> Self {
        if level == 0 {
            Node::Leaf(Leaf::default())
        } else {
            Node::Interior(Interior::default())
        }
    }

    /// The node itself, whether or not it was read before: an interior node or a leaf.
    pub(crate) fn read(&self) -> &Node {
        match self {
            Node::Unread(unread) => unread.read(),
            read => read,
        }
    }

    /// The node at `place`, read and held by nobody else, to be changed. A copy has no digest and no place in a
    /// checkpoint: who changes nothing that they depend on puts them back.
    pub(crate) fn make_mut(place: &mut Arc<Node>) -> &mut Node {
        if matches!(**place, Node::Unread(_)) || Arc::get_mut(place).is_none() {
            *place = Arc::new(place.copy_to_change());
        }
        Arc::get_mut(place).expect("just made, or found to be held by nobody else")
    }

    /// A copy without what a change would take away.
    fn copy_to_change(&self) -> Node {
        match self.read() {
            Node::Interior(interior) => Node::Interior(interior.copy_to_change()),
            Node::Leaf(leaf) => Node::Leaf(leaf.copy_to_change()),
            Node::Unread(_) => unreachable!("read above"),
        }
    }

    pub(crate) fn page_count(&self) -> u64 {
        match self {
            Node::Interior(interior) => interior.page_count,
            Node::Leaf(leaf) => u64::from(leaf.present().count_ones()),
            Node::Unread(unread) => unread.read().page_count(),
        }
    }

    pub(crate) fn frame_count(&self) -> u64 {
        match self {
            Node::Interior(interior) => interior.frame_count,
            Node::Leaf(leaf) => u64::from(leaf.in_memory.count_ones()),
            Node::Unread(_) => 0,
        }
    }

    pub(crate) fn digest(&self, level: u32) -> &Digest {
        match self {
            Node::Interior(interior) => interior.digest(level),
            Node::Leaf(leaf) => leaf.digest(),
            Node::Unread(unread) => unread.digest(),
        }
    }

    /// Where a checkpoint holds exactly this node, if one does.
    pub(crate) fn stored_node(&self) -> Option<&StoredNode> {
        match self {
            Node::Interior(interior) => interior.stored.as_ref(),
            Node::Leaf(leaf) => leaf
                .base
                .as_ref()
                .filter(|_| leaf.overridden == 0)
                .map(|base| &base.node),
            Node::Unread(unread) => Some(unread.stored()),
        }
    }

    /// The digest if it is known already.
    pub(crate) fn cached_digest(&self) -> Option<&Digest> {
        match self {
            Node::Interior(interior) => interior.digest.get(),
            Node::Leaf(leaf) => leaf.digest.get(),
            Node::Unread(unread) => Some(unread.digest()),
        }
    }
}

impl Interior {
    /// A new node over `children`.
    pub(crate) fn over(children: [Option<Arc<Node>>; FANOUT]) -> Self {
        let page_count = children.iter().flatten().map(|child| child.page_count()).sum();
        let frame_count = children.iter().flatten().map(|child| child.frame_count()).sum();
        Self {
            children,
            page_count,
            frame_count,
            ..Self::default()
        }
    }

    fn copy_to_change(&self) -> Self {
        Self {
            children: self.children.clone(),
            page_count: self.page_count,
            frame_count: self.frame_count,
            digest: OnceLock::new(),
            stored: None,
        }
    }

    /// Lets `change` work on one child and keeps the counts right. Touches no other child: each would be a cache miss.
    pub(crate) fn change_child(&mut self, slot: usize, change: impl FnOnce(&mut Option<Arc<Node>>)) {
        let counts = |child: &Option<Arc<Node>>| {
            child
                .as_ref()
                .map_or((0, 0), |child| (child.page_count(), child.frame_count()))
        };
        let child = &mut self.children[slot];
        let (pages_before, frames_before) = counts(child);
        change(child);
        let (pages_after, frames_after) = counts(child);
        self.page_count = self.page_count - pages_before + pages_after;
        self.frame_count = self.frame_count - frames_before + frames_after;
        self.digest = OnceLock::new();
        self.stored = None;
    }

    pub(crate) fn digest(&self, level: u32) -> &Digest {
        self.digest.get_or_init(|| self.bytes(level).digest())
    }

    /// What the digest is that of.
    pub(super) fn bytes(&self, level: u32) -> NodeBytes {
        let children = self.children.iter().enumerate();
        let digests = children.filter_map(|(slot, child)| Some((slot, child.as_ref()?.digest(level - 1))));
        NodeBytes::of(level, digests)
    }
}

impl Leaf {
    fn copy_to_change(&self) -> Self {
        Self {
            base: self.base.clone(),
            overridden: self.overridden,
            in_memory: self.in_memory,
            frames: self.frames.clone(),
            digest: OnceLock::new(),
        }
    }

    pub(crate) fn in_base(&self) -> Mask {
        self.base.as_ref().map_or(0, |base| base.present) & !self.overridden
    }

    pub(crate) fn present(&self) -> Mask {
        self.in_base() | self.in_memory
    }

    pub(crate) fn page(&self, slot: usize) -> Option<PageRef<'_>> {
        if self.overridden >> slot & 1 == 1 {
            return self.frames[slot].as_ref().map(|frame| PageRef::InPlace(frame.page()));
        }
        self.base.as_ref()?.page(slot)
    }

    /// True where a page is surely the same in both, without reading it; false says nothing.
    pub(crate) fn same_page_surely(&self, other: &Leaf, slot: usize) -> bool {
        match (&self.frames[slot], &other.frames[slot]) {
            (Some(one), Some(another)) => Arc::ptr_eq(one, another),
            (None, None) if self.overridden >> slot & 1 == 1 || other.overridden >> slot & 1 == 1 => false,
            (None, None) => match (&self.base, &other.base) {
                (Some(one), Some(another)) => one.same_page_as(another, slot),
                (one, another) => one.is_none() && another.is_none(),
            },
            _ => false,
        }
    }

    pub(crate) fn page_digest(&self, slot: usize) -> Option<&Digest> {
        if self.overridden >> slot & 1 == 1 {
            return self.frames[slot].as_ref().map(|frame| frame.digest());
        }
        self.base.as_ref()?.page_digest(slot)
    }

    /// Writes a page; `None` is zeros.
    pub(crate) fn set(&mut self, slot: usize, frame: Option<Arc<Frame>>) {
        let in_base = self.base.as_ref().is_some_and(|base| base.present >> slot & 1 == 1);
        if frame.is_some() || in_base {
            self.overridden |= 1 << slot;
        } else {
            self.overridden &= !(1 << slot);
        }
        self.in_memory = self.in_memory & !(1 << slot) | Mask::from(frame.is_some()) << slot;
        self.frames[slot] = frame;
        self.digest = OnceLock::new();
    }

    pub(crate) fn digest(&self) -> &Digest {
        self.digest.get_or_init(|| self.bytes().digest())
    }

    /// What the digest is that of.
    pub(super) fn bytes(&self) -> NodeBytes {
        NodeBytes::of(0, (0..FANOUT).filter_map(|slot| Some((slot, self.page_digest(slot)?))))
    }
}

/// What the digest of a node is that of: level (u8), zeros (u8), which children exist (u16), zeros (u32), then the
/// digests of those that do. Never 4096 bytes long and so never to be confused with a page.
pub(super) struct NodeBytes {
    bytes: [u8; NODE_BYTES_MAX],
    len: usize,
}

impl NodeBytes {
    pub(super) fn of<'a>(level: u32, children: impl Iterator<Item = (usize, &'a Digest)>) -> Self {
        let mut bytes = [0; NODE_BYTES_MAX];
        let mut present: Mask = 0;
        let mut len = 8;
        for (slot, digest) in children {
            present |= 1 << slot;
            bytes[len..len + 32].copy_from_slice(digest);
            len += 32;
        }
        bytes[0] = level as u8;
        bytes[2..4].copy_from_slice(&present.to_le_bytes());
        Self { bytes, len }
    }

    /// The bytes of a node that has all its children.
    pub(super) fn full(&self) -> Option<&[u8; NODE_BYTES_MAX]> {
        (self.len == NODE_BYTES_MAX).then_some(&self.bytes)
    }

    pub(super) fn digest(&self) -> Digest {
        *blake3::hash(&self.bytes[..self.len]).as_bytes()
    }
}

/// The digest of a node with these children.
pub(crate) fn node_digest<'a>(level: u32, children: impl Iterator<Item = (usize, &'a Digest)>) -> Digest {
    NodeBytes::of(level, children).digest()
}
