//! How far the subnet had come at the end of each day, for `node_metrics_history`.

use imbl::OrdMap;
use replicore_types::{Height, Time};
use serde::{Deserialize, Serialize};

const DAY_NANOS: u64 = 24 * 60 * 60 * 1_000_000_000;
/// Days that are kept; the production replica keeps as many.
const DAYS_MAX: usize = 60;

/// The last batch of every UTC day that had one; the current day's is the last so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DailyBlocks(OrdMap<u64, (Time, Height)>);

impl DailyBlocks {
    /// Notes a batch. Time never goes back, so it is the last one of its day so far.
    pub fn note(&mut self, time: Time, height: Height) {
        self.0.insert(time.as_nanos() / DAY_NANOS, (time, height));
        let first = self.0.get_min().map(|(day, _)| *day);
        if let Some(first) = first.filter(|_| self.0.len() > DAYS_MAX) {
            self.0.remove(&first);
        }
    }

    /// Time and height of the last batches of the days, of those that were made at `start` or later, oldest first.
    pub fn since(&self, start: Time) -> impl Iterator<Item = (Time, Height)> + '_ {
        self.0.values().copied().filter(move |(time, _)| *time >= start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_batch_of_each_day_is_kept_for_sixty_days() {
        let at = |day: u64, hour: u64| Time(day * DAY_NANOS + hour * DAY_NANOS / 24);
        let mut days = DailyBlocks::default();
        for day in 0..100 {
            days.note(at(day, 1), Height(2 * day));
            days.note(at(day, 23), Height(2 * day + 1));
        }
        days.note(at(200, 0), Height(500));
        let all: Vec<_> = days.since(Time(0)).collect();
        assert_eq!(all.len(), DAYS_MAX);
        assert_eq!(all[0], (at(41, 23), Height(83)));
        assert_eq!(all[DAYS_MAX - 1], (at(200, 0), Height(500)));
        assert_eq!(days.since(at(99, 23)).count(), 2);
        assert_eq!(days.since(Time(at(200, 0).0 + 1)).count(), 0);
    }
}
