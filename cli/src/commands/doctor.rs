//! `replicore doctor`: what this host lacks for a fast and safe replica, and what to do about it.

use super::CliError;
use clap::Args;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Syncs of the disk test.
const SYNCS: u32 = 100;
const SYNC_BYTES: usize = 16 * 1_024;

/// Options of `replicore doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Directory whose disk is tested: where the state directory is or will be.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// One JSON object a check instead of text.
    #[arg(long)]
    json: bool,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// As it should be.
    Good,
    /// Works, with less speed or less protection.
    Weak,
    /// Loses data or does not work.
    Bad,
    /// Worth knowing; neither good nor bad.
    Note,
}

/// One thing looked at.
#[derive(Debug)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do, where there is something.
    remedy: &'static str,
}

/// Looks and prints; the exit code is non-zero if something is bad.
pub fn run(args: &DoctorArgs) -> Result<ExitCode, CliError> {
    let checks = [
        cpu_features(&read("/proc/cpuinfo")),
        cpus(),
        kernel(&read("/proc/sys/kernel/osrelease")),
        io_uring(&read("/proc/sys/kernel/io_uring_disabled")),
        disk(&args.dir)?,
        clock(&read(
            "/sys/devices/system/clocksource/clocksource0/current_clocksource",
        )),
        open_files(&read("/proc/self/limits")),
        map_count(&read("/proc/sys/vm/max_map_count")),
        overcommit(&read("/proc/sys/vm/overcommit_memory")),
        huge_pages(&read("/sys/kernel/mm/transparent_hugepage/enabled")),
        swap(&read("/proc/meminfo")),
        enclave(&read("/proc/cpuinfo"), Path::new("/dev/sev-guest").exists()),
    ];
    for check in &checks {
        print(check, args.json);
    }
    let is_bad = checks.iter().any(|check| check.verdict == Verdict::Bad);
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A file of the kernel; empty where this one does not have it.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn print(check: &Check, json: bool) {
    let Check {
        name,
        verdict,
        found,
        remedy,
    } = check;
    let verdict = match verdict {
        Verdict::Good => "good",
        Verdict::Weak => "weak",
        Verdict::Bad => "bad",
        Verdict::Note => "note",
    };
    if json {
        let line = serde_json::json!({"check": name, "verdict": verdict, "found": found, "remedy": remedy});
        println!("{line}");
    } else {
        println!("{verdict:5} {name:18} {found}");
        if !remedy.is_empty() {
            println!("      {:18} -> {remedy}", "");
        }
    }
}

fn check(name: &'static str, is_good: bool, otherwise: Verdict, found: String, remedy: &'static str) -> Check {
    let (verdict, remedy) = if is_good {
        (Verdict::Good, "")
    } else {
        (otherwise, remedy)
    };
    Check {
        name,
        verdict,
        found,
        remedy,
    }
}

fn flags(cpuinfo: &str) -> Vec<&str> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("flags") || line.starts_with("Features"));
    line.and_then(|line| line.split_once(':'))
        .map(|(_, flags)| flags.split_whitespace().collect())
        .unwrap_or_default()
}

/// SHA extensions hash the certified tree; AVX2 verifies signatures and hashes pages; BMI2 and ADX multiply for BLS.
fn cpu_features(cpuinfo: &str) -> Check {
    const WANTED: [&str; 4] = ["sha_ni", "avx2", "bmi2", "adx"];
    const EXTRA: [&str; 3] = ["avx512f", "avx512ifma", "vaes"];
    let flags = flags(cpuinfo);
    let (has, lacks): (Vec<_>, Vec<_>) = WANTED.iter().partition(|flag| flags.contains(*flag));
    let extra = EXTRA.iter().filter(|flag| flags.contains(*flag));
    let has: Vec<&str> = has.into_iter().chain(extra).copied().collect();
    let found = if lacks.is_empty() {
        has.join(" ")
    } else {
        format!(
            "{}; lacks {}",
            has.join(" "),
            lacks.into_iter().copied().collect::<Vec<_>>().join(" ")
        )
    };
    let is_good = WANTED.iter().all(|flag| flags.contains(flag));
    check(
        "CPU features",
        is_good,
        Verdict::Weak,
        found,
        "hashes and signatures are computed without these; in a virtual machine, pass the host's CPU model through",
    )
}

fn cpus() -> Check {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    check(
        "CPUs",
        count >= 2,
        Verdict::Weak,
        format!("{count}"),
        "network, execution and commit share one CPU; two or more let them overlap",
    )
}

fn kernel(release: &str) -> Check {
    let mut numbers = release
        .trim()
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    check(
        "kernel",
        version >= (6, 1),
        Verdict::Weak,
        release.trim().to_owned(),
        "multishot receive and deferred task running of io_uring need Linux 6.1; older ones are served by epoll",
    )
}

fn io_uring(disabled: &str) -> Check {
    let (is_good, found) = match disabled.trim() {
        "0" => (true, "allowed"),
        // Kernels before 6.6 have no such switch.
        "" => (true, "no switch in this kernel"),
        "1" => (false, "for privileged processes only"),
        _ => (false, "switched off"),
    };
    check(
        "io_uring",
        is_good,
        Verdict::Weak,
        found.to_owned(),
        "`sysctl kernel.io_uring_disabled=0`; until then the network runs on epoll",
    )
}

/// Appends and syncs as the batch log does. A disk that answers within microseconds has most likely not written anything.
fn disk(directory: &Path) -> Result<Check, CliError> {
    let path = directory.join(format!(".replicore-doctor-{}", std::process::id()));
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(&path)
        .map_err(named)?;
    let result = sync_micros(file);
    fs::remove_file(&path).map_err(named)?;
    let mut micros = result.map_err(named)?;
    micros.sort_unstable();
    let median = micros[micros.len() / 2];
    let worst = micros[micros.len() - 1];
    let found = format!(
        "{median} us for {} KiB and fdatasync (worst {worst} us): {} a second",
        SYNC_BYTES / 1_024,
        1_000_000 / median.max(1)
    );
    let (verdict, remedy) = match median {
        0..=20 => (
            Verdict::Bad,
            "faster than any disk: it seems to acknowledge before it has written (tmpfs, or a cache that ignores flushes)",
        ),
        21..=5_000 => (Verdict::Good, ""),
        _ => (
            Verdict::Weak,
            "every update waits for one sync: put the state directory on an NVMe disk with power-loss protection",
        ),
    };
    Ok(Check {
        name: "disk sync",
        verdict,
        found,
        remedy,
    })
}

fn sync_micros(mut file: File) -> std::io::Result<Vec<u64>> {
    let bytes = [0x5a; SYNC_BYTES];
    (0..SYNCS)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&bytes)?;
            file.sync_data()?;
            Ok(start.elapsed().as_micros() as u64)
        })
        .collect()
}

/// The clock is read for every request; `tsc` needs no system call.
fn clock(source: &str) -> Check {
    let source = source.trim();
    check(
        "clock",
        matches!(
            source,
            "tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page"
        ),
        Verdict::Weak,
        if source.is_empty() { "unknown" } else { source }.to_owned(),
        "reading this clock is a system call; `clocksource=tsc` on the kernel's command line, if the machine's TSC is stable",
    )
}

/// The default of `http.connections_max`, and files of the replica itself.
const OPEN_FILES_GOOD: u64 = 16_000 + 1_000;

fn open_files(limits: &str) -> Check {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    // The replica raises its own soft limit to the hard one.
    let hard = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap_or("unknown");
    let count: u64 = hard.parse().unwrap_or(if hard == "unlimited" { u64::MAX } else { 0 });
    check(
        "open files",
        count >= OPEN_FILES_GOOD,
        Verdict::Weak,
        hard.to_owned(),
        "a connection each: raise the hard limit with `ulimit -Hn 65536` or LimitNOFILE= of the service",
    )
}

/// Warm instances map their memories; each mapping of a file counts.
fn map_count(text: &str) -> Check {
    let count: u64 = text.trim().parse().unwrap_or_default();
    check(
        "memory mappings",
        count >= 262_144,
        Verdict::Weak,
        text.trim().to_owned(),
        "`sysctl vm.max_map_count=1048576`: every warm canister holds some mappings",
    )
}

/// Canister memories reserve gigabytes of address space of which little is used.
fn overcommit(text: &str) -> Check {
    check(
        "overcommit",
        text.trim() != "2",
        Verdict::Bad,
        text.trim().to_owned(),
        "`sysctl vm.overcommit_memory=0`: instances reserve more address space than they use, which mode 2 refuses",
    )
}

fn huge_pages(enabled: &str) -> Check {
    let chosen = enabled.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    let chosen = chosen.map_or("not in this kernel", |(chosen, _)| chosen);
    check(
        "huge pages",
        matches!(chosen, "madvise" | "always"),
        Verdict::Weak,
        chosen.to_owned(),
        "`echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`: large arenas then need fewer TLB entries",
    )
}

fn swap(meminfo: &str) -> Check {
    let kib = |name: &str| -> u64 {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().ok())
            .unwrap_or_default()
    };
    let (total, swap) = (kib("MemTotal") / 1_024, kib("SwapTotal") / 1_024);
    check(
        "memory",
        total >= 4_096 && swap == 0,
        Verdict::Weak,
        format!("{total} MiB, {swap} MiB of swap"),
        "a replica that swaps stalls its rounds: have 4 GiB or more and `swapoff -a`",
    )
}

fn enclave(cpuinfo: &str, is_guest: bool) -> Check {
    let is_capable = flags(cpuinfo).contains(&"sev_snp");
    let (verdict, found) = match (is_guest, is_capable) {
        (true, _) => (
            Verdict::Good,
            "this is an SEV-SNP guest: memory is encrypted, reports can be had from /dev/sev-guest",
        ),
        (false, true) => (
            Verdict::Note,
            "the processor has SEV-SNP; this system does not run inside a guest of it",
        ),
        (false, false) => (Verdict::Note, "none: whoever runs the host can read the memory"),
    };
    Check {
        name: "SEV-SNP",
        verdict,
        found: found.to_owned(),
        remedy: "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lacking_features_are_named() {
        let found = cpu_features("processor : 0\nflags\t\t: fpu avx2 bmi2 adx\n");
        assert_eq!(
            (found.verdict, found.found.as_str()),
            (Verdict::Weak, "avx2 bmi2 adx; lacks sha_ni")
        );
        let found = cpu_features("flags\t\t: sha_ni avx2 bmi2 adx avx512f\n");
        assert_eq!((found.verdict, found.remedy), (Verdict::Good, ""));
    }

    #[test]
    fn kernels_are_compared_by_number() {
        assert_eq!(kernel("6.10.3-cloud\n").verdict, Verdict::Good);
        assert_eq!(kernel("6.0.0").verdict, Verdict::Weak);
        assert_eq!(kernel("5.15.0-91-generic").verdict, Verdict::Weak);
    }

    #[test]
    fn limits_and_switches_are_read() {
        assert_eq!(
            open_files("Max open files            1024                 4096      files\n").verdict,
            Verdict::Weak
        );
        assert_eq!(
            open_files("Max open files            unlimited     unlimited      files\n").verdict,
            Verdict::Good
        );
        assert_eq!(io_uring("2\n").verdict, Verdict::Weak);
        assert_eq!(overcommit("2\n").verdict, Verdict::Bad);
        assert_eq!(huge_pages("always [madvise] never\n").found, "madvise");
        assert_eq!(
            swap("MemTotal:  24000000 kB\nSwapTotal: 1024 kB\n").verdict,
            Verdict::Weak
        );
    }

    #[test]
    fn the_disk_test_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        assert!(disk(directory.path()).unwrap().found.contains("fdatasync"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
