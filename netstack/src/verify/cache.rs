//! Signatures that have been verified.
//!
//! An entry is the salted hash of (key, message, signature) and the time until which it may be used. The salt is chosen
//! at start, so that nobody can aim at a set; the whole hash is compared, so that a hit proves as much as the
//! verification did. The table is set-associative: its size is fixed, and a new entry takes the place of the one in its
//! set that would have expired first.

use crate::config::SignatureCacheConfig;
use parking_lot::Mutex;
use replicore_types::Time;
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Entries that share a set: enough for evictions to be close to least-recently-expiring.
const WAYS: usize = 8;
/// Locks, so that threads rarely meet.
const SHARDS: usize = 64;

/// Names a verified (key, message, signature).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheKey([u8; 32]);

/// How the cache has fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Look-ups that found an entry.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Entries that were dropped before their time.
    pub evictions: u64,
}

/// A bounded set of verified signatures.
#[derive(Debug)]
pub struct SignatureCache {
    salt: [u8; 32],
    lifetime: Duration,
    /// Sets in each shard.
    sets: usize,
    shards: Vec<Mutex<Vec<[Entry; WAYS]>>>,
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: [u8; 32],
    /// Nanoseconds since 1970; zero where there is no entry.
    expiry: u64,
}

impl SignatureCache {
    /// An empty cache, or `None` if it is switched off.
    pub fn new(config: &SignatureCacheConfig) -> std::io::Result<Option<Self>> {
        if !config.enabled || config.entries == 0 {
            return Ok(None);
        }
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|error| std::io::Error::other(error.to_string()))?;
        let sets = config.entries.div_ceil(WAYS * SHARDS).next_power_of_two();
        Ok(Some(Self {
            salt,
            lifetime: Duration::from_secs(config.lifetime_seconds),
            sets,
            shards: (0..SHARDS)
                .map(|_| Mutex::new(vec![[Entry::default(); WAYS]; sets]))
                .collect(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }))
    }

    /// The name of a signature. Lengths are hashed too, so that no two triples share their bytes.
    pub fn key(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> CacheKey {
        let mut hasher = Sha256::new();
        hasher.update(self.salt);
        for part in [public_key, message, signature] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        CacheKey(hasher.finalize().into())
    }

    /// True if the signature was verified and the entry has not expired.
    pub fn contains(&self, key: &CacheKey, now: Time) -> bool {
        let (shard, set) = self.place(key);
        let hit = self.shards[shard].lock()[set]
            .iter()
            .any(|entry| entry.key == key.0 && entry.expiry >= now.0);
        (if hit { &self.hits } else { &self.misses }).fetch_add(1, Ordering::Relaxed);
        hit
    }

    /// Notes that the signature was verified and matters until `expiry`.
    pub fn insert(&self, key: &CacheKey, expiry: Time, now: Time) {
        let expiry = expiry.0.min(now.plus(self.lifetime).0);
        let (shard, set) = self.place(key);
        let entries = &mut self.shards[shard].lock()[set];
        let index = match entries.iter().position(|entry| entry.key == key.0) {
            Some(index) => index,
            None => (0..WAYS).min_by_key(|&index| entries[index].expiry).unwrap_or(0),
        };
        if entries[index].key != key.0 && entries[index].expiry >= now.0 {
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
        entries[index] = Entry { key: key.0, expiry };
    }

    /// How the cache has fared so far.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            evictions: self.evictions.load(Ordering::Relaxed),
        }
    }

    fn place(&self, key: &CacheKey) -> (usize, usize) {
        let bits = u64::from_le_bytes([
            key.0[0], key.0[1], key.0[2], key.0[3], key.0[4], key.0[5], key.0[6], key.0[7],
        ]);
        let shard = bits as usize % SHARDS;
        (shard, (bits >> 8) as usize % self.sets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cache_has_its_own_salt() {
        assert_ne!(cache(1).key(b"a", b"b", b"c"), cache(1).key(b"a", b"b", b"c"));
    }

    fn cache(entries: usize) -> SignatureCache {
        let config = SignatureCacheConfig {
            entries,
            ..SignatureCacheConfig::default()
        };
        SignatureCache::new(&config).unwrap().unwrap()
    }

    #[test]
    fn an_entry_is_found_until_it_expires() {
        let cache = cache(100);
        let key = cache.key(b"key", b"message", b"signature");
        assert!(!cache.contains(&key, Time(5)));
        cache.insert(&key, Time(10), Time(5));
        assert!(cache.contains(&key, Time(10)));
        assert!(!cache.contains(&key, Time(11)));
        cache.insert(&key, Time(u64::MAX), Time(11));
        let lifetime = Duration::from_secs(600).as_nanos() as u64;
        assert!(cache.contains(&key, Time(11 + lifetime)));
        assert!(!cache.contains(&key, Time(12 + lifetime)));
        assert_eq!(
            cache.stats(),
            CacheStats {
                hits: 2,
                misses: 3,
                evictions: 0
            }
        );
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let cache = cache(1);
        assert_ne!(cache.key(b"ab", b"c", b""), cache.key(b"a", b"bc", b""));
    }

    #[test]
    fn it_does_not_grow_and_keeps_what_lasts_longest() {
        let cache = cache(WAYS * SHARDS);
        let lasting: Vec<_> = (0..32u32)
            .map(|n| cache.key(b"lasting", &n.to_le_bytes(), b""))
            .collect();
        lasting.iter().for_each(|key| cache.insert(key, Time(1000), Time(1)));
        for n in 0..10_000u32 {
            cache.insert(&cache.key(b"short", &n.to_le_bytes(), b""), Time(500), Time(1));
        }
        let found = lasting.iter().filter(|key| cache.contains(key, Time(1))).count();
        assert_eq!(found, lasting.len());
        assert!(cache.stats().evictions > 9_000);
    }

    #[test]
    fn it_can_be_switched_off() {
        let config = SignatureCacheConfig {
            enabled: false,
            ..SignatureCacheConfig::default()
        };
        assert!(SignatureCache::new(&config).unwrap().is_none());
    }
}
