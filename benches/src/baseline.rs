//! Comparison with stored figures: what got better, what got worse beyond noise.
//!
//! A baseline is what `replicore bench --json` prints, or what `--save` writes, which has the machine's stamp as its first
//! line. Figures of two machines are not compared.

use crate::{BenchError, Figure, Machine};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A change below this part of the baseline's value counts as noise even where the intervals do not touch: two runs of one
/// program differ by as much through where the linker and the allocator put things.
const NOISE_PART: f64 = 0.05;

/// Figures for which more is better; of all others less is.
const MORE_IS_BETTER: [&str; 13] = [
    "_rps",
    "_speedup",
    "_vs_axum",
    "persistence.group_commit_ratio",
    "persistence.log_append_ratio",
    "scheduler.one_canister_ratio",
    "netstack.delegated_update_ratio",
    "netstack.canister_signature_ratio",
    "netstack.overload_goodput_ratio",
    "netstack.idle_connections_ratio",
    "ledger.postgres_ratio",
    "ledger.redis_always_ratio",
    "tracing.throughput_ratio",
];

/// Stored figures.
#[derive(Clone, Debug)]
pub struct Baseline {
    machine: Option<Machine>,
    figures: BTreeMap<String, Stored>,
}

#[derive(Clone, Debug, Deserialize)]
struct Stored {
    id: String,
    value: f64,
    low: f64,
    high: f64,
}

#[derive(Deserialize)]
struct Stamp {
    machine: Machine,
}

/// How a figure stands against the baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The baseline has no such figure.
    New,
    /// Within noise; the ratio to the baseline's value.
    Same(f64),
    /// Better beyond noise.
    Better(f64),
    /// Worse beyond noise.
    Worse(f64),
}

impl Baseline {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or a line is neither a stamp nor a figure.
    pub fn load(path: &Path) -> Result<Self, BenchError> {
        let name = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| BenchError::new(format!("{name}: {error}")))?;
        Self::parse(&text).map_err(|error| BenchError::new(format!("{name}: {error}")))
    }

    fn parse(text: &str) -> Result<Self, BenchError> {
        let mut baseline = Self {
            machine: None,
            figures: BTreeMap::new(),
        };
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            if let Ok(stamp) = serde_json::from_str::<Stamp>(line) {
                baseline.machine = Some(stamp.machine);
                continue;
            }
            let stored: Stored = serde_json::from_str(line)
                .map_err(|error| BenchError::new(format!("line {}: not a figure: {error}", number + 1)))?;
            baseline.figures.insert(stored.id.clone(), stored);
        }
        Ok(baseline)
    }

    /// The machine the baseline was taken on, where it says so.
    pub fn machine(&self) -> Option<&Machine> {
        self.machine.as_ref()
    }

    /// How `figure` stands: it is better or worse only if the confidence intervals do not touch and the values are more than
    /// a twentieth apart.
    pub fn judge(&self, figure: &Figure) -> Verdict {
        let Some(stored) = self.figures.get(figure.id) else {
            return Verdict::New;
        };
        let ratio = if stored.value == 0.0 {
            1.0
        } else {
            figure.value / stored.value
        };
        let apart = figure.low > stored.high || figure.high < stored.low;
        if !apart || (ratio - 1.0).abs() <= NOISE_PART {
            Verdict::Same(ratio)
        } else if (ratio > 1.0) == more_is_better(figure.id) {
            Verdict::Better(ratio)
        } else {
            Verdict::Worse(ratio)
        }
    }
}

/// The first line of a saved baseline.
pub fn stamp_line(machine: &Machine) -> String {
    serde_json::json!({ "machine": machine }).to_string()
}

/// Whether a larger value of the figure is the better one.
pub fn more_is_better(id: &str) -> bool {
    MORE_IS_BETTER.iter().any(|end| id.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(id: &'static str, samples: [f64; 3]) -> Figure {
        Figure::of(id, "us", samples.to_vec(), String::new())
    }

    fn baseline(figures: &[Figure]) -> Baseline {
        let machine = Machine::this();
        let lines: Vec<_> = std::iter::once(stamp_line(&machine))
            .chain(figures.iter().map(|figure| figure.to_json().to_string()))
            .collect();
        let baseline = Baseline::parse(&lines.join("\n")).unwrap();
        assert_eq!(baseline.machine(), Some(&machine));
        baseline
    }

    #[test]
    fn only_what_is_beyond_noise_is_judged() {
        let stored = baseline(&[figure("engine.noop_update_us", [1.0, 1.1, 1.2])]);
        let judge = |samples| stored.judge(&figure("engine.noop_update_us", samples));
        assert!(
            matches!(judge([1.15, 1.3, 1.5]), Verdict::Same(_)),
            "the intervals touch"
        );
        assert!(matches!(judge([1.21, 1.22, 1.23]), Verdict::Worse(_)));
        assert!(matches!(judge([0.5, 0.6, 0.7]), Verdict::Better(_)));
        assert_eq!(stored.judge(&figure("engine.host_call_ns", [1.0; 3])), Verdict::New);
    }

    #[test]
    fn small_changes_are_noise_however_narrow_the_intervals() {
        let stored = baseline(&[figure("engine.noop_update_us", [1.0; 3])]);
        let verdict = stored.judge(&figure("engine.noop_update_us", [1.04; 3]));
        assert_eq!(verdict, Verdict::Same(1.04));
    }

    #[test]
    fn of_rates_more_is_better() {
        let stored = baseline(&[figure("ledger.transfers_rps", [100.0; 3])]);
        let judge = |value| stored.judge(&figure("ledger.transfers_rps", [value; 3]));
        assert!(matches!(judge(200.0), Verdict::Better(_)) && matches!(judge(50.0), Verdict::Worse(_)));
    }

    #[test]
    fn a_line_that_is_no_figure_is_named() {
        let error = Baseline::parse("\n{\"id\":1}\n").unwrap_err().to_string();
        assert!(error.starts_with("line 2: not a figure"), "{error}");
    }
}
