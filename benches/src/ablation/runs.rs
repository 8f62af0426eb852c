//! Runs of an application on a replica without something: how they are set up, so that they measure the replica.
//!
//! Compiling a model's canisters takes seconds, longer than a run. So compiled code is carried from one state directory to
//! the next, and what is not compiled yet is, before the clock starts: only [`Bench::cold_start`] begins without code.

use super::Variant;
use crate::measure::Effort;
use crate::profile::host::Watch;
use crate::{BenchError, replicas};
use hdrhistogram::Histogram;
use replicore::config::Config;
use replicore::{Replica, offline};
use replicore_workloads::agent::fetch_root_key;
use replicore_workloads::arrival::Arrivals;
use replicore_workloads::certificate::Verifier;
use replicore_workloads::load::{self, LoadOptions, LoadReport, Progress};
use replicore_workloads::workload::Deployed;
use replicore_workloads::{Agent, Identity, Scale, Workload};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const USERS: u64 = 200;
/// In a smoke test.
const USERS_MIN: u64 = 24;
/// Operations in flight: enough for a batch to hold many.
const CONNECTIONS: usize = 64;
/// So few that the ledger has made its archive before the clock starts.
const ITEMS: u64 = 100;
/// Canisters of applications that have a number of them; of the one whose point it is, many.
const CANISTERS: u64 = 10;
const CANISTERS_MANY: u64 = 300;
/// Of the certificates that clients get, this part has its signature checked by them, which share the machine: a check
/// costs as much as twenty operations.
const SIGNATURES_CHECKED_ONE_IN: u8 = 128;

/// One run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Operations a second.
    pub per_second: f64,
    /// Median latency in microseconds.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Processor time of the replica's threads for an operation, in microseconds.
    pub cpu: f64,
}

/// An application, and the compiled code of its canisters once a run has left some.
pub(super) struct Bench<'a> {
    model: &'static dyn Workload,
    effort: &'a Effort,
    code: TempDir,
}

/// A replica that serves the application.
struct Served {
    replica: Replica,
    deployed: Box<dyn Deployed>,
    agent: Agent,
    users: Vec<Identity>,
    verifier: Arc<Verifier>,
}

impl<'a> Bench<'a> {
    pub fn new(model: &'static dyn Workload, effort: &'a Effort) -> Result<Self, BenchError> {
        Ok(Self {
            model,
            effort,
            code: tempfile::tempdir().map_err(BenchError::new)?,
        })
    }

    /// Seconds from the start of a replica without something to the deployed application, where nothing is compiled.
    pub fn cold_start(&self, variant: &Variant) -> Result<f64, BenchError> {
        let directory = tempfile::tempdir().map_err(BenchError::new)?;
        let begin = Instant::now();
        let served = self.serve(directory.path(), variant)?;
        let elapsed = begin.elapsed().as_secs_f64();
        // Nobody else's time is to be taken by what it leaves to be compiled.
        served.replica.finish_compiling();
        served.replica.stop().map_err(|error| self.says(variant, error))?;
        Ok(elapsed)
    }

    /// Leaves the code that replicas without something execute.
    pub fn compile(&self, variant: &Variant) -> Result<(), BenchError> {
        self.warm(variant, false).map(drop)
    }

    /// One run; where `is_replayed` says so, its batch log is executed again with everything.
    pub fn warm(&self, variant: &Variant, is_replayed: bool) -> Result<Run, BenchError> {
        let directory = tempfile::tempdir().map_err(BenchError::new)?;
        // A new state directory is made by a replica alone.
        let empty = self.start(directory.path(), variant)?;
        empty.stop().map_err(|error| self.says(variant, error))?;
        link_files(self.code.path(), &code_of(directory.path()))?;
        let run = self.run_in(directory.path(), variant)?;
        link_files(&code_of(directory.path()), self.code.path())?;
        if is_replayed {
            replay(directory.path(), variant)?;
        }
        Ok(run)
    }

    /// One run, which leaves its state directory behind.
    fn run_in(&self, state_dir: &Path, variant: &Variant) -> Result<Run, BenchError> {
        self.serve_for(state_dir, variant, |served| {
            let warm_up = served.drive(self.slice() / 3)?;
            served.replica.finish_compiling();
            let (run, is_exact) = served.measure(self.slice())?;
            // What it came to only now is there for the next one, and takes nobody else's time.
            served.replica.finish_compiling();
            Ok((run, warm_up.is_exact() && is_exact))
        })
    }

    /// A moment of load, whatever code there is for it.
    pub fn touch(&self, state_dir: &Path, variant: &Variant) -> Result<(), BenchError> {
        self.serve_for(state_dir, variant, |served| {
            let report = served.drive(self.slice())?;
            Ok(((), report.is_exact()))
        })
    }

    /// Does something with a replica that serves the application, and has the application checked. `work` says whether the
    /// fate of every operation is known.
    fn serve_for<T>(
        &self,
        state_dir: &Path,
        variant: &Variant,
        work: impl FnOnce(&Served) -> Result<(T, bool), BenchError>,
    ) -> Result<T, BenchError> {
        let mut served = self.serve(state_dir, variant)?;
        let run = work(&served).and_then(|(run, is_exact)| {
            let checked = served.deployed.check(&mut served.agent, is_exact);
            checked.map(|()| run).map_err(BenchError::new)
        });
        let run = run.map_err(|error| self.says(variant, error))?;
        served.replica.stop().map_err(|error| self.says(variant, error))?;
        Ok(run)
    }

    fn says(&self, variant: &Variant, what: impl std::fmt::Display) -> BenchError {
        BenchError::new(format!("{} without {}: {what}", self.model.name(), variant.name))
    }

    fn start(&self, state_dir: &Path, variant: &Variant) -> Result<Replica, BenchError> {
        let mut config = replicas::config(state_dir);
        let without = variant.without.iter();
        without.for_each(|mechanism| mechanism.switch_off(&mut config));
        Replica::start(&config).map_err(|error| self.says(variant, error))
    }

    /// Starts a replica and deploys the application.
    fn serve(&self, state_dir: &Path, variant: &Variant) -> Result<Served, BenchError> {
        let replica = self.start(state_dir, variant)?;
        let (users, address) = (
            replicas::users(self.effort.scale(USERS).max(USERS_MIN)),
            replica.local_addr(),
        );
        let scale = Scale {
            users: users.iter().map(Identity::principal).collect(),
            canisters: match self.model.name() {
                "idle" => self.effort.scale(CANISTERS_MANY).max(CANISTERS),
                _ => CANISTERS,
            },
            items: ITEMS,
        };
        let verifier = verifier(address)?;
        let mut agent = Agent::new(address, Identity::numbered(0), Arc::clone(&verifier));
        let deployed = self.model.deploy(&mut agent, &scale);
        Ok(Served {
            replica,
            deployed: deployed.map_err(|error| self.says(variant, error))?,
            agent,
            users,
            verifier,
        })
    }

    /// Load of one run.
    fn slice(&self) -> Duration {
        Duration::from_secs(2) / self.effort.divisor.min(20) as u32
    }
}

impl Served {
    /// A closed loop for a while.
    fn drive(&self, duration: Duration) -> Result<LoadReport, BenchError> {
        let options = LoadOptions {
            address: self.replica.local_addr(),
            rate: None,
            arrivals: Arrivals::Poisson,
            connections: CONNECTIONS,
            duration,
            user_skew: 0.5,
            seed: 1,
        };
        let (deployed, verifier) = (self.deployed.as_ref(), &self.verifier);
        load::run(&options, deployed, &self.users, verifier, &Progress::default()).map_err(BenchError::new)
    }

    /// A run and whether the fate of every operation in it is known.
    fn measure(&self, duration: Duration) -> Result<(Run, bool), BenchError> {
        let watch = Watch::begin(None, None)?;
        let report = self.drive(duration)?;
        // Those who drove the load have ended and are not in it.
        let cpu_nanos: u64 = watch.end()?.stages.values().map(|usage| usage.cpu_nanos).sum();
        let mut latency: Histogram<u64> = report.updates.clone();
        // Histograms of equal bounds: adding cannot fail.
        let _same_bounds = latency.add(&report.queries);
        if latency.is_empty() {
            return Err(BenchError::new("no operation was answered"));
        }
        let run = Run {
            per_second: report.completed() as f64 / report.elapsed.as_secs_f64(),
            p50: latency.value_at_quantile(0.5) as f64,
            p99: latency.value_at_quantile(0.99) as f64,
            cpu: cpu_nanos as f64 / 1e3 / report.completed() as f64,
        };
        Ok((run, report.is_exact()))
    }
}

fn verifier(address: SocketAddr) -> Result<Arc<Verifier>, BenchError> {
    let root_key = fetch_root_key(address).map_err(BenchError::new)?;
    let verifier = Verifier::new(&root_key).map_err(BenchError::new)?;
    Ok(Arc::new(verifier.sampling(SIGNATURES_CHECKED_ONE_IN)))
}

/// Where a replica keeps compiled code.
fn code_of(state_dir: &Path) -> PathBuf {
    state_dir.join("compiled")
}

/// Puts the files of a folder into another one too, where it lacks them. They are written once and never changed.
fn link_files(from: &Path, to: &Path) -> Result<(), BenchError> {
    let in_folder = |error: std::io::Error| BenchError::new(format!("{}: {error}", to.display()));
    std::fs::create_dir_all(to).map_err(in_folder)?;
    for file in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let there = to.join(file.file_name());
        if !there.exists() {
            std::fs::hard_link(file.path(), there).map_err(in_folder)?;
        }
    }
    Ok(())
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
