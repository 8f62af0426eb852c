//! Reading a page map in order: all of it, or what differs between two versions.

use super::delta::ZERO_PAGE;
use super::node::{FANOUT, FANOUT_BITS, Leaf, Node};
use super::{PageIndex, PageMap, PageRef};
use std::sync::Arc;

impl PageMap {
    /// The pages that are not all zeros, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (PageIndex, PageRef<'_>)> {
        let mut stack: Vec<(&Node, u64, usize)> = Vec::with_capacity(16);
        stack.extend(self.root.as_deref().map(|root| (root, 0, 0)));
        std::iter::from_fn(move || {
            while let Some((node, prefix, slot)) = stack.last_mut() {
                if *slot == FANOUT {
                    stack.pop();
                    continue;
                }
                let (here, node, prefix) = (*slot, node.read(), *prefix << FANOUT_BITS | *slot as u64);
                *slot += 1;
                match node {
                    Node::Leaf(leaf) => {
                        if let Some(page) = leaf.page(here) {
                            return Some((PageIndex(prefix), page));
                        }
                    }
                    Node::Interior(interior) => {
                        stack.extend(interior.children[here].as_deref().map(|child| (child, prefix, 0)));
                    }
                    Node::Unread(_) => unreachable!("read above"),
                }
            }
            None
        })
    }

    /// Calls `visit` with every page that reads differently in `self` than in `older`, in ascending order; `None` is a
    /// page that now reads as zeros. Shared nodes are passed over, so that the cost follows the change.
    pub fn for_each_change<'a>(&'a self, older: &'a PageMap, mut visit: impl FnMut(PageIndex, Option<PageRef<'a>>)) {
        let level = self.level.max(older.level);
        // A lower root is the first descendant of what its raised form would be.
        let newer = Side {
            node: self.root.as_deref(),
            level: self.level,
        };
        let older = Side {
            node: older.root.as_deref(),
            level: older.level,
        };
        visit_changes(newer, older, level, 0, &mut visit);
    }

    /// The pages that `for_each_change` would visit, as a list.
    pub fn changes_since<'a>(&'a self, older: &'a PageMap) -> Vec<(PageIndex, Option<PageRef<'a>>)> {
        let mut changes = Vec::new();
        self.for_each_change(older, |index, page| changes.push((index, page)));
        changes
    }
}

/// A tree of one of two versions, whose root may be lower than the other's.
#[derive(Clone, Copy)]
struct Side<'a> {
    node: Option<&'a Node>,
    level: u32,
}

impl<'a> Side<'a> {
    fn child(self, level: u32, slot: usize) -> Self {
        if self.level < level {
            return if slot == 0 {
                self
            } else {
                Self {
                    node: None,
                    level: level - 1,
                }
            };
        }
        match self.node.map(Node::read) {
            Some(Node::Interior(interior)) => Self {
                node: interior.children[slot].as_deref(),
                level: level - 1,
            },
            _ => Self {
                node: None,
                level: level - 1,
            },
        }
    }

    fn leaf(self) -> Option<&'a Leaf> {
        match self.node.map(Node::read) {
            Some(Node::Leaf(leaf)) => Some(leaf),
            _ => None,
        }
    }
}

fn visit_changes<'a>(
    newer: Side<'a>,
    older: Side<'a>,
    level: u32,
    prefix: u64,
    visit: &mut impl FnMut(PageIndex, Option<PageRef<'a>>),
) {
    if same_content_surely(newer, older) {
        return;
    }
    if level == 0 {
        return visit_changed_pages(newer.leaf(), older.leaf(), prefix, visit);
    }
    for slot in 0..FANOUT {
        visit_changes(
            newer.child(level, slot),
            older.child(level, slot),
            level - 1,
            prefix << FANOUT_BITS | slot as u64,
            visit,
        );
    }
}

fn visit_changed_pages<'a>(
    newer: Option<&'a Leaf>,
    older: Option<&'a Leaf>,
    prefix: u64,
    visit: &mut impl FnMut(PageIndex, Option<PageRef<'a>>),
) {
    for slot in 0..FANOUT {
        if matches!((newer, older), (Some(newer), Some(older)) if newer.same_page_surely(older, slot)) {
            continue;
        }
        let page = newer.and_then(|leaf| leaf.page(slot));
        let before = older.and_then(|leaf| leaf.page(slot));
        // A page that moved to a checkpoint file lies elsewhere and is the same, so that only bytes decide.
        if page.as_deref().unwrap_or(&ZERO_PAGE) != before.as_deref().unwrap_or(&ZERO_PAGE) {
            visit(PageIndex(prefix << FANOUT_BITS | slot as u64), page);
        }
    }
}

/// True where both are certainly equal; false says nothing.
fn same_content_surely(newer: Side<'_>, older: Side<'_>) -> bool {
    match (newer.node, older.node) {
        (None, None) => true,
        (Some(one), Some(another)) if newer.level == older.level => {
            std::ptr::eq(one, another)
                || matches!((one.cached_digest(), another.cached_digest()), (Some(one), Some(another)) if one == another)
        }
        _ => false,
    }
}

/// True where both places hold the same node.
pub(super) fn same_node(one: &Option<Arc<Node>>, another: &Option<Arc<Node>>) -> bool {
    match (one, another) {
        (Some(one), Some(another)) => Arc::ptr_eq(one, another),
        (None, None) => true,
        _ => false,
    }
}
