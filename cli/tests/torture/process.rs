//! A replica in a process of its own, and the commands for its directory at rest.

use replicore_workloads::agent::fetch_root_key;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Checkpoints come so often that kills meet them in every phase; by default a test of this length would see none.
const CONFIGURATION: &str = "[checkpoints]\ninterval_rounds = 40\n";

/// Where there is a file of this name beside the state directory, that is encrypted.
pub const KEY_FILE: &str = "key";

/// A replica in a process of its own.
pub struct Process {
    pub child: Child,
    pub address: SocketAddr,
}

impl Process {
    /// Starts and waits until it answers.
    pub fn start(folder: &Path) -> Self {
        let port_file = folder.join("port");
        let mut child = command(folder).arg("--port-file").arg(&port_file).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        // A file that a kill has left names the old port until the new process has the directory.
        let address = loop {
            assert!(Instant::now() < deadline, "not ready within a minute");
            assert!(
                child.try_wait().unwrap().is_none(),
                "the replica ended while it started"
            );
            let port = std::fs::read_to_string(&port_file).ok();
            if let Some(port) = port.and_then(|text| text.trim().parse::<u16>().ok()) {
                let address = SocketAddr::from(([127, 0, 0, 1], port));
                if fetch_root_key(address).is_ok() {
                    break address;
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        Self { child, address }
    }

    /// SIGKILL while it starts: before it has opened its directory, while it replays, or just after it got ready.
    pub fn kill_at_start(folder: &Path, moment: Duration) {
        let mut child = command(folder).spawn().unwrap();
        std::thread::sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how the process ended.
    pub fn terminate(mut self) -> (Option<i32>, Duration) {
        let start = Instant::now();
        let sent = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
        (self.child.wait().unwrap().code(), start.elapsed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Where a test failed; otherwise the process is gone by now.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// `replicore start` on the state directory in `folder`, with the configuration of this test.
pub fn command(folder: &Path) -> Command {
    let configuration = folder.join("torture.toml");
    std::fs::write(&configuration, CONFIGURATION).unwrap();
    let mut command = command_with(folder, &configuration);
    let key = folder.join(KEY_FILE);
    if key.exists() {
        command.arg("--encryption-key").arg(key);
    }
    command
}

/// The same with another configuration.
pub fn command_with(folder: &Path, configuration: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_replicore"));
    command
        .args(["start", "--listen", "127.0.0.1:0", "--cores", "2", "--config"])
        .arg(configuration)
        .arg("--state-dir")
        .arg(folder.join("state"))
        .env("RUST_LOG", "warn")
        .stdout(Stdio::null());
    command
}

/// Has replicas in this folder encrypt their directory, with a key of its own for each digit.
pub fn write_key(folder: &Path, name: &str, digit: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, digit.repeat(64)).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// A command on a state directory that no replica works on, with the key in its folder where there is one.
pub fn offline(arguments: &[&str], state: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_replicore"));
    let key = state.with_file_name(KEY_FILE);
    if key.exists() {
        command.args(&arguments[..1]).arg("--encryption-key").arg(key);
        command.args(&arguments[1..]);
    } else {
        command.args(arguments);
    }
    command.arg(state).env("RUST_LOG", "warn").output().unwrap()
}

pub fn stdout_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
