//! Derivation of the keys that the methods for threshold signatures and vetKeys are about.
//!
//! ```text
//! master key ── canister id ── path element ── path element …      ECDSA, BIP 340, Ed25519
//! master key ── canister id ── context                             vetKD
//! ```
//! Every step adds to the key a multiple of the group's generator that follows from the *public* parent and the element
//! of the path. So whoever knows a master public key derives public keys offline, and whoever knows the master secret
//! adds the same tweaks to it. Here is the public side, which rounds and their replays need; it depends on nothing but
//! its arguments. The secrets stay with the process.

pub mod ed25519;
mod request;
pub mod secp256k1;
pub mod vetkd;

pub use request::{ThresholdOperation, ThresholdRequest};

use replicore_types::{CanisterId, ThresholdAlgorithm, ThresholdKeyId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The chain code of every master key.
pub const MASTER_CHAIN_CODE: [u8; 32] = [0; 32];

/// The master public keys of the subnet: 33 bytes (SEC1) on secp256k1, 32 for Ed25519, 96 on BLS12-381.
pub type MasterPublicKeys = BTreeMap<ThresholdKeyId, Arc<[u8]>>;

/// A derived public key and the chain code from which its own children are derived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtendedPublicKey {
    /// In the encoding of the algorithm.
    pub public_key: Vec<u8>,
    /// Entropy of the next derivation.
    pub chain_code: [u8; 32],
}

/// The key of `canister` under `path`. `None` for a master key that is no key of the algorithm, and for vetKD, which has
/// no paths.
pub fn extended_public_key(
    algorithm: ThresholdAlgorithm,
    master: &[u8],
    canister: CanisterId,
    path: &[Vec<u8>],
) -> Option<ExtendedPublicKey> {
    let path = with_canister(canister, path);
    match algorithm {
        ThresholdAlgorithm::EcdsaSecp256k1 | ThresholdAlgorithm::SchnorrBip340 => {
            let derived = secp256k1::derive(master.try_into().ok()?, MASTER_CHAIN_CODE, &path)?;
            Some(ExtendedPublicKey {
                public_key: derived.public_key.serialize().to_vec(),
                chain_code: derived.chain_code,
            })
        }
        ThresholdAlgorithm::SchnorrEd25519 => {
            let derived = ed25519::derive(master.try_into().ok()?, MASTER_CHAIN_CODE, &path)?;
            Some(ExtendedPublicKey {
                public_key: derived.public_key.to_vec(),
                chain_code: derived.chain_code,
            })
        }
        ThresholdAlgorithm::VetKdBls12381G2 => None,
    }
}

/// The whole path: the canister that asks comes before what it asks for.
pub fn with_canister(canister: CanisterId, path: &[Vec<u8>]) -> Vec<Vec<u8>> {
    std::iter::once(canister.as_slice().to_vec())
        .chain(path.iter().cloned())
        .collect()
}
