//! What of a canister's Wasm side outlives a message: the module, its memories and its mutable globals.

use replicore_persistence::PageMap;
use replicore_types::fees::WasmWidth;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The module as it was installed: possibly gzip-compressed bytes, and their SHA-256, the certified `module_hash`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanisterModule {
    /// The bytes as uploaded.
    pub bytes: Arc<[u8]>,
    /// SHA-256 of `bytes`.
    pub hash: [u8; 32],
}

/// How an exported method may be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MethodKind {
    /// `canister_update <name>`
    Update,
    /// `canister_query <name>`
    Query,
    /// `canister_composite_query <name>`
    CompositeQuery,
}

/// Who may read a custom section over `read_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CustomSectionVisibility {
    /// `icp:public <name>`: everybody.
    Public,
    /// `icp:private <name>`: controllers.
    Private,
}

/// A custom section `icp:public <name>` or `icp:private <name>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomSection {
    /// Who may read it.
    pub visibility: CustomSectionVisibility,
    /// Its content.
    pub content: Arc<[u8]>,
}

/// What a validated module offers to the system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleInterface {
    /// Exported methods by name; a name belongs to one kind only.
    pub methods: BTreeMap<String, MethodKind>,
    /// Exported system entry points by full export name: `canister_init`, `canister_heartbeat`, ...
    /// `start` stands here for a Wasm start function.
    pub system_entry_points: BTreeSet<String>,
    /// `icp:` custom sections by name (without the visibility prefix).
    pub custom_sections: BTreeMap<String, CustomSection>,
    /// Pointer width of the module.
    pub width: WasmWidth,
}

impl ModuleInterface {
    /// The kind of an exported method.
    pub fn method(&self, name: &str) -> Option<MethodKind> {
        self.methods.get(name).copied()
    }

    /// True where the module exports this system entry point (`canister_init`, ..., or `start`).
    pub fn has(&self, entry_point: &str) -> bool {
        self.system_entry_points.contains(entry_point)
    }
}

/// The value of a persisted mutable global; floats as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GlobalValue {
    /// i32
    I32(i32),
    /// i64
    I64(i64),
    /// f32 bits
    F32(u32),
    /// f64 bits
    F64(u64),
    /// v128 bits
    V128(u128),
}

/// A linear memory between messages.
#[derive(Clone, Debug, Default)]
pub struct WasmMemory {
    /// Content of the pages ever written.
    pub pages: PageMap,
    /// Size in Wasm pages (64 KiB).
    pub size_wasm_pages: u64,
}

impl WasmMemory {
    /// Size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_wasm_pages * replicore_types::WASM_PAGE_BYTES as u64
    }
}

/// A canister's Wasm side between messages. A clone is cheap and shares everything unchanged.
#[derive(Clone, Debug)]
pub struct ExecutionState {
    /// The installed module.
    pub module: CanisterModule,
    /// What the module offers.
    pub interface: Arc<ModuleInterface>,
    /// The Wasm heap.
    pub heap: WasmMemory,
    /// Stable memory.
    pub stable: WasmMemory,
    /// Mutable globals of the module, in the order in which the module defines them.
    pub globals: Arc<[GlobalValue]>,
    /// Names this exact version of the memories within one process, so that a warm instance knows whether it is up to
    /// date: every change of `heap`, `stable` or `globals` outside the engine must set it to `0` ("unknown").
    /// Never persisted, never part of a hash.
    pub warm_version: u64,
}
