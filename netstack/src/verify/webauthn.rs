//! Web Authentication: the payload is the challenge in what an authenticator signs.

use super::keys::CoseKey;
use super::schemes::{BadSignature, cose};
use crate::envelope::{DecodeError, Reader};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// Bytes of authenticator data and client data together; real ones have a few hundred.
const ASSERTION_BYTES_MAX: usize = 64 * 1024;

struct Assertion<'a> {
    authenticator_data: Cow<'a, [u8]>,
    /// A text by the specification; clients send the bytes that the browser gave them.
    client_data_json: Cow<'a, [u8]>,
    signature: Cow<'a, [u8]>,
}

/// What the browser says of the assertion. Only the challenge matters here; the other two concern web sites, and have to
/// be there, as in production.
#[derive(Deserialize)]
struct ClientData<'a> {
    #[serde(borrow)]
    challenge: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    _kind: Cow<'a, str>,
    #[serde(rename = "origin", borrow)]
    _origin: Cow<'a, str>,
}

/// Verifies an assertion over `payload`.
pub(super) fn verify(key: &CoseKey<'_>, payload: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
    let assertion = Assertion::read(signature).map_err(|error| format!("Invalid WebAuthn signature: {error}"))?;
    let mut signed = assertion.authenticator_data.into_owned();
    if signed.len() + assertion.client_data_json.len() > ASSERTION_BYTES_MAX {
        return Err("Invalid WebAuthn signature: the assertion is too large".into());
    }
    let client_data: ClientData<'_> = serde_json::from_slice(&assertion.client_data_json)
        .map_err(|error| format!("Invalid WebAuthn signature: client_data_json: {error}"))?;
    if client_data.challenge.trim_end_matches('=') != base64url(payload) {
        return Err("Invalid WebAuthn signature: the challenge is not the signed payload".into());
    }
    signed.extend_from_slice(&Sha256::digest(&assertion.client_data_json));
    cose(key, &signed, &assertion.signature).map_err(|reason| format!("Invalid WebAuthn signature: {reason}"))
}

impl<'a> Assertion<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (mut authenticator_data, mut client_data_json, mut signature) = (None, None, None);
        let mut reader = Reader::new(bytes)?;
        reader.map(|reader, key| {
            match key {
                "authenticator_data" => authenticator_data = Some(reader.bytes()?),
                "client_data_json" => client_data_json = Some(reader.bytes_or_text()?),
                "signature" => signature = Some(reader.bytes()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        let missing = || DecodeError::new("authenticator_data, client_data_json and signature are required");
        Ok(Self {
            authenticator_data: authenticator_data.ok_or_else(missing)?,
            client_data_json: client_data_json.ok_or_else(missing)?,
            signature: signature.ok_or_else(missing)?,
        })
    }
}

/// The URL-safe base64 encoding without padding (RFC 4648, section 5).
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_data_has_what_browsers_put_there() {
        let read = |text: &str| serde_json::from_str::<ClientData<'_>>(text).map(|data| data.challenge.into_owned());
        let whole =
            r#"{"type":"webauthn.get","challenge":"aGVsbG8","origin":"https://example.org","crossOrigin":false}"#;
        assert_eq!(read(whole).unwrap(), "aGVsbG8");
        for missing in ["type", "challenge", "origin"] {
            assert!(read(&whole.replace(missing, "other")).is_err(), "without {missing}");
        }
    }

    #[test]
    fn base64url_is_that_of_the_standard() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg"),
            (b"fo", "Zm8"),
            (b"foo", "Zm9v"),
            (b"foobar", "Zm9vYmFy"),
            (&[0xff, 0xef], "_-8"),
        ] {
            assert_eq!(base64url(bytes), text);
        }
    }
}
