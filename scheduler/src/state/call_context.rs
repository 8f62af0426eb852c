//! Open calls of one canister: those it answers (call contexts) and those it waits for (callbacks).

use imbl::OrdMap;
use replicore_engine::Callback;
use replicore_types::{
    CallContextId, CallbackId, CanisterId, CoarseTime, Cycles, MessageId, NumInstructions, Payload, PrincipalId, Time,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Who waits for the answer of a call context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallOrigin {
    /// A user: the answer becomes the status of the ingress message.
    Ingress {
        /// The sender.
        source: PrincipalId,
        /// The request id.
        message_id: MessageId,
        /// The method, for logs.
        method_name: String,
    },
    /// Another canister (or this one): the answer is a response to its callback.
    Canister {
        /// The caller.
        sender: CanisterId,
        /// Its callback.
        callback: CallbackId,
        /// Deadline of a best-effort call.
        deadline: Option<CoarseTime>,
        /// The method, for logs.
        method_name: String,
    },
    /// Heartbeat, global timer or the low-memory hook: nobody waits.
    SystemTask,
}

/// One call that the canister has started to work on and whose work has not ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallContext {
    /// Who waits for the answer.
    pub origin: CallOrigin,
    /// True once a reply or reject was sent.
    pub responded: bool,
    /// True once the canister was uninstalled: callbacks of this context are not run any more.
    pub deleted: bool,
    /// Attached cycles that are not accepted yet.
    pub available_cycles: Cycles,
    /// Batch time at its creation.
    pub time: Time,
    /// Instructions of its messages so far.
    pub instructions_executed: NumInstructions,
    /// `sender_info` of the ingress message: info bytes and signing canister.
    pub caller_info: Option<(Payload, PrincipalId)>,
    /// Calls made in this context whose responses have not arrived.
    pub open_callbacks: u32,
}

/// A callback with the call context that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredCallback {
    /// The context of the message that made the call.
    pub call_context: CallContextId,
    /// Closures, cycles and prepayments.
    pub callback: Callback,
}

/// Call contexts and callbacks of one canister, numbered from 1. A clone shares everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CallContextManager {
    /// Open call contexts.
    pub call_contexts: OrdMap<CallContextId, Arc<CallContext>>,
    /// Callbacks whose response has not been executed.
    pub callbacks: OrdMap<CallbackId, Arc<RegisteredCallback>>,
    /// Callbacks of best-effort calls by deadline, those whose timeout was already turned into a response excluded.
    pub deadlines: OrdMap<(CoarseTime, CallbackId), ()>,
    /// Number of the call context created last.
    pub last_call_context: u64,
    /// Number of the callback registered last.
    pub last_callback: u64,
}
