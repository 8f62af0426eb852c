//! The workbench: everything around the code that is more than `cargo test`.
//!
//! `cargo xtask canisters` compiles the workload canisters, `e2e` drives a started replica with third-party clients,
//! `fuzz` runs a fuzz target, `layers` checks the architecture rules, `torture` kills a replica under load, `bench-compare` measures two
//! revisions in turn, `compare-storage` measures checkpoints against embedded databases, `peers` installs what the
//! benchmarks compare with, and `ci` runs all of it in the order of `.ci/run`.
//! What the commands download (npm, PyPI, Debian packages) stays in `.e2e/`, outside version control.
#![forbid(unsafe_code)]

mod bench_compare;
mod canisters;
mod ci;
mod compare_storage;
mod documents;
mod e2e;
mod fuzz;
mod layers;
mod peers;
mod shell;
mod torture;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The workbench of replicore")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compile the workload canisters with their toolchains.
    Canisters(canisters::Options),
    /// Drive a replica with third-party clients: deploy, call, verify, restart, kill, recover.
    E2e(e2e::Options),
    /// Run a fuzz target of `persistence` or `engine`.
    Fuzz(fuzz::Options),
    /// Check the dependency direction and what the inner crates may use.
    Layers,
    /// Kill a replica under load at random moments and check what it recovers, again and again.
    Torture(torture::Options),
    /// Measure this tree against another revision, in turn.
    BenchCompare(bench_compare::Options),
    /// Install the databases that the ledger is compared with.
    Peers,
    /// Measure checkpoints against embedded databases: redb, fjall, LMDB and RocksDB.
    CompareStorage(compare_storage::Options),
    /// Everything that a change has to pass.
    Ci(ci::Options),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Canisters(options) => canisters::run(&options),
        Command::E2e(options) => e2e::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Layers => layers::run(),
        Command::Torture(options) => torture::run(&options),
        Command::BenchCompare(options) => bench_compare::run(&options),
        Command::Peers => peers::run(),
        Command::CompareStorage(options) => compare_storage::run(&options),
        Command::Ci(options) => ci::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
