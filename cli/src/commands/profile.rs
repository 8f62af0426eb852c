//! `replicore profile`

use super::load::address;
use super::{CliError, look_at};
use clap::Args;
use replicore::config::Config;
use replicore::{Replica, offline};
use replicore_benches::embedded::{self, EmbeddedOptions};
use replicore_benches::profile::{self, host};
use replicore_engine::profile::Profile;
use replicore_engine::{Engine, EngineConfig};
use replicore_scheduler::SchedulerCores;
use replicore_workloads::agent::fetch_root_key;
use replicore_workloads::arrival::Arrivals;
use replicore_workloads::certificate::Verifier;
use replicore_workloads::load::{self, LoadOptions, Progress};
use replicore_workloads::{Agent, Identity, Scale, Workload, models};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// Options of `replicore profile`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct ProfileArgs {
    /// Modelled application (`replicore load --list` names them): its canisters by instructions, then a replica that
    /// serves it by stages.
    #[arg(long, group = "what")]
    workload: Option<String>,
    /// State directory whose batch log is executed again: the canisters of a recorded run, by instructions. No replica may
    /// be working on it; nothing in it changes.
    #[arg(long, group = "what", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The key of an encrypted state directory, as for `start`.
    #[arg(long, value_name = "FILE", requires = "state_dir")]
    encryption_key: Option<PathBuf>,
    /// A replica that serves this address on this host, by stages, under whatever load it has.
    #[arg(long, group = "what")]
    url: Option<String>,
    /// Only this canister.
    #[arg(long)]
    canister: Option<String>,
    /// Write `canisters.svg` (flame graph), `canisters.json` (Firefox profiler), `canisters.txt` and `pages.svg` (heat map
    /// of the heaps) into this folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Operations of the modelled application whose instructions are counted.
    #[arg(long, default_value_t = 500)]
    operations: u64,
    /// Canisters, for models that have a number of them.
    #[arg(long, default_value_t = 10)]
    canisters: u64,
    /// Accounts, records, blocks or assets, for models that have them.
    #[arg(long, default_value_t = 100)]
    items: u64,
    /// Seconds during which stages are watched; 0 leaves them out.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Connections of the load while stages are watched.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Seed of all choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Users of the modelled application.
const USERS: u64 = 100;

/// Profiles what is asked for.
pub fn run(args: &ProfileArgs) -> Result<ExitCode, CliError> {
    let watched = Duration::try_from_secs_f64(args.seconds).map_err(|error| format!("--seconds: {error}"))?;
    if let Some(url) = &args.url {
        watch_process(process_at(address(url)?)?, watched)?;
    } else if let Some(state_dir) = &args.state_dir {
        let key = args.encryption_key.as_deref();
        canisters(args, |engine| replayed(state_dir, key, engine))?;
    } else {
        let name = args.workload.as_deref().unwrap_or_default();
        let model = models::named(name).ok_or_else(|| format!("no workload is called `{name}`"))?;
        canisters(args, |engine| executed(args, model, engine))?;
        if !watched.is_zero() {
            stages(args, model, watched)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Executes on an engine that profiles, prints the table and writes the pictures.
fn canisters(
    args: &ProfileArgs,
    execute: impl FnOnce(Arc<Engine>) -> Result<String, CliError>,
) -> Result<(), CliError> {
    let engine = Arc::new(Engine::new(EngineConfig {
        profile: true,
        ..EngineConfig::default()
    })?);
    println!("{}\n", execute(Arc::clone(&engine))?);
    let mut profile = engine.profile().unwrap_or_default();
    if let Some(canister) = &args.canister {
        profile = profile::only(&profile, canister);
    }
    if profile.entries.is_empty() {
        return Err("no canister executed anything".into());
    }
    let table = profile::table(&profile);
    print!("{table}");
    match &args.out {
        Some(folder) => write(folder, &profile, &table),
        None => Ok(()),
    }
}

fn write(folder: &Path, profile: &Profile, table: &str) -> Result<(), CliError> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let files = [
        ("canisters.txt", table.to_owned()),
        ("canisters.svg", profile::flame(profile)?),
        ("canisters.json", profile::firefox(profile)?),
        ("pages.svg", profile::heat(profile)?),
    ];
    println!();
    for (name, content) in files {
        let path = folder.join(name);
        std::fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

fn executed(args: &ProfileArgs, model: &dyn Workload, engine: Arc<Engine>) -> Result<String, CliError> {
    let options = EmbeddedOptions {
        operations: args.operations,
        users: USERS,
        canisters: args.canisters,
        items: args.items,
        seed: args.seed,
    };
    let run = embedded::run(model, engine, &options)?;
    Ok(format!(
        "{}: {} operations in {} rounds, root {}\nthe same on every run and machine; the clock is instructions",
        model.name(),
        run.operations,
        run.rounds,
        hex::encode(run.root)
    ))
}

fn replayed(state_dir: &Path, key: Option<&Path>, engine: Arc<Engine>) -> Result<String, CliError> {
    // On one core: with several some messages are executed ahead, and may be executed again, which a profile would count.
    let replayed = look_at(state_dir, key, |place| {
        offline::replay_on(engine, SchedulerCores(1), place, None, None)
    })?;
    Ok(format!(
        "{} batches from height {} to {}, every root as recorded: root {}",
        replayed.batches,
        replayed.checkpoint,
        replayed.height,
        hex::encode(replayed.root)
    ))
}

/// Drives a replica of its own and watches the process.
fn stages(args: &ProfileArgs, model: &dyn Workload, watched: Duration) -> Result<(), CliError> {
    // Before the replica's threads begin: performance counters see those that begin later.
    let counters = host::Counters::open();
    let directory = tempfile::tempdir()?;
    let config = Config {
        state_dir: directory.path().join("state"),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        ..Config::default()
    };
    let replica = Replica::start(&config)?;
    let address = replica.local_addr();
    let verifier = Arc::new(Verifier::new(&fetch_root_key(address)?)?.sampling(16));
    let users: Vec<_> = (0..USERS).map(Identity::numbered).collect();
    let scale = Scale {
        users: users.iter().map(Identity::principal).collect(),
        canisters: args.canisters,
        items: args.items,
    };
    let mut agent = Agent::new(address, Identity::numbered(0), Arc::clone(&verifier));
    let deployed = model.deploy(&mut agent, &scale)?;
    let options = LoadOptions {
        address,
        rate: None,
        arrivals: Arrivals::Poisson,
        connections: args.connections.max(1),
        duration: watched,
        user_skew: 0.5,
        seed: args.seed,
    };
    let watch = host::Watch::begin(None, Some(counters))?;
    let report = load::run(&options, deployed.as_ref(), &users, &verifier, &Progress::default())?;
    let seen = watch.end()?;
    deployed.check(&mut agent, report.is_exact())?;
    let completed = report.completed();
    println!(
        "\nstages: {completed} operations in {:.1} s over HTTP, {:.0}/s ({} updates, {} queries; the load's own threads are \
         in the table)\n",
        report.elapsed.as_secs_f64(),
        completed as f64 / report.elapsed.as_secs_f64(),
        report.updates.len(),
        report.queries.len(),
    );
    print!("{}", seen.table(completed, "operation"));
    replica.stop()?;
    Ok(())
}

fn watch_process(process: u32, watched: Duration) -> Result<(), CliError> {
    let watch = host::Watch::begin(Some(process), None)?;
    std::thread::sleep(watched);
    let seen = watch.end()?;
    println!("process {process}, {:.1} s\n", seen.elapsed.as_secs_f64());
    print!("{}", seen.table((seen.elapsed.as_secs_f64() as u64).max(1), "second"));
    Ok(())
}

/// The process on this host that listens there.
fn process_at(address: SocketAddr) -> Result<u32, CliError> {
    host::listener(address.port()).ok_or_else(|| {
        format!(
            "no process that this user may look at listens on port {}",
            address.port()
        )
        .into()
    })
}
