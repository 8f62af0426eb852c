//! How a figure is taken: repeated runs, of which the median is the value, with a confidence interval around it.

use crate::BenchError;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Runs below which a measurement does not stop for lack of time, unless even one takes longer than its share.
const RUNS_MIN: usize = 3;

/// How much is measured.
///
/// A measurement takes [`Effort::runs`] samples of work that it sizes with [`Effort::scale`], but stops early when its
/// share of time is used up: [`Effort::samples`] does both.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs of each measurement; at least one.
    pub runs: usize,
    /// Divides the work of one run.
    pub divisor: u64,
    /// Time for one measurement, setting up included. [`crate::run`] shortens it where many share a bounded whole.
    pub budget: Duration,
    /// Time for all measurements of one [`crate::run`].
    pub(crate) whole: Duration,
    started: Instant,
}

impl Effort {
    /// For figures to publish.
    pub fn full() -> Self {
        Self::new(21, 1, 60, 3_600)
    }

    /// The whole suite within five minutes on two cores.
    pub fn quick() -> Self {
        Self::new(7, 2, 20, 285)
    }

    /// A test that every measurement works: one run of each.
    pub fn smoke() -> Self {
        Self::new(1, 50, 1, 3_600)
    }

    fn new(runs: usize, divisor: u64, budget_seconds: u64, whole_seconds: u64) -> Self {
        Self {
            runs,
            divisor,
            budget: Duration::from_secs(budget_seconds),
            whole: Duration::from_secs(whole_seconds),
            started: Instant::now(),
        }
    }

    /// The same effort with its clock started now and at most `share` of time.
    pub(crate) fn begin(self, share: Duration) -> Self {
        Self {
            budget: self.budget.min(share),
            started: Instant::now(),
            ..self
        }
    }

    /// `work` at this effort, at least one.
    pub fn scale(&self, work: u64) -> u64 {
        (work / self.divisor).max(1)
    }

    /// Whether this is only a test that the measurement works.
    pub fn is_smoke(&self) -> bool {
        self.runs == 1
    }

    /// What is left of the time of this measurement.
    pub fn time_left(&self) -> Duration {
        self.budget.saturating_sub(self.started.elapsed())
    }

    /// Runs `one` up to [`Effort::runs`] times, as long as there is time: what each run gave. Three runs are taken even
    /// when the time is over, unless a single one already took more than all of it.
    ///
    /// Peers are interleaved by measuring each of them in every run.
    ///
    /// # Errors
    /// The first error of a run.
    pub fn samples<T>(&self, mut one: impl FnMut() -> Result<T, BenchError>) -> Result<Vec<T>, BenchError> {
        let mut samples = Vec::with_capacity(self.runs);
        while samples.len() < self.runs {
            let is_over = self.time_left().is_zero();
            if is_over && samples.len() >= RUNS_MIN || self.started.elapsed() > self.budget * 2 && !samples.is_empty() {
                break;
            }
            samples.push(one()?);
        }
        Ok(samples)
    }
}

/// Median and spread of some samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Median.
    pub value: f64,
    /// Lower end of the 95 % confidence interval of the median; of the whole range where there are fewer than six.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// Number of samples.
    pub runs: usize,
}

impl Summary {
    /// Of these samples, of which there is at least one.
    pub fn of(mut samples: Vec<f64>) -> Self {
        assert!(!samples.is_empty(), "a summary needs a sample");
        samples.sort_by(f64::total_cmp);
        let (low, high) = median_interval(samples.len());
        Self {
            value: median(&samples),
            low: samples[low],
            high: samples[high],
            runs: samples.len(),
        }
    }
}

/// One measured figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Stable name.
    pub id: &'static str,
    /// Median of the runs.
    pub value: f64,
    /// `us`, `ns`, `ms`, `1/s`, `x`, `MB`, `KiB`.
    pub unit: &'static str,
    /// Lower end of the 95 % confidence interval of the median; of the whole range where there are fewer than six runs.
    pub low: f64,
    /// Upper end of it.
    pub high: f64,
    /// Number of runs.
    pub runs: usize,
    /// Hash of what was computed: the same on every machine where the measurement is deterministic.
    pub root: String,
    /// Other designs measured in the same run.
    pub against: BTreeMap<&'static str, f64>,
}

impl Figure {
    /// The figure of these samples, of which there is at least one.
    pub fn of(id: &'static str, unit: &'static str, samples: Vec<f64>, root: String) -> Self {
        let Summary { value, low, high, runs } = Summary::of(samples);
        Self {
            id,
            value,
            unit,
            low,
            high,
            runs,
            root,
            against: BTreeMap::new(),
        }
    }

    /// The same figure with the median of another design beside it, in the figure's unit unless its name says otherwise.
    #[must_use]
    pub fn against(mut self, name: &'static str, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        self.against.insert(name, median(&samples));
        self
    }

    /// One JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "id": self.id,
            "value": self.value,
            "unit": self.unit,
            "low": self.low,
            "high": self.high,
            "runs": self.runs,
            "root": self.root,
            "against": self.against,
        })
    }
}

/// The middle of sorted samples.
fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// The positions among `count` sorted samples between which the true median lies with at least 95 % probability, whatever
/// the distribution: the number of samples below the median is binomial with one half. With fewer than six samples no
/// such pair exists, and the ends are taken.
fn median_interval(count: usize) -> (usize, usize) {
    let mut term = 0.5_f64.powi(count as i32);
    let mut below = term;
    let mut position = 0;
    // `below` is the probability that at most `position` samples lie under the median.
    while below <= 0.025 && position + 1 < count / 2 {
        term *= (count - position) as f64 / (position + 1) as f64;
        if below + term > 0.025 {
            break;
        }
        below += term;
        position += 1;
    }
    (position, count - 1 - position)
}

/// Seconds that `work` takes.
pub fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64(), result)
}

/// What the harness itself costs: an empty closure, timed like everything else.
pub fn harness_noop(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let iterations = effort.scale(1_000_000);
    let samples = effort.samples(|| {
        let (elapsed, ()) = seconds(|| {
            (0..iterations).for_each(|number| {
                std::hint::black_box(number);
            });
        });
        Ok(elapsed / iterations as f64 * 1e9)
    })?;
    Ok(vec![Figure::of("harness.noop_ns", "ns", samples, String::new())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_the_median_is_that_of_the_binomial_tables() {
        // Published tables (sign test, two-sided 95 %): ranks 1..6 of 6, 2..8 of 9, 3..10 of 12, 6..16 of 21.
        assert_eq!(median_interval(6), (0, 5));
        assert_eq!(median_interval(9), (1, 7));
        assert_eq!(median_interval(12), (2, 9));
        assert_eq!(median_interval(21), (5, 15));
        assert_eq!(median_interval(1), (0, 0));
        assert_eq!(median_interval(2), (0, 1));
        assert_eq!(median_interval(5), (0, 4));
    }

    #[test]
    fn the_median_of_even_counts_lies_between() {
        let figure = Figure::of("x", "us", vec![4.0, 1.0, 3.0, 2.0], String::new());
        assert_eq!((figure.low, figure.value, figure.high), (1.0, 2.5, 4.0));
    }

    #[test]
    fn samples_stop_when_the_time_is_over() {
        let effort = Effort::full().begin(Duration::from_millis(20));
        let samples = effort.samples(|| {
            std::thread::sleep(Duration::from_millis(8));
            Ok(())
        });
        assert!((3..=5).contains(&samples.unwrap().len()));
        let over = Effort::full().begin(Duration::from_millis(1));
        let samples = over.samples(|| {
            std::thread::sleep(Duration::from_millis(10));
            Ok(())
        });
        assert_eq!(samples.unwrap().len(), 1);
    }
}
