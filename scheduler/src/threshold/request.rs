//! What a call for a signature or a vetKey asks of whoever holds the secrets.

use replicore_types::{Payload, ThresholdKeyId};
use serde::{Deserialize, Serialize};

/// A signature or a vetKey that a canister waits for. The canister is the sender of the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThresholdRequest {
    /// With which key.
    pub key: ThresholdKeyId,
    /// What is to be made.
    pub operation: ThresholdOperation,
}

/// What is to be made with a threshold key. Everything is checked: it can be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ThresholdOperation {
    /// An ECDSA signature.
    SignHash {
        /// Derivation path below the canister.
        path: Vec<Vec<u8>>,
        /// The hash to sign.
        message_hash: [u8; 32],
    },
    /// A Schnorr signature.
    SignMessage {
        /// Derivation path below the canister.
        path: Vec<Vec<u8>>,
        /// The message to sign.
        message: Payload,
        /// BIP 341: the key is tweaked with this root of a script tree, which is empty or has 32 bytes. `None`: it is
        /// not tweaked.
        merkle_root: Option<Vec<u8>>,
    },
    /// A vetKey, encrypted.
    DeriveVetKey {
        /// Separates purposes within the canister.
        context: Payload,
        /// What the key is derived from.
        input: Payload,
        /// Under which it is encrypted: a compressed point of G1.
        transport_public_key: Payload,
    },
}
