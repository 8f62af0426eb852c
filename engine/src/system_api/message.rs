//! The message itself: argument, caller, answer; inspection.

use super::Host;
use super::message_state::Response;
use crate::trap::{Failure, REJECT_TOO_LARGE, REPLY_TOO_LARGE};
use crate::{EntryPoint, ResponseView};
use replicore_types::{Payload, WasmResult};

type Answer = Result<u64, Failure>;

pub(super) fn argument_size(host: &mut Host<'_, '_>) -> Answer {
    Ok(host.message().argument().len() as u64)
}

pub(super) fn argument_copy(host: &mut Host<'_, '_>, dst: u64, offset: u64, size: u64) -> Answer {
    host.copy_out(
        ("ic0.msg_arg_data_copy payload", "ic0.msg_arg_data_copy heap"),
        (dst, offset, size),
        |running| running.message.argument(),
    )
}

pub(super) fn caller_size(host: &mut Host<'_, '_>) -> Answer {
    Ok(host.message().caller.as_slice().len() as u64)
}

pub(super) fn caller_copy(host: &mut Host<'_, '_>, dst: u64, offset: u64, size: u64) -> Answer {
    host.copy_out(
        ("ic0.msg_caller_copy id", "ic0.msg_caller_copy heap"),
        (dst, offset, size),
        |running| running.message.caller.as_slice(),
    )
}

pub(super) fn caller_info_data_size(host: &mut Host<'_, '_>) -> Answer {
    Ok(host
        .message()
        .caller_info
        .as_ref()
        .map_or(0, |(data, _)| data.len() as u64))
}

pub(super) fn caller_info_data_copy(host: &mut Host<'_, '_>, dst: u64, offset: u64, size: u64) -> Answer {
    let names = (
        "ic0.msg_caller_info_data_copy info",
        "ic0.msg_caller_info_data_copy heap",
    );
    host.copy_out(names, (dst, offset, size), |running| {
        running
            .message
            .caller_info
            .as_ref()
            .map_or(&[][..], |(data, _)| data.as_slice())
    })
}

pub(super) fn caller_info_signer_size(host: &mut Host<'_, '_>) -> Answer {
    Ok(host
        .message()
        .caller_info
        .as_ref()
        .map_or(0, |(_, signer)| signer.as_slice().len() as u64))
}

pub(super) fn caller_info_signer_copy(host: &mut Host<'_, '_>, dst: u64, offset: u64, size: u64) -> Answer {
    let names = (
        "ic0.msg_caller_info_signer_copy signer",
        "ic0.msg_caller_info_signer_copy heap",
    );
    host.copy_out(names, (dst, offset, size), |running| {
        running
            .message
            .caller_info
            .as_ref()
            .map_or(&[][..], |(_, signer)| signer.as_slice())
    })
}

/// Zero after a reply, in cleanup too.
pub(super) fn reject_code(host: &mut Host<'_, '_>) -> Answer {
    Ok(match host.message().callback_response() {
        Some(ResponseView::Reject(reject)) => reject.code as u64,
        _ => 0,
    })
}

pub(super) fn reject_message_size(host: &mut Host<'_, '_>) -> Answer {
    Ok(host.message().reject().map_or(0, |reject| reject.message.len() as u64))
}

pub(super) fn reject_message_copy(host: &mut Host<'_, '_>, dst: u64, offset: u64, size: u64) -> Answer {
    host.copy_out(
        ("ic0.msg_reject_msg_copy msg", "ic0.msg_reject_msg_copy heap"),
        (dst, offset, size),
        |running| {
            running
                .message
                .reject()
                .map_or(&[][..], |reject| reject.message.as_bytes())
        },
    )
}

/// Nanoseconds; zero for calls with a guaranteed response.
pub(super) fn deadline(host: &mut Host<'_, '_>) -> Answer {
    Ok(host
        .message()
        .call_context
        .deadline
        .map_or(0, |deadline| deadline.to_time().as_nanos()))
}

pub(super) fn reply_data_append(host: &mut Host<'_, '_>, src: u64, size: u64) -> Answer {
    // The full stop is the protocol's; `msg_reply` and `msg_reject` have none.
    check_open(host, "ic0.msg_reply_data_append", ".")?;
    let (used, bytes_max) = (
        host.message().reply_data.len() as u64,
        host.message().reply_bytes_max() as u64,
    );
    if size > bytes_max.saturating_sub(used) {
        return Err(Failure::Contract(
            format!(
                "ic0.msg_reply_data_append: application payload size ({}) cannot be larger than {bytes_max}.",
                used.saturating_add(size)
            ),
            REPLY_TOO_LARGE,
        ));
    }
    host.with_heap("msg.reply", src, size, |bytes, running| {
        running.message.reply_data.extend_from_slice(bytes)
    })?;
    Ok(0)
}

pub(super) fn reply(host: &mut Host<'_, '_>) -> Answer {
    check_open(host, "ic0.msg_reply", "")?;
    let message = host.message();
    let data = std::mem::take(&mut message.reply_data);
    message.response = Response::Given(WasmResult::Reply(Payload::from(data)));
    Ok(0)
}

pub(super) fn reject(host: &mut Host<'_, '_>, src: u64, size: u64) -> Answer {
    check_open(host, "ic0.msg_reject", "")?;
    let bytes_max = host.message().reply_bytes_max() as u64;
    if size > bytes_max {
        return Err(Failure::Contract(
            format!("ic0.msg_reject: application payload size ({size}) cannot be larger than {bytes_max}."),
            REJECT_TOO_LARGE,
        ));
    }
    let text = host.read_heap("ic0.msg_reject", src, size)?;
    let text =
        String::from_utf8(text).map_err(|_| Failure::contract("ic0.msg_reject: invalid UTF-8 string provided"))?;
    host.message().response = Response::Given(WasmResult::Reject(text));
    Ok(0)
}

pub(super) fn method_name_size(host: &mut Host<'_, '_>) -> Answer {
    Ok(method_name(&host.message().entry_point).len() as u64)
}

pub(super) fn method_name_copy(host: &mut Host<'_, '_>, dst: u64, offset: u64, size: u64) -> Answer {
    let names = ("ic0.msg_method_name_copy payload", "ic0.msg_method_name_copy heap");
    host.copy_out(names, (dst, offset, size), |running| {
        method_name(&running.message.entry_point).as_bytes()
    })
}

pub(super) fn accept(host: &mut Host<'_, '_>) -> Answer {
    let message = host.message();
    if message.accepted_message {
        return Err(Failure::contract(
            "ic0.accept_message: the function was already called.",
        ));
    }
    message.accepted_message = true;
    Ok(0)
}

fn method_name(entry_point: &EntryPoint) -> &str {
    match entry_point {
        EntryPoint::InspectMessage { method, .. } => method,
        _ => "",
    }
}

fn check_open(host: &mut Host<'_, '_>, function: &str, ending: &str) -> Result<(), Failure> {
    match host.message().response {
        Response::Open => Ok(()),
        Response::Earlier | Response::Given(_) => Err(Failure::contract(format!(
            "{function}: the call is already replied{ending}"
        ))),
    }
}
