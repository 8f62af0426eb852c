//! Open files: every connection is one, and clients must not take those that log and checkpoints need.

use tracing::warn;

/// Files that the replica opens itself: log segments, checkpoints, caches, outcalls, listeners, with room to spare.
const RESERVED: u64 = 256;

/// Raises the bound on this process's open files as far as the system lets it. How many connections fit under it, up to
/// `wanted`.
pub fn connections_max(wanted: usize) -> usize {
    let needed = wanted as u64 + RESERVED;
    match rlimit::increase_nofile_limit(needed) {
        Ok(limit) if limit >= needed => wanted,
        Ok(limit) => {
            let fitting = fitting(limit);
            warn!(
                limit,
                connections = fitting,
                wanted,
                "fewer connections than http.connections_max: raise the limit on open files (`ulimit -Hn`)"
            );
            fitting.min(wanted)
        }
        Err(error) => {
            warn!(%error, "the limit on open files is unknown");
            wanted
        }
    }
}

/// Connections under a limit on open files; at least half of it where it is very low.
fn fitting(limit: u64) -> usize {
    let connections = limit.saturating_sub(RESERVED).max(limit / 2).max(1);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_to_the_replica() {
        assert_eq!(fitting(1_024), 768);
        assert_eq!(fitting(256), 128);
        assert_eq!(connections_max(1), 1);
        let most = connections_max(usize::MAX / 2);
        let limit = rlimit::Resource::NOFILE.get_soft().unwrap();
        assert!(
            most as u64 <= limit.max(2) - limit.min(RESERVED).min(limit / 2),
            "{most} of {limit}"
        );
    }
}
