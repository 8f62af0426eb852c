//! One client program: what it prints, what it asks for, and how long it may take.
//!
//! A line `ok ...` or `FAIL ...` is the result of a step. `@restart` and `@kill MILLISECONDS` ask for a restart of the replica,
//! by SIGTERM or by SIGKILL after that time; the answer on the program's standard input is the new URL. Other lines are shown.

use super::replica::Replica;
use crate::shell::{self, Result};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// A program that is ready to run.
pub struct Client {
    /// Its name in the output.
    pub name: &'static str,
    /// The program and what comes before the URL.
    pub command: Command,
    /// What comes after the URL.
    pub arguments: Vec<String>,
    /// When it is killed, in seconds.
    pub seconds_max: u64,
}

/// What came of one client.
#[derive(Default)]
pub struct Outcome {
    /// Steps that went well.
    pub passed: usize,
    /// The others, with their reasons.
    pub failed: Vec<String>,
    /// How long it took, in seconds.
    pub seconds: u64,
}

impl Outcome {
    /// No step failed, and there were some.
    pub fn is_success(&self) -> bool {
        self.failed.is_empty() && self.passed > 0
    }
}

impl Client {
    /// Runs the program against a fresh replica.
    pub fn run(self, program: &Path) -> Outcome {
        let started = Instant::now();
        let mut outcome = Outcome::default();
        let name = self.name;
        if let Err(error) = self.drive(program, &mut outcome) {
            println!("[{name}] FAIL {error}");
            outcome.failed.push(error);
        }
        outcome.seconds = started.elapsed().as_secs();
        outcome
    }

    fn drive(mut self, program: &Path, outcome: &mut Outcome) -> Result<()> {
        let folder = tempfile::Builder::new()
            .prefix("replicore-e2e-")
            .tempdir()
            .map_err(|error| error.to_string())?;
        let log = shell::scratch("logs")?.join(format!("{}.log", self.name));
        let _absent = std::fs::remove_file(&log);
        let mut replica = Replica::start(program, folder.path(), &log)?;

        let mut child = self
            .command
            .arg(replica.url())
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", self.name))?;
        let result = self.serve(&mut child, &mut replica, outcome);
        let _gone = child.kill();
        let status = child.wait().map_err(|error| error.to_string())?;
        result?;
        if !status.success() && outcome.failed.is_empty() {
            return Err(format!("the client exited with {status}"));
        }
        replica.check_healthy()?;
        replica.stop()
    }

    /// Handles the program's lines until it closes its output.
    fn serve(&self, child: &mut Child, replica: &mut Replica, outcome: &mut Outcome) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(self.seconds_max);
        let mut input = child.stdin.take().expect("standard input is piped");
        let output = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(std::io::Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) => {
                    println!("[{}] {line}", self.name);
                    handle(&line, replica, &mut input, outcome)?;
                }
                Err(RecvTimeoutError::Timeout) => return Err(format!("not done after {} s", self.seconds_max)),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // Its output is closed, so it is about to exit; what it exits with is part of the verdict.
        while Instant::now() < deadline && child.try_wait().is_ok_and(|status| status.is_none()) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

fn handle(line: &str, replica: &mut Replica, input: &mut ChildStdin, outcome: &mut Outcome) -> Result<()> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "ok" => outcome.passed += 1,
        "FAIL" => outcome.failed.push(rest.to_owned()),
        "@restart" => {
            replica.restart()?;
            answer(input, &replica.url())?;
        }
        "@kill" => {
            let milliseconds = rest
                .parse()
                .map_err(|_| format!("not a number of milliseconds: {rest}"))?;
            std::thread::sleep(Duration::from_millis(milliseconds));
            replica.kill_and_restart()?;
            answer(input, &replica.url())?;
        }
        _ => {}
    }
    Ok(())
}

fn answer(input: &mut ChildStdin, url: &str) -> Result<()> {
    writeln!(input, "{url}")
        .and_then(|()| input.flush())
        .map_err(|error| format!("the client went away: {error}"))
}
