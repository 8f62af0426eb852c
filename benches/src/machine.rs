//! Where a figure was taken. Figures are compared only with those of the same machine.

use std::fs;

/// A machine as far as it matters for figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Processor model.
    pub cpu: String,
    /// Processors that this process may use.
    pub cpus: usize,
    /// Kernel release.
    pub kernel: String,
    /// Build profile of this program.
    pub profile: &'static str,
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
            kernel: release.trim().to_owned(),
            profile: if cfg!(debug_assertions) { "dev" } else { "release" },
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        format!(
            "{}, {} CPUs, Linux {}, {} build",
            self.cpu, self.cpus, self.kernel, self.profile
        )
    }
}
