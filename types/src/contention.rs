//! How often threads met at a lock.
//!
//! Whether a thread that waits has no work or finds a lock taken, the system cannot tell: both are a wait. So where threads
//! meet, a lock is tried first, and if it is taken, that is counted before it is waited for. A lock that is free costs what
//! it costs without. Counts of a process, for profiles and metrics; no result depends on them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A lock at which threads of a replica may meet, or several of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// Calls that wait for a batch.
    IngressPool,
    /// Callers that wait for a certificate.
    Waiters,
    /// Queries that wait for a thread.
    QueryQueue,
    /// Answers of queries.
    QueryCache,
    /// Replies that wait for a network thread.
    Replies,
    /// Signatures that were verified.
    SignatureCache,
    /// Idle instances.
    Instances,
    /// Modules in memory.
    Modules,
    /// Free frames of pages.
    Frames,
}

static FOUND_TAKEN: [AtomicU64; Lock::ALL.len()] = [const { AtomicU64::new(0) }; Lock::ALL.len()];

impl Lock {
    /// All of them, in the order of their declaration.
    pub const ALL: [Self; 9] = [
        Self::IngressPool,
        Self::Waiters,
        Self::QueryQueue,
        Self::QueryCache,
        Self::Replies,
        Self::SignatureCache,
        Self::Instances,
        Self::Modules,
        Self::Frames,
    ];

    /// What it is called in tables and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::IngressPool => "ingress pool",
            Self::Waiters => "waiters",
            Self::QueryQueue => "query queue",
            Self::QueryCache => "query cache",
            Self::Replies => "replies",
            Self::SignatureCache => "signature cache",
            Self::Instances => "instances",
            Self::Modules => "modules",
            Self::Frames => "page frames",
        }
    }

    /// What is held while the lock is: what trying gave, or else, and counted, what `wait` waits for.
    pub fn take<G>(self, tried: Option<G>, wait: impl FnOnce() -> G) -> G {
        tried.unwrap_or_else(|| {
            FOUND_TAKEN[self as usize].fetch_add(1, Ordering::Relaxed);
            wait()
        })
    }

    /// How often it was found taken since the process began.
    pub fn found_taken(self) -> u64 {
        FOUND_TAKEN[self as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_lock_that_is_taken_is_counted_and_waited_for() {
        let lock = Mutex::new(0);
        let take = || Lock::QueryQueue.take(lock.try_lock().ok(), || lock.lock().unwrap());
        *take() += 1;
        assert_eq!(Lock::QueryQueue.found_taken(), 0);
        std::thread::scope(|scope| {
            let held = lock.lock().unwrap();
            scope.spawn(|| *take() += 1);
            while Lock::QueryQueue.found_taken() == 0 {
                std::thread::yield_now();
            }
            drop(held);
        });
        assert_eq!((*take(), Lock::QueryQueue.found_taken()), (2, 1));
    }

    #[test]
    fn each_has_a_place_and_a_name_of_its_own() {
        for (place, lock) in Lock::ALL.into_iter().enumerate() {
            assert_eq!(lock as usize, place);
            assert_eq!(Lock::ALL.iter().filter(|other| other.name() == lock.name()).count(), 1);
        }
    }
}
