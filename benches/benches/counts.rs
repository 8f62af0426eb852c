//! Counts the cost of the paths of [`replicore_benches::counts`] and compares them with those that are committed.
//!
//! ```console
//! $ cargo test -p replicore-benches --bench counts                   # compare; this is a stage of CI
//! $ REPLICORE_COUNTS=write cargo test -p replicore-benches --bench counts
//! $ cargo test -p replicore-benches --bench counts -- engine.noop    # some paths
//! ```
//! Allocations, page faults, and reads and writes with their bytes are counted by this process for its own thread.
//! Instructions and system calls are counted by valgrind, which runs this program again and is told where the steps of each
//! path begin and end. Without valgrind those two are left out, and the output says so. Instructions under valgrind depend on the compiler and on what the processor is able to do, so that
//! they are compared only where those are the same as when they were written down; everything else is compared always.

use replicore_benches::counts::{PATHS, Path, Step};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

type Failed = Box<dyn std::error::Error>;
/// Counts of one operation by name.
type Counts = BTreeMap<&'static str, f64>;

/// What is counted, and how far above the committed count it may be: a share of it, and an amount per operation.
const KINDS: [(&str, f64, f64); 8] = [
    ("allocations", 0.02, 0.1),
    ("allocated_bytes", 0.10, 64.0),
    ("page_faults", 0.25, 1.0),
    ("reads_and_writes", 0.10, 0.1),
    ("read_bytes", 0.10, 64.0),
    ("written_bytes", 0.05, 64.0),
    ("instructions", 0.05, 20.0),
    ("system_calls", 0.10, 0.2),
];

/// Counted by valgrind.
const BY_VALGRIND: [&str; 2] = ["instructions", "system_calls"];

/// Runs the steps of the paths that follow and nothing else: what valgrind is given.
const STEPS_FLAG: &str = "--steps";
/// Of the steps of a path this part is taken under valgrind, which is some fifty times as slow.
const VALGRIND_PART: u64 = 4;
/// Files that do not exist, see [`take_steps`].
const MARK: &str = "/replicore-counts/";
const BEGIN: &str = "begin";
const END: &str = "end";

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("counts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, names @ ..] = &arguments[..]
        && flag == STEPS_FLAG
    {
        return take_steps(names).map(|()| true);
    }
    let wanted: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let is_wanted = |path: &&Path| wanted.is_empty() || wanted.iter().any(|name| path.name.starts_with(name.as_str()));
    let valgrind = valgrind_version();
    let stamp = stamp(valgrind.as_deref());
    println!("{stamp}");
    let committed: Map<String, Value> = serde_json::from_str(&fs::read_to_string(file())?)?;
    let same_machine = committed.get("instructions_on") == Some(&json!(stamp));
    if valgrind.is_none() {
        println!("instructions and system calls left out: valgrind is not installed");
    } else if !same_machine {
        println!("instructions are shown and not compared: they were written down elsewhere");
    }
    let paths: Vec<&Path> = PATHS.iter().filter(is_wanted).collect();
    let by_valgrind = match valgrind {
        Some(_) => valgrind_counts(&paths)?,
        None => vec![Counts::new(); paths.len()],
    };
    let mut written = committed.clone();
    let mut worse = Vec::new();
    for (path, by_valgrind) in paths.into_iter().zip(by_valgrind) {
        let mut counts = own_counts(path)?;
        counts.extend(by_valgrind);
        let known = committed.get(path.name);
        println!("\n{} ({})", path.name, path.about);
        for (kind, share, amount) in KINDS {
            let Some(count) = counts.get(kind).copied() else {
                continue;
            };
            let before = known.and_then(|known| known.get(kind)).and_then(Value::as_f64);
            let is_compared = kind != "instructions" || same_machine;
            let is_worse = is_compared && before.is_some_and(|before| count > before * (1.0 + share) + amount);
            let note = match before {
                None => "not written down".to_owned(),
                Some(before) if is_worse => format!("{before:.2}  MORE"),
                Some(before) => format!("{before:.2}"),
            };
            println!("  {kind:18} {count:>14.2}  committed {note}");
            if is_worse {
                worse.push(format!("{} {kind}", path.name));
            }
        }
        let rounded = counts
            .iter()
            .map(|(kind, count)| ((*kind).to_owned(), json!((count * 100.0).round() / 100.0)));
        written.insert(path.name.to_owned(), Value::Object(rounded.collect()));
    }
    if std::env::var_os("REPLICORE_COUNTS").is_some_and(|value| value == "write") {
        written.insert("instructions_on".to_owned(), json!(stamp));
        fs::write(file(), serde_json::to_string_pretty(&written)? + "\n")?;
        println!("\nwrote {}", file().display());
        return Ok(true);
    }
    if !worse.is_empty() {
        println!("\nmore than committed: {}", worse.join(", "));
        println!("where that is meant: REPLICORE_COUNTS=write cargo test -p replicore-benches --bench counts");
    }
    Ok(worse.is_empty())
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("counts.json")
}

/// What this thread counts of itself.
fn own_counts(path: &Path) -> Result<Counts, Failed> {
    let mut step = (path.prepare)()?;
    for _ in 0..path.steps {
        step()?;
    }
    // Reading the kernel's counts costs reads itself.
    let (idle, before) = (Kernel::read()?, Kernel::read()?);
    let reading = before.since(idle);
    let mut result = Ok(());
    let allocations = allocation_counter::measure(|| {
        result = (0..path.steps).try_for_each(|_| step());
    });
    let seen = Kernel::read()?.since(before).since(reading);
    result?;
    let operations = (path.steps * path.operations) as f64;
    let each = |count: u64| count as f64 / operations;
    Ok(BTreeMap::from([
        ("allocations", each(allocations.count_total)),
        ("allocated_bytes", each(allocations.bytes_total)),
        ("page_faults", each(seen.faults)),
        ("reads_and_writes", each(seen.calls)),
        ("read_bytes", each(seen.read_bytes)),
        ("written_bytes", each(seen.written_bytes)),
    ]))
}

/// What the kernel counts for this thread.
#[derive(Clone, Copy, Default)]
struct Kernel {
    faults: u64,
    calls: u64,
    read_bytes: u64,
    written_bytes: u64,
}

impl Kernel {
    /// What was added since `before`; nothing below zero, where reading once took more than reading before.
    fn since(self, before: Self) -> Self {
        Self {
            faults: self.faults.saturating_sub(before.faults),
            calls: self.calls.saturating_sub(before.calls),
            read_bytes: self.read_bytes.saturating_sub(before.read_bytes),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }

    fn read() -> Result<Self, Failed> {
        let stat = fs::read_to_string("/proc/thread-self/stat")?;
        // Behind the name, which may hold anything: state, ten numbers up to the faults.
        let faults = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(7));
        let io = fs::read_to_string("/proc/thread-self/io")?;
        let field = |name: &str| {
            let line = io.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        Ok(Self {
            faults: faults.ok_or("no faults in the kernel's statistics")?.parse()?,
            calls: field("syscr:") + field("syscw:"),
            read_bytes: field("rchar:"),
            written_bytes: field("wchar:"),
        })
    }
}

fn valgrind_version() -> Option<String> {
    let output = Command::new("valgrind").arg("--version").output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| version.trim().to_owned())
}

/// What instruction counts depend on.
fn stamp(valgrind: Option<&str>) -> String {
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok();
        output
            .and_then(|output| String::from_utf8(output.stdout).ok())
            .unwrap_or_default()
    };
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpu.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let able: Vec<&str> = ["avx2", "sha_ni", "avx512f"]
        .into_iter()
        .filter(|flag| has(flag))
        .collect();
    format!(
        "{}, {}, {}",
        version("rustc").trim(),
        valgrind.unwrap_or("no valgrind"),
        able.join(" ")
    )
}

/// Runs the steps of some paths under valgrind and tells it where those of each begin and end.
fn take_steps(names: &[String]) -> Result<(), Failed> {
    for name in names {
        let path = PATHS.iter().find(|path| path.name == name.as_str());
        let path = path.ok_or_else(|| format!("no path is called {name}"))?;
        let mut step = (path.prepare)()?;
        let steps = path.steps.div_ceil(VALGRIND_PART);
        counted_warm_up(&mut step, steps)?;
        // A file that does not exist is looked for: a line in the trace of system calls.
        let mark = |what| drop(fs::metadata(format!("{MARK}{what}")));
        mark(BEGIN);
        counted_steps(&mut step, steps)?;
        mark(END);
    }
    Ok(())
}

fn counted_warm_up(step: &mut Step, steps: u64) -> Result<(), Failed> {
    (0..steps).try_for_each(|_| step()).map_err(Failed::from)
}

/// A function of its own, by whose name callgrind knows it.
#[inline(never)]
fn counted_steps(step: &mut Step, steps: u64) -> Result<(), Failed> {
    for _ in 0..steps {
        step()?;
    }
    Ok(())
}

/// Instructions and system calls of the main thread, which takes the steps, for each of these paths.
fn valgrind_counts(paths: &[&Path]) -> Result<Vec<Counts>, Failed> {
    let folder = tempfile::tempdir()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes", "--trace-syscalls=yes"])
        .args([
            "--zero-before=counts::counted_steps",
            "--dump-after=counts::counted_steps",
        ])
        .arg(format!(
            "--callgrind-out-file={}",
            folder.path().join("callgrind").display()
        ))
        .arg(std::env::current_exe()?)
        .arg(STEPS_FLAG)
        .args(paths.iter().map(|path| path.name))
        .stdin(Stdio::null())
        .output()?;
    // The trace is not always text: it shows arguments.
    let trace = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let end: Vec<&str> = trace.lines().rev().take(5).collect();
        return Err(format!("under valgrind: {}: {end:?}", output.status).into());
    }
    let calls = calls_between_marks(&trace);
    if calls.len() != paths.len() {
        return Err(format!(
            "{} of {} paths are in the trace of system calls",
            calls.len(),
            paths.len()
        )
        .into());
    }
    let counted = paths.iter().zip(calls).enumerate();
    counted
        .map(|(number, (path, calls))| {
            let profile = folder.path().join(format!("callgrind.{}-01", number + 1));
            let profile = fs::read_to_string(&profile).map_err(|error| format!("{}: {error}", profile.display()))?;
            let instructions = profile.lines().find_map(|line| line.strip_prefix("totals: "));
            let instructions: u64 = instructions
                .ok_or("no totals in what callgrind wrote")?
                .trim()
                .parse()?;
            let operations = (path.steps.div_ceil(VALGRIND_PART) * path.operations) as f64;
            Ok(BTreeMap::from([
                (BY_VALGRIND[0], instructions as f64 / operations),
                (BY_VALGRIND[1], calls as f64 / operations),
            ]))
        })
        .collect()
}

/// System calls of the main thread between the marks of each path. A line is
/// `SYSCALL[process,thread](number) name(arguments)`; the outcome of one that waited is a line of its own.
fn calls_between_marks(trace: &str) -> Vec<u64> {
    let is_call = |line: &&str| line.contains("SYSCALL[") && line.contains(",1](") && !line.contains(") ... ");
    let mut counts = Vec::new();
    let mut count = None;
    for line in trace.lines().filter(is_call) {
        if line.contains(&format!("{MARK}{BEGIN}")) {
            count = Some(0);
        } else if line.contains(&format!("{MARK}{END}")) {
            counts.extend(count.take());
        } else if let Some(count) = &mut count {
            *count += 1;
        }
    }
    counts
}
