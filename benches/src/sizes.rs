//! What replicore weighs: the program on disk, a replica at rest, a canister at rest.
//!
//! They concern the `replicore` program itself, which these measurements run in a process of its own. It is the running
//! program, or beside it where Cargo put it; otherwise the figures are left out.

use crate::BenchError;
use crate::measure::{Effort, Figure};
use candid::Principal;
use replicore_workloads::agent::{fetch_root_key, fetch_state_root};
use replicore_workloads::certificate::Verifier;
use replicore_workloads::{Agent, Identity, canisters, management};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MB: f64 = 1e6;
const KIB: f64 = 1_024.0;
/// Canisters that keep a warm instance, by default.
const WARM: u64 = 500;
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// At rest: what starting and installing left to do in the background is done.
const SETTLE: Duration = Duration::from_millis(1_500);

/// `sizes.release_binary_mb`: bytes of the `replicore` file of a release build, symbols included, over a million.
pub fn release_binary(_effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let program = program()?;
    if cfg!(debug_assertions) {
        return Err(BenchError::LeftOut("this is not a release build".to_owned()));
    }
    let bytes = std::fs::metadata(&program).map_err(BenchError::new)?.len();
    let figure = Figure::of("sizes.release_binary_mb", "MB", vec![bytes as f64 / MB], String::new());
    Ok(vec![figure])
}

/// `sizes.idle_rss_mb`: resident memory of `replicore start` on an empty state directory, at rest.
/// `sizes.canister_idle_kib`: what each of 1,000 installed and idle canisters (the ledger's module) adds to a replica on which
/// as many as keep a warm instance are installed already. What the first of all brings (the compiler's memory, threads, pools)
/// and what warm instances hold is bounded, however many canisters there are: it is not a canister's.
pub fn idle_replica(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let program = program()?;
    let canisters = effort.scale(1_000);
    let settle = if effort.is_smoke() { SETTLE / 15 } else { SETTLE };
    let runs = effort.runs.min(3);
    let (mut resident, mut each, mut root) = (Vec::new(), Vec::new(), String::new());
    for _ in 0..runs {
        let replica = Process::start(&program)?;
        std::thread::sleep(settle);
        resident.push(replica.resident_bytes()? / MB);
        replica.install(effort.scale(WARM))?;
        std::thread::sleep(settle);
        let before = replica.resident_bytes()?;
        root = replica.install(canisters)?;
        std::thread::sleep(settle);
        let after = replica.resident_bytes()?;
        each.push((after - before).max(0.0) / canisters as f64 / KIB);
        if effort.time_left().is_zero() {
            break;
        }
    }
    Ok(vec![
        Figure::of("sizes.idle_rss_mb", "MB", resident, root.clone()),
        Figure::of("sizes.canister_idle_kib", "KiB", each, root),
    ])
}

/// The `replicore` program of the same build.
fn program() -> Result<PathBuf, BenchError> {
    let this = std::env::current_exe().map_err(BenchError::new)?;
    let is_program = |path: &Path| path.file_name().is_some_and(|name| name == "replicore") && path.is_file();
    if is_program(&this) {
        return Ok(this);
    }
    // Tests lie in `deps`, one below.
    let beside = this.ancestors().skip(1).take(2).map(|folder| folder.join("replicore"));
    beside
        .into_iter()
        .find(|path| is_program(path))
        .ok_or_else(|| BenchError::LeftOut("the replicore program is not built beside this one".to_owned()))
}

/// A replica in a process of its own.
struct Process {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Process {
    fn start(program: &Path) -> Result<Self, BenchError> {
        let directory = tempfile::tempdir().map_err(BenchError::new)?;
        let port_file = directory.path().join("port");
        let child = Command::new(program)
            .args(["start", "--listen", "127.0.0.1:0", "--state-dir"])
            .arg(directory.path().join("state"))
            .arg("--port-file")
            .arg(&port_file)
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(BenchError::new)?;
        let mut process = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            _directory: directory,
        };
        let deadline = Instant::now() + READY_TIMEOUT;
        while Instant::now() < deadline {
            let port = std::fs::read_to_string(&port_file).ok();
            if let Some(port) = port.and_then(|text| text.trim().parse().ok()) {
                process.address.set_port(port);
                return Ok(process);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(BenchError::new("the replica did not become ready"))
    }

    fn resident_bytes(&self) -> Result<f64, BenchError> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).map_err(BenchError::new)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: Option<f64> = line.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
        kib.map(|kib| kib * KIB)
            .ok_or_else(|| BenchError::new("the process shows no resident memory"))
    }

    /// Installs so many canisters and gives the state root.
    fn install(&self, count: u64) -> Result<String, BenchError> {
        let verifier =
            Verifier::new(&fetch_root_key(self.address).map_err(BenchError::new)?).map_err(BenchError::new)?;
        let verifier = Arc::new(verifier.sampling(64));
        let agent = |number| Agent::new(self.address, Identity::numbered(number), Arc::clone(&verifier));
        let threads = count.min(8);
        let installed = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads)
                .map(|thread| {
                    let mut agent = agent(thread);
                    scope.spawn(move || {
                        let own = count / threads + u64::from(thread < count % threads);
                        (0..own)
                            .map(|_| management::deploy(&mut agent, canisters::LEDGER, &[]))
                            .collect::<Result<Vec<Principal>, _>>()
                    })
                })
                .collect();
            let mut last = None;
            for thread in threads {
                let installed = thread.join().map_err(|_| BenchError::new("an installer panicked"))?;
                last = installed.map_err(BenchError::new)?.last().copied();
            }
            last.ok_or_else(|| BenchError::new("nothing was installed"))
        })?;
        let root = fetch_state_root(self.address, installed, &verifier).map_err(BenchError::new)?;
        Ok(hex::encode(root))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _dead = self.child.kill();
        let _dead = self.child.wait();
    }
}
