//! A persistent map from labels to digests that is a hash tree at every moment.
//!
//! ```text
//!                fork at bit 0          the forks of the hash tree branch where labels first differ (a crit-bit tree):
//!               /            \          the same labels give the same digest, whatever the order they came in
//!        fork at bit 3      [b c d]
//!        /           \                  up to BUCKET_ENTRIES_MAX labels share one node, whose forks are computed when
//!     [a a' ..]     [a'' ..]            it changes and not stored
//! ```
//! What the labels stand for is not here: 600,000 request statuses are 65 bytes each, and content comes from the
//! state when a client asks. A digest stands beside the pointer to its node, so that updating a path reads no sibling.
//! Changes come as one sorted batch and are hashed on the way back up, in parallel when there are many and the caller wants it.

use crate::certified_state::digest::{Digest, empty_digest, fork_digest, labeled_digest};
use crate::certified_state::hash_tree::{HashTree, begin_fork, begin_label, pruned};
use replicore_types::MessageId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Longest label, in bytes: a request id. Whole words of eight.
pub const LABEL_BYTES_MAX: usize = 32;
/// Entries in one node. Larger nodes are hashed for nothing, smaller ones cost pointers.
const BUCKET_ENTRIES_MAX: usize = 8;
/// A batch of fewer changes is not worth splitting between threads.
const PARALLEL_CHANGES_MIN: usize = 96;

/// A label of up to [`LABEL_BYTES_MAX`] bytes. Ordered like the bytes: padded with zeros, the length decides last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label {
    bytes: [u8; LABEL_BYTES_MAX],
    length: u8,
}

impl Label {
    /// The label with these bytes; `None` where they are too many.
    pub fn new(label: &[u8]) -> Option<Self> {
        let mut bytes = [0; LABEL_BYTES_MAX];
        bytes.get_mut(..label.len())?.copy_from_slice(label);
        Some(Self {
            bytes,
            length: label.len() as u8,
        })
    }

    /// The label of a request.
    pub fn of_request(id: &MessageId) -> Self {
        Self {
            bytes: *id.as_bytes(),
            length: LABEL_BYTES_MAX as u8,
        }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }

    /// Bit `index` of the padded bytes followed by the length.
    fn bit(&self, index: u16) -> bool {
        let byte = self.bytes.get(usize::from(index / 8)).copied().unwrap_or(self.length);
        byte & (0x80 >> (index % 8)) != 0
    }

    /// First bit in which two labels differ; [`EQUAL`] where they do not.
    fn first_difference(&self, other: &Self) -> u16 {
        let (words, others) = (self.bytes.as_chunks::<8>().0, other.bytes.as_chunks::<8>().0);
        for (index, (left, right)) in words.iter().zip(others).enumerate() {
            let difference = u64::from_be_bytes(*left) ^ u64::from_be_bytes(*right);
            if difference != 0 {
                return index as u16 * 64 + difference.leading_zeros() as u16;
            }
        }
        match self.length ^ other.length {
            0 => EQUAL,
            difference => LABEL_BYTES_MAX as u16 * 8 + difference.leading_zeros() as u16,
        }
    }
}

/// Larger than the index of every bit.
const EQUAL: u16 = u16::MAX;

/// A label and the digest of the labeled node: the content's digest is hashed in already.
#[derive(Clone, Copy, Debug)]
struct Entry {
    label: Label,
    digest: Digest,
}

/// One change: the digest of the new content below a label, or `None` to take the label out.
pub type Change = (Label, Option<Digest>);

/// A part of the tree and its digest.
#[derive(Clone, Debug)]
struct Child {
    node: Node,
    digest: Digest,
}

#[derive(Clone, Debug)]
enum Node {
    /// 1 to [`BUCKET_ENTRIES_MAX`] entries, ascending.
    Bucket(Arc<[Entry]>),
    Fork(Arc<Fork>),
}

/// More than [`BUCKET_ENTRIES_MAX`] entries, split at the first bit in which they differ.
#[derive(Clone, Debug)]
struct Fork {
    bit: u16,
    /// Entries below.
    count: usize,
    /// A label that agrees with every label below in the bits before `bit`; it need not exist.
    prefix: Label,
    left: Child,
    right: Child,
}

/// A persistent map from labels to digests. A clone is one reference.
#[derive(Clone, Debug, Default)]
pub struct DigestMap {
    root: Option<Child>,
}

impl DigestMap {
    /// The root digest of the hash tree over all labels.
    pub fn digest(&self) -> Digest {
        self.root.as_ref().map_or_else(empty_digest, |root| root.digest)
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.root.as_ref().map_or(0, |root| root.node.count())
    }

    /// True without labels.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Applies changes, on the threads of the calling pool where `is_parallel`; of several for one label the last one
    /// holds.
    pub fn update(&mut self, changes: Vec<Change>, is_parallel: bool) {
        let mut entries: Vec<(Label, Option<Entry>)> = hash_labels(changes, is_parallel);
        if !entries.is_sorted_by(|left, right| left.0 < right.0) {
            entries.sort_by_key(|(label, _)| *label);
            entries.dedup_by(|later, kept| {
                let same = later.0 == kept.0;
                if same {
                    *kept = *later;
                }
                same
            });
        }
        self.root = match self.root.take() {
            Some(mut root) => apply(&mut root, &entries, is_parallel).then_some(root),
            None => build_new(&entries, is_parallel),
        };
    }

    /// True where the label exists.
    pub fn contains(&self, label: &Label) -> bool {
        let mut child = self.root.as_ref();
        while let Some(Child {
            node: Node::Fork(fork), ..
        }) = child
        {
            child = Some(if label.bit(fork.bit) { &fork.right } else { &fork.left });
        }
        child.is_some_and(|child| {
            child
                .node
                .bucket()
                .binary_search_by_key(label, |entry| entry.label)
                .is_ok()
        })
    }

    /// The greatest label before `label` and the smallest one after it.
    pub fn neighbours(&self, label: &Label) -> (Option<Label>, Option<Label>) {
        let Some(root) = &self.root else { return (None, None) };
        (before(&root.node, label), after(&root.node, label))
    }

    /// The tree with the labels in `shown`, all of which exist, as given there; everything else is pruned.
    pub(crate) fn witness(&self, shown: &BTreeMap<Label, HashTree>) -> HashTree {
        match &self.root {
            None => HashTree::Empty,
            Some(root) => {
                let shown: Vec<_> = shown.iter().map(|(label, tree)| (*label, tree)).collect();
                child_witness(root, &shown)
            }
        }
    }
}

impl DigestMap {
    /// Appends what the witness of `label` alone is in CBOR, where the label exists; `content` appends what is below it. Much
    /// less work than [`DigestMap::witness`] for the one label that most certificates show: it walks down once and keeps
    /// nothing but the digests on the right of the way. False, with nothing appended, where the label does not exist.
    pub(crate) fn encode_one(&self, label: &Label, content: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) -> bool {
        let Some(mut child) = self.root.as_ref() else {
            return false;
        };
        let start = out.len();
        let mut on_the_right: Vec<Digest> = Vec::with_capacity(DEPTH_USUAL);
        while let Node::Fork(fork) = &child.node {
            begin_fork(out);
            child = if label.bit(fork.bit) {
                pruned(out, &fork.left.digest);
                &fork.right
            } else {
                on_the_right.push(fork.right.digest);
                &fork.left
            };
        }
        let mut entries = child.node.bucket();
        while entries.len() > 1 {
            let (bit, left, right) = split(entries);
            begin_fork(out);
            entries = if label.bit(bit) {
                bucket_digest(left).iter().for_each(|digest| pruned(out, digest));
                right
            } else {
                on_the_right.extend(bucket_digest(right));
                left
            };
        }
        if entries.first().is_none_or(|entry| entry.label != *label) {
            out.truncate(start);
            return false;
        }
        begin_label(out, label.as_slice());
        content(out);
        on_the_right.iter().rev().for_each(|digest| pruned(out, digest));
        true
    }
}

/// Forks on the way to a label among a billion, about; deeper ways only allocate once more.
const DEPTH_USUAL: usize = 32;

fn hash_labels(changes: Vec<Change>, is_parallel: bool) -> Vec<(Label, Option<Entry>)> {
    let entry = |(label, content): &Change| {
        (
            *label,
            content.map(|content| Entry {
                label: *label,
                digest: labeled_digest(label.as_slice(), &content),
            }),
        )
    };
    if !is_parallel || changes.len() < PARALLEL_CHANGES_MIN {
        return changes.iter().map(entry).collect();
    }
    use rayon::prelude::*;
    changes.par_iter().map(entry).collect()
}

impl Node {
    fn count(&self) -> usize {
        match self {
            Self::Bucket(entries) => entries.len(),
            Self::Fork(fork) => fork.count,
        }
    }

    /// The entries of a bucket; none for a fork.
    fn bucket(&self) -> &[Entry] {
        match self {
            Self::Bucket(entries) => entries,
            Self::Fork(_) => &[],
        }
    }

    fn collect_into(&self, out: &mut Vec<Entry>) {
        match self {
            Self::Bucket(entries) => out.extend_from_slice(entries),
            Self::Fork(fork) => {
                fork.left.node.collect_into(out);
                fork.right.node.collect_into(out);
            }
        }
    }

    fn first(&self) -> Option<Label> {
        match self {
            Self::Bucket(entries) => entries.first().map(|entry| entry.label),
            Self::Fork(fork) => fork.left.node.first(),
        }
    }

    fn last(&self) -> Option<Label> {
        match self {
            Self::Bucket(entries) => entries.last().map(|entry| entry.label),
            Self::Fork(fork) => fork.right.node.last(),
        }
    }
}

type SortedChanges<'a> = &'a [(Label, Option<Entry>)];

/// Applies changes, which are ascending and without duplicates: in place where nobody else holds a node. False where no
/// label is left.
fn apply(child: &mut Child, changes: SortedChanges<'_>, is_parallel: bool) -> bool {
    let ([first, ..], [.., last]) = (changes, changes) else {
        return true;
    };
    let fork = match &mut child.node {
        Node::Bucket(entries) => {
            let merged = merge(entries, changes);
            return put(child, build(&merged, is_parallel));
        }
        Node::Fork(fork) => fork,
    };
    // Among sorted labels the first or the last one leaves a common prefix earliest.
    let leaves = fork
        .prefix
        .first_difference(&first.0)
        .min(fork.prefix.first_difference(&last.0));
    if leaves < fork.bit {
        return apply_beside(child, leaves, changes, is_parallel);
    }
    let (zeros, ones) = split_changes(changes, fork.bit);
    let Fork { left, right, count, .. } = Arc::make_mut(fork);
    let (has_left, has_right) = if is_parallel && changes.len() >= PARALLEL_CHANGES_MIN {
        rayon::join(|| apply(left, zeros, true), || apply(right, ones, true))
    } else {
        (apply(left, zeros, is_parallel), apply(right, ones, is_parallel))
    };
    let only = match (has_left, has_right) {
        (true, true) => {
            child.digest = fork_digest(&left.digest, &right.digest);
            *count = left.node.count() + right.node.count();
            if *count <= BUCKET_ENTRIES_MAX {
                child.node = Node::Bucket(entries_of(left, right));
            }
            return true;
        }
        (true, false) => Some(left.clone()),
        (false, true) => Some(right.clone()),
        (false, false) => None,
    };
    put(child, only)
}

/// [`apply`] where some of the changed labels are not below the fork that `child` is: they differ from its labels in
/// `bit`, before all of these differ among each other.
fn apply_beside(child: &mut Child, bit: u16, changes: SortedChanges<'_>, is_parallel: bool) -> bool {
    let (zeros, ones) = split_changes(changes, bit);
    let is_right = child.node.any_label().bit(bit);
    let (below, beside) = if is_right { (ones, zeros) } else { (zeros, ones) };
    let beside = build_new(beside, is_parallel);
    let below = apply(child, below, is_parallel).then(|| child.clone());
    let (left, right) = if is_right { (beside, below) } else { (below, beside) };
    put(child, join(bit, left, right))
}

/// Puts what there is in place of `child`; false where that is nothing.
fn put(child: &mut Child, new: Option<Child>) -> bool {
    let is_there = new.is_some();
    if let Some(new) = new {
        *child = new;
    }
    is_there
}

/// The tree of changes alone.
fn build_new(changes: SortedChanges<'_>, is_parallel: bool) -> Option<Child> {
    let entries: Vec<_> = changes.iter().filter_map(|(_, entry)| *entry).collect();
    build(&entries, is_parallel)
}

/// Ascending changes to labels with a zero and with a one at `bit`, before which they agree.
fn split_changes(changes: SortedChanges<'_>, bit: u16) -> (SortedChanges<'_>, SortedChanges<'_>) {
    changes.split_at(changes.partition_point(|(label, _)| !label.bit(bit)))
}

fn entries_of(left: &Child, right: &Child) -> Arc<[Entry]> {
    let mut entries = Vec::with_capacity(left.node.count() + right.node.count());
    left.node.collect_into(&mut entries);
    right.node.collect_into(&mut entries);
    entries.into()
}

/// The tree over two parts whose labels first differ in `bit`.
fn join(bit: u16, left: Option<Child>, right: Option<Child>) -> Option<Child> {
    let (left, right) = match (left, right) {
        (Some(left), Some(right)) => (left, right),
        (left, right) => return left.or(right),
    };
    let digest = fork_digest(&left.digest, &right.digest);
    let count = left.node.count() + right.node.count();
    let node = if count <= BUCKET_ENTRIES_MAX {
        Node::Bucket(entries_of(&left, &right))
    } else {
        let prefix = right.node.any_label();
        Node::Fork(Arc::new(Fork {
            bit,
            count,
            prefix,
            left,
            right,
        }))
    };
    Some(Child { node, digest })
}

impl Node {
    /// A label that shares the prefix of all labels below.
    fn any_label(&self) -> Label {
        match self {
            Self::Bucket(entries) => entries[0].label,
            Self::Fork(fork) => fork.prefix,
        }
    }
}

fn merge(entries: &[Entry], changes: SortedChanges<'_>) -> Vec<Entry> {
    let mut merged = Vec::with_capacity(entries.len() + changes.len());
    let mut old = entries.iter().peekable();
    for (label, entry) in changes {
        while let Some(kept) = old.next_if(|old| old.label < *label) {
            merged.push(*kept);
        }
        old.next_if(|old| old.label == *label);
        merged.extend(*entry);
    }
    merged.extend(old);
    merged
}

/// The tree over ascending entries.
fn build(entries: &[Entry], is_parallel: bool) -> Option<Child> {
    if entries.len() <= BUCKET_ENTRIES_MAX {
        let digest = bucket_digest(entries)?;
        return Some(Child {
            node: Node::Bucket(entries.into()),
            digest,
        });
    }
    let (bit, left, right) = split(entries);
    let (left, right) = (|| build(left, is_parallel), || build(right, is_parallel));
    let (left, right) = if is_parallel && entries.len() >= PARALLEL_CHANGES_MIN {
        rayon::join(left, right)
    } else {
        (left(), right())
    };
    join(bit, left, right)
}

/// Two or more ascending entries, split at the first bit in which they differ.
fn split(entries: &[Entry]) -> (u16, &[Entry], &[Entry]) {
    let bit = entries[0].label.first_difference(&entries[entries.len() - 1].label);
    let (left, right) = entries.split_at(entries.partition_point(|entry| !entry.label.bit(bit)));
    (bit, left, right)
}

/// Digest of the forks over ascending entries; `None` without entries.
fn bucket_digest(entries: &[Entry]) -> Option<Digest> {
    match entries {
        [] => None,
        [entry] => Some(entry.digest),
        _ => {
            let (_, left, right) = split(entries);
            Some(fork_digest(&bucket_digest(left)?, &bucket_digest(right)?))
        }
    }
}

fn before(node: &Node, label: &Label) -> Option<Label> {
    match node {
        Node::Bucket(entries) => {
            let position = entries.partition_point(|entry| entry.label < *label);
            position.checked_sub(1).map(|index| entries[index].label)
        }
        Node::Fork(fork) => {
            let leaves = fork.prefix.first_difference(label);
            match label.bit(leaves.min(fork.bit)) {
                true if leaves < fork.bit => node.last(),
                false if leaves < fork.bit => None,
                true => before(&fork.right.node, label).or_else(|| fork.left.node.last()),
                false => before(&fork.left.node, label),
            }
        }
    }
}

fn after(node: &Node, label: &Label) -> Option<Label> {
    match node {
        Node::Bucket(entries) => entries
            .get(entries.partition_point(|entry| entry.label <= *label))
            .map(|entry| entry.label),
        Node::Fork(fork) => {
            let leaves = fork.prefix.first_difference(label);
            match label.bit(leaves.min(fork.bit)) {
                true if leaves < fork.bit => None,
                false if leaves < fork.bit => node.first(),
                true => after(&fork.right.node, label),
                false => after(&fork.left.node, label).or_else(|| fork.right.node.first()),
            }
        }
    }
}

type Shown<'a> = &'a [(Label, &'a HashTree)];

fn child_witness(child: &Child, shown: Shown<'_>) -> HashTree {
    match &child.node {
        _ if shown.is_empty() => HashTree::Pruned(child.digest),
        Node::Bucket(entries) => entries_witness(entries, shown),
        Node::Fork(fork) => {
            let (zeros, ones) = shown.split_at(shown.partition_point(|(label, _)| !label.bit(fork.bit)));
            HashTree::fork(child_witness(&fork.left, zeros), child_witness(&fork.right, ones))
        }
    }
}

fn entries_witness(entries: &[Entry], shown: Shown<'_>) -> HashTree {
    match (entries, shown) {
        ([], _) => HashTree::Empty,
        ([entry], []) => HashTree::Pruned(entry.digest),
        ([_], [(_, tree), ..]) => (*tree).clone(),
        _ => {
            let (bit, left, right) = split(entries);
            let (zeros, ones) = shown.split_at(shown.partition_point(|(label, _)| !label.bit(bit)));
            HashTree::fork(entries_witness(left, zeros), entries_witness(right, ones))
        }
    }
}
