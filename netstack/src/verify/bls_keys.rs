//! BLS signatures of state roots, by keys that are checked once.
//!
//! There are few such keys: that of the root subnet and those of the subnets that it vouches for. To decompress one and
//! to check that it lies in the right subgroup costs a good part of a verification.

use super::cache::KeyStats;
use super::keys::bls_key_from_der;
use blst::BLST_ERROR;
use blst::min_sig::{PublicKey, Signature};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The domain of signatures over a state root.
const STATE_ROOT_DOMAIN: &[u8] = b"\x0Dic-state-root";
/// How messages are hashed to the curve.
const HASH_TO_CURVE: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";
/// Keys kept: more than there are subnets.
const KEYS_MAX: usize = 64;

/// Keys that have been checked.
#[derive(Debug, Default)]
pub(super) struct BlsKeys {
    /// In the order of their last use.
    keys: Mutex<Vec<([u8; 96], PublicKey)>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl BlsKeys {
    /// Verifies that the DER-encoded `key` signed the state root.
    pub(super) fn verify(&self, key: &[u8], root: &[u8; 32], signature: &[u8]) -> Result<(), &'static str> {
        let bytes = bls_key_from_der(key).ok_or("the subnet key is malformed")?;
        let key = self.checked(bytes).ok_or("the subnet key is not a curve point")?;
        let signature =
            Signature::sig_validate(signature, true).map_err(|_| "the certificate's signature is not a curve point")?;
        let message = [STATE_ROOT_DOMAIN, root].concat();
        match signature.verify(false, &message, HASH_TO_CURVE, &[], &key, false) {
            BLST_ERROR::BLST_SUCCESS => Ok(()),
            _ => Err("the certificate's signature could not be verified"),
        }
    }

    /// How look-ups have fared.
    pub(super) fn stats(&self) -> KeyStats {
        KeyStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    fn checked(&self, bytes: &[u8; 96]) -> Option<PublicKey> {
        let mut keys = self.keys.lock();
        if let Some(position) = keys.iter().position(|(known, _)| known == bytes) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            keys[..=position].rotate_right(1);
            return Some(keys[0].1);
        }
        drop(keys);
        self.misses.fetch_add(1, Ordering::Relaxed);
        let key = PublicKey::key_validate(bytes).ok()?;
        let mut keys = self.keys.lock();
        keys.truncate(KEYS_MAX - 1);
        keys.insert(0, (*bytes, key));
        Some(key)
    }
}
