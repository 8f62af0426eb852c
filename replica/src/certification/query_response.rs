//! Signatures on query responses (interface specification, "Query call").
//!
//! The signature covers the representation-independent hash of a map: the SHA-256 over the sorted concatenations of key
//! hash and value hash, where numbers are hashed as LEB128 and maps are hashed the same way inside.

use crate::certification::NodeKey;
use replicore_types::{MessageId, Time, UserError};
use sha2::{Digest, Sha256};

/// What a query gave, as clients see it.
#[derive(Clone, Copy, Debug)]
pub enum QueryOutcome<'a> {
    /// The reply.
    Replied(&'a [u8]),
    /// The rejection.
    Rejected(&'a UserError),
}

/// Signs a query response for the request `id` at `timestamp`.
pub fn sign_query_response(key: &NodeKey, outcome: QueryOutcome<'_>, id: &MessageId, timestamp: Time) -> [u8; 64] {
    let message = [&RESPONSE_DOMAIN[..], &query_response_hash(outcome, id, timestamp)].concat();
    key.sign(&message)
}

/// The hash that is signed, without its domain.
pub fn query_response_hash(outcome: QueryOutcome<'_>, id: &MessageId, timestamp: Time) -> [u8; 32] {
    let common = [
        field("request_id", id.as_bytes()),
        field("timestamp", &leb128(timestamp.as_nanos())),
    ];
    match outcome {
        QueryOutcome::Replied(argument) => {
            let reply = hash_fields(&mut [field("arg", argument)]);
            hash_fields(&mut [
                common[0],
                common[1],
                field("status", b"replied"),
                hashed_field("reply", reply),
            ])
        }
        QueryOutcome::Rejected(error) => hash_fields(&mut [
            common[0],
            common[1],
            field("status", b"rejected"),
            field("reject_code", &leb128(error.code.reject_code() as u64)),
            field("reject_message", error.description.as_bytes()),
            field("error_code", error.code.to_string().as_bytes()),
        ]),
    }
}

const RESPONSE_DOMAIN: &[u8; 12] = b"\x0bic-response";

/// Hash of a key and hash of its value.
type Field = ([u8; 32], [u8; 32]);

fn field(key: &str, value: &[u8]) -> Field {
    hashed_field(key, Sha256::digest(value).into())
}

fn hashed_field(key: &str, value: [u8; 32]) -> Field {
    (Sha256::digest(key).into(), value)
}

fn hash_fields(fields: &mut [Field]) -> [u8; 32] {
    fields.sort_unstable();
    let hash = fields.iter().fold(Sha256::new(), |hash, (key, value)| {
        hash.chain_update(key).chain_update(value)
    });
    hash.finalize().into()
}

fn leb128(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(10);
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
