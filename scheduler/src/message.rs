//! One message of one canister, from its checks and its prepayment to the call that the engine executes.

use crate::context::RoundContext;
use crate::induct::out_of_cycles;
use crate::limits::CLEANUP_INSTRUCTIONS_PERCENT;
use crate::management::error;
use crate::state::{
    CallOrigin, CallerInfo, CanisterInput, CanisterMessage, CanisterState, CanisterStatus, CyclesUseCase,
    RegisteredCallback, StartingPoint, SystemTask, WorkItem, response_bytes,
};
use replicore_engine::{
    Call, CallContextView, EntryPoint, InstructionLimits, MemoryView, MethodKind, ResponseView, SystemView,
};
use replicore_types::fees::{Fee, available_share};
use replicore_types::limits::REPLY_BYTES_MAX;
use replicore_types::{
    CallContextId, CallbackId, CanisterId, Cycles, ErrorCode, NumBytes, NumInstructions, PrincipalId, Response,
    ResponsePayload, UserError,
};
use std::sync::Arc;

/// What becomes of something to execute once it is checked and paid for.
pub(crate) enum Begun {
    /// The engine executes it.
    Execute(StartingPoint),
    /// It is refused; the fee for having tried is taken.
    Refused(UserError),
}

/// Checks a call or task and takes its prepayment.
pub(crate) fn begin_call(canister: &mut CanisterState, item: &WorkItem, context: &RoundContext) -> Begun {
    let id = canister.id();
    let limit = instructions_max(canister, item, context);
    let width = canister.width();
    let prepayment = context.subnet.fee(|subnet| subnet.execution_cost(limit, width));
    let prepaid = prepayment.taken;
    if let Err(missing) = canister.withdraw(prepaid, &context.subnet) {
        let tells_how_much = caller(item).is_some_and(|caller| canister.system.is_controller(&caller));
        return Begun::Refused(out_of_cycles(id, missing, tells_how_much));
    }
    canister
        .system
        .consumed
        .add(CyclesUseCase::Instructions, prepayment.counted);
    match check_call(canister, item) {
        Ok(()) => Begun::Execute(starting_point(canister, context, canister.system.balance, prepaid)),
        Err(error) => {
            let unused = context.subnet.fee(|subnet| subnet.instructions_cost(limit, width));
            canister.system.refund(unused, CyclesUseCase::Instructions);
            Begun::Refused(error)
        }
    }
}

/// The state of the outside that a message starts from.
pub(crate) fn starting_point(
    canister: &CanisterState,
    context: &RoundContext,
    balance: Cycles,
    prepaid: Cycles,
) -> StartingPoint {
    StartingPoint {
        time: context.time,
        balance,
        reserved_balance: canister.system.reserved_balance,
        message_bytes: canister.message_memory_usage(),
        subnet_memory_taken: context.subnet_memory_taken,
        callbacks_allowed: context.callbacks_allowed,
        message_memory_allowed: context.message_memory_allowed,
        prepaid,
    }
}

/// The sender of a call; `None` for system tasks and responses.
fn caller(item: &WorkItem) -> Option<PrincipalId> {
    match item {
        WorkItem::Message(CanisterInput::Ingress(ingress)) => Some(ingress.source),
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Request(request))) => Some(request.sender.0),
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Response(_))) | WorkItem::Task(_) => None,
    }
}

fn check_call(canister: &CanisterState, item: &WorkItem) -> Result<(), UserError> {
    let id = canister.id();
    let not_running = |code| UserError::new(code, format!("Canister {id} is not running"));
    match canister.system.status {
        CanisterStatus::Running => {}
        CanisterStatus::Stopping(_) => return Err(not_running(ErrorCode::CanisterStopping)),
        CanisterStatus::Stopped => return Err(not_running(ErrorCode::CanisterStopped)),
    }
    let Some(execution) = &canister.execution else {
        return Err(error::no_module(id));
    };
    let method = match item {
        WorkItem::Message(CanisterInput::Ingress(ingress)) => &ingress.method_name,
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Request(request))) => &request.method_name,
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Response(_))) => return Ok(()),
        WorkItem::Task(task) => {
            return match execution.interface.has(entry_point_name(*task)) {
                true => Ok(()),
                false => Err(method_not_found(id, "system", entry_point_name(*task))),
            };
        }
    };
    match execution.interface.method(method) {
        Some(MethodKind::Update) => {
            let limit = canister.system.settings.wasm_memory_limit_in_force();
            let used = canister.heap_bytes();
            match !limit.is_zero() && used > limit {
                true => Err(error::wasm_memory_limit(id, used, limit)),
                false => Ok(()),
            }
        }
        Some(MethodKind::Query) => Ok(()),
        Some(MethodKind::CompositeQuery) => Err(composite_query_called()),
        None => Err(method_not_found(id, "update", method)),
    }
}

/// A composite query was called as an update.
pub(crate) fn composite_query_called() -> UserError {
    UserError::new(
        ErrorCode::CompositeQueryCalledInReplicatedMode,
        "Composite query cannot be called in replicated mode",
    )
}

/// The canister exports no method of this kind and name.
pub(crate) fn method_not_found(id: CanisterId, kind: &str, method: &str) -> UserError {
    UserError::new(
        ErrorCode::CanisterMethodNotFound,
        format!(
            "Error from Canister {id}: Canister has no {kind} method '{method}'..\nCheck that the method being called is \
             exported by the target canister. See documentation: \
             https://internetcomputer.org/docs/current/references/execution-errors#method-not-found"
        ),
    )
}

/// The export that a system task runs.
pub(crate) fn entry_point_name(task: SystemTask) -> &'static str {
    match task {
        SystemTask::Heartbeat => "canister_heartbeat",
        SystemTask::GlobalTimer => "canister_global_timer",
        SystemTask::OnLowWasmMemory => "canister_on_low_wasm_memory",
    }
}

/// Who waits for the answer to a call or task.
pub(crate) fn origin(item: &WorkItem) -> CallOrigin {
    match item {
        WorkItem::Message(CanisterInput::Ingress(ingress)) => CallOrigin::Ingress {
            source: ingress.source,
            message_id: ingress.message_id,
            method_name: ingress.method_name.clone(),
        },
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Request(request))) => CallOrigin::Canister {
            sender: request.sender,
            callback: request.sender_reply_callback,
            deadline: request.deadline,
            method_name: request.method_name.clone(),
        },
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Response(_))) | WorkItem::Task(_) => {
            CallOrigin::SystemTask
        }
    }
}

/// Cycles attached to a call, and `sender_info` of an ingress message.
pub(crate) fn attached(item: &WorkItem) -> (Cycles, CallerInfo) {
    match item {
        WorkItem::Message(CanisterInput::Ingress(ingress)) => (Cycles::ZERO, ingress.sender_info.clone()),
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Request(request))) => (request.payment, None),
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Response(_))) | WorkItem::Task(_) => {
            (Cycles::ZERO, None)
        }
    }
}

/// What kind of method a call names; `None` for tasks, responses and names that the module does not export.
fn method_kind(canister: &CanisterState, item: &WorkItem) -> Option<MethodKind> {
    let method = match item {
        WorkItem::Message(CanisterInput::Ingress(ingress)) => &ingress.method_name,
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Request(request))) => &request.method_name,
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Response(_))) | WorkItem::Task(_) => return None,
    };
    canister.execution.as_ref()?.interface.method(method)
}

/// How a call or task enters the module.
fn entry_point(canister: &CanisterState, item: &WorkItem) -> EntryPoint {
    let (method, argument) = match item {
        WorkItem::Message(CanisterInput::Ingress(ingress)) => (&ingress.method_name, &ingress.method_payload),
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Request(request))) => {
            (&request.method_name, &request.payload)
        }
        WorkItem::Task(SystemTask::GlobalTimer) => return EntryPoint::GlobalTimer,
        WorkItem::Task(SystemTask::OnLowWasmMemory) => return EntryPoint::OnLowWasmMemory,
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Response(_)))
        | WorkItem::Task(SystemTask::Heartbeat) => return EntryPoint::Heartbeat,
    };
    let (method, argument) = (method.clone(), argument.clone());
    let kind = canister
        .execution
        .as_ref()
        .and_then(|execution| execution.interface.method(&method));
    match kind {
        Some(MethodKind::Query) => EntryPoint::ReplicatedQuery { method, argument },
        Some(MethodKind::Update | MethodKind::CompositeQuery) | None => EntryPoint::Update { method, argument },
    }
}

/// Everything that a message may see of the canister and the subnet.
pub(crate) fn system_view(canister: &CanisterState, start: &StartingPoint, context: &RoundContext) -> SystemView {
    let system = &canister.system;
    let slots = system.queues.free_slots();
    SystemView {
        canister_id: system.canister_id,
        controllers: system.settings.controllers.clone(),
        status: system.status.number(),
        version: system.version,
        time: start.time,
        balance: start.balance,
        reserved_balance: start.reserved_balance,
        reserved_balance_limit: Some(system.settings.reserved_cycles_limit),
        freezing_threshold_seconds: system.settings.freezing_threshold_seconds,
        compute_allocation_percent: system.settings.compute_allocation,
        memory: memory_view(canister, start),
        certified_data: system.certified_data.clone(),
        global_timer: system.global_timer,
        environment_variables: system.settings.environment_variables.clone(),
        free_slots: if slots.is_empty() {
            context.all_slots_free.clone()
        } else {
            Arc::new(slots)
        },
        free_callbacks: start.callbacks_allowed.saturating_sub(system.calls.callbacks.len()),
        next_callback_id: CallbackId(system.calls.last_callback + 1),
        log_next_index: system.log.next_index(),
        log_bytes_max: usize::try_from(system.settings.log_memory_limit.0).unwrap_or(usize::MAX),
        subnet_id: context.subnet_id,
        root_key: context.root_key.clone(),
        subnet: context.subnet,
    }
}

fn memory_view(canister: &CanisterState, start: &StartingPoint) -> MemoryView {
    let settings = &canister.system.settings;
    MemoryView {
        memory_allocation: settings.memory_allocation,
        wasm_memory_limit: NumBytes::ZERO,
        wasm_memory_threshold: settings.wasm_memory_threshold,
        memory_usage: canister.memory_usage(),
        message_memory_usage: start.message_bytes,
        message_memory_free: start.message_memory_allowed - start.message_bytes,
        subnet_available_memory: available_share(start.subnet_memory_taken),
        subnet_memory_usage: start.subnet_memory_taken,
    }
}

/// The view of a call or task: the heap limit holds for updates only, and a timer that runs is off.
pub(crate) fn call_view(
    canister: &CanisterState,
    item: &WorkItem,
    start: &StartingPoint,
    context: &RoundContext,
) -> SystemView {
    let mut view = system_view(canister, start, context);
    match item {
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Response(_))) => {}
        WorkItem::Message(_) if method_kind(canister, item) == Some(MethodKind::Query) => {}
        WorkItem::Message(_) => view.memory.wasm_memory_limit = canister.system.settings.wasm_memory_limit_in_force(),
        WorkItem::Task(SystemTask::GlobalTimer) => view.global_timer = None,
        WorkItem::Task(SystemTask::Heartbeat | SystemTask::OnLowWasmMemory) => {}
    }
    view
}

/// What the engine executes for a call or task.
pub(crate) fn call<'a>(canister: &CanisterState, item: &WorkItem, view: &'a Arc<SystemView>) -> Call<'a> {
    let (available_cycles, caller_info) = attached(item);
    let (message_id, deadline) = match item {
        WorkItem::Message(CanisterInput::Ingress(ingress)) => (Some(ingress.message_id), None),
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Request(request))) => (None, request.deadline),
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Response(_))) | WorkItem::Task(_) => (None, None),
    };
    Call {
        entry_point: entry_point(canister, item),
        caller: caller(item).unwrap_or(CanisterId::MANAGEMENT.0),
        caller_info,
        call_context: CallContextView {
            id: Some(CallContextId(canister.system.calls.last_call_context + 1)),
            available_cycles,
            responded: false,
            deadline,
            instructions_executed: NumInstructions::ZERO,
        },
        message_id,
        view,
    }
}

/// Instructions that `item` may use and prepays: a query called as an update has those of a query.
pub(crate) fn instructions_max(canister: &CanisterState, item: &WorkItem, context: &RoundContext) -> NumInstructions {
    match method_kind(canister, item) {
        Some(MethodKind::Query) => context.replicated_query_instructions_max(),
        Some(MethodKind::Update | MethodKind::CompositeQuery) | None => context.message_instructions_max(),
    }
}

/// A call or task may use all instructions of a message; a callback leaves some to its cleanup.
pub(crate) fn instruction_limits(
    canister: &CanisterState,
    item: &WorkItem,
    context: &RoundContext,
) -> InstructionLimits {
    let message = instructions_max(canister, item, context);
    let kept = match item {
        WorkItem::Message(CanisterInput::Canister(CanisterMessage::Response(_))) => {
            message.0 / 100 * CLEANUP_INSTRUCTIONS_PERCENT
        }
        WorkItem::Message(_) | WorkItem::Task(_) => 0,
    };
    InstructionLimits {
        message: NumInstructions(message.0 - kept),
        slice: context.slice_instructions_max(),
    }
}

/// What a response gives back to the caller before its callback runs: attached cycles that were not accepted, and what
/// was prepaid for transmitting more bytes than came.
pub(crate) fn response_refunds(
    registered: &RegisteredCallback,
    response: &Response,
    context: &RoundContext,
) -> (Cycles, Fee) {
    let callback = &registered.callback;
    let bytes = NumBytes(response_bytes(&response.payload));
    let longest = NumBytes(REPLY_BYTES_MAX as u64);
    let transmission = context
        .subnet
        .fee(|subnet| subnet.transmission_cost(longest) - subnet.transmission_cost(bytes));
    let refund = response.refund.min(callback.cycles_sent);
    (
        refund,
        transmission.at_most(callback.prepayment_for_response_transmission),
    )
}

/// What the engine executes for a response.
pub(crate) fn callback_call<'a>(
    canister: &CanisterState,
    registered: &RegisteredCallback,
    response: &Response,
    view: &'a Arc<SystemView>,
) -> Call<'a> {
    let (closure, view_of_response) = match &response.payload {
        ResponsePayload::Data(data) => (registered.callback.on_reply, ResponseView::Reply(data.clone())),
        ResponsePayload::Reject(reject) => (registered.callback.on_reject, ResponseView::Reject(reject.clone())),
    };
    let refund = response.refund.min(registered.callback.cycles_sent);
    let entry_point = EntryPoint::Callback {
        closure,
        response: view_of_response,
        refund,
        composite: false,
    };
    in_call_context(canister, registered.call_context, entry_point, view)
}

/// What the engine executes after a callback failed, where the call named a cleanup.
pub(crate) fn cleanup_call<'a>(
    canister: &CanisterState,
    registered: &RegisteredCallback,
    response: &Response,
    view: &'a Arc<SystemView>,
) -> Option<Call<'a>> {
    let closure = registered.callback.on_cleanup?;
    let response = match &response.payload {
        ResponsePayload::Data(data) => ResponseView::Reply(data.clone()),
        ResponsePayload::Reject(reject) => ResponseView::Reject(reject.clone()),
    };
    let entry_point = EntryPoint::Cleanup {
        closure,
        response,
        composite: false,
    };
    Some(in_call_context(canister, registered.call_context, entry_point, view))
}

fn in_call_context<'a>(
    canister: &CanisterState,
    id: CallContextId,
    entry_point: EntryPoint,
    view: &'a Arc<SystemView>,
) -> Call<'a> {
    let context = canister.system.calls.call_contexts.get(&id);
    Call {
        entry_point,
        caller: context.map_or(CanisterId::MANAGEMENT.0, |context| context.origin.principal()),
        caller_info: context.and_then(|context| context.caller_info.clone()),
        call_context: CallContextView {
            id: Some(id),
            available_cycles: context.map_or(Cycles::ZERO, |context| context.available_cycles),
            responded: context.is_none_or(|context| context.responded),
            deadline: context.and_then(|context| context.origin.deadline()),
            instructions_executed: context.map_or(NumInstructions::ZERO, |context| context.instructions_executed),
        },
        message_id: context.and_then(|context| context.origin.message_id()),
        view,
    }
}
