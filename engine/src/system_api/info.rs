//! The canister, the subnet, time, counters.

use super::Host;
use crate::trap::{Advice, Failure};
use replicore_types::{PrincipalId, Time};

type Answer = Result<u64, Failure>;

pub(super) fn self_size(host: &mut Host<'_, '_>) -> Answer {
    Ok(host.message().view.canister_id.as_slice().len() as u64)
}

pub(super) fn self_copy(host: &mut Host<'_, '_>, dst: u64, offset: u64, size: u64) -> Answer {
    let names = ("ic0.canister_self_copy id", "ic0.canister_self_copy heap");
    host.copy_out(names, (dst, offset, size), |running| {
        running.message.view.canister_id.as_slice()
    })
}

pub(super) fn subnet_size(host: &mut Host<'_, '_>) -> Answer {
    Ok(host.message().view.subnet_id.as_slice().len() as u64)
}

pub(super) fn subnet_copy(host: &mut Host<'_, '_>, dst: u64, offset: u64, size: u64) -> Answer {
    let names = ("ic0.subnet_self_copy id", "ic0.subnet_self_copy heap");
    host.copy_out(names, (dst, offset, size), |running| {
        running.message.view.subnet_id.as_slice()
    })
}

pub(super) fn status(host: &mut Host<'_, '_>) -> Answer {
    Ok(u64::from(host.message().view.status))
}

pub(super) fn version(host: &mut Host<'_, '_>) -> Answer {
    Ok(host.message().view.version)
}

pub(super) fn root_key_size(host: &mut Host<'_, '_>) -> Answer {
    Ok(host.message().view.root_key.len() as u64)
}

pub(super) fn root_key_copy(host: &mut Host<'_, '_>, dst: u64, offset: u64, size: u64) -> Answer {
    let names = ("ic0.root_key_copy bytes", "ic0.root_key_copy heap");
    host.copy_out(names, (dst, offset, size), |running| &running.message.view.root_key)
}

pub(super) fn time(host: &mut Host<'_, '_>) -> Answer {
    let message = host.message();
    message.reads.time = true;
    Ok(message.view.time.as_nanos())
}

/// The deadline that was set before; zero stands for "off" in both directions.
pub(super) fn global_timer_set(host: &mut Host<'_, '_>, deadline: u64) -> Answer {
    let message = host.message();
    let before = message.global_timer.unwrap_or(message.view.global_timer);
    message.global_timer = Some((deadline != 0).then_some(Time(deadline)));
    Ok(before.map_or(0, Time::as_nanos))
}

/// Counter 0: this message; counter 1: every message of the call context so far.
pub(super) fn performance_counter(host: &mut Host<'_, '_>, counter: u64) -> Answer {
    let executed = host.instructions_executed();
    match counter {
        0 => Ok(executed),
        1 => Ok(executed.saturating_add(host.message().call_context.instructions_executed.get())),
        _ => Err(Failure::Contract(
            format!("Error getting performance counter type {counter}"),
            Advice::None,
        )),
    }
}

pub(super) fn is_controller(host: &mut Host<'_, '_>, src: u64, size: u64) -> Answer {
    let bytes = host.read_heap("ic0.is_controller", src, size)?;
    let Ok(principal) = PrincipalId::try_from_slice(&bytes) else {
        return Err(Failure::ContractInFull(
            "Canister provided invalid principal id".into(),
            Advice::Toolchain,
        ));
    };
    Ok(u64::from(host.message().view.controllers.contains(&principal)))
}

pub(super) fn in_replicated_execution(host: &mut Host<'_, '_>) -> Answer {
    Ok(u64::from(host.message().mode.is_replicated()))
}
