//! `replicore bench`

use super::CliError;
use clap::Args;
use replicore_benches::{Effort, Figure, Machine};
use std::process::ExitCode;

/// Options of `replicore bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Figures to measure: ids, or the beginnings of ids. All where none is named.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// The whole suite within five minutes on two cores.
    #[arg(long)]
    quick: bool,
    /// Only that every measurement works.
    #[arg(long, conflicts_with = "quick")]
    smoke: bool,
    /// List the ids and measure nothing.
    #[arg(long)]
    list: bool,
}

/// Measures and prints as it goes.
pub fn run(args: &BenchArgs) -> Result<ExitCode, CliError> {
    if args.list {
        replicore_benches::ids().for_each(|id| println!("{id}"));
        return Ok(ExitCode::SUCCESS);
    }
    let effort = match (args.smoke, args.quick) {
        (true, _) => Effort::smoke(),
        (_, true) => Effort::quick(),
        _ => Effort::full(),
    };
    if !args.json {
        println!("{}", Machine::this().line());
    }
    replicore_benches::run(&args.ids, &effort, |figure| {
        if args.json {
            println!("{}", figure.to_json())
        } else {
            print(figure)
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn print(figure: &Figure) {
    let Figure {
        id,
        value,
        unit,
        low,
        high,
        runs,
        ..
    } = figure;
    println!("{id:34} {value:>12.2} {unit:4} [{low:.2} .. {high:.2}] {runs} runs");
}
