//! Letting go of frames that a checkpoint holds by now.

use super::PageMap;
use super::changes::same_node;
use super::node::{FANOUT, Leaf, Node};
use std::sync::Arc;

impl PageMap {
    /// The same content, resting on `stored` wherever it still shares with `snapshot`.
    ///
    /// `snapshot` is the version that was written to a checkpoint and `stored` the same content as the checkpoint
    /// store returned it; `self` is `snapshot` or a later version of it. Costs time for what changed before or after
    /// the snapshot; where nothing is shared, `self` comes back as it is.
    #[must_use]
    pub fn rebase(&self, snapshot: &PageMap, stored: &PageMap) -> PageMap {
        debug_assert_eq!(
            snapshot.digest(),
            stored.digest(),
            "a checkpoint stores what it was given"
        );
        if self.level != snapshot.level || snapshot.level != stored.level {
            return self.rebase_below_raised_root(snapshot, stored);
        }
        let mut next = self.clone();
        rebase_to(&mut next.root, &snapshot.root, &stored.root, self.level);
        next
    }

    /// The memory grew past what the snapshot's root reaches, or shrank: raises or looks down the first children.
    fn rebase_below_raised_root(&self, snapshot: &PageMap, stored: &PageMap) -> PageMap {
        let level = self.level.max(snapshot.level).max(stored.level);
        let (mut next, mut snapshot, mut stored) = (self.clone(), snapshot.clone(), stored.clone());
        next.raise_root(level);
        snapshot.raise_root(level);
        stored.raise_root(level);
        rebase_to(&mut next.root, &snapshot.root, &stored.root, level);
        next.lower_root();
        next
    }
}

fn rebase_to(place: &mut Option<Arc<Node>>, snapshot: &Option<Arc<Node>>, stored: &Option<Arc<Node>>, level: u32) {
    // Untouched since the last checkpoint but one: nothing to let go of.
    if same_node(snapshot, stored) {
        return;
    }
    if same_node(place, snapshot) {
        place.clone_from(stored);
        return;
    }
    let (Some(node), Some(snapshot), Some(stored)) = (place, snapshot, stored) else {
        return;
    };
    match (snapshot.read(), stored.read()) {
        (Node::Interior(snapshot), Node::Interior(stored)) => {
            let Node::Interior(interior) = node.read() else {
                unreachable!("level {level} holds interior nodes")
            };
            let (digest, place) = (interior.digest.clone(), interior.stored.clone());
            let Node::Interior(interior) = Node::make_mut(node) else {
                unreachable!("level {level} holds interior nodes")
            };
            for slot in 0..FANOUT {
                if !same_node(&snapshot.children[slot], &stored.children[slot]) {
                    interior.change_child(slot, |child| {
                        rebase_to(child, &snapshot.children[slot], &stored.children[slot], level - 1);
                    });
                }
            }
            (interior.digest, interior.stored) = (digest, place);
        }
        (Node::Leaf(snapshot), Node::Leaf(stored)) => {
            if let Node::Leaf(leaf) = node.read()
                && let Some(rebased) = rebase_leaf(leaf, snapshot, stored)
            {
                *node = Arc::new(Node::Leaf(rebased));
            }
        }
        _ => unreachable!("both are on level {level}"),
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
