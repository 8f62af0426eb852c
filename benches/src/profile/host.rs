//! What a process costs its host, by stage: a stage is a thread or a group of threads, as the replica names them.
//!
//! Everything comes from counters that the kernel keeps anyway (`/proc`), so that watching costs the watched process
//! nothing. Cache and TLB misses need performance counters, which many virtual machines lack: then the report says so and
//! shows what the kernel counts instead.

use crate::BenchError;
use perf_event::events::{Cache, CacheId, CacheOp, CacheResult, Event, Hardware};
use perf_event::{Builder, Counter};
use replicore_types::Lock;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Counters of a thread, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// On a core, in nanoseconds.
    pub cpu_nanos: u64,
    /// Ready to run and without a core, in nanoseconds.
    pub wait_nanos: u64,
    /// Waited of its own accord: for work, for a lock, for the disk.
    pub voluntary_switches: u64,
    /// Was taken off its core.
    pub involuntary_switches: u64,
    /// Page faults answered from memory.
    pub minor_faults: u64,
    /// Page faults that read from a disk.
    pub major_faults: u64,
}

impl Usage {
    fn plus(self, other: Self) -> Self {
        self.with(other, u64::wrapping_add)
    }

    /// What was added since `before`.
    fn since(self, before: Self) -> Self {
        self.with(before, u64::saturating_sub)
    }

    fn with(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            cpu_nanos: with(self.cpu_nanos, other.cpu_nanos),
            wait_nanos: with(self.wait_nanos, other.wait_nanos),
            voluntary_switches: with(self.voluntary_switches, other.voluntary_switches),
            involuntary_switches: with(self.involuntary_switches, other.involuntary_switches),
            minor_faults: with(self.minor_faults, other.minor_faults),
            major_faults: with(self.major_faults, other.major_faults),
        }
    }
}

/// What was watched.
#[derive(Clone, Debug)]
pub struct HostProfile {
    /// For how long.
    pub elapsed: Duration,
    /// By stage: threads whose names differ in a number only are one.
    pub stages: BTreeMap<String, Usage>,
    /// For every core of the host, the part of the time in which it had nothing to do.
    pub idle: Vec<f64>,
    /// Bytes written to storage, and system calls that wrote.
    pub written: (u64, u64),
    /// How often threads found a lock taken, by lock; of this process alone, see [`Lock`].
    pub locks: Option<Vec<(&'static str, u64)>>,
    /// By performance counters, user code alone: name and count.
    pub hardware: Vec<(&'static str, u64)>,
    /// Why there are none of the others.
    pub without_hardware: Option<String>,
}

/// A process under watch.
pub struct Watch {
    folder: PathBuf,
    start: Instant,
    threads: BTreeMap<u64, (String, Usage)>,
    cores: Vec<(u64, u64)>,
    written: (u64, u64),
    locks: Option<Vec<u64>>,
    counters: Counters,
}

/// Performance counters of this process.
pub struct Counters {
    open: Vec<(&'static str, Counter)>,
    /// Their values when the watch began.
    before: Vec<u64>,
    /// Why there are none of the others.
    refused: Option<String>,
}

impl Watch {
    /// Watches a process, this one where none is named, with performance counters if it was started with any.
    ///
    /// # Errors
    /// There is no such process.
    pub fn begin(process: Option<u32>, counters: Option<Counters>) -> Result<Self, BenchError> {
        let folder = match process {
            Some(id) => PathBuf::from(format!("/proc/{id}")),
            None => PathBuf::from("/proc/self"),
        };
        let mut counters = counters.unwrap_or_else(|| Counters {
            open: Vec::new(),
            before: Vec::new(),
            refused: Some("only a process that is started for the purpose has them".to_owned()),
        });
        counters.before = counters.read();
        Ok(Self {
            threads: threads(&folder)?,
            cores: cores(&fs::read_to_string("/proc/stat").unwrap_or_default()),
            written: written(&fs::read_to_string(folder.join("io")).unwrap_or_default()),
            locks: process.is_none().then(found_taken),
            folder,
            start: Instant::now(),
            counters,
        })
    }

    /// Ends the watch. Threads that ended before it are not in it.
    ///
    /// # Errors
    /// The process is gone.
    pub fn end(mut self) -> Result<HostProfile, BenchError> {
        let elapsed = self.start.elapsed();
        let mut stages: BTreeMap<String, Usage> = BTreeMap::new();
        for (id, (name, usage)) in threads(&self.folder)? {
            let before = self.threads.get(&id).map_or(Usage::default(), |(_, usage)| *usage);
            let stage = stages.entry(stage(&name)).or_default();
            *stage = stage.plus(usage.since(before));
        }
        let cores = cores(&fs::read_to_string("/proc/stat").unwrap_or_default());
        let idle = cores
            .iter()
            .zip(&self.cores)
            .map(|((idle, all), (idle_before, all_before))| {
                (idle - idle_before) as f64 / (all - all_before).max(1) as f64
            });
        let written = written(&fs::read_to_string(self.folder.join("io")).unwrap_or_default());
        let counts = self.counters.read().into_iter().zip(&self.counters.before);
        let names = self.counters.open.iter().map(|(name, _)| *name);
        let hardware = names.zip(counts.map(|(now, before)| now.saturating_sub(*before)));
        Ok(HostProfile {
            elapsed,
            stages,
            idle: idle.collect(),
            written: (
                written.0.saturating_sub(self.written.0),
                written.1.saturating_sub(self.written.1),
            ),
            locks: self.locks.map(|before| {
                let counts = found_taken().into_iter().zip(before).map(|(now, before)| now - before);
                Lock::ALL.map(Lock::name).into_iter().zip(counts).collect()
            }),
            hardware: hardware.collect(),
            without_hardware: self.counters.refused,
        })
    }
}

impl Counters {
    /// Opens those that the host gives. They count threads that begin later, not those that run already.
    pub fn open() -> Self {
        open_counters()
    }

    fn read(&mut self) -> Vec<u64> {
        let counters = self.open.iter_mut();
        counters.map(|(_, counter)| counter.read().unwrap_or(0)).collect()
    }
}

/// How often each lock was found taken.
fn found_taken() -> Vec<u64> {
    Lock::ALL.map(Lock::found_taken).to_vec()
}

fn open_counters() -> Counters {
    let miss = |which| {
        open_counter(Cache {
            which,
            operation: CacheOp::READ,
            result: CacheResult::MISS,
        })
    };
    let opened = [
        ("cycles", open_counter(Hardware::CPU_CYCLES)),
        ("instructions", open_counter(Hardware::INSTRUCTIONS)),
        ("level 1 data cache misses", miss(CacheId::L1D)),
        ("last level cache misses", miss(CacheId::LL)),
        ("data TLB misses", miss(CacheId::DTLB)),
    ];
    let (mut open, mut refused) = (Vec::new(), None);
    for (name, counter) in opened {
        match counter {
            Ok(counter) => open.push((name, counter)),
            Err(error) => refused = Some(format!("{name}: {error}")),
        }
    }
    Counters {
        before: vec![0; open.len()],
        open,
        refused,
    }
}

fn open_counter(event: impl Event) -> std::io::Result<Counter> {
    let mut counter = Builder::new(event).inherit(true).build()?;
    counter.enable()?;
    Ok(counter)
}

/// Name and counters of every thread, by its id.
fn threads(process: &Path) -> Result<BTreeMap<u64, (String, Usage)>, BenchError> {
    let folder = process.join("task");
    let entries = fs::read_dir(&folder).map_err(|error| BenchError::new(format!("{}: {error}", folder.display())))?;
    let mut threads = BTreeMap::new();
    for entry in entries.flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let read = |file: &str| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        // A thread that ends in between has nothing to read.
        if let Some(usage) = usage(&read("schedstat"), &read("status"), &read("stat")) {
            threads.insert(id, (read("comm").trim().to_owned(), usage));
        }
    }
    Ok(threads)
}

fn usage(schedstat: &str, status: &str, stat: &str) -> Option<Usage> {
    let mut times = schedstat.split_whitespace().map(str::parse);
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').trim().parse().ok()
    };
    // Behind the name, which may hold anything.
    let mut numbers = stat.rsplit_once(')')?.1.split_whitespace();
    Some(Usage {
        cpu_nanos: times.next()?.ok()?,
        wait_nanos: times.next()?.ok()?,
        voluntary_switches: field("voluntary_ctxt_switches")?,
        involuntary_switches: field("nonvoluntary_ctxt_switches")?,
        minor_faults: numbers.nth(7)?.parse().ok()?,
        major_faults: numbers.nth(1)?.parse().ok()?,
    })
}

/// Idle and all time of every core, in ticks.
fn cores(stat: &str) -> Vec<(u64, u64)> {
    let cores = stat
        .lines()
        .filter(|line| line.starts_with("cpu") && !line.starts_with("cpu "));
    cores
        .map(|line| {
            // user, nice, system, idle, waiting for storage, and more; guests' time is in the first two already.
            let ticks: Vec<u64> = line.split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
            (ticks.iter().skip(3).take(2).sum(), ticks.iter().sum())
        })
        .collect()
}

/// Bytes and system calls. What went to the disk in the end (`write_bytes`) would be no answer: a kernel with large folios
/// counts a whole folio, a megabyte and more, for each small group of the batch log.
fn written(io: &str) -> (u64, u64) {
    let field = |name: &str| {
        let line = io.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
    };
    (field("wchar:"), field("syscw:"))
}

/// The process that listens on a TCP port of this host, if it can be seen.
pub fn listener(port: u16) -> Option<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let inodes: Vec<String> = tables.iter().flat_map(|table| listening(table, port)).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|process| process.file_name().to_str()?.parse().ok())
        .find(|process: &u32| {
            let files = fs::read_dir(format!("/proc/{process}/fd"));
            let mut links = files
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|file| fs::read_link(file.path()).ok());
            links.any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))
        })
}

/// The sockets that listen on the port, as links to open files name them.
fn listening(table: &str, port: u16) -> Vec<String> {
    /// `TCP_LISTEN`
    const LISTEN: &str = "0A";
    let sockets = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        let listens = fields.get(3) == Some(&LISTEN) && u16::from_str_radix(local_port, 16) == Ok(port);
        listens.then(|| format!("socket:[{}]", fields.get(9).unwrap_or(&"")))
    });
    sockets.collect()
}

/// What a thread does, by its name.
fn stage(thread: &str) -> String {
    thread
        .trim_end_matches(|c: char| c.is_ascii_digit())
        .trim_end_matches('-')
        .to_owned()
}

impl HostProfile {
    /// As text, for each of `count` operations or seconds, as `unit` says.
    pub fn table(&self, count: u64, unit: &str) -> String {
        let operations = count.max(1) as f64;
        let mut text = format!(
            "{:16} {:>8} {:>7} {:>12} {:>12} {:>12} {:>12} {:>12}\n",
            "stage", "cpu s", "core %", "us each", "no core s", "waits each", "preempted", "faults each"
        );
        let mut stages: Vec<_> = self.stages.iter().filter(|(_, usage)| usage.cpu_nanos > 0).collect();
        stages.sort_by_key(|(_, usage)| std::cmp::Reverse(usage.cpu_nanos));
        for (name, usage) in stages {
            let seconds = usage.cpu_nanos as f64 / 1e9;
            let _infallible = writeln!(
                text,
                "{name:16} {seconds:>8.2} {:>6.1}% {:>12.2} {:>12.2} {:>12.2} {:>12} {:>12.2}",
                100.0 * seconds / self.elapsed.as_secs_f64().max(1e-9),
                usage.cpu_nanos as f64 / 1e3 / operations,
                usage.wait_nanos as f64 / 1e9,
                usage.voluntary_switches as f64 / operations,
                usage.involuntary_switches,
                (usage.minor_faults + usage.major_faults) as f64 / operations,
            );
        }
        let idle: Vec<String> = self.idle.iter().map(|idle| format!("{:.0} %", 100.0 * idle)).collect();
        let _infallible = writeln!(text, "cores idle       {}", idle.join(", "));
        let _infallible = writeln!(
            text,
            "written          {:.0} bytes and {:.2} system calls each {unit}",
            self.written.0 as f64 / operations,
            self.written.1 as f64 / operations
        );
        let _infallible = writeln!(text, "locks taken      {}", self.locks_line(operations, unit));
        for (name, count) in &self.hardware {
            let _infallible = writeln!(text, "{name:26} {:>14.1} each", *count as f64 / operations);
        }
        if let Some(why) = &self.without_hardware {
            let _infallible = writeln!(
                text,
                "locality         by the kernel's counters (page faults, context switches); no performance counters: {why}"
            );
        }
        text
    }

    /// Which locks threads found taken, the busiest first: those waits are in the table's too, with those for work.
    fn locks_line(&self, operations: f64, unit: &str) -> String {
        let Some(locks) = &self.locks else {
            return "what another process finds taken is in its metrics: replicore_lock_found_taken_total".to_owned();
        };
        let mut met: Vec<_> = locks.iter().filter(|(_, count)| *count > 0).collect();
        met.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        if met.is_empty() {
            return "none".to_owned();
        }
        let each = met
            .iter()
            .map(|(name, count)| format!("{name} {:.4}", *count as f64 / operations));
        format!("{} each {unit}", each.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_one_kind_are_one_stage() {
        assert_eq!(
            ["net-0", "net-12", "round", "query-3"].map(stage),
            ["net", "net", "round", "query"]
        );
    }

    #[test]
    fn the_kernel_s_files_are_read_field_by_field() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t6\n";
        let stat = "7 (odd) name) R 1 2 3 4 5 6 100 0 3 0 0 0";
        let expected = Usage {
            cpu_nanos: 10,
            wait_nanos: 20,
            voluntary_switches: 5,
            involuntary_switches: 6,
            minor_faults: 100,
            major_faults: 3,
        };
        assert_eq!(usage("10 20 3", status, stat), Some(expected));
        assert_eq!(usage("", status, stat), None);
        assert_eq!(cores("cpu 9 9\ncpu0 1 2 3 4 5 6 7 8 100 100\nintr 1\n"), [(9, 36)]);
        assert_eq!(written("wchar: 4096\nsyscw: 7\nwrite_bytes: 1\n"), (4096, 7));
    }

    #[test]
    fn who_listens_is_found_by_the_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 4711 1 0\n\
             1: 0100007F:1F90 0100007F:8000 01 0:0 0:0 0 0 0 4712 1 0\n";
        assert_eq!(listening(table, 8080), ["socket:[4711]"]);
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        assert_eq!(listener(port), Some(std::process::id()));
    }

    #[test]
    fn locks_are_told_by_how_often_they_were_taken() {
        let mut profile = Watch::begin(None, None).unwrap().end().unwrap();
        profile.locks = Some(vec![("waiters", 1), ("replies", 0), ("page frames", 5)]);
        assert_eq!(
            profile.locks_line(10.0, "run"),
            "page frames 0.5000, waiters 0.1000 each run"
        );
        profile.locks = Some(vec![("waiters", 0)]);
        assert_eq!(profile.locks_line(10.0, "run"), "none");
        profile.locks = None;
        assert!(
            profile
                .locks_line(10.0, "run")
                .contains("replicore_lock_found_taken_total")
        );
    }

    #[test]
    fn work_of_this_process_is_seen() {
        let watch = Watch::begin(None, Some(Counters::open())).unwrap();
        let mut faulted = vec![0_u8; 8 << 20];
        faulted.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        let mut digest = 0_u64;
        while watch.start.elapsed() < Duration::from_millis(20) {
            digest = digest
                .wrapping_mul(31)
                .wrapping_add(u64::from(faulted[digest as usize % faulted.len()]));
        }
        let seen = watch.end().unwrap();
        let sum = seen
            .stages
            .values()
            .fold(Usage::default(), |sum, usage| sum.plus(*usage));
        assert!(sum.cpu_nanos > 0 && sum.minor_faults > 0, "{seen:?} {digest}");
        assert!(!seen.hardware.is_empty() || seen.without_hardware.is_some());
        assert!(seen.table(1, "run").contains("cores idle"));
        assert_eq!(seen.locks.as_ref().map(Vec::len), Some(Lock::ALL.len()));
    }
}
