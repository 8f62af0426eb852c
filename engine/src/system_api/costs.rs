//! What things would cost: answers from the fee table, nothing is charged for here but the instructions.

use super::Host;
use super::cycles::write;
use crate::trap::{Advice, Failure};
use replicore_types::limits::{MESSAGE_INSTRUCTIONS_MAX, REPLY_BYTES_MAX};
use replicore_types::{NumBytes, NumInstructions, ThresholdKeys};

type Answer = Result<u64, Failure>;

/// Answer for a curve or algorithm that the protocol does not know.
const UNKNOWN_CURVE: u64 = 1;
/// Answer for a key name that no subnet holds.
const UNKNOWN_KEY: u64 = 2;

pub(super) fn call(host: &mut Host<'_, '_>, name_size: u64, payload_size: u64, dst: u64) -> Answer {
    let message = host.message();
    let subnet = &message.view.subnet;
    let request = NumBytes(name_size.saturating_add(payload_size));
    let cost = subnet.call_fee()
        + subnet.transmission_cost(request)
        + subnet.transmission_cost(NumBytes(REPLY_BYTES_MAX as u64))
        + subnet.execution_cost(NumInstructions(MESSAGE_INSTRUCTIONS_MAX), message.width);
    write(host, "cost_call", dst, cost)
}

pub(super) fn create_canister(host: &mut Host<'_, '_>, dst: u64) -> Answer {
    let cost = host.message().view.subnet.canister_creation_fee();
    write(host, "cost_create_canister", dst, cost)
}

pub(super) fn http_request(host: &mut Host<'_, '_>, request_size: u64, response_size_max: u64, dst: u64) -> Answer {
    let cost = host
        .message()
        .view
        .subnet
        .http_request_fee(NumBytes(request_size), NumBytes(response_size_max));
    write(host, "cost_http_request", dst, cost)
}

/// Its parameters are Candid; canisters that use it fall back to `cost_http_request` where it is refused.
pub(super) fn http_request_v2(host: &mut Host<'_, '_>, src: u64, size: u64, _dst: u64) -> Answer {
    host.with_heap("ic0.cost_http_request_v2", src, size, |_, _| ())?;
    Err(Failure::Contract(
        "ic0.cost_http_request_v2 is not available on this subnet".into(),
        Advice::None,
    ))
}

pub(super) fn sign_with_ecdsa(host: &mut Host<'_, '_>, src: u64, size: u64, curve: u64, dst: u64) -> Answer {
    let keys = host.message().view.subnet.threshold_keys;
    let curves = [keys.ecdsa_secp256k1];
    signature(host, "cost_sign_with_ecdsa", (src, size), held(&curves, curve), dst)
}

pub(super) fn sign_with_schnorr(host: &mut Host<'_, '_>, src: u64, size: u64, algorithm: u64, dst: u64) -> Answer {
    let keys = host.message().view.subnet.threshold_keys;
    let algorithms = [keys.schnorr_bip340secp256k1, keys.schnorr_ed25519];
    signature(
        host,
        "cost_sign_with_schnorr",
        (src, size),
        held(&algorithms, algorithm),
        dst,
    )
}

pub(super) fn vetkd_derive_key(host: &mut Host<'_, '_>, src: u64, size: u64, curve: u64, dst: u64) -> Answer {
    let keys = host.message().view.subnet.threshold_keys;
    let curves = [keys.vetkd_bls12_381_g2];
    signature(host, "cost_vetkd_derive_key", (src, size), held(&curves, curve), dst)
}

/// Whether the subnet holds a key of this curve or algorithm; `None` for one that the protocol does not know.
fn held(keys: &[bool], curve: u64) -> Option<bool> {
    keys.get(usize::try_from(curve).ok()?).copied()
}

/// The price of a signature with the key that is named at `src`, where the subnet holds it.
fn signature(host: &mut Host<'_, '_>, function: &str, (src, size): (u64, u64), held: Option<bool>, dst: u64) -> Answer {
    let is_name = |bytes: &[u8]| bytes == ThresholdKeys::NAME.as_bytes();
    let is_named = host.with_heap(&format!("ic0.{function}"), src, size, |bytes, _| is_name(bytes))?;
    match held {
        None => Ok(UNKNOWN_CURVE),
        Some(true) if is_named => {
            let fee = host.message().view.subnet.threshold_signature_fee();
            write(host, function, dst, fee)
        }
        Some(_) => Ok(UNKNOWN_KEY),
    }
}
