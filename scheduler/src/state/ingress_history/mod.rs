//! What became of every ingress message, kept as long as its sender may ask and as long as it could be sent again.

mod pieces;
#[cfg(test)]
mod tests;

pub use pieces::HistoryPiece;

use imbl::{OrdMap, OrdSet};
use replicore_types::limits::{INGRESS_HISTORY_BYTES_MAX, INGRESS_HISTORY_ENTRIES_MAX, INGRESS_HISTORY_TTL};
use replicore_types::{IngressState, IngressStatus, MessageId, Time};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Statuses by request id. A clone shares everything.
#[derive(Clone, Debug, Default)]
pub struct IngressHistory {
    statuses: OrdMap<MessageId, Arc<IngressStatus>>,
    /// Requests by the batch time at which they got their answer, in the order in which they did. They are forgotten
    /// [`INGRESS_HISTORY_TTL`] later.
    answered: OrdMap<Time, Arc<Vec<MessageId>>>,
    /// Requests without an answer, by when they were taken up.
    open: OrdSet<(Time, MessageId)>,
    /// How far answers are reduced to `Done`: those given before this time, and so many of those given at it.
    reduced: Reduced,
    /// Bytes of the answers kept.
    answer_bytes: u64,
    /// The pieces that a checkpoint holds of this, and when each changed last. Derived.
    changed_at: OrdMap<HistoryPiece, Time>,
}

/// A time, and how many of the answers given at it: see [`IngressHistory::next_to_reduce`].
pub(super) type Reduced = (Time, usize);

/// Bytes that the answer of a status takes.
fn answer_bytes(state: &IngressState) -> u64 {
    match state {
        IngressState::Completed(reply) => reply.len() as u64,
        IngressState::Failed(error) => error.description.len() as u64,
        IngressState::Received | IngressState::Processing | IngressState::Done => 0,
    }
}

impl IngressHistory {
    /// The status of a request, if it is known.
    pub fn get(&self, id: &MessageId) -> Option<&Arc<IngressStatus>> {
        self.statuses.get(id)
    }

    /// Number of statuses kept.
    pub fn len(&self) -> usize {
        self.statuses.len()
    }

    /// True when nothing is known of any request.
    pub fn is_empty(&self) -> bool {
        self.statuses.is_empty()
    }

    /// Every status, by ascending request id.
    pub fn iter(&self) -> impl Iterator<Item = (&MessageId, &Arc<IngressStatus>)> {
        self.statuses.iter()
    }

    /// Bytes of the answers kept.
    pub fn answer_bytes(&self) -> u64 {
        self.answer_bytes
    }

    /// Records the status of a request. An answer is kept for [`INGRESS_HISTORY_TTL`] after `now`, the batch time.
    pub fn set(&mut self, id: MessageId, status: IngressStatus, now: Time) {
        self.set_all(&[(id, Arc::new(status))], now);
    }

    /// Records many statuses, in their order. No request that has its answer is among them.
    pub fn set_all(&mut self, statuses: &[(MessageId, Arc<IngressStatus>)], now: Time) {
        let mut answered = Vec::new();
        let mut opened = BTreeSet::new();
        for (id, status) in statuses {
            self.answer_bytes += answer_bytes(&status.state);
            let old = self.statuses.insert(*id, Arc::clone(status));
            if let Some(old) = old {
                if old.state.is_terminal() {
                    debug_assert!(false, "request {id} was answered before");
                    // An answer is final: the first one stays.
                    self.answer_bytes -= answer_bytes(&status.state);
                    self.statuses.insert(*id, old);
                    continue;
                }
                self.open.remove(&(old.time, *id));
                opened.insert(HistoryPiece::open(old.time));
            }
            match status.state.is_terminal() {
                true => answered.push(*id),
                false => {
                    self.open.insert((status.time, *id));
                    opened.insert(HistoryPiece::open(status.time));
                }
            }
        }
        for piece in opened {
            self.note_change(piece, now);
        }
        if !answered.is_empty() {
            Arc::make_mut(self.answered.entry(now).or_default()).extend(answered);
            self.note_change(HistoryPiece::answered(now), now);
        }
    }

    /// Forgets answers whose time has come and reduces the oldest ones to `Done` while their bytes exceed the bound.
    /// Returns the requests whose status changed, a forgotten one included.
    pub fn prune(&mut self, now: Time) -> Vec<MessageId> {
        let mut changed = Vec::new();
        while let Some(time) = self.answered.get_min().map(|(time, _)| *time) {
            if time.plus(INGRESS_HISTORY_TTL) > now {
                break;
            }
            let forgotten = self.answered.remove(&time).unwrap_or_default();
            for id in forgotten.iter() {
                if let Some(old) = self.statuses.remove(id) {
                    self.answer_bytes -= answer_bytes(&old.state);
                }
            }
            changed.extend_from_slice(&forgotten);
            self.note_change(HistoryPiece::answered(time), now);
        }
        self.reduce_to(INGRESS_HISTORY_BYTES_MAX as u64, now, &mut changed);
        changed
    }

    /// Reduces the oldest answers to `Done` while those kept have more than `bytes_max` bytes.
    pub(crate) fn reduce_to(&mut self, bytes_max: u64, now: Time, changed: &mut Vec<MessageId>) {
        let mut pieces = BTreeSet::new();
        while self.answer_bytes > bytes_max {
            let Some(id) = self.next_to_reduce() else { break };
            pieces.insert(HistoryPiece::answered(self.reduced.0));
            if let Some(old) = self.statuses.get(&id).cloned() {
                self.answer_bytes -= answer_bytes(&old.state);
                let state = IngressState::Done;
                self.statuses.insert(
                    id,
                    Arc::new(IngressStatus {
                        state,
                        ..(*old).clone()
                    }),
                );
                changed.push(id);
            }
        }
        for piece in pieces {
            self.note_change(piece, now);
        }
    }

    /// A history without statuses, which has been reduced so far.
    pub(super) fn reduced_to(reduced: Reduced) -> Self {
        Self {
            reduced,
            ..Self::default()
        }
    }

    /// How far answers are reduced: what belongs to no piece.
    pub(super) fn reduced(&self) -> Reduced {
        self.reduced
    }

    /// The request with the oldest answer that is kept whole; it counts as reduced from now on.
    fn next_to_reduce(&mut self) -> Option<MessageId> {
        let (from, done) = self.reduced;
        for (time, ids) in self.answered.range(from..) {
            let next = if *time == from { done } else { 0 };
            if let Some(id) = ids.get(next) {
                self.reduced = (*time, next + 1);
                return Some(*id);
            }
        }
        None
    }

    /// Requests that may be taken up beside those that have a status: every one keeps it until its time is over.
    pub fn room(&self) -> usize {
        INGRESS_HISTORY_ENTRIES_MAX.saturating_sub(self.statuses.len())
    }
}
