//! The ingress statuses that a round gives, until they enter the history.

use crate::state::IngressHistory;
use crate::workers::SchedulerCores;
use replicore_types::{CanisterId, IngressState, IngressStatus, MessageId, PrincipalId, Time};
use std::sync::Arc;

/// A request with what becomes of it.
type Given = (MessageId, Arc<IngressStatus>);

/// New statuses, written down as they come and put in order once, at the end of the round: nothing is looked up for a
/// message while the others wait.
#[derive(Debug, Default)]
pub(crate) struct RoundStatuses {
    /// The requests that came with the batch; `None` in the place of those that were not taken up. No id is there twice.
    taken_up: Vec<Option<Request>>,
    /// Their places, in the order of their ids.
    places: Vec<Place>,
    /// Statuses in the order in which they were given. Of several for one request the last one counts.
    given: Vec<Given>,
}

/// What the first status of a request says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub id: MessageId,
    pub receiver: CanisterId,
    pub source: PrincipalId,
}

impl RoundStatuses {
    /// Notes the requests that the round takes up, once a round, with their places in the order of their ids.
    pub fn take_up(&mut self, requests: Vec<Option<Request>>, places: Vec<Place>) {
        debug_assert!(self.taken_up.is_empty());
        self.taken_up = requests;
        self.places = places;
    }

    /// Gives a request its next status. The time in it is that of the round.
    pub fn give(&mut self, id: MessageId, status: IngressStatus) {
        self.given.push((id, Arc::new(status)));
    }

    /// Gives statuses in their order.
    pub fn give_all(&mut self, statuses: Vec<Given>) {
        self.given.extend(statuses);
    }

    /// The last status of every request, in the order of the ids. The time in it is that at which the request was taken up:
    /// `now`, the time of the round, for those of this round.
    pub fn into_sorted(self, history: &IngressHistory, now: Time, cores: SchedulerCores) -> Vec<Given> {
        let places = places_by_id(cores, &self.given, |(id, _)| id);
        let (mut statuses, earlier) = self.merge(&places, now);
        let is_parallel = cores.are_worth_it(earlier.len());
        let times = cores.map(is_parallel, earlier, |place| {
            let known = history.get(&statuses[place].0)?;
            Some((place, known.time))
        });
        for (place, time) in times.into_iter().flatten() {
            Arc::make_mut(&mut statuses[place].1).time = time;
        }
        statuses
    }

    /// One line of both, and where in it those stand that the round did not take up.
    fn merge(self, places: &[Place], now: Time) -> (Vec<Given>, Vec<usize>) {
        let taken_up = self
            .places
            .iter()
            .filter_map(|(_, place)| self.taken_up[*place as usize].as_ref());
        let mut taken_up = taken_up.peekable();
        let mut given: Vec<_> = self.given.into_iter().map(Some).collect();
        let mut statuses: Vec<Given> = Vec::with_capacity(self.places.len().max(given.len()));
        let mut earlier = Vec::new();
        for (_, place) in places {
            let Some((id, status)) = given[*place as usize].take() else {
                continue;
            };
            if let Some((_, last)) = statuses.last_mut().filter(|(last, _)| *last == id) {
                *last = status;
                continue;
            }
            while let Some(waits) = taken_up.next_if(|request| request.id < id) {
                statuses.push(waits.received(now));
            }
            if taken_up.next_if(|request| request.id == id).is_none() {
                earlier.push(statuses.len());
            }
            statuses.push((id, status));
        }
        statuses.extend(taken_up.map(|waits| waits.received(now)));
        (statuses, earlier)
    }
}

impl Request {
    fn received(&self, now: Time) -> Given {
        let status = IngressStatus {
            receiver: self.receiver,
            source: self.source,
            time: now,
            state: IngressState::Received,
        };
        (self.id, Arc::new(status))
    }
}

/// The beginning of an id and the place of the thing that has it.
pub(crate) type Place = (u64, u32);

/// The places of things with ids, in the order of the ids; those of equal ids in their own order. Numbers are sorted
/// instead of the things: the beginnings of ids nearly always differ.
pub(crate) fn places_by_id<T: Sync>(
    cores: SchedulerCores,
    things: &[T],
    id: impl Fn(&T) -> &MessageId + Sync + Send,
) -> Vec<Place> {
    let id = |place: u32| id(&things[place as usize]);
    // Memory ends before 2^32 of them.
    let mut places: Vec<Place> = (0..things.len() as u32)
        .map(|place| (id(place).beginning(), place))
        .collect();
    let is_parallel = cores.are_worth_it(places.len());
    cores.sort_by(is_parallel, &mut places, |left, right| {
        left.0
            .cmp(&right.0)
            .then_with(|| id(left.1).cmp(id(right.1)))
            .then(left.1.cmp(&right.1))
    });
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicore_types::Payload;

    const NOW: Time = Time(90);

    fn id(number: u8) -> MessageId {
        MessageId([number; 32])
    }

    fn status(time: Time, state: IngressState) -> IngressStatus {
        IngressStatus {
            receiver: CanisterId::from_index(7),
            source: PrincipalId::anonymous(),
            time,
            state,
        }
    }

    fn request(number: u8) -> Request {
        Request {
            id: id(number),
            receiver: CanisterId::from_index(7),
            source: PrincipalId::anonymous(),
        }
    }

    #[test]
    fn the_last_status_counts_and_the_time_of_induction_stays() {
        let mut history = IngressHistory::default();
        history.set(id(1), status(Time(50), IngressState::Processing), Time(60));
        let answer = |text: &str| IngressState::Completed(Payload::from(text.as_bytes().to_vec()));
        let mut statuses = RoundStatuses::default();
        // Two answer, one is under way, one waits; one was taken up long ago.
        let requests = [6, 3, 9, 2, 5]
            .map(|number| (number != 9).then(|| request(number)))
            .to_vec();
        let ids: Vec<_> = [6, 3, 9, 2, 5].map(id).to_vec();
        statuses.take_up(requests, places_by_id(SchedulerCores(1), &ids, |id| id));
        statuses.give(id(5), status(NOW, answer("five")));
        statuses.give(id(3), status(NOW, IngressState::Processing));
        statuses.give_all(vec![
            (id(1), Arc::new(status(NOW, answer("one")))),
            (id(2), Arc::new(status(NOW, IngressState::Processing))),
        ]);
        statuses.give(id(2), status(NOW, answer("two")));
        for cores in [1, 2] {
            let given = RoundStatuses {
                taken_up: statuses.taken_up.clone(),
                places: statuses.places.clone(),
                given: statuses.given.clone(),
            };
            let sorted = given.into_sorted(&history, NOW, SchedulerCores(cores));
            let sorted: Vec<_> = sorted.into_iter().map(|(id, status)| (id, (*status).clone())).collect();
            let expected = [
                (id(1), status(Time(50), answer("one"))),
                (id(2), status(NOW, answer("two"))),
                (id(3), status(NOW, IngressState::Processing)),
                (id(5), status(NOW, answer("five"))),
                (id(6), status(NOW, IngressState::Received)),
            ];
            assert_eq!(sorted, expected);
        }
    }

    #[test]
    fn a_round_without_statuses_has_none() {
        let sorted = RoundStatuses::default().into_sorted(&IngressHistory::default(), NOW, SchedulerCores(2));
        assert_eq!(sorted, []);
    }

    #[test]
    fn equal_beginnings_are_told_apart_and_equal_ids_keep_their_order() {
        let ending = |last: u8| {
            let mut bytes = [9; 32];
            bytes[31] = last;
            MessageId(bytes)
        };
        let ids = [ending(2), ending(1), ending(2), id(3), ending(1)];
        let places = places_by_id(SchedulerCores(1), &ids, |id| id);
        let places: Vec<u32> = places.into_iter().map(|(_, place)| place).collect();
        assert_eq!(places, [3, 1, 4, 0, 2]);
    }
}
