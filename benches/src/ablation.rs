//! What each mechanism is worth: modelled applications on replicas that lack one of them, beside replicas that have all.
//!
//! A run starts a replica, deploys the application, drives it in a closed loop until everything is compiled and then on the
//! clock, lets the application check itself, and stops the replica. The variants take turns, so that what disturbs one
//! disturbs the others, and a ratio is always to the replica with everything of the same turn. In the first turn every
//! batch log is then executed again with everything switched on: roots that differ end the measurement.

mod runs;

use self::runs::{Bench, Run};
use crate::BenchError;
use crate::measure::{Effort, Summary};
use replicore::mechanisms::Mechanism;
use replicore_workloads::{Workload, models};
use std::path::Path;
use std::time::Duration;

/// What is measured where nothing is named: writes to one canister, computation, calls between canisters, many canisters,
/// and queries.
pub const WORKLOADS: [&str; 5] = ["ledger", "compute", "social", "idle", "explorer"];

/// Turns that are taken whatever the time.
const TURNS_MIN: usize = 2;

/// What is left out of a replica.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Its name in tables: that of the mechanism, or `all off`.
    pub name: &'static str,
    /// The mechanisms that are switched off.
    pub without: Vec<Mechanism>,
}

impl Variant {
    /// The replica with everything.
    pub fn nothing() -> Self {
        Self {
            name: "nothing",
            without: Vec::new(),
        }
    }

    /// Each mechanism by itself, then the conservative design without any.
    pub fn all() -> Vec<Self> {
        let one = |mechanism: Mechanism| Self {
            name: mechanism.name(),
            without: vec![mechanism],
        };
        let none = Self {
            name: "all off",
            without: Mechanism::ALL.to_vec(),
        };
        Mechanism::ALL.into_iter().map(one).chain([none]).collect()
    }
}

/// What a replica without something came to, beside the one with everything: medians over the turns.
#[derive(Clone, Debug)]
pub struct Worth {
    /// The application.
    pub workload: &'static str,
    /// [`Variant::name`]
    pub variant: &'static str,
    /// Operations a second, and the same with everything switched on.
    pub per_second: [Summary; 2],
    /// Operations a second over those with everything: below one, the mechanism is worth something.
    pub throughput_ratio: Summary,
    /// Median latency over that with everything.
    pub p50_ratio: Summary,
    /// 99th percentile of latency over that with everything.
    pub p99_ratio: Summary,
    /// Processor time of the replica's threads for an operation, over that with everything: what it costs where the
    /// throughput is bounded by the clients.
    pub cpu_ratio: Summary,
    /// Time from the start of a replica that has compiled nothing to the deployed application, over that with everything;
    /// for variants without the mechanism that this is about.
    pub start_ratio: Option<Summary>,
}

impl Worth {
    /// One JSON object.
    pub fn to_json(&self) -> serde_json::Value {
        let summary = |summary: &Summary| {
            serde_json::json!({
                "value": summary.value, "low": summary.low, "high": summary.high,
            })
        };
        serde_json::json!({
            "workload": self.workload,
            "without": self.variant,
            "per_second": summary(&self.per_second[0]),
            "per_second_with_all": summary(&self.per_second[1]),
            "throughput_ratio": summary(&self.throughput_ratio),
            "latency_p50_ratio": summary(&self.p50_ratio),
            "latency_p99_ratio": summary(&self.p99_ratio),
            "cpu_ratio": summary(&self.cpu_ratio),
            "start_ratio": self.start_ratio.as_ref().map(summary),
            "runs": self.throughput_ratio.runs,
        })
    }

    /// The head of [`Worth::line`]'s columns.
    pub fn head() -> String {
        format!(
            "{:17} {:>10} {:>10}  {:^20} {:>8} {:>8} {:>8} {:>8}",
            "without", "ops/s", "with all", "ratio [range]", "cpu", "p50", "p99", "start"
        )
    }

    /// A line of the table of its workload.
    pub fn line(&self) -> String {
        let Summary { value, low, high, .. } = self.throughput_ratio;
        format!(
            "{:17} {:>10.0} {:>10.0}  {:>20} {:>8.2} {:>8.2} {:>8.2} {:>8}",
            self.variant,
            self.per_second[0].value,
            self.per_second[1].value,
            format!("{value:.2} [{low:.2} .. {high:.2}]"),
            self.cpu_ratio.value,
            self.p50_ratio.value,
            self.p99_ratio.value,
            self.start_ratio
                .map_or("-".to_owned(), |ratio| format!("{:.2}", ratio.value)),
        )
    }
}

/// Measures `variants` under each of the applications named (the usual ones where none is) and hands the table of each to
/// `report` as soon as it is there.
///
/// # Errors
/// An application of that name does not exist, a replica or an application's check failed, or a replay of what a replica
/// did came to another root.
pub fn run(
    workloads: &[String],
    variants: &[Variant],
    effort: &Effort,
    mut report: impl FnMut(&[Worth]),
) -> Result<(), BenchError> {
    let names: Vec<&str> = match workloads.is_empty() {
        true => WORKLOADS.to_vec(),
        false => workloads.iter().map(String::as_str).collect(),
    };
    let models: Result<Vec<_>, _> = names.into_iter().map(named).collect();
    for model in models? {
        report(&measure(model, variants, effort)?);
    }
    Ok(())
}

fn measure(model: &'static dyn Workload, variants: &[Variant], effort: &Effort) -> Result<Vec<Worth>, BenchError> {
    let bench = Bench::new(model, effort)?;
    // The first replica of a process finds everything cold, and code is made with a write barrier and without.
    let barrier = |variant: &&Variant| variant.without.contains(&Mechanism::WriteBarrier);
    let all_on = Variant::nothing();
    for variant in [&all_on].into_iter().chain(variants.iter().find(barrier)) {
        bench.compile(variant)?;
    }
    let effort = effort.begin(effort.ablation_share());
    let (mut turns, mut starts) = (Vec::new(), Vec::new());
    while turns.len() < effort.ablation_turns() {
        if turns.len() >= TURNS_MIN && effort.time_left().is_zero() {
            break;
        }
        turns.push(turn(&bench, &all_on, variants, turns.len())?);
        starts.push(start_ratios(&bench, &all_on, variants)?);
    }
    let ratio = |index: usize, of: fn(&Run) -> f64| {
        let ratios = turns.iter().map(|runs| of(&runs[index + 1]) / of(&runs[0]));
        Summary::of(ratios.collect())
    };
    let per_second = |index: usize| Summary::of(turns.iter().map(|runs| runs[index].per_second).collect());
    let worth = |(index, variant): (usize, &Variant)| Worth {
        workload: model.name(),
        variant: variant.name,
        per_second: [per_second(index + 1), per_second(0)],
        throughput_ratio: ratio(index, |run| run.per_second),
        p50_ratio: ratio(index, |run| run.p50),
        p99_ratio: ratio(index, |run| run.p99),
        cpu_ratio: ratio(index, |run| run.cpu),
        start_ratio: {
            let ratios: Option<Vec<f64>> = starts.iter().map(|starts| starts[index]).collect();
            ratios.map(Summary::of)
        },
    };
    Ok(variants.iter().enumerate().map(worth).collect())
}

/// A run with everything, then one of each variant. Another one begins in every turn: nobody always runs behind the same
/// neighbour.
fn turn(bench: &Bench<'_>, all_on: &Variant, variants: &[Variant], number: usize) -> Result<Vec<Run>, BenchError> {
    let is_replayed = number == 0;
    let with_all = bench.warm(all_on, is_replayed)?;
    let mut runs = vec![with_all; variants.len() + 1];
    for step in 0..variants.len() {
        let index = (step + number * 5) % variants.len();
        runs[index + 1] = bench.warm(&variants[index], is_replayed)?;
    }
    Ok(runs)
}

/// How long variants without tiers take to a deployed application where nothing is compiled, over what it takes with
/// everything.
fn start_ratios(bench: &Bench<'_>, all_on: &Variant, variants: &[Variant]) -> Result<Vec<Option<f64>>, BenchError> {
    let concerns = |variant: &Variant| variant.without.contains(&Mechanism::Tiering);
    if !variants.iter().any(concerns) {
        return Ok(vec![None; variants.len()]);
    }
    let with_all = bench.cold_start(all_on)?;
    let one = |variant: &Variant| match concerns(variant) {
        true => bench.cold_start(variant).map(|seconds| Some(seconds / with_all)),
        false => Ok(None),
    };
    variants.iter().map(one).collect()
}

/// Leaves in an empty folder the state directory of a replica without something that has served an application for a
/// moment.
///
/// # Errors
/// As for [`run`].
pub fn leave_behind(state_dir: &Path, workload: &str, variant: &Variant) -> Result<(), BenchError> {
    let effort = Effort::smoke();
    let bench = Bench::new(named(workload)?, &effort)?;
    bench.touch(state_dir, variant)
}

fn named(workload: &str) -> Result<&'static dyn Workload, BenchError> {
    models::named(workload).ok_or_else(|| BenchError::new(format!("no workload is called `{workload}`")))
}

impl Effort {
    /// Turns of an ablation at most.
    fn ablation_turns(&self) -> usize {
        self.runs.div_ceil(3)
    }

    /// Time after which no turn begins beyond the least.
    fn ablation_share(&self) -> Duration {
        Duration::from_secs(600) / self.divisor.pow(2) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_every_variant_and_its_roots_agree() {
        let variants: Vec<Variant> = Variant::all()
            .into_iter()
            .filter(|variant| ["write-barrier", "all off"].contains(&variant.name))
            .collect();
        let mut tables = Vec::new();
        run(&["idle".to_owned()], &variants, &Effort::smoke(), |table| {
            tables.push(table.to_vec());
        })
        .unwrap();
        let [table] = &tables[..] else { panic!("{tables:?}") };
        assert_eq!(table.len(), 2);
        for worth in table {
            assert!(
                worth.throughput_ratio.value > 0.0 && worth.cpu_ratio.value > 0.0,
                "{worth:?}"
            );
            assert_eq!(worth.start_ratio.is_some(), worth.variant == "all off", "{worth:?}");
            assert!(worth.line().starts_with(worth.variant), "{worth:?}");
            assert_eq!(worth.to_json()["workload"], "idle");
        }
    }

    #[test]
    fn an_unknown_workload_is_named() {
        let error = run(&["no-such".to_owned()], &Variant::all(), &Effort::smoke(), |_| {}).unwrap_err();
        assert!(error.to_string().contains("no-such"), "{error}");
    }
}
