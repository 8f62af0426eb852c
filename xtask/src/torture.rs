//! `cargo xtask torture`: a replica under load is killed again and again, and everything it acknowledged must be there.
//!
//! The test itself is `cli/tests/torture`; this gives it its time.

use crate::shell::{self, Result};
use std::process::Command;

/// Arguments of the command.
#[derive(clap::Args)]
pub struct Options {
    /// How long, in seconds; a kill takes about one.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Chooses the moments of the kills.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Kills, recovers, replays and compares until the time is over.
pub fn run(options: &Options) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The whole workspace and one of its tests: the same features, and so the same compiled crates, as everywhere else.
    command.args(["test", "--workspace", "--quiet", "--test", "torture", "--"]);
    command.args(["acknowledged_transfers_survive_sigkill_and_count_once", "--nocapture"]);
    command
        .current_dir(shell::root())
        .env("REPLICORE_TORTURE_SECONDS", options.seconds.to_string())
        .env("REPLICORE_TORTURE_SEED", options.seed.to_string());
    shell::run_shown(&mut command)
}
