//! Ed25519 keys whose curve points have been computed.
//!
//! A key is 32 bytes on the wire, and the point that they stand for costs 4 µs to compute: a fifth of a verification by
//! itself. Sessions send many requests with one key, so that the points of recent keys are kept: one for each place of a
//! table, whoever comes last. Which place that is depends on a salt, so that nobody can aim at the key of somebody else;
//! who floods the table with keys makes others pay those 4 µs again, and nothing else. Batches compute points by
//! themselves.

use super::cache::KeyStats;
use ed25519_zebra::{Signature, VerificationKey};
use parking_lot::Mutex;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Keys that are kept: 200 bytes each, hence less than a megabyte.
const PLACES: usize = 4_096;

/// Points of recent keys.
#[derive(Debug)]
pub(super) struct Ed25519Keys {
    /// Empty where nothing is kept.
    places: Vec<Mutex<Option<VerificationKey>>>,
    salt: RandomState,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Ed25519Keys {
    /// None yet, and none ever if `enabled` is false.
    pub(super) fn new(enabled: bool) -> Self {
        let count = if enabled { PLACES } else { 0 };
        Self {
            places: (0..count).map(|_| Mutex::new(None)).collect(),
            salt: RandomState::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The point of a key.
    pub(super) fn point(&self, key: &[u8; 32]) -> Result<VerificationKey, &'static str> {
        let decompress = || VerificationKey::try_from(*key).map_err(|_| "the Ed25519 key is not a curve point");
        if self.places.is_empty() {
            return decompress();
        }
        let place = &self.places[self.salt.hash_one(key) as usize % PLACES];
        if let Some(known) = *place.lock()
            && <[u8; 32]>::from(known) == *key
        {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(known);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let point = decompress()?;
        *place.lock() = Some(point);
        Ok(point)
    }

    /// How look-ups have fared.
    pub(super) fn stats(&self) -> KeyStats {
        KeyStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }
}

/// By the rules of ZIP 215, whose single and batch verification accept the same signatures.
pub(super) fn verify(key: &VerificationKey, payload: &[u8], signature: &[u8]) -> Result<(), &'static str> {
    let signature = Signature::from_slice(signature).map_err(|_| "an Ed25519 signature has 64 bytes")?;
    key.verify(&signature, payload)
        .map_err(|_| "the Ed25519 signature could not be verified")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_zebra::{SigningKey, VerificationKeyBytes};

    fn key(number: u32) -> [u8; 32] {
        let mut seed = [3; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        VerificationKeyBytes::from(&SigningKey::from(seed)).into()
    }

    /// However many keys compete for a place: a key is always itself.
    #[test]
    fn a_key_is_itself_whatever_is_kept() {
        let (kept, not_kept) = (Ed25519Keys::new(true), Ed25519Keys::new(false));
        for round in 0..2 {
            for number in 0..1_000 {
                let key = key(number);
                assert_eq!(kept.point(&key), not_kept.point(&key), "key {number}, round {round}");
                assert_eq!(<[u8; 32]>::from(kept.point(&key).unwrap()), key);
            }
        }
        let stats = kept.stats();
        assert_eq!(stats.hits + stats.misses, 4_000);
        assert!(stats.hits >= 2_000 && stats.misses >= 1_000, "{stats:?}");
        assert_eq!(not_kept.stats(), KeyStats::default());
    }

    #[test]
    fn what_is_no_point_is_refused_each_time() {
        let keys = Ed25519Keys::new(true);
        let mut no_point = [0; 32];
        no_point[0] = 2;
        for _ in 0..2 {
            assert_eq!(keys.point(&no_point), Err("the Ed25519 key is not a curve point"));
        }
        assert_eq!(keys.stats(), KeyStats { hits: 0, misses: 2 });
    }
}
