//! Letting go of frames that a checkpoint holds by now.

use super::PageMap;
use super::changes::same_node;
use super::node::{FANOUT, FANOUT_BITS, Leaf, Node};
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Every page.
pub(crate) const ALL_PAGES: RangeInclusive<u64> = 0..=u64::MAX;

impl PageMap {
    /// The same content, resting on `stored` wherever it still shares with `snapshot`.
    ///
    /// `snapshot` is the version that was written to a checkpoint and `stored` the same content as the checkpoint
    /// store returned it; `self` is `snapshot` or a later version of it. Costs time for what changed before or after
    /// the snapshot; where nothing is shared, `self` comes back as it is.
    #[must_use]
    pub fn rebase(&self, snapshot: &PageMap, stored: &PageMap) -> PageMap {
        self.rebase_within(snapshot, stored, &ALL_PAGES)
    }

    /// The same for a range of pages; those outside of it may stay as they are.
    pub(crate) fn rebase_within(&self, snapshot: &PageMap, stored: &PageMap, pages: &RangeInclusive<u64>) -> PageMap {
        debug_assert_eq!(
            snapshot.digest(),
            stored.digest(),
            "a checkpoint stores what it was given"
        );
        if self.level != snapshot.level || snapshot.level != stored.level {
            return self.rebase_below_raised_root(snapshot, stored, pages);
        }
        let mut next = self.clone();
        rebase_to(
            &mut next.root,
            &snapshot.root,
            &stored.root,
            Place::root(self.level),
            pages,
        );
        next
    }

    /// All pages in ascending ranges, each with little more than `frames_max` pages in memory at most, and how many those
    /// are.
    pub(crate) fn ranges_in_memory(&self, frames_max: u64) -> Vec<(RangeInclusive<u64>, u64)> {
        let (mut ranges, mut first, mut frames) = (Vec::new(), Some(0), 0);
        let mut stack: Vec<(&Arc<Node>, Place)> = Vec::new();
        stack.extend(self.root.iter().map(|root| (root, Place::root(self.level))));
        while let Some((node, place)) = stack.pop() {
            let here = node.frame_count();
            if let Node::Interior(interior) = &**node
                && here > frames_max
            {
                let children = interior.children.iter().enumerate().rev();
                stack.extend(children.filter_map(|(slot, child)| Some((child.as_ref()?, place.child(slot)))));
                continue;
            }
            frames += here;
            if let Some(start) = first.filter(|_| frames >= frames_max) {
                let last = *place.pages().end();
                ranges.push((start..=last, frames));
                (first, frames) = (last.checked_add(1), 0);
            }
        }
        ranges.extend(first.map(|start| (start..=u64::MAX, frames)));
        ranges
    }

    /// The memory grew past what the snapshot's root reaches, or shrank: raises or looks down the first children.
    fn rebase_below_raised_root(&self, snapshot: &PageMap, stored: &PageMap, pages: &RangeInclusive<u64>) -> PageMap {
        let level = self.level.max(snapshot.level).max(stored.level);
        let (mut next, mut snapshot, mut stored) = (self.clone(), snapshot.clone(), stored.clone());
        next.raise_root(level);
        snapshot.raise_root(level);
        stored.raise_root(level);
        rebase_to(&mut next.root, &snapshot.root, &stored.root, Place::root(level), pages);
        next.lower_root();
        next
    }
}

/// Where a node is: its level, and what the indices of its pages start with.
#[derive(Clone, Copy)]
struct Place {
    level: u32,
    prefix: u64,
}

impl Place {
    fn root(level: u32) -> Self {
        Self { level, prefix: 0 }
    }

    fn child(self, slot: usize) -> Self {
        Self {
            level: self.level - 1,
            prefix: PageMap::child_prefix(self.prefix, slot),
        }
    }

    fn pages(self) -> RangeInclusive<u64> {
        let bits = (self.level + 1) * FANOUT_BITS;
        let first = self.prefix.checked_shl(bits).unwrap_or(0);
        first..=first | u64::MAX >> (u64::BITS - bits)
    }

    fn touches(self, pages: &RangeInclusive<u64>) -> bool {
        let own = self.pages();
        own.start() <= pages.end() && pages.start() <= own.end()
    }
}

fn rebase_to(
    node: &mut Option<Arc<Node>>,
    snapshot: &Option<Arc<Node>>,
    stored: &Option<Arc<Node>>,
    place: Place,
    pages: &RangeInclusive<u64>,
) {
    // Untouched since the last checkpoint but one, or done with another range: nothing to let go of.
    if same_node(snapshot, stored) || same_node(node, stored) {
        return;
    }
    if same_node(node, snapshot) {
        node.clone_from(stored);
        return;
    }
    let (Some(node), Some(snapshot), Some(stored)) = (node, snapshot, stored) else {
        return;
    };
    match (snapshot.read(), stored.read()) {
        (Node::Interior(snapshot), Node::Interior(stored)) => {
            let Node::Interior(interior) = node.read() else {
                unreachable!("level {} holds interior nodes", place.level)
            };
            let (digest, stored_node) = (interior.digest.clone(), interior.stored.clone());
            let Node::Interior(interior) = Node::make_mut(node) else {
                unreachable!("level {} holds interior nodes", place.level)
            };
            for slot in 0..FANOUT {
                let here = place.child(slot);
                if here.touches(pages) && !same_node(&snapshot.children[slot], &stored.children[slot]) {
                    interior.change_child(slot, |child| {
                        rebase_to(child, &snapshot.children[slot], &stored.children[slot], here, pages);
                    });
                }
            }
            (interior.digest, interior.stored) = (digest, stored_node);
        }
        (Node::Leaf(snapshot), Node::Leaf(stored)) => {
            if let Node::Leaf(leaf) = node.read()
                && let Some(rebased) = rebase_leaf(leaf, snapshot, stored)
            {
                *node = Arc::new(Node::Leaf(rebased));
            }
        }
        _ => unreachable!("both are on level {}", place.level),
    }
}

/// `leaf` over the record that `stored` is, keeping only what was written after `snapshot`.
fn rebase_leaf(leaf: &Leaf, snapshot: &Leaf, stored: &Leaf) -> Option<Leaf> {
    let same_base = match (&leaf.base, &snapshot.base) {
        (Some(one), Some(another)) => one.same_as(another),
        (None, None) => true,
        _ => false,
    };
    if !same_base || stored.overridden != 0 {
        return None;
    }
    let mut rebased = Leaf {
        base: stored.base.clone(),
        ..Leaf::default()
    };
    for slot in 0..FANOUT {
        let as_in_snapshot = leaf.overridden >> slot & 1 == snapshot.overridden >> slot & 1
            && match (&leaf.frames[slot], &snapshot.frames[slot]) {
                (Some(one), Some(another)) => Arc::ptr_eq(one, another),
                (None, None) => true,
                _ => false,
            };
        if !as_in_snapshot {
            // A page that went back to its base's content stays absent from `overridden` only over the same base.
            let frame = match &leaf.frames[slot] {
                Some(frame) => Some(frame.clone()),
                None if leaf.overridden >> slot & 1 == 1 || leaf.present() >> slot & 1 == 0 => None,
                None => return None,
            };
            rebased.set(slot, frame);
        }
    }
    rebased.digest = leaf.digest.clone();
    Some(rebased)
}
