//! `cargo xtask bench-compare REV [ID]...`: this tree against another revision, run in turn on this machine.
//!
//! Two runs an hour apart differ by what else the machine did. Here both programs are built first and then take turns, so that
//! what disturbs one disturbs the other; what is printed is the ratio of the medians over all turns, with the range of the
//! ratios of single turns.

use crate::shell::{self, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Arguments of the command.
#[derive(clap::Args)]
pub struct Options {
    /// The revision to compare with.
    revision: String,
    /// Figures: ids, or the beginnings of ids. All where none is named.
    ids: Vec<String>,
    /// Turns of each.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// Build in the dev profile: quicker to build, for ratios that do not depend on optimisation.
    #[arg(long)]
    dev: bool,
}

/// Values of one figure, turn by turn.
type Values = BTreeMap<String, Vec<f64>>;

/// Builds both, runs them in turn, prints the ratios.
pub fn run(options: &Options) -> Result<()> {
    if options.turns == 0 {
        return Err("--turns must be positive".into());
    }
    let other = checkout(&options.revision)?;
    let programs = [build(&other, options.dev)?, build(&shell::root(), options.dev)?];
    let mut values = [Values::new(), Values::new()];
    for turn in 1..=options.turns {
        println!("turn {turn} of {}", options.turns);
        for (program, values) in programs.iter().zip(&mut values) {
            measure(program, &options.ids, values)?;
        }
    }
    let [before, after] = values;
    println!(
        "{:38} {:>12} {:>12} {:>8}   single turns",
        "figure", "before", "after", "ratio"
    );
    for (id, after) in &after {
        match before.get(id) {
            Some(before) => println!("{}", line(id, before, after)),
            None => println!("{id:38} {:>12} {:>12.3}", "-", median(after)),
        }
    }
    Ok(())
}

/// The revision in a work tree of its own, kept for the next time.
fn checkout(revision: &str) -> Result<PathBuf> {
    let folder = shell::scratch("bench-compare")?.join("tree");
    let commit = shell::capture(
        Command::new("git")
            .args(["rev-parse", "--verify"])
            .arg(format!("{revision}^{{commit}}"))
            .current_dir(shell::root()),
    )?;
    if folder.join(".git").exists() {
        shell::run(
            Command::new("git")
                .args(["checkout", "--quiet", "--detach", commit.trim()])
                .current_dir(&folder),
        )?;
    } else {
        let mut add = Command::new("git");
        add.args(["worktree", "add", "--quiet", "--force", "--detach"])
            .arg(&folder)
            .arg(commit.trim());
        shell::run(add.current_dir(shell::root()))?;
    }
    Ok(folder)
}

/// Each tree has a target directory of its own, so that the two programs stay beside one another.
fn build(tree: &Path, dev: bool) -> Result<PathBuf> {
    println!("building {}", tree.display());
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--quiet", "--package", "replicore-cli", "--bin", "replicore"]);
    if !dev {
        command.arg("--release");
    }
    shell::run_shown(command.current_dir(tree).env("CARGO_TARGET_DIR", tree.join("target")))?;
    let profile = if dev { "debug" } else { "release" };
    Ok(tree.join("target").join(profile).join("replicore"))
}

fn measure(program: &Path, ids: &[String], values: &mut Values) -> Result<()> {
    let output = shell::capture(Command::new(program).args(["bench", "--json", "--quick"]).args(ids))?;
    for line in output.lines() {
        let figure: Value = serde_json::from_str(line).map_err(|error| format!("{line}: {error}"))?;
        if let (Some(id), Some(value)) = (figure["id"].as_str(), figure["value"].as_f64()) {
            values.entry(id.to_owned()).or_default().push(value);
        }
    }
    Ok(())
}

fn line(id: &str, before: &[f64], after: &[f64]) -> String {
    let ratios: Vec<f64> = before.iter().zip(after).map(|(before, after)| after / before).collect();
    let (low, high) = ratios.iter().fold((f64::MAX, f64::MIN), |(low, high), ratio| {
        (low.min(*ratio), high.max(*ratio))
    });
    let (before, after) = (median(before), median(after));
    format!(
        "{id:38} {before:>12.3} {after:>12.3} {:>8.3}   {low:.3} .. {high:.3}",
        after / before
    )
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_the_medians_with_the_range_of_the_turns() {
        let line = line("x", &[1.0, 2.0, 4.0], &[1.0, 1.0, 8.0]);
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, ["x", "2.000", "1.000", "0.500", "0.500", "..", "2.000"]);
        assert_eq!(median(&[3.0, 1.0]), 2.0);
    }
}
