//! `cargo xtask fuzz CRATE TARGET`: a fuzz target, for as long as one likes, with the toolchain that everything else is
//! compiled with.
//!
//! The coverage that libFuzzer steers by is a pass of the compiler that stable toolchains have too. Whoever has
//! `cargo-fuzz` and a nightly toolchain may use them on the same targets, with the sanitizers that this leaves out.

use crate::shell::{self, Result};
use std::process::Command;

/// Arguments of the command.
#[derive(clap::Args)]
pub struct Options {
    /// The folder of the crate under test: `persistence`, `engine` or `netstack`.
    pub folder: String,
    /// The target, as its file in `fuzz/fuzz_targets` is called.
    pub target: String,
    /// How long, in seconds.
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
}

/// What `cargo-fuzz` passes without sanitizers.
const RUSTFLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions";
/// Named, so that build scripts and macros are compiled without these flags.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Compiles and runs. What is found, and the corpus, stay below `target/fuzz`.
pub fn run(options: &Options) -> Result<()> {
    let output = shell::root().join("target/fuzz");
    let manifest = shell::root().join(&options.folder).join("fuzz/Cargo.toml");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .args([
            "build",
            "--release",
            "--target",
            TRIPLE,
            "--bin",
            &options.target,
            "--manifest-path",
        ])
        .arg(manifest)
        .env("RUSTFLAGS", RUSTFLAGS)
        .env("CARGO_TARGET_DIR", &output);
    shell::run_shown(&mut build)?;
    let corpus = output.join("corpus").join(&options.folder).join(&options.target);
    std::fs::create_dir_all(&corpus).map_err(|error| format!("{}: {error}", corpus.display()))?;
    let mut fuzz = Command::new(output.join(TRIPLE).join("release").join(&options.target));
    fuzz.arg(format!("-max_total_time={}", options.seconds))
        .arg("-rss_limit_mb=4096")
        .arg(format!("-artifact_prefix={}/found-", corpus.display()))
        .arg(&corpus);
    shell::run_shown(&mut fuzz)
}
