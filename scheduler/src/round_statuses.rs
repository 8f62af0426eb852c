//! The ingress statuses that a round gives, until they enter the history.

use replicore_types::{IngressStatus, MessageId, Time};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// New statuses by request id. Looked up for every message, hence hashed; read out in the order of ids, so that nothing
/// depends on the hash.
#[derive(Debug, Default)]
pub(crate) struct RoundStatuses(HashMap<MessageId, IngressStatus, BuildHasherDefault<IdHasher>>);

impl RoundStatuses {
    /// True where the round has given the request a status.
    pub fn contains(&self, id: &MessageId) -> bool {
        self.0.contains_key(id)
    }

    /// When the request was taken up, where this round has given it a status.
    pub fn time(&self, id: &MessageId) -> Option<Time> {
        self.0.get(id).map(|status| status.time)
    }

    /// Gives a request its status, in place of the one before.
    pub fn insert(&mut self, id: MessageId, status: IngressStatus) {
        self.0.insert(id, status);
    }

    /// Requests with a status.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, in the order of the ids.
    pub fn into_sorted(self) -> Vec<(MessageId, Arc<IngressStatus>)> {
        let mut statuses: Vec<_> = self.0.into_iter().map(|(id, status)| (id, Arc::new(status))).collect();
        statuses.sort_unstable_by_key(|(id, _)| *id);
        statuses
    }
}

/// The beginning of the id itself: request ids are SHA-256 hashes, and what can be ground into eight bytes of one is
/// not worth more than a slow round.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        let mut beginning = [0; 8];
        for (to, from) in beginning.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.0 = u64::from_le_bytes(beginning);
    }

    /// The length, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
