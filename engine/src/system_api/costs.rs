//! What things would cost: answers from the fee table, nothing is charged for here but the instructions.

use super::Host;
use super::cycles::write;
use crate::trap::Failure;
use replicore_types::fees::HttpOutcallWork;
use replicore_types::limits::{MESSAGE_INSTRUCTIONS_MAX, REPLY_BYTES_MAX};
use replicore_types::{KeyName, NumBytes, NumInstructions, ThresholdAlgorithm, ThresholdKeyId};
use std::time::Duration;

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

/// How the parameters of [`http_request_v2`] begin: Candid of one record of five `nat64`, in the order of the hashes of
/// their names.
const HTTP_REQUEST_HEADER: [u8; 39] = *b"DIDL\x01\x6c\x05\
    \xbb\xa8\xd4\x84\x04\x78\xa1\x82\xa2\x91\x05\x78\x98\x91\x88\x98\x06\x78\xa4\xd9\xe6\xb9\x0a\x78\x95\x95\xdf\x9c\x0c\x78\
    \x01\x00";

/// Its parameters are one record, in the one encoding that it has unless types are declared that nothing uses. It is read
/// without the Candid library, which takes the stack that Wasm runs on for an exhausted one and refuses to begin.
pub(super) fn http_request_v2(host: &mut Host<'_, '_>, src: u64, size: u64, dst: u64) -> Answer {
    let work = host.with_heap("ic0.cost_http_request_v2 heap", src, size, |bytes, _| {
        http_request_work(bytes)
    })?;
    let Some(work) = work else {
        return Err(Failure::contract(
            "Failed to decode HttpRequestV2CostParams from Candid: it is not that record",
        ));
    };
    let cost = host.message().view.subnet.http_request_fee_v2(work);
    write(host, "cost_http_request_v2", dst, cost)
}

fn http_request_work(bytes: &[u8]) -> Option<HttpOutcallWork> {
    let (fields, rest) = bytes.strip_prefix(&HTTP_REQUEST_HEADER)?.as_chunks::<8>();
    let [request, transformed, transform, raw, roundtrip] = *<&[[u8; 8]; 5]>::try_from(fields).ok()?;
    rest.is_empty().then(|| HttpOutcallWork {
        request: NumBytes(u64::from_le_bytes(request)),
        roundtrip: Duration::from_millis(u64::from_le_bytes(roundtrip)),
        raw_response: NumBytes(u64::from_le_bytes(raw)),
        transformed_response: NumBytes(u64::from_le_bytes(transformed)),
        transform: NumInstructions(u64::from_le_bytes(transform)),
    })
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
    let name = host.read_heap(&format!("ic0.{function} heap"), src, size)?;
    if std::str::from_utf8(&name).is_err() {
        return Err(Failure::contract(format!(
            "Failed to decode key name {}",
            String::from_utf8_lossy(&name)
        )));
    }
    let name = KeyName::from_bytes(&name);
    let subnet = host.message().view.subnet;
    match (algorithm, name) {
        (None, _) => Ok(UNKNOWN_CURVE),
        (Some(algorithm), Some(name)) if subnet.threshold_keys.holds(ThresholdKeyId { algorithm, name }) => {
            write(host, function, dst, subnet.threshold_signature_fee())
        }
        _ => Ok(UNKNOWN_KEY),
    }
}
