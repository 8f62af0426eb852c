//! `cargo xtask e2e`: unmodified third-party clients against a started replica.
//!
//! Every client gets a replica of its own: fresh state directory, ephemeral port. The programs in `xtask/e2e` go through one
//! scenario and print a line per step; this module installs them, starts and kills replicas for them, bounds their time and
//! counts. The replica must outlive each client and stop cleanly at the end.

mod client;
mod replica;

use crate::canisters;
use crate::shell::{self, Result};
use client::{Client, Outcome};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Arguments of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Which client to run.
    #[arg(long, value_enum, default_value_t = Which::All)]
    client: Which,
    /// Fewer toolchains for the clients that come after the first.
    #[arg(long)]
    quick: bool,
    /// The replica to test; built in the dev profile when absent.
    #[arg(long)]
    replica: Option<PathBuf>,
    /// Compile and install the clients, run nothing.
    #[arg(long)]
    install_only: bool,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Which {
    All,
    IcAgent,
    IcpSdkCore,
    IcpPyCore,
    IcpCli,
    BadInput,
}

const CLIENTS: [Which; 5] = [
    Which::IcAgent,
    Which::IcpSdkCore,
    Which::IcpPyCore,
    Which::IcpCli,
    Which::BadInput,
];

/// The toolchains, the one that every other step uses first.
const MODULES: [(&str, &str); 6] = [
    ("c", "c/c.wasm"),
    ("motoko64", "motoko64/motoko64.wasm.gz"),
    ("rust32", "rust/rust32.wasm.gz"),
    ("motoko32", "motoko32/motoko32.wasm.gz"),
    ("rust64", "rust/rust64.wasm.gz"),
    ("azle", "azle/azle.wasm.gz"),
];
/// How many of them the later clients go through with `--quick`.
const QUICK_MODULES: usize = 3;

/// Runs the chosen clients one after the other.
pub fn run(options: &Options) -> Result<()> {
    let chosen: Vec<Which> = CLIENTS
        .into_iter()
        .filter(|which| [Which::All, *which].contains(&options.client))
        .collect();
    let replica = match &options.replica {
        Some(path) => path.clone(),
        None if options.install_only => PathBuf::new(),
        None => {
            println!("building the replica");
            shell::replica()?
        }
    };
    let mut clients = Vec::new();
    for which in &chosen {
        clients.push(install(*which, options.quick && *which != Which::IcAgent)?);
    }
    if options.install_only {
        return Ok(());
    }

    let started = Instant::now();
    let mut outcomes = Vec::new();
    for client in clients {
        println!("== {}", client.name);
        outcomes.push((client.name, client.run(&replica)));
    }
    println!("== end to end, {} s", started.elapsed().as_secs());
    for (name, outcome) in &outcomes {
        println!("{name:<14} {outcome}");
    }
    if outcomes.iter().all(|(_, outcome)| outcome.is_success()) {
        Ok(())
    } else {
        Err("end-to-end steps failed".to_owned())
    }
}

/// Makes one client ready to run.
fn install(which: Which, quick: bool) -> Result<Client> {
    let programs = shell::root().join("xtask/e2e");
    let (name, command, seconds_max) = match which {
        Which::All => unreachable!("replaced by each of the others"),
        Which::IcAgent => ("ic-agent", Command::new(build_ic_agent_client(&programs)?), 240),
        Which::IcpSdkCore => {
            let npm = shell::ensure_npm("icp-sdk-core", &["@icp-sdk/core@6.1.0"])?;
            // Modules are looked up from the importing file upwards: the program has to lie beside its packages.
            for file in ["client.mjs", "session.mjs"] {
                shell::write(
                    &npm.join(file),
                    &shell::read(&programs.join("icp-sdk-core").join(file))?,
                )?;
            }
            let mut node = Command::new("node");
            node.arg(npm.join("client.mjs"));
            ("icp-sdk-core", node, 180)
        }
        Which::IcpPyCore => {
            let python = shell::ensure_python("icp-py-core", &["icp-py-core==2.3.1"])?;
            (
                "icp-py-core",
                python_program(&python, &programs.join("icp_py_core.py")),
                180,
            )
        }
        Which::IcpCli => {
            let npm = shell::ensure_npm("icp-cli", &["@icp-sdk/icp-cli-linux-x64@1.5.0"])?;
            let icp = npm.join("node_modules/@icp-sdk/icp-cli-linux-x64/bin/icp");
            let mut python = python_program(Path::new("python3"), &programs.join("icp_cli.py"));
            python.env("ICP", icp).env("E2E_HOME", shell::scratch("icp-cli-home")?);
            ("icp-cli", python, 180)
        }
        Which::BadInput => {
            let python = shell::ensure_python("bad-input", &["cbor2==6.2.1", "cryptography==50.0.2"])?;
            (
                "bad-input",
                python_program(&python, &programs.join("bad_input.py")),
                150,
            )
        }
    };
    let modules = MODULES.iter().take(if quick { QUICK_MODULES } else { MODULES.len() });
    let arguments = modules
        .map(|(name, path)| Ok(format!("{name}={}", module_path(name, path)?.display())))
        .collect::<Result<_>>()?;
    Ok(Client {
        name,
        command,
        arguments,
        seconds_max,
    })
}

/// The committed module, except that the largest is unpacked: so it is large enough to need chunks.
fn module_path(name: &str, path: &str) -> Result<PathBuf> {
    let committed = shell::root().join("workloads/canisters").join(path);
    if name != "azle" {
        return Ok(committed);
    }
    let unpacked = shell::scratch("modules")?.join("azle.wasm");
    shell::write(&unpacked, &canisters::read_module(&committed)?)?;
    Ok(unpacked)
}

fn python_program(python: &Path, program: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-u", "-B"]).arg(program);
    command
}

/// The client is a Cargo project of its own; its build directory is kept apart from the replica's.
fn build_ic_agent_client(programs: &Path) -> Result<PathBuf> {
    println!("building the ic-agent client");
    let output = shell::scratch("ic-agent-client")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build
        .args(["build", "--quiet", "--locked"])
        .current_dir(programs.join("ic-agent-client"));
    shell::run(build.env("CARGO_TARGET_DIR", &output))?;
    Ok(output.join("debug/ic-agent-client"))
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.is_success() { "pass" } else { "FAIL" };
        write!(
            formatter,
            "{verdict}  {} steps ok, {} failed, {} s",
            self.passed,
            self.failed.len(),
            self.seconds
        )?;
        for failure in &self.failed {
            // The whole reason stands above, where the step was reported.
            write!(formatter, "\n    {}", failure.chars().take(200).collect::<String>())?;
        }
        Ok(())
    }
}
