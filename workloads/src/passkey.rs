//! Passkeys: P-256 keys that sign as authenticators do in a browser (WebAuthn), for a session key.

use crate::Identity;
use crate::identity::delegation_bytes;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minicbor::Encoder;
use sha2::{Digest, Sha256};

/// What stands before a COSE key of 77 bytes in SubjectPublicKeyInfo (algorithm 1.3.6.1.4.1.56387.1.1).
const DER_PREFIX: [u8; 19] = [
    0x30, 0x5e, 0x30, 0x0c, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xb8, 0x43, 0x01, 0x01, 0x03, 0x4e, 0x00,
];
const ORIGIN: &str = "https://example.org";
/// In authenticator data: the user was present and verified.
const PRESENT_AND_VERIFIED: u8 = 0b101;

/// A new passkey's user, signing with a session key made from `secret` until `expiration` in nanoseconds since 1970.
///
/// # Errors
/// The machine has no randomness.
pub fn session(secret: [u8; 32], expiration: u64) -> Result<Identity, aws_lc_rs::error::Unspecified> {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random)?;
    let passkey = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref()).map_err(|_| aws_lc_rs::error::Unspecified)?;
    let session = Identity::from_secret(secret);
    let challenge = URL_SAFE_NO_PAD.encode(delegation_bytes(session.public_key_der(), expiration));
    let client_data = format!(r#"{{"type":"webauthn.get","challenge":"{challenge}","origin":"{ORIGIN}"}}"#);
    let mut authenticator_data = Sha256::digest(b"example.org").to_vec();
    authenticator_data.extend([PRESENT_AND_VERIFIED, 0, 0, 0, 1]);
    let signed = [&authenticator_data[..], &Sha256::digest(client_data.as_bytes())[..]].concat();
    let signature = passkey.sign(&random, &signed)?;
    let signature = assertion(&authenticator_data, &client_data, signature.as_ref());
    let public_key = [&DER_PREFIX[..], &cose_key(passkey.public_key().as_ref())[..]].concat();
    Ok(session.for_user(public_key, expiration, signature))
}

/// The signature as envelopes carry it.
fn assertion(authenticator_data: &[u8], client_data: &str, signature: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    let mut write = || -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        encoder.tag(minicbor::data::Tag::new(55_799))?.map(3)?;
        encoder.str("authenticator_data")?.bytes(authenticator_data)?;
        encoder.str("client_data_json")?.str(client_data)?;
        encoder.str("signature")?.bytes(signature)?;
        Ok(())
    };
    let written = write();
    debug_assert!(written.is_ok(), "writing to memory does not fail");
    encoder.into_writer()
}

/// A COSE key (RFC 9053, 7.1) from an uncompressed point: an elliptic curve key for ES256 on P-256.
fn cose_key(point: &[u8]) -> Vec<u8> {
    let (x, y) = point[1..].split_at(32);
    let mut encoder = Encoder::new(Vec::new());
    let mut write = || -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        encoder.map(5)?;
        encoder.i8(1)?.i8(2)?;
        encoder.i8(3)?.i8(-7)?;
        encoder.i8(-1)?.i8(1)?;
        encoder.i8(-2)?.bytes(x)?;
        encoder.i8(-3)?.bytes(y)?;
        Ok(())
    };
    let written = write();
    debug_assert!(written.is_ok(), "writing to memory does not fail");
    encoder.into_writer()
}
