//! How answers get back to the connection that asked, from whatever thread made them.
//!
//! Each event loop has one mailbox. It is bounded by the requests in flight: every accepted request leaves exactly one
//! reply here. The loop is woken only if it sleeps, so that an answer given on the loop's own thread, or while it is
//! busy, costs no system call.

use crate::api::Answer;
use crate::crowd::Place;
use crate::ring::{Slot, sys::WakeFd};
use parking_lot::{Mutex, MutexGuard};
use replicore_types::Lock;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

/// An answer on its way to a connection.
#[derive(Debug)]
pub(crate) struct Reply {
    pub slot: Slot,
    /// Number of the connection; the slot may have another tenant by now.
    pub connection: u64,
    /// Number of the request on its connection.
    pub sequence: u64,
    pub answer: Answer,
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    replies: Mutex<Vec<Reply>>,
    sleeping: AtomicBool,
    wake: Arc<WakeFd>,
    /// Set once the loop is to end: how long it may take for requests that it has.
    stop: Mutex<Option<Instant>>,
}

impl Mailbox {
    pub(crate) fn new(wake: Arc<WakeFd>) -> Self {
        Self {
            replies: Mutex::default(),
            sleeping: AtomicBool::new(false),
            wake,
            stop: Mutex::default(),
        }
    }

    fn replies(&self) -> MutexGuard<'_, Vec<Reply>> {
        Lock::Replies.take(self.replies.try_lock(), || self.replies.lock())
    }

    /// Leaves a reply.
    fn put(&self, reply: Reply) {
        self.replies().push(reply);
        self.wake_sleeper();
    }

    /// Tells the loop to end, at `deadline` at the latest.
    pub(crate) fn stop(&self, deadline: Instant) {
        *self.stop.lock() = Some(deadline);
        // Whether it sleeps or not: it looks for this only once in a turn.
        self.wake.wake();
    }

    /// When the loop is to have ended, if it is to end.
    pub(crate) fn stop_deadline(&self) -> Option<Instant> {
        *self.stop.lock()
    }

    fn wake_sleeper(&self) {
        // Pairs with `may_sleep`: either the loop sees what was left here, or we see that it sleeps.
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.wake.wake();
        }
    }

    /// Exchanges the waiting replies for the empty `taken`.
    pub(crate) fn take(&self, taken: &mut Vec<Reply>) {
        debug_assert!(taken.is_empty());
        std::mem::swap(&mut *self.replies(), taken);
    }

    /// Announces that the loop is about to sleep; false if it must not because something is waiting.
    pub(crate) fn may_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        let empty = self.replies().is_empty();
        if !empty {
            self.sleeping.store(false, Ordering::SeqCst);
        }
        empty
    }

    /// Announces that the loop is awake.
    pub(crate) fn awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }
}

/// Counts the requests of one kind that are unanswered.
#[derive(Debug)]
pub(crate) struct Gauge {
    count: AtomicUsize,
    max: usize,
}

impl Gauge {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            count: AtomicUsize::new(0),
            max,
        })
    }

    /// Counts one more, unless there are as many as there may be.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Permit> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Permit(self.clone()))
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

/// One that is counted; dropping it counts down.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Gauge>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where the answer to a request goes.
#[derive(Clone, Debug)]
pub(crate) struct ReplyAddress {
    pub mailbox: Arc<Mailbox>,
    pub slot: Slot,
    pub connection: u64,
    pub sequence: u64,
    /// Who asks, if it is known.
    pub peer: Option<IpAddr>,
}

/// The duty to answer a request; dropping it unfulfilled answers with an error.
#[derive(Debug)]
pub(crate) struct PendingReply {
    address: ReplyAddress,
    fulfilled: bool,
    /// What the request is counted in.
    _permit: (Permit, Option<Place>),
    places: [Option<Place>; 2],
}

impl PendingReply {
    pub(crate) fn new(address: ReplyAddress, permit: (Permit, Option<Place>)) -> Self {
        Self {
            address,
            fulfilled: false,
            _permit: permit,
            places: [None, None],
        }
    }

    /// Counts the request in these too until it is answered.
    pub(crate) fn hold(&mut self, places: [Option<Place>; 2]) {
        self.places = places;
    }

    pub(crate) fn fulfil(mut self, answer: Answer) {
        self.fulfilled = true;
        self.put(answer);
    }

    fn put(&self, answer: Answer) {
        let ReplyAddress {
            mailbox,
            slot,
            connection,
            sequence,
            ..
        } = &self.address;
        mailbox.put(Reply {
            slot: *slot,
            connection: *connection,
            sequence: *sequence,
            answer,
        });
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        if !self.fulfilled {
            self.put(Answer::text(500, "The request was dropped without an answer."));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_duty_answers_and_counts_down() {
        let mailbox = Arc::new(Mailbox::new(Arc::new(WakeFd::new().unwrap())));
        let gauge = Gauge::new(1);
        let address = ReplyAddress {
            mailbox: mailbox.clone(),
            slot: 3,
            connection: 4,
            sequence: 5,
            peer: None,
        };
        let pending = PendingReply::new(address, (gauge.enter().unwrap(), None));
        assert!(gauge.enter().is_none());
        assert!(mailbox.may_sleep());
        drop(pending);
        assert_eq!(gauge.count(), 0);
        assert!(!mailbox.may_sleep());
        let mut replies = Vec::new();
        mailbox.take(&mut replies);
        assert!(matches!(
            replies.as_slice(),
            [Reply {
                slot: 3,
                connection: 4,
                sequence: 5,
                ..
            }]
        ));
    }
}
