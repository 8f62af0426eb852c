//! The ingress pool: verified messages that wait for a batch. Bounded by count and bytes, for each canister and for each
//! sender; one entry per request id.
//!
//! Each canister has its own line, and a batch takes from the lines in turn: whoever floods one canister delays that
//! canister's messages and not those of others. Messages of one canister keep their order.
//!
//! A message is counted from when it is offered until the round that has it is published. Where so many of a canister are
//! under way that one more would wait longer than it may, judged by how long the last ones took, it is refused: what is
//! accepted is answered in time, and the excess learns at once that it has to come again. For the same reason a round is
//! given no more of a canister than it is going to do: what would wait in the state waits here.
//!
//! The pool is also the place where the round thread sleeps when there is nothing to do, so that a message that arrives
//! at an idle replica starts a round at once. While a round is under way the next one begins beside it only where many
//! messages wait; fewer wait until it is published, and are one round instead of several.

mod flow;
mod line;
mod share;

use crate::config::PoolConfig;
use flow::{Aim, Flow, Mark};
use line::{Entry, Line, UNDER_WAY_MIN};
use parking_lot::{Condvar, Mutex, MutexGuard};
use replicore_types::{CanisterId, ConsensusResponse, Ingress, Lock, MessageId, PrincipalId, ResponsePayload, Time};
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

/// After [`IngressPool::close`], how long what waits is still taken. Shutting down is meant to be quick; what is left then
/// has not been answered, and its senders are told to send it again.
const CLOSED_TAKE_MAX: Duration = Duration::from_secs(2);

/// Messages of all canisters that may be under way whatever the waiting time.
const UNDER_WAY_IN_ALL_MIN: usize = 2_000;
/// All canisters together may take this many times the waiting time of one: so who floods one canister meets the bound
/// of that canister first, and the others have room.
const WAITING_IN_ALL: u32 = 2;

/// A call may have waited this part of `waiting_ms_max` before it comes here: where network threads are behind, what they
/// could not look at in time is refused before it costs them more, where there are enough calls of its canister anyway.
const WAITING_BEFORE_SHARE: u128 = 4;

/// From so many waiting messages on a round is worth its own signature, sync and publication although the round before is
/// not published yet. With fewer, rounds that overlap only grow in number: each of them costs the processors the same
/// half a millisecond, which is then missing for the calls that they hold.
const OVERLAP_MIN: usize = 512;

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
    /// Messages or answers wait, and a round may begin with them.
    Messages,
    /// The deadline passed.
    Deadline,
    /// [`IngressPool::close`] was called, and nothing waits any more or it was too long ago.
    Closed,
}

/// What a batch has room for.
pub struct BatchRoom<'a> {
    /// Messages.
    pub messages_max: usize,
    /// Bytes that they count for; one message goes whatever it counts for.
    pub bytes_max: usize,
    /// Messages of one canister that a round executes at most.
    pub of_canister_max: usize,
    /// Time of the batch: what has expired before is dropped.
    pub time: Time,
    /// How many ingress messages of a canister wait in the state that the batch is for.
    pub in_state: &'a dyn Fn(&CanisterId) -> usize,
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
    /// The same with those in rounds that are not published yet.
    pub under_way: usize,
    /// Bytes that they count for.
    pub bytes: usize,
    /// Canisters that they are for.
    pub canisters: usize,
}

struct Waiting {
    lines: HashMap<CanisterId, Line>,
    /// Canisters with a line, in the order of their turns.
    turns: VecDeque<CanisterId>,
    /// Those of which the round that is being made up has enough; empty otherwise.
    satisfied: Vec<CanisterId>,
    ids: HashSet<MessageId>,
    /// Messages under way of each sender that has one; the anonymous one is nobody in particular and is not counted.
    senders: HashMap<PrincipalId, usize>,
    messages: usize,
    bytes: usize,
    /// Answers from outside to calls of canisters. The state bounds them: one for each open call.
    answers: VecDeque<ConsensusResponse>,
    /// All messages that are under way.
    all: Flow,
    /// What was taken and is not published yet, oldest first.
    rounds: VecDeque<Taken>,
    /// Rounds for which messages were taken.
    taken: u64,
    closed: Option<Instant>,
}

/// What one round has of the pool.
#[derive(Default)]
struct Taken {
    canisters: Vec<CanisterId>,
    /// Of each message that has one that is counted.
    senders: Vec<PrincipalId>,
    messages: usize,
    /// The message that came first: the one that waited longest.
    first: Option<Mark>,
}

/// The canister in whose line a message stands: for calls of the management canister the one that they are about.
fn line_of(message: &Ingress) -> CanisterId {
    message.effective_canister_id.unwrap_or(message.receiver)
}

/// What the pool is held to.
fn aim_of_all(bounds: &PoolConfig) -> Aim {
    Aim {
        target: WAITING_IN_ALL * Duration::from_millis(bounds.waiting_ms_max),
        least: UNDER_WAY_IN_ALL_MIN,
        first: usize::MAX,
    }
}

impl Waiting {
    fn new(bounds: &PoolConfig) -> Self {
        Self {
            lines: HashMap::new(),
            turns: VecDeque::new(),
            satisfied: Vec::new(),
            ids: HashSet::new(),
            senders: HashMap::new(),
            messages: 0,
            bytes: 0,
            answers: VecDeque::new(),
            all: Flow::new(aim_of_all(bounds)),
            rounds: VecDeque::new(),
            taken: 0,
            closed: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.messages == 0 && self.answers.is_empty()
    }

    /// True where what waits is to become a round now.
    fn is_worth_a_round(&self) -> bool {
        let may_begin = self.rounds.is_empty() || self.messages >= OVERLAP_MIN || self.closed.is_some();
        may_begin && !self.is_empty()
    }

    /// The bound on waiting time that keeps a message for a canister out, if one does.
    fn slow(&self, canister: &CanisterId) -> Option<&'static str> {
        match () {
            () if self.lines.get(canister).is_some_and(|line| !line.flow.has_room()) => {
                Some("calls of this canister would wait longer than pool.waiting_ms_max")
            }
            () if !self.all.has_room() => Some("calls would wait longer than twice pool.waiting_ms_max"),
            () => None,
        }
    }

    /// True where so many calls of a canister are under way that its users wait for each other.
    fn has_a_crowd(&self, canister: &CanisterId) -> bool {
        let line = self.lines.get(canister);
        line.is_some_and(|line| line.flow.under_way() >= UNDER_WAY_MIN)
    }

    /// The bound that keeps a message out, if one does.
    fn full(&self, bounds: &PoolConfig, message: &Ingress) -> Option<&'static str> {
        let canister = line_of(message);
        let in_line = self.lines.get(&canister).map_or(0, Line::len);
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
            // Who controls a canister has to get at it when it is flooded.
            () if message.receiver == CanisterId::MANAGEMENT => None,
            () if of_sender > 0 && of_sender >= self.share_of_sender(&canister) => {
                Some("calls of this sender take half of what this canister can do in pool.waiting_ms_max")
            }
            () => self.slow(&canister),
        }
    }

    /// Messages of one sender beyond which a canister takes no more of them: so the other half is there for the others.
    fn share_of_sender(&self, canister: &CanisterId) -> usize {
        self.lines
            .get(canister)
            .and_then(|line| line.flow.learned())
            .map_or(usize::MAX, |allowed| allowed / 2)
    }

    fn forget_sender(&mut self, sender: &PrincipalId) {
        if let Some(count) = self.senders.get_mut(sender) {
            *count -= 1;
            if *count == 0 {
                self.senders.remove(sender);
            }
        }
    }

    fn add(&mut self, message: Ingress, bounds: &PoolConfig) {
        let now = Instant::now();
        self.messages += 1;
        self.bytes += weight(&message);
        self.ids.insert(message.message_id);
        if message.source != PrincipalId::anonymous() {
            *self.senders.entry(message.source).or_default() += 1;
        }
        let canister = line_of(&message);
        let line = self.lines.entry(canister).or_insert_with(|| Line::new(bounds));
        let in_line = line.flow.enter(now);
        line.push(Entry {
            message,
            in_line,
            in_all: self.all.enter(now),
        });
        if line.len() == 1 {
            self.turns.push_back(canister);
        }
    }

    /// The canister whose turn it is, of those of which the round has not enough. When the pool closes, what waits is to
    /// become a part of the state: there it is safe.
    fn next_turn(&mut self, batch: &BatchRoom<'_>) -> Option<CanisterId> {
        while let Some(canister) = self.turns.front().copied() {
            let line = self.lines.get_mut(&canister)?;
            if self.closed.is_some()
                || line.may_give((self.taken, batch.of_canister_max), || (batch.in_state)(&canister))
            {
                return Some(canister);
            }
            self.turns.pop_front();
            self.satisfied.push(canister);
        }
        None
    }

    /// Takes the message whose turn it is, unless `fits` says no to it: for the round that is at the back, unless it has
    /// expired. `Some(None)` is one that has.
    fn take(&mut self, batch: &BatchRoom<'_>, fits: impl FnOnce(&Ingress) -> bool) -> Option<Option<Ingress>> {
        let canister = self.next_turn(batch)?;
        let line = self.lines.get_mut(&canister)?;
        let entry = line.pop(fits)?;
        let message = entry.message;
        let has_expired = message.expiry < batch.time;
        if has_expired {
            line.flow.leave(1);
            self.all.leave(1);
        } else if let Some(round) = self.rounds.back_mut() {
            round.messages += 1;
            if message.source != PrincipalId::anonymous() {
                round.senders.push(message.source);
            }
            round.first = match round.first {
                Some(first) if first.since <= entry.in_all.since => Some(first),
                _ => Some(entry.in_all),
            };
            if line.add_to_round(self.taken, entry.in_line) {
                round.canisters.push(canister);
            }
        }
        self.turns.pop_front();
        if line.len() > 0 {
            self.turns.push_back(canister);
        } else if line.flow.is_idle() {
            self.lines.remove(&canister);
        }
        self.messages -= 1;
        self.bytes -= weight(&message);
        self.ids.remove(&message.message_id);
        if has_expired {
            self.forget_sender(&message.source);
            return Some(None);
        }
        Some(Some(message))
    }

    /// The oldest round for which messages were taken is published.
    fn published(&mut self, bounds: &PoolConfig, now: Instant) {
        let Some(round) = self.rounds.pop_front() else {
            return;
        };
        if let Some(first) = round.first {
            self.all.learn(first, round.messages, now, aim_of_all(bounds));
        }
        self.all.leave(round.messages);
        for sender in &round.senders {
            self.forget_sender(sender);
        }
        for canister in round.canisters {
            let Some(line) = self.lines.get_mut(&canister) else {
                continue;
            };
            line.published(bounds, now);
            if line.flow.is_idle() {
                self.lines.remove(&canister);
            }
        }
    }
}

impl IngressPool {
    /// An empty pool with these bounds.
    pub fn new(bounds: PoolConfig) -> Self {
        Self {
            waiting: Mutex::new(Waiting::new(&bounds)),
            bounds,
            arrived: Condvar::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        Lock::IngressPool.take(self.waiting.try_lock(), || self.waiting.lock())
    }

    /// Whether a call of this canister that has `waited` already would wait for longer than it may, and the bound that
    /// says so: asked before anything is done for the call. Calls of the management canister are taken whatever the answer.
    pub fn slow(&self, canister: &CanisterId, waited: Duration) -> Option<&'static str> {
        let is_late = waited.as_millis() * WAITING_BEFORE_SHARE > u128::from(self.bounds.waiting_ms_max);
        let waiting = self.waiting();
        match is_late && self.bounds.waiting_ms_max > 0 && waiting.has_a_crowd(canister) {
            true => Some("calls of this canister wait too long before they are looked at (pool.waiting_ms_max)"),
            false => waiting.slow(canister),
        }
    }

    /// Offers a message, which its caller knows to be verified: the service has it as a `VerifiedIngress`.
    pub fn offer(&self, message: Ingress) -> Admission {
        let mut waiting = self.waiting();
        if waiting.closed.is_none() && waiting.ids.contains(&message.message_id) {
            return Admission::Duplicate;
        }
        if let Some(bound) = waiting.full(&self.bounds, &message) {
            return Admission::Full(bound);
        }
        waiting.add(message, &self.bounds);
        // Only the first message, and the one that makes them many, can find the round thread asleep.
        let wakes = [1, OVERLAP_MIN].contains(&waiting.messages);
        drop(waiting);
        if wakes {
            self.arrived.notify_one();
        }
        Admission::Added
    }

    /// Takes messages that fit a batch, from the canisters in turn, and of each no more than a round is going to do. Messages
    /// that have expired are dropped on the way. Each time stands for a round, of which [`IngressPool::published`] is to be
    /// told.
    pub fn take(&self, room: &BatchRoom<'_>) -> Vec<Ingress> {
        let BatchRoom {
            messages_max,
            bytes_max,
            ..
        } = *room;
        let mut waiting = self.waiting();
        waiting.taken += 1;
        waiting.rounds.push_back(Taken::default());
        let mut batch = Vec::with_capacity(waiting.messages.min(messages_max));
        let mut bytes = 0;
        while batch.len() < messages_max {
            let fits = |message: &Ingress| bytes + weight(message) <= bytes_max || batch.is_empty();
            let Some(message) = waiting.take(room, fits) else { break };
            if let Some(message) = message {
                bytes += weight(&message);
                batch.push(message);
            }
        }
        let satisfied = std::mem::take(&mut waiting.satisfied);
        waiting.turns.extend(satisfied);
        batch
    }

    /// The oldest round that messages were taken for is published: they do not count any more, and how long they took
    /// says how many more may come. The next round may begin with what has come meanwhile.
    pub fn published(&self) {
        let mut waiting = self.waiting();
        waiting.published(&self.bounds, Instant::now());
        let wakes = waiting.is_worth_a_round();
        drop(waiting);
        if wakes {
            self.arrived.notify_one();
        }
    }

    /// What it holds.
    pub fn stats(&self) -> PoolStats {
        let waiting = self.waiting();
        PoolStats {
            messages: waiting.messages,
            under_way: waiting.all.under_way(),
            bytes: waiting.bytes,
            canisters: waiting.turns.len(),
        }
    }

    /// Adds the answer to a call that waits for something outside the rounds.
    pub fn answer(&self, answer: ConsensusResponse) {
        self.waiting().answers.push_back(answer);
        self.arrived.notify_one();
    }

    /// Takes the oldest answers, of `bytes_max` bytes at most; one at least, where there is one.
    pub fn take_answers(&self, bytes_max: usize) -> Vec<ConsensusResponse> {
        let mut waiting = self.waiting();
        let mut bytes = 0;
        let fitting = waiting.answers.iter().take_while(|answer| {
            let is_first = bytes == 0;
            bytes += answer_weight(answer);
            is_first || bytes <= bytes_max
        });
        let count = fitting.count();
        waiting.answers.drain(..count).collect()
    }

    /// Sleeps until a round is to begin with the messages or answers that wait, `deadline` passes or the pool is closed. One
    /// message is enough where every round is published, [`OVERLAP_MIN`] of them in any case. `None` waits without end.
    pub fn wait(&self, deadline: Option<Instant>) -> Woken {
        let mut waiting = self.waiting();
        loop {
            if let Some(since) = waiting.closed
                && (waiting.is_empty() || since.elapsed() >= CLOSED_TAKE_MAX)
            {
                return Woken::Closed;
            }
            if waiting.is_worth_a_round() {
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
        self.waiting().closed.get_or_insert_with(Instant::now);
        self.arrived.notify_all();
    }

    /// Closes the pool and gives up what waits.
    pub fn abandon(&self) {
        self.close();
        let mut waiting = self.waiting();
        let closed = waiting.closed;
        *waiting = Waiting {
            closed,
            ..Waiting::new(&self.bounds)
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
mod tests;
