//! Reading everything that checkpoints hold, to compare it with its digests.

use super::blob::Blob;
use super::layout::Layout;
use super::load::Loaded;
use super::open::{load, read_slots};
use super::{CheckpointItem, CheckpointStore, item_name};
use crate::error::{PersistenceError, Result};
use crate::page_map::node::{FANOUT, Leaf, Node, node_digest};
use crate::page_map::{Digest, PageMap};
use replicore_types::OS_PAGE_BYTES;

/// What a verification read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Checkpoints that are whole.
    pub checkpoints: u64,
    /// Items in them.
    pub items: u64,
    /// Pages read and hashed.
    pub pages: u64,
    /// Bytes of pages, metadata and blobs hashed.
    pub bytes: u64,
}

impl CheckpointStore {
    /// Reads and hashes every page, node and blob of every checkpoint that can be opened. Takes time for the whole
    /// state; waits for, and holds up, the writing of checkpoints.
    ///
    /// # Errors
    /// The first damage: file, offset, and the item and page where there is one.
    pub fn verify(&self) -> Result<VerifyReport> {
        let state = self.writer.lock();
        let (slots, _) = read_slots(&self.layout, &*state.superblocks)?;
        let mut report = VerifyReport::default();
        for superblock in slots.iter().flatten() {
            let (_, loaded) = load(&self.layout, *superblock)?;
            Verifier {
                layout: &self.layout,
                generation: superblock.generation,
                report: &mut report,
            }
            .check(&loaded)?;
            report.checkpoints += 1;
        }
        Ok(report)
    }
}

struct Verifier<'a> {
    layout: &'a Layout,
    generation: u64,
    report: &'a mut VerifyReport,
}

impl Verifier<'_> {
    fn check(&mut self, loaded: &Loaded) -> Result<()> {
        self.check_blob(&loaded.system, "the system state")?;
        for (key, item) in loaded.buckets.iter().flatten() {
            self.check_item(item, &item_name(key))?;
            self.report.items += 1;
        }
        Ok(())
    }

    fn check_item(&mut self, item: &CheckpointItem, name: &str) -> Result<()> {
        for blob in std::iter::once(&item.metadata).chain(&item.blobs) {
            self.check_blob(blob, &format!("a blob of {name}"))?;
        }
        for (position, memory) in item.memories.iter().enumerate() {
            let name = format!("memory {position} of {name}");
            if let Some(root) = &memory.root {
                self.check_node(root, memory.level, 0, &name)?;
            }
        }
        Ok(())
    }

    fn check_blob(&mut self, blob: &Blob, name: &str) -> Result<()> {
        let bytes = blob.bytes();
        self.report.bytes += bytes.len() as u64;
        if blake3::hash(&bytes).as_bytes() == blob.digest() {
            return Ok(());
        }
        let offset = blob.stored_node().map_or(0, |node| node.offset);
        Err(self.damaged_record(offset, format!("{name} does not match its digest")))
    }

    /// Checks a node against the digest that its parent has for it.
    fn check_node(&mut self, node: &Node, level: u32, prefix: u64, name: &str) -> Result<()> {
        let read = match node {
            Node::Unread(unread) => unread
                .try_read()
                .map_err(|error| error.in_place(&format!("a node of {name}")))?,
            read => read,
        };
        let children = match read {
            Node::Unread(_) => unreachable!("read above"),
            Node::Leaf(leaf) => {
                self.check_pages(leaf, prefix, name)?;
                node_digest(0, (0..FANOUT).filter_map(|slot| Some((slot, leaf.page_digest(slot)?))))
            }
            Node::Interior(interior) => {
                let mut digests: Vec<(usize, &Digest)> = Vec::with_capacity(FANOUT);
                for (slot, child) in interior.children.iter().enumerate() {
                    let Some(child) = child else { continue };
                    self.check_node(child, level - 1, PageMap::child_prefix(prefix, slot), name)?;
                    digests.push((slot, child.digest(level - 1)));
                }
                node_digest(level, digests.into_iter())
            }
        };
        if children == *node.digest(level) {
            return Ok(());
        }
        let offset = node.stored_node().map_or(0, |node| node.offset);
        Err(self.damaged_record(offset, format!("a node of {name} does not match its digest")))
    }

    fn check_pages(&mut self, leaf: &Leaf, prefix: u64, name: &str) -> Result<()> {
        let Some(base) = &leaf.base else { return Ok(()) };
        for slot in (0..FANOUT).filter(|slot| base.present >> slot & 1 == 1) {
            base.check_page(slot).map_err(|error| {
                let page = PageMap::child_prefix(prefix, slot);
                error.in_place(&format!("page {page} of {name}"))
            })?;
            self.report.pages += 1;
            self.report.bytes += OS_PAGE_BYTES as u64;
        }
        Ok(())
    }

    fn damaged_record(&self, offset: u64, what: String) -> PersistenceError {
        PersistenceError::damaged(&self.layout.records_path(self.generation), offset, what)
    }
}
