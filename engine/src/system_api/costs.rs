//! What things would cost: answers from the fee table, nothing is charged for here but the instructions.

use super::Host;
use super::cycles::write;
use crate::trap::{Advice, Failure};
use replicore_types::limits::{MESSAGE_INSTRUCTIONS_MAX, REPLY_BYTES_MAX};
use replicore_types::{KeyName, NumBytes, NumInstructions, ThresholdAlgorithm, ThresholdKeyId};

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
    let curves = [ThresholdAlgorithm::EcdsaSecp256k1];
    signature(host, "cost_sign_with_ecdsa", (src, size), known(&curves, curve), dst)
}

pub(super) fn sign_with_schnorr(host: &mut Host<'_, '_>, src: u64, size: u64, algorithm: u64, dst: u64) -> Answer {
    let algorithms = [ThresholdAlgorithm::SchnorrBip340, ThresholdAlgorithm::SchnorrEd25519];
    let algorithm = known(&algorithms, algorithm);
    signature(host, "cost_sign_with_schnorr", (src, size), algorithm, dst)
}

pub(super) fn vetkd_derive_key(host: &mut Host<'_, '_>, src: u64, size: u64, curve: u64, dst: u64) -> Answer {
    let curves = [ThresholdAlgorithm::VetKdBls12381G2];
    signature(host, "cost_vetkd_derive_key", (src, size), known(&curves, curve), dst)
}

/// The curve or algorithm with this number; `None` for one that the protocol does not know.
fn known(algorithms: &[ThresholdAlgorithm], number: u64) -> Option<ThresholdAlgorithm> {
    algorithms.get(usize::try_from(number).ok()?).copied()
}

/// The price of a signature with the key that is named at `src`, where the subnet holds it.
fn signature(
    host: &mut Host<'_, '_>,
    function: &str,
    (src, size): (u64, u64),
    algorithm: Option<ThresholdAlgorithm>,
    dst: u64,
) -> Answer {
    let name = host.with_heap(&format!("ic0.{function}"), src, size, |bytes, _| {
        KeyName::from_bytes(bytes)
    })?;
    let subnet = host.message().view.subnet;
    match (algorithm, name) {
        (None, _) => Ok(UNKNOWN_CURVE),
        (Some(algorithm), Some(name)) if subnet.threshold_keys.holds(ThresholdKeyId { algorithm, name }) => {
            write(host, function, dst, subnet.threshold_signature_fee())
        }
        _ => Ok(UNKNOWN_KEY),
    }
}
