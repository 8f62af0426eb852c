//! The result cache of queries: what a canister answered, for as long as nothing that the answer depended on has changed.
//!
//! An entry knows the version of the canister and, where the query read them, its balance and the time
//! ([`Dependencies`]). A lookup compares these with the state that is asked about; nothing is invalidated by rounds, and a
//! canister that does not change keeps its entries through any number of them. What depends on more is not kept. The
//! cache changes speed, never an answer.

use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use replicore_scheduler::query::{Dependencies, QueryCall};
use replicore_scheduler::{CanisterState, ReplicatedState};
use replicore_types::{Lock, MessageId, Time, WasmResult};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Locks are split so that network threads rarely meet.
const SHARDS: usize = 16;
/// What an entry counts for beside its argument and its answer.
const ENTRY_BYTES: usize = 512;
/// An answer that is larger than this part of its shard is not kept: it would push out too many others.
const ENTRY_SHARE: usize = 8;

/// Answers of queries, bounded by bytes.
pub struct QueryCache {
    shards: Vec<Mutex<Shard>>,
    shard_bytes_max: usize,
    /// Salted, so that nobody can aim at one shard or one slot.
    hasher: RandomState,
    counters: Counters,
}

struct Shard {
    entries: LruCache<u64, Entry>,
    bytes: usize,
}

struct Entry {
    query: QueryCall,
    dependencies: Dependencies,
    answer: WasmResult,
    signed: Option<Signed>,
}

/// The signature that an entry was last answered with: a client that repeats its request gets it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The request.
    pub message_id: MessageId,
    /// The time that is signed.
    pub timestamp: Time,
    /// The node's signature.
    pub signature: [u8; 64],
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    stale: AtomicU64,
    uncacheable: AtomicU64,
}

/// What the cache has done and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueryCacheStats {
    /// Queries answered from the cache.
    pub hits: u64,
    /// Queries that were not in the cache.
    pub misses: u64,
    /// Those of the misses for which an older answer was there that does not hold any more.
    pub stale: u64,
    /// Answers that were not kept: they depend on too much, or are too large.
    pub uncacheable: u64,
    /// Answers kept now.
    pub entries: u64,
    /// Bytes that they count for.
    pub bytes: u64,
}

impl QueryCache {
    /// An empty cache of at most `bytes_max` bytes; none at all for zero.
    pub fn new(bytes_max: usize) -> Self {
        let shard = || Shard {
            entries: LruCache::unbounded(),
            bytes: 0,
        };
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            shard_bytes_max: bytes_max / SHARDS,
            hasher: RandomState::new(),
            counters: Counters::default(),
        }
    }

    /// The answer to `query` on `state`, where it is known; `canister` is the receiver in that state. With it comes the
    /// signature that was given last.
    pub fn get(
        &self,
        query: &QueryCall,
        state: &ReplicatedState,
        canister: &CanisterState,
    ) -> Option<(WasmResult, Option<Signed>)> {
        if self.shard_bytes_max == 0 {
            return None;
        }
        let slot = self.slot(query);
        let mut shard = self.shard(slot);
        let found = match shard.entries.get(&slot) {
            Some(entry) if !is_same(&entry.query, query) => None,
            Some(entry) if entry.dependencies.hold(state, canister) => Some((entry.answer.clone(), entry.signed)),
            Some(_) => {
                shard.remove(slot);
                self.counters.stale.fetch_add(1, Ordering::Relaxed);
                None
            }
            None => None,
        };
        drop(shard);
        let counter = match found {
            Some(_) => &self.counters.hits,
            None => &self.counters.misses,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    /// Keeps an answer, unless it depends on too much.
    pub fn put(&self, query: QueryCall, dependencies: Option<Dependencies>, answer: &WasmResult) {
        if self.shard_bytes_max == 0 {
            return;
        }
        let bytes = weight(&query, answer);
        let Some(dependencies) = dependencies.filter(|_| bytes <= self.shard_bytes_max / ENTRY_SHARE) else {
            self.counters.uncacheable.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let slot = self.slot(&query);
        let entry = Entry {
            query,
            dependencies,
            answer: answer.clone(),
            signed: None,
        };
        let mut shard = self.shard(slot);
        shard.remove(slot);
        while shard.bytes + bytes > self.shard_bytes_max {
            match shard.entries.peek_lru().map(|(&oldest, _)| oldest) {
                Some(oldest) => shard.remove(oldest),
                None => break,
            }
        }
        shard.bytes += bytes;
        shard.entries.put(slot, entry);
    }

    /// Remembers the signature that an answer was given with.
    pub fn note_signature(&self, query: &QueryCall, signed: Signed) {
        if self.shard_bytes_max == 0 {
            return;
        }
        let slot = self.slot(query);
        if let Some(entry) = self.shard(slot).entries.peek_mut(&slot)
            && is_same(&entry.query, query)
        {
            entry.signed = Some(signed);
        }
    }

    /// What the cache has done and holds.
    pub fn stats(&self) -> QueryCacheStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = QueryCacheStats {
            hits: load(&self.counters.hits),
            misses: load(&self.counters.misses),
            stale: load(&self.counters.stale),
            uncacheable: load(&self.counters.uncacheable),
            entries: 0,
            bytes: 0,
        };
        for shard in &self.shards {
            let shard = shard.lock();
            stats.entries += shard.entries.len() as u64;
            stats.bytes += shard.bytes as u64;
        }
        stats
    }

    fn slot(&self, query: &QueryCall) -> u64 {
        let QueryCall {
            source,
            receiver,
            method,
            argument,
            caller_info,
        } = query;
        self.hasher
            .hash_one((source, receiver, method, argument.as_slice(), caller_info))
    }

    fn shard(&self, slot: u64) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[(slot >> 32) as usize % SHARDS];
        Lock::QueryCache.take(shard.try_lock(), || shard.lock())
    }
}

impl Shard {
    fn remove(&mut self, slot: u64) {
        if let Some(entry) = self.entries.pop(&slot) {
            self.bytes -= weight(&entry.query, &entry.answer);
        }
    }
}

fn is_same(one: &QueryCall, other: &QueryCall) -> bool {
    one.receiver == other.receiver
        && one.source == other.source
        && one.method == other.method
        && one.argument == other.argument
        && one.caller_info == other.caller_info
}

/// Bytes that an entry counts for.
fn weight(query: &QueryCall, answer: &WasmResult) -> usize {
    let answer = match answer {
        WasmResult::Reply(reply) => reply.len(),
        WasmResult::Reject(text) => text.len(),
    };
    let info = query.caller_info.as_ref().map_or(0, |(info, _)| info.len());
    ENTRY_BYTES + query.method.len() + query.argument.len() + info + answer
}
