//! One signature, one key, one answer.

use super::keys::{CanisterKey, CoseKey, PublicKey};
use super::{Certificates, canister_signature, ed25519_keys, webauthn};
use ring::signature as ring_signature;
use sha2::{Digest, Sha256};

/// Why a signature does not count.
pub(super) type BadSignature = String;

/// Verifies that `signature` is one of `key` over `payload`. `certificates` is asked where certificates are
/// involved.
pub(super) fn verify(
    key: &PublicKey<'_>,
    payload: &[u8],
    signature: &[u8],
    certificates: &Certificates<'_>,
) -> Result<(), BadSignature> {
    match key {
        PublicKey::Ed25519(key) => ed25519(key, payload, signature).map_err(basic),
        PublicKey::P256(key) => {
            ring_verify(&ring_signature::ECDSA_P256_SHA256_FIXED, key, payload, signature).map_err(basic)
        }
        PublicKey::Secp256k1(key) => secp256k1(key, payload, signature).map_err(basic),
        PublicKey::WebAuthn(key) => webauthn::verify(key, payload, signature),
        PublicKey::Canister(key) => canister(key, payload, signature, certificates),
    }
}

pub(super) fn basic(reason: &'static str) -> BadSignature {
    format!("Invalid basic signature: {reason}")
}

/// Verifies a canister signature.
pub(super) fn canister(
    key: &CanisterKey<'_>,
    payload: &[u8],
    signature: &[u8],
    certificates: &Certificates<'_>,
) -> Result<(), BadSignature> {
    canister_signature::verify(key, payload, signature, certificates)
        .map_err(|reason| format!("Invalid canister signature: {reason}"))
}

/// By the rules of ZIP 215, whose single and batch verification accept the same signatures.
pub(super) fn ed25519(key: &[u8; 32], payload: &[u8], signature: &[u8]) -> Result<(), &'static str> {
    let key = ed25519_zebra::VerificationKey::try_from(*key).map_err(|_| "the Ed25519 key is not a curve point")?;
    ed25519_keys::verify(&key, payload, signature)
}

/// Both values of `s` that verify are accepted: older clients do not choose the lower one.
fn secp256k1(key: &[u8; 65], payload: &[u8], signature: &[u8]) -> Result<(), &'static str> {
    let key = secp256k1::PublicKey::from_slice(key).map_err(|_| "the secp256k1 key is not a curve point")?;
    let mut signature = secp256k1::ecdsa::Signature::from_compact(signature)
        .map_err(|_| "a secp256k1 signature has two 32-byte numbers below the group order")?;
    signature.normalize_s();
    let digest = secp256k1::Message::from_digest(Sha256::digest(payload).into());
    signature
        .verify(digest, &key)
        .map_err(|_| "the secp256k1 signature could not be verified")
}

/// ECDSA on P-256 with SHA-256, in the signature encoding of `algorithm`.
pub(super) fn ring_verify(
    algorithm: &'static dyn ring_signature::VerificationAlgorithm,
    key: &[u8],
    payload: &[u8],
    signature: &[u8],
) -> Result<(), &'static str> {
    ring_signature::UnparsedPublicKey::new(algorithm, key)
        .verify(payload, signature)
        .map_err(|_| "the ECDSA P-256 signature could not be verified")
}

/// The keys that WebAuthn authenticators sign with.
pub(super) fn cose(key: &CoseKey<'_>, payload: &[u8], signature: &[u8]) -> Result<(), &'static str> {
    match key {
        CoseKey::Es256(key) => ring_verify(&ring_signature::ECDSA_P256_SHA256_ASN1, key, payload, signature),
        CoseKey::EdDsa(key) => ed25519(key, payload, signature),
        CoseKey::Rs256 { modulus, exponent } => rsa(strip_zeros(modulus), strip_zeros(exponent), payload, signature),
    }
}

/// Bits of the smallest modulus. The library rounds a modulus up to whole bytes before it compares; production does not.
const RSA_BITS_MIN: usize = 2_048;

fn rsa(modulus: &[u8], exponent: &[u8], payload: &[u8], signature: &[u8]) -> Result<(), &'static str> {
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if 8 * modulus.len() - unused < RSA_BITS_MIN {
        return Err("the RSA modulus is shorter than 2048 bits");
    }
    let (n, e) = (modulus, exponent);
    ring_signature::RsaPublicKeyComponents { n, e }
        .verify(&ring_signature::RSA_PKCS1_2048_8192_SHA256, payload, signature)
        .map_err(|_| "the RSA signature could not be verified")
}

/// COSE allows leading zeros, the library does not.
fn strip_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    &number[zeros..]
}
