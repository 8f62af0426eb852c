//! Cycles: what came with the message, what the canister holds, what it burns.

use super::Host;
use crate::EntryPoint;
use crate::trap::{Failure, TrapCode};
use replicore_types::{CanisterId, Cycles};

type Answer = Result<u64, Failure>;

/// Index of the cycles minting canister, the only one that may mint.
const CYCLES_MINTING_CANISTER: u64 = 4;

pub(super) fn available128(host: &mut Host<'_, '_>, dst: u64) -> Answer {
    let available = available_now(host);
    write(host, "msg_cycles_available128", dst, available)
}

pub(super) fn available(host: &mut Host<'_, '_>) -> Answer {
    narrow(available_now(host))
}

pub(super) fn refunded128(host: &mut Host<'_, '_>, dst: u64) -> Answer {
    let refund = refund(host);
    write(host, "msg_cycles_refunded128", dst, refund)
}

pub(super) fn refunded(host: &mut Host<'_, '_>) -> Answer {
    narrow(refund(host))
}

pub(super) fn accept128(host: &mut Host<'_, '_>, high: u64, low: u64, dst: u64) -> Answer {
    let accepted = accept_up_to(host, wide(high, low));
    write(host, "msg_cycles_accept128", dst, accepted)
}

pub(super) fn accept(host: &mut Host<'_, '_>, amount: u64) -> Answer {
    narrow(accept_up_to(host, Cycles(u128::from(amount))))
}

/// Burns what may be burned without freezing the canister.
pub(super) fn burn128(host: &mut Host<'_, '_>, high: u64, low: u64, dst: u64) -> Answer {
    let message = host.message();
    let burned = wide(high, low).min(message.liquid_balance());
    message.cycles_burned += burned;
    write(host, "cycles_burn128", dst, burned)
}

pub(super) fn mint128(host: &mut Host<'_, '_>, high: u64, low: u64, dst: u64) -> Answer {
    let minting = CanisterId::from_index(CYCLES_MINTING_CANISTER);
    let message = host.message();
    if message.view.canister_id != minting {
        return Err(Failure::contract(format!(
            "ic0.mint_cycles128 cannot be executed on non Cycles Minting Canister: {} != {minting}",
            message.view.canister_id
        )));
    }
    let room = Cycles(u128::MAX) - message.balance();
    let minted = wide(high, low).min(room);
    message.cycles_minted += minted;
    write(host, "mint_cycles_128", dst, minted)
}

pub(super) fn balance128(host: &mut Host<'_, '_>, dst: u64) -> Answer {
    host.message().reads.balance = true;
    let balance = host.message().balance();
    write(host, "canister_cycle_balance128", dst, balance)
}

pub(super) fn balance(host: &mut Host<'_, '_>) -> Answer {
    host.message().reads.balance = true;
    narrow(host.message().balance())
}

pub(super) fn liquid_balance128(host: &mut Host<'_, '_>, dst: u64) -> Answer {
    host.message().reads.balance = true;
    let liquid = host.message().liquid_balance();
    write(host, "canister_liquid_cycle_balance128", dst, liquid)
}

/// An amount from its two halves.
pub(super) fn wide(high: u64, low: u64) -> Cycles {
    Cycles(u128::from(high) << 64 | u128::from(low))
}

/// Writes an amount as 16 bytes, little endian.
pub(super) fn write(host: &mut Host<'_, '_>, function: &str, dst: u64, amount: Cycles) -> Answer {
    let bytes = amount.get().to_le_bytes();
    host.check_heap_exists()?;
    let heap_bytes = host.heap_bytes();
    if dst.checked_add(bytes.len() as u64).is_none_or(|end| end > heap_bytes) {
        // There is no space between the two sentences.
        return Err(Failure::contract(format!(
            "ic0_{function} failed because dst + size is out of bounds.Found dst = {dst} and size = {} while must be \
             <= {heap_bytes}",
            bytes.len()
        )));
    }
    host.write_heap(function, dst, &bytes)?;
    Ok(0)
}

fn narrow(amount: Cycles) -> Answer {
    u64::try_from(amount.get()).map_err(|_| Failure::Trapped(TrapCode::CyclesAmountTooBigFor64Bit))
}

fn available_now(host: &mut Host<'_, '_>) -> Cycles {
    let message = host.message();
    message.call_context.available_cycles - message.cycles_accepted
}

fn refund(host: &mut Host<'_, '_>) -> Cycles {
    match host.message().entry_point {
        EntryPoint::Callback { refund, .. } => refund,
        _ => Cycles::ZERO,
    }
}

fn accept_up_to(host: &mut Host<'_, '_>, amount: Cycles) -> Cycles {
    let accepted = amount.min(available_now(host));
    host.message().cycles_accepted += accepted;
    accepted
}
