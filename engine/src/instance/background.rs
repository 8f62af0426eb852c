//! Work that follows the first message: one thread that makes better code while messages run on what there is.

use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};

/// Jobs that wait at most. What finds no room is asked for again by a later message.
const WAITING_MAX: usize = 256;

/// How many jobs wait or run, and somebody to tell when none does.
#[derive(Default)]
struct Pending {
    count: Mutex<usize>,
    none: Condvar,
    /// Nobody needs the results any more.
    ended: AtomicBool,
}

/// A thread that takes jobs in the order in which they come. It ends with the job at hand once this is dropped.
pub(super) struct Background<J> {
    jobs: SyncSender<J>,
    pending: Arc<Pending>,
}

impl<J: Send + 'static> Background<J> {
    /// `None` where the system gives no thread.
    pub fn start(name: &str, mut work: impl FnMut(J) + Send + 'static) -> Option<Self> {
        let (jobs, waiting) = sync_channel::<J>(WAITING_MAX);
        let pending = Arc::new(Pending::default());
        let done = Arc::clone(&pending);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                for job in waiting {
                    let _finished = Finished(&done);
                    if !done.ended.load(Ordering::Relaxed) {
                        work(job);
                    }
                }
            })
            .ok()?;
        Some(Self { jobs, pending })
    }

    /// False where there is no room.
    pub fn try_add(&self, job: J) -> bool {
        *self.pending.count.lock() += 1;
        let added = self.jobs.try_send(job).is_ok();
        if !added {
            self.pending.finished();
        }
        added
    }

    /// Returns when nothing waits or runs.
    pub fn wait_until_idle(&self) {
        let mut count = self.pending.count.lock();
        while *count > 0 {
            self.pending.none.wait(&mut count);
        }
    }
}

impl<J> Drop for Background<J> {
    fn drop(&mut self) {
        self.pending.ended.store(true, Ordering::Relaxed);
    }
}

/// Counts a job as finished, also where it panicked.
struct Finished<'a>(&'a Pending);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.0.finished();
    }
}

impl Pending {
    fn finished(&self) {
        let mut count = self.count.lock();
        *count -= 1;
        if *count == 0 {
            self.none.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn waiting_ends_when_all_jobs_have() {
        let done = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&done);
        let background = Background::start("test", move |job: usize| {
            counter.fetch_add(job, Ordering::Relaxed);
            assert!(job < 100, "the last job fails");
        })
        .unwrap();
        for job in [1, 2, 3, 100] {
            assert!(background.try_add(job));
        }
        background.wait_until_idle();
        assert_eq!(done.load(Ordering::Relaxed), 106);
    }
}
