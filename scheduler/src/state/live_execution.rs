//! Paused executions as this process holds them, beside the state that says where each message stands.

use parking_lot::Mutex;
use replicore_engine::PausedExecution;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Paused executions that a process holds. Each keeps an instance and its stack, which nobody can take from it; canisters
/// that pause one message each by the thousand would have all that the system gives, and stop the replica. What is paused
/// beyond that executes its slices again when it goes on, of which a message has twenty at most.
const LIVE_EXECUTIONS_MAX: usize = 1_000;

/// The hand-over point of a paused execution: taken by the round that goes on with it. Clones of the state share it;
/// the first taker has it, others execute the slices again.
#[derive(Clone, Debug, Default)]
pub struct LiveExecution(Arc<Mutex<Option<Held>>>);

#[derive(Debug)]
struct Held {
    paused: PausedExecution,
    _counted: Counted,
}

impl LiveExecution {
    /// A hand-over point that holds `paused`, or nothing where the process holds enough of them already.
    pub fn new(paused: PausedExecution) -> Self {
        static LIVE: AtomicUsize = AtomicUsize::new(0);
        Self::within(&LIVE, LIVE_EXECUTIONS_MAX, paused)
    }

    fn within(live: &'static AtomicUsize, max: usize, paused: PausedExecution) -> Self {
        let held = Counted::within(live, max).map(|_counted| Held { paused, _counted });
        Self(Arc::new(Mutex::new(held)))
    }

    /// Takes the execution, if nobody has.
    pub fn take(&self) -> Option<PausedExecution> {
        self.0.lock().take().map(|held| held.paused)
    }
}

/// One of those that are counted.
#[derive(Debug)]
struct Counted(&'static AtomicUsize);

impl Counted {
    fn within(live: &'static AtomicUsize, max: usize) -> Option<Self> {
        let counted = Self(live);
        (live.fetch_add(1, Ordering::Relaxed) < max).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicore_types::NumInstructions;

    #[test]
    fn a_process_holds_so_many_and_room_comes_back() {
        static LIVE: AtomicUsize = AtomicUsize::new(0);
        let pause = || LiveExecution::within(&LIVE, 2, PausedExecution::new(Box::new(()), NumInstructions(1)));
        let [first, second, third] = [pause(), pause(), pause()];
        assert!(third.take().is_none(), "two are held");
        assert!(first.clone().take().is_some());
        assert!(first.take().is_none(), "its clone was first");
        assert!(pause().take().is_some(), "there is room for another one");
        drop(second);
        assert_eq!(LIVE.load(Ordering::Relaxed), 0);
    }
}
