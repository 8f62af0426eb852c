//! What the replica has done, as numbers: counters that work returns and the rim adds up here.
//!
//! The layers hold no registry. Rounds return [`RoundStats`], queries and calls are timed where they are answered, and
//! what can be asked at any time (pool, caches, connections) is asked when somebody looks.

use replicore_scheduler::RoundStats;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that grows.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations by powers of two of a microsecond: bucket `n` counts those below 2^n µs that no lower bucket counts, the
/// last one all others.
#[derive(Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_micros: AtomicU64,
}

/// Up to 2^24 µs, 17 seconds, in powers of two.
const BUCKETS: usize = 26;

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, duration: Duration) {
        let micros = duration.as_micros() as u64;
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The counts by bucket.
    pub fn counts(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|bucket| self.buckets[bucket].load(Ordering::Relaxed))
    }

    /// The sum of all durations, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum_micros.load(Ordering::Relaxed) as f64 / 1e6
    }

    /// The upper bound of a bucket, in seconds; `None` for the last one, which has none.
    pub fn upper_bound(bucket: usize) -> Option<f64> {
        (bucket < BUCKETS - 1).then(|| (1u64 << bucket) as f64 / 1e6)
    }
}

/// Queries.
#[derive(Default)]
pub struct QueryCounters {
    /// Answered on the network thread.
    pub at_once: Counter,
    /// Answered by a query thread.
    pub by_thread: Counter,
    /// Of those answered, the rejections.
    pub rejected: Counter,
    /// Refused because of a bound.
    pub refused: Counter,
    /// Instructions executed.
    pub instructions: Counter,
    /// From arrival to answer.
    pub latency: Histogram,
}

/// Calls and rounds.
#[derive(Default)]
pub struct Metrics {
    /// Calls answered with a certificate.
    pub calls_certified: Counter,
    /// Calls answered 202.
    pub calls_accepted: Counter,
    /// Calls that the ingress filter rejected.
    pub calls_rejected: Counter,
    /// Calls refused because of a bound.
    pub calls_refused: Counter,
    /// From a call's arrival to its certificate.
    pub call_latency: Histogram,
    /// Rounds executed.
    pub rounds: Counter,
    /// From taking the batch to the executed round.
    pub round_duration: Histogram,
    /// Messages of the batches that were inducted.
    pub ingress_inducted: Counter,
    /// Messages, tasks and slices executed.
    pub messages_executed: Counter,
    /// Those of them that failed.
    pub messages_failed: Counter,
    /// Messages from canister to canister.
    pub messages_routed: Counter,
    /// Instructions of canisters.
    pub instructions: Counter,
    /// Bytes of pages written.
    pub heap_delta_bytes: Counter,
}

impl Metrics {
    /// Adds what a round did.
    pub fn round(&self, statistics: &RoundStats, duration: Duration) {
        self.rounds.add(1);
        self.round_duration.record(duration);
        self.ingress_inducted.add(statistics.ingress_inducted);
        self.messages_executed.add(statistics.messages_executed);
        self.messages_failed.add(statistics.messages_failed);
        self.messages_routed.add(statistics.messages_routed);
        self.instructions.add(statistics.instructions);
        self.heap_delta_bytes.add(statistics.heap_delta_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_below_the_bounds_of_their_buckets() {
        let histogram = Histogram::default();
        for micros in [0, 1, 2, 3, 1_000, 100_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let counts = histogram.counts();
        assert_eq!(
            (counts[0], counts[1], counts[2], counts[10], counts[BUCKETS - 1]),
            (1, 1, 2, 1, 1)
        );
        assert_eq!(counts.iter().sum::<u64>(), 6);
        assert_eq!(Histogram::upper_bound(10), Some(0.001_024));
        assert_eq!(Histogram::upper_bound(BUCKETS - 1), None);
    }
}
