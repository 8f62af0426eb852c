//! What the system keeps of a canister beside its Wasm state.

use crate::state::{CallContextManager, CanisterQueues};
use replicore_engine::{ExecutionState, LogRecord};
use replicore_types::fees::Fee;
use replicore_types::limits::{
    CANISTER_HISTORY_MAX, HEAP_DELTA_PER_CANISTER_AND_ROUND_BYTES, INSTALL_CODE_INSTRUCTIONS_PER_ROUND,
    LOG_BYTES_DEFAULT, WASM_MEMORY_LIMIT_DEFAULT,
};
use replicore_types::{
    CallbackId, CanisterId, Cycles, Height, MessageId, NumBytes, NumInstructions, Payload, PrincipalId, Time,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Default `freezing_threshold`: 30 days.
pub const FREEZING_THRESHOLD_SECONDS_DEFAULT: u64 = 30 * 24 * 60 * 60;
/// Default `reserved_cycles_limit`.
pub const RESERVED_CYCLES_LIMIT_DEFAULT: Cycles = Cycles(5_000_000_000_000);

/// Who asked for a stop and waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopContext {
    /// A user.
    Ingress {
        /// The sender.
        sender: PrincipalId,
        /// The request id of the `stop_canister` call.
        message_id: MessageId,
        /// When the call was taken up; it fails after [`replicore_types::limits::STOP_CANISTER_TIMEOUT`].
        started: Time,
    },
    /// A canister.
    Canister {
        /// The caller.
        sender: CanisterId,
        /// Its callback.
        callback: CallbackId,
        /// Cycles attached to the call, given back with the answer.
        cycles: Cycles,
        /// Deadline of a best-effort call.
        deadline: Option<replicore_types::CoarseTime>,
        /// When the call was taken up.
        started: Time,
    },
}

/// Whether the canister takes new messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CanisterStatus {
    /// It does.
    #[default]
    Running,
    /// Only responses; stopped as soon as no call context is open.
    Stopping(Vec<StopContext>),
    /// It does not.
    Stopped,
}

impl CanisterStatus {
    /// The number of `ic0.canister_status`.
    pub fn number(&self) -> u32 {
        match self {
            Self::Running => 1,
            Self::Stopping(_) => 2,
            Self::Stopped => 3,
        }
    }
}

/// Who may read something of the canister beside its controllers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Visibility {
    /// Nobody.
    #[default]
    Controllers,
    /// Everybody.
    Public,
    /// These principals.
    AllowedViewers(BTreeSet<PrincipalId>),
}

/// Settings as `update_settings` sets them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanisterSettings {
    /// Up to 10 principals.
    pub controllers: Arc<BTreeSet<PrincipalId>>,
    /// Percent of a core.
    pub compute_allocation: u64,
    /// Bytes promised to the canister; zero for best effort.
    pub memory_allocation: NumBytes,
    /// Seconds of idle life that the balance must last for.
    pub freezing_threshold_seconds: u64,
    /// Bound of the reserved balance; zero forbids reservations.
    pub reserved_cycles_limit: Cycles,
    /// Calls of other canisters with fewer cycles are rejected; zero lets every call in.
    pub minimum_incoming_call_cycles: Cycles,
    /// Bound of the Wasm heap; `None` means the default of [`WASM_MEMORY_LIMIT_DEFAULT`], zero no bound.
    pub wasm_memory_limit: Option<NumBytes>,
    /// The low-memory hook runs when fewer bytes than this are left for the heap.
    pub wasm_memory_threshold: NumBytes,
    /// Who reads the log.
    pub log_visibility: Visibility,
    /// Who reads snapshots.
    pub snapshot_visibility: Visibility,
    /// Who reads the status.
    pub status_visibility: Visibility,
    /// Bytes of log kept.
    pub log_memory_limit: NumBytes,
    /// Environment variables.
    pub environment_variables: Arc<BTreeMap<String, String>>,
}

impl Default for CanisterSettings {
    fn default() -> Self {
        Self {
            controllers: Arc::default(),
            compute_allocation: 0,
            memory_allocation: NumBytes::ZERO,
            freezing_threshold_seconds: FREEZING_THRESHOLD_SECONDS_DEFAULT,
            reserved_cycles_limit: RESERVED_CYCLES_LIMIT_DEFAULT,
            minimum_incoming_call_cycles: Cycles::ZERO,
            wasm_memory_limit: None,
            wasm_memory_threshold: NumBytes::ZERO,
            log_visibility: Visibility::Controllers,
            snapshot_visibility: Visibility::Controllers,
            status_visibility: Visibility::Controllers,
            log_memory_limit: NumBytes(LOG_BYTES_DEFAULT as u64),
            environment_variables: Arc::default(),
        }
    }
}

impl CanisterSettings {
    /// The bound of the heap in force; zero for none.
    pub fn wasm_memory_limit_in_force(&self) -> NumBytes {
        self.wasm_memory_limit.unwrap_or(NumBytes(WASM_MEMORY_LIMIT_DEFAULT))
    }
}

/// What cycles were consumed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(usize)]
pub enum CyclesUseCase {
    /// Executing messages and compiling code.
    Instructions,
    /// Inducting ingress messages.
    IngressInduction,
    /// Calls between canisters.
    RequestAndResponseTransmission,
    /// Storage.
    Memory,
    /// Compute allocation.
    ComputeAllocation,
    /// `ic0.cycles_burn128`
    BurnedCycles,
    /// Creating canisters.
    CanisterCreation,
    /// Lost with a canister that ran out of cycles.
    Uninstall,
    /// Lost with a deleted canister.
    DeletedCanisters,
    /// HTTP outcalls.
    HttpOutcalls,
    /// Fetching logs and other management services.
    ManagementServices,
    /// Lost with messages that nobody could receive.
    DroppedMessages,
}

/// Number of use cases.
pub const CYCLES_USE_CASES: usize = 12;

/// Cycles consumed, by use case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumedCycles([Cycles; CYCLES_USE_CASES]);

impl ConsumedCycles {
    /// Adds to a use case.
    pub fn add(&mut self, use_case: CyclesUseCase, amount: Cycles) {
        self.0[use_case as usize] += amount;
    }

    /// Takes back what was counted too much: refunds of prepayments.
    pub fn subtract(&mut self, use_case: CyclesUseCase, amount: Cycles) {
        self.0[use_case as usize] -= amount;
    }

    /// What was consumed for a use case.
    pub fn get(&self, use_case: CyclesUseCase) -> Cycles {
        self.0[use_case as usize]
    }

    /// This, with what was added between `before` and `after`.
    pub fn plus_change(&self, before: &Self, after: &Self) -> Self {
        let mut sum = *self;
        for ((sum, before), after) in sum.0.iter_mut().zip(&before.0).zip(&after.0) {
            *sum += *after - *before;
        }
        sum
    }

    /// All of it.
    pub fn total(&self) -> Cycles {
        self.0.iter().copied().sum()
    }
}

/// Who changed a canister.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeOrigin {
    /// A user.
    User {
        /// The user.
        user: PrincipalId,
    },
    /// A canister.
    Canister {
        /// The canister.
        canister: CanisterId,
        /// Its version when it made the call, where it said so.
        version: Option<u64>,
    },
}

/// How code was deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeploymentMode {
    /// Onto an empty canister.
    Install,
    /// All state cleared.
    Reinstall,
    /// State kept.
    Upgrade,
}

/// What was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeDetails {
    /// The canister was created.
    Creation {
        /// With these controllers.
        controllers: BTreeSet<PrincipalId>,
        /// Hash of the environment variables, where there are any.
        environment_variables_hash: Option<[u8; 32]>,
    },
    /// Its code was removed.
    CodeUninstall,
    /// Code was installed.
    CodeDeployment {
        /// How.
        mode: DeploymentMode,
        /// Hash of the module.
        module_hash: [u8; 32],
    },
    /// A snapshot was loaded.
    LoadSnapshot {
        /// The canister that the snapshot was taken of, where it is another one.
        from_canister: Option<CanisterId>,
        /// The snapshot.
        snapshot_id: SnapshotId,
        /// The canister version in the snapshot.
        canister_version: u64,
        /// When it was taken.
        taken_at: Time,
        /// True where it was taken from a canister, false where it was uploaded.
        taken_from_canister: bool,
    },
    /// Settings were changed.
    SettingsChange {
        /// The controllers, where they were among the changes.
        controllers: Option<BTreeSet<PrincipalId>>,
        /// Hash of the environment variables, where they were among the changes.
        environment_variables_hash: Option<[u8; 32]>,
    },
}

/// One entry of the canister history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanisterChange {
    /// Batch time.
    pub timestamp: Time,
    /// Canister version after the change.
    pub canister_version: u64,
    /// Who made it.
    pub origin: ChangeOrigin,
    /// What it was.
    pub details: ChangeDetails,
}

/// Bytes that an entry of the canister history is charged as, and every principal in it.
const CHANGE_BYTES: u64 = 192;
const CHANGE_PRINCIPAL_BYTES: u64 = 30;

impl CanisterChange {
    /// Bytes that the entry is charged as.
    pub fn bytes(&self) -> u64 {
        let principals = match &self.details {
            ChangeDetails::Creation { controllers, .. }
            | ChangeDetails::SettingsChange {
                controllers: Some(controllers),
                ..
            } => controllers.len(),
            ChangeDetails::SettingsChange { controllers: None, .. }
            | ChangeDetails::CodeUninstall
            | ChangeDetails::CodeDeployment { .. }
            | ChangeDetails::LoadSnapshot { .. } => 0,
        };
        CHANGE_BYTES + CHANGE_PRINCIPAL_BYTES * principals as u64
    }
}

/// The last changes of a canister.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CanisterHistory {
    /// The newest [`CANISTER_HISTORY_MAX`] changes, oldest first.
    changes: VecDeque<Arc<CanisterChange>>,
    /// Changes ever made.
    total: u64,
    /// Bytes of `changes`: asked for with every message.
    bytes: u64,
}

impl CanisterHistory {
    /// The newest changes, oldest first.
    pub fn changes(&self) -> &VecDeque<Arc<CanisterChange>> {
        &self.changes
    }

    /// Changes ever made.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes that the entries are charged as.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a change and drops the oldest beyond the bound.
    pub fn push(&mut self, change: CanisterChange) {
        self.bytes += change.bytes();
        self.changes.push_back(Arc::new(change));
        if self.changes.len() > CANISTER_HISTORY_MAX
            && let Some(oldest) = self.changes.pop_front()
        {
            self.bytes -= oldest.bytes();
        }
        self.total += 1;
    }

    /// Forgets the entries; counting goes on.
    pub fn clear(&mut self) {
        self.changes.clear();
        self.bytes = 0;
    }
}

/// The canister log: the newest records whose sizes fit the limit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CanisterLog {
    records: VecDeque<Arc<LogRecord>>,
    bytes: u64,
    next_index: u64,
}

/// Bytes that a record takes in the log beside its content: index and time.
const LOG_RECORD_OVERHEAD_BYTES: u64 = 16;

impl CanisterLog {
    /// The records, oldest first.
    pub fn records(&self) -> impl Iterator<Item = &Arc<LogRecord>> {
        self.records.iter()
    }

    /// Index of the next record.
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// Bytes that the records take.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a record and drops the oldest ones beyond `limit` bytes.
    pub fn push(&mut self, record: LogRecord, limit: NumBytes) {
        self.next_index = record.index + 1;
        self.bytes += LOG_RECORD_OVERHEAD_BYTES + record.content.len() as u64;
        self.records.push_back(Arc::new(record));
        self.shrink_to(limit);
    }

    /// Drops the oldest records beyond `limit` bytes.
    pub fn shrink_to(&mut self, limit: NumBytes) {
        while self.bytes > limit.0 {
            let Some(oldest) = self.records.pop_front() else { break };
            self.bytes -= LOG_RECORD_OVERHEAD_BYTES + oldest.content.len() as u64;
        }
    }

    /// Forgets all records; numbering goes on.
    pub fn clear(&mut self) {
        self.records.clear();
        self.bytes = 0;
    }
}

/// The number of a snapshot: the canister and a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SnapshotId {
    /// The canister that owns the snapshot.
    pub canister_id: CanisterId,
    /// Counts up from 0 per canister.
    pub number: u64,
}

impl SnapshotId {
    /// The bytes by which clients name the snapshot: eight bytes big endian, then the canister id.
    pub fn to_bytes(self) -> Vec<u8> {
        [&self.number.to_be_bytes()[..], self.canister_id.as_slice()].concat()
    }
}

/// A stored copy of a canister.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was taken.
    pub taken_at: Time,
    /// Canister version at that time.
    pub canister_version: u64,
    /// True where it was taken from a canister, false where it was uploaded.
    pub taken_from_canister: bool,
    /// Size that storage is charged for.
    pub size: NumBytes,
    /// Certified data at that time.
    pub certified_data: Payload,
    /// Global timer at that time.
    pub global_timer: Option<Time>,
    /// The chunk store at that time.
    pub chunk_store: ChunkStore,
    /// Module, memories and globals.
    pub execution: ExecutionState,
}

/// Chunks of code by their SHA-256.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkStore {
    /// The chunks; each is charged as a whole megabyte.
    pub chunks: Arc<BTreeMap<[u8; 32], Arc<[u8]>>>,
}

/// Work that the system gives to a canister.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SystemTask {
    /// `canister_on_low_wasm_memory`
    OnLowWasmMemory,
    /// `canister_heartbeat`
    Heartbeat,
    /// `canister_global_timer`
    GlobalTimer,
}

/// State of the low-memory hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LowMemoryHook {
    /// Enough memory is left.
    #[default]
    NotSatisfied,
    /// The hook is due.
    Ready,
    /// It ran, and memory is still low.
    Executed,
}

/// What the system keeps of a canister beside its Wasm state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SystemState {
    /// The canister.
    pub canister_id: CanisterId,
    /// Settings.
    pub settings: CanisterSettings,
    /// Whether the canister takes new messages.
    pub status: CanisterStatus,
    /// Open calls.
    pub calls: CallContextManager,
    /// Waiting messages.
    pub queues: CanisterQueues,
    /// Main balance. Prepayments of started messages and open calls are not in it.
    pub balance: Cycles,
    /// Cycles reserved for storage.
    pub reserved_balance: Cycles,
    /// Fees that fell due while a message was paused; taken when it ends.
    pub cycles_debit: Cycles,
    /// What was consumed so far.
    pub consumed: ConsumedCycles,
    /// `ic0.canister_version`
    pub version: u64,
    /// Batch time at creation.
    pub created_at: Time,
    /// Batch time of the last install, reinstall, upgrade or snapshot load.
    pub last_install_at: Option<Time>,
    /// Batch time up to which storage and compute are paid.
    pub charged_until: Time,
    /// Certified data, at most 32 bytes.
    pub certified_data: Payload,
    /// Deadline of the global timer.
    pub global_timer: Option<Time>,
    /// The log.
    pub log: CanisterLog,
    /// The last changes.
    pub history: Arc<CanisterHistory>,
    /// Chunks of code.
    pub chunk_store: ChunkStore,
    /// Snapshots by number.
    #[serde(skip)]
    pub snapshots: Arc<BTreeMap<SnapshotId, Arc<Snapshot>>>,
    /// Number of the next snapshot.
    pub next_snapshot: u64,
    /// Tasks of this round that have not run.
    pub tasks: VecDeque<SystemTask>,
    /// State of the low-memory hook.
    pub low_memory_hook: LowMemoryHook,
    /// Instructions executed since its creation: messages, hooks and page charges, `install_code` excluded.
    pub instructions_executed: NumInstructions,
    /// Rounds in which messages of the canister were executed.
    pub rounds_executed: u64,
    /// Code-install instructions that were still to be worked off under the rate limit at `install_code_debit_at`.
    pub install_code_debit: NumInstructions,
    /// Height of the last change of `install_code_debit`: every round since has worked off its share.
    pub install_code_debit_at: Height,
    /// Written bytes that were still to be worked off under the rate limit at `heap_delta_debit_at`.
    pub heap_delta_debit: NumBytes,
    /// Height of the last change of `heap_delta_debit`: every round since has worked off its share.
    pub heap_delta_debit_at: Height,
}

impl SystemState {
    /// A running canister without code.
    pub fn new(canister_id: CanisterId, settings: CanisterSettings, balance: Cycles, now: Time) -> Self {
        Self {
            canister_id,
            settings,
            status: CanisterStatus::Running,
            calls: CallContextManager::default(),
            queues: CanisterQueues::default(),
            balance,
            reserved_balance: Cycles::ZERO,
            cycles_debit: Cycles::ZERO,
            consumed: ConsumedCycles::default(),
            version: 0,
            created_at: now,
            last_install_at: None,
            charged_until: now,
            certified_data: Payload::default(),
            global_timer: None,
            log: CanisterLog::default(),
            history: Arc::default(),
            chunk_store: ChunkStore::default(),
            snapshots: Arc::default(),
            next_snapshot: 0,
            tasks: VecDeque::new(),
            low_memory_hook: LowMemoryHook::default(),
            instructions_executed: NumInstructions::ZERO,
            rounds_executed: 0,
            install_code_debit: NumInstructions::ZERO,
            install_code_debit_at: Height(0),
            heap_delta_debit: NumBytes::ZERO,
            heap_delta_debit_at: Height(0),
        }
    }

    /// True for a controller.
    pub fn is_controller(&self, principal: &PrincipalId) -> bool {
        self.settings.controllers.contains(principal)
    }

    /// Install instructions that the rounds up to `height` have not worked off.
    pub fn open_install_debit(&self, height: Height) -> NumInstructions {
        let rounds = height.0.saturating_sub(self.install_code_debit_at.0);
        self.install_code_debit - NumInstructions(rounds.saturating_mul(INSTALL_CODE_INSTRUCTIONS_PER_ROUND))
    }

    /// Written bytes that the rounds up to `height` have not worked off.
    pub fn open_heap_delta_debit(&self, height: Height) -> NumBytes {
        let rounds = height.0.saturating_sub(self.heap_delta_debit_at.0);
        self.heap_delta_debit - NumBytes(rounds.saturating_mul(HEAP_DELTA_PER_CANISTER_AND_ROUND_BYTES))
    }

    /// Adds to the debit of install instructions.
    pub fn add_install_debit(&mut self, used: NumInstructions, height: Height) {
        self.install_code_debit = self.open_install_debit(height) + used;
        self.install_code_debit_at = height;
    }

    /// Adds to the debit of written bytes.
    pub fn add_heap_delta_debit(&mut self, written: NumBytes, height: Height) {
        self.heap_delta_debit = self.open_heap_delta_debit(height) + written;
        self.heap_delta_debit_at = height;
    }

    /// True where the canister executes nothing in the round of `height`: it has installed or written too much lately.
    pub fn is_rate_limited(&self, height: Height) -> bool {
        self.open_install_debit(height).0 >= INSTALL_CODE_INSTRUCTIONS_PER_ROUND
            || self.open_heap_delta_debit(height).0 >= HEAP_DELTA_PER_CANISTER_AND_ROUND_BYTES
    }

    /// Takes a fee from the balance and counts it as consumed. The caller has checked that the balance holds it.
    pub fn consume(&mut self, fee: impl Into<Fee>, use_case: CyclesUseCase) {
        let fee = fee.into();
        self.balance -= fee.taken;
        self.consumed.add(use_case, fee.counted);
    }

    /// Gives back what was prepaid too much.
    pub fn refund(&mut self, fee: impl Into<Fee>, use_case: CyclesUseCase) {
        let fee = fee.into();
        self.balance += fee.taken;
        self.consumed.subtract(use_case, fee.counted);
    }
}
