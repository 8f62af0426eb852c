//! Open calls of one canister: those it answers (call contexts) and those it waits for (callbacks).

use imbl::OrdMap;
use replicore_engine::Callback;
use replicore_types::{
    CallContextId, CallbackId, CanisterId, CoarseTime, Cycles, MessageId, NumInstructions, Payload, PrincipalId, Time,
    UserError, WasmResult,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// `sender_info` of an ingress message: info bytes and signing canister.
pub type CallerInfo = Option<(Payload, PrincipalId)>;

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

impl CallOrigin {
    /// `msg_caller` of the messages of the context.
    pub fn principal(&self) -> PrincipalId {
        match self {
            Self::Ingress { source, .. } => *source,
            Self::Canister { sender, .. } => sender.0,
            Self::SystemTask => CanisterId::MANAGEMENT.0,
        }
    }

    /// Deadline of a best-effort call.
    pub fn deadline(&self) -> Option<CoarseTime> {
        match self {
            Self::Canister { deadline, .. } => *deadline,
            Self::Ingress { .. } | Self::SystemTask => None,
        }
    }

    /// The ingress message that waits.
    pub fn message_id(&self) -> Option<MessageId> {
        match self {
            Self::Ingress { message_id, .. } => Some(*message_id),
            Self::Canister { .. } | Self::SystemTask => None,
        }
    }
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
    pub caller_info: CallerInfo,
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

/// What a finished message means for whoever waits for its call context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallContextAction {
    /// Nothing yet: calls are open.
    NotYetResponded,
    /// It was answered before.
    AlreadyResponded,
    /// This is the answer; the cycles that were not accepted go back.
    Respond(Result<WasmResult, NoAnswer>, Cycles),
}

/// Why a call context ends without an answer of the canister.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The last message ended well and did not reply.
    DidNotReply,
    /// The last message failed.
    Failed(UserError),
}

impl CallContextManager {
    /// The number of the context opened next.
    pub fn next_context(&self) -> CallContextId {
        CallContextId(self.last_call_context + 1)
    }

    /// Opens a call context.
    pub fn open(&mut self, origin: CallOrigin, cycles: Cycles, now: Time, caller_info: CallerInfo) -> CallContextId {
        self.last_call_context += 1;
        let id = CallContextId(self.last_call_context);
        let context = CallContext {
            origin,
            responded: false,
            deleted: false,
            available_cycles: cycles,
            time: now,
            instructions_executed: NumInstructions::ZERO,
            caller_info,
            open_callbacks: 0,
        };
        self.call_contexts.insert(id, Arc::new(context));
        id
    }

    /// A call context, to be changed.
    pub fn call_context_mut(&mut self, id: CallContextId) -> Option<&mut CallContext> {
        self.call_contexts.get_mut(&id).map(Arc::make_mut)
    }

    /// Registers the callback of a call; `id` is one more than the last one.
    pub fn register(&mut self, id: CallbackId, call_context: CallContextId, callback: Callback) {
        self.last_callback = self.last_callback.max(id.0);
        if let Some(deadline) = callback.deadline {
            self.deadlines.insert((deadline, id), ());
        }
        if let Some(context) = self.call_context_mut(call_context) {
            context.open_callbacks += 1;
        }
        self.callbacks
            .insert(id, Arc::new(RegisteredCallback { call_context, callback }));
    }

    /// Removes a callback whose response was executed.
    pub fn unregister(&mut self, id: CallbackId) -> Option<Arc<RegisteredCallback>> {
        let registered = self.callbacks.remove(&id)?;
        if let Some(deadline) = registered.callback.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        if let Some(context) = self.call_context_mut(registered.call_context) {
            context.open_callbacks = context.open_callbacks.saturating_sub(1);
        }
        Some(registered)
    }

    /// Takes note of a finished message of a call context; a context without open calls ends with it.
    pub fn message_finished(
        &mut self,
        id: CallContextId,
        result: Result<Option<WasmResult>, UserError>,
        instructions: NumInstructions,
    ) -> CallContextAction {
        let Some(context) = self.call_context_mut(id) else {
            return CallContextAction::AlreadyResponded;
        };
        context.instructions_executed += instructions;
        let waits = context.open_callbacks > 0;
        let responded = context.responded;
        let action = match (result, responded, waits) {
            (_, true, _) => CallContextAction::AlreadyResponded,
            (Ok(Some(answer)), false, _) => {
                CallContextAction::Respond(Ok(answer), std::mem::take(&mut context.available_cycles))
            }
            (_, false, true) => CallContextAction::NotYetResponded,
            (Ok(None), false, false) => CallContextAction::Respond(
                Err(NoAnswer::DidNotReply),
                std::mem::take(&mut context.available_cycles),
            ),
            (Err(error), false, false) => CallContextAction::Respond(
                Err(NoAnswer::Failed(error)),
                std::mem::take(&mut context.available_cycles),
            ),
        };
        if waits {
            context.responded |= matches!(action, CallContextAction::Respond(..));
        } else {
            self.call_contexts.remove(&id);
        }
        action
    }

    /// True while no call context is open: what a stopping canister waits for.
    pub fn is_idle(&self) -> bool {
        self.call_contexts.is_empty()
    }
}
