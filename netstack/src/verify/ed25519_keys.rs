//! Ed25519 keys whose curve points have been computed.
//!
//! A key is 32 bytes on the wire, and the point that they stand for costs 4 µs to compute: a fifth of a verification by
//! itself. Sessions send many requests with one key, so that the points of recent keys are kept: one for each place of a
//! table, whoever comes last. Which place that is depends on a salt, so that nobody can aim at the key of somebody else;
//! who floods the table with keys makes others pay those 4 µs again, and nothing else. The library that verifies single
//! signatures does not give its points away, so that those for batches are in a table of their own.

use super::cache::KeyStats;
use curve25519_dalek::EdwardsPoint;
use curve25519_dalek::edwards::CompressedEdwardsY;
use ed25519_zebra::{Signature, VerificationKey};
use parking_lot::Mutex;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Keys that each table keeps: 200 bytes each, hence less than a megabyte.
const PLACES: usize = 4_096;

/// Keys with what has been made of them, each in the place that its name stands for; empty where nothing is kept.
#[derive(Debug)]
struct Table<V>(Vec<Place<V>>);

/// The key that came last, and what has been made of it.
type Place<V> = Mutex<Option<([u8; 32], V)>>;

/// Points of recent keys.
#[derive(Debug)]
pub(super) struct Ed25519Keys {
    /// For single signatures.
    keys: Table<VerificationKey>,
    /// For batches.
    points: Table<EdwardsPoint>,
    salt: RandomState,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Ed25519Keys {
    /// None yet, and none ever if `enabled` is false.
    pub(super) fn new(enabled: bool) -> Self {
        let count = if enabled { PLACES } else { 0 };
        Self {
            keys: Table::new(count),
            points: Table::new(count),
            salt: RandomState::new(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// What single signatures of a key are verified with.
    pub(super) fn point(&self, key: &[u8; 32]) -> Result<VerificationKey, &'static str> {
        self.find(&self.keys, key, || VerificationKey::try_from(*key).ok())
            .ok_or("the Ed25519 key is not a curve point")
    }

    /// The curve point of a key, by the rule of ZIP 215: whatever encoding it has. `None` if it stands for none.
    pub(super) fn curve_point(&self, key: &[u8; 32]) -> Option<EdwardsPoint> {
        self.find(&self.points, key, || CompressedEdwardsY(*key).decompress())
    }

    fn find<V: Copy>(&self, table: &Table<V>, key: &[u8; 32], compute: impl FnOnce() -> Option<V>) -> Option<V> {
        let Some(place) = table.place(self.salt.hash_one(key)) else {
            return compute();
        };
        if let Some((known, value)) = *place.lock()
            && known == *key
        {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Some(value);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let value = compute()?;
        *place.lock() = Some((*key, value));
        Some(value)
    }

    /// How look-ups have fared.
    pub(super) fn stats(&self) -> KeyStats {
        KeyStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }
}

impl<V> Table<V> {
    fn new(places: usize) -> Self {
        Self((0..places).map(|_| Mutex::new(None)).collect())
    }

    fn place(&self, hash: u64) -> Option<&Place<V>> {
        let index = (hash as usize).checked_rem(self.0.len())?;
        self.0.get(index)
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
                assert_eq!(kept.curve_point(&key).unwrap().compress().to_bytes(), key);
            }
        }
        let stats = kept.stats();
        assert_eq!(stats.hits + stats.misses, 6_000);
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
            assert_eq!(keys.curve_point(&no_point), None);
        }
        assert_eq!(keys.stats(), KeyStats { hits: 0, misses: 4 });
    }
}
