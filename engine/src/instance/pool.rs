//! Warm instances, bounded, evicted by recency.

use super::{Compiled, Instance};
use crate::ExecutionState;
use lru::LruCache;
use parking_lot::Mutex;
use replicore_types::CanisterId;
use std::num::NonZeroUsize;

/// Locks are split so that cores that run different canisters do not meet.
const SHARDS: usize = 16;

/// Boxed: an instance moves between the pool and the message that runs on it, and is large.
type Shard = LruCache<CanisterId, Vec<Box<Instance>>>;

/// Idle instances by canister.
pub(crate) struct InstancePool {
    shards: Vec<Mutex<Shard>>,
    instances_per_canister_max: usize,
}

impl InstancePool {
    /// A pool for about `canisters_max` canisters, each with up to `instances_per_canister_max` instances.
    pub(crate) fn new(canisters_max: usize, instances_per_canister_max: usize) -> Self {
        let per_shard = NonZeroUsize::new(canisters_max.div_ceil(SHARDS)).unwrap_or(NonZeroUsize::MIN);
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(LruCache::new(per_shard))).collect(),
            instances_per_canister_max,
        }
    }

    /// An instance of the canister that holds the state's version, or else one that can be brought to it. Instances
    /// whose code `compiled` replaces are dropped: that is how better code takes over between two messages.
    pub(crate) fn take(
        &self,
        canister: CanisterId,
        state: &ExecutionState,
        compiled: &Compiled,
    ) -> Option<Box<Instance>> {
        // Dropped after the lock is released.
        let _replaced: Vec<_>;
        let mut shard = self.shard(canister).lock();
        let idle = shard.get_mut(&canister)?;
        _replaced = idle.extract_if(.., |instance| !instance.is_up_to(compiled)).collect();
        let position = idle
            .iter()
            .position(|instance| instance.holds(state.warm_version) && instance.can_hold(state))
            .or_else(|| idle.iter().position(|instance| instance.can_hold(state)))?;
        Some(idle.swap_remove(position))
    }

    /// Keeps an idle instance; what has no room is dropped.
    pub(crate) fn put(&self, canister: CanisterId, instance: Box<Instance>) {
        // Dropping an instance unmaps memory: that happens after the lock is released.
        let mut dropped = Vec::new();
        let mut shard = self.shard(canister).lock();
        match shard.get_mut(&canister) {
            Some(idle) => {
                if idle.len() >= self.instances_per_canister_max {
                    dropped.push(idle.remove(0));
                }
                idle.push(instance);
            }
            None => {
                if let Some((_, evicted)) = shard.push(canister, vec![instance]) {
                    dropped = evicted;
                }
            }
        }
        drop(shard);
        drop(dropped);
    }

    /// Instances kept now.
    pub(crate) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().iter().map(|(_, idle)| idle.len()).sum::<usize>())
            .sum()
    }

    fn shard(&self, canister: CanisterId) -> &Mutex<Shard> {
        let number = canister
            .index()
            .unwrap_or_else(|| canister.as_slice().iter().map(|byte| u64::from(*byte)).sum());
        &self.shards[number as usize % SHARDS]
    }
}
