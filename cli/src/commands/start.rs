//! `replicore start`

use super::{CliError, StartArgs, resolve};
use replicore::Replica;
use replicore::config::Config;
use replicore::follow::{Follower, FollowerOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tracing::{info, warn};

/// Opens the state directory, serves until a signal, checkpoints and returns.
pub fn run(args: &StartArgs) -> Result<ExitCode, CliError> {
    init_logging(args.log_json);
    let config = resolve(args)?;
    match args.join {
        Some(peer) => follow(&config, peer, args.root_key.as_deref()),
        None => serve(&config),
    }
}

fn serve(config: &Config) -> Result<ExitCode, CliError> {
    let signals = Signals::new()?;
    let replica = Replica::start(config)?;
    let address = replica.local_addr();
    if let Err(error) = announce(&replica) {
        warn!(%error, %address, "nobody reads the standard output: the replica serves all the same");
    }
    if let Some(failure) = signals.wait(|| replica.failure())? {
        // Answers and closes what can be; the failure is what counts.
        let _failed = replica.stop();
        return Err(failure.into());
    }
    info!("signal received: finishing the round and taking a checkpoint");
    replica.stop()?;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Says where the replica is and whom to trust; the last line says that it is ready.
fn announce(replica: &Replica) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "root key: {}", hex::encode(replica.root_key_der()))?;
    writeln!(out, "subnet:   {}", replica.subnet_id())?;
    writeln!(out, "address:  http://{}", replica.local_addr())?;
    if let Some(observation) = replica.observation_addr() {
        writeln!(out, "dashboard: http://{observation}/_/dashboard")?;
    }
    if let Some(address) = replica.sync_addr() {
        writeln!(out, "followers: {address}")?;
    }
    writeln!(out, "replicore is ready")?;
    out.flush()
}

/// The same for a replica that follows another one.
fn follow(config: &Config, peer: SocketAddr, root_key: Option<&str>) -> Result<ExitCode, CliError> {
    let signals = Signals::new()?;
    let root_key_der = root_key.map(hex::decode).transpose();
    let root_key_der = root_key_der.map_err(|error| format!("--root-key is not hexadecimal: {error}"))?;
    let follower = Follower::start(config, &FollowerOptions { peer, root_key_der })?;
    if let Err(error) = announce_follower(&follower, peer) {
        warn!(%error, address = %follower.local_addr(), "nobody reads the standard output: the follower serves all the same");
    }
    if let Some(failure) = signals.wait(|| follower.failure())? {
        return Err(failure.into());
    }
    info!("signal received: taking a checkpoint");
    follower.stop()?;
    info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn announce_follower(follower: &Follower, peer: SocketAddr) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "address:  http://{}", follower.local_addr())?;
    writeln!(out, "replicore follows {peer}")?;
    out.flush()
}

/// What ends a server from outside, or from within by a panic.
struct Signals {
    stop: Arc<AtomicBool>,
    panicked: Arc<AtomicBool>,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            stop: stop_flag()?,
            panicked: panic_flag(),
        })
    }

    /// Waits for a signal (`None`) or a failure.
    fn wait(&self, failure: impl Fn() -> Option<String>) -> Result<Option<String>, CliError> {
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(failure) = failure() {
                return Ok(Some(failure));
            }
            if self.panicked.load(Ordering::Relaxed) {
                return Err("a thread panicked (the message is above); nothing acknowledged is lost".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(None)
    }
}

/// Logs go to standard error; `RUST_LOG` selects, `info` by default.
fn init_logging(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log that cannot be written (its reader is gone, its disk is full) is no reason to stop serving.
        .log_internal_errors(false);
    // A second initialisation (in one process of tests) keeps the first.
    let _already_set = if json {
        builder.json().try_init()
    } else {
        builder.with_ansi(false).try_init()
    };
}

/// A flag that SIGTERM and SIGINT raise; the second signal ends the process as usual.
fn stop_flag() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// A flag that any panic raises, on whichever thread: a replica that has lost a thread ends, rather than serving with
/// what is left.
fn panic_flag() -> Arc<AtomicBool> {
    let panicked = Arc::new(AtomicBool::new(false));
    let (flag, report) = (Arc::clone(&panicked), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        flag.store(true, Ordering::Relaxed);
    }));
    panicked
}
