//! Puts the revision that the program is built from into it, for the stamp of figures.

use std::process::Command;

const SOURCES: [&str; 8] = [
    "types",
    "persistence",
    "engine",
    "scheduler",
    "netstack",
    "replica",
    "workloads",
    "benches",
];

fn main() {
    // The log of HEAD changes with every commit and checkout; the path differs in worktrees.
    if let Some(log) = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    // Whether the tree differs from the revision may change with any source; whatever they change compiles us again anyway.
    for folder in SOURCES {
        println!("cargo::rerun-if-changed=../{folder}/src");
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|files| !files.is_empty());
    println!(
        "cargo::rustc-env=REPLICORE_COMMIT={commit}{}",
        if changed { "+" } else { "" }
    );
}

/// What git answers; nothing where there is no git or no repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
