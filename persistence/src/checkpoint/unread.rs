//! Nodes of a checkpoint that nobody has needed yet.

use super::format::Reference;
use super::load::Loader;
use super::stored::StoredNode;
use crate::error::Result;
use crate::page_map::Digest;
use crate::page_map::node::Node;
use std::sync::{Arc, OnceLock};

/// A node where a checkpoint holds it: its place and digest are known from its parent, and it is read and checked when
/// it is first needed. Clones made before that read it each for itself.
#[derive(Clone)]
pub(crate) struct UnreadNode {
    loader: Arc<Loader>,
    stored: StoredNode,
    digest: Digest,
    level: u32,
    node: OnceLock<Box<Node>>,
}

impl UnreadNode {
    pub(super) fn new(loader: &Arc<Loader>, reference: Reference, level: u32) -> Self {
        Self {
            loader: Arc::clone(loader),
            stored: loader.stored(reference.offset),
            digest: reference.digest,
            level,
            node: OnceLock::new(),
        }
    }

    /// The node.
    ///
    /// # Panics
    /// Where the file is damaged or cannot be read. Whoever reads memory has no other answer that would be true; the
    /// panic names file and offset and ends the replica, and nothing acknowledged is lost.
    pub(crate) fn read(&self) -> &Node {
        self.try_read()
            .unwrap_or_else(|error| self.stored.generation.give_up(&error))
    }

    /// The node.
    ///
    /// # Errors
    /// Damage, or what the disk says.
    pub(crate) fn try_read(&self) -> Result<&Node> {
        if let Some(node) = self.node.get() {
            return Ok(node);
        }
        let reference = Reference {
            offset: self.stored.offset,
            digest: self.digest,
        };
        let node = self.loader.node(reference, self.level)?;
        Ok(self.node.get_or_init(|| Box::new(node)))
    }

    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(crate) fn stored(&self) -> &StoredNode {
        &self.stored
    }
}
