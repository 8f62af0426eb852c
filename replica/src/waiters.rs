//! Callers that wait for the certificate of their message.

use parking_lot::Mutex;
use replicore_netstack::{CallReply, Responder};
use replicore_types::MessageId;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// Waiting callers by request id. Every one is answered exactly once: with a certificate, or with 202 when it has waited
/// long enough.
#[derive(Default)]
pub struct Waiters {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_message: HashMap<MessageId, Vec<Waiter>>,
    by_deadline: BTreeMap<(Instant, u64), MessageId>,
    next_number: u64,
}

struct Waiter {
    deadline: (Instant, u64),
    respond: Responder<CallReply>,
}

impl Waiters {
    /// Registers a caller until `deadline`. Registration precedes the offer to the pool, so that no answer is missed.
    pub fn register(&self, message_id: MessageId, deadline: Instant, respond: Responder<CallReply>) {
        let mut table = self.table.lock();
        let deadline = (deadline, table.next_number);
        table.next_number += 1;
        table.by_deadline.insert(deadline, message_id);
        table
            .by_message
            .entry(message_id)
            .or_default()
            .push(Waiter { deadline, respond });
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
                let Some(waiters) = table.by_message.get_mut(&message_id) else {
                    continue;
                };
                expired.extend(
                    waiters
                        .extract_if(.., |waiter| waiter.deadline == deadline)
                        .map(|waiter| waiter.respond),
                );
                if waiters.is_empty() {
                    table.by_message.remove(&message_id);
                }
            }
        }
        expired.into_iter().for_each(|respond| respond(CallReply::Accepted));
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
}
