//! `replicore verify`

use super::CliError;
use clap::Args;
use replicore::offline;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `replicore verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The state directory. No replica may be working on it.
    #[arg(value_name = "DIR")]
    state_dir: PathBuf,
}

/// Prints what was read; the exit code is non-zero where anything is damaged.
pub fn run(args: &VerifyArgs) -> Result<ExitCode, CliError> {
    let verified = offline::verify(&args.state_dir)?;
    println!(
        "{} checkpoints with {} pages ({} bytes hashed), {} batches in the log",
        verified.checkpoints, verified.pages, verified.bytes, verified.batches
    );
    for damage in &verified.damage {
        println!("damage: {damage}");
    }
    if verified.damage.is_empty() {
        println!("everything is whole");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}
