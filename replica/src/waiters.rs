//! Callers that wait for the certificate of their message.

use parking_lot::Mutex;
use replicore_netstack::{CallReply, Responder};
use replicore_types::MessageId;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// Waiting callers by request id. Every one is answered exactly once: with a certificate, with 202 when it has waited
/// long enough, or with what [`Waiters::close`] was given.
#[derive(Default)]
pub struct Waiters {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_message: HashMap<MessageId, Vec<Waiter>>,
    by_deadline: BTreeMap<(Instant, u64), MessageId>,
    next_number: u64,
    closed: Option<CallReply>,
}

/// Names one waiting caller.
pub type Ticket = (Instant, u64);

struct Waiter {
    deadline: Ticket,
    respond: Responder<CallReply>,
}

impl Waiters {
    /// Registers a caller until `deadline`. Registration precedes the offer to the pool, so that no answer is missed.
    pub fn register(&self, message_id: MessageId, deadline: Instant, respond: Responder<CallReply>) -> Ticket {
        let mut table = self.table.lock();
        let ticket = (deadline, table.next_number);
        table.next_number += 1;
        if let Some(reply) = table.closed.clone() {
            drop(table);
            respond(reply);
            return ticket;
        }
        table.by_deadline.insert(ticket, message_id);
        let waiters = table.by_message.entry(message_id).or_default();
        waiters.push(Waiter {
            deadline: ticket,
            respond,
        });
        ticket
    }

    /// Takes one caller back, unless it has been answered.
    pub fn cancel(&self, message_id: &MessageId, ticket: Ticket) -> Option<Responder<CallReply>> {
        let mut table = self.table.lock();
        table.by_deadline.remove(&ticket)?;
        table.remove(message_id, ticket)
    }

    /// Answers everybody, and from now on everybody who comes, with `reply`: no certificate will be made any more.
    pub fn close(&self, reply: CallReply) {
        let waiters = {
            let mut table = self.table.lock();
            table.closed.get_or_insert_with(|| reply.clone());
            table.by_deadline.clear();
            std::mem::take(&mut table.by_message)
        };
        for waiter in waiters.into_values().flatten() {
            (waiter.respond)(reply.clone());
        }
    }

    /// Takes the callers that wait for a message.
    pub fn take(&self, message_id: &MessageId) -> Vec<Responder<CallReply>> {
        let mut table = self.table.lock();
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
        let table = self.table.lock();
        message_ids
            .iter()
            .filter(|id| table.by_message.contains_key(*id))
            .copied()
            .collect()
    }

    /// Answers 202 to everybody whose deadline is not after `now`.
    pub fn expire(&self, now: Instant) {
        let mut expired = Vec::new();
        {
            let mut table = self.table.lock();
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
        waiters.register(MessageId([1; 32]), early, counting(&answered));
        waiters.register(MessageId([1; 32]), late, counting(&answered));
        waiters.register(MessageId([2; 32]), late, counting(&answered));
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
        waiters.register(id, later, counting(&answered));
        let ticket = waiters.register(id, later, counting(&answered));
        assert!(waiters.cancel(&id, ticket).is_some());
        assert!(waiters.cancel(&id, ticket).is_none());
        assert_eq!(waiters.take(&id).len(), 1);
    }

    #[test]
    fn closing_answers_those_who_wait_and_those_who_come() {
        let (waiters, answered) = (Waiters::default(), Arc::default());
        let later = Instant::now() + Duration::from_secs(3);
        waiters.register(MessageId([1; 32]), later, counting(&answered));
        waiters.close(CallReply::Accepted);
        assert_eq!(answered.load(Ordering::Relaxed), 1);
        waiters.register(MessageId([2; 32]), later, counting(&answered));
        assert_eq!(answered.load(Ordering::Relaxed), 2);
        waiters.expire(later);
        assert_eq!(answered.load(Ordering::Relaxed), 2);
    }
}
