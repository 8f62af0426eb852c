//! What a message did.

use crate::WasmClosure;
use replicore_types::{
    CallbackId, CanisterId, CoarseTime, Cycles, NumBytes, NumInstructions, Request, Time, UserError, WasmResult,
};
use std::any::Any;

/// What came of one slice of work: a finished message, or one that wants another slice.
#[derive(Debug)]
pub enum ExecutionOutcome {
    /// The message ended. On success the execution state holds the new memories; after an error it is as it was.
    Finished(Box<WorkDone>),
    /// The slice is used up. The execution state is untouched until the message ends.
    Paused(PausedExecution),
}

/// A finished message.
#[derive(Debug)]
pub struct WorkDone {
    /// The answer, if the message gave one, or why it failed.
    pub result: Result<Option<WasmResult>, ExecutionError>,
    /// What the message changed outside its memories. After an error only `log` and what the error text needs remain:
    /// cycles, calls and settings are as before.
    pub changes: SystemChanges,
    /// Instructions of all slices, page charges included: what is charged for.
    pub instructions: NumInstructions,
    /// Counters for the rim; no result depends on them.
    pub stats: ExecutionStats,
}

/// Why a message failed, as its sender reads it. The text is without the "Error from Canister ...: " prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutionError {
    /// Protocol code and full text, as it stands after `Error from Canister <id>: ` in a reject.
    pub error: UserError,
    /// The text that follows `[TRAP]: ` in the canister log, where the failure is logged; the backtrace included.
    pub log: Option<String>,
}

/// A callback that a call registers.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Callback {
    /// Who is called.
    pub respondent: CanisterId,
    /// Cycles attached.
    pub cycles_sent: Cycles,
    /// Prepaid for executing the response: the cost of a message with the largest instruction count.
    pub prepayment_for_response_execution: Cycles,
    /// Prepaid for transmitting the response: the cost of the largest one.
    pub prepayment_for_response_transmission: Cycles,
    /// Runs on reply.
    pub on_reply: WasmClosure,
    /// Runs on reject.
    pub on_reject: WasmClosure,
    /// Runs if the callback traps.
    pub on_cleanup: Option<WasmClosure>,
    /// For best-effort calls, when waiting ends.
    pub deadline: Option<CoarseTime>,
}

/// A call that the message made with `ic0.call_perform`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingCall {
    /// The request; its `sender_reply_callback` is `callback_id`.
    pub request: Request,
    /// The number of the callback, counted up from `SystemView::next_callback_id`.
    pub callback_id: CallbackId,
    /// The callback to register in the canister's call context manager.
    pub callback: Callback,
    /// Cycles taken from the balance for request transmission (already in `SystemChanges::balance_taken`).
    pub transmission_fee: Cycles,
}

/// Cycles destroyed with `ic0.cycles_burn128`.
pub type CyclesBurned = Cycles;

/// A record of the canister log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogRecord {
    /// Counts up over the life of the canister.
    pub index: u64,
    /// Batch time.
    pub time: Time,
    /// What was printed.
    pub content: Vec<u8>,
}

/// What a message changed outside its memories. Applied by the scheduler, in canonical order.
#[derive(Clone, Debug, Default)]
pub struct SystemChanges {
    /// Attached cycles accepted into the balance.
    pub cycles_accepted: Cycles,
    /// Cycles that left the balance through calls: payments, fees and prepayments.
    pub balance_taken: Cycles,
    /// Cycles burned.
    pub cycles_burned: CyclesBurned,
    /// Calls in the order in which they were performed.
    pub calls: Vec<OutgoingCall>,
    /// New certified data.
    pub certified_data: Option<Vec<u8>>,
    /// New deadline of the global timer: `Some(None)` switches it off.
    pub global_timer: Option<Option<Time>>,
    /// Log records made by `debug_print`; the `[TRAP]` record of a failure included, last.
    pub log: Vec<LogRecord>,
    /// Cycles moved from the balance to the reserved balance by memory growth.
    pub cycles_reserved: Cycles,
    /// Growth of the canister's memory usage through heap and stable growth.
    pub memory_growth: NumBytes,
    /// For `inspect_message`: true once `accept_message` was called.
    pub accepted_message: bool,
    /// True where the heap growth of this message crossed the low-memory threshold.
    pub low_wasm_memory: bool,
}

/// Counters of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecutionStats {
    /// Heap pages whose content changed.
    pub heap_pages_dirtied: u64,
    /// Stable pages written.
    pub stable_pages_dirtied: u64,
    /// True where a warm instance served the message.
    pub warm: bool,
    /// Slices used.
    pub slices: u32,
    /// What the message read of its environment.
    pub reads: EnvironmentReads,
}

/// What a message read of things that change although its canister does not: what its answer depends on beside the
/// canister's code, memories, settings and status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentReads {
    /// `ic0.time`
    pub time: bool,
    /// A cycle balance.
    pub balance: bool,
    /// `ic0.data_certificate_size` or `_copy`.
    pub certificate: bool,
    /// Whether memory could grow or a call could be made: depends on the subnet and on other canisters.
    pub resources: bool,
}

/// A message between slices. Dropping it abandons the work: executing the same call again from the start gives the
/// same result, slice for slice.
pub struct PausedExecution {
    inner: Box<dyn Any + Send>,
    /// Instructions used so far.
    pub instructions: NumInstructions,
}

impl PausedExecution {
    /// A paused message. `state` is whatever the executor needs to go on; only the executor that made it reads it.
    pub fn new(state: Box<dyn Any + Send>, instructions: NumInstructions) -> Self {
        Self {
            inner: state,
            instructions,
        }
    }

    /// What the executor kept.
    pub fn into_state(self) -> Box<dyn Any + Send> {
        self.inner
    }
}

impl std::fmt::Debug for PausedExecution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PausedExecution")
            .field("instructions", &self.instructions)
            .finish_non_exhaustive()
    }
}
