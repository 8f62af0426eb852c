//! Reading a page map in order: all of it, what differs between two versions, or runs to fill a memory from.

use super::delta::ZERO_PAGE;
use super::node::{FANOUT, FANOUT_BITS, Node};
use super::{Page, PageIndex, PageMap};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Pages with consecutive numbers whose bytes also lie one after another.
#[derive(Clone, Copy, Debug)]
pub struct PageRun<'a> {
    /// The number of the first page.
    pub first: PageIndex,
    /// The content: a whole number of pages.
    pub bytes: &'a [u8],
    /// Where the bytes are in a file, when they are: the file and the page-aligned offset. Such a run may be mapped
    /// instead of copied. The file is never written in place.
    pub file: Option<(BorrowedFd<'a>, u64)>,
}

impl PageMap {
    /// The pages that are not all zeros, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (PageIndex, &Page)> {
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
    pub fn for_each_change<'a>(&'a self, older: &'a PageMap, mut visit: impl FnMut(PageIndex, Option<&'a Page>)) {
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
    pub fn changes_since<'a>(&'a self, older: &'a PageMap) -> Vec<(PageIndex, Option<&'a Page>)> {
        let mut changes = Vec::new();
        self.for_each_change(older, |index, page| changes.push((index, page)));
        changes
    }

    /// Calls `visit` with the whole content as runs, in ascending order. Pages of a checkpoint that were written
    /// together come as one run.
    pub fn for_each_run<'a>(&'a self, mut visit: impl FnMut(PageRun<'a>)) {
        let mut pending: Option<FileRun<'a>> = None;
        let mut stack: Vec<(&'a Node, u64)> = self.root.as_deref().map(|root| (root, 0)).into_iter().collect();
        while let Some((node, prefix)) = stack.pop() {
            match node.read() {
                Node::Unread(_) => unreachable!("read here"),
                Node::Interior(interior) => {
                    for (slot, child) in interior.children.iter().enumerate().rev() {
                        stack.extend(
                            child
                                .as_deref()
                                .map(|child| (child, prefix << FANOUT_BITS | slot as u64)),
                        );
                    }
                }
                Node::Leaf(leaf) => {
                    for slot in 0..FANOUT {
                        let first = prefix << FANOUT_BITS | slot as u64;
                        let stored = leaf.in_base() >> slot & 1 == 1;
                        match (&leaf.base, leaf.page(slot)) {
                            (_, None) => {}
                            (Some(base), Some(_)) if stored => {
                                let pages = &base.node.generation.pages;
                                let offset = base.page_offset(slot).expect("the base has this page");
                                FileRun::extend(
                                    &mut pending,
                                    FileRun {
                                        first,
                                        pages,
                                        offset,
                                        count: 1,
                                    },
                                    &mut visit,
                                );
                            }
                            (_, Some(page)) => {
                                FileRun::finish(&mut pending, &mut visit);
                                visit(PageRun {
                                    first: PageIndex(first),
                                    bytes: page,
                                    file: None,
                                });
                            }
                        }
                    }
                }
            }
        }
        FileRun::finish(&mut pending, &mut visit);
    }
}

/// Pages of a checkpoint that follow one another in memory and file.
struct FileRun<'a> {
    first: u64,
    pages: &'a crate::sys::mapping::MappedFile,
    offset: u64,
    count: u64,
}

impl<'a> FileRun<'a> {
    fn extend(pending: &mut Option<Self>, next: Self, visit: &mut impl FnMut(PageRun<'a>)) {
        if let Some(run) = pending
            && std::ptr::eq(run.pages, next.pages)
            && run.first + run.count == next.first
            && run.offset + run.bytes_len() == next.offset
            && run
                .pages
                .bytes(run.offset, (run.bytes_len() as usize) + size_of::<Page>())
                .is_some()
        {
            run.count += 1;
            return;
        }
        Self::finish(pending, visit);
        *pending = Some(next);
    }

    fn finish(pending: &mut Option<Self>, visit: &mut impl FnMut(PageRun<'a>)) {
        if let Some(run) = pending.take() {
            let bytes = run
                .pages
                .bytes(run.offset, run.bytes_len() as usize)
                .expect("page offsets were checked at load");
            visit(PageRun {
                first: PageIndex(run.first),
                bytes,
                file: Some((run.pages.descriptor(), run.offset)),
            });
        }
    }

    fn bytes_len(&self) -> u64 {
        self.count * size_of::<Page>() as u64
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

    fn page(self, slot: usize) -> Option<&'a Page> {
        match self.node.map(Node::read) {
            Some(Node::Leaf(leaf)) => leaf.page(slot),
            _ => None,
        }
    }
}

fn visit_changes<'a>(
    newer: Side<'a>,
    older: Side<'a>,
    level: u32,
    prefix: u64,
    visit: &mut impl FnMut(PageIndex, Option<&'a Page>),
) {
    if same_content_surely(newer, older) {
        return;
    }
    for slot in 0..FANOUT {
        let index = prefix << FANOUT_BITS | slot as u64;
        if level > 0 {
            visit_changes(
                newer.child(level, slot),
                older.child(level, slot),
                level - 1,
                index,
                visit,
            );
            continue;
        }
        let (page, before) = (newer.page(slot), older.page(slot));
        let same_place = page.map(|page| page.as_ptr()) == before.map(|page| page.as_ptr());
        // A page that moved to a checkpoint file lies elsewhere and is the same, so that only bytes decide.
        if !same_place && page.unwrap_or(&ZERO_PAGE) != before.unwrap_or(&ZERO_PAGE) {
            visit(PageIndex(index), page);
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
