//! Where a figure was taken. Figures are compared only with those of the same machine.

use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// A machine as far as it matters for figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processor model.
    pub cpu: String,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Main memory in MiB.
    pub memory_mib: u64,
    /// Kernel release.
    pub kernel: String,
    /// Mitigations of processor faults that the kernel has switched on.
    pub mitigations: Vec<String>,
    /// File system of the directory for temporary files, where the measured state lies.
    pub filesystem: String,
    /// Build profile of this program.
    pub profile: String,
    /// Revision that this program was built from, with `+` where the sources differed from it.
    pub commit: String,
}

impl Machine {
    /// This machine.
    pub fn this() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: model.map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory_mib(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
            kernel: release.trim().to_owned(),
            mitigations: mitigations(Path::new("/sys/devices/system/cpu/vulnerabilities")),
            filesystem: filesystem(
                &fs::read_to_string("/proc/self/mounts").unwrap_or_default(),
                &std::env::temp_dir(),
            ),
            profile: if cfg!(debug_assertions) { "dev" } else { "release" }.to_owned(),
            commit: env!("REPLICORE_COMMIT").to_owned(),
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let mitigations = match self.mitigations.len() {
            0 => "no mitigations".to_owned(),
            count => format!("{count} mitigations"),
        };
        format!(
            "{}, {} CPUs, {} MiB, Linux {}, {mitigations}, {}, {} build of {}",
            self.cpu, self.cpus, self.memory_mib, self.kernel, self.filesystem, self.profile, self.commit
        )
    }

    /// Whether figures of the two may be compared: all but the revision is the same.
    pub fn is_comparable(&self, other: &Self) -> bool {
        let without_commit = |machine: &Self| Self {
            commit: String::new(),
            ..machine.clone()
        };
        without_commit(self) == without_commit(other)
    }
}

fn memory_mib(meminfo: &str) -> u64 {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    total
        .and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok())
        .unwrap_or_default()
        / 1_024
}

/// `name: what the kernel does about it`, of the faults that cost time.
fn mitigations(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut active: Vec<String> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let text = fs::read_to_string(&path).ok()?;
            let what = text.trim().strip_prefix("Mitigation: ")?;
            Some(format!("{}: {what}", path.file_name()?.to_string_lossy()))
        })
        .collect();
    active.sort();
    active
}

/// Type of the file system that holds `path`: that of the longest mount point above it.
fn filesystem(mounts: &str, path: &Path) -> String {
    let mut best = ("/", "unknown");
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        if let (Some(point), Some(kind)) = (words.next(), words.next())
            && path.starts_with(point)
            && point.len() >= best.0.len()
        {
            best = (point, kind);
        }
    }
    best.1.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_longest_mount_point() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp/deep xfs rw 0 0\n";
        assert_eq!(filesystem(mounts, Path::new("/tmp/other")), "tmpfs");
        assert_eq!(filesystem(mounts, Path::new("/tmp/deep/er")), "xfs");
        assert_eq!(filesystem(mounts, Path::new("/var")), "ext4");
    }

    #[test]
    fn memory_is_read_in_mib() {
        assert_eq!(memory_mib("MemTotal:       24000000 kB\nMemFree: 1 kB\n"), 23_437);
        assert_eq!(memory_mib(""), 0);
    }

    #[test]
    fn another_commit_is_comparable_and_another_kernel_is_not() {
        let this = Machine::this();
        let with_commit = Machine {
            commit: "x".into(),
            ..this.clone()
        };
        let with_kernel = Machine {
            kernel: "x".into(),
            ..this.clone()
        };
        assert!(this.is_comparable(&with_commit) && !this.is_comparable(&with_kernel));
    }
}
