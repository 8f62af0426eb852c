//! Threshold signatures and vetKeys.
//!
//! Public keys are answered at once: they follow from the subnet's master public keys, which are part of the state.
//! Signatures and vetKeys need secrets that no round may see. The call is put aside; the process that holds the secrets
//! finds it in the certified state, and its answer comes with a later batch.

use super::error;
use super::types::{
    self, EcdsaPublicKeyArgs, EncryptedKeyResult, ExtendedPublicKeyResult, SchnorrAlgorithm, SchnorrAux,
    SchnorrPublicKeyArgs, SignWithEcdsaArgs, SignWithSchnorrArgs, SignatureResult, VetKdDeriveKeyArgs,
    VetKdPublicKeyArgs, VetKdPublicKeyResult,
};
use super::work::{Reply, Work};
use crate::state::{SubnetCallKind, SubnetMessage};
use crate::threshold::{self, ThresholdOperation, ThresholdRequest, vetkd};
use replicore_types::limits::{DERIVATION_PATH_ELEMENTS_MAX, THRESHOLD_REQUESTS_MAX};
use replicore_types::{
    CanisterId, KeyName, Payload, PrincipalId, RejectCode, RejectContext, SubnetConfig, ThresholdAlgorithm,
    ThresholdKeyId, UserError,
};
use serde_bytes::ByteBuf;
use std::sync::Arc;

/// `ecdsa_public_key`
pub(crate) fn ecdsa_public_key<E>(work: &Work<'_, E>, args: &EcdsaPublicKeyArgs) -> Result<Vec<u8>, UserError> {
    let key = held(work, ThresholdAlgorithm::EcdsaSecp256k1, &args.key_id.name)?;
    extended_public_key(work, key, args.canister_id, &args.derivation_path)
}

/// `schnorr_public_key`
pub(crate) fn schnorr_public_key<E>(work: &Work<'_, E>, args: &SchnorrPublicKeyArgs) -> Result<Vec<u8>, UserError> {
    let key = held(work, schnorr(args.key_id.algorithm), &args.key_id.name)?;
    extended_public_key(work, key, args.canister_id, &args.derivation_path)
}

/// `vetkd_public_key`
pub(crate) fn vetkd_public_key<E>(work: &Work<'_, E>, args: &VetKdPublicKeyArgs) -> Result<Vec<u8>, UserError> {
    let key = held(work, ThresholdAlgorithm::VetKdBls12381G2, &args.key_id.name)?;
    let canister = args.canister_id.unwrap_or(work.caller.principal);
    let master: &[u8; vetkd::PUBLIC_KEY_BYTES] = master_key(work, key)?.try_into().map_err(|_| not_held(work, key))?;
    let derived = vetkd::derive(master, canister.as_slice(), &args.context).ok_or_else(|| not_held(work, key))?;
    types::encode(VetKdPublicKeyResult {
        public_key: ByteBuf::from(derived.public_key.to_compressed()),
    })
}

/// `sign_with_ecdsa`
pub(crate) fn sign_with_ecdsa<E>(work: &mut Work<'_, E>, args: SignWithEcdsaArgs) -> Result<Reply, UserError> {
    let key = held(work, ThresholdAlgorithm::EcdsaSecp256k1, &args.key_id.name)?;
    let message_hash = args.message_hash.as_slice().try_into().map_err(|_| {
        error::invalid_payload(format!(
            "Error decoding candid: message_hash has {} bytes, expected 32",
            args.message_hash.len()
        ))
    })?;
    let path = checked_path(&args.derivation_path)?;
    ask(work, key, ThresholdOperation::SignHash { path, message_hash })
}

/// `sign_with_schnorr`
pub(crate) fn sign_with_schnorr<E>(work: &mut Work<'_, E>, args: SignWithSchnorrArgs) -> Result<Reply, UserError> {
    let algorithm = args.key_id.algorithm;
    let key = held(work, schnorr(algorithm), &args.key_id.name)?;
    let merkle_root = match (algorithm, args.aux) {
        (_, None) => None,
        (SchnorrAlgorithm::Ed25519, Some(_)) => {
            return Err(error::rejected("Schnorr algorithm Ed25519 does not support aux input"));
        }
        (SchnorrAlgorithm::Bip340Secp256k1, Some(SchnorrAux::Bip341(aux))) => match aux.merkle_root_hash.len() {
            0 | 32 => Some(aux.merkle_root_hash.into_vec()),
            _ => return Err(error::rejected("Invalid aux field for Bip340Secp256k1")),
        },
    };
    let path = checked_path(&args.derivation_path)?;
    let message = args.message.into_vec().into();
    ask(
        work,
        key,
        ThresholdOperation::SignMessage {
            path,
            message,
            merkle_root,
        },
    )
}

/// `vetkd_derive_key`
pub(crate) fn vetkd_derive_key<E>(work: &mut Work<'_, E>, args: VetKdDeriveKeyArgs) -> Result<Reply, UserError> {
    let key = held(work, ThresholdAlgorithm::VetKdBls12381G2, &args.key_id.name)?;
    let transport_key: &[u8] = &args.transport_public_key;
    let transport_key: &[u8; vetkd::TRANSPORT_KEY_BYTES] = transport_key.try_into().map_err(|_| {
        error::invalid_payload(format!(
            "Error decoding candid: transport_public_key has {} bytes, expected {}",
            args.transport_public_key.len(),
            vetkd::TRANSPORT_KEY_BYTES
        ))
    })?;
    if !vetkd::is_transport_key(transport_key) {
        return Err(error::rejected("The provided transport public key is invalid."));
    }
    let operation = ThresholdOperation::DeriveVetKey {
        transport_public_key: transport_key[..].into(),
        context: args.context.into_vec().into(),
        input: args.input.into_vec().into(),
    };
    ask(work, key, operation)
}

/// What the caller of a request gets: the signature or the encrypted key as Candid.
///
/// # Errors
/// None in practice; see [`crate::management`].
pub fn threshold_reply(operation: &ThresholdOperation, bytes: Vec<u8>) -> Result<Payload, UserError> {
    let bytes = ByteBuf::from(bytes);
    let reply = match operation {
        ThresholdOperation::SignHash { .. } | ThresholdOperation::SignMessage { .. } => {
            types::encode(SignatureResult { signature: bytes })
        }
        ThresholdOperation::DeriveVetKey { .. } => types::encode(EncryptedKeyResult { encrypted_key: bytes }),
    };
    reply.map(Payload::from)
}

/// Why a call names a key that no subnet holds; `None` for all other calls. Such a call has no destination: it fails
/// where it is made.
pub(crate) fn unroutable(subnet: &SubnetConfig, method: &str, payload: &[u8]) -> Option<RejectContext> {
    use ThresholdAlgorithm::{EcdsaSecp256k1, VetKdBls12381G2};
    let (algorithm, name, signs) = match method {
        "ecdsa_public_key" => (
            EcdsaSecp256k1,
            decoded::<EcdsaPublicKeyArgs>(payload)?.key_id.name,
            false,
        ),
        "sign_with_ecdsa" => (EcdsaSecp256k1, decoded::<SignWithEcdsaArgs>(payload)?.key_id.name, true),
        "schnorr_public_key" => {
            let key = decoded::<SchnorrPublicKeyArgs>(payload)?.key_id;
            (schnorr(key.algorithm), key.name, false)
        }
        "sign_with_schnorr" => {
            let key = decoded::<SignWithSchnorrArgs>(payload)?.key_id;
            (schnorr(key.algorithm), key.name, true)
        }
        "vetkd_public_key" => (
            VetKdBls12381G2,
            decoded::<VetKdPublicKeyArgs>(payload)?.key_id.name,
            false,
        ),
        "vetkd_derive_key" => (
            VetKdBls12381G2,
            decoded::<VetKdDeriveKeyArgs>(payload)?.key_id.name,
            true,
        ),
        _ => return None,
    };
    let is_held = |name| subnet.threshold_keys.holds(ThresholdKeyId { algorithm, name });
    if KeyName::from_bytes(name.as_bytes()).is_some_and(is_held) {
        return None;
    }
    let mut existing: Vec<String> = subnet.threshold_keys.iter().map(|key| key.to_string()).collect();
    existing.sort_unstable();
    let (unknown, keys) = match signs {
        true => ("unknown or disabled", "existing enabled keys"),
        false => ("unknown", "existing keys"),
    };
    Some(RejectContext {
        code: RejectCode::DestinationInvalid,
        message: format!(
            "Unable to route management canister request {method}: ChainKeyError(\"Requested {unknown} threshold key: \
             {}:{name}, {keys}: [{}]\")",
            algorithm.as_str(),
            existing.join(", ")
        ),
    })
}

/// An argument that does not decode is no matter of routes: execution refuses it.
fn decoded<T: candid::CandidType + for<'de> candid::Deserialize<'de>>(payload: &[u8]) -> Option<T> {
    types::decode(payload).ok()
}

fn schnorr(algorithm: SchnorrAlgorithm) -> ThresholdAlgorithm {
    match algorithm {
        SchnorrAlgorithm::Bip340Secp256k1 => ThresholdAlgorithm::SchnorrBip340,
        SchnorrAlgorithm::Ed25519 => ThresholdAlgorithm::SchnorrEd25519,
    }
}

/// The key with this name, if the subnet holds it.
fn held<E>(work: &Work<'_, E>, algorithm: ThresholdAlgorithm, name: &str) -> Result<ThresholdKeyId, UserError> {
    let keys = work.subnet().threshold_keys;
    KeyName::from_bytes(name.as_bytes())
        .map(|name| ThresholdKeyId { algorithm, name })
        .filter(|key| keys.holds(*key))
        .ok_or_else(|| not_held(work, format!("{}:{name}", algorithm.as_str())))
}

fn not_held<E>(work: &Work<'_, E>, key: impl std::fmt::Display) -> UserError {
    let subnet = work.state.metadata.subnet_id;
    error::rejected(format!("Subnet {subnet} does not hold threshold key {key}."))
}

fn master_key<'a, E>(work: &'a Work<'_, E>, key: ThresholdKeyId) -> Result<&'a [u8], UserError> {
    let keys = &work.state.metadata.threshold_public_keys;
    keys.get(&key).map(|bytes| &**bytes).ok_or_else(|| not_held(work, key))
}

fn extended_public_key<E>(
    work: &Work<'_, E>,
    key: ThresholdKeyId,
    canister: Option<PrincipalId>,
    path: &[ByteBuf],
) -> Result<Vec<u8>, UserError> {
    let canister = CanisterId(canister.unwrap_or(work.caller.principal));
    let path = checked_path(path)?;
    let derived = threshold::extended_public_key(key.algorithm, master_key(work, key)?, canister, &path)
        .ok_or_else(|| not_held(work, key))?;
    types::encode(ExtendedPublicKeyResult {
        public_key: ByteBuf::from(derived.public_key),
        chain_code: ByteBuf::from(derived.chain_code),
    })
}

fn checked_path(path: &[ByteBuf]) -> Result<Vec<Vec<u8>>, UserError> {
    if path.len() > DERIVATION_PATH_ELEMENTS_MAX {
        return Err(error::invalid_payload(format!(
            "Error decoding candid: The number of elements exceeds maximum allowed {DERIVATION_PATH_ELEMENTS_MAX}"
        )));
    }
    Ok(path.iter().map(|element| element.to_vec()).collect())
}

/// Charges for a request and puts it aside for whoever holds the key.
fn ask<E>(work: &mut Work<'_, E>, key: ThresholdKeyId, operation: ThresholdOperation) -> Result<Reply, UserError> {
    let method = match work.message {
        SubnetMessage::Ingress(ingress) => &ingress.method_name,
        SubnetMessage::Request(request) => &request.method_name,
    };
    let fee = work.subnet().threshold_signature_fee();
    let Some(left) = work.cycles.checked_sub(fee) else {
        return Err(error::request_underpaid(method, work.cycles, fee));
    };
    let contexts = work.state.subnet.call_contexts.values();
    let waiting =
        contexts.filter(|context| matches!(&context.kind, SubnetCallKind::Threshold(other) if other.key == key));
    if waiting.count() >= THRESHOLD_REQUESTS_MAX {
        return Err(error::rejected(format!(
            "{method} request failed: request queue for key {key} is full."
        )));
    }
    work.cycles = left;
    Ok(work.wait_for(SubnetCallKind::Threshold(Arc::new(ThresholdRequest { key, operation }))))
}
