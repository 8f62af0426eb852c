//! Start, stop, uninstall, delete.

use super::types::{CanisterIdArgs, UninstallCodeArgs};
use super::work::{Reply, Work};
use super::{Answer, error};
use crate::state::{
    CallOrigin, CanisterChange, CanisterState, CanisterStatus, ChangeDetails, ChangeOrigin, ChunkStore, LowMemoryHook,
    StopContext,
};
use replicore_types::{CanisterId, Cycles, ErrorCode, Payload, Time, UserError};
use std::sync::Arc;

/// `stop_canister`: answered when the last call context is closed, at the end of this round at the earliest.
pub(crate) fn stop<E>(work: &mut Work<'_, E>, args: &CanisterIdArgs) -> Result<Reply, UserError> {
    let id = CanisterId(args.canister_id);
    work.check_controller(id)?;
    let context = stop_context(work);
    let system = &mut work.canister_mut(id)?.system;
    // A new version each time, also where nothing changes.
    system.version += 1;
    match &mut system.status {
        CanisterStatus::Stopped => return Ok(Reply::empty()),
        CanisterStatus::Stopping(contexts) => contexts.push(context),
        CanisterStatus::Running => system.status = CanisterStatus::Stopping(vec![context]),
    }
    Ok(Reply::Later)
}

fn stop_context<E>(work: &Work<'_, E>) -> StopContext {
    let started = work.now();
    match &work.caller.origin {
        CallOrigin::Canister {
            sender,
            callback,
            deadline,
            ..
        } => StopContext::Canister {
            sender: *sender,
            callback: *callback,
            cycles: work.cycles,
            deadline: *deadline,
            started,
        },
        CallOrigin::Ingress { source, message_id, .. } => StopContext::Ingress {
            sender: *source,
            message_id: *message_id,
            started,
        },
        // Nobody but users and canisters calls the management canister.
        CallOrigin::SystemTask => StopContext::Ingress {
            sender: CanisterId::MANAGEMENT.0,
            message_id: replicore_types::MessageId([0; 32]),
            started,
        },
    }
}

/// The answer to everybody who waits for a stop.
pub(crate) fn stop_answer(context: StopContext, result: Result<Payload, UserError>) -> Answer {
    let method_name = "stop_canister".to_owned();
    let (origin, refund) = match context {
        StopContext::Ingress { sender, message_id, .. } => (
            CallOrigin::Ingress {
                source: sender,
                message_id,
                method_name,
            },
            Cycles::ZERO,
        ),
        StopContext::Canister {
            sender,
            callback,
            cycles,
            deadline,
            ..
        } => (
            CallOrigin::Canister {
                sender,
                callback,
                deadline,
                method_name,
            },
            cycles,
        ),
    };
    Answer {
        respondent: CanisterId::MANAGEMENT,
        origin,
        result,
        refund,
    }
}

/// `start_canister`: cancels stops that have not finished.
pub(crate) fn start<E>(work: &mut Work<'_, E>, args: &CanisterIdArgs) -> Result<Reply, UserError> {
    let id = CanisterId(args.canister_id);
    work.check_controller(id)?;
    let system = &mut work.canister_mut(id)?.system;
    system.version += 1;
    if let CanisterStatus::Stopping(contexts) = std::mem::replace(&mut system.status, CanisterStatus::Running) {
        let cancelled = || {
            let text = format!("Canister {id}'s stop request was cancelled.");
            UserError::new(ErrorCode::CanisterStoppingCancelled, text)
        };
        work.answers.extend(
            contexts
                .into_iter()
                .map(|context| stop_answer(context, Err(cancelled()))),
        );
    }
    Ok(Reply::empty())
}

/// `uninstall_code`
pub(crate) fn uninstall<E>(work: &mut Work<'_, E>, args: &UninstallCodeArgs) -> Result<Reply, UserError> {
    let id = CanisterId(args.canister_id);
    work.check_controller(id)?;
    let origin = work.change_origin(args.sender_canister_version);
    let now = work.now();
    let answers = remove_code(work.canister_mut(id)?, origin, now);
    work.answers.extend(answers);
    Ok(Reply::empty())
}

/// Takes code and state from a canister and ends the calls that it has not answered. Returns their answers.
///
/// The management canister as the origin stands for the subnet, which does so to canisters that cannot pay: nothing is
/// left then that would have to be paid for.
pub(crate) fn remove_code(canister: &mut CanisterState, origin: ChangeOrigin, now: Time) -> Vec<Answer> {
    canister.execution = None;
    let system = &mut canister.system;
    system.chunk_store = ChunkStore::default();
    system.certified_data = Payload::default();
    system.global_timer = None;
    system.log.clear();
    system.tasks.clear();
    system.low_memory_hook = LowMemoryHook::NotSatisfied;
    system.version += 1;
    let history = Arc::make_mut(&mut system.history);
    if matches!(
        origin,
        ChangeOrigin::Canister {
            canister: CanisterId::MANAGEMENT,
            ..
        }
    ) {
        history.clear();
        system.snapshots = Arc::default();
    } else {
        let (canister_version, details) = (system.version, ChangeDetails::CodeUninstall);
        history.push(CanisterChange {
            timestamp: now,
            canister_version,
            origin,
            details,
        });
    }
    end_calls(canister)
}

/// Rejects every call without an answer, and marks all contexts so that their callbacks do not run.
fn end_calls(canister: &mut CanisterState) -> Vec<Answer> {
    let respondent = canister.system.canister_id;
    let calls = &mut canister.system.calls;
    let mut answers = Vec::new();
    let ids: Vec<_> = calls.call_contexts.keys().copied().collect();
    for id in ids {
        let Some(context) = calls.call_contexts.get_mut(&id) else {
            continue;
        };
        let context = Arc::make_mut(context);
        if !context.responded && !matches!(context.origin, CallOrigin::SystemTask) {
            answers.push(Answer {
                respondent,
                origin: context.origin.clone(),
                result: Err(error::rejected("Canister has been uninstalled.")),
                refund: std::mem::take(&mut context.available_cycles),
            });
        }
        context.responded = true;
        context.deleted = true;
        if context.open_callbacks == 0 {
            calls.call_contexts.remove(&id);
        }
    }
    answers
}

/// `delete_canister`: its cycles are lost.
pub(crate) fn delete<E>(work: &mut Work<'_, E>, args: &CanisterIdArgs) -> Result<Reply, UserError> {
    let id = CanisterId(args.canister_id);
    if work.caller.canister == Some(id) {
        return Err(error::deletes_itself(id));
    }
    let system = &work.check_controller(id)?.system;
    if system.status != CanisterStatus::Stopped {
        return Err(error::not_stopped(id));
    }
    if system.queues.has_input() || system.queues.has_output() || system.queues.has_open_calls() {
        return Err(error::queues_not_empty(id));
    }
    let gone = system.balance + system.reserved_balance + system.consumed.total();
    work.state.metadata.metrics.consumed_without_canister += gone;
    work.state.remove_canister(&id);
    Ok(Reply::empty())
}
