//! What became of every ingress message, kept as long as its sender may ask and as long as it could be sent again.

use imbl::OrdMap;
use replicore_types::limits::{INGRESS_HISTORY_BYTES_MAX, INGRESS_HISTORY_ENTRIES_MAX, INGRESS_HISTORY_TTL};
use replicore_types::{IngressState, IngressStatus, MessageId, Time};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Statuses by request id. A clone shares everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct IngressHistory {
    statuses: OrdMap<MessageId, Arc<IngressStatus>>,
    /// When an entry is forgotten, ascending. The value is unused.
    expiries: OrdMap<(Time, MessageId), ()>,
    /// Terminal entries with an answer, oldest first: what becomes `Done` when the history is too large.
    answered: OrdMap<(Time, MessageId), ()>,
    /// Bytes of the answers kept.
    answer_bytes: u64,
}

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
        let terminal = status.state.is_terminal();
        let bytes = answer_bytes(&status.state);
        if let Some(old) = self.statuses.insert(id, Arc::new(status)) {
            self.answer_bytes -= answer_bytes(&old.state);
        }
        self.answer_bytes += bytes;
        if terminal {
            self.expiries.insert((now.plus(INGRESS_HISTORY_TTL), id), ());
            self.answered.insert((now, id), ());
        }
    }

    /// Forgets answers whose time has come and reduces the oldest ones to `Done` while a bound is exceeded. Returns the
    /// requests whose status changed, a forgotten one included.
    pub fn prune(&mut self, now: Time) -> Vec<MessageId> {
        let mut changed = Vec::new();
        while let Some(((expiry, id), ())) = self.expiries.get_min().map(|(key, ())| (*key, ())) {
            if expiry > now {
                break;
            }
            self.expiries.remove(&(expiry, id));
            self.answered
                .remove(&(Time(expiry.0 - INGRESS_HISTORY_TTL.as_nanos() as u64), id));
            if let Some(old) = self.statuses.remove(&id) {
                self.answer_bytes -= answer_bytes(&old.state);
            }
            changed.push(id);
        }
        while self.statuses.len() > INGRESS_HISTORY_ENTRIES_MAX || self.answer_bytes > INGRESS_HISTORY_BYTES_MAX as u64
        {
            let Some(((answered, id), ())) = self.answered.get_min().map(|(key, ())| (*key, ())) else {
                break;
            };
            self.answered.remove(&(answered, id));
            if let Some(old) = self.statuses.get(&id).cloned() {
                self.answer_bytes -= answer_bytes(&old.state);
                self.statuses.insert(
                    id,
                    Arc::new(IngressStatus {
                        state: IngressState::Done,
                        ..(*old).clone()
                    }),
                );
                changed.push(id);
            }
        }
        changed
    }
}
