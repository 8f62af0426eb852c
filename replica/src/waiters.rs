//! Callers that wait for the certificate of their message.

use parking_lot::{Mutex, MutexGuard};
use replicore_netstack::{CallReply, Responder};
use replicore_types::{Lock, MessageId};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// Waiting callers by request id. Every one is answered exactly once: with a certificate, with 202 when it has waited
/// long enough, or with what [`Waiters::close`] finds right.
#[derive(Default)]
pub struct Waiters {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_message: HashMap<MessageId, Vec<Waiter>>,
    by_deadline: BTreeMap<(Instant, u64), MessageId>,
    next_number: u64,
    closed: bool,
}

/// Names one waiting caller.
pub type Ticket = (Instant, u64);

struct Waiter {
    deadline: Ticket,
    respond: Responder<CallReply>,
}

impl Waiters {
    fn table(&self) -> MutexGuard<'_, Table> {
        Lock::Waiters.take(self.table.try_lock(), || self.table.lock())
    }

    /// Registers a caller until `deadline`. Registration precedes the offer to the pool, so that no answer is missed.
    ///
    /// # Errors
    /// After [`Waiters::close`] the responder comes back: no certificate will be made any more.
    pub fn register(
        &self,
        message_id: MessageId,
        deadline: Instant,
        respond: Responder<CallReply>,
    ) -> Result<Ticket, Responder<CallReply>> {
        let mut table = self.table();
        if table.closed {
            return Err(respond);
        }
        let ticket = (deadline, table.next_number);
        table.next_number += 1;
        table.by_deadline.insert(ticket, message_id);
        let waiters = table.by_message.entry(message_id).or_default();
        waiters.push(Waiter {
            deadline: ticket,
            respond,
        });
        Ok(ticket)
    }

    /// Takes one caller back, unless it has been answered.
    pub fn cancel(&self, message_id: &MessageId, ticket: Ticket) -> Option<Responder<CallReply>> {
        let mut table = self.table();
        table.by_deadline.remove(&ticket)?;
        table.remove(message_id, ticket)
    }

    /// Answers everybody with what `reply` says for their message, and takes nobody any more: no certificate will be
    /// made from now on.
    pub fn close(&self, reply: impl Fn(&MessageId) -> CallReply) {
        let waiters = {
            let mut table = self.table();
            table.closed = true;
            table.by_deadline.clear();
            std::mem::take(&mut table.by_message)
        };
        for (message_id, waiters) in waiters {
            for waiter in waiters {
                (waiter.respond)(reply(&message_id));
            }
        }
    }

    /// Takes the callers that wait for a message.
    pub fn take(&self, message_id: &MessageId) -> Vec<Responder<CallReply>> {
        let mut table = self.table();
        let waiters = table.by_message.remove(message_id).unwrap_or_default();
        waiters
            .into_iter()
            .map(|waiter| {
                table.by_deadline.remove(&waiter.deadline);
                waiter.respond
            })
            .collect()
    }

    /// Of these messages, those that somebody waits for.
    pub fn awaited(&self, message_ids: &[MessageId]) -> Vec<MessageId> {
        let table = self.table();
        message_ids
            .iter()
            .filter(|id| table.by_message.contains_key(*id))
            .copied()
            .collect()
    }

    /// Messages that somebody waits for.
    pub fn len(&self) -> usize {
        self.table().by_message.len()
    }

    /// Answers 202 to everybody whose deadline is not after `now`.
    pub fn expire(&self, now: Instant) {
        let mut expired = Vec::new();
        {
            let mut table = self.table();
            while let Some((&deadline, &message_id)) = table.by_deadline.first_key_value() {
                if deadline.0 > now {
                    break;
                }
                table.by_deadline.remove(&deadline);
                expired.extend(table.remove(&message_id, deadline));
            }
        }
        expired.into_iter().for_each(|respond| respond(CallReply::Accepted));
    }
}

impl Table {
    /// Takes one waiter out of its message's list.
    fn remove(&mut self, message_id: &MessageId, ticket: Ticket) -> Option<Responder<CallReply>> {
        let waiters = self.by_message.get_mut(message_id)?;
        let position = waiters.iter().position(|waiter| waiter.deadline == ticket)?;
        let waiter = waiters.swap_remove(position);
        if waiters.is_empty() {
            self.by_message.remove(message_id);
        }
        Some(waiter.respond)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicore_netstack::ServiceBusy;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn counting(counter: &Arc<AtomicUsize>) -> Responder<CallReply> {
        let counter = Arc::clone(counter);
        Box::new(move |reply| {
            assert!(matches!(reply, CallReply::Accepted));
            counter.fetch_add(1, Ordering::Relaxed);
        })
    }

    #[test]
    fn everybody_is_answered_once() {
        let (waiters, answered, now) = (Waiters::default(), Arc::default(), Instant::now());
        let (early, late) = (now + Duration::from_secs(1), now + Duration::from_secs(3));
        for (number, deadline) in [(1, early), (1, late), (2, late)] {
            assert!(
                waiters
                    .register(MessageId([number; 32]), deadline, counting(&answered))
                    .is_ok()
            );
        }
        waiters.expire(now);
        assert_eq!(answered.load(Ordering::Relaxed), 0);
        waiters.expire(early);
        assert_eq!(answered.load(Ordering::Relaxed), 1);
        assert_eq!(
            waiters.awaited(&[MessageId([1; 32]), MessageId([3; 32])]),
            [MessageId([1; 32])]
        );
        assert_eq!(waiters.take(&MessageId([1; 32])).len(), 1);
        waiters.expire(late);
        assert_eq!(
            answered.load(Ordering::Relaxed),
            2,
            "only the waiter of message 2 was left"
        );
    }

    #[test]
    fn a_cancelled_caller_leaves_the_others_waiting() {
        let (waiters, answered) = (Waiters::default(), Arc::default());
        let later = Instant::now() + Duration::from_secs(3);
        let id = MessageId([1; 32]);
        assert!(waiters.register(id, later, counting(&answered)).is_ok());
        let Ok(ticket) = waiters.register(id, later, counting(&answered)) else {
            panic!("nothing is closed");
        };
        assert!(waiters.cancel(&id, ticket).is_some());
        assert!(waiters.cancel(&id, ticket).is_none());
        assert_eq!(waiters.take(&id).len(), 1);
    }

    #[test]
    fn closing_answers_each_by_its_message_and_lets_nobody_wait_any_more() {
        let waiters = Waiters::default();
        let (told, answers) = std::sync::mpsc::channel();
        let later = Instant::now() + Duration::from_secs(3);
        let waiting = |number: u8| -> Responder<CallReply> {
            let told = told.clone();
            Box::new(move |reply| told.send((number, reply)).unwrap())
        };
        for number in [1, 2, 2] {
            assert!(
                waiters
                    .register(MessageId([number; 32]), later, waiting(number))
                    .is_ok()
            );
        }
        waiters.close(|id| match id.0[0] {
            1 => CallReply::Accepted,
            _ => CallReply::Busy(ServiceBusy("the replica is shutting down")),
        });
        let mut answers: Vec<_> = answers
            .try_iter()
            .map(|(number, reply)| (number, matches!(reply, CallReply::Accepted)))
            .collect();
        answers.sort_unstable();
        assert_eq!(answers, [(1, true), (2, false), (2, false)]);
        assert!(waiters.register(MessageId([3; 32]), later, waiting(3)).is_err());
    }
}
