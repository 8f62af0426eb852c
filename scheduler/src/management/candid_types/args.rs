//! Arguments.

use super::{ChunkHash, EnvironmentVariable, Global, GlobalTimer, HookStatus, Visibility};
use candid::{CandidType, Deserialize, Nat};
use replicore_types::{CanisterId, PrincipalId};
use serde_bytes::ByteBuf;

/// The argument of every method that only names a canister.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct CanisterIdArgs {
    pub canister_id: PrincipalId,
}

/// Settings to be changed; what is absent stays.
#[derive(Clone, Debug, Default, CandidType, Deserialize)]
pub(crate) struct SettingsArgs {
    pub controllers: Option<Vec<PrincipalId>>,
    pub compute_allocation: Option<Nat>,
    pub memory_allocation: Option<Nat>,
    pub freezing_threshold: Option<Nat>,
    pub reserved_cycles_limit: Option<Nat>,
    pub minimum_incoming_canister_call_cycles: Option<Nat>,
    pub log_visibility: Option<Visibility>,
    pub snapshot_visibility: Option<Visibility>,
    pub status_visibility: Option<Visibility>,
    pub log_memory_limit: Option<Nat>,
    pub wasm_memory_limit: Option<Nat>,
    pub wasm_memory_threshold: Option<Nat>,
    pub environment_variables: Option<Vec<EnvironmentVariable>>,
}

/// `create_canister`
#[derive(Clone, Debug, Default, CandidType, Deserialize)]
pub(crate) struct CreateCanisterArgs {
    pub settings: Option<SettingsArgs>,
    pub sender_canister_version: Option<u64>,
}

/// `provisional_create_canister_with_cycles`
#[derive(Clone, Debug, Default, CandidType, Deserialize)]
pub(crate) struct ProvisionalCreateArgs {
    pub amount: Option<Nat>,
    pub settings: Option<SettingsArgs>,
    pub specified_id: Option<PrincipalId>,
    pub sender_canister_version: Option<u64>,
}

/// `provisional_top_up_canister`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct ProvisionalTopUpArgs {
    pub canister_id: PrincipalId,
    pub amount: Nat,
}

/// `update_settings`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct UpdateSettingsArgs {
    pub canister_id: PrincipalId,
    pub settings: SettingsArgs,
    pub sender_canister_version: Option<u64>,
}

/// `uninstall_code`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct UninstallCodeArgs {
    pub canister_id: PrincipalId,
    pub sender_canister_version: Option<u64>,
}

/// How code is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, CandidType, Deserialize)]
pub(crate) enum InstallMode {
    #[serde(rename = "install")]
    Install,
    #[serde(rename = "reinstall")]
    Reinstall,
    #[serde(rename = "upgrade")]
    Upgrade(Option<UpgradeOptions>),
}

/// Options of an upgrade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, CandidType, Deserialize)]
pub(crate) struct UpgradeOptions {
    pub skip_pre_upgrade: Option<bool>,
    pub wasm_memory_persistence: Option<WasmMemoryPersistence>,
}

/// What becomes of the Wasm heap in an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, CandidType, Deserialize)]
pub(crate) enum WasmMemoryPersistence {
    #[serde(rename = "keep")]
    Keep,
    #[serde(rename = "replace")]
    Replace,
}

/// `install_code`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct InstallCodeArgs {
    pub mode: InstallMode,
    pub canister_id: PrincipalId,
    pub wasm_module: ByteBuf,
    pub arg: ByteBuf,
    pub sender_canister_version: Option<u64>,
}

/// `install_chunked_code`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct InstallChunkedCodeArgs {
    pub mode: InstallMode,
    pub target_canister: PrincipalId,
    pub store_canister: Option<PrincipalId>,
    pub chunk_hashes_list: Vec<ChunkHash>,
    pub wasm_module_hash: ByteBuf,
    pub arg: ByteBuf,
    pub sender_canister_version: Option<u64>,
}

/// `upload_chunk`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct UploadChunkArgs {
    pub canister_id: PrincipalId,
    pub chunk: ByteBuf,
}

/// `canister_info`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct CanisterInfoArgs {
    pub canister_id: PrincipalId,
    pub num_requested_changes: Option<u64>,
}

/// `canister_metadata`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct CanisterMetadataArgs {
    pub canister_id: PrincipalId,
    pub name: String,
}

/// A half-open range of indices or times.
#[derive(Clone, Copy, Debug, CandidType, Deserialize)]
pub(crate) struct LogRange {
    pub start: u64,
    pub end: u64,
}

/// Which log records are wanted.
#[derive(Clone, Copy, Debug, CandidType, Deserialize)]
pub(crate) enum LogFilter {
    #[serde(rename = "by_idx")]
    ByIndex(LogRange),
    #[serde(rename = "by_timestamp_nanos")]
    ByTimestamp(LogRange),
}

/// `fetch_canister_logs`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct FetchCanisterLogsArgs {
    pub canister_id: PrincipalId,
    pub filter: Option<LogFilter>,
}

/// `node_metrics_history`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct NodeMetricsHistoryArgs {
    pub subnet_id: PrincipalId,
    pub start_at_timestamp_nanos: u64,
}

/// `subnet_info`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct SubnetInfoArgs {
    pub subnet_id: PrincipalId,
}

/// `take_canister_snapshot`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct TakeSnapshotArgs {
    pub canister_id: PrincipalId,
    pub replace_snapshot: Option<ByteBuf>,
    pub uninstall_code: Option<bool>,
    pub sender_canister_version: Option<u64>,
}

/// `load_canister_snapshot`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct LoadSnapshotArgs {
    pub canister_id: PrincipalId,
    pub snapshot_id: ByteBuf,
    pub sender_canister_version: Option<u64>,
}

/// `delete_canister_snapshot`, `read_canister_snapshot_metadata`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct SnapshotArgs {
    pub canister_id: PrincipalId,
    pub snapshot_id: ByteBuf,
}

/// A part of a blob.
#[derive(Clone, Copy, Debug, CandidType, Deserialize)]
pub(crate) struct Slice {
    pub offset: u64,
    pub size: u64,
}

/// Which part of a snapshot is read.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) enum SnapshotDataKind {
    #[serde(rename = "wasm_module")]
    WasmModule(Slice),
    #[serde(rename = "wasm_memory")]
    WasmMemory(Slice),
    #[serde(rename = "stable_memory")]
    StableMemory(Slice),
    #[serde(rename = "wasm_chunk")]
    WasmChunk(ChunkHash),
}

/// `read_canister_snapshot_data`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct ReadSnapshotDataArgs {
    pub canister_id: PrincipalId,
    pub snapshot_id: ByteBuf,
    pub kind: SnapshotDataKind,
}

/// `upload_canister_snapshot_metadata`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct UploadSnapshotMetadataArgs {
    pub canister_id: PrincipalId,
    pub replace_snapshot: Option<ByteBuf>,
    pub wasm_module_size: u64,
    pub globals: Vec<Global>,
    pub wasm_memory_size: u64,
    pub stable_memory_size: u64,
    pub certified_data: ByteBuf,
    pub global_timer: Option<GlobalTimer>,
    pub on_low_wasm_memory_hook_status: Option<HookStatus>,
}

/// Where uploaded bytes begin.
#[derive(Clone, Copy, Debug, CandidType, Deserialize)]
pub(crate) struct Offset {
    pub offset: u64,
}

/// Which part of a snapshot is written.
#[derive(Clone, Copy, Debug, CandidType, Deserialize)]
pub(crate) enum UploadDataKind {
    #[serde(rename = "wasm_module")]
    WasmModule(Offset),
    #[serde(rename = "wasm_memory")]
    WasmMemory(Offset),
    #[serde(rename = "stable_memory")]
    StableMemory(Offset),
    #[serde(rename = "wasm_chunk")]
    WasmChunk,
}

/// `upload_canister_snapshot_data`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct UploadSnapshotDataArgs {
    pub canister_id: PrincipalId,
    pub snapshot_id: ByteBuf,
    pub kind: UploadDataKind,
    pub chunk: ByteBuf,
}

/// Gives the canister that a call is about.
pub(crate) trait AboutCanister {
    /// The canister.
    fn canister(&self) -> CanisterId;
}

macro_rules! about_canister {
    ($($args:ty: $field:ident),* $(,)?) => {
        $(impl AboutCanister for $args {
            fn canister(&self) -> CanisterId {
                CanisterId(self.$field)
            }
        })*
    };
}

about_canister!(
    CanisterIdArgs: canister_id,
    ProvisionalTopUpArgs: canister_id,
    UpdateSettingsArgs: canister_id,
    UninstallCodeArgs: canister_id,
    InstallCodeArgs: canister_id,
    InstallChunkedCodeArgs: target_canister,
    UploadChunkArgs: canister_id,
    CanisterInfoArgs: canister_id,
    CanisterMetadataArgs: canister_id,
    FetchCanisterLogsArgs: canister_id,
    TakeSnapshotArgs: canister_id,
    LoadSnapshotArgs: canister_id,
    SnapshotArgs: canister_id,
    ReadSnapshotDataArgs: canister_id,
    UploadSnapshotMetadataArgs: canister_id,
    UploadSnapshotDataArgs: canister_id,
);
