//! The replicated state as bytes and page maps: what a checkpoint holds and what the state hash covers.
//!
//! ```text
//! system bytes   the subnet and its progress, messages of the management canister, streams
//! items, by key  canisters                     metadata (everything small), blobs (modules), memories (heap and stable
//!                                              memory, then those of the snapshots)
//!                pieces of the ingress history  metadata alone
//! ```
//! A checkpoint writes the system bytes anew and the items that changed. What follows from the rest (activity, the
//! certified tree) is rebuilt after loading.

use super::ingress_history::Reduced;
use crate::certified_state::CertifiedState;
use crate::state::{
    CanisterState, HistoryPiece, IngressHistory, PausedCall, Priority, ReplicatedState, Snapshot, SnapshotId,
    SubnetState, SystemMetadata, SystemState,
};
use replicore_engine::{CanisterModule, ExecutionState, GlobalValue, ModuleInterface, WasmMemory};
use replicore_persistence::{PageMap, StoredMemory};
use replicore_types::{CanisterId, NumBytes, Payload, PrincipalId, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Which item of a state it is. Canisters come before pieces of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemKey {
    /// A canister.
    Canister(CanisterId),
    /// A piece of the ingress history.
    History(HistoryPiece),
}

impl ItemKey {
    /// The key as a checkpoint has it: the bytes of the canister id, or the longer ones of a piece.
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Canister(id) => id.as_slice().to_vec(),
            Self::History(piece) => piece.key().to_vec(),
        }
    }

    /// The key with these bytes; `None` where they are none.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match PrincipalId::try_from_slice(bytes) {
            Ok(id) => Some(Self::Canister(CanisterId(id))),
            Err(_) => HistoryPiece::from_key(bytes).map(Self::History),
        }
    }

    fn push_to(&self, bytes_hashed: &mut Vec<u8>) {
        let piece;
        let bytes = match self {
            Self::Canister(id) => id.as_slice(),
            Self::History(history) => {
                piece = history.key();
                &piece[..]
            }
        };
        bytes_hashed.push(bytes.len() as u8);
        bytes_hashed.extend_from_slice(bytes);
    }
}

/// One item of a state in parts: a canister, or a piece of the ingress history, which has metadata alone.
#[derive(Clone, Debug)]
pub struct ItemParts {
    /// Everything but modules and pages.
    pub metadata: Vec<u8>,
    /// The module, then the modules of the snapshots.
    pub blobs: Vec<Arc<[u8]>>,
    /// Heap and stable memory, then heap and stable memory of each snapshot.
    pub memories: Vec<PageMap>,
}

/// Bytes that are no state: what they should have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodecError(String);

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the checkpoint does not decode: {}", self.0)
    }
}

impl std::error::Error for CodecError {}

/// Metadata of one canister.
#[derive(Serialize, Deserialize)]
struct CanisterRecord {
    system: SystemState,
    priority: Priority,
    paused: Option<PausedCall>,
    execution: Option<ExecutionRecord>,
    snapshots: Vec<(SnapshotId, SnapshotRecord)>,
}

/// An execution state without its module's bytes and its pages.
#[derive(Serialize, Deserialize)]
struct ExecutionRecord {
    module_hash: [u8; 32],
    interface: ModuleInterface,
    heap_wasm_pages: u64,
    stable_wasm_pages: u64,
    globals: Vec<GlobalValue>,
}

#[derive(Serialize, Deserialize)]
struct SnapshotRecord {
    taken_at: Time,
    canister_version: u64,
    taken_from_canister: bool,
    size: NumBytes,
    certified_data: Payload,
    global_timer: Option<Time>,
    chunk_store: crate::state::ChunkStore,
    execution: ExecutionRecord,
}

impl CanisterState {
    /// The canister in parts. Deterministic: equal canisters have equal parts.
    pub fn to_parts(&self) -> ItemParts {
        let mut parts = ItemParts {
            metadata: Vec::new(),
            blobs: Vec::new(),
            memories: Vec::new(),
        };
        let execution = self.execution.as_ref().map(|execution| parts.add(execution));
        let snapshots = &*self.system.snapshots;
        let record = CanisterRecord {
            system: self.system.clone(),
            priority: self.priority.clone(),
            paused: self.paused.clone(),
            execution,
            snapshots: snapshots
                .iter()
                .map(|(id, snapshot)| (*id, parts.add_snapshot(snapshot)))
                .collect(),
        };
        parts.metadata = encode(&record);
        parts
    }

    /// The memory at `position` of [`ItemParts::memories`].
    fn memory_mut(&mut self, position: usize) -> Option<&mut WasmMemory> {
        let execution = match (position / 2).checked_sub(usize::from(self.execution.is_some())) {
            None => self.execution.as_mut()?,
            Some(number) => {
                let snapshot = Arc::make_mut(&mut self.system.snapshots).values_mut().nth(number)?;
                &mut Arc::make_mut(snapshot).execution
            }
        };
        Some(match position % 2 {
            0 => &mut execution.heap,
            _ => &mut execution.stable,
        })
    }

    /// The canister that [`CanisterState::to_parts`] took apart.
    ///
    /// # Errors
    /// The parts do not belong together or do not decode.
    pub fn from_parts(parts: ItemParts) -> Result<Self, CodecError> {
        let record: CanisterRecord = decode("a canister", &parts.metadata)?;
        let mut pieces = Pieces {
            blobs: parts.blobs.into_iter(),
            memories: parts.memories.into_iter(),
        };
        let execution = record
            .execution
            .map(|execution| pieces.execution(execution))
            .transpose()?;
        let mut system = record.system;
        let snapshots = record
            .snapshots
            .into_iter()
            .map(|(id, snapshot)| Ok((id, Arc::new(pieces.snapshot(snapshot)?))));
        system.snapshots = Arc::new(snapshots.collect::<Result<BTreeMap<_, _>, CodecError>>()?);
        Ok(Self {
            system,
            execution,
            priority: record.priority,
            paused: record.paused,
        })
    }
}

impl ItemParts {
    /// The digest of the item: metadata, modules and the content of every page.
    pub fn digest(&self) -> [u8; 32] {
        let memories: Vec<[u8; 32]> = self.memories.iter().map(PageMap::digest).collect();
        item_digest(blake3::hash(&self.metadata).as_bytes(), &memories)
    }

    fn add(&mut self, execution: &ExecutionState) -> ExecutionRecord {
        self.blobs.push(Arc::clone(&execution.module.bytes));
        self.memories.push(execution.heap.pages.clone());
        self.memories.push(execution.stable.pages.clone());
        ExecutionRecord {
            module_hash: execution.module.hash,
            interface: (*execution.interface).clone(),
            heap_wasm_pages: execution.heap.size_wasm_pages,
            stable_wasm_pages: execution.stable.size_wasm_pages,
            globals: execution.globals.to_vec(),
        }
    }

    fn add_snapshot(&mut self, snapshot: &Snapshot) -> SnapshotRecord {
        SnapshotRecord {
            taken_at: snapshot.taken_at,
            canister_version: snapshot.canister_version,
            taken_from_canister: snapshot.taken_from_canister,
            size: snapshot.size,
            certified_data: snapshot.certified_data.clone(),
            global_timer: snapshot.global_timer,
            chunk_store: snapshot.chunk_store.clone(),
            execution: self.add(&snapshot.execution),
        }
    }
}

/// Blobs and memories that are still to be claimed, in order.
struct Pieces {
    blobs: std::vec::IntoIter<Arc<[u8]>>,
    memories: std::vec::IntoIter<PageMap>,
}

impl Pieces {
    fn execution(&mut self, record: ExecutionRecord) -> Result<ExecutionState, CodecError> {
        let missing = |what: &str| CodecError(format!("a canister lacks its {what}"));
        Ok(ExecutionState {
            module: CanisterModule {
                bytes: self.blobs.next().ok_or_else(|| missing("module"))?,
                hash: record.module_hash,
            },
            interface: Arc::new(record.interface),
            heap: WasmMemory {
                pages: self.memories.next().ok_or_else(|| missing("heap"))?,
                size_wasm_pages: record.heap_wasm_pages,
            },
            stable: WasmMemory {
                pages: self.memories.next().ok_or_else(|| missing("stable memory"))?,
                size_wasm_pages: record.stable_wasm_pages,
            },
            globals: record.globals.into(),
            warm_version: 0,
        })
    }

    fn snapshot(&mut self, record: SnapshotRecord) -> Result<Snapshot, CodecError> {
        Ok(Snapshot {
            taken_at: record.taken_at,
            canister_version: record.canister_version,
            taken_from_canister: record.taken_from_canister,
            size: record.size,
            certified_data: record.certified_data,
            global_timer: record.global_timer,
            chunk_store: record.chunk_store,
            execution: self.execution(record.execution)?,
        })
    }
}

impl ReplicatedState {
    /// Everything that belongs to no item.
    pub fn system_bytes(&self) -> Vec<u8> {
        encode(&(&self.metadata, self.ingress_history.reduced(), &self.subnet))
    }

    /// Every item in parts, by ascending key. Costs time for the whole state.
    pub fn items(&self) -> impl Iterator<Item = (ItemKey, ItemParts)> {
        let canisters = self.canisters.iter();
        let pieces = self.ingress_history.pieces().keys();
        canisters
            .map(|(id, canister)| (ItemKey::Canister(*id), canister.to_parts()))
            .chain(pieces.filter_map(|piece| Some((ItemKey::History(*piece), self.history_parts(*piece)?))))
    }

    /// A piece of the ingress history as an item; `None` where it holds nothing.
    pub fn history_parts(&self, piece: HistoryPiece) -> Option<ItemParts> {
        Some(ItemParts {
            metadata: self.ingress_history.piece_bytes(piece)?,
            blobs: Vec::new(),
            memories: Vec::new(),
        })
    }

    /// The state that consists of these parts: [`ReplicatedState::system_bytes`] and the items by the bytes of their keys.
    ///
    /// # Errors
    /// The parts do not belong together or do not decode.
    pub fn from_parts(
        system: &[u8],
        items: impl IntoIterator<Item = (Vec<u8>, ItemParts)>,
    ) -> Result<Self, CodecError> {
        let (metadata, reduced, subnet): (SystemMetadata, Reduced, SubnetState) =
            decode("the system metadata", system)?;
        let mut state = Self::empty(metadata, IngressHistory::reduced_to(reduced), subnet);
        for (key, parts) in items {
            match ItemKey::from_bytes(&key) {
                Some(ItemKey::Canister(id)) => {
                    let canister = CanisterState::from_parts(parts)?;
                    if canister.system.canister_id != id {
                        return Err(CodecError(format!("canister {id} holds the state of another one")));
                    }
                    state.insert_canister(canister);
                }
                Some(ItemKey::History(piece)) => state
                    .ingress_history
                    .add_piece(piece, &parts.metadata)
                    .map_err(|error| CodecError(format!("the ingress history, {piece:?}: {error}")))?,
                None => {
                    return Err(CodecError(
                        "a key is neither a canister's nor the ingress history's".into(),
                    ));
                }
            }
        }
        let _all = state.settle();
        state.certified = CertifiedState::rebuild(&state);
        Ok(state)
    }

    /// Puts a memory of a canister (its position in the order of [`ItemParts::memories`]), or a part of it, on the files
    /// that hold it by now. Content, hashes and what counts as changed stay as they are.
    pub fn rebase(&mut self, id: &CanisterId, stored: &StoredMemory) {
        let position = stored.position;
        let Some(canister) = self.canisters.get_mut(id) else {
            return;
        };
        // Snapshots may have gone since the checkpoint. Where another one has moved up, it shares nothing with
        // `stored.snapshot`, or the very pages.
        if position / 2 < usize::from(canister.execution.is_some()) + canister.system.snapshots.len()
            && let Some(memory) = Arc::make_mut(canister).memory_mut(position)
        {
            memory.pages = stored.rebase(&memory.pages);
        }
    }

    /// The hash of everything that the next round depends on. Costs time for the whole state; checkpoints keep the
    /// digests of unchanged items.
    pub fn state_hash(&self) -> [u8; 32] {
        let digests = self.items().map(|(key, parts)| (key, parts.digest()));
        state_hash(&self.system_bytes(), digests)
    }
}

/// The state hash of its parts: [`ReplicatedState::system_bytes`] and [`ItemParts::digest`] in ascending order of keys.
pub fn state_hash(system: &[u8], items: impl IntoIterator<Item = (ItemKey, [u8; 32])>) -> [u8; 32] {
    state_hash_of_digests(blake3::hash(system).as_bytes(), items)
}

/// [`ItemParts::digest`] from the BLAKE3 digests of its parts. Modules are covered by their SHA-256 in the metadata.
pub fn item_digest(metadata: &[u8; 32], memories: &[[u8; 32]]) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(b"replicore item\x02");
    hash.update(metadata);
    for memory in memories {
        hash.update(memory);
    }
    *hash.finalize().as_bytes()
}

/// Bytes that go to the state hash at a time.
const GATHERED_BYTES: usize = 64 << 10;
/// What one item adds to them at most: the length of its key, a principal or less, and a digest.
const ITEM_BYTES_MAX: usize = 1 + 29 + 32;

/// [`state_hash`] from the BLAKE3 digest of the system's bytes.
pub fn state_hash_of_digests(system: &[u8; 32], items: impl IntoIterator<Item = (ItemKey, [u8; 32])>) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(b"replicore state\x02");
    hash.update(system);
    // Gathered: the hash works on sixteen kibibytes at once, if it is given them.
    let mut gathered = Vec::with_capacity(GATHERED_BYTES);
    for (key, digest) in items {
        if gathered.len() > GATHERED_BYTES - ITEM_BYTES_MAX {
            hash.update(&gathered);
            gathered.clear();
        }
        key.push_to(&mut gathered);
        gathered.extend_from_slice(&digest);
    }
    hash.update(&gathered);
    *hash.finalize().as_bytes()
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("values of the state have a known length and encode into memory")
}

fn decode<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, CodecError> {
    postcard::from_bytes(bytes).map_err(|error| CodecError(format!("{what}: {error}")))
}
