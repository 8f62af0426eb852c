//! The ledger as a centralised service would have it: a plain HTTP service before PostgreSQL or Redis.
//!
//! What is the same as for the canister: the machine, the file system, the client and its connections, accounts and
//! amounts, an Ed25519 signature per transfer that the service verifies, and an answer that leaves only when the transfer
//! is on disk. What the peers are spared: certificates, consensus-ready ordering, Candid. Each database runs as its package
//! configures it except for where its files are and how it makes writes durable, which the file of each says.

pub mod postgres;
pub mod redis;
pub mod service;

use crate::BenchError;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Balance of an account before its first transfer, as in the ledger canister.
pub const OPENING_BALANCE: i64 = 1_000_000_000;
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Where transfers are kept: one connection to a database.
pub trait Store: Send {
    /// Moves `amount`, durably, and gives the number of the transfer.
    fn transfer(&mut self, payer: &[u8], payee: &[u8], amount: u64) -> Result<u64, BenchError>;
}

/// Who runs the database. PostgreSQL refuses to run as root.
#[derive(Clone, Copy, Debug)]
struct Account {
    user: u32,
    group: u32,
}

impl Account {
    /// The account that the package made, if this process may change to it; none means our own.
    fn of_package(name: &str) -> Option<Self> {
        let ours = std::fs::metadata("/proc/self").ok()?;
        if std::os::unix::fs::MetadataExt::uid(&ours) != 0 {
            return None;
        }
        let users = std::fs::read_to_string("/etc/passwd").ok()?;
        let fields: Vec<&str> = users
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.first() == Some(&name))?;
        Some(Self {
            user: fields.get(2)?.parse().ok()?,
            group: fields.get(3)?.parse().ok()?,
        })
    }
}

/// A command run as `account`, silent.
fn command(program: &Path, account: Option<Account>) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/");
    if let Some(account) = account {
        command.uid(account.user).gid(account.group);
    }
    command
}

/// A directory that `account` owns, on the file system where the replica's state is measured too.
fn directory(account: Option<Account>) -> Result<TempDir, BenchError> {
    let directory = tempfile::tempdir().map_err(BenchError::new)?;
    if let Some(account) = account {
        chown(directory.path(), Some(account.user), Some(account.group)).map_err(BenchError::new)?;
    }
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).map_err(BenchError::new)?;
    Ok(directory)
}

/// Tries until the database answers.
fn until_ready<T>(what: &str, mut attempt: impl FnMut() -> Result<T, BenchError>) -> Result<T, BenchError> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        match attempt() {
            Ok(ready) => return Ok(ready),
            Err(error) if Instant::now() > deadline => {
                return Err(BenchError::new(format!("{what} does not answer: {error}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
