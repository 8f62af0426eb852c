//! The load generator: drives a deployed application over HTTP, measures, verifies.
//!
//! Open loop: operations are due at times that do not depend on the answers, and latency counts from when an operation was
//! *due*. A server that stalls for a second makes all that were due in that second late, and the percentiles show it; a
//! generator that waits for the answer before it looks at the clock again would have left them out (coordinated omission).
//! Closed loop (no rate): every connection has one operation in flight, and latency counts from its sending.

use crate::agent::{Agent, AgentError, CallOutcome};
use crate::arrival::{Arrivals, Schedule};
use crate::certificate::Verifier;
use crate::error::WorkloadError;
use crate::identity::Identity;
use crate::request::Kind;
use crate::skew::Zipf;
use crate::workload::{Deployed, Operation};
use hdrhistogram::Histogram;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the load is.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The endpoint.
    pub address: SocketAddr,
    /// Operations a second; closed loop where there is none.
    pub rate: Option<f64>,
    /// Their law.
    pub arrivals: Arrivals,
    /// Connections: in an open loop, the bound of what is in flight.
    pub connections: usize,
    /// How long operations keep arriving.
    pub duration: Duration,
    /// Zipf exponent over users.
    pub user_skew: f64,
    /// Seed of all choices.
    pub seed: u64,
}

/// Counters that move while the load runs.
#[derive(Debug, Default)]
pub struct Progress {
    /// Operations answered as they must be.
    pub completed: AtomicU64,
    /// Operations that the endpoint refused for lack of room.
    pub refused: AtomicU64,
    stop: AtomicBool,
}

/// What the load did. Latencies are in microseconds.
#[derive(Debug)]
pub struct LoadReport {
    /// From the first operation to the last answer.
    pub elapsed: Duration,
    /// Of updates, to the verified certificate.
    pub updates: Histogram<u64>,
    /// Of queries, to the answer.
    pub queries: Histogram<u64>,
    /// Operations answered 429 or 503: not executed.
    pub refused: u64,
    /// Operations whose fate is unknown: the connection broke, or no answer came.
    pub unknown: u64,
    /// The latest that an operation was sent after it was due, for want of a free connection: large means that more
    /// connections, or a lower rate, are needed to load the server rather than the generator.
    pub worst_delay: Duration,
}

impl LoadReport {
    /// Operations answered as they must be.
    pub fn completed(&self) -> u64 {
        self.updates.len() + self.queries.len()
    }

    /// Whether the fate of every operation is known.
    pub fn is_exact(&self) -> bool {
        self.unknown == 0
    }
}

/// What one connection saw.
pub(crate) struct Seen {
    updates: Histogram<u64>,
    queries: Histogram<u64>,
    unknown: u64,
    worst_delay: Duration,
}

impl Seen {
    pub(crate) fn new() -> Self {
        Self {
            updates: histogram(),
            queries: histogram(),
            unknown: 0,
            worst_delay: Duration::ZERO,
        }
    }

    /// A request that was due then is sent now.
    pub(crate) fn sent(&mut self, due: Instant) {
        self.worst_delay = self.worst_delay.max(due.elapsed());
    }

    /// A request that was due then is answered now.
    pub(crate) fn answered(&mut self, kind: Kind, due: Instant) {
        let histogram = match kind {
            Kind::Call => &mut self.updates,
            Kind::Query => &mut self.queries,
        };
        histogram.saturating_record((due.elapsed().as_micros() as u64).max(1));
    }

    /// Nobody knows what became of a request.
    pub(crate) fn lost(&mut self) {
        self.unknown += 1;
    }
}

/// What the connections share.
struct Shared<'a> {
    options: &'a LoadOptions,
    deployed: &'a dyn Deployed,
    users: &'a [Identity],
    popularity: Zipf,
    schedule: Option<Mutex<(Schedule, ChaCha8Rng)>>,
    start: Instant,
    progress: &'a Progress,
}

/// Runs the load.
///
/// # Errors
/// The first answer that the application must not give; connections that break and refusals are counted, not errors.
pub fn run(
    options: &LoadOptions,
    deployed: &dyn Deployed,
    users: &[Identity],
    verifier: &Arc<Verifier>,
    progress: &Progress,
) -> Result<LoadReport, WorkloadError> {
    let schedule = options.rate.map(|rate| {
        let choices = ChaCha8Rng::seed_from_u64(options.seed);
        Mutex::new((Schedule::new(options.arrivals, rate), choices))
    });
    let shared = Shared {
        options,
        deployed,
        users,
        popularity: Zipf::new(users.len(), options.user_skew),
        schedule,
        start: Instant::now(),
        progress,
    };
    let seen = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.connections)
            .map(|number| {
                let shared = &shared;
                scope.spawn(move || {
                    let result = shared.connection(number as u64, verifier);
                    if result.is_err() {
                        shared.progress.stop.store(true, Ordering::Relaxed);
                    }
                    result
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(WorkloadError::unexpected("a connection's thread panicked")))
        });
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    Ok(merge(seen, shared.start.elapsed(), progress))
}

impl Shared<'_> {
    fn connection(&self, number: u64, verifier: &Arc<Verifier>) -> Result<Seen, WorkloadError> {
        let mut choices = ChaCha8Rng::seed_from_u64(self.options.seed.wrapping_add(number + 1));
        let mut agent = Agent::new(self.options.address, Identity::anonymous(), Arc::clone(verifier));
        let mut seen = Seen::new();
        while let Some(due) = self.next_due() {
            let user = self.popularity.choose(&mut choices);
            let operation = self.deployed.next(user, &mut choices)?;
            agent.set_identity(self.users[user].clone());
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            seen.sent(due);
            self.perform(&mut agent, &operation, due, &mut seen)?;
        }
        Ok(seen)
    }

    /// When the next operation is due; none when the load is over.
    fn next_due(&self) -> Option<Instant> {
        let now = Instant::now();
        let is_stopped = self.progress.stop.load(Ordering::Relaxed);
        let Some(schedule) = &self.schedule else {
            return (!is_stopped && now < self.start + self.options.duration).then_some(now);
        };
        let mut schedule = schedule.lock().unwrap_or_else(PoisonError::into_inner);
        let (schedule, choices) = &mut *schedule;
        let due = schedule.next(choices);
        (!is_stopped && due < self.options.duration).then(|| self.start + due)
    }

    fn perform(
        &self,
        agent: &mut Agent,
        operation: &Operation,
        due: Instant,
        seen: &mut Seen,
    ) -> Result<(), WorkloadError> {
        let Operation {
            kind,
            canister,
            method,
            argument,
            ..
        } = operation;
        let outcome = match kind {
            Kind::Call => agent.update(*canister, method, argument),
            Kind::Query => agent.query(*canister, method, argument),
        };
        match outcome {
            Ok(CallOutcome::Replied(reply)) => {
                seen.answered(*kind, due);
                self.deployed.completed(operation, &reply)?;
                self.progress.completed.fetch_add(1, Ordering::Relaxed);
            }
            Ok(CallOutcome::Rejected(code, text, error)) => {
                return Err(WorkloadError::Unexpected(format!(
                    "{method}: rejected with {code} ({error}): {text}"
                )));
            }
            Err(AgentError::Http(429 | 503, _)) => {
                self.progress.refused.fetch_add(1, Ordering::Relaxed);
            }
            Ok(CallOutcome::Accepted) | Err(AgentError::Io(_)) => seen.lost(),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

pub(crate) fn merge(seen: Vec<Seen>, elapsed: Duration, progress: &Progress) -> LoadReport {
    let mut report = LoadReport {
        elapsed,
        updates: histogram(),
        queries: histogram(),
        refused: progress.refused.load(Ordering::Relaxed),
        unknown: 0,
        worst_delay: Duration::ZERO,
    };
    for one in seen {
        // Histograms of equal bounds: adding cannot fail.
        let _same_bounds = report.updates.add(&one.updates);
        let _same_bounds = report.queries.add(&one.queries);
        report.unknown += one.unknown;
        report.worst_delay = report.worst_delay.max(one.worst_delay);
    }
    report
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3)
        .expect("one microsecond to a minute with three digits are valid bounds")
}

/// The distribution in the text form that the HdrHistogram plotters read: value in milliseconds, quantile, count, and
/// `1 / (1 - quantile)`.
pub fn percentile_distribution(histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    for step in histogram.iter_quantiles(5) {
        let (value, quantile) = (step.value_iterated_to() as f64 / 1_000.0, step.quantile_iterated_to());
        let count = histogram.count_between(0, step.value_iterated_to());
        text += &if quantile < 1.0 {
            format!(
                "{value:>12.3} {quantile:>2.12} {count:>10} {:>14.2}\n",
                1.0 / (1.0 - quantile)
            )
        } else {
            format!("{value:>12.3} {quantile:>2.12} {count:>10}\n")
        };
    }
    let (mean, deviation) = (histogram.mean() / 1_000.0, histogram.stdev() / 1_000.0);
    text += &format!("#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]\n");
    let (max, count) = (histogram.max() as f64 / 1_000.0, histogram.len());
    text + &format!("#[Max     = {max:>12.3}, Total count    = {count:>12}]\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_ends_with_the_maximum() {
        let mut latencies = histogram();
        (1..=1_000).for_each(|number| latencies.saturating_record(number * 1_000));
        let text = percentile_distribution(&latencies);
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let words: Vec<_> = last.split_whitespace().collect();
        assert_eq!(words[1..], ["1.000000000000", "1000"]);
        assert!(words[0].parse::<f64>().unwrap() >= 1_000.0);
        assert!(text.contains("Total count    =         1000"), "{text}");
    }
}
