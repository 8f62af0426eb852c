//! The ingress filter: what may enter a batch. Nothing is charged for asking.

use crate::context::RoundContext;
use crate::induct::{accepts_calls, out_of_cycles};
use crate::management::{self, error};
use crate::message;
use crate::state::{CanisterState, ReplicatedState};
use replicore_engine::{
    Call, CallContextView, EntryPoint, Execute, ExecutionOutcome, InstructionLimits, MethodKind, WorkDone,
};
use replicore_types::limits::INSPECT_MESSAGE_INSTRUCTIONS_MAX;
use replicore_types::{ErrorCode, Ingress, NumBytes, NumInstructions, Randomness, UserError};
use std::sync::Arc;

/// Whether an ingress message may enter a batch: its receiver exists, runs, has code, can pay, and accepts it.
///
/// # Errors
/// The rejection that the sender gets.
pub fn should_accept<E: Execute>(state: &ReplicatedState, engine: &E, message: &Ingress) -> Result<(), UserError> {
    let is_for_subnet = state.is_subnet(&message.receiver.0);
    check_fee(state, message, is_for_subnet)?;
    if is_for_subnet {
        return management::check_ingress(state, message);
    }
    let id = message.receiver;
    let canister = state.canister(&id).ok_or_else(|| error::canister_not_found(id))?;
    accepts_calls(id, &canister.system.status)?;
    let Some(execution) = &canister.execution else {
        return Err(UserError::new(
            ErrorCode::CanisterWasmModuleNotFound,
            "Requested canister has no wasm module",
        ));
    };
    if execution.interface.method(&message.method_name) == Some(MethodKind::CompositeQuery) {
        return Err(message::composite_query_called());
    }
    if execution.interface.has("canister_inspect_message") {
        return inspect(state, engine, canister, message);
    }
    Ok(())
}

fn check_fee(state: &ReplicatedState, message: &Ingress, is_for_subnet: bool) -> Result<(), UserError> {
    let payer = match is_for_subnet {
        true => management::ingress_payer(&message.method_name, &message.method_payload)?,
        false => Some(message.receiver),
    };
    let Some(payer) = payer else { return Ok(()) };
    let canister = state.canister(&payer).ok_or_else(|| error::canister_not_found(payer))?;
    let subnet = state.metadata.subnet;
    let fee = subnet.ingress_induction_cost(NumBytes(u64::from(message.envelope_bytes)));
    let needed = fee + canister.freezing_threshold(&subnet);
    match canister.system.balance.checked_sub(needed) {
        Some(_) => Ok(()),
        None => {
            let shows_amount = canister.system.is_controller(&message.source);
            Err(out_of_cycles(payer, needed - canister.system.balance, shows_amount))
        }
    }
}

/// Runs `canister_inspect_message` on a copy of the canister.
fn inspect<E: Execute>(
    state: &ReplicatedState,
    engine: &E,
    canister: &CanisterState,
    message: &Ingress,
) -> Result<(), UserError> {
    let Some(mut execution) = canister.execution.clone() else {
        return Err(error::no_module(canister.id()));
    };
    let context = RoundContext::new(state, Randomness::default());
    let start = message::starting_point(canister, &context, canister.system.balance, Default::default());
    let view = Arc::new(message::system_view(canister, &start, &context));
    let call = Call {
        entry_point: EntryPoint::InspectMessage {
            method: message.method_name.clone(),
            argument: message.method_payload.clone(),
        },
        caller: message.source,
        caller_info: message.sender_info.clone(),
        call_context: CallContextView::default(),
        message_id: Some(message.message_id),
        view: &view,
    };
    let limit = NumInstructions(INSPECT_MESSAGE_INSTRUCTIONS_MAX);
    let outcome = engine.execute(
        &mut execution,
        call,
        InstructionLimits {
            message: limit,
            slice: limit,
        },
    );
    let rejected = || {
        let text = format!("Error from Canister {}: Canister rejected the message", canister.id());
        UserError::new(ErrorCode::CanisterRejectedMessage, text)
    };
    let ExecutionOutcome::Finished(done) = outcome else {
        return Err(rejected());
    };
    let WorkDone { result, changes, .. } = *done;
    result.map_err(|failed| error::from_canister(canister.id(), &failed.error))?;
    if changes.accepted_message {
        Ok(())
    } else {
        Err(rejected())
    }
}
