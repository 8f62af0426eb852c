//! `replicore replay`

use super::CliError;
use clap::Args;
use replicore::config::Config;
use replicore::offline;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `replicore replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The state directory. No replica may be working on it; nothing in it changes.
    #[arg(value_name = "DIR")]
    state_dir: PathBuf,
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
    let config = Config {
        state_dir: args.state_dir.clone(),
        cores: args.cores,
        ..Config::default()
    };
    config.validate()?;
    let replayed = offline::replay(&args.state_dir, args.from, args.to, &config)?;
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
