//! The ingress statuses that a round gives, until they enter the history.

use crate::workers::SchedulerCores;
use replicore_types::{IngressStatus, MessageId};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// New statuses by request id. Looked up for every message, hence hashed; read out in the order of ids, so that nothing
/// depends on the hash.
#[derive(Debug, Default)]
pub(crate) struct RoundStatuses {
    statuses: Vec<(MessageId, Arc<IngressStatus>)>,
    /// Where a request's status stands.
    places: HashMap<MessageId, u32, BuildHasherDefault<IdHasher>>,
}

impl RoundStatuses {
    /// Makes room for so many more.
    pub fn reserve(&mut self, additional: usize) {
        self.statuses.reserve(additional);
        self.places.reserve(additional);
    }

    /// True where the round has given the request a status.
    pub fn contains(&self, id: &MessageId) -> bool {
        self.places.contains_key(id)
    }

    /// The status that this round has given the request, to be replaced where it is: until the end of the round nobody
    /// else holds it.
    pub fn get_mut(&mut self, id: &MessageId) -> Option<&mut IngressStatus> {
        let place = *self.places.get(id)? as usize;
        self.statuses.get_mut(place).map(|(_, status)| Arc::make_mut(status))
    }

    /// Gives a request a status that has none from this round.
    pub fn insert(&mut self, id: MessageId, status: IngressStatus) {
        // The history bounds them to far fewer than 2^32.
        self.places.insert(id, self.statuses.len() as u32);
        self.statuses.push((id, Arc::new(status)));
    }

    /// Requests with a status.
    pub fn len(&self) -> usize {
        self.statuses.len()
    }

    /// All of them, in the order of the ids.
    pub fn into_sorted(self, cores: SchedulerCores) -> Vec<(MessageId, Arc<IngressStatus>)> {
        let is_parallel = cores.are_worth_it(self.len());
        let mut statuses = self.statuses;
        cores.sort_by_key(is_parallel, &mut statuses, |(id, _)| *id);
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
