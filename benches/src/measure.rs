//! How a figure is taken: repeated runs, of which the median is the value and the quartiles are the spread.

use crate::BenchError;
use std::collections::BTreeMap;
use std::time::Instant;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs of each measurement; at least one.
    pub runs: usize,
    /// Divides the work of one run.
    pub divisor: u64,
}

impl Effort {
    /// For figures to publish.
    pub fn full() -> Self {
        Self { runs: 21, divisor: 1 }
    }

    /// The whole suite within minutes.
    pub fn quick() -> Self {
        Self { runs: 7, divisor: 2 }
    }

    /// A test that every measurement works.
    pub fn smoke() -> Self {
        Self { runs: 1, divisor: 50 }
    }

    /// `work` at this effort, at least one.
    pub fn scale(&self, work: u64) -> u64 {
        (work / self.divisor).max(1)
    }
}

/// One measured figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Stable name.
    pub id: &'static str,
    /// Median of the runs.
    pub value: f64,
    /// `us`, `ns`, `1/s`, `x`.
    pub unit: &'static str,
    /// Lower quartile.
    pub low: f64,
    /// Upper quartile.
    pub high: f64,
    /// Number of runs.
    pub runs: usize,
    /// Hash of what was computed: the same on every machine where the measurement is deterministic.
    pub root: String,
    /// Other designs measured in the same run.
    pub against: BTreeMap<&'static str, f64>,
}

impl Figure {
    /// The figure of these samples.
    pub fn of(id: &'static str, unit: &'static str, mut samples: Vec<f64>, root: String) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |quantile: f64| samples[((samples.len() - 1) as f64 * quantile).round() as usize];
        let (low, value, high) = (at(0.25), at(0.5), at(0.75));
        Self {
            id,
            value,
            unit,
            low,
            high,
            runs: samples.len(),
            root,
            against: BTreeMap::new(),
        }
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

/// Seconds that `work` takes.
pub fn seconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed().as_secs_f64(), result)
}

/// What the harness itself costs: an empty closure, timed like everything else.
pub fn harness_noop(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let iterations = effort.scale(1_000_000);
    let samples = (0..effort.runs).map(|_| {
        let (elapsed, _) = seconds(|| {
            (0..iterations).for_each(|number| {
                std::hint::black_box(number);
            })
        });
        elapsed / iterations as f64 * 1e9
    });
    Ok(vec![Figure::of(
        "harness.noop_ns",
        "ns",
        samples.collect(),
        String::new(),
    )])
}
