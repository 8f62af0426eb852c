//! Commands whose output nobody reads to the end.

use std::process::{Command, Output, Stdio};

/// Runs the program; whoever reads its output has gone before it began, that of its errors too where `deaf` says so.
fn without_reader(arguments: &[&str], deaf: bool) -> Output {
    let gone = || Stdio::from(std::io::pipe().unwrap().1);
    let mut command = Command::new(env!("CARGO_BIN_EXE_replicore"));
    command.args(arguments).stdout(gone());
    command.stderr(if deaf { gone() } else { Stdio::piped() });
    command.spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn commands_end_quietly_when_their_reader_is_gone() {
    for command in [
        "bench --list",
        "bench --smoke harness.noop_ns",
        "bench --smoke --json harness.noop_ns",
        "config --show",
        "doctor",
        "load --list",
    ] {
        let arguments: Vec<_> = command.split(' ').collect();
        let output = without_reader(&arguments, false);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(141), "{command}: {said}");
        assert!(!said.contains("panicked"), "{command}: {said}");
    }
}

#[test]
fn an_error_that_nobody_hears_keeps_its_exit_code() {
    for deaf in [false, true] {
        let output = without_reader(&["inspect", "no-such-directory"], deaf);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
}
