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
use std::cell::RefCell;
use std::marker::PhantomData;
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

    /// Leaves a reply, and wakes the loop, at once or with the end of [`AnswersTogether`].
    fn put(self: &Arc<Self>, reply: Reply) {
        self.replies().push(reply);
        let is_put_off = TO_WAKE.with_borrow_mut(|to_wake| match to_wake {
            Some(mailboxes) => {
                if !mailboxes.iter().any(|mailbox| Arc::ptr_eq(mailbox, self)) {
                    mailboxes.push(Arc::clone(self));
                }
                true
            }
            None => false,
        });
        if !is_put_off {
            self.wake_sleeper();
        }
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

thread_local! {
    /// Mailboxes whose loops are to be woken when [`AnswersTogether`] ends; `None` outside of it.
    static TO_WAKE: RefCell<Option<Vec<Arc<Mailbox>>>> = const { RefCell::new(None) };
}

/// While this is held, answers that its thread gives wake nobody; dropping it wakes whoever has answers waiting. Who gives
/// many answers one after the other thus wakes a network thread once, which sends them together, instead of once for each.
/// Within another one it does nothing.
#[derive(Debug)]
pub struct AnswersTogether {
    is_outermost: bool,
    /// It belongs to its thread.
    _not_send: PhantomData<*const ()>,
}

impl AnswersTogether {
    /// Begins to hold wake-ups back.
    #[must_use = "dropping it wakes at once"]
    pub fn begin() -> Self {
        let is_outermost = TO_WAKE.with_borrow_mut(|to_wake| {
            let is_outermost = to_wake.is_none();
            to_wake.get_or_insert_default();
            is_outermost
        });
        Self {
            is_outermost,
            _not_send: PhantomData,
        }
    }
}

impl Drop for AnswersTogether {
    fn drop(&mut self) {
        if self.is_outermost {
            let mailboxes = TO_WAKE.take().unwrap_or_default();
            mailboxes.iter().for_each(|mailbox| mailbox.wake_sleeper());
        }
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

    fn pending(mailbox: &Arc<Mailbox>, gauge: &Arc<Gauge>) -> PendingReply {
        let address = ReplyAddress {
            mailbox: mailbox.clone(),
            slot: 3,
            connection: 4,
            sequence: 5,
            peer: None,
        };
        PendingReply::new(address, (gauge.enter().unwrap(), None))
    }

    #[test]
    fn answers_given_together_wake_once_and_at_the_end() {
        let mailbox = Arc::new(Mailbox::new(Arc::new(WakeFd::new().unwrap())));
        let gauge = Gauge::new(3);
        let pending = || pending(&mailbox, &gauge);
        let answers = [pending(), pending(), pending()];
        assert!(mailbox.may_sleep());
        let is_asleep = || mailbox.sleeping.load(Ordering::SeqCst);
        let outer = AnswersTogether::begin();
        for answer in answers {
            let _inner = AnswersTogether::begin();
            answer.fulfil(Answer::text(200, ""));
        }
        assert!(is_asleep(), "nobody is woken meanwhile");
        assert_eq!(mailbox.replies().len(), 3);
        drop(outer);
        assert!(!is_asleep());
        mailbox.take(&mut Vec::new());
        assert!(mailbox.may_sleep());
        pending().fulfil(Answer::text(200, ""));
        assert!(!is_asleep(), "afterwards each wakes again");
    }

    #[test]
    fn a_dropped_duty_answers_and_counts_down() {
        let mailbox = Arc::new(Mailbox::new(Arc::new(WakeFd::new().unwrap())));
        let gauge = Gauge::new(1);
        let pending = pending(&mailbox, &gauge);
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
