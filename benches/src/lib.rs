//! Measurements with stable names.
//!
//! Every figure has an id (`scheduler.empty_round_us`), is measured the way its documentation says, and comes with the
//! spread of its runs and a hash of what the work computed. Figures whose state roots disagree are not printed. With
//! [`Effort::smoke`] every measurement is a quick test that it still works.

#![forbid(unsafe_code)]

mod engine;
mod machine;
mod measure;
mod netstack;
mod scheduler;

pub use machine::Machine;
pub use measure::{Effort, Figure};

use std::fmt;

/// Why a figure could not be measured.
#[derive(Debug)]
pub struct BenchError(String);

impl BenchError {
    fn new(what: impl fmt::Display) -> Self {
        Self(what.to_string())
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BenchError {}

/// A measurement that gives one or more figures.
type Measurement = fn(&Effort) -> Result<Vec<Figure>, BenchError>;

/// Every measurement with the ids of its figures.
const MEASUREMENTS: &[(&[&str], Measurement)] = &[
    (&["harness.noop_ns"], measure::harness_noop),
    (&["engine.noop_update_us"], engine::noop_update),
    (&["engine.host_call_ns"], engine::host_call),
    (
        &["scheduler.empty_round_us", "scheduler.single_update_round_us"],
        scheduler::small_rounds,
    ),
    (&["scheduler.noop_update_us"], scheduler::noop_update),
    (&["scheduler.two_core_speedup"], scheduler::two_core_speedup),
    (&["scheduler.call_roundtrip_us"], scheduler::call_roundtrip),
    (
        &["netstack.update_roundtrip_us", "netstack.query_roundtrip_us"],
        netstack::roundtrips,
    ),
    (&["ledger.transfers_rps"], netstack::ledger),
];

/// The ids of every figure.
pub fn ids() -> impl Iterator<Item = &'static str> {
    MEASUREMENTS.iter().flat_map(|(ids, _)| ids.iter().copied())
}

/// Measures the figures whose id is one of `wanted` or begins with one of them (all where nothing is named), and hands
/// each to `report` as soon as it is there.
///
/// # Errors
/// A name that matches no figure, or a measurement that failed.
pub fn run(wanted: &[String], effort: &Effort, mut report: impl FnMut(&Figure)) -> Result<(), BenchError> {
    let matches = |id: &str| wanted.is_empty() || wanted.iter().any(|name| id.starts_with(name.as_str()));
    if let Some(unknown) = wanted
        .iter()
        .find(|name| !ids().any(|id| id.starts_with(name.as_str())))
    {
        let known: Vec<_> = ids().collect();
        return Err(BenchError::new(format!(
            "no figure is called `{unknown}`; there are: {}",
            known.join(", ")
        )));
    }
    for (_, measurement) in MEASUREMENTS.iter().filter(|(ids, _)| ids.iter().any(|id| matches(id))) {
        for figure in measurement(effort)?.iter().filter(|figure| matches(figure.id)) {
            report(figure);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measurement_works_and_gives_the_figures_it_names() {
        let mut measured = Vec::new();
        run(&[], &Effort::smoke(), |figure| {
            assert!(figure.value.is_finite() && figure.value >= 0.0, "{figure:?}");
            assert!(figure.low <= figure.value && figure.value <= figure.high, "{figure:?}");
            measured.push(figure.id);
        })
        .unwrap();
        assert_eq!(measured, ids().collect::<Vec<_>>());
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = run(&["no.such".into()], &Effort::smoke(), |_| {})
            .unwrap_err()
            .to_string();
        assert!(error.contains("scheduler.empty_round_us"), "{error}");
    }
}
