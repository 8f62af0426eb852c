//! Requests as the interface specification encodes them: content, request id, signed envelope.

use crate::Identity;
use candid::Principal;
use minicbor::Encoder;
use sha2::{Digest, Sha256};

/// What kind of request it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An update call.
    Call,
    /// A query.
    Query,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Query => "query",
        }
    }
}

/// The content of a call or query.
#[derive(Clone, Debug)]
pub struct Content<'a> {
    /// Call or query.
    pub kind: Kind,
    /// The canister addressed.
    pub canister: Principal,
    /// The method.
    pub method: &'a str,
    /// The argument.
    pub argument: &'a [u8],
    /// Nanoseconds since 1970 after which the request is void.
    pub ingress_expiry: u64,
    /// Makes two otherwise equal calls different.
    pub nonce: [u8; 16],
}

/// A request ready to be sent.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The envelope's CBOR.
    pub envelope: Vec<u8>,
    /// The request id.
    pub request_id: [u8; 32],
}

impl Content<'_> {
    /// Signs the content.
    pub fn sign(&self, identity: &Identity) -> Signed {
        let request_id = self.request_id(&identity.principal());
        let signature = identity.sign(&[b"\x0Aic-request", &request_id[..]].concat());
        Signed {
            envelope: self.envelope(identity, &signature),
            request_id,
        }
    }

    fn request_id(&self, sender: &Principal) -> [u8; 32] {
        hash_of_map(&mut [
            ("request_type", hash(self.kind.as_str().as_bytes())),
            ("sender", hash(sender.as_slice())),
            ("canister_id", hash(self.canister.as_slice())),
            ("method_name", hash(self.method.as_bytes())),
            ("arg", hash(self.argument)),
            ("ingress_expiry", hash(&leb128(self.ingress_expiry))),
            ("nonce", hash(&self.nonce)),
        ])
    }

    fn envelope(&self, identity: &Identity, signature: &[u8; 64]) -> Vec<u8> {
        let bytes = Vec::with_capacity(self.argument.len() + 400);
        let mut encoder = Encoder::new(bytes);
        let written = self.write(&mut encoder, identity, signature);
        debug_assert!(written.is_ok(), "writing to memory does not fail");
        encoder.into_writer()
    }

    fn write(&self, encoder: &mut Encoder<Vec<u8>>, identity: &Identity, signature: &[u8; 64]) -> Written {
        encoder
            .tag(minicbor::data::Tag::new(55_799))?
            .map(signature_fields(identity) + 1)?
            .str("content")?
            .map(7)?;
        encoder.str("request_type")?.str(self.kind.as_str())?;
        encoder.str("sender")?.bytes(identity.principal().as_slice())?;
        encoder.str("canister_id")?.bytes(self.canister.as_slice())?;
        encoder.str("method_name")?.str(self.method)?;
        encoder.str("arg")?.bytes(self.argument)?;
        encoder.str("ingress_expiry")?.u64(self.ingress_expiry)?;
        encoder.str("nonce")?.bytes(&self.nonce)?;
        write_signature(encoder, identity, signature)
    }
}

type Written = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// How many fields of the envelope say who signed.
fn signature_fields(identity: &Identity) -> u64 {
    match (identity.is_anonymous(), identity.delegation()) {
        (true, _) => 0,
        (false, None) => 2,
        (false, Some(_)) => 3,
    }
}

fn write_signature(encoder: &mut Encoder<Vec<u8>>, identity: &Identity, signature: &[u8; 64]) -> Written {
    if identity.is_anonymous() {
        return Ok(());
    }
    encoder.str("sender_pubkey")?.bytes(identity.public_key_der())?;
    encoder.str("sender_sig")?.bytes(signature)?;
    if let Some(delegation) = identity.delegation() {
        encoder.str("sender_delegation")?.array(1)?.map(2)?;
        encoder.str("delegation")?.map(2)?;
        encoder.str("pubkey")?.bytes(&delegation.public_key_der)?;
        encoder.str("expiration")?.u64(delegation.expiration)?;
        encoder.str("signature")?.bytes(&delegation.signature)?;
    }
    Ok(())
}

/// The signed envelope of a `read_state` for what became of a request. Who sent it may ask.
pub fn read_request_status(identity: &Identity, request_id: &[u8; 32], ingress_expiry: u64) -> Vec<u8> {
    let path = hash(&[hash(b"request_status"), hash(request_id)].concat());
    let content_id = hash_of_map(&mut [
        ("request_type", hash(b"read_state")),
        ("sender", hash(identity.principal().as_slice())),
        ("paths", hash(&path)),
        ("ingress_expiry", hash(&leb128(ingress_expiry))),
    ]);
    let signature = identity.sign(&[b"\x0Aic-request", &content_id[..]].concat());
    let mut encoder = Encoder::new(Vec::with_capacity(400));
    let mut write = || -> Written {
        encoder
            .tag(minicbor::data::Tag::new(55_799))?
            .map(signature_fields(identity) + 1)?
            .str("content")?
            .map(4)?;
        encoder.str("request_type")?.str("read_state")?;
        encoder.str("sender")?.bytes(identity.principal().as_slice())?;
        encoder.str("paths")?.array(1)?.array(2)?;
        encoder.bytes(b"request_status")?.bytes(request_id)?;
        encoder.str("ingress_expiry")?.u64(ingress_expiry)?;
        write_signature(&mut encoder, identity, &signature)
    };
    let written = write();
    debug_assert!(written.is_ok(), "writing to memory does not fail");
    encoder.into_writer()
}

/// The envelope of an anonymous `read_state` for `/time`.
pub fn anonymous_read_time(ingress_expiry: u64) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::with_capacity(128));
    let mut write = || -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        encoder
            .tag(minicbor::data::Tag::new(55_799))?
            .map(1)?
            .str("content")?
            .map(4)?;
        encoder.str("request_type")?.str("read_state")?;
        encoder.str("sender")?.bytes(Principal::anonymous().as_slice())?;
        encoder.str("paths")?.array(1)?.array(1)?.bytes(b"time")?;
        encoder.str("ingress_expiry")?.u64(ingress_expiry)?;
        Ok(())
    };
    let written = write();
    debug_assert!(written.is_ok(), "writing to memory does not fail");
    encoder.into_writer()
}

/// The envelope of an anonymous query; queries with different nonces have different request ids.
pub fn anonymous_query(canister: Principal, method: &str, argument: &[u8], ingress_expiry: u64, nonce: u64) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::with_capacity(argument.len() + 256));
    let mut write = || -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        encoder
            .tag(minicbor::data::Tag::new(55_799))?
            .map(1)?
            .str("content")?
            .map(7)?;
        encoder.str("request_type")?.str(Kind::Query.as_str())?;
        encoder.str("sender")?.bytes(Principal::anonymous().as_slice())?;
        encoder.str("canister_id")?.bytes(canister.as_slice())?;
        encoder.str("method_name")?.str(method)?;
        encoder.str("arg")?.bytes(argument)?;
        encoder.str("ingress_expiry")?.u64(ingress_expiry)?;
        encoder.str("nonce")?.bytes(&nonce.to_be_bytes())?;
        Ok(())
    };
    let written = write();
    debug_assert!(written.is_ok(), "writing to memory does not fail");
    encoder.into_writer()
}

/// The reply bytes in the answer to a query.
///
/// # Errors
/// The answer is a rejection, or not what the interface says.
pub fn reply_of_query(body: &[u8]) -> Result<Vec<u8>, minicbor::decode::Error> {
    let mut decoder = minicbor::Decoder::new(body);
    if decoder.datatype()? == minicbor::data::Type::Tag {
        decoder.tag()?;
    }
    for _ in 0..decoder.map()?.unwrap_or(0) {
        if decoder.str()? != "reply" {
            decoder.skip()?;
            continue;
        }
        decoder.map()?;
        decoder.str()?;
        return Ok(decoder.bytes()?.to_vec());
    }
    Err(minicbor::decode::Error::message("the answer holds no reply"))
}

/// The representation-independent hash of a map: SHA-256 over the sorted pairs of hashed key and hashed value.
pub fn hash_of_map(fields: &mut [(&str, [u8; 32])]) -> [u8; 32] {
    let mut pairs: Vec<[u8; 64]> = fields
        .iter()
        .map(|(key, value)| {
            let mut pair = [0; 64];
            pair[..32].copy_from_slice(&hash(key.as_bytes()));
            pair[32..].copy_from_slice(value);
            pair
        })
        .collect();
    pairs.sort_unstable();
    hash(&pairs.concat())
}

/// SHA-256.
pub fn hash(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Unsigned LEB128, the hashed form of natural numbers.
pub fn leb128(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(10);
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_id_of_the_specification_example() {
        // Interface specification, "Request ids": {request_type: "call", canister_id: 0x00000000000004D2,
        // method_name: "hello", arg: "DIDL\x00\xFD*"}.
        let id = hash_of_map(&mut [
            ("request_type", hash(b"call")),
            ("canister_id", hash(&[0, 0, 0, 0, 0, 0, 0x04, 0xD2])),
            ("method_name", hash(b"hello")),
            ("arg", hash(b"DIDL\x00\xFD*")),
        ]);
        assert_eq!(
            hex::encode(id),
            "8781291c347db32a9d8c10eb62b710fce5a93be676474c42babc74c51858f94b"
        );
    }

    #[test]
    fn leb128_of_small_and_large_numbers() {
        assert_eq!(leb128(0), [0]);
        assert_eq!(leb128(624_485), [0xE5, 0x8E, 0x26]);
        assert_eq!(leb128(u64::MAX).len(), 10);
    }
}
