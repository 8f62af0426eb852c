//! The ingress pool: verified messages that wait for a batch. Bounded by count and bytes, for each canister and for each
//! sender; one entry per request id.
//!
//! Each canister has its own line, and a batch takes from the lines in turn: whoever floods one canister delays that
//! canister's messages and not those of others. Messages of one canister keep their order.
//!
//! The pool is also the place where the round thread sleeps when there is nothing to do, so that a message that arrives
//! at an idle replica starts a round at once.

use crate::config::PoolConfig;
use parking_lot::{Condvar, Mutex};
use replicore_types::{CanisterId, ConsensusResponse, Ingress, MessageId, PrincipalId, ResponsePayload, Time};
use std::collections::{HashMap, HashSet, VecDeque};
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

/// Verified messages in a line for each canister.
pub struct IngressPool {
    bounds: PoolConfig,
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

/// What the pool holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Messages.
    pub messages: usize,
    /// Bytes that they count for.
    pub bytes: usize,
    /// Canisters that they are for.
    pub canisters: usize,
}

#[derive(Default)]
struct Waiting {
    lines: HashMap<CanisterId, VecDeque<Ingress>>,
    /// Canisters with a line, in the order of their turns.
    turns: VecDeque<CanisterId>,
    ids: HashSet<MessageId>,
    /// Messages of each sender that has one; the anonymous one is nobody in particular and is not counted.
    senders: HashMap<PrincipalId, usize>,
    messages: usize,
    bytes: usize,
    /// Answers from outside to calls of canisters. The state bounds them: one for each open call.
    answers: VecDeque<ConsensusResponse>,
    closed: Option<Instant>,
}

/// The canister in whose line a message stands: for calls of the management canister the one that they are about.
fn line_of(message: &Ingress) -> CanisterId {
    message.effective_canister_id.unwrap_or(message.receiver)
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.messages == 0 && self.answers.is_empty()
    }

    /// The bound that keeps a message out, if one does.
    fn full(&self, bounds: &PoolConfig, message: &Ingress) -> Option<&'static str> {
        let in_line = self.lines.get(&line_of(message)).map_or(0, VecDeque::len);
        let of_sender = self.senders.get(&message.source).copied().unwrap_or(0);
        match () {
            () if self.closed.is_some() => Some("the replica is shutting down"),
            () if self.messages >= bounds.messages_max => Some("the ingress pool holds pool.messages_max messages"),
            () if self.bytes + weight(message) > bounds.bytes_max => {
                Some("the ingress pool holds pool.bytes_max bytes")
            }
            () if in_line >= bounds.messages_per_canister_max => {
                Some("the ingress pool holds pool.messages_per_canister_max messages for this canister")
            }
            () if of_sender >= bounds.messages_per_sender_max => {
                Some("the ingress pool holds pool.messages_per_sender_max messages of this sender")
            }
            () => None,
        }
    }

    fn add(&mut self, message: Ingress) {
        self.messages += 1;
        self.bytes += weight(&message);
        self.ids.insert(message.message_id);
        if message.source != PrincipalId::anonymous() {
            *self.senders.entry(message.source).or_default() += 1;
        }
        let canister = line_of(&message);
        let line = self.lines.entry(canister).or_default();
        line.push_back(message);
        if line.len() == 1 {
            self.turns.push_back(canister);
        }
    }

    /// Takes the message whose turn it is, unless `fits` says no to it.
    fn take(&mut self, fits: impl FnOnce(&Ingress) -> bool) -> Option<Ingress> {
        let canister = *self.turns.front()?;
        let line = self.lines.get_mut(&canister)?;
        let message = line.pop_front_if(|message| fits(message))?;
        self.turns.pop_front();
        if line.is_empty() {
            self.lines.remove(&canister);
        } else {
            self.turns.push_back(canister);
        }
        self.messages -= 1;
        self.bytes -= weight(&message);
        self.ids.remove(&message.message_id);
        if let Some(count) = self.senders.get_mut(&message.source) {
            *count -= 1;
            if *count == 0 {
                self.senders.remove(&message.source);
            }
        }
        Some(message)
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
        if waiting.closed.is_none() && waiting.ids.contains(&message.message_id) {
            return Admission::Duplicate;
        }
        if let Some(bound) = waiting.full(&self.bounds, &message) {
            return Admission::Full(bound);
        }
        waiting.add(message);
        let first = waiting.messages == 1;
        drop(waiting);
        // Only the first message can find the round thread asleep.
        if first {
            self.arrived.notify_one();
        }
        Admission::Added
    }

    /// Takes messages that fit a batch, from the canisters in turn. Messages that expired before `time` are dropped on
    /// the way.
    pub fn take(&self, messages_max: usize, bytes_max: usize, time: Time) -> Vec<Ingress> {
        let mut waiting = self.waiting.lock();
        let mut batch = Vec::with_capacity(waiting.messages.min(messages_max));
        let mut bytes = 0;
        while batch.len() < messages_max {
            let fits = |message: &Ingress| bytes + weight(message) <= bytes_max || batch.is_empty();
            let Some(message) = waiting.take(fits) else { break };
            if message.expiry >= time {
                bytes += weight(&message);
                batch.push(message);
            }
        }
        batch
    }

    /// What it holds.
    pub fn stats(&self) -> PoolStats {
        let waiting = self.waiting.lock();
        PoolStats {
            messages: waiting.messages,
            bytes: waiting.bytes,
            canisters: waiting.turns.len(),
        }
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

    /// Closes the pool and gives up what waits.
    pub fn abandon(&self) {
        self.close();
        let mut waiting = self.waiting.lock();
        let closed = waiting.closed;
        *waiting = Waiting {
            closed,
            ..Waiting::default()
        };
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
    use replicore_types::Payload;
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
            ..PoolConfig::default()
        })
    }

    fn ids(messages: &[Ingress]) -> Vec<u8> {
        messages.iter().map(|message| message.message_id.0[0]).collect()
    }

    /// For the canister with this index, from the sender with this number; the anonymous one is 0.
    fn message_for(number: u8, canister: u64, sender: u8) -> Ingress {
        let source = match sender {
            0 => PrincipalId::anonymous(),
            _ => PrincipalId::self_authenticating([sender]),
        };
        Ingress {
            receiver: CanisterId::from_index(canister),
            source,
            ..message(number, 10, 9)
        }
    }

    #[test]
    fn canisters_take_turns_and_keep_their_own_order() {
        let pool = pool(100, 100_000);
        for number in 0..6 {
            assert_eq!(pool.offer(message_for(number, 0, 0)), Admission::Added);
        }
        assert_eq!(pool.offer(message_for(10, 1, 0)), Admission::Added);
        assert_eq!(pool.offer(message_for(11, 1, 0)), Admission::Added);
        assert_eq!(pool.offer(message_for(20, 2, 0)), Admission::Added);
        assert_eq!(ids(&pool.take(5, 100_000, Time(0))), [0, 10, 20, 1, 11]);
        assert_eq!(pool.offer(message_for(21, 2, 0)), Admission::Added);
        assert_eq!(ids(&pool.take(100, 100_000, Time(0))), [2, 21, 3, 4, 5]);
        assert_eq!(pool.stats(), PoolStats::default());
    }

    #[test]
    fn calls_about_a_canister_stand_in_its_line() {
        let pool = pool(100, 100_000);
        for number in 0..3 {
            let about = Some(CanisterId::from_index(7));
            pool.offer(Ingress {
                receiver: CanisterId::MANAGEMENT,
                effective_canister_id: about,
                ..message(number, 10, 9)
            });
        }
        pool.offer(message_for(10, 8, 0));
        assert_eq!(pool.stats().canisters, 2);
        assert_eq!(ids(&pool.take(2, 100_000, Time(0))), [0, 10]);
    }

    #[test]
    fn one_canister_and_one_sender_take_a_part_only() {
        let pool = IngressPool::new(PoolConfig {
            messages_per_canister_max: 3,
            messages_per_sender_max: 2,
            ..PoolConfig::default()
        });
        let refused = |number, canister, sender| match pool.offer(message_for(number, canister, sender)) {
            Admission::Full(bound) => Some(bound.contains("canister")),
            _ => None,
        };
        assert_eq!((refused(1, 0, 1), refused(2, 0, 1)), (None, None));
        assert_eq!(refused(3, 1, 1), Some(false), "a third message of the sender");
        assert_eq!(refused(4, 0, 2), None);
        assert_eq!(refused(5, 0, 3), Some(true), "a fourth message for the canister");
        for number in 6..9 {
            assert_eq!(refused(number, 2, 0), None, "the anonymous sender is not counted");
        }
        pool.take(2, 100_000, Time(0));
        assert_eq!(refused(3, 1, 1), None, "what was taken does not count any more");
    }

    #[test]
    fn keeps_order_and_refuses_duplicates_and_overflow() {
        let pool = pool(2, 10_000);
        assert_eq!(pool.offer(message(1, 10, 9)), Admission::Added);
        assert_eq!(pool.offer(message(1, 10, 9)), Admission::Duplicate);
        assert_eq!(pool.offer(message(2, 10, 9)), Admission::Added);
        assert!(matches!(pool.offer(message(3, 10, 9)), Admission::Full(_)));
        assert_eq!(ids(&pool.take(10, 10_000, Time(5))), [1, 2]);
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
    fn an_abandoned_pool_is_empty_and_stays_closed() {
        let pool = pool(10, 10_000);
        pool.offer(message(1, 1, 1));
        pool.offer(message(2, 1, 1));
        pool.abandon();
        assert_eq!((pool.stats(), pool.wait(None)), (PoolStats::default(), Woken::Closed));
        assert!(matches!(pool.offer(message(3, 1, 1)), Admission::Full(_)));
    }
}
