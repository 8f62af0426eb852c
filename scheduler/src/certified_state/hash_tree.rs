//! Small trees: the pruned tree that a client gets, and the content from which it is cut.
//!
//! A *pruned tree* ([`HashTree`]) holds what was asked for and a digest for everything else, so that its root digest is
//! that of the whole. For a label that does not exist it holds the labels on both sides, which proves the absence.

use crate::certified_state::digest::{Digest, empty_digest, fork_digest, labeled_digest, leaf_digest};
use minicbor::Encoder;
use std::collections::BTreeMap;
use std::ops::Bound;

/// A tree with parts replaced by their digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashTree {
    /// Nothing.
    Empty,
    /// Two trees; every label on the left is smaller than every label on the right.
    Fork(Box<(HashTree, HashTree)>),
    /// A tree below a label.
    Labeled(Vec<u8>, Box<HashTree>),
    /// A value.
    Leaf(Vec<u8>),
    /// A part that is not shown.
    Pruned(Digest),
}

impl HashTree {
    /// The root digest: equal for a tree and for everything cut from it.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Empty => empty_digest(),
            Self::Fork(sides) => fork_digest(&sides.0.digest(), &sides.1.digest()),
            Self::Labeled(label, content) => labeled_digest(label, &content.digest()),
            Self::Leaf(value) => leaf_digest(value),
            Self::Pruned(digest) => *digest,
        }
    }

    /// The tree below a label, where it is shown.
    pub fn below(&self, label: &[u8]) -> Option<&HashTree> {
        match self {
            Self::Fork(sides) => sides.0.below(label).or_else(|| sides.1.below(label)),
            Self::Labeled(found, content) if found == label => Some(content),
            _ => None,
        }
    }

    /// The labels that are shown at this level and what is below them, in their order.
    pub fn labels(&self) -> Vec<(&[u8], &HashTree)> {
        match self {
            Self::Fork(sides) => [sides.0.labels(), sides.1.labels()].concat(),
            Self::Labeled(label, content) => vec![(label.as_slice(), content)],
            _ => Vec::new(),
        }
    }

    /// Two trees side by side; pruned where both are.
    pub(crate) fn fork(left: HashTree, right: HashTree) -> Self {
        match (&left, &right) {
            (Self::Pruned(left), Self::Pruned(right)) => Self::Pruned(fork_digest(left, right)),
            _ => Self::Fork(Box::new((left, right))),
        }
    }

    /// A label of which only the existence is shown.
    pub(crate) fn label_only(label: &[u8], content: Digest) -> Self {
        Self::Labeled(label.to_vec(), Box::new(Self::Pruned(content)))
    }

    /// Appends the CBOR form that clients read: `[0]`, `[1, l, r]`, `[2, label, tree]`, `[3, value]`, `[4, digest]`.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Self::Empty => array(out, 1, 0),
            Self::Fork(sides) => {
                begin_fork(out);
                sides.0.encode_into(out);
                sides.1.encode_into(out);
            }
            Self::Labeled(label, content) => {
                begin_label(out, label);
                content.encode_into(out);
            }
            Self::Leaf(value) => leaf(out, value),
            Self::Pruned(digest) => pruned(out, digest),
        }
    }

    /// [`HashTree::encode_into`] without what is below `label`, a label of the uppermost level; returns where that belongs.
    pub(crate) fn encode_around(&self, label: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        match self {
            Self::Fork(sides) => {
                begin_fork(out);
                let left = sides.0.encode_around(label, out);
                let right = sides.1.encode_around(label, out);
                left.or(right)
            }
            Self::Labeled(found, _) if found == label => {
                begin_label(out, label);
                Some(out.len())
            }
            _ => {
                self.encode_into(out);
                None
            }
        }
    }

    /// The CBOR form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }
}

/// Appends the beginning of a fork; its two sides follow.
pub(crate) fn begin_fork(out: &mut Vec<u8>) {
    array(out, 3, 1);
}

/// Appends a label; the tree below it follows.
pub(crate) fn begin_label(out: &mut Vec<u8>, label: &[u8]) {
    array(out, 3, 2);
    bytes(out, label);
}

/// Appends a value.
pub(crate) fn leaf(out: &mut Vec<u8>, value: &[u8]) {
    array(out, 2, 3);
    bytes(out, value);
}

/// Appends the digest of what is not shown.
pub(crate) fn pruned(out: &mut Vec<u8>, digest: &Digest) {
    array(out, 2, 4);
    bytes(out, digest);
}

fn array(out: &mut Vec<u8>, length: u64, tag: u8) {
    Encoder::new(out)
        .array(length)
        .and_then(|encoder| encoder.u8(tag))
        .expect(WRITE_TO_MEMORY);
}

fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    Encoder::new(out).bytes(value).expect(WRITE_TO_MEMORY);
}

/// Why encoding succeeds: a vector takes every byte.
pub(crate) const WRITE_TO_MEMORY: &str = "writing CBOR to memory cannot fail";

/// What a client asks for: paths that share their beginnings, merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathSet {
    /// Everything from here on is asked for.
    pub whole: bool,
    /// What is asked for below each label.
    pub children: BTreeMap<Vec<u8>, PathSet>,
}

impl PathSet {
    /// The set of `paths`, each a sequence of labels.
    pub fn new<'a, P: IntoIterator<Item = &'a [u8]>>(paths: impl IntoIterator<Item = P>) -> Self {
        let mut set = Self::default();
        paths.into_iter().for_each(|path| set.insert(path));
        set
    }

    /// Adds a path.
    pub fn insert<'a>(&mut self, path: impl IntoIterator<Item = &'a [u8]>) {
        let mut node = self;
        for label in path {
            node = node.children.entry(label.to_vec()).or_default();
        }
        node.whole = true;
    }
}

/// Content at full length, small enough to be built anew when it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subtree {
    /// A value.
    Leaf(Vec<u8>),
    /// Labels and what is below them. The forks over them halve the sorted labels.
    Labels(BTreeMap<Vec<u8>, Subtree>),
    /// Content of which only the digest is at hand; it is never shown.
    Digest(Digest),
}

impl Subtree {
    /// Labels and what is below them.
    pub fn labels<L: Into<Vec<u8>>>(children: impl IntoIterator<Item = (L, Subtree)>) -> Self {
        Self::Labels(
            children
                .into_iter()
                .map(|(label, child)| (label.into(), child))
                .collect(),
        )
    }

    /// The root digest.
    pub fn digest(&self) -> Digest {
        match self {
            Self::Leaf(value) => leaf_digest(value),
            Self::Digest(digest) => *digest,
            Self::Labels(children) if children.is_empty() => empty_digest(),
            Self::Labels(children) => {
                let parts: Vec<_> = children
                    .iter()
                    .map(|(label, child)| labeled_digest(label, &child.digest()))
                    .collect();
                halved_digest(&parts)
            }
        }
    }

    /// What `paths` ask for, with proofs of absence for what does not exist.
    pub fn witness(&self, paths: &PathSet) -> HashTree {
        match self {
            Self::Leaf(value) => HashTree::Leaf(value.clone()),
            Self::Digest(digest) => HashTree::Pruned(*digest),
            Self::Labels(children) => label_witness(children, paths),
        }
    }
}

fn label_witness(children: &BTreeMap<Vec<u8>, Subtree>, paths: &PathSet) -> HashTree {
    let mut shown: BTreeMap<&[u8], Option<&PathSet>> = BTreeMap::new();
    if paths.whole {
        shown.extend(children.keys().map(|label| (label.as_slice(), Some(&WHOLE))));
    } else {
        for (label, below) in &paths.children {
            if children.contains_key(label) {
                shown.insert(label, Some(below));
                continue;
            }
            let before = children
                .range::<[u8], _>((Bound::Unbounded, Bound::Excluded(label.as_slice())))
                .next_back();
            let after = children
                .range::<[u8], _>((Bound::Excluded(label.as_slice()), Bound::Unbounded))
                .next();
            for (neighbour, _) in before.into_iter().chain(after) {
                shown.entry(neighbour).or_insert(None);
            }
        }
    }
    if children.is_empty() {
        return HashTree::Empty;
    }
    let parts = children
        .iter()
        .map(|(label, child)| match shown.get(label.as_slice()) {
            None => HashTree::Pruned(labeled_digest(label, &child.digest())),
            Some(None) => HashTree::label_only(label, child.digest()),
            Some(Some(below)) => HashTree::Labeled(label.clone(), Box::new(child.witness(below))),
        })
        .collect();
    halved_tree(parts)
}

/// Everything.
pub(crate) static WHOLE: PathSet = PathSet {
    whole: true,
    children: BTreeMap::new(),
};

/// Root of the forks over `parts`, of which there is at least one. Has the shape of [`halved_tree`].
fn halved_digest(parts: &[Digest]) -> Digest {
    match parts {
        [part] => *part,
        _ => {
            let (left, right) = parts.split_at(parts.len() / 2);
            fork_digest(&halved_digest(left), &halved_digest(right))
        }
    }
}

fn halved_tree(mut parts: Vec<HashTree>) -> HashTree {
    match parts.len() {
        0 => HashTree::Empty,
        1 => parts.remove(0),
        length => {
            let right = parts.split_off(length / 2);
            HashTree::fork(halved_tree(parts), halved_tree(right))
        }
    }
}
