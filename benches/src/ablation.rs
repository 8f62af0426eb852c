//! What each mechanism is worth: modelled applications on replicas that lack one of them, beside replicas that have all.
//!
//! A run starts a replica, deploys the application, drives it in a closed loop, lets the application check itself, and
//! stops the replica. The variants take turns, so that what disturbs one disturbs the others, and a ratio is always to the
//! replica with everything of the same turn. In the first turn every batch log is then executed again with everything
//! switched on: roots that differ end the measurement.

use crate::measure::{Effort, Summary};
use crate::{BenchError, replicas};
use hdrhistogram::Histogram;
use replicore::config::Config;
use replicore::mechanisms::Mechanism;
use replicore::{Replica, offline};
use replicore_workloads::agent::fetch_root_key;
use replicore_workloads::arrival::Arrivals;
use replicore_workloads::certificate::Verifier;
use replicore_workloads::load::{self, LoadOptions, Progress};
use replicore_workloads::{Agent, Identity, Scale, Workload, models};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is measured where nothing is named: writes to one canister, computation, calls between canisters, many canisters,
/// and queries.
pub const WORKLOADS: [&str; 5] = ["ledger", "compute", "social", "idle", "explorer"];

const USERS: u64 = 60;
const CONNECTIONS: usize = 24;
const ITEMS: u64 = 100;
/// Canisters of applications that have a number of them; of the one whose point it is, many.
const CANISTERS: u64 = 10;
const CANISTERS_MANY: u64 = 300;
/// Of the certificates that clients get, this part has its signature checked by them, which share the machine.
const SIGNATURES_CHECKED_ONE_IN: u8 = 16;

/// What is left out of a replica.
#[derive(Clone, Debug)]
pub struct Variant {
    /// Its name in tables: that of the mechanism, or `all off`.
    pub name: &'static str,
    /// The mechanisms that are switched off.
    pub without: Vec<Mechanism>,
}

impl Variant {
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
    /// Time from the start of the replica to the deployed application, over that with everything.
    pub start_ratio: Summary,
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
            "start_ratio": summary(&self.start_ratio),
            "runs": self.throughput_ratio.runs,
        })
    }

    /// The head of [`Worth::line`]'s columns.
    pub fn head() -> String {
        format!(
            "{:17} {:>10} {:>10}  {:^20} {:>8} {:>8} {:>8}",
            "without", "ops/s", "with all", "ratio [range]", "p50", "p99", "start"
        )
    }

    /// A line of the table of its workload.
    pub fn line(&self) -> String {
        let Summary { value, low, high, .. } = self.throughput_ratio;
        format!(
            "{:17} {:>10.0} {:>10.0}  {:>20} {:>8.2} {:>8.2} {:>8.2}",
            self.variant,
            self.per_second[0].value,
            self.per_second[1].value,
            format!("{value:.2} [{low:.2} .. {high:.2}]"),
            self.p50_ratio.value,
            self.p99_ratio.value,
            self.start_ratio.value
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

/// One run.
#[derive(Clone, Copy, Debug)]
struct Run {
    per_second: f64,
    p50: f64,
    p99: f64,
    start: f64,
}

fn measure(model: &dyn Workload, variants: &[Variant], effort: &Effort) -> Result<Vec<Worth>, BenchError> {
    let all_on = Variant {
        name: "nothing",
        without: Vec::new(),
    };
    // The first replica of a process finds everything cold: it is not measured.
    one(model, &all_on, false, effort)?;
    let mut turns: Vec<Vec<Run>> = Vec::new();
    for turn in 0..effort.ablation_turns() {
        let with_all = one(model, &all_on, turn == 0, effort)?;
        let mut runs = vec![with_all; variants.len() + 1];
        for step in 0..variants.len() {
            // Another one begins in every turn: nobody always runs behind the same neighbour.
            let index = (step + turn * 5) % variants.len();
            runs[index + 1] = one(model, &variants[index], turn == 0, effort)?;
        }
        turns.push(runs);
    }
    let worth = |(index, variant): (usize, &Variant)| {
        let column = |of: fn(&Run) -> f64| turns.iter().map(|runs| of(&runs[index + 1])).collect();
        let ratio = |of: fn(&Run) -> f64| turns.iter().map(|runs| of(&runs[index + 1]) / of(&runs[0])).collect();
        Worth {
            workload: model.name(),
            variant: variant.name,
            per_second: [
                Summary::of(column(|run| run.per_second)),
                Summary::of(turns.iter().map(|runs| runs[0].per_second).collect()),
            ],
            throughput_ratio: Summary::of(ratio(|run| run.per_second)),
            p50_ratio: Summary::of(ratio(|run| run.p50)),
            p99_ratio: Summary::of(ratio(|run| run.p99)),
            start_ratio: Summary::of(ratio(|run| run.start)),
        }
    };
    Ok(variants.iter().enumerate().map(worth).collect())
}

fn one(model: &dyn Workload, variant: &Variant, is_replayed: bool, effort: &Effort) -> Result<Run, BenchError> {
    let directory = tempfile::tempdir().map_err(BenchError::new)?;
    let run = run_in(directory.path(), model, variant, effort)?;
    if is_replayed {
        replay(directory.path(), variant)?;
    }
    Ok(run)
}

/// One run, which leaves its state directory behind.
fn run_in(state_dir: &Path, model: &dyn Workload, variant: &Variant, effort: &Effort) -> Result<Run, BenchError> {
    let in_variant =
        |error: &dyn std::fmt::Display| BenchError::new(format!("{} without {}: {error}", model.name(), variant.name));
    let mut config = replicas::config(state_dir);
    variant
        .without
        .iter()
        .for_each(|mechanism| mechanism.switch_off(&mut config));
    let begin = Instant::now();
    let replica = Replica::start(&config).map_err(|error| in_variant(&error))?;
    let run = drive(model, replica.local_addr(), begin, effort).map_err(|error| in_variant(&error))?;
    replica.stop().map_err(|error| in_variant(&error))?;
    Ok(run)
}

/// Leaves in an empty folder the state directory of a replica without something that has served an application for a
/// moment.
///
/// # Errors
/// As for [`run`].
pub fn leave_behind(state_dir: &Path, workload: &str, variant: &Variant) -> Result<(), BenchError> {
    let model = named(workload)?;
    run_in(state_dir, model, variant, &Effort::smoke()).map(drop)
}

fn named(workload: &str) -> Result<&'static dyn Workload, BenchError> {
    models::named(workload).ok_or_else(|| BenchError::new(format!("no workload is called `{workload}`")))
}

/// Executes with everything switched on what a replica without something has logged.
fn replay(state_dir: &Path, variant: &Variant) -> Result<(), BenchError> {
    let name = variant.name;
    let replayed = offline::replay(state_dir, None, None, &Config::default())
        .map_err(|error| BenchError::new(format!("the log of a replica without {name}: {error}")))?;
    match replayed.confirmed_checkpoint {
        Some(_) if replayed.batches > 0 => Ok(()),
        _ => Err(BenchError::new(format!(
            "the log of a replica without {name} holds nothing to execute again"
        ))),
    }
}

fn drive(model: &dyn Workload, address: SocketAddr, begin: Instant, effort: &Effort) -> Result<Run, BenchError> {
    let root_key = fetch_root_key(address).map_err(BenchError::new)?;
    let verifier = Verifier::new(&root_key).map_err(BenchError::new)?;
    let verifier = Arc::new(verifier.sampling(SIGNATURES_CHECKED_ONE_IN));
    let users = replicas::users(USERS);
    let is_many = model.name() == "idle";
    let scale = Scale {
        users: users.iter().map(Identity::principal).collect(),
        canisters: match is_many {
            true => effort.scale(CANISTERS_MANY).max(CANISTERS),
            false => CANISTERS,
        },
        items: ITEMS,
    };
    let mut agent = Agent::new(address, Identity::numbered(0), Arc::clone(&verifier));
    let deployed = model.deploy(&mut agent, &scale).map_err(BenchError::new)?;
    let start = begin.elapsed().as_secs_f64();
    let options = LoadOptions {
        address,
        rate: None,
        arrivals: Arrivals::Poisson,
        connections: CONNECTIONS,
        duration: effort.ablation_slice(),
        user_skew: 0.5,
        seed: 1,
    };
    let report = load::run(&options, deployed.as_ref(), &users, &verifier, &Progress::default());
    let report = report.map_err(BenchError::new)?;
    deployed.check(&mut agent, report.is_exact()).map_err(BenchError::new)?;
    let mut latency: Histogram<u64> = report.updates.clone();
    // Histograms of equal bounds: adding cannot fail.
    let _same_bounds = latency.add(&report.queries);
    if latency.is_empty() {
        return Err(BenchError::new("no operation was answered"));
    }
    Ok(Run {
        per_second: report.completed() as f64 / report.elapsed.as_secs_f64(),
        p50: latency.value_at_quantile(0.5) as f64,
        p99: latency.value_at_quantile(0.99) as f64,
        start,
    })
}

impl Effort {
    /// Turns of an ablation.
    fn ablation_turns(&self) -> usize {
        self.runs.div_ceil(3)
    }

    /// Load of one run.
    fn ablation_slice(&self) -> Duration {
        Duration::from_secs(2) / self.divisor.min(20) as u32
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
        run(&["ledger".to_owned()], &variants, &Effort::smoke(), |table| {
            tables.push(table.to_vec());
        })
        .unwrap();
        let [table] = &tables[..] else { panic!("{tables:?}") };
        assert_eq!(table.len(), 2);
        for worth in table {
            assert!(worth.throughput_ratio.value > 0.0, "{worth:?}");
            assert!(worth.line().starts_with(worth.variant), "{worth:?}");
            assert_eq!(worth.to_json()["workload"], "ledger");
        }
    }

    #[test]
    fn an_unknown_workload_is_named() {
        let error = run(&["no-such".to_owned()], &Variant::all(), &Effort::smoke(), |_| {}).unwrap_err();
        assert!(error.to_string().contains("no-such"), "{error}");
    }
}
