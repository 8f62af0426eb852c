//! Fetching what is lacking.

use super::{PIECES_MAX, SyncError, SyncManifest, SyncPiece, SyncSource};
use crate::checkpoint::{Blob, CheckpointItem, CheckpointItems, CheckpointRequest, CheckpointStore, LoadedCheckpoint};
use crate::page_map::{Digest, Outline, PageMap};
use std::collections::{BTreeMap, BTreeSet};

/// After so many bytes of chunks what is there is made durable, and its pages leave memory.
const STAGE_BYTES: u64 = 64 << 20;

/// What was fetched: the checkpoint of the manifest.
#[derive(Debug)]
pub struct Fetched {
    /// The checkpoint. Its state hash is the manifest's: the caller has compared that with the manifest's digests.
    pub checkpoint: LoadedCheckpoint,
    /// What it took.
    pub report: FetchReport,
}

/// What a fetch took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchReport {
    /// Pieces received.
    pub pieces: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Chunks that were there already.
    pub chunks_present: u64,
}

/// Fetches the checkpoint of a manifest into `staging`, whose newest checkpoint is what an interrupted fetch had come to.
/// What `local` or `staging` has is not fetched.
///
/// # Errors
/// [`SyncError`]. Called again with the same `staging`, it goes on.
pub fn fetch(
    source: &mut dyn SyncSource,
    manifest: &SyncManifest,
    staging: &CheckpointStore,
    staged: Option<LoadedCheckpoint>,
    local: Option<LoadedCheckpoint>,
) -> Result<Fetched, SyncError> {
    let is_ascending = manifest.items.is_sorted_by(|one, next| one.key < next.key);
    if !is_ascending || u32::try_from(manifest.items.len()).is_err() {
        return Err(SyncError::Manifest);
    }
    let mut fetch = Fetch {
        source,
        manifest,
        staging,
        next_stage: staged.as_ref().map_or(1, |staged| staged.height + 1),
        bytes_since_stage: 0,
        blobs: BTreeMap::new(),
        items: Vec::with_capacity(manifest.items.len()),
        report: FetchReport::default(),
    };
    // What was staged is newer than what is local.
    let mut known = BTreeMap::new();
    for found in [local, staged].into_iter().flatten() {
        fetch.note_blob(&found.system);
        known.extend(found.items);
    }
    fetch.begin(known);
    fetch.fetch_blobs()?;
    fetch.fetch_memories()?;
    fetch.finish()
}

struct Fetch<'a> {
    source: &'a mut dyn SyncSource,
    manifest: &'a SyncManifest,
    staging: &'a CheckpointStore,
    next_stage: u64,
    bytes_since_stage: u64,
    /// Bytes of one digest each, wherever they come from.
    blobs: BTreeMap<Digest, Blob>,
    /// The memories of the items, in the order of the manifest, on their way to what they should be.
    items: Vec<Vec<PageMap>>,
    report: FetchReport,
}

/// A chunk to fetch, and the outline that it belongs to.
struct Lacking {
    item: u32,
    position: u32,
    chunk: u64,
    outline: usize,
}

impl Fetch<'_> {
    fn note_blob(&mut self, blob: &Blob) {
        self.blobs.insert(*blob.digest(), blob.clone());
    }

    fn begin(&mut self, mut known: BTreeMap<Vec<u8>, CheckpointItem>) {
        for item in known.values() {
            self.blobs.insert(*item.metadata.digest(), item.metadata.clone());
            self.blobs
                .extend(item.blobs.iter().map(|blob| (*blob.digest(), blob.clone())));
        }
        for item in &self.manifest.items {
            let mut memories = known.remove(&item.key).map_or_else(Vec::new, |known| known.memories);
            memories.resize(item.memories.len(), PageMap::default());
            self.items.push(memories);
        }
    }

    /// Everything that has a digest of its own: system state, metadata, modules.
    fn fetch_blobs(&mut self) -> Result<(), SyncError> {
        let mut wanted: BTreeMap<Digest, SyncPiece> = BTreeMap::from([(self.manifest.system, SyncPiece::System)]);
        for (number, item) in (0..).zip(&self.manifest.items) {
            wanted.insert(item.metadata, SyncPiece::Metadata(number));
            let blobs = (0..).zip(&item.blobs);
            wanted.extend(blobs.map(|(position, digest)| (*digest, SyncPiece::Blob(number, position))));
        }
        wanted.retain(|digest, _| !self.blobs.contains_key(digest));
        let wanted: Vec<(Digest, SyncPiece)> = wanted.into_iter().collect();
        for wanted in wanted.chunks(PIECES_MAX) {
            let pieces: Vec<SyncPiece> = wanted.iter().map(|(_, piece)| *piece).collect();
            for (bytes, (digest, piece)) in self.ask(&pieces)?.into_iter().zip(wanted) {
                let blob = Blob::from(bytes);
                if blob.digest() != digest {
                    return Err(SyncError::Wrong(*piece));
                }
                self.note_blob(&blob);
            }
        }
        Ok(())
    }

    fn fetch_memories(&mut self) -> Result<(), SyncError> {
        let mut differing = Vec::new();
        for (number, (item, memories)) in (0..).zip(self.manifest.items.iter().zip(&self.items)) {
            for (position, (digest, memory)) in (0..).zip(item.memories.iter().zip(memories)) {
                if memory.digest() != *digest {
                    differing.push((number, position, *digest));
                }
            }
        }
        for differing in differing.chunks(PIECES_MAX) {
            let pieces: Vec<SyncPiece> = differing
                .iter()
                .map(|(item, position, _)| SyncPiece::Outline(*item, *position))
                .collect();
            let (mut outlines, mut lacking) = (Vec::with_capacity(pieces.len()), Vec::new());
            for ((bytes, piece), (item, position, digest)) in self.ask(&pieces)?.iter().zip(&pieces).zip(differing) {
                let outline = Outline::decode(bytes, digest).ok_or(SyncError::Wrong(*piece))?;
                self.compare(*item, *position, &outline, outlines.len(), &mut lacking);
                outlines.push(outline);
            }
            self.fetch_chunks(&outlines, &lacking)?;
        }
        Ok(())
    }

    /// Removes the chunks that should not be there and lists those that are lacking.
    fn compare(&mut self, item: u32, position: u32, outline: &Outline, number: usize, lacking: &mut Vec<Lacking>) {
        let memory = &mut self.items[item as usize][position as usize];
        let present: BTreeSet<(u64, Digest)> = memory.outline().chunks().iter().copied().collect();
        let wanted: BTreeSet<u64> = outline.chunks().iter().map(|(chunk, _)| *chunk).collect();
        for (chunk, _) in present.iter().filter(|(chunk, _)| !wanted.contains(chunk)) {
            memory.apply(PageMap::without_chunk(*chunk));
        }
        for chunk in outline.chunks() {
            if present.contains(chunk) {
                self.report.chunks_present += 1;
                continue;
            }
            lacking.push(Lacking {
                item,
                position,
                chunk: chunk.0,
                outline: number,
            });
        }
    }

    fn fetch_chunks(&mut self, outlines: &[Outline], lacking: &[Lacking]) -> Result<(), SyncError> {
        for lacking in lacking.chunks(PIECES_MAX) {
            let piece = |lacking: &Lacking| SyncPiece::Chunk(lacking.item, lacking.position, lacking.chunk);
            let pieces: Vec<SyncPiece> = lacking.iter().map(piece).collect();
            for (bytes, lacking) in self.ask(&pieces)?.iter().zip(lacking) {
                let delta = outlines[lacking.outline].check_chunk(lacking.chunk, bytes);
                let delta = delta.ok_or_else(|| SyncError::Wrong(piece(lacking)))?;
                self.items[lacking.item as usize][lacking.position as usize].apply(delta);
                self.bytes_since_stage += bytes.len() as u64;
            }
            if self.bytes_since_stage >= STAGE_BYTES {
                self.stage()?;
            }
        }
        Ok(())
    }

    fn ask(&mut self, pieces: &[SyncPiece]) -> Result<Vec<Vec<u8>>, SyncError> {
        let result = self.source.pieces(pieces);
        let received = match result {
            Ok(received) if received.len() == pieces.len() => received,
            Ok(_) => {
                return Err(SyncError::Source(
                    "the peer sent something else than was asked for".into(),
                ));
            }
            Err(error) => {
                // What is there stays there.
                self.stage()?;
                return Err(error);
            }
        };
        self.report.pieces += received.len() as u64;
        self.report.bytes += received.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        Ok(received)
    }

    /// The items as far as they are there.
    fn items(&self) -> BTreeMap<Vec<u8>, CheckpointItem> {
        let blob = |digest: &Digest| self.blobs.get(digest).cloned();
        let items = self.manifest.items.iter().zip(&self.items);
        let item = |(item, memories): (&super::SyncItem, &Vec<PageMap>)| {
            let content = CheckpointItem {
                metadata: blob(&item.metadata).unwrap_or_else(|| Vec::new().into()),
                blobs: item.blobs.iter().filter_map(blob).collect(),
                memories: memories.clone(),
            };
            (item.key.clone(), content)
        };
        items.map(item).collect()
    }

    /// Makes durable what is there, and lets its pages leave memory.
    fn stage(&mut self) -> Result<(), SyncError> {
        let system = self.blobs.get(&self.manifest.system).cloned();
        let written = self.staging.write(CheckpointRequest {
            height: self.next_stage,
            state_hash: self.manifest.state_hash,
            system: system.unwrap_or_else(|| Vec::new().into()),
            items: CheckpointItems::All(self.items()),
        })?;
        self.next_stage += 1;
        self.bytes_since_stage = 0;
        for stored in &written.memories {
            let number = self.manifest.items.binary_search_by(|item| item.key.cmp(&stored.key));
            if let Ok(number) = number {
                let memory = &mut self.items[number][stored.position];
                *memory = memory.rebase(&stored.snapshot, &stored.stored);
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Fetched, SyncError> {
        for (number, (item, memories)) in (0..).zip(self.manifest.items.iter().zip(&self.items)) {
            for (position, (digest, memory)) in (0..).zip(item.memories.iter().zip(memories)) {
                if memory.digest() != *digest {
                    return Err(SyncError::Wrong(SyncPiece::Outline(number, position)));
                }
            }
        }
        let items = self.items();
        let system = self.blobs.get(&self.manifest.system).cloned();
        Ok(Fetched {
            checkpoint: LoadedCheckpoint {
                height: self.manifest.height,
                state_hash: self.manifest.state_hash,
                system: system.ok_or(SyncError::Wrong(SyncPiece::System))?,
                items,
            },
            report: self.report,
        })
    }
}
