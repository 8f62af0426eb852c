//! What the system says of this process: time on the processor by thread, and memory. Where the system does not say
//! (no `/proc`), there is nothing to report.

use std::collections::BTreeMap;
use std::fs;

/// Time of the threads that share a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadTime {
    /// Threads of that name.
    pub threads: u64,
    /// Nanoseconds that they ran.
    pub running_nanos: u64,
    /// Nanoseconds that they could have run and had no processor.
    pub waiting_nanos: u64,
}

/// Time by thread name. Threads that have ended do not count any more.
pub fn thread_times() -> BTreeMap<String, ThreadTime> {
    let mut times = BTreeMap::<String, ThreadTime>::new();
    for entry in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let path = entry.path();
        // A thread may end between the listing and the reading.
        let (Ok(name), Ok(times_of)) = (
            fs::read_to_string(path.join("comm")),
            fs::read_to_string(path.join("schedstat")),
        ) else {
            continue;
        };
        let mut numbers = times_of
            .split_whitespace()
            .map_while(|number| number.parse::<u64>().ok());
        let (Some(running), Some(waiting)) = (numbers.next(), numbers.next()) else {
            continue;
        };
        let time = times.entry(name.trim().to_owned()).or_default();
        time.threads += 1;
        time.running_nanos += running;
        time.waiting_nanos += waiting;
    }
    times
}

/// Bytes of memory in use.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_works_is_seen_under_its_name() {
        let thread = std::thread::Builder::new().name("seen-by-name".into()).spawn(|| {
            let mut seen = ThreadTime::default();
            while seen.running_nanos == 0 {
                seen = thread_times().remove("seen-by-name").unwrap_or(ThreadTime {
                    running_nanos: 1,
                    ..ThreadTime::default()
                });
            }
            seen
        });
        let seen = thread.unwrap().join().unwrap();
        if fs::exists("/proc/self/schedstat").unwrap_or(false) {
            assert_eq!(seen.threads, 1);
            assert!(resident_bytes() > Some(1 << 20));
        }
    }
}
