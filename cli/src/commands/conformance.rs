//! `replicore conformance`

use super::CliError;
use clap::Args;
use replicore::conformance::{CaseResult, run_file};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Options of `replicore conformance`.
#[derive(Debug, Args)]
pub struct ConformanceArgs {
    /// Transcript files, or directories of them.
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// One JSON object a case instead of text.
    #[arg(long)]
    json: bool,
    /// Only cases whose name contains this.
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Names of cases that are known to fail, one a line, `#` for comments. The run then fails if any other case fails,
    /// or if one of these passes: the list only gets shorter.
    #[arg(long, value_name = "FILE")]
    known: Option<PathBuf>,
    /// Every difference of a failing case, not only the first.
    #[arg(long)]
    all: bool,
}

/// Runs the transcripts; the exit code is non-zero when one fails or none was found.
pub fn run(args: &ConformanceArgs) -> Result<ExitCode, CliError> {
    let files = transcripts(&args.paths)?;
    let known = known_failures(args.known.as_deref())?;
    let (mut passed, mut failed, mut surprises) = (0, 0, Vec::new());
    for file in &files {
        let name = file
            .file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
            .unwrap_or_default();
        if args
            .filter
            .as_ref()
            .is_some_and(|filter| !name.contains(filter.as_str()))
        {
            continue;
        }
        let result = run_file(file);
        let passes = result.differences.is_empty();
        if passes {
            passed += 1;
        } else {
            failed += 1;
        }
        if passes == known.contains(&name) {
            surprises.push(name.clone());
        }
        if args.json {
            print_json(&name, &result)
        } else {
            print_text(&name, &result, args.all)
        }
    }
    if args.json {
        println!("{}", serde_json::json!({ "passed": passed, "failed": failed }));
    } else {
        println!("{passed} passed, {failed} failed");
    }
    if passed + failed == 0 {
        return Err("no transcript matches: give a directory of *.json transcripts and check --filter".into());
    }
    if args.known.is_some() && !surprises.is_empty() {
        println!("not as the list of known failures says: {}", surprises.join(", "));
    }
    Ok(if surprises.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn known_failures(file: Option<&Path>) -> Result<BTreeSet<String>, CliError> {
    let Some(file) = file else { return Ok(BTreeSet::new()) };
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let names = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(names.filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn print_text(name: &str, result: &CaseResult, all: bool) {
    if result.differences.is_empty() {
        println!("pass {name} ({} steps)", result.steps);
        return;
    }
    println!("FAIL {name}: {}", result.differences[0]);
    if all {
        result.differences[1..]
            .iter()
            .for_each(|difference| println!("     {difference}"));
    }
}

fn print_json(name: &str, result: &CaseResult) {
    let line = serde_json::json!({
        "case": name,
        "steps": result.steps,
        "pass": result.differences.is_empty(),
        "differences": result.differences,
    });
    println!("{line}");
}

/// The files named, and the `*.json` files of the directories named, in order.
fn transcripts(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let mut found = json_files(path)?;
            found.sort();
            files.extend(found);
        } else if path.is_file() {
            files.push(path.clone());
        } else {
            return Err(format!("{} is neither a file nor a directory", path.display()).into());
        }
    }
    Ok(files)
}

fn json_files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect())
}
