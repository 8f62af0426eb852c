//! The ingress pool: verified messages that wait for a batch. Bounded by count and bytes; one entry per request id.
//!
//! The pool is also the place where the round thread sleeps when there is nothing to do, so that a message that arrives
//! at an idle replica starts a round at once.

use crate::config::PoolConfig;
use parking_lot::{Condvar, Mutex};
use replicore_types::{ConsensusResponse, Ingress, MessageId, ResponsePayload, Time};
use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// After [`IngressPool::close`], how long what waits is still taken. Shutting down is meant to be quick; what is left then
/// has not been answered, and its senders are told to send it again.
const CLOSED_TAKE_MAX: Duration = Duration::from_secs(2);

/// What became of a message offered to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It waits for a batch.
    Added,
    /// It is there already; the earlier copy will be executed.
    Duplicate,
    /// A bound is reached; the text names it.
    Full(&'static str),
}

/// Why [`IngressPool::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Messages or answers wait.
    Messages,
    /// The deadline passed.
    Deadline,
    /// [`IngressPool::close`] was called, and nothing waits any more or it was too long ago.
    Closed,
}

/// Verified messages in order of arrival.
pub struct IngressPool {
    bounds: PoolConfig,
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Ingress>,
    ids: HashSet<MessageId>,
    bytes: usize,
    /// Answers from outside to calls of canisters. The state bounds them: one for each open call.
    answers: VecDeque<ConsensusResponse>,
    closed: Option<Instant>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.answers.is_empty()
    }
}

impl IngressPool {
    /// An empty pool with these bounds.
    pub fn new(bounds: PoolConfig) -> Self {
        Self {
            bounds,
            waiting: Mutex::default(),
            arrived: Condvar::new(),
        }
    }

    /// Offers a message.
    pub fn offer(&self, message: Ingress) -> Admission {
        let mut waiting = self.waiting.lock();
        if waiting.closed.is_some() {
            return Admission::Full("the replica is shutting down");
        }
        if waiting.ids.contains(&message.message_id) {
            return Admission::Duplicate;
        }
        if waiting.messages.len() >= self.bounds.messages_max {
            return Admission::Full("the ingress pool holds pool.messages_max messages");
        }
        if waiting.bytes + weight(&message) > self.bounds.bytes_max {
            return Admission::Full("the ingress pool holds pool.bytes_max bytes");
        }
        waiting.bytes += weight(&message);
        waiting.ids.insert(message.message_id);
        waiting.messages.push_back(message);
        let first = waiting.messages.len() == 1;
        drop(waiting);
        // Only the first message can find the round thread asleep.
        if first {
            self.arrived.notify_one();
        }
        Admission::Added
    }

    /// Takes the oldest messages that fit a batch. Messages that expired before `time` are dropped on the way.
    pub fn take(&self, messages_max: usize, bytes_max: usize, time: Time) -> Vec<Ingress> {
        let mut waiting = self.waiting.lock();
        let mut batch = Vec::with_capacity(waiting.messages.len().min(messages_max));
        let mut bytes = 0;
        while batch.len() < messages_max {
            match waiting.messages.front() {
                Some(message) if bytes + weight(message) <= bytes_max || batch.is_empty() => {}
                _ => break,
            }
            let Some(message) = waiting.messages.pop_front() else {
                break;
            };
            waiting.bytes -= weight(&message);
            waiting.ids.remove(&message.message_id);
            if message.expiry >= time {
                bytes += weight(&message);
                batch.push(message);
            }
        }
        batch
    }

    /// Adds the answer to a call that waits for something outside the rounds.
    pub fn answer(&self, answer: ConsensusResponse) {
        self.waiting.lock().answers.push_back(answer);
        self.arrived.notify_one();
    }

    /// Takes the oldest answers, of `bytes_max` bytes at most; one at least, where there is one.
    pub fn take_answers(&self, bytes_max: usize) -> Vec<ConsensusResponse> {
        let mut waiting = self.waiting.lock();
        let mut bytes = 0;
        let fitting = waiting.answers.iter().take_while(|answer| {
            let is_first = bytes == 0;
            bytes += answer_weight(answer);
            is_first || bytes <= bytes_max
        });
        let count = fitting.count();
        waiting.answers.drain(..count).collect()
    }

    /// Sleeps until a message or an answer waits, `deadline` passes or the pool is closed. `None` waits without end.
    pub fn wait(&self, deadline: Option<Instant>) -> Woken {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some(since) = waiting.closed
                && (waiting.is_empty() || since.elapsed() >= CLOSED_TAKE_MAX)
            {
                return Woken::Closed;
            }
            if !waiting.is_empty() {
                return Woken::Messages;
            }
            match deadline {
                None => self.arrived.wait(&mut waiting),
                Some(deadline) => {
                    if self.arrived.wait_until(&mut waiting, deadline).timed_out() {
                        return if waiting.is_empty() {
                            Woken::Deadline
                        } else {
                            Woken::Messages
                        };
                    }
                }
            }
        }
    }

    /// Refuses messages from now on; those that wait are still taken.
    pub fn close(&self) {
        self.waiting.lock().closed.get_or_insert_with(Instant::now);
        self.arrived.notify_all();
    }

    /// Closes the pool and empties it: the ids of the messages that are given up.
    pub fn abandon(&self) -> Vec<MessageId> {
        self.close();
        let mut waiting = self.waiting.lock();
        waiting.bytes = 0;
        waiting.ids.clear();
        waiting.messages.drain(..).map(|message| message.message_id).collect()
    }
}

/// Bytes that a message counts for: its argument and a flat amount for the rest.
fn weight(message: &Ingress) -> usize {
    message.method_payload.len() + message.method_name.len() + 256
}

/// Bytes that an answer counts for.
fn answer_weight(answer: &ConsensusResponse) -> usize {
    256 + match &answer.payload {
        ResponsePayload::Data(data) => data.len(),
        ResponsePayload::Reject(reject) => reject.message.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicore_types::{CanisterId, Payload, PrincipalId};
    use std::time::Duration;

    fn message(number: u8, bytes: usize, expiry: u64) -> Ingress {
        Ingress {
            message_id: MessageId([number; 32]),
            source: PrincipalId::anonymous(),
            receiver: CanisterId::from_index(0),
            effective_canister_id: None,
            method_name: "m".into(),
            method_payload: Payload::from(vec![0; bytes]),
            expiry: Time(expiry),
            envelope_bytes: 0,
            sender_info: None,
        }
    }

    fn pool(messages_max: usize, bytes_max: usize) -> IngressPool {
        IngressPool::new(PoolConfig {
            messages_max,
            bytes_max,
            call_wait_ms: 0,
        })
    }

    #[test]
    fn keeps_order_and_refuses_duplicates_and_overflow() {
        let pool = pool(2, 10_000);
        assert_eq!(pool.offer(message(1, 10, 9)), Admission::Added);
        assert_eq!(pool.offer(message(1, 10, 9)), Admission::Duplicate);
        assert_eq!(pool.offer(message(2, 10, 9)), Admission::Added);
        assert!(matches!(pool.offer(message(3, 10, 9)), Admission::Full(_)));
        let ids: Vec<_> = pool
            .take(10, 10_000, Time(5))
            .iter()
            .map(|message| message.message_id.0[0])
            .collect();
        assert_eq!(ids, [1, 2]);
        assert_eq!(
            pool.offer(message(1, 10, 9)),
            Admission::Added,
            "a taken id may come again: induction judges it"
        );
    }

    #[test]
    fn bounds_bytes_of_pool_and_batch_but_always_makes_progress() {
        let pool = pool(10, 2_000);
        assert_eq!(pool.offer(message(1, 1_000, 9)), Admission::Added);
        assert!(matches!(pool.offer(message(2, 1_000, 9)), Admission::Full(_)));
        assert_eq!(
            pool.take(10, 100, Time(0)).len(),
            1,
            "a message larger than the batch goes alone"
        );
        assert!(pool.take(10, 100, Time(0)).is_empty());
        assert_eq!(pool.offer(message(2, 1_000, 9)), Admission::Added);
    }

    #[test]
    fn drops_expired_messages() {
        let pool = pool(10, 10_000);
        pool.offer(message(1, 1, 4));
        pool.offer(message(2, 1, 5));
        assert_eq!(pool.take(10, 10_000, Time(5)).len(), 1);
    }

    #[test]
    fn waits_for_messages_deadlines_and_the_end() {
        let pool = pool(10, 10_000);
        assert_eq!(
            pool.wait(Some(Instant::now() + Duration::from_millis(1))),
            Woken::Deadline
        );
        pool.offer(message(1, 1, 1));
        assert_eq!(pool.wait(None), Woken::Messages);
        pool.close();
        assert_eq!(pool.wait(None), Woken::Messages, "what was accepted is still taken");
        pool.take(10, 10_000, Time(0));
        assert_eq!(pool.wait(None), Woken::Closed);
        assert!(matches!(pool.offer(message(2, 1, 1)), Admission::Full(_)));
    }

    #[test]
    fn a_pool_that_is_abandoned_names_what_it_gives_up() {
        let pool = pool(10, 10_000);
        pool.offer(message(1, 1, 1));
        pool.offer(message(2, 1, 1));
        assert_eq!(pool.abandon(), [MessageId([1; 32]), MessageId([2; 32])]);
        assert_eq!(pool.wait(None), Woken::Closed);
    }
}
