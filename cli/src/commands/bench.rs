//! `replicore bench`

use super::{CliError, WithoutArgs};
use clap::Args;
use replicore_benches::ablation::{self, Variant, Worth};
use replicore_benches::baseline::{self, Baseline, Verdict};
use replicore_benches::report::Page;
use replicore_benches::{Effort, Figure, Machine, Report, replicas};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Options of `replicore bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Figures to measure: ids, or the beginnings of ids. All where none is named.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// One JSON object a line on standard output; everything else goes to standard error.
    #[arg(long)]
    json: bool,
    /// The whole suite within five minutes on two cores.
    #[arg(long)]
    quick: bool,
    /// Only that every measurement works.
    #[arg(long, conflicts_with = "quick")]
    smoke: bool,
    /// Compare with the figures of this file, as `--save` or `--json` wrote them; the exit code is non-zero if one is worse
    /// beyond noise.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Compare although the baseline was taken on another machine or with another build profile.
    #[arg(long, requires = "baseline")]
    any_machine: bool,
    /// Write the machine's stamp and the figures to this file.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Write a report with plots to this file, which needs nothing else to be looked at.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// What each mechanism is worth: modelled applications on replicas that lack one of them, beside replicas that have
    /// all, and on one that lacks all. Measures no figure unless some are named.
    #[arg(long)]
    ablation: bool,
    /// With --ablation: the applications (`replicore load --list` names them), separated by commas.
    #[arg(long, value_name = "NAME", value_delimiter = ',', requires = "ablation")]
    workload: Vec<String>,
    /// Replicas to be measured go without these; figures of single layers stay as they are. With --ablation: only these
    /// mechanisms, each by itself.
    #[command(flatten)]
    without: WithoutArgs,
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
    let machine = Machine::this();
    let mut printer = Printer {
        json: args.json,
        baseline: args.baseline.as_deref().map(Baseline::load).transpose()?,
        figures: Vec::new(),
        left_out: Vec::new(),
        worse: Vec::new(),
    };
    printer.say(&machine.line());
    check_machine(args, printer.baseline.as_ref(), &machine)?;
    let mut worth = Vec::new();
    if args.ablation {
        ablate(args, &effort, &printer, &mut worth)?;
    } else {
        replicas::go_without(args.without.mechanisms());
    }
    if !args.ablation || !args.ids.is_empty() {
        replicore_benches::run(&args.ids, &effort, &mut printer)?;
    }
    if let Some(path) = &args.save {
        let mut file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
        writeln!(file, "{}", baseline::stamp_line(&machine))?;
        for figure in &printer.figures {
            writeln!(file, "{}", figure.to_json())?;
        }
    }
    if let Some(path) = &args.html {
        let page = Page {
            machine: &machine,
            figures: &printer.figures,
            left_out: &printer.left_out,
            baseline: printer.baseline.as_ref(),
            ablation: &worth,
        };
        std::fs::write(path, page.html()?).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if printer.worse.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("worse than the baseline beyond noise: {}", printer.worse.join(", "));
    Ok(ExitCode::FAILURE)
}

/// Measures what mechanisms are worth, a table for each application.
fn ablate(args: &BenchArgs, effort: &Effort, printer: &Printer, worth: &mut Vec<Worth>) -> Result<(), CliError> {
    let named = args.without.mechanisms();
    let is_wanted = |variant: &Variant| named.is_empty() || variant.without.iter().any(|one| named.contains(one));
    let variants: Vec<Variant> = Variant::all().into_iter().filter(is_wanted).collect();
    ablation::run(&args.workload, &variants, effort, |table| {
        if let Some(first) = table.first() {
            printer.say(&format!(
                "\n{} (ratios to a replica with everything)\n{}",
                first.workload,
                Worth::head()
            ));
        }
        for line in table {
            printer.say(&line.line());
            if args.json {
                println!("{}", line.to_json());
            }
        }
        worth.extend_from_slice(table);
    })?;
    Ok(())
}

fn check_machine(args: &BenchArgs, baseline: Option<&Baseline>, machine: &Machine) -> Result<(), CliError> {
    let Some(stamp) = baseline.and_then(Baseline::machine) else {
        return Ok(());
    };
    if args.any_machine || stamp.is_comparable(machine) {
        return Ok(());
    }
    let other = stamp.line();
    Err(format!("the baseline was taken elsewhere ({other}); --any-machine compares nevertheless").into())
}

/// Prints figures as they come and remembers them.
struct Printer {
    json: bool,
    baseline: Option<Baseline>,
    figures: Vec<Figure>,
    left_out: Vec<(String, String)>,
    worse: Vec<&'static str>,
}

impl Printer {
    /// For people: standard output belongs to the figures where they are JSON.
    fn say(&self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }
}

impl Report for Printer {
    fn figure(&mut self, figure: &Figure) {
        let verdict = self.baseline.as_ref().map(|baseline| baseline.judge(figure));
        if let Some(Verdict::Worse(_)) = verdict {
            self.worse.push(figure.id);
        }
        if self.json {
            println!("{}", figure.to_json());
        }
        if !self.json || verdict.is_some() {
            self.say(&line(figure, verdict));
        }
        self.figures.push(figure.clone());
    }

    fn left_out(&mut self, ids: &[&str], why: &str) {
        self.say(&format!("{}: left out: {why}", ids.join(", ")));
        let why = || why.to_owned();
        self.left_out.extend(ids.iter().map(|id| ((*id).to_owned(), why())));
    }

    fn overran(&mut self, ids: &[&str], elapsed: Duration, share: Duration) {
        if !self.json && share > Duration::from_secs(1) {
            eprintln!(
                "{}: took {:.1} s of its {:.1} s",
                ids.join(", "),
                elapsed.as_secs_f64(),
                share.as_secs_f64()
            );
        }
    }
}

fn line(figure: &Figure, verdict: Option<Verdict>) -> String {
    let Figure {
        id,
        value,
        unit,
        low,
        high,
        runs,
        against,
        ..
    } = figure;
    let mut text = format!("{id:38} {value:>12.2} {unit:4} [{low:.2} .. {high:.2}] {runs} runs");
    for (name, other) in against {
        text += &format!("; {name} {other:.2}");
    }
    match verdict {
        Some(Verdict::New) => text += "; not in the baseline",
        Some(Verdict::Same(ratio)) => text += &format!("; {ratio:.2} of the baseline"),
        Some(Verdict::Better(ratio)) => text += &format!("; {ratio:.2} of the baseline: better"),
        Some(Verdict::Worse(ratio)) => text += &format!("; {ratio:.2} of the baseline: WORSE"),
        None => {}
    }
    text
}
