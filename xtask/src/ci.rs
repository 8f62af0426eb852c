//! `cargo xtask ci`: what a change has to pass, stage by stage, in the order of "cheapest to notice first".
//!
//! Everything is built in the dev profile, so that no crate is compiled twice. A stage that fails does not keep the later ones
//! from running: the summary names all of them. `.ci/run` calls this after the README's test command.

use crate::shell::{self, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Arguments of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Run only these stages.
    stages: Vec<String>,
    /// Leave out the stages that need a network.
    #[arg(long)]
    offline: bool,
    /// Print the names of the stages.
    #[arg(long)]
    list: bool,
}

/// One thing to pass.
struct Stage {
    name: &'static str,
    /// Whether it downloads anything.
    network: bool,
    run: fn() -> Result<()>,
}

/// How long a replica is killed and recovered.
const TORTURE_SECONDS: u64 = 20;

const STAGES: [Stage; 13] = [
    Stage {
        name: "format",
        network: false,
        run: format,
    },
    Stage {
        name: "layers",
        network: false,
        run: crate::layers::run,
    },
    Stage {
        name: "test",
        network: false,
        run: test,
    },
    Stage {
        name: "seeds",
        network: false,
        run: seeds,
    },
    Stage {
        name: "torture",
        network: false,
        run: torture,
    },
    Stage {
        name: "lint",
        network: false,
        run: lint,
    },
    Stage {
        name: "docs",
        network: false,
        run: docs,
    },
    Stage {
        name: "conformance",
        network: false,
        run: conformance,
    },
    Stage {
        name: "interleavings",
        network: true,
        run: interleavings,
    },
    Stage {
        name: "canisters",
        network: true,
        run: canisters,
    },
    Stage {
        name: "e2e",
        network: true,
        run: end_to_end,
    },
    Stage {
        name: "counts",
        network: false,
        run: counts,
    },
    Stage {
        name: "benches",
        network: false,
        run: benches,
    },
];

/// Runs the stages and prints what each took.
pub fn run(options: &Options) -> Result<()> {
    if options.list {
        STAGES.iter().for_each(|stage| println!("{}", stage.name));
        return Ok(());
    }
    if let Some(unknown) = options
        .stages
        .iter()
        .find(|name| STAGES.iter().all(|stage| stage.name != **name))
    {
        return Err(format!("no stage is named {unknown}"));
    }
    let chosen = |stage: &&Stage| {
        let named = options.stages.is_empty() || options.stages.iter().any(|name| name == stage.name);
        named && !(options.offline && stage.network)
    };
    let mut results: Vec<(&str, Duration, Result<()>)> = Vec::new();
    for stage in STAGES.iter().filter(chosen) {
        println!("==== {}", stage.name);
        let started = Instant::now();
        let result = (stage.run)();
        if let Err(error) = &result {
            println!("{error}");
        }
        results.push((stage.name, started.elapsed(), result));
    }
    println!("==== summary");
    for (name, elapsed, result) in &results {
        let seconds = elapsed.as_secs();
        match result {
            Ok(()) => println!("pass  {name:<12} {seconds:>5} s"),
            Err(error) => println!("FAIL  {name:<12} {seconds:>5} s  {error}"),
        }
    }
    let failed: Vec<&str> = results
        .iter()
        .filter(|(_, _, result)| result.is_err())
        .map(|(name, _, _)| *name)
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "failed: {0}; `cargo xtask ci {0}` runs what failed again",
        failed.join(" ")
    ))
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(shell::root());
    command
}

fn format() -> Result<()> {
    shell::run_shown(&mut cargo(&["fmt", "--all", "--check"]))?;
    let client = shell::root().join("xtask/e2e/ic-agent-client");
    shell::run_shown(cargo(&["fmt", "--check"]).current_dir(client))
}

/// More kills than the test by itself makes.
fn torture() -> Result<()> {
    crate::torture::run(&crate::torture::Options {
        seconds: TORTURE_SECONDS,
        seed: 2,
    })
}

/// The README's command.
fn test() -> Result<()> {
    shell::run_shown(&mut cargo(&["test", "--workspace", "--quiet"]))
}

/// Generated programs, many more than a test run takes: some on the real engine, thousands on a stand-in for it. With the
/// whole workspace, so that nothing is compiled with other features.
fn seeds() -> Result<()> {
    let programs = ["test", "--workspace", "--quiet", "--test", "programs"];
    shell::run_shown(cargo(&programs).env("REPLICORE_SEEDS", "1000..1300"))?;
    let generated = ["test", "--workspace", "--quiet", "--lib", "tests::generated"];
    shell::run_shown(cargo(&generated).env("REPLICORE_SEEDS", "1000..4000"))
}

fn lint() -> Result<()> {
    shell::run_shown(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ]))
}

fn docs() -> Result<()> {
    let mut command = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
    shell::run_shown(command.env("RUSTDOCFLAGS", "-Dwarnings"))
}

/// The reference transcripts are not part of the repository; where they lie beside it they are run.
fn conformance() -> Result<()> {
    let Some(transcripts) = transcripts() else {
        println!("no reference transcripts beside the repository: skipped");
        return Ok(());
    };
    let mut command = Command::new(shell::replica()?);
    command.arg("conformance");
    let known = shell::root().join("xtask/conformance-known-failures.txt");
    shell::run_shown(command.arg(transcripts).arg("--known").arg(known))
}

fn transcripts() -> Option<PathBuf> {
    let named = std::env::var_os("REPLICORE_TRANSCRIPTS").map(PathBuf::from);
    let beside = shell::root().parent().map(|parent| parent.join("shared/transcripts"));
    named
        .into_iter()
        .chain(beside)
        .find(|folder: &PathBuf| Path::is_dir(folder))
}

/// The hand-over structures under every interleaving, and what hands canisters to other cores on more threads than there
/// are. In crates outside the workspace: one compiles the replica's files against other locks, the other one is made to
/// be compiled for ThreadSanitizer.
fn interleavings() -> Result<()> {
    for manifest in ["replica/interleavings/Cargo.toml", "scheduler/races/Cargo.toml"] {
        let mut command = cargo(&["run", "--quiet", "--release", "--locked", "--manifest-path"]);
        shell::run_shown(command.arg(shell::root().join(manifest)))?;
    }
    Ok(())
}

/// The quick toolchains compile their canisters again; the result must be what is committed.
fn canisters() -> Result<()> {
    let xtask = std::env::current_exe().map_err(|error| error.to_string())?;
    shell::run_shown(Command::new(xtask).args(["canisters", "--check"]))
}

fn end_to_end() -> Result<()> {
    let xtask = std::env::current_exe().map_err(|error| error.to_string())?;
    shell::run_shown(Command::new(xtask).args(["e2e", "--quick"]))
}

/// Allocations, page faults, reads and writes, instructions and system calls of the important paths, against those that
/// are committed; and every Criterion benchmark once.
fn counts() -> Result<()> {
    // On a machine of its own, what is missing may be installed; elsewhere the stage says what it leaves out.
    if std::env::var_os("CI").is_some()
        && let Err(error) = shell::ensure_debian(&["valgrind"], &["valgrind"])
    {
        println!("valgrind cannot be installed: {error}");
    }
    shell::run_shown(&mut cargo(&["test", "--workspace", "--quiet", "--bench", "counts"]))?;
    let criterion = [
        "test",
        "--workspace",
        "--quiet",
        "--bench",
        "engine",
        "--bench",
        "write_tracking",
    ];
    shell::run_shown(&mut cargo(&criterion))
}

/// Every measurement once, with small parameters: figures are printed, none is judged.
fn benches() -> Result<()> {
    shell::run_shown(Command::new(shell::replica()?).args(["bench", "--smoke"]))
}
