//! What the engine is asked to do, with everything that the canister can observe while it does it.

use replicore_types::{
    CallContextId, CallbackId, CanisterId, CoarseTime, Cycles, MessageId, NumBytes, NumInstructions, Payload,
    PrincipalId, RejectContext, SubnetConfig, SubnetId, Time,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A function of the canister's table and the environment it is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WasmClosure {
    /// Index in the module's table; wasm64 modules may name indices that no table holds.
    pub function: u64,
    /// The argument.
    pub environment: u64,
}

/// The response that a callback receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseView {
    /// `reply` callback: the bytes of `msg_arg_data_copy`.
    Reply(Payload),
    /// `reject` callback: code and text.
    Reject(RejectContext),
}

/// Makes the data certificates of canisters, for queries that read one.
pub trait DataCertificates: Send + Sync {
    /// The certificate (CBOR) that shows the canister's certified data.
    fn data_certificate(&self, canister: CanisterId) -> Payload;
}

/// A certificate is its own maker.
impl DataCertificates for Payload {
    fn data_certificate(&self, _: CanisterId) -> Payload {
        self.clone()
    }
}

/// The data certificate of a query. Most queries do not read theirs, so it is made when it is first read.
#[derive(Clone)]
pub struct DataCertificate(pub Arc<dyn DataCertificates>);

impl std::fmt::Debug for DataCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataCertificate")
    }
}

impl From<Payload> for DataCertificate {
    fn from(certificate: Payload) -> Self {
        Self(Arc::new(certificate))
    }
}

/// Where execution enters the module. The names are those of the interface specification.
#[derive(Clone, Debug)]
pub enum EntryPoint {
    /// The Wasm `start` function, on install and upgrade.
    Start,
    /// `canister_init` with the install argument.
    Init(Payload),
    /// `canister_pre_upgrade`
    PreUpgrade,
    /// `canister_post_upgrade` with the install argument.
    PostUpgrade(Payload),
    /// `canister_update <method>`
    Update {
        /// Name without the prefix.
        method: String,
        /// The argument.
        argument: Payload,
    },
    /// `canister_query <method>` in replicated execution: state is discarded, instructions are charged.
    ReplicatedQuery {
        /// Name without the prefix.
        method: String,
        /// The argument.
        argument: Payload,
    },
    /// `canister_query <method>` outside replicated execution.
    Query {
        /// Name without the prefix.
        method: String,
        /// The argument.
        argument: Payload,
        /// What `ic0.data_certificate_copy` gives; absent where the state is not certified.
        data_certificate: Option<DataCertificate>,
    },
    /// `canister_composite_query <method>`; never replicated.
    CompositeQuery {
        /// Name without the prefix.
        method: String,
        /// The argument.
        argument: Payload,
        /// As for queries.
        data_certificate: Option<DataCertificate>,
    },
    /// A reply or reject callback.
    Callback {
        /// The function to call.
        closure: WasmClosure,
        /// What came back.
        response: ResponseView,
        /// Attached cycles that came back; already in the balance.
        refund: Cycles,
        /// True when the call context is a composite query's (never replicated).
        composite: bool,
    },
    /// `call_on_cleanup` after a callback trapped.
    Cleanup {
        /// The function to call.
        closure: WasmClosure,
        /// What the callback that trapped got.
        response: ResponseView,
        /// True when the call context is a composite query's (never replicated).
        composite: bool,
    },
    /// `canister_inspect_message` for an ingress call.
    InspectMessage {
        /// The method that the ingress message calls.
        method: String,
        /// Its argument.
        argument: Payload,
    },
    /// `canister_heartbeat`
    Heartbeat,
    /// `canister_global_timer`
    GlobalTimer,
    /// `canister_on_low_wasm_memory`
    OnLowWasmMemory,
}

/// How much may be executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionLimits {
    /// All slices of the message together; reaching it ends the message with IC0522.
    pub message: NumInstructions,
    /// Until the execution pauses. Not less than `message` where slicing is off (queries).
    pub slice: NumInstructions,
}

/// The call context that the message belongs to.
#[derive(Clone, Debug, Default)]
pub struct CallContextView {
    /// Its number; `None` where there is none (init, inspect_message, start, ...).
    pub id: Option<CallContextId>,
    /// Cycles attached by the caller and not yet accepted.
    pub available_cycles: Cycles,
    /// True once a reply or reject was sent.
    pub responded: bool,
    /// Deadline of the caller, for `msg_deadline`; `None` means guaranteed response.
    pub deadline: Option<CoarseTime>,
    /// Instructions of the earlier messages of this context, for `performance_counter(1)`.
    pub instructions_executed: NumInstructions,
}

/// What growing memory may use and cost.
#[derive(Clone, Debug, Default)]
pub struct MemoryView {
    /// `memory_allocation` setting; zero for best effort.
    pub memory_allocation: NumBytes,
    /// `wasm_memory_limit` in force for the heap of this execution; zero for none. The caller leaves it zero where the
    /// rules do not apply it (queries, and other contexts per the specification).
    pub wasm_memory_limit: NumBytes,
    /// `wasm_memory_threshold`, for the low-memory hook.
    pub wasm_memory_threshold: NumBytes,
    /// Memory usage of the canister before the message: everything that storage is charged for.
    pub memory_usage: NumBytes,
    /// Memory of the canister's messages in queues (charged for the freezing threshold).
    pub message_memory_usage: NumBytes,
    /// Memory that the messages of the canister may take beyond that: a call that needs more is not performed.
    pub message_memory_free: NumBytes,
    /// Subnet memory that is still free.
    pub subnet_available_memory: NumBytes,
    /// Subnet memory in use; growth above the reservation threshold reserves cycles.
    pub subnet_memory_usage: NumBytes,
}

/// Everything outside its Wasm state that a canister may see or that a System API rule depends on: a snapshot taken
/// when the message starts.
#[derive(Clone, Debug)]
pub struct SystemView {
    /// The canister.
    pub canister_id: CanisterId,
    /// Its controllers.
    pub controllers: Arc<BTreeSet<PrincipalId>>,
    /// Running 1, stopping 2, stopped 3 (`ic0.canister_status`).
    pub status: u32,
    /// `ic0.canister_version`
    pub version: u64,
    /// Batch time of the round that started the message.
    pub time: Time,
    /// Main balance, after the prepayment for this message was taken out.
    pub balance: Cycles,
    /// Cycles reserved for storage.
    pub reserved_balance: Cycles,
    /// Limit of `reserved_balance`.
    pub reserved_balance_limit: Option<Cycles>,
    /// `freezing_threshold` in seconds.
    pub freezing_threshold_seconds: u64,
    /// `compute_allocation` in percent.
    pub compute_allocation_percent: u64,
    /// Memory use and bounds.
    pub memory: MemoryView,
    /// `ic0.certified_data_set` so far.
    pub certified_data: Payload,
    /// The deadline of `ic0.global_timer_set`, if set.
    pub global_timer: Option<Time>,
    /// Environment variables in the order in which the index functions number them.
    pub environment_variables: Arc<BTreeMap<String, String>>,
    /// Response slots free towards each receiver that has fewer than the capacity; receivers absent here have
    /// [`replicore_types::limits::QUEUE_CAPACITY`].
    pub free_slots: Arc<BTreeMap<CanisterId, usize>>,
    /// Calls to anybody that the message may make.
    pub free_callbacks: usize,
    /// Number given to the next callback that the message registers.
    pub next_callback_id: CallbackId,
    /// Next index in the canister log and bytes that a record may take.
    pub log_next_index: u64,
    /// Bytes of log the canister keeps; a message produces no more than this.
    pub log_bytes_max: usize,
    /// The subnet.
    pub subnet_id: SubnetId,
    /// DER encoding of the root key, for `ic0.root_key_copy`.
    pub root_key: Arc<[u8]>,
    /// Size, type and cost schedule of the subnet: what fees depend on.
    pub subnet: SubnetConfig,
}

/// One message for one canister.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// Where execution enters.
    pub entry_point: EntryPoint,
    /// `msg_caller`: the user or canister; the management canister for system tasks and the canister's own
    /// original caller in callbacks.
    pub caller: PrincipalId,
    /// `msg_caller_info_data` and `msg_caller_info_signer`, where the ingress message carried `sender_info`.
    pub caller_info: Option<(Payload, PrincipalId)>,
    /// The call context.
    pub call_context: CallContextView,
    /// The ingress message behind the call context, for logs and traces only.
    pub message_id: Option<MessageId>,
    /// What the canister may see. Shared: the message holds it as long as it runs.
    pub view: &'a Arc<SystemView>,
}
