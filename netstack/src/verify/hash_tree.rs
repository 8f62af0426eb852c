//! Hash trees as certificates hold them: parts of a labelled tree, the rest replaced by digests.

use crate::envelope::{DecodeError, Reader};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// Nesting of a tree; a state with 2^64 canisters would need fewer levels.
const DEPTH_MAX: u32 = 128;
/// Nodes of a tree: what one signature may make us hash.
const NODES_MAX: u32 = 100_000;

#[derive(Debug)]
pub(super) enum HashTree<'a> {
    Empty,
    Fork(Box<(HashTree<'a>, HashTree<'a>)>),
    Labeled(Cow<'a, [u8]>, Box<HashTree<'a>>),
    Leaf(Cow<'a, [u8]>),
    Pruned([u8; 32]),
}

/// What a tree says about a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup<'t> {
    /// It leads to this value.
    Found(&'t [u8]),
    /// It leads nowhere, or to no value, or the tree does not say.
    NotFound,
}

impl<'a> HashTree<'a> {
    /// Reads a tree and checks that it is well-formed: labels ascend.
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut nodes = NODES_MAX;
        let tree = Self::read_node(reader, DEPTH_MAX, &mut nodes)?;
        if !tree.well_formed() {
            return Err(DecodeError::new("the labels of the hash tree do not ascend"));
        }
        Ok(tree)
    }

    fn read_node(reader: &mut Reader<'a>, depth: u32, nodes: &mut u32) -> Result<Self, DecodeError> {
        let Some(deeper) = depth.checked_sub(1) else {
            return Err(DecodeError::new("the hash tree is too deep"));
        };
        *nodes = nodes
            .checked_sub(1)
            .ok_or(DecodeError::new("the hash tree is too large"))?;
        let mut kind = None;
        let mut bytes = None;
        let mut children = Vec::new();
        reader.array(3, "parts of a hash tree node", |reader| {
            match (kind, children.len(), bytes.is_some()) {
                (None, ..) => kind = Some(reader.nat()?),
                (Some(2..=4), 0, false) => bytes = Some(reader.bytes()?),
                (Some(1 | 2), ..) => children.push(Self::read_node(reader, deeper, nodes)?),
                _ => return Err(DecodeError::new("malformed hash tree node")),
            }
            Ok(())
        })?;
        let mut children = children.into_iter();
        Ok(match (kind, bytes, children.next(), children.next()) {
            (Some(0), None, None, None) => Self::Empty,
            (Some(1), None, Some(left), Some(right)) => Self::Fork(Box::new((left, right))),
            (Some(2), Some(label), Some(child), None) => Self::Labeled(label, Box::new(child)),
            (Some(3), Some(value), None, None) => Self::Leaf(value),
            (Some(4), Some(digest), None, None) => Self::Pruned(
                digest
                    .as_ref()
                    .try_into()
                    .map_err(|_| DecodeError::new("a digest has 32 bytes"))?,
            ),
            _ => return Err(DecodeError::new("malformed hash tree node")),
        })
    }

    /// The root hash.
    pub(super) fn digest(&self) -> [u8; 32] {
        let hash = |domain: &[u8], parts: [&[u8]; 2]| -> [u8; 32] {
            let mut hasher = Sha256::new();
            hasher.update([domain.len() as u8]);
            hasher.update(domain);
            parts.into_iter().for_each(|part| hasher.update(part));
            hasher.finalize().into()
        };
        match self {
            Self::Empty => hash(b"ic-hashtree-empty", [b"", b""]),
            Self::Fork(children) => hash(b"ic-hashtree-fork", [&children.0.digest(), &children.1.digest()]),
            Self::Labeled(label, child) => hash(b"ic-hashtree-labeled", [label, &child.digest()]),
            Self::Leaf(value) => hash(b"ic-hashtree-leaf", [value, b""]),
            Self::Pruned(digest) => *digest,
        }
    }

    /// The value at `path`.
    pub(super) fn lookup(&self, path: &[&[u8]]) -> Lookup<'_> {
        match self.descend(path) {
            Some(Self::Leaf(value)) => Lookup::Found(value),
            _ => Lookup::NotFound,
        }
    }

    /// Calls `visit` with the value of each leaf directly below a label below `path`.
    pub(super) fn for_each_leaf_below(&self, path: &[&[u8]], visit: &mut dyn FnMut(&[u8])) {
        if let Some(tree) = self.descend(path) {
            tree.for_each_label(&mut |_, child| {
                if let Self::Leaf(value) = child {
                    visit(value);
                }
            });
        }
    }

    fn descend(&self, path: &[&[u8]]) -> Option<&Self> {
        let Some((first, rest)) = path.split_first() else {
            return Some(self);
        };
        let mut found = None;
        self.for_each_label(&mut |label, child| {
            if label == *first {
                found = Some(child);
            }
        });
        found?.descend(rest)
    }

    /// Calls `visit` with each label at the top of this tree, from left to right, and what is below it.
    fn for_each_label<'t>(&'t self, visit: &mut dyn FnMut(&'t [u8], &'t Self)) {
        match self {
            Self::Fork(children) => {
                children.0.for_each_label(visit);
                children.1.for_each_label(visit);
            }
            Self::Labeled(label, child) => visit(label, child),
            Self::Empty | Self::Leaf(_) | Self::Pruned(_) => {}
        }
    }

    fn well_formed(&self) -> bool {
        let mut last: Option<&[u8]> = None;
        let mut ascending = true;
        self.for_each_label(&mut |label, child| {
            ascending &= last.is_none_or(|last| last < label) && child.well_formed();
            last = Some(label);
        });
        ascending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's section on certificates.
    const EXAMPLE: &str = "8301830183024161830183018302417882034568656c6c6f810083024179820345776f726c6483024162820344676f6f648301830241638100830241648203476d6f726e696e67";

    #[test]
    fn the_example_of_the_specification_has_its_digest() {
        let bytes = hex::decode(EXAMPLE).unwrap();
        let tree = HashTree::read(&mut Reader::new(&bytes).unwrap()).unwrap();
        let expected = "eb5c5b2195e62d996b84c9bcc8259d19a83786a2f59e0878cec84c811f669aa0";
        assert_eq!(hex::encode(tree.digest()), expected);
        assert_eq!(tree.lookup(&[b"a", b"y"]), Lookup::Found(b"world"));
        assert_eq!(tree.lookup(&[b"a"]), Lookup::NotFound);
        assert_eq!(tree.lookup(&[b"c", b"y"]), Lookup::NotFound);
    }

    #[test]
    fn malformed_trees_are_refused() {
        let read = |text: &str| {
            let bytes = hex::decode(text).unwrap();
            HashTree::read(&mut Reader::new(&bytes).unwrap())
                .err()
                .map(|error| error.to_string())
        };
        assert!(
            read("830183024162810083024161 8100".replace(' ', "").as_str())
                .unwrap()
                .contains("ascend")
        );
        assert!(read("8105").unwrap().contains("malformed"));
        assert!(read("82044100").unwrap().contains("32 bytes"));
        assert!(read(&("83024161".repeat(200) + "8100")).unwrap().contains("too deep"));
        assert!(read("820100").is_some());
    }
}
