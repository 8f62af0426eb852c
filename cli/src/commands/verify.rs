//! `replicore verify`

use super::{CliError, DirectoryArgs};
use clap::Args;
use replicore::offline;
use std::process::ExitCode;

/// Options of `replicore verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    directory: DirectoryArgs,
}

/// Prints what was read; the exit code is non-zero where anything is damaged.
pub fn run(args: &VerifyArgs) -> Result<ExitCode, CliError> {
    let verified = args.directory.look(|place| offline::verify(place))?;
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
