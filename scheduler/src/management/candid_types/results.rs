//! Results.

use super::{ChunkHash, EnvironmentVariable, Global, GlobalTimer, HookStatus, Visibility};
use candid::{CandidType, Deserialize, Nat, Reserved};
use replicore_types::PrincipalId;
use serde_bytes::ByteBuf;

/// `create_canister`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct CanisterIdResult {
    pub canister_id: PrincipalId,
}

/// Whether a canister takes messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, CandidType, Deserialize)]
pub(crate) enum StatusKind {
    #[serde(rename = "running")]
    Running,
    #[serde(rename = "stopping")]
    Stopping,
    #[serde(rename = "stopped")]
    Stopped,
}

/// Candid records cannot be nested without a name, so each version of a record is a type; the macro holds the fields
/// that both have.
macro_rules! definite_settings {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, CandidType, Deserialize)]
        pub(crate) struct $name {
            pub controller: PrincipalId,
            pub controllers: Vec<PrincipalId>,
            pub compute_allocation: Nat,
            pub memory_allocation: Nat,
            pub freezing_threshold: Nat,
            pub reserved_cycles_limit: Nat,
            pub log_visibility: Visibility,
            pub snapshot_visibility: Visibility,
            pub log_memory_limit: Nat,
            pub wasm_memory_limit: Nat,
            pub wasm_memory_threshold: Nat,
            pub environment_variables: Vec<EnvironmentVariable>,
            $(pub $field: $type,)*
        }
    };
}

definite_settings! {
    /// All settings, as of August 2026.
    DefiniteSettings {
        minimum_incoming_canister_call_cycles: Nat,
        status_visibility: Visibility,
    }
}

definite_settings! {
    /// All settings that the interface of May 2026 knows.
    DefiniteSettingsMay2026 {}
}

impl From<DefiniteSettings> for DefiniteSettingsMay2026 {
    fn from(settings: DefiniteSettings) -> Self {
        Self {
            controller: settings.controller,
            controllers: settings.controllers,
            compute_allocation: settings.compute_allocation,
            memory_allocation: settings.memory_allocation,
            freezing_threshold: settings.freezing_threshold,
            reserved_cycles_limit: settings.reserved_cycles_limit,
            log_visibility: settings.log_visibility,
            snapshot_visibility: settings.snapshot_visibility,
            log_memory_limit: settings.log_memory_limit,
            wasm_memory_limit: settings.wasm_memory_limit,
            wasm_memory_threshold: settings.wasm_memory_threshold,
            environment_variables: settings.environment_variables,
        }
    }
}

/// What the memory of a canister consists of, in bytes.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct MemoryMetrics {
    pub wasm_memory_size: Nat,
    pub stable_memory_size: Nat,
    pub global_memory_size: Nat,
    pub wasm_binary_size: Nat,
    pub custom_sections_size: Nat,
    pub canister_history_size: Nat,
    pub wasm_chunk_store_size: Nat,
    pub snapshots_size: Nat,
    pub log_memory_store_size: Nat,
}

/// Counters of queries.
#[derive(Clone, Debug, Default, CandidType, Deserialize)]
pub(crate) struct QueryStats {
    pub num_calls_total: Nat,
    pub num_instructions_total: Nat,
    pub request_payload_bytes_total: Nat,
    pub response_payload_bytes_total: Nat,
}

/// `canister_status`, with the settings of one version of the interface. `controller`, `freezing_threshold` and
/// `balance` are fields that old clients read.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct CanisterStatusResult<S> {
    pub status: StatusKind,
    pub ready_for_migration: bool,
    pub version: u64,
    pub module_hash: Option<ByteBuf>,
    pub controller: PrincipalId,
    pub settings: S,
    pub memory_size: Nat,
    pub memory_metrics: MemoryMetrics,
    pub cycles: Nat,
    pub balance: Vec<(ByteBuf, Nat)>,
    pub freezing_threshold: Nat,
    pub idle_cycles_burned_per_day: Nat,
    pub reserved_cycles: Nat,
    pub query_stats: QueryStats,
}

/// Who made a change.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) enum Origin {
    #[serde(rename = "from_user")]
    FromUser { user_id: PrincipalId },
    #[serde(rename = "from_canister")]
    FromCanister {
        canister_id: PrincipalId,
        canister_version: Option<u64>,
    },
}

/// How code was deployed.
#[derive(Clone, Copy, Debug, CandidType, Deserialize)]
pub(crate) enum DeployedMode {
    #[serde(rename = "install")]
    Install,
    #[serde(rename = "reinstall")]
    Reinstall,
    #[serde(rename = "upgrade")]
    Upgrade,
}

/// Where a snapshot came from.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) enum SnapshotSource {
    #[serde(rename = "taken_from_canister")]
    TakenFromCanister(Reserved),
    #[serde(rename = "metadata_upload")]
    MetadataUpload(Reserved),
}

/// The new name of a renamed canister.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct RenameTo {
    pub canister_id: PrincipalId,
    pub version: u64,
    pub total_num_changes: u64,
}

/// What was changed.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) enum Details {
    #[serde(rename = "creation")]
    Creation {
        controllers: Vec<PrincipalId>,
        environment_variables_hash: Option<ByteBuf>,
    },
    #[serde(rename = "code_uninstall")]
    CodeUninstall,
    #[serde(rename = "code_deployment")]
    CodeDeployment { mode: DeployedMode, module_hash: ByteBuf },
    #[serde(rename = "load_snapshot")]
    LoadSnapshot {
        from_canister_id: Option<PrincipalId>,
        snapshot_id: ByteBuf,
        canister_version: u64,
        taken_at_timestamp: u64,
        source: SnapshotSource,
    },
    #[serde(rename = "controllers_change")]
    ControllersChange { controllers: Vec<PrincipalId> },
    #[serde(rename = "settings_change")]
    SettingsChange {
        controllers: Option<Vec<PrincipalId>>,
        environment_variables_hash: Option<ByteBuf>,
    },
    #[serde(rename = "rename_canister")]
    RenameCanister {
        canister_id: PrincipalId,
        total_num_changes: u64,
        rename_to: RenameTo,
        requested_by: PrincipalId,
    },
}

/// One change of a canister.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct Change {
    pub timestamp_nanos: u64,
    pub canister_version: u64,
    pub origin: Origin,
    pub details: Details,
}

/// `canister_info`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct CanisterInfoResult {
    pub total_num_changes: u64,
    pub recent_changes: Vec<Change>,
    pub module_hash: Option<ByteBuf>,
    pub controllers: Vec<PrincipalId>,
}

/// `canister_metadata`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct CanisterMetadataResult {
    pub value: ByteBuf,
}

/// One record of the log.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct CanisterLogRecord {
    pub idx: u64,
    pub timestamp_nanos: u64,
    pub content: ByteBuf,
}

/// `fetch_canister_logs`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct FetchCanisterLogsResult {
    pub canister_log_records: Vec<CanisterLogRecord>,
}

/// One snapshot in `take_canister_snapshot` and `list_canister_snapshots`.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct SnapshotResult {
    pub id: ByteBuf,
    pub taken_at_timestamp: u64,
    pub total_size: u64,
}

/// `read_canister_snapshot_metadata`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct ReadSnapshotMetadataResult {
    pub source: SnapshotSource,
    pub taken_at_timestamp: u64,
    pub wasm_module_size: u64,
    pub globals: Vec<Global>,
    pub wasm_memory_size: u64,
    pub stable_memory_size: u64,
    pub wasm_chunk_store: Vec<ChunkHash>,
    pub canister_version: u64,
    pub certified_data: ByteBuf,
    pub global_timer: Option<GlobalTimer>,
    pub on_low_wasm_memory_hook_status: Option<HookStatus>,
}

/// `read_canister_snapshot_data`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct ReadSnapshotDataResult {
    pub chunk: ByteBuf,
}

/// `upload_canister_snapshot_metadata`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct UploadSnapshotMetadataResult {
    pub snapshot_id: ByteBuf,
}

/// First and last id of a range of canisters.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct CanisterIdRange {
    pub start: PrincipalId,
    pub end: PrincipalId,
}

/// `list_canisters`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct ListCanistersResult {
    pub canisters: Vec<CanisterIdRange>,
}

/// `subnet_info`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct SubnetInfoResult {
    pub replica_version: String,
    pub registry_version: u64,
}

/// `subnet_metrics`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct SubnetMetricsResult {
    pub block_height: Nat,
    pub num_canisters: Nat,
    pub canister_state_bytes: Nat,
    pub consumed_cycles_total: Nat,
    pub update_transactions_total: Nat,
}

/// Blocks that one node made or missed.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct NodeMetrics {
    pub node_id: PrincipalId,
    pub num_blocks_proposed_total: u64,
    pub num_block_failures_total: u64,
}

/// One entry of `node_metrics_history`.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct NodeMetricsEntry {
    pub timestamp_nanos: u64,
    pub node_metrics: Vec<NodeMetrics>,
}

/// Cycles consumed, by what they were consumed for.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct CyclesConsumed {
    pub memory: Nat,
    pub compute_allocation: Nat,
    pub ingress_induction: Nat,
    pub instructions: Nat,
    pub request_and_response_transmission: Nat,
    pub uninstall: Nat,
    pub canister_creation: Nat,
    pub http_outcalls: Nat,
    pub burned_cycles: Nat,
}

/// `canister_metrics`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct CanisterMetricsResult {
    pub cycles_consumed: CyclesConsumed,
}
