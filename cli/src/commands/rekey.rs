//! `replicore rekey`

use super::CliError;
use clap::Args;
use replicore::{offline, operator_key};
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of `replicore rekey`.
#[derive(Debug, Args)]
pub struct RekeyArgs {
    /// The encrypted state directory. No replica may be working on it.
    #[arg(value_name = "DIR")]
    state_dir: PathBuf,
    /// The file with the key that opens it now.
    #[arg(long, value_name = "FILE")]
    encryption_key: PathBuf,
    /// The file with the key that opens it from now on.
    #[arg(long, value_name = "FILE")]
    new_encryption_key: PathBuf,
}

/// Seals the directory's data key anew: one small file, whatever the size of the state.
pub fn run(args: &RekeyArgs) -> Result<ExitCode, CliError> {
    let old = operator_key::load(&args.encryption_key, &args.state_dir)?;
    let new = operator_key::load(&args.new_encryption_key, &args.state_dir)?;
    offline::rekey(&args.state_dir, &old, &new)?;
    println!("only the new key opens {} from now on", args.state_dir.display());
    println!("copies of the directory that were made before still open with the old one");
    Ok(ExitCode::SUCCESS)
}
