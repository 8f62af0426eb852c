//! What has been verified.
//!
//! An entry is the keyed hash of what was verified (its kind, then key, message and signature) and the time until which it
//! may be used. The hash is SipHash-2-4 with 128 bits under a key that is chosen at start and never leaves the process: who
//! does not know it cannot aim at a set, and finds something else with the hash of an entry by guessing only, with one
//! chance in 2^128 for each guess (decision 32). The table is set-associative and its size is fixed.
//!
//! Which entry gives way: one that has expired, else one that was never of use, else the one that was of use longest ago.
//! So a flood of valid signatures that are seen once each passes through the entries that were never of use, and what
//! honest sessions use stays.

use crate::config::SignatureCacheConfig;
use parking_lot::{Mutex, MutexGuard};
use replicore_types::{Lock, Time};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::fmt;
use std::hash::Hasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Entries that share a set: enough for evictions to be close to those of one big set.
const WAYS: usize = 8;
/// Locks, so that threads rarely meet.
const SHARDS: usize = 64;

/// What an entry stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CacheKind {
    /// The signature of a request.
    Request,
    /// One link of a delegation chain of several.
    Delegation,
    /// A whole delegation chain.
    Chain,
    /// The BLS signature of a certificate.
    Certificate,
    /// The signature over a sender's attributes.
    SenderInfo,
}

impl CacheKind {
    /// All kinds, in the order of [`CacheStats::kinds`].
    pub const ALL: [Self; 5] = [
        Self::Request,
        Self::Delegation,
        Self::Chain,
        Self::Certificate,
        Self::SenderInfo,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Delegation => "delegation",
            Self::Chain => "chain",
            Self::Certificate => "certificate",
            Self::SenderInfo => "sender_info",
        }
    }
}

/// Names something verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheKey {
    hash: u128,
    kind: CacheKind,
}

/// How look-ups of one kind have fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindStats {
    /// Look-ups that found an entry.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Insertions of this kind that dropped another entry before its time.
    pub evictions: u64,
}

/// How look-ups of keys have fared whose curve points are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyStats {
    /// Look-ups that found the point.
    pub hits: u64,
    /// Look-ups after which it was computed.
    pub misses: u64,
}

/// How the cache has fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Look-ups that found an entry.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Entries that were dropped before their time.
    pub evictions: u64,
    /// The same by kind, in the order of [`CacheKind::ALL`].
    pub kinds: [KindStats; CacheKind::ALL.len()],
}

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

/// A bounded set of what has been verified.
#[derive(Debug)]
pub struct SignatureCache {
    /// A hasher that has the key, and nothing else yet.
    keyed: Keyed,
    lifetime: Duration,
    /// Sets in each shard.
    sets: usize,
    shards: Vec<Mutex<Vec<[Entry; WAYS]>>>,
    counters: [Counters; CacheKind::ALL.len()],
}

/// Shows nothing of its key.
struct Keyed(SipHasher24);

impl fmt::Debug for Keyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyed")
    }
}

/// Half a line of the processor's caches, and never a part of two.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    hash: u128,
    /// Nanoseconds since 1970; zero where there is no entry.
    expiry: u64,
    /// When it was last of use, in nanoseconds since 1970; zero if never.
    used: u64,
}

impl SignatureCache {
    /// An empty cache, or `None` if it is switched off.
    pub fn new(config: &SignatureCacheConfig) -> std::io::Result<Option<Self>> {
        if !config.enabled || config.entries == 0 {
            return Ok(None);
        }
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(|error| std::io::Error::other(error.to_string()))?;
        let sets = config.entries.div_ceil(WAYS * SHARDS).next_power_of_two();
        Ok(Some(Self {
            keyed: Keyed(SipHasher24::new_with_key(&key)),
            lifetime: Duration::from_secs(config.lifetime_seconds),
            sets,
            shards: (0..SHARDS)
                .map(|_| Mutex::new(vec![[Entry::default(); WAYS]; sets]))
                .collect(),
            counters: Default::default(),
        }))
    }

    /// The name of what `parts` say. Lengths are hashed too, so that no two lists of parts share their bytes.
    pub fn key<'p>(&self, kind: CacheKind, parts: impl IntoIterator<Item = &'p [u8]>) -> CacheKey {
        let mut hasher = self.keyed.0;
        hasher.write_u64(kind as u64);
        for part in parts {
            hasher.write_u64(part.len() as u64);
            hasher.write(part);
        }
        CacheKey {
            hash: u128::from(hasher.finish128()),
            kind,
        }
    }

    fn shard(&self, number: usize) -> MutexGuard<'_, Vec<[Entry; WAYS]>> {
        let shard = &self.shards[number];
        Lock::SignatureCache.take(shard.try_lock(), || shard.lock())
    }

    /// True if it was verified and the entry has not expired.
    pub fn contains(&self, key: &CacheKey, now: Time) -> bool {
        let (shard, set) = self.place(key);
        let mut entries = self.shard(shard);
        let found = entries[set]
            .iter_mut()
            .find(|entry| entry.hash == key.hash && entry.expiry >= now.0);
        let hit = found.map(|entry| entry.used = now.0).is_some();
        drop(entries);
        let counters = self.counters(key);
        (if hit { &counters.hits } else { &counters.misses }).fetch_add(1, Ordering::Relaxed);
        hit
    }

    /// Notes that it was verified and matters until `expiry`.
    pub fn insert(&self, key: &CacheKey, expiry: Time, now: Time) {
        let expiry = expiry.0.min(now.plus(self.lifetime).0);
        let (shard, set) = self.place(key);
        let entries = &mut self.shard(shard)[set];
        let index = match entries.iter().position(|entry| entry.hash == key.hash) {
            Some(index) => index,
            None => (0..WAYS).min_by_key(|&index| entries[index].worth(now)).unwrap_or(0),
        };
        let entry = &mut entries[index];
        if entry.hash == key.hash {
            entry.expiry = expiry;
            return;
        }
        if entry.expiry >= now.0 {
            self.counters(key).evictions.fetch_add(1, Ordering::Relaxed);
        }
        *entry = Entry {
            hash: key.hash,
            expiry,
            used: 0,
        };
    }

    /// How the cache has fared so far.
    pub fn stats(&self) -> CacheStats {
        let mut stats = CacheStats::default();
        for (counters, kind) in self.counters.iter().zip(&mut stats.kinds) {
            kind.hits = counters.hits.load(Ordering::Relaxed);
            kind.misses = counters.misses.load(Ordering::Relaxed);
            kind.evictions = counters.evictions.load(Ordering::Relaxed);
            stats.hits += kind.hits;
            stats.misses += kind.misses;
            stats.evictions += kind.evictions;
        }
        stats
    }

    fn counters(&self, key: &CacheKey) -> &Counters {
        &self.counters[key.kind as usize]
    }

    fn place(&self, key: &CacheKey) -> (usize, usize) {
        let bits = key.hash as u64;
        let shard = bits as usize % SHARDS;
        (shard, (bits >> 8) as usize % self.sets)
    }
}

impl Entry {
    /// The entry of a set that is worth least gives way.
    fn worth(&self, now: Time) -> (bool, u64, u64) {
        (self.expiry >= now.0, self.used, self.expiry)
    }
}

#[cfg(test)]
mod survey;
#[cfg(test)]
mod tests;
