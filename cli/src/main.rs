//! The `replicore` program: reads the command line and starts what it names.

#![forbid(unsafe_code)]

#[macro_use]
mod output;
mod commands;

use clap::Parser;
use commands::Cli;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    output::run(|| match commands::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("replicore: {error}");
            ExitCode::FAILURE
        }
    })
}
