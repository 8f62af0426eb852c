//! Threshold signatures and vetKeys.

use candid::{CandidType, Deserialize};
use replicore_types::PrincipalId;
use serde_bytes::ByteBuf;

/// Curves of ECDSA.
#[derive(Clone, Copy, Debug, CandidType, Deserialize)]
pub(crate) enum EcdsaCurve {
    #[serde(rename = "secp256k1")]
    Secp256k1,
}

/// An ECDSA key.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct EcdsaKeyId {
    pub curve: EcdsaCurve,
    pub name: String,
}

/// `ecdsa_public_key`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct EcdsaPublicKeyArgs {
    pub canister_id: Option<PrincipalId>,
    pub derivation_path: Vec<ByteBuf>,
    pub key_id: EcdsaKeyId,
}

/// `sign_with_ecdsa`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct SignWithEcdsaArgs {
    pub message_hash: ByteBuf,
    pub derivation_path: Vec<ByteBuf>,
    pub key_id: EcdsaKeyId,
}

/// Variants of Schnorr signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, CandidType, Deserialize)]
pub(crate) enum SchnorrAlgorithm {
    #[serde(rename = "bip340secp256k1")]
    Bip340Secp256k1,
    #[serde(rename = "ed25519")]
    Ed25519,
}

/// A Schnorr key.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct SchnorrKeyId {
    pub algorithm: SchnorrAlgorithm,
    pub name: String,
}

/// `schnorr_public_key`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct SchnorrPublicKeyArgs {
    pub canister_id: Option<PrincipalId>,
    pub derivation_path: Vec<ByteBuf>,
    pub key_id: SchnorrKeyId,
}

/// The script tree of a Taproot output.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct Bip341Aux {
    pub merkle_root_hash: ByteBuf,
}

/// What a Schnorr signature may depend on beside key and message.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) enum SchnorrAux {
    #[serde(rename = "bip341")]
    Bip341(Bip341Aux),
}

/// `sign_with_schnorr`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct SignWithSchnorrArgs {
    pub message: ByteBuf,
    pub derivation_path: Vec<ByteBuf>,
    pub key_id: SchnorrKeyId,
    pub aux: Option<SchnorrAux>,
}

/// Curves of vetKD.
#[derive(Clone, Copy, Debug, CandidType, Deserialize)]
pub(crate) enum VetKdCurve {
    #[serde(rename = "bls12_381_g2")]
    Bls12381G2,
}

/// A vetKD key.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct VetKdKeyId {
    pub curve: VetKdCurve,
    pub name: String,
}

/// `vetkd_public_key`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct VetKdPublicKeyArgs {
    pub canister_id: Option<PrincipalId>,
    pub context: ByteBuf,
    pub key_id: VetKdKeyId,
}

/// `vetkd_derive_key`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct VetKdDeriveKeyArgs {
    pub input: ByteBuf,
    pub context: ByteBuf,
    pub transport_public_key: ByteBuf,
    pub key_id: VetKdKeyId,
}

/// `ecdsa_public_key`, `schnorr_public_key`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct ExtendedPublicKeyResult {
    pub public_key: ByteBuf,
    pub chain_code: ByteBuf,
}

/// `vetkd_public_key`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct VetKdPublicKeyResult {
    pub public_key: ByteBuf,
}

/// `sign_with_ecdsa`, `sign_with_schnorr`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct SignatureResult {
    pub signature: ByteBuf,
}

/// `vetkd_derive_key`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct EncryptedKeyResult {
    pub encrypted_key: ByteBuf,
}
