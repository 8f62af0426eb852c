//! The command line: one file per command.

mod bench;
mod conformance;
mod demo;
mod doctor;
mod inspect;
mod load;
mod profile;
mod rekey;
mod replay;
mod start;
mod verify;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Args, Parser, Subcommand};
use replicore::config::{Config, ConfigError};
use replicore::mechanisms::Mechanism;
use replicore::offline::Place;
use replicore::{RecoveryError, operator_key};
use replicore_netstack::NetBackend;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// An Internet-Computer-compatible replica execution engine.
#[derive(Debug, Parser)]
#[command(name = "replicore", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a state directory over the public HTTP interface until SIGTERM or SIGINT.
    Start(StartArgs),
    /// Show the main job: deploy a ledger, load it, kill the replica, recover, check every acknowledged transfer.
    Demo(demo::DemoArgs),
    /// Read a whole state directory and compare it with its checksums, digests and hashes.
    Verify(verify::VerifyArgs),
    /// Show what is in a state directory: canisters, sizes, checkpoints, batch log.
    Inspect(inspect::InspectArgs),
    /// Execute the batch log of a state directory again and compare every root, or send recorded traffic to an endpoint.
    Replay(replay::ReplayArgs),
    /// Put an encrypted state directory under another key.
    Rekey(rekey::RekeyArgs),
    /// Print the configuration that `start` would use.
    Config(ConfigArgs),
    /// Measure figures with stable names.
    Bench(bench::BenchArgs),
    /// Drive an endpoint with a modelled application: open or closed loop, replies verified, percentiles.
    Load(load::LoadArgs),
    /// Show where the time goes: canisters by instructions, a replica by its stages.
    Profile(profile::ProfileArgs),
    /// Check this host for what makes a replica fast and safe: a verdict and a remedy each.
    Doctor(doctor::DoctorArgs),
    /// Run reference transcripts on the embedded engine and compare every answer.
    Conformance(conformance::ConformanceArgs),
}

/// Options of `replicore start`. Each overrides the value of the configuration file.
#[derive(Debug, Default, Args)]
pub struct StartArgs {
    /// Directory of keys, batch log and checkpoints; created if it does not exist.
    #[arg(long)]
    pub state_dir: Option<PathBuf>,
    /// Encrypt the state directory with the key in this file: 64 hexadecimal digits, kept outside of the directory. An
    /// encrypted directory needs it at every start.
    #[arg(long, value_name = "FILE")]
    pub encryption_key: Option<PathBuf>,
    /// Address of the HTTP interface; port 0 picks a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Write the bound port to this file once ready.
    #[arg(long)]
    pub port_file: Option<PathBuf>,
    /// Record every verified call and query in this new file, to be sent again by `replicore replay FILE --url URL`.
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Threads that execute canisters; 0 means one per CPU. Never changes a result.
    #[arg(long)]
    pub cores: Option<usize>,
    /// Network backend.
    #[arg(long, value_enum)]
    pub net: Option<NetArg>,
    #[command(flatten)]
    pub without: WithoutArgs,
    /// Serve replicas that follow this one at this address; whoever reaches it can read the whole state.
    #[arg(long, value_name = "ADDR:PORT")]
    pub sync_listen: Option<SocketAddr>,
    /// Follow the replica that serves followers at this address: fetch its state, execute its batches, answer queries and
    /// read_state. Calls are refused.
    #[arg(long, value_name = "ADDR:PORT")]
    pub join: Option<SocketAddr>,
    /// With --join: the root key of the subnet to follow (DER, hexadecimal). Without it the first one seen is believed.
    #[arg(long, value_name = "HEX", requires = "join")]
    pub root_key: Option<String>,
    /// Configuration file (TOML).
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Logs as JSON lines instead of text.
    #[arg(long)]
    pub log_json: bool,
}

/// Mechanisms to switch off, for comparison. No result depends on them.
#[derive(Clone, Debug, Default, Args)]
pub struct WithoutArgs {
    /// Switch a mechanism off, to see what it is worth: its conservative alternative stands in its place, and no result
    /// changes. Several are separated by commas; `all` is the conservative design.
    #[arg(long, value_name = "MECHANISM", value_delimiter = ',', value_parser = mechanism_names())]
    pub without: Vec<String>,
}

fn mechanism_names() -> PossibleValuesParser {
    let named = |mechanism: Mechanism| PossibleValue::new(mechanism.name()).help(mechanism.alternative());
    PossibleValuesParser::new(Mechanism::ALL.map(named).into_iter().chain([PossibleValue::new(ALL)]))
}

/// Stands for every mechanism.
const ALL: &str = "all";

impl WithoutArgs {
    /// What is to be switched off.
    pub fn mechanisms(&self) -> Vec<Mechanism> {
        if self.without.iter().any(|name| name == ALL) {
            return Mechanism::ALL.to_vec();
        }
        self.without.iter().filter_map(|name| name.parse().ok()).collect()
    }
}

/// The spelling of [`NetBackend`] on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum NetArg {
    /// io_uring where the host allows it, else epoll.
    Auto,
    /// io_uring or an error.
    #[value(alias = "io_uring")]
    Uring,
    /// epoll.
    Epoll,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Print it (the only thing this command does).
    #[arg(long)]
    show: bool,
    #[command(flatten)]
    start: StartArgs,
}

/// Anything that ends the program with a message.
pub type CliError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the command.
///
/// # Errors
/// What ended the command, in a sentence for its user.
pub fn run(cli: Cli) -> Result<ExitCode, CliError> {
    match cli.command {
        Command::Start(args) => start::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Config(args) => {
            if !args.show {
                return Err("say `replicore config --show` to print the configuration".into());
            }
            print!("{}", resolve(&args.start)?.to_toml());
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify(args) => verify::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Rekey(args) => rekey::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Load(args) => load::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Conformance(args) => conformance::run(&args),
    }
}

/// The configuration file (or the defaults) with the command line on top.
fn resolve(args: &StartArgs) -> Result<Config, ConfigError> {
    let mut config = args
        .config
        .as_deref()
        .map_or_else(|| Ok(Config::default()), Config::load)?;
    if let Some(state_dir) = &args.state_dir {
        config.state_dir.clone_from(state_dir);
    }
    if args.encryption_key.is_some() {
        config.encryption_key.clone_from(&args.encryption_key);
    }
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    if args.port_file.is_some() {
        config.port_file.clone_from(&args.port_file);
    }
    if args.record.is_some() {
        config.record.clone_from(&args.record);
    }
    if let Some(cores) = args.cores {
        config.cores = cores;
    }
    if args.sync_listen.is_some() {
        config.sync.listen = args.sync_listen;
    }
    if let Some(net) = args.net {
        config.net = match net {
            NetArg::Auto => NetBackend::Auto,
            NetArg::Uring => NetBackend::Uring,
            NetArg::Epoll => NetBackend::Epoll,
        };
    }
    for mechanism in args.without.mechanisms() {
        mechanism.switch_off(&mut config);
    }
    config.validate()?;
    Ok(config)
}

/// A state directory that a command looks at, and the key of an encrypted one.
#[derive(Debug, Args)]
pub struct DirectoryArgs {
    /// The state directory. No replica may be working on it.
    #[arg(value_name = "DIR")]
    pub state_dir: PathBuf,
    /// The key of an encrypted directory, as for `start`.
    #[arg(long, value_name = "FILE")]
    pub encryption_key: Option<PathBuf>,
}

impl DirectoryArgs {
    /// Hands the directory to `look`, with its key.
    fn look<T>(&self, look: impl FnOnce(Place<'_>) -> Result<T, RecoveryError>) -> Result<T, CliError> {
        look_at(&self.state_dir, self.encryption_key.as_deref(), look)
    }
}

/// Hands a directory to `look`, with the key in a file where there is one.
fn look_at<T>(
    state_dir: &Path,
    encryption_key: Option<&Path>,
    look: impl FnOnce(Place<'_>) -> Result<T, RecoveryError>,
) -> Result<T, CliError> {
    let key = encryption_key.map(|path| operator_key::load(path, state_dir));
    let key = key.transpose()?;
    let key = key.as_ref();
    Ok(look(Place { state_dir, key })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(options: &[&str]) -> Config {
        let words = ["replicore", "start"].iter().chain(options);
        match Cli::try_parse_from(words).unwrap().command {
            Command::Start(args) => resolve(&args).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn mechanisms_are_switched_off_by_name_or_all_at_once() {
        let config = resolved(&["--without", "query-cache,group-commit", "--without", "parallel-rounds"]);
        assert_eq!(
            (
                config.queries.cache_bytes_max,
                config.rounds.batch_messages_max,
                config.cores
            ),
            (0, 1, 1)
        );
        assert_eq!(config.engine, Config::default().engine);
        let mut all_off = Config::default();
        Mechanism::ALL
            .iter()
            .for_each(|mechanism| mechanism.switch_off(&mut all_off));
        assert_eq!(resolved(&["--without", "all"]), all_off);
        let error = Cli::try_parse_from(["replicore", "demo", "--without", "everything"]).unwrap_err();
        assert!(error.to_string().contains("warm-instances"), "{error}");
    }
}
