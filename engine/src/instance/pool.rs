//! Warm instances, bounded in number and in memory, evicted by recency.
//!
//! What has no room is not lost where many canisters share a module: before an instance is made, the one that its
//! keeping would push out is taken instead, and gets the other canister's pages.

use super::{Compiled, Instance};
use crate::ExecutionState;
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use replicore_types::{CanisterId, Lock};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Locks are split so that cores that run different canisters do not meet.
const SHARDS: usize = 16;

/// Memory that an instance is counted with until it is dropped: while a message runs on it too, so that cores write what
/// they share only where an instance takes another amount than before.
#[derive(Debug)]
pub(crate) struct Counted {
    bytes: u64,
    total: Arc<AtomicU64>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Boxed: an instance moves between the pool and the message that runs on it, and is large.
type Shard = LruCache<CanisterId, Vec<Box<Instance>>>;

/// Idle instances by canister.
pub(crate) struct InstancePool {
    shards: Vec<Mutex<Shard>>,
    /// False where no instance is kept: every message gets a new one.
    keeps: bool,
    instances_per_canister_max: usize,
    /// Memory of all instances that are kept, or were and are in use, and its bound.
    bytes: Arc<AtomicU64>,
    bytes_max: u64,
}

impl InstancePool {
    /// A pool for about `canisters_max` canisters (none keeps nothing), each with up to `instances_per_canister_max` instances, that take no
    /// more than about `bytes_max` bytes together.
    pub(crate) fn new(canisters_max: usize, instances_per_canister_max: usize, bytes_max: u64) -> Self {
        let per_shard = NonZeroUsize::new(canisters_max.div_ceil(SHARDS)).unwrap_or(NonZeroUsize::MIN);
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(LruCache::new(per_shard))).collect(),
            keeps: canisters_max > 0,
            instances_per_canister_max,
            bytes: Arc::default(),
            bytes_max,
        }
    }

    fn shard(&self, number: usize) -> MutexGuard<'_, Shard> {
        let shard = &self.shards[number];
        Lock::Instances.take(shard.try_lock(), || shard.lock())
    }

    /// An instance of the canister that holds the state's version, or else one that can be brought to it, of another
    /// canister where that one is about to be pushed out. Instances whose code `compiled` replaces are dropped: that is
    /// how better code takes over between two messages.
    pub(crate) fn take(
        &self,
        canister: CanisterId,
        state: &ExecutionState,
        compiled: &Compiled,
    ) -> Option<Box<Instance>> {
        // Dropped after the lock is released.
        let _replaced: Vec<Box<Instance>>;
        let mut shard = self.shard(shard_of(canister));
        let Some(idle) = shard.get_mut(&canister) else {
            return self.recycle(&mut shard, state, compiled);
        };
        _replaced = idle.extract_if(.., |instance| !instance.is_up_to(compiled)).collect();
        let position = idle
            .iter()
            .position(|instance| instance.holds(state.warm_version) && instance.can_hold(state))
            .or_else(|| idle.iter().position(|instance| instance.can_hold(state)))?;
        Some(idle.swap_remove(position))
    }

    /// An instance of the canister that serves the state as it is; most messages find one, and need nothing else.
    pub(crate) fn take_ready(&self, canister: CanisterId, state: &ExecutionState) -> Option<Box<Instance>> {
        let mut shard = self.shard(shard_of(canister));
        let idle = shard.get_mut(&canister)?;
        let position = idle.iter().position(|instance| instance.is_ready_for(state))?;
        Some(idle.swap_remove(position))
    }

    /// The instance that was not used for longest, where there is no room for one more and it can become one of another
    /// canister at a small price.
    fn recycle(&self, shard: &mut Shard, state: &ExecutionState, compiled: &Compiled) -> Option<Box<Instance>> {
        let has_room = shard.len() < shard.cap().get() && self.bytes.load(Ordering::Relaxed) < self.bytes_max;
        let (_, idle) = shard.peek_lru()?;
        let fits = |instance: &Instance| instance.is_up_to(compiled) && instance.can_turn_into(state);
        if has_room || !matches!(&idle[..], [only] if fits(only)) {
            return None;
        }
        shard.pop_lru()?.1.pop()
    }

    /// True where an idle instance of the canister is as `wanted`.
    pub(crate) fn any(&self, canister: CanisterId, wanted: impl Fn(&Instance) -> bool) -> bool {
        let shard = self.shard(shard_of(canister));
        shard
            .peek(&canister)
            .is_some_and(|idle| idle.iter().any(|instance| wanted(instance)))
    }

    /// Keeps an idle instance; what has no room is dropped.
    pub(crate) fn put(&self, canister: CanisterId, mut instance: Box<Instance>) {
        if !self.keeps {
            return;
        }
        self.count(&mut instance);
        let mut shard = self.shard(shard_of(canister));
        // Taking it out made the canister the one that was used last.
        let no_room = match shard.peek_mut(&canister) {
            Some(idle) => {
                let oldest = (idle.len() >= self.instances_per_canister_max).then(|| idle.remove(0));
                idle.push(instance);
                oldest.into_iter().collect()
            }
            None => shard
                .push(canister, vec![instance])
                .map_or_else(Vec::new, |(_, evicted)| evicted),
        };
        // Dropping an instance unmaps memory: not under the lock.
        drop(shard);
        drop(no_room);
        if self.bytes.load(Ordering::Relaxed) > self.bytes_max {
            self.shrink(canister);
        }
    }

    /// Counts the memory that an instance takes now.
    fn count(&self, instance: &mut Instance) {
        let bytes = instance.memory_bytes();
        if instance.counted.as_ref().is_some_and(|counted| counted.bytes == bytes) {
            return;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let total = Arc::clone(&self.bytes);
        // What it was counted with before goes.
        instance.counted = Some(Counted { bytes, total });
    }

    /// Instances kept now.
    pub(crate) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().iter().map(|(_, idle)| idle.len()).sum::<usize>())
            .sum()
    }

    /// Drops the instances of the canister that was not used for longest, of every shard. Returns how many.
    pub(crate) fn drop_oldest(&self) -> usize {
        let oldest = |number| self.shard(number).pop_lru().map_or(0, |(_, idle)| idle.len());
        (0..SHARDS).map(oldest).sum()
    }

    /// Drops what was not used for longest, shard by shard, until the memory is within its bound. `latest` goes last.
    fn shrink(&self, latest: CanisterId) {
        let begin = shard_of(latest) + 1;
        for number in begin..begin + 2 * SHARDS {
            if self.bytes.load(Ordering::Relaxed) <= self.bytes_max {
                return;
            }
            let mut shard = self.shard(number % SHARDS);
            let spared = number < begin + SHARDS && shard.peek_lru().is_some_and(|(oldest, _)| *oldest == latest);
            let dropped = if spared { None } else { shard.pop_lru() };
            drop(shard);
            drop(dropped);
        }
    }
}

fn shard_of(canister: CanisterId) -> usize {
    let number = canister
        .index()
        .unwrap_or_else(|| canister.as_slice().iter().map(|byte| u64::from(*byte)).sum());
    number as usize % SHARDS
}
