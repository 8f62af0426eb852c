//! `replicore demo`: the main job from end to end, as a user would see it.

use super::{CliError, NetArg, WithoutArgs};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use replicore_workloads::agent::{fetch_root_key, fetch_state_root};
use replicore_workloads::certificate::Verifier;
use replicore_workloads::ledger::{self, LoadOptions, LoadReport, Progress};
use replicore_workloads::{Agent, Identity};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// During the load one state root in this many has its BLS signature checked by the clients, which share the machine with
/// the replica; before and after it every one.
const SIGNATURES_CHECKED_ONE_IN: u8 = 16;
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Options of `replicore demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Seconds of load.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Users, each on its own connection with one request in flight.
    #[arg(long, default_value_t = 64)]
    users: u64,
    /// Of 100 requests, how many are queries.
    #[arg(long, default_value_t = 20)]
    query_percent: u32,
    /// Network backend of the replica.
    #[arg(long, value_enum, default_value = "auto")]
    net: NetArg,
    #[command(flatten)]
    without: WithoutArgs,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Starts a replica, deploys a ledger, loads it, kills it, and shows that nothing acknowledged is lost.
pub fn run(args: &DemoArgs) -> Result<ExitCode, CliError> {
    if args.users < 2 {
        return Err("--users must be at least 2: somebody has to receive".into());
    }
    let directory = tempfile::tempdir()?;
    let say = |text: &str| {
        if !args.json {
            println!("{text}");
        }
    };
    let start = Instant::now();
    let mut replica = RunningReplica::start(directory.path(), args)?;
    let cold_start = start.elapsed();
    say(&format!(
        "replica    http://{} (ready in {} ms)",
        replica.address,
        cold_start.as_millis()
    ));

    let root_key = fetch_root_key(replica.address)?;
    let verifier = Arc::new(Verifier::new(&root_key)?);
    let mut agent = Agent::new(replica.address, Identity::numbered(0), Arc::clone(&verifier));
    let canister = ledger::deploy(&mut agent)?;
    say(&format!("ledger     {canister}"));

    let options = LoadOptions {
        address: replica.address,
        ledger: canister,
        users: args.users,
        duration: Duration::from_secs(args.seconds),
        query_percent: args.query_percent,
        seed: 1,
    };
    let sampling = Arc::new(Verifier::new(&root_key)?.sampling(SIGNATURES_CHECKED_ONE_IN));
    let report = load_with_progress(&options, &sampling, args.json)?;
    let root = fetch_state_root(replica.address, canister, &verifier)?;
    ledger::check(replica.address, canister, &verifier, &report.balances)?;
    print_load(&report, &root, args.json);

    replica.kill()?;
    let start = Instant::now();
    let recovered = RunningReplica::start(directory.path(), args)?;
    let recovery = start.elapsed();
    let recovered_root = fetch_state_root(recovered.address, canister, &verifier)?;
    ledger::check(recovered.address, canister, &verifier, &report.balances)?;
    let same = recovered_root == root;
    if args.json {
        print_json(args, &report, &root, &recovered_root, cold_start, recovery);
    } else {
        println!(
            "recovery   killed with SIGKILL; ready again in {} ms",
            recovery.as_millis()
        );
        println!(
            "root       {} {}",
            hex::encode(recovered_root),
            if same { "(the same)" } else { "(DIFFERENT)" }
        );
        println!(
            "accounts   all {} balances hold every acknowledged transfer",
            report.balances.len()
        );
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn load_with_progress(options: &LoadOptions, verifier: &Arc<Verifier>, quiet: bool) -> Result<LoadReport, CliError> {
    let progress = Arc::new(Progress::default());
    let bar = if quiet {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(options.duration.as_millis() as u64)
    };
    bar.set_style(ProgressStyle::with_template("load       [{bar:30}] {elapsed} {msg}")?.progress_chars("=> "));
    let report = std::thread::scope(|scope| {
        let load = scope.spawn(|| ledger::run(options, verifier, &progress));
        let start = Instant::now();
        while !load.is_finished() {
            std::thread::sleep(Duration::from_millis(100));
            bar.set_position(start.elapsed().as_millis() as u64);
            let transfers = progress.transfers.load(Ordering::Relaxed);
            bar.set_message(format!("{transfers} transfers"));
        }
        load.join()
    });
    bar.finish_and_clear();
    Ok(report.map_err(|_| "the load panicked")??)
}

fn rate(count: u64, report: &LoadReport) -> f64 {
    count as f64 / report.elapsed.as_secs_f64()
}

fn print_load(report: &LoadReport, root: &[u8; 32], json: bool) {
    if json {
        return;
    }
    println!(
        "transfers  {} signed, certified: {:.0}/s",
        report.transfers,
        rate(report.transfers, report)
    );
    println!(
        "queries    {} signed: {:.0}/s",
        report.queries,
        rate(report.queries, report)
    );
    for (name, latency) in [("transfer", &report.transfer_latency), ("query", &report.query_latency)] {
        let at = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1_000.0;
        println!(
            "latency    {name}: p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
            at(0.5),
            at(0.9),
            at(0.99),
            latency.max() as f64 / 1_000.0
        );
    }
    println!("root       {}", hex::encode(root));
}

fn print_json(
    args: &DemoArgs,
    report: &LoadReport,
    root: &[u8; 32],
    recovered_root: &[u8; 32],
    cold_start: Duration,
    recovery: Duration,
) {
    let line = serde_json::json!({
        "users": args.users,
        "seconds": report.elapsed.as_secs_f64(),
        "transfers": report.transfers,
        "transfers_per_second": rate(report.transfers, report),
        "queries": report.queries,
        "queries_per_second": rate(report.queries, report),
        "transfer_latency_us": {
            "p50": report.transfer_latency.value_at_quantile(0.5),
            "p99": report.transfer_latency.value_at_quantile(0.99),
        },
        "query_latency_us": {
            "p50": report.query_latency.value_at_quantile(0.5),
            "p99": report.query_latency.value_at_quantile(0.99),
        },
        "cold_start_ms": cold_start.as_millis() as u64,
        "recovery_ms": recovery.as_millis() as u64,
        "root": hex::encode(root),
        "recovered_root": hex::encode(recovered_root),
    });
    println!("{line}");
}

/// A replica in a process of its own, so that killing it is real.
struct RunningReplica {
    process: Child,
    address: SocketAddr,
}

impl RunningReplica {
    fn start(state_dir: &Path, args: &DemoArgs) -> Result<Self, CliError> {
        let port_file = state_dir.join("port");
        // Left over from a killed replica; it may not exist.
        let _absent = std::fs::remove_file(&port_file);
        // An idle replica executes rounds to keep its certified time fresh, and each has another root. The demonstration
        // compares the root after the load with the one after the recovery, so there must be none in between.
        let config = state_dir.join("replicore.toml");
        std::fs::write(&config, "[rounds]\nfreshness_ms = 240000\n")?;
        let net = match args.net {
            NetArg::Auto => "auto",
            NetArg::Uring => "uring",
            NetArg::Epoll => "epoll",
        };
        let without = &args.without.without;
        let mut process = Command::new(std::env::current_exe()?)
            .args(["start", "--listen", "127.0.0.1:0", "--net", net, "--state-dir"])
            .arg(state_dir.join("state"))
            .args(without.iter().flat_map(|name| ["--without", name.as_str()]))
            .arg("--config")
            .arg(&config)
            .arg("--port-file")
            .arg(&port_file)
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".into()))
            .stdout(Stdio::null())
            .spawn()?;
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            if let Some(port) = std::fs::read_to_string(&port_file)
                .ok()
                .and_then(|text| text.trim().parse().ok())
            {
                return Ok(Self {
                    process,
                    address: SocketAddr::from(([127, 0, 0, 1], port)),
                });
            }
            if let Some(status) = process.try_wait()? {
                return Err(format!("the replica ended while starting: {status}").into());
            }
            if Instant::now() > deadline {
                process.kill()?;
                return Err("the replica was not ready within a minute".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// SIGKILL: no destructor, no flush.
    fn kill(&mut self) -> std::io::Result<()> {
        self.process.kill()?;
        self.process.wait().map(drop)
    }
}

impl Drop for RunningReplica {
    fn drop(&mut self) {
        // Already dead is fine.
        let _dead = self.kill();
    }
}
