//! What a finished message does to its canister: charges and refunds, calls, the answer to whoever waits.
//!
//! Everything that can fail is decided before the first change.

use crate::context::RoundContext;
use crate::management::{error, footprint};
use crate::message;
use crate::run::Turn;
use crate::state::{
    CallContextAction, CallOrigin, CanisterInput, CanisterState, CyclesUseCase, NoAnswer, RegisteredCallback,
    StartingPoint, SystemTask, WorkItem,
};
use replicore_engine::{ExecutionError, SystemChanges, WorkDone};
use replicore_types::fees::Fee;
use replicore_types::limits::REPLY_BYTES_MAX;
use replicore_types::{
    CallContextId, CanisterId, Cycles, ErrorCode, IngressState, IngressStatus, NumBytes, NumInstructions, Payload,
    RejectCode, RejectContext, Request, Response, ResponsePayload, SubnetConfig, UserError, WasmResult,
};
use std::sync::Arc;

type MessageResult = Result<Option<WasmResult>, UserError>;

/// The outcome of a message for a canister that lost its code meanwhile.
pub(crate) fn without_module(id: CanisterId) -> WorkDone {
    WorkDone {
        result: Err(ExecutionError {
            error: error::no_module(id),
            log: None,
        }),
        changes: SystemChanges::default(),
        instructions: NumInstructions::ZERO,
        stats: Default::default(),
    }
}

/// Answers a call that was refused before it was executed.
pub(crate) fn refuse(
    canister: &mut CanisterState,
    item: &WorkItem,
    error: UserError,
    context: &RoundContext,
    turn: &mut Turn,
) {
    if matches!(item, WorkItem::Task(SystemTask::GlobalTimer)) && error.code != ErrorCode::CanisterOutOfCycles {
        canister.system.global_timer = None;
    }
    let (refund, _) = message::attached(item);
    respond(canister, message::origin(item), Err(error), refund, context, turn);
}

/// Notes that an ingress message is being executed in slices.
pub(crate) fn note_processing(canister: &CanisterState, item: &WorkItem, context: &RoundContext, turn: &mut Turn) {
    if let WorkItem::Message(CanisterInput::Ingress(ingress)) = item {
        let receiver = canister.id();
        let status = IngressStatus {
            receiver,
            source: ingress.source,
            time: context.time,
            state: IngressState::Processing,
        };
        turn.set_status(ingress.message_id, status);
    }
}

/// Commits a call or task.
pub(crate) fn finish_call(
    canister: &mut CanisterState,
    item: &WorkItem,
    start: &StartingPoint,
    done: Box<WorkDone>,
    context: &RoundContext,
    turn: &mut Turn,
) {
    let WorkDone {
        result,
        changes,
        instructions,
        ..
    } = *done;
    if matches!(item, WorkItem::Task(SystemTask::GlobalTimer)) {
        canister.system.global_timer = None;
    }
    let (payment, caller_info) = message::attached(item);
    let origin = message::origin(item);
    let makes_calls = result.is_ok() && !changes.calls.is_empty();
    let limit = message::instructions_max(canister, item, context);
    let id = canister.system.calls.next_context();
    if makes_calls {
        canister
            .system
            .calls
            .open(origin.clone(), payment, start.time, caller_info);
        let result = settle(canister, id, result, changes, context);
        refund_unused(canister, (instructions, limit), start.prepaid, context);
        return finish_in_context(canister, id, origin, result, instructions, context, turn);
    }
    // It ends with this message: what it would have said of itself nobody could ever ask.
    canister.system.calls.last_call_context = id.0;
    let accepted = changes.cycles_accepted;
    let result = settle(canister, id, result, changes, context);
    refund_unused(canister, (instructions, limit), start.prepaid, context);
    let refund = match &result {
        Ok(_) => payment - accepted,
        Err(_) => payment,
    };
    let answer = match result {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(NoAnswer::DidNotReply),
        Err(error) => Err(NoAnswer::Failed(error)),
    };
    finish(canister, origin, answer, refund, context, turn);
}

/// Takes up a response: `None` where its call is not known any more (a best-effort call that has timed out, or a
/// canister without its code), which ends it here.
pub(crate) fn begin_response(
    canister: &mut CanisterState,
    response: &Response,
    context: &RoundContext,
) -> Option<StartingPoint> {
    let registered = canister
        .system
        .calls
        .callbacks
        .get(&response.originator_reply_callback)
        .cloned()?;
    let (refund, transmission) = message::response_refunds(&registered, response, context);
    let call_context = canister.system.calls.call_contexts.get(&registered.call_context);
    let is_dead = call_context.is_none_or(|call_context| call_context.deleted);
    if is_dead || canister.execution.is_none() {
        canister.system.calls.unregister(response.originator_reply_callback);
        give_back(canister, refund, transmission);
        let prepaid = registered.callback.prepayment_for_response_execution;
        let limit = context.message_instructions_max();
        refund_unused(canister, (NumInstructions::ZERO, limit), prepaid, context);
        canister
            .system
            .calls
            .message_finished(registered.call_context, Ok(None), NumInstructions::ZERO);
        return None;
    }
    let balance = canister.system.balance + refund + transmission.taken;
    Some(message::starting_point(canister, context, balance, Cycles::ZERO))
}

fn give_back(canister: &mut CanisterState, refund: Cycles, transmission: Fee) {
    canister.system.balance += refund;
    canister
        .system
        .refund(transmission, CyclesUseCase::RequestAndResponseTransmission);
}

/// Commits a response: the callback, and the cleanup where the callback failed and there is one.
pub(crate) fn finish_response(
    canister: &mut CanisterState,
    response: &Response,
    registered: &RegisteredCallback,
    done: Box<WorkDone>,
    cleanup: Option<Box<WorkDone>>,
    context: &RoundContext,
    turn: &mut Turn,
) {
    let (refund, transmission) = message::response_refunds(registered, response, context);
    canister.system.calls.unregister(response.originator_reply_callback);
    give_back(canister, refund, transmission);
    let id = registered.call_context;
    let WorkDone {
        result,
        changes,
        mut instructions,
        ..
    } = *done;
    let mut result = settle(canister, id, result, changes, context);
    if let (Err(callback_error), Some(cleanup)) = (&result, cleanup) {
        let WorkDone {
            result: cleanup_result,
            changes,
            instructions: used,
            ..
        } = *cleanup;
        instructions += used;
        let callback_error = callback_error.clone();
        result = match settle(canister, id, cleanup_result, changes, context) {
            Ok(_) => Err(callback_error),
            Err(cleanup_error) => Err(both_failed(&callback_error, &cleanup_error, canister.id())),
        };
    }
    refund_unused(
        canister,
        (instructions, context.message_instructions_max()),
        registered.callback.prepayment_for_response_execution,
        context,
    );
    let Some(call_context) = canister.system.calls.call_contexts.get(&id) else {
        return;
    };
    let origin = call_context.origin.clone();
    finish_in_context(canister, id, origin, result, instructions, context, turn);
}

/// The error of a callback whose cleanup failed too: both texts, without the advice that follows each.
fn both_failed(callback: &UserError, cleanup: &UserError, id: CanisterId) -> UserError {
    let prefix = format!("Error from Canister {id}: ");
    let cause = |error: &UserError| match error.description.rfind(".\n") {
        Some(end) => error.description[..end].to_string(),
        None => error.description.clone(),
    };
    let cleanup = cause(cleanup);
    let cleanup = cleanup.strip_prefix(&prefix).unwrap_or(&cleanup);
    UserError::new(
        callback.code,
        format!("{}\n\ncall_on_cleanup also failed:\n\n{cleanup}", cause(callback)),
    )
}

/// Applies what a message did, or finds that it failed.
fn settle(
    canister: &mut CanisterState,
    id: CallContextId,
    result: Result<Option<WasmResult>, ExecutionError>,
    mut changes: SystemChanges,
    context: &RoundContext,
) -> MessageResult {
    let canister_id = canister.id();
    let limit = canister.system.settings.log_memory_limit;
    for record in std::mem::take(&mut changes.log) {
        canister.system.log.push(record, limit);
    }
    let answer = result.map_err(|failed| error::from_canister(canister_id, &failed.error))?;
    let removed = changes.balance_taken + changes.cycles_burned + changes.cycles_reserved;
    let available = canister.system.balance + changes.cycles_accepted;
    if available < removed {
        // Only after a pause: what was charged meanwhile is missing now.
        return Err(error::out_of_cycles(canister_id, removed - available));
    }
    apply_changes(canister, id, changes, context);
    Ok(answer)
}

fn apply_changes(canister: &mut CanisterState, id: CallContextId, changes: SystemChanges, context: &RoundContext) {
    let grown = !changes.memory_growth.is_zero() || changes.low_wasm_memory;
    let (limit, width) = (context.message_instructions_max(), canister.width());
    let system = &mut canister.system;
    system.version += 1;
    if let Some(call_context) = system
        .calls
        .call_context_mut(id)
        .filter(|_| !changes.cycles_accepted.is_zero())
    {
        call_context.available_cycles -= changes.cycles_accepted;
    }
    system.balance += changes.cycles_accepted;
    system.balance -= changes.balance_taken;
    system.consume(changes.cycles_burned, CyclesUseCase::BurnedCycles);
    system.balance -= changes.cycles_reserved;
    system.reserved_balance += changes.cycles_reserved;
    if let Some(data) = changes.certified_data {
        system.certified_data = Payload::from(data);
    }
    if let Some(timer) = changes.global_timer {
        system.global_timer = timer;
    }
    for call in changes.calls {
        let bytes = NumBytes((call.request.method_name.len() + call.request.payload.len()) as u64);
        // What it takes is already out of the balance.
        let transmission = context.subnet.fee(|subnet| call_transmission_cost(subnet, bytes));
        let execution = context.subnet.fee(|subnet| subnet.execution_cost(limit, width));
        system
            .consumed
            .add(CyclesUseCase::RequestAndResponseTransmission, transmission.counted);
        system.consumed.add(CyclesUseCase::Instructions, execution.counted);
        system.calls.register(call.callback_id, id, call.callback);
        system
            .queues
            .push_output_request(Arc::new(addressed(call.request, context)));
    }
    if grown {
        footprint::update_low_memory_hook(canister);
    }
}

/// What a call prepays for its request of `bytes` bytes and the longest response.
fn call_transmission_cost(subnet: &SubnetConfig, bytes: NumBytes) -> Cycles {
    let longest_response = NumBytes(REPLY_BYTES_MAX as u64);
    subnet.call_fee() + subnet.transmission_cost(bytes) + subnet.transmission_cost(longest_response)
}

/// The subnet id is another name of the management canister.
fn addressed(mut request: Request, context: &RoundContext) -> Request {
    if request.receiver.0 == context.subnet_id.0 {
        request.receiver = CanisterId::MANAGEMENT;
    }
    request
}

/// Gives back what was prepaid for instructions that were not used, and counts those that were.
fn refund_unused(
    canister: &mut CanisterState,
    (used, limit): (NumInstructions, NumInstructions),
    prepaid: Cycles,
    context: &RoundContext,
) {
    canister.system.instructions_executed += used;
    let left = limit - used;
    let width = canister.width();
    let unused = context.subnet.fee(|subnet| subnet.instructions_cost(left, width));
    canister
        .system
        .refund(unused.at_most(prepaid), CyclesUseCase::Instructions);
}

fn finish_in_context(
    canister: &mut CanisterState,
    id: CallContextId,
    origin: CallOrigin,
    result: MessageResult,
    instructions: NumInstructions,
    context: &RoundContext,
    turn: &mut Turn,
) {
    let canister_id = canister.id();
    match canister.system.calls.message_finished(id, result, instructions) {
        CallContextAction::AlreadyResponded => {}
        CallContextAction::NotYetResponded => {
            if let CallOrigin::Ingress { source, message_id, .. } = origin {
                let (time, state) = (context.time, IngressState::Processing);
                turn.set_status(
                    message_id,
                    IngressStatus {
                        receiver: canister_id,
                        source,
                        time,
                        state,
                    },
                );
            }
        }
        CallContextAction::Respond(answer, refund) => finish(canister, origin, answer, refund, context, turn),
    }
}

/// Gives the answer of a call context that has one now, or ends without.
fn finish(
    canister: &mut CanisterState,
    origin: CallOrigin,
    answer: Result<WasmResult, NoAnswer>,
    refund: Cycles,
    context: &RoundContext,
    turn: &mut Turn,
) {
    let answer = answer.map_err(|no_answer| match no_answer {
        NoAnswer::Failed(error) => error,
        NoAnswer::DidNotReply => {
            let text = format!("Canister {} did not reply to the call", canister.id());
            UserError::new(ErrorCode::CanisterDidNotReply, text)
        }
    });
    respond(canister, origin, answer, refund, context, turn);
}

/// Gives the answer to whoever waits: a user's is a status, a canister's a message.
fn respond(
    canister: &mut CanisterState,
    origin: CallOrigin,
    answer: Result<WasmResult, UserError>,
    refund: Cycles,
    context: &RoundContext,
    turn: &mut Turn,
) {
    match origin {
        CallOrigin::Ingress { source, message_id, .. } => {
            let state = ingress_state(answer);
            let status = IngressStatus {
                receiver: canister.id(),
                source,
                time: context.time,
                state,
            };
            turn.set_status(message_id, status);
        }
        CallOrigin::Canister {
            sender,
            callback,
            deadline,
            ..
        } => {
            let response = Response {
                originator: sender,
                respondent: canister.id(),
                originator_reply_callback: callback,
                refund,
                payload: response_payload(answer),
                deadline,
            };
            canister.system.queues.push_output_response(Arc::new(response));
        }
        CallOrigin::SystemTask => {}
    }
}

/// An answer as a user reads it.
fn ingress_state(answer: Result<WasmResult, UserError>) -> IngressState {
    match answer {
        Ok(WasmResult::Reply(reply)) => IngressState::Completed(reply),
        Ok(WasmResult::Reject(text)) => IngressState::Failed(UserError {
            code: ErrorCode::CanisterRejectedMessage,
            description: text,
        }),
        Err(error) => IngressState::Failed(error),
    }
}

/// An answer as a calling canister reads it: errors of the system carry their code in the text, rejects do not.
pub(crate) fn response_payload(answer: Result<WasmResult, UserError>) -> ResponsePayload {
    match answer {
        Ok(WasmResult::Reply(reply)) => ResponsePayload::Data(reply),
        Ok(WasmResult::Reject(message)) => ResponsePayload::Reject(RejectContext {
            code: RejectCode::CanisterReject,
            message,
        }),
        Err(error) if error.code == ErrorCode::CanisterDidNotReply => ResponsePayload::Reject(RejectContext {
            code: RejectCode::CanisterError,
            message: "No response".into(),
        }),
        Err(error) => ResponsePayload::Reject(reject_of(&error)),
    }
}

/// An error as a calling canister reads it.
pub(crate) fn reject_of(error: &UserError) -> RejectContext {
    let text = UserError::new(error.code, error.to_string()).description;
    RejectContext {
        code: error.reject_code(),
        message: text,
    }
}
