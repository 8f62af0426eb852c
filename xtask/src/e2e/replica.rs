//! One replica process: start, clean stop, kill.

use crate::shell::Result;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const START_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(30);

/// A replica on a state directory that outlives its processes.
pub struct Replica {
    program: PathBuf,
    folder: PathBuf,
    log: PathBuf,
    child: Child,
    port: u16,
}

impl Replica {
    /// Starts a replica on the state below `folder`; its output goes to the file `log`.
    pub fn start(program: &Path, folder: &Path, log: &Path) -> Result<Self> {
        let (child, port) = spawn(program, folder, log)?;
        let mut replica = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            log: log.to_owned(),
            child,
            port,
        };
        replica.wait_until_healthy()?;
        Ok(replica)
    }

    /// Where its HTTP interface is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Asks it to stop, checks that it does so cleanly, and starts it on the same state.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Kills it without warning and starts it on the same state.
    pub fn kill_and_restart(&mut self) -> Result<()> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map_err(|error| format!("kill: {error}"))?;
        self.start_again()
    }

    /// Asks it to stop and checks that it does so in time and with success.
    pub fn stop(&mut self) -> Result<()> {
        let asked = Command::new("kill")
            .arg("-TERM")
            .arg(self.child.id().to_string())
            .status();
        asked.map_err(|error| format!("kill: {error}"))?;
        match self.wait_for_exit()? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("the replica stopped with {status}")),
            None => Err(format!(
                "the replica did not stop within {} s of SIGTERM",
                STOP_MAX.as_secs()
            )),
        }
    }

    /// Whether the process is there and answers its status endpoint.
    pub fn check_healthy(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
            return Err(format!(
                "the replica exited with {status}, its output is in {}",
                self.log.display()
            ));
        }
        let answer = self.status().map_err(|error| format!("the status endpoint: {error}"))?;
        if answer.windows(7).any(|window| window == b"healthy") {
            Ok(())
        } else {
            Err(format!(
                "the status endpoint answered {}",
                String::from_utf8_lossy(&answer)
            ))
        }
    }

    fn start_again(&mut self) -> Result<()> {
        (self.child, self.port) = spawn(&self.program, &self.folder, &self.log)?;
        self.wait_until_healthy()
    }

    fn wait_until_healthy(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            match self.check_healthy() {
                Ok(()) => return Ok(()),
                Err(error) if started.elapsed() > START_MAX => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn wait_for_exit(&mut self) -> Result<Option<ExitStatus>> {
        let started = Instant::now();
        while started.elapsed() < STOP_MAX {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                return Ok(Some(status));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(None)
    }

    fn status(&self) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"GET /api/v2/status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // Best effort: it may have stopped already.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Starts a process and waits for the port it was given.
fn spawn(program: &Path, folder: &Path, log: &Path) -> Result<(Child, u16)> {
    let port_file = folder.join("port");
    let _absent = std::fs::remove_file(&port_file);
    let output = || -> std::io::Result<File> { OpenOptions::new().create(true).append(true).open(log) };
    let open_failed = |error| format!("{}: {error}", log.display());
    let mut child = Command::new(program)
        .arg("start")
        .arg("--state-dir")
        .arg(folder.join("state"))
        .args(["--listen", "127.0.0.1:0"])
        .arg("--port-file")
        .arg(&port_file)
        .stdin(Stdio::null())
        .stdout(output().map_err(open_failed)?)
        .stderr(output().map_err(open_failed)?)
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let started = Instant::now();
    loop {
        if let Some(port) = std::fs::read_to_string(&port_file)
            .ok()
            .and_then(|text| parse_port(&text))
        {
            return Ok((child, port));
        }
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Err(format!(
                "the replica exited with {status} at its start:\n{}",
                last_lines(log)
            ));
        }
        if started.elapsed() > START_MAX {
            let _gone = child.kill();
            return Err(format!(
                "no port file after {} s:\n{}",
                START_MAX.as_secs(),
                last_lines(log)
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The port file holds the port, or the address that ends in it, and a line feed once it is complete.
fn parse_port(text: &str) -> Option<u16> {
    let line = text.strip_suffix('\n')?;
    line.rsplit(':').next()?.trim().parse().ok()
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::parse_port;

    #[test]
    fn a_port_file_counts_once_it_is_complete() {
        assert_eq!(parse_port("4943\n"), Some(4943));
        assert_eq!(parse_port("127.0.0.1:4943\n"), Some(4943));
        assert_eq!(parse_port("49"), None);
        assert_eq!(parse_port("\n"), None);
    }
}
