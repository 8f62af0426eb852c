//! `replicore replay`

use super::{CliError, look_at};
use clap::Args;
use replicore::config::Config;
use replicore::offline;
use replicore_workloads::agent::fetch_root_key;
use replicore_workloads::certificate::Verifier;
use replicore_workloads::load::Progress;
use replicore_workloads::recording::{Recording, ReplayOptions};
use std::fs::File;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Options of `replicore replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// A state directory, whose batch log is executed again: no replica may be working on it, and nothing in it changes.
    /// Or, with `--url`, a file that `start --record` wrote, whose requests are sent again.
    #[arg(value_name = "DIR|FILE")]
    state_dir: PathBuf,
    /// The key of an encrypted directory, as for `start`.
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    encryption_key: Option<PathBuf>,
    /// Send recorded requests to this endpoint, as `http://HOST:PORT`. One that was empty when the recording began gives
    /// canisters the recorded ids.
    #[arg(long, conflicts_with_all = ["from", "to", "cores"])]
    url: Option<String>,
    /// Send them so many times as fast as they came; `inf`: as soon as what was answered before them is answered.
    #[arg(long, default_value_t = 1.0, requires = "url")]
    speed: f64,
    /// Connections to send on: the bound of what is in flight.
    #[arg(long, default_value_t = 64, requires = "url")]
    connections: usize,
    /// The first height to execute at the latest: chooses the checkpoint to begin with. The oldest where it is left out.
    #[arg(long, value_name = "HEIGHT")]
    from: Option<u64>,
    /// The last height to execute; the whole log where it is left out.
    #[arg(long, value_name = "HEIGHT")]
    to: Option<u64>,
    /// Threads that execute canisters; 0 means one per CPU. Never changes a result.
    #[arg(long, default_value_t = 0)]
    cores: usize,
}

/// Executes, compares and prints the root that was reached.
pub fn run(args: &ReplayArgs) -> Result<ExitCode, CliError> {
    if let Some(url) = &args.url {
        return send(args, super::load::address(url)?);
    }
    let config = Config {
        state_dir: args.state_dir.clone(),
        encryption_key: args.encryption_key.clone(),
        cores: args.cores,
        ..Config::default()
    };
    config.validate()?;
    let key = args.encryption_key.as_deref();
    let replayed = look_at(&args.state_dir, key, |place| {
        offline::replay(place, args.from, args.to, &config)
    })?;
    println!(
        "{} batches from the checkpoint at height {} to height {}: every root as recorded",
        replayed.batches, replayed.checkpoint, replayed.height
    );
    if let Some(height) = replayed.confirmed_checkpoint {
        println!("the checkpoint at height {height} has the state that execution came to");
    }
    println!("root: {}", hex::encode(replayed.root));
    Ok(ExitCode::SUCCESS)
}

/// Sends a recording and prints what came back.
fn send(args: &ReplayArgs, address: SocketAddr) -> Result<ExitCode, CliError> {
    let path = &args.state_dir;
    if args.speed.is_nan() || args.speed <= 0.0 {
        return Err("--speed must be positive".into());
    }
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let recording = Recording::read(BufReader::new(file))
        .map_err(|error| format!("{} is no recording: {error}", path.display()))?;
    println!(
        "sending    {} requests of {} users",
        recording.len(),
        recording.senders()
    );
    let verifier = Arc::new(Verifier::new(&fetch_root_key(address)?)?.sampling(16));
    let options = ReplayOptions {
        address,
        speed: args.speed,
        connections: args.connections,
    };
    let report = recording.replay(&options, &verifier, &Progress::default())?;
    super::load::print(&report.load);
    println!("rejected   {}", report.rejected);
    Ok(ExitCode::SUCCESS)
}
