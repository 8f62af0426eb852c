//! The `replicore` program: reads the command line and starts what it names.

#![forbid(unsafe_code)]

mod commands;

use clap::Parser;
use commands::{Cli, run};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("replicore: {error}");
            ExitCode::FAILURE
        }
    }
}
