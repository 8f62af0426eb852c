//! `cargo xtask compare-storage`: checkpoints beside embedded databases, with the same pages and the same durability.
//!
//! The crate `benches/compare-storage` measures; this gives it the library of RocksDB, from Debian's packages.

use crate::shell::{self, Result};
use std::process::Command;

/// Arguments of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Rounds, of each of which every store is given the same pages.
    #[arg(long, default_value_t = 11)]
    pub rounds: u32,
}

/// Installs what is missing, compiles the crate and prints its table.
pub fn run(options: &Options) -> Result<()> {
    shell::ensure_debian(&["/usr/include/rocksdb/c.h"], &["librocksdb-dev"])?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["run", "--release", "--features", "rocksdb", "--manifest-path"])
        .arg(shell::root().join("benches/compare-storage/Cargo.toml"))
        .args(["--", &options.rounds.to_string()]);
    shell::run_shown(&mut command)
}
