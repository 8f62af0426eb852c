//! Time on the processor by thread: what work costs, which depends less on what else a machine does than how long it takes.

use crate::BenchError;
use std::fs;

/// The threads that move requests and answers. Those of servers that nobody talks to add a tick in every quarter of a second.
pub(super) fn is_network(name: &str) -> bool {
    name.starts_with("net-")
}

/// The threads that make rounds of messages, log them, and sign and answer.
pub(super) fn is_rounds(name: &str) -> bool {
    ["round", "commit", "log"].contains(&name) || name.starts_with("scheduler-")
}

/// Nanoseconds on the processor of the threads of this process whose names are `of`.
pub(super) fn threads_nanos(of: impl Fn(&str) -> bool) -> Result<u64, BenchError> {
    let mut nanos = 0;
    for entry in fs::read_dir("/proc/self/task").map_err(BenchError::new)? {
        let path = entry.map_err(BenchError::new)?.path();
        // Threads of the last load may end while they are listed.
        let Ok(name) = fs::read_to_string(path.join("comm")) else {
            continue;
        };
        if of(name.trim_end()) {
            nanos += running_nanos(&path.join("schedstat"))?;
        }
    }
    Ok(nanos)
}

/// The same of the calling thread.
pub(super) fn own_nanos() -> Result<u64, BenchError> {
    running_nanos("/proc/thread-self/schedstat".as_ref())
}

fn running_nanos(schedstat: &std::path::Path) -> Result<u64, BenchError> {
    let times = fs::read_to_string(schedstat).map_err(BenchError::new)?;
    let running = times.split_whitespace().next().and_then(|number| number.parse().ok());
    running.ok_or_else(|| BenchError::left_out("the kernel counts no time by thread"))
}
