//! The first failure of any thread, and what follows from it: nothing more is accepted, nobody waits for an answer that
//! cannot come, and the owner of the replica learns why.

use crate::pool::IngressPool;
use crate::waiters::Waiters;
use parking_lot::Mutex;
use replicore_netstack::{CallReply, ServiceBusy};
use std::sync::Arc;

/// Where threads report that they cannot go on.
pub struct Failure {
    first: Mutex<Option<String>>,
    pool: Arc<IngressPool>,
    waiters: Arc<Waiters>,
}

impl Failure {
    /// No failure yet. The pool is closed and the waiting callers are answered when there is one.
    pub fn new(pool: Arc<IngressPool>, waiters: Arc<Waiters>) -> Self {
        Self {
            first: Mutex::new(None),
            pool,
            waiters,
        }
    }

    /// Records a failure. The first one counts: those that follow mostly follow from it.
    pub fn set(&self, text: String) {
        tracing::error!(failure = text, "the replica cannot go on");
        self.first.lock().get_or_insert(text);
        self.pool.close();
        // Their messages may or may not be durable. To send them again is safe either way: equal calls count once.
        self.waiters
            .close(|_| CallReply::Busy(ServiceBusy("the replica has failed")));
    }

    /// The first failure.
    pub fn get(&self) -> Option<String> {
        self.first.lock().clone()
    }

    /// Held by a thread while it works: a panic becomes a failure instead of a silence.
    pub fn watch(self: &Arc<Self>, thread: &'static str) -> PanicWatch {
        PanicWatch {
            failure: Arc::clone(self),
            thread,
        }
    }
}

/// See [`Failure::watch`].
pub struct PanicWatch {
    failure: Arc<Failure>,
    thread: &'static str,
}

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.failure.set(format!("the {} thread panicked", self.thread));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PoolConfig;
    use crate::pool::Woken;
    use replicore_types::MessageId;
    use std::time::{Duration, Instant};

    #[test]
    fn a_panic_is_a_failure_that_closes_the_pool_and_answers_everybody() {
        let (pool, waiters) = (
            Arc::new(IngressPool::new(PoolConfig::default())),
            Arc::new(Waiters::default()),
        );
        let failure = Arc::new(Failure::new(Arc::clone(&pool), Arc::clone(&waiters)));
        let (answer, answered) = crossbeam::channel::unbounded();
        let later = Instant::now() + Duration::from_secs(60);
        let register = |number: u8| {
            let answer = answer.clone();
            let respond = Box::new(move |reply| answer.send(reply).unwrap());
            waiters.register(MessageId([number; 32]), later, respond)
        };
        assert!(register(0).is_ok());
        let watch = failure.watch("round");
        let thread = std::thread::spawn(move || {
            let _watch = watch;
            panic!("a panic that this test is about");
        });
        assert!(thread.join().is_err());
        assert_eq!(failure.get().as_deref(), Some("the round thread panicked"));
        assert_eq!(pool.wait(None), Woken::Closed);
        assert!(matches!(answered.try_recv(), Ok(CallReply::Busy(_))));
        assert!(register(1).is_err(), "nobody waits for what will not come");
        drop(failure.watch("a thread that ends well"));
        failure.set("later".into());
        assert_eq!(failure.get().as_deref(), Some("the round thread panicked"));
    }
}
