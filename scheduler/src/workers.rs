//! The threads that canisters run on.

use crate::placement::keep_apart;
use parking_lot::Mutex as Lock;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::BTreeMap;
use std::slice::IterMut;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// How many cores execute canisters. It never changes a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchedulerCores(pub usize);

/// Stack of a worker: the engine runs Wasm on its own stacks, compilation needs some.
const STACK_BYTES: usize = 8 * 1024 * 1024;

/// From this many small things on they are shared between cores: waking one costs some microseconds.
const PARALLEL_ITEMS_MIN: usize = 64;

/// Small things that one core takes at a time at least.
const MAP_ITEMS_MIN: usize = 32;

/// How often a core that has nothing to do looks whether the others have finished before it works ahead: some tens of
/// microseconds. Copies and wasted work are not worth less. In tests it does at once.
const LOOKS_BEFORE_AHEAD: usize = if cfg!(test) { 1 } else { 1_000 };

impl SchedulerCores {
    /// Calls `work` for every item, and `ahead` for those of `later`, in their order, on cores that would wait for others
    /// to come to an end. How many of `later` that are depends on timing: nothing else may.
    pub(crate) fn for_each_and_ahead<T: Send, U: Send>(
        self,
        items: &mut [T],
        later: &mut [U],
        work: impl Fn(&mut T) + Sync,
        ahead: impl Fn(&mut U) + Sync,
    ) {
        let may_wait = !items.is_empty() && !later.is_empty();
        let Some(pool) = self.pool(items.len() + later.len()).filter(|_| may_wait) else {
            return self.for_each(items, work);
        };
        let unfinished = AtomicUsize::new(items.len());
        let (items, later) = (Shares::new(items, self.0), Lock::new(later.iter_mut()));
        pool.broadcast(|worker| {
            while let Some(item) = items.take(worker.index()) {
                work(item);
                unfinished.fetch_sub(1, Ordering::Release);
            }
            let all_ended = || unfinished.load(Ordering::Acquire) == 0;
            for _ in 0..LOOKS_BEFORE_AHEAD {
                if all_ended() {
                    return;
                }
                std::hint::spin_loop();
            }
            while !all_ended() {
                let Some(item) = later.lock().next() else { break };
                // Others that are idle go on as long as this one does.
                unfinished.fetch_add(1, Ordering::Relaxed);
                ahead(item);
                unfinished.fetch_sub(1, Ordering::Release);
            }
        });
    }

    /// Calls `work` for every item. A single item, and everything on one core, runs on the calling thread: handing it
    /// over would cost more than a small message.
    pub(crate) fn for_each<T: Send>(self, items: &mut [T], work: impl Fn(&mut T) + Sync) {
        match self.pool(items.len()) {
            Some(pool) => pool.install(|| items.par_iter_mut().with_max_len(1).for_each(&work)),
            None => items.iter_mut().for_each(work),
        }
    }

    /// [`Self::for_each`], side by side only where `is_parallel`.
    pub(crate) fn for_each_if<T: Send>(self, is_parallel: bool, items: &mut [T], work: impl Fn(&mut T) + Sync) {
        match is_parallel {
            true => self.for_each(items, work),
            false => items.iter_mut().for_each(work),
        }
    }

    /// What `work` makes of every item, in their order.
    pub(crate) fn map<T: Send, U: Send>(
        self,
        is_parallel: bool,
        items: Vec<T>,
        work: impl Fn(T) -> U + Sync + Send,
    ) -> Vec<U> {
        match self.pool(if is_parallel { items.len() } else { 1 }) {
            Some(pool) => pool.install(|| items.into_par_iter().with_min_len(MAP_ITEMS_MIN).map(work).collect()),
            None => items.into_iter().map(work).collect(),
        }
    }

    /// Sorts things of which no two are equal.
    pub(crate) fn sort_by<T: Send>(
        self,
        is_parallel: bool,
        items: &mut [T],
        order: impl Fn(&T, &T) -> std::cmp::Ordering + Sync + Send,
    ) {
        match self.pool(if is_parallel { items.len() } else { 1 }) {
            Some(pool) => pool.install(|| items.par_sort_unstable_by(order)),
            None => items.sort_unstable_by(order),
        }
    }

    /// Runs `work` on a thread of the pool where `is_parallel`: what it shares with the others then wakes them, and does
    /// not send the caller to sleep and wake it every time.
    pub(crate) fn inside<T: Send>(self, is_parallel: bool, work: impl FnOnce() -> T + Send) -> T {
        match self.pool(if is_parallel { 2 } else { 1 }) {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// True where so many small things are worth a second core.
    pub(crate) fn are_worth_it(self, items: usize) -> bool {
        self.0 > 1 && items >= PARALLEL_ITEMS_MIN
    }

    /// Calls both, side by side where `is_parallel`.
    pub(crate) fn join(self, is_parallel: bool, left: impl FnOnce() + Send, right: impl FnOnce() + Send) {
        match self.pool(if is_parallel { 2 } else { 1 }) {
            Some(pool) => {
                pool.join(left, right);
            }
            None => {
                left();
                right();
            }
        }
    }

    /// The pool for this many items; `None` where the calling thread does as well, or where the system gives no thread.
    fn pool(self, items: usize) -> Option<Arc<ThreadPool>> {
        static POOLS: OnceLock<Mutex<BTreeMap<usize, Arc<ThreadPool>>>> = OnceLock::new();
        if self.0 < 2 || items < 2 {
            return None;
        }
        let mut pools = POOLS.get_or_init(Mutex::default).lock().ok()?;
        if let Some(pool) = pools.get(&self.0) {
            return Some(Arc::clone(pool));
        }
        let threads = self.0;
        let builder = ThreadPoolBuilder::new()
            .num_threads(threads)
            .stack_size(STACK_BYTES)
            .start_handler(move |index| keep_apart(index, threads));
        let pool = Arc::new(
            builder
                .thread_name(|number| format!("scheduler-{number}"))
                .build()
                .ok()?,
        );
        pools.insert(self.0, Arc::clone(&pool));
        Some(pool)
    }
}

/// Items side by side that workers take: each from the front of its own share, then from the end of the others'. What
/// a worker had in its caches the last time is then mostly what it gets again.
struct Shares<'a, T>(Vec<Lock<IterMut<'a, T>>>);

impl<'a, T> Shares<'a, T> {
    fn new(items: &'a mut [T], workers: usize) -> Self {
        let share = items.len().div_ceil(workers).max(1);
        Self(
            items
                .chunks_mut(share)
                .map(|share| Lock::new(share.iter_mut()))
                .collect(),
        )
    }

    /// The next item for this worker that nobody has taken.
    fn take(&self, worker: usize) -> Option<&'a mut T> {
        let own = self.0.get(worker).and_then(|share| share.lock().next());
        own.or_else(|| self.0.iter().find_map(|share| share.lock().next_back()))
    }
}

#[cfg(test)]
mod tests {
    use super::Shares;

    #[test]
    fn every_item_is_taken_once_and_a_worker_begins_with_its_own() {
        let mut items: Vec<u32> = (0..7).collect();
        let shares = Shares::new(&mut items, 2);
        let mut taken: Vec<u32> = [1, 1, 0, 1]
            .iter()
            .filter_map(|worker| shares.take(*worker))
            .map(|item| *item)
            .collect();
        assert_eq!(taken, [4, 5, 0, 6], "own shares from the front");
        taken.extend(std::iter::from_fn(|| shares.take(1)).map(|item| *item));
        assert_eq!(taken[4..], [3, 2, 1], "the other's from the end");
        assert_eq!(shares.take(0), None);
    }

    #[test]
    fn workers_without_a_share_help_the_others() {
        let mut items = [0_u32];
        let shares = Shares::new(&mut items, 4);
        assert_eq!(shares.take(3).map(|item| *item), Some(0));
        assert_eq!(shares.take(0), None);
        assert_eq!(Shares::new(&mut [0_u32; 0], 2).take(0), None);
    }
}
