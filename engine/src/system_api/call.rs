//! Calls: prepared with `call_new`, filled, and handed over with `call_perform`.

use super::Host;
use super::cycles::wide;
use super::message_state::{CallInPreparation, MessageState};
use crate::trap::{Advice, Failure, METHOD_NAME_TOO_LARGE, PAYLOAD_TOO_LARGE};
use crate::{OutgoingCall, WasmClosure};
use replicore_types::limits::{
    CALL_TIMEOUT_MAX, LOCAL_REQUEST_BYTES_MAX, MESSAGE_INSTRUCTIONS_MAX, METHOD_NAME_BYTES_MAX, QUEUE_CAPACITY,
    REPLY_BYTES_MAX, SYSTEM_MESSAGE_INSTRUCTIONS_MAX,
};
use replicore_types::{
    CanisterId, CoarseTime, Cycles, NumBytes, NumInstructions, Payload, PrincipalId, Request, SubnetType,
};
use std::time::Duration;

type Answer = Result<u64, Failure>;

/// Answer of `call_perform` where the call was taken.
const PERFORMED: u64 = 0;
/// Answer of `call_perform` where the call cannot be made now: no room, or too few cycles.
const NOT_PERFORMED: u64 = 2;
const PRINCIPAL_BYTES_MAX: usize = 29;

#[expect(clippy::too_many_arguments, reason = "the signature is the protocol's")]
pub(super) fn new(
    host: &mut Host<'_, '_>,
    callee_src: u64,
    callee_size: u64,
    name_src: u64,
    name_size: u64,
    reply_fun: u64,
    reply_env: u64,
    reject_fun: u64,
    reject_env: u64,
) -> Answer {
    drop_prepared(host);
    host.message().reads.resources = true;
    if name_size > METHOD_NAME_BYTES_MAX as u64 {
        return Err(Failure::Contract(
            format!("Size of method_name {name_size} exceeds the allowed limit of {METHOD_NAME_BYTES_MAX}."),
            METHOD_NAME_TOO_LARGE,
        ));
    }
    let name = host.read_heap("ic0.call_new method_name", name_src, name_size)?;
    let method_name = String::from_utf8_lossy(&name).into_owned();
    let callee = host.with_heap("ic0.call_new callee_src", callee_src, callee_size, |bytes, _| {
        (bytes.len() <= PRINCIPAL_BYTES_MAX).then(|| PrincipalId::from_slice(bytes))
    })?;
    let Some(callee) = callee else {
        return Err(Failure::ContractInFull(
            "Canister provided invalid principal id".into(),
            Advice::Toolchain,
        ));
    };
    host.message().call = Some(CallInPreparation {
        callee,
        method_name,
        payload: Vec::new(),
        cycles: Cycles::ZERO,
        on_reply: closure(reply_fun, reply_env),
        on_reject: closure(reject_fun, reject_env),
        on_cleanup: None,
        timeout_seconds: None,
    });
    Ok(0)
}

pub(super) fn on_cleanup(host: &mut Host<'_, '_>, fun: u64, env: u64) -> Answer {
    let call = prepared(host, "ic0.call_on_cleanup")?;
    if call.on_cleanup.is_some() {
        return Err(Failure::contract(
            "ic0.call_on_cleanup can be called at most once between `ic0.call_new` and `ic0.call_perform`",
        ));
    }
    call.on_cleanup = Some(closure(fun, env));
    Ok(0)
}

pub(super) fn data_append(host: &mut Host<'_, '_>, src: u64, size: u64) -> Answer {
    let call = prepared(host, "ic0.call_data_append")?;
    let used = call.payload_bytes() as u64;
    if size > (LOCAL_REQUEST_BYTES_MAX as u64).saturating_sub(used) {
        return Err(payload_too_large(call, used.saturating_add(size)));
    }
    host.with_heap("ic0.call_data_append", src, size, |bytes, running| {
        if let Some(call) = &mut running.message.call {
            call.payload.extend_from_slice(bytes);
        }
    })?;
    Ok(0)
}

pub(super) fn with_best_effort_response(host: &mut Host<'_, '_>, timeout_seconds: u64) -> Answer {
    let call = prepared(host, "ic0.call_with_best_effort_response")?;
    if call.timeout_seconds.is_some() {
        return Err(Failure::contract(
            "ic0_call_with_best_effort_response failed because a timeout is already set.",
        ));
    }
    let timeout_max = CALL_TIMEOUT_MAX.as_secs();
    call.timeout_seconds = Some(timeout_seconds.min(timeout_max) as u32);
    Ok(0)
}

pub(super) fn cycles_add(host: &mut Host<'_, '_>, amount: u64) -> Answer {
    add_cycles(host, Cycles(u128::from(amount)), "ic0_call_cycles_add")
}

pub(super) fn cycles_add128(host: &mut Host<'_, '_>, high: u64, low: u64) -> Answer {
    add_cycles(host, wide(high, low), "ic0_call_cycles_add128")
}

pub(super) fn perform(host: &mut Host<'_, '_>) -> Answer {
    let message = host.message();
    let Some(call) = message.call.take() else {
        return Err(Failure::contract(
            "ic0.call_perform called when no call is under construction.",
        ));
    };
    // The attached cycles go back first and are taken again with the fees: a call that is not made costs nothing.
    message.cycles_taken -= call.cycles;
    match price(message, &call) {
        Some(price) => {
            hand_over(message, call, price);
            Ok(PERFORMED)
        }
        None => Ok(NOT_PERFORMED),
    }
}

/// What a call takes from the balance beside the attached cycles.
struct Price {
    transmission: Cycles,
    response_execution: Cycles,
    response_transmission: Cycles,
}

impl Price {
    fn fees(&self) -> Cycles {
        self.transmission + self.response_execution + self.response_transmission
    }
}

/// The price, where there is room for the call and the balance can carry it without freezing the canister.
fn price(message: &MessageState, call: &CallInPreparation) -> Option<Price> {
    let subnet = &message.view.subnet;
    let instructions_max = match subnet.subnet_type {
        SubnetType::System => SYSTEM_MESSAGE_INSTRUCTIONS_MAX,
        _ => MESSAGE_INSTRUCTIONS_MAX,
    };
    let price = Price {
        transmission: subnet.call_fee() + subnet.transmission_cost(NumBytes(call.payload_bytes() as u64)),
        response_execution: subnet.execution_cost(NumInstructions(instructions_max), message.width),
        response_transmission: subnet.transmission_cost(NumBytes(REPLY_BYTES_MAX as u64)),
    };
    // The room that the call takes counts already: keeping it must not freeze the canister either.
    let liquid = message.liquid_balance_with(message_memory(call));
    if price.fees() + call.cycles > liquid {
        return None;
    }
    let receiver = CanisterId(call.callee);
    let free = message
        .view
        .free_slots
        .get(&receiver)
        .copied()
        .unwrap_or(QUEUE_CAPACITY);
    let has_slot = message.slots_used.get(&receiver).copied().unwrap_or(0) < free;
    let has_callback = message.calls.len() < message.view.free_callbacks;
    let has_memory = message.message_memory_growth + message_memory(call) <= message.view.memory.message_memory_free;
    (has_slot && has_callback && has_memory).then_some(price)
}

/// Memory that a call takes until it is answered: a guaranteed response has its room from the beginning.
fn message_memory(call: &CallInPreparation) -> NumBytes {
    let room = match call.timeout_seconds {
        None => REPLY_BYTES_MAX,
        Some(_) => 0,
    };
    NumBytes(call.payload_bytes().max(room) as u64)
}

fn hand_over(message: &mut MessageState, call: CallInPreparation, price: Price) {
    let deadline = call
        .timeout_seconds
        .map(|seconds| CoarseTime::floor(message.view.time.plus(Duration::from_secs(u64::from(seconds)))));
    message.message_memory_growth += message_memory(&call);
    let callback_id = message.next_callback_id();
    let callback = call.callback(deadline, (price.response_execution, price.response_transmission));
    message.cycles_taken = message.cycles_taken + price.fees() + call.cycles;
    let request = Request {
        receiver: CanisterId(call.callee),
        sender: message.view.canister_id,
        sender_reply_callback: callback_id,
        payment: call.cycles,
        method_name: call.method_name,
        payload: Payload::from(call.payload),
        deadline,
    };
    message.push_call(OutgoingCall {
        request,
        callback_id,
        callback,
        transmission_fee: price.transmission,
    });
}

fn add_cycles(host: &mut Host<'_, '_>, amount: Cycles, function: &str) -> Answer {
    prepared(host, function)?;
    let message = host.message();
    if amount > message.liquid_balance() && !amount.is_zero() {
        return Err(Failure::OutOfCycles(message.view.canister_id));
    }
    message.cycles_taken += amount;
    if let Some(call) = &mut message.call {
        call.cycles += amount;
    }
    Ok(0)
}

/// Forgets a call that was prepared and not performed; its cycles return.
fn drop_prepared(host: &mut Host<'_, '_>) {
    let message = host.message();
    if let Some(call) = message.call.take() {
        message.cycles_taken -= call.cycles;
    }
}

fn prepared<'h>(host: &'h mut Host<'_, '_>, function: &str) -> Result<&'h mut CallInPreparation, Failure> {
    host.message()
        .call
        .as_mut()
        .ok_or_else(|| Failure::contract(format!("{function} called when no call is under construction.")))
}

fn payload_too_large(call: &CallInPreparation, bytes: u64) -> Failure {
    Failure::Contract(
        format!(
            "Request to {}:{} has a payload size of {bytes}, which exceeds the allowed limit of \
             {LOCAL_REQUEST_BYTES_MAX}.",
            call.callee, call.method_name
        ),
        PAYLOAD_TOO_LARGE,
    )
}

/// Indices above 32 bits name no function that a table could hold; they are kept as the largest one.
fn closure(function: u64, environment: u64) -> WasmClosure {
    WasmClosure {
        function: function.min(u64::from(u32::MAX)),
        environment,
    }
}
