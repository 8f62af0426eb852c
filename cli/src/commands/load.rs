//! `replicore load`: drives any endpoint that speaks the interface with a modelled application.

use super::CliError;
use candid::Principal;
use clap::{Args, ValueEnum};
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use replicore_benches::simulate::{self, SimulationOptions};
use replicore_engine::{Engine, EngineConfig};
use replicore_workloads::agent::fetch_root_key;
use replicore_workloads::arrival::Arrivals;
use replicore_workloads::certificate::Verifier;
use replicore_workloads::load::{self, LoadOptions, LoadReport, Progress};
use replicore_workloads::login::Issuer;
use replicore_workloads::{Agent, Deployed, Identity, Scale, Workload, models, passkey};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const QUANTILES: [(f64, &str); 7] = [
    (0.5, "p50"),
    (0.9, "p90"),
    (0.95, "p95"),
    (0.99, "p99"),
    (0.999, "p99.9"),
    (0.9999, "p99.99"),
    (1.0, "max"),
];

/// Options of `replicore load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Modelled application; `--list` names them.
    #[arg(long, required_unless_present = "list")]
    workload: Option<String>,
    /// Endpoint, as `http://HOST:PORT`.
    #[arg(long, required_unless_present_any = ["list", "simulate"])]
    url: Option<String>,
    /// No endpoint: a replica in this process, without network, disk and clock, in a time of its own. The same seed gives the
    /// same batches and state on every machine.
    #[arg(long, conflicts_with_all = ["url", "histogram", "canister"])]
    simulate: bool,
    /// Operations a second that become due whatever the answers (open loop). Without it every connection has one operation
    /// in flight (closed loop).
    #[arg(long)]
    rate: Option<f64>,
    /// Seconds of load.
    #[arg(long, default_value_t = 10.0)]
    duration: f64,
    /// Law of the arrivals in an open loop.
    #[arg(long, value_enum, default_value = "poisson")]
    arrivals: ArrivalsArg,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Users.
    #[arg(long, default_value_t = 1_000)]
    users: u64,
    /// Zipf exponent over users; 0 chooses evenly.
    #[arg(long, default_value_t = 0.8)]
    user_skew: f64,
    /// How users sign.
    #[arg(long, value_enum, default_value = "session")]
    signing: SigningArg,
    /// Of 100 users, how many sign with a session key that their own key delegates to; overrides `--signing`.
    #[arg(long)]
    session_percent: Option<u64>,
    /// Of 100 users, how many sign with a session key that a new passkey (WebAuthn) delegates to; overrides `--signing`.
    #[arg(long)]
    passkey_percent: Option<u64>,
    /// Of 100 users, how many sign with a session key that a canister vouches for; overrides `--signing`.
    #[arg(long)]
    canister_signature_percent: Option<u64>,
    /// Of 100 users, how many are anonymous; overrides `--signing`.
    #[arg(long)]
    anonymous_percent: Option<u64>,
    /// A canister to install into, where the endpoint creates none for free; once for each that the workload needs.
    #[arg(long, value_name = "ID")]
    canister: Vec<Principal>,
    /// Canisters, for models that have a number of them.
    #[arg(long, default_value_t = 20)]
    canisters: u64,
    /// Accounts, records, blocks or assets, for models that have them.
    #[arg(long, default_value_t = 1_000)]
    items: u64,
    /// Of this many state roots one has its BLS signature checked (1 ms each).
    #[arg(long, default_value_t = 16)]
    signatures_one_in: u8,
    /// Seed of all choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the latency distributions to FILE.updates.hgrm and FILE.queries.hgrm, for the HdrHistogram plotters.
    #[arg(long, value_name = "FILE")]
    histogram: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// List the models.
    #[arg(long)]
    list: bool,
}

/// How users sign: each their own way, mixed evenly over popular and unpopular ones.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SigningArg {
    /// Like the visitors of a site with a login: 10 % anonymous, 20 % with their own keys (programs), 10 % with session keys that
    /// those delegate to (wallets), 10 % with session keys that a passkey delegates to, 50 % with session keys that a canister
    /// vouches for (Internet Identity).
    Mixed,
    /// With their own Ed25519 keys.
    Ed25519,
    /// Half with their own keys, half with session keys that those delegate to.
    Session,
    /// With session keys that passkeys delegate to (WebAuthn).
    Passkey,
    /// With session keys that a canister vouches for.
    Canister,
    /// Not at all.
    Anonymous,
}

/// Of 100 users, how many sign in some way; the others sign with their own keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Signing {
    anonymous: u64,
    session: u64,
    passkey: u64,
    canister: u64,
}

/// The spelling of [`Arrivals`] on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ArrivalsArg {
    /// Independent users: exponential gaps.
    Poisson,
    /// Everything of a second within its first tenth.
    Bursts,
    /// Independent users by day and night: a day lasts a minute.
    Diurnal,
    /// Equal gaps.
    Even,
}

/// Deploys, drives, checks, prints.
pub fn run(args: &LoadArgs) -> Result<ExitCode, CliError> {
    if args.list {
        for model in models::ALL {
            println!("{:10} {}", model.name(), model.about());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let name = args.workload.as_deref().unwrap_or_default();
    let model = models::named(name).ok_or_else(|| format!("no workload is called `{name}`; `--list` names them"))?;
    if args.simulate {
        return simulate(args, model);
    }
    let options = options(args)?;
    let root_key = fetch_root_key(options.address).map_err(|error| {
        format!(
            "no replica answers at {}: {error}; start one there (`replicore start --listen {0}`) or name another with --url",
            options.address
        )
    })?;
    let verifier = Arc::new(Verifier::new(&root_key)?.sampling(args.signatures_one_in));
    let mut agent = Agent::new(options.address, Identity::numbered(0), Arc::clone(&verifier));
    if !args.canister.is_empty() {
        agent.use_canisters(args.canister.clone());
    }
    let users = users(args, &mut agent)?;
    let scale = Scale {
        users: users.iter().map(Identity::principal).collect(),
        canisters: args.canisters,
        items: args.items,
    };
    let start = Instant::now();
    let deployed = model.deploy(&mut agent, &scale)?;
    say(
        args,
        &format!("deployed   {name} in {:.1} s", start.elapsed().as_secs_f64()),
    );
    let report = with_progress(args, &options, deployed.as_ref(), &users, &verifier)?;
    deployed.check(&mut agent, report.is_exact())?;
    if let Some(path) = &args.histogram {
        write_histograms(path, &report)?;
    }
    if args.json {
        println!("{}", json(args, &report));
    } else {
        print(&report);
        println!("checked    every reply, and the application as a whole");
    }
    Ok(ExitCode::SUCCESS)
}

fn say(args: &LoadArgs, text: &str) {
    if !args.json {
        println!("{text}");
    }
}

fn options(args: &LoadArgs) -> Result<LoadOptions, CliError> {
    check(args)?;
    Ok(LoadOptions {
        address: address(args.url.as_deref().unwrap_or_default())?,
        rate: args.rate,
        arrivals: args.arrivals.into(),
        connections: args.connections,
        duration: duration(args)?,
        user_skew: args.user_skew,
        seed: args.seed,
    })
}

/// The address of `http://HOST[:PORT]`. TLS is not spoken here: the load would measure it.
pub fn address(url: &str) -> Result<SocketAddr, CliError> {
    let rest = url
        .strip_prefix("http://")
        .ok_or_else(|| format!("`{url}` is not an http:// address"))?;
    let host = rest.trim_end_matches('/');
    let with_port = if host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) {
        host.to_owned()
    } else {
        format!("{host}:80")
    };
    let found = with_port
        .to_socket_addrs()
        .map_err(|error| format!("{with_port}: {error}"))?
        .next();
    found.ok_or_else(|| format!("{with_port}: no address").into())
}

fn check(args: &LoadArgs) -> Result<(), CliError> {
    if args.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
        return Err("--rate must be positive".into());
    }
    if args.connections == 0 || args.users == 0 {
        return Err("--connections and --users must be positive".into());
    }
    Ok(())
}

fn duration(args: &LoadArgs) -> Result<Duration, CliError> {
    Ok(Duration::try_from_secs_f64(args.duration).map_err(|error| format!("--duration: {error}"))?)
}

impl From<ArrivalsArg> for Arrivals {
    fn from(law: ArrivalsArg) -> Self {
        match law {
            ArrivalsArg::Poisson => Self::Poisson,
            ArrivalsArg::Bursts => Self::Bursts,
            ArrivalsArg::Diurnal => Self::Diurnal,
            ArrivalsArg::Even => Self::Even,
        }
    }
}

impl Signing {
    fn of(args: &LoadArgs) -> Result<Self, CliError> {
        let (anonymous, session, passkey, canister) = match args.signing {
            SigningArg::Mixed => (10, 10, 10, 50),
            SigningArg::Ed25519 => (0, 0, 0, 0),
            SigningArg::Session => (0, 50, 0, 0),
            SigningArg::Passkey => (0, 0, 100, 0),
            SigningArg::Canister => (0, 0, 0, 100),
            SigningArg::Anonymous => (100, 0, 0, 0),
        };
        let signing = Self {
            anonymous: args.anonymous_percent.unwrap_or(anonymous),
            session: args.session_percent.unwrap_or(session),
            passkey: args.passkey_percent.unwrap_or(passkey),
            canister: args.canister_signature_percent.unwrap_or(canister),
        };
        let shares = [signing.anonymous, signing.session, signing.passkey, signing.canister];
        match shares.iter().try_fold(0_u64, |sum, share| sum.checked_add(*share)) {
            Some(0..=100) => Ok(signing),
            _ => Err("the percentages of ways to sign are over 100 together".into()),
        }
    }
}

/// The users, their ways of signing mixed evenly over all of them, so that popular users sign in all ways. Those whom a
/// canister vouches for are logged in here.
fn users(args: &LoadArgs, agent: &mut Agent) -> Result<Vec<Identity>, CliError> {
    const SESSION: Duration = Duration::from_secs(8 * 60 * 60);
    let signing = Signing::of(args)?;
    let expiration = (SystemTime::now().duration_since(UNIX_EPOCH)? + SESSION).as_nanos() as u64;
    let issuer = match signing.canister {
        0 => None,
        _ => Some(Issuer::deploy(agent)?),
    };
    let (start, deployer) = (Instant::now(), agent.identity().clone());
    let mut users = Vec::new();
    let mut logins = 0;
    for number in 0..args.users {
        // 37 has no factor in common with 100: every remainder comes up once in a hundred users.
        let place = number * 37 % 100;
        let own = Identity::numbered(number);
        let mut secret = [0xa5; 32];
        secret[..8].copy_from_slice(&number.to_le_bytes());
        let (anonymous, session) = (signing.anonymous, signing.anonymous + signing.session);
        let passkey = session + signing.passkey;
        users.push(match &issuer {
            _ if place < anonymous => Identity::anonymous(),
            _ if place < session => own.with_session(secret, expiration),
            _ if place < passkey => passkey::session(secret, expiration).map_err(|_| "no randomness for passkeys")?,
            Some(issuer) if place < passkey + signing.canister => {
                logins += 1;
                issuer.log_in(agent, &own, secret, expiration)?
            }
            _ => own,
        });
    }
    agent.set_identity(deployer);
    if logins > 0 {
        say(
            args,
            &format!("logged in  {logins} users in {:.1} s", start.elapsed().as_secs_f64()),
        );
    }
    Ok(users)
}

/// Drives a replica in this process. Nobody signs there: the replica takes the sender's word.
fn simulate(args: &LoadArgs, model: &dyn Workload) -> Result<ExitCode, CliError> {
    const RATE: f64 = 1_000.0;
    check(args)?;
    let users: Vec<_> = (0..args.users).map(Identity::numbered).collect();
    let options = SimulationOptions {
        rate: args.rate.unwrap_or(RATE),
        arrivals: args.arrivals.into(),
        duration: duration(args)?,
        user_skew: args.user_skew,
        canisters: args.canisters,
        items: args.items,
        seed: args.seed,
    };
    let engine = Arc::new(Engine::new(EngineConfig::default())?);
    let start = Instant::now();
    let seen = simulate::run(model, engine, &users, &options)?;
    let elapsed = start.elapsed();
    let (updates, root) = (&seen.updates, hex::encode(seen.root));
    let latency = |quantile: f64| updates.value_at_quantile(quantile);
    if args.json {
        let object = serde_json::json!({
            "workload": args.workload,
            "rate": options.rate,
            "updates": updates.len(),
            "queries": seen.queries,
            "rounds": seen.rounds,
            "load_rounds": seen.load_rounds,
            "batch_max": seen.batch_max,
            "update_latency_ms": { "p50": latency(0.5), "p99": latency(0.99), "max": updates.max() },
            "elapsed_seconds": elapsed.as_secs_f64(),
            "root": root,
        });
        println!("{object}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("simulated  {} updates and {} queries", updates.len(), seen.queries);
    println!(
        "rounds     {} for the load of {} altogether, at most {} messages in a batch",
        seen.load_rounds, seen.rounds, seen.batch_max
    );
    println!(
        "latency ms p50 {}, p99 {}, max {} of simulated time, in rounds of 20",
        latency(0.5),
        latency(0.99),
        updates.max()
    );
    println!("root       {root}, the same on every run and machine");
    println!("elapsed    {:.1} s with deployment", elapsed.as_secs_f64());
    println!("checked    every reply, and the application as a whole");
    Ok(ExitCode::SUCCESS)
}

fn with_progress(
    args: &LoadArgs,
    options: &LoadOptions,
    deployed: &dyn Deployed,
    users: &[Identity],
    verifier: &Arc<Verifier>,
) -> Result<LoadReport, CliError> {
    let progress = Progress::default();
    let bar = if args.json {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(options.duration.as_millis() as u64)
    };
    bar.set_style(ProgressStyle::with_template("load       [{bar:30}] {elapsed} {msg}")?.progress_chars("=> "));
    let report = std::thread::scope(|scope| {
        let load = scope.spawn(|| load::run(options, deployed, users, verifier, &progress));
        let start = Instant::now();
        while !load.is_finished() {
            std::thread::sleep(Duration::from_millis(100));
            bar.set_position(start.elapsed().as_millis() as u64);
            let completed = progress.completed.load(Ordering::Relaxed);
            bar.set_message(format!("{completed} operations"));
        }
        load.join()
    });
    bar.finish_and_clear();
    Ok(report.map_err(|_| "the load panicked")??)
}

/// Counts and percentiles.
pub fn print(report: &LoadReport) {
    let seconds = report.elapsed.as_secs_f64();
    println!(
        "completed  {} operations in {seconds:.1} s: {:.0}/s",
        report.completed(),
        report.completed() as f64 / seconds
    );
    println!(
        "refused    {} (429 or 503), {} of unknown fate",
        report.refused, report.unknown
    );
    println!(
        "delay      {:.1} ms at worst for want of a connection",
        report.worst_delay.as_secs_f64() * 1e3
    );
    let heads: String = QUANTILES.iter().map(|(_, name)| format!("{name:>10}")).collect();
    println!("latency ms      count{heads}");
    for (name, latencies) in [("updates", &report.updates), ("queries", &report.queries)] {
        let cells: String = QUANTILES
            .iter()
            .map(|(quantile, _)| format!("{:>10.2}", latencies.value_at_quantile(*quantile) as f64 / 1_000.0))
            .collect();
        println!("{name:10} {:>10}{cells}", latencies.len());
    }
}

fn json(args: &LoadArgs, report: &LoadReport) -> serde_json::Value {
    let latency = |latencies: &Histogram<u64>| {
        let cells = QUANTILES.iter().map(|(quantile, name)| {
            let micros = latencies.value_at_quantile(*quantile);
            ((*name).to_owned(), serde_json::Value::from(micros))
        });
        cells.collect::<serde_json::Map<_, _>>()
    };
    serde_json::json!({
        "workload": args.workload,
        "rate": args.rate,
        "seconds": report.elapsed.as_secs_f64(),
        "completed": report.completed(),
        "completed_per_second": report.completed() as f64 / report.elapsed.as_secs_f64(),
        "updates": report.updates.len(),
        "queries": report.queries.len(),
        "refused": report.refused,
        "unknown": report.unknown,
        "worst_delay_us": report.worst_delay.as_micros() as u64,
        "update_latency_us": latency(&report.updates),
        "query_latency_us": latency(&report.queries),
    })
}

fn write_histograms(path: &std::path::Path, report: &LoadReport) -> Result<(), CliError> {
    for (name, latencies) in [("updates", &report.updates), ("queries", &report.queries)] {
        let mut file = path.as_os_str().to_owned();
        file.push(format!(".{name}.hgrm"));
        let file = PathBuf::from(file);
        std::fs::write(&file, load::percentile_distribution(latencies))
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signing(arguments: &[&str]) -> Result<Signing, CliError> {
        #[derive(clap::Parser)]
        struct Program {
            #[command(flatten)]
            load: LoadArgs,
        }
        let arguments = ["load", "--workload", "ledger", "--simulate"].iter().chain(arguments);
        Signing::of(&<Program as clap::Parser>::try_parse_from(arguments)?.load)
    }

    #[test]
    fn ways_to_sign_are_named_or_given_by_percentages() {
        let of = |anonymous, session, canister| Signing {
            anonymous,
            session,
            passkey: if canister == 50 { 10 } else { 0 },
            canister,
        };
        assert_eq!(signing(&[]).unwrap(), of(0, 50, 0));
        assert_eq!(signing(&["--signing", "mixed"]).unwrap(), of(10, 10, 50));
        assert_eq!(
            signing(&["--signing", "mixed", "--session-percent", "0"]).unwrap(),
            of(10, 0, 50)
        );
        assert!(signing(&["--signing", "canister", "--anonymous-percent", "1"]).is_err());
    }

    #[test]
    fn addresses_are_of_http_with_a_port_or_without() {
        assert_eq!(
            address("http://127.0.0.1:8080/").unwrap(),
            SocketAddr::from(([127, 0, 0, 1], 8080))
        );
        assert_eq!(
            address("http://127.0.0.1").unwrap(),
            SocketAddr::from(([127, 0, 0, 1], 80))
        );
        assert!(address("https://example.org").is_err());
    }
}
