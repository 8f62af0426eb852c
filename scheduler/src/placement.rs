//! Which CPUs the threads of a pool run on: those that execute canisters, and those of the network.
//!
//! Every thread has CPUs that no other thread of its pool has. Left to itself, the kernel of a virtual machine wakes a
//! worker on the CPU of the thread that wakes it, although another one is idle: an idle virtual CPU is taken for one that
//! the host has put aside. The worker then waits until the other's time slice is over, which is longer than most rounds
//! take (decision 39).

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Gives the calling thread, the one with this index of `threads`, its share of the CPUs that the process may use, which no
/// other of these threads has. Where CPUs are fewer than threads, or the system refuses, everything stays as it is: it is
/// about speed only.
pub fn keep_apart(index: usize, threads: usize) {
    let this_thread = Pid::from_raw(0);
    let Ok(allowed) = sched_getaffinity(this_thread) else {
        return;
    };
    let cpus: Vec<usize> = (0..CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu) == Ok(true))
        .collect();
    let mut own = CpuSet::new();
    for cpu in share(&cpus, index, threads) {
        if own.set(cpu).is_err() {
            return;
        }
    }
    // An empty set, where there is no share, is refused.
    let _ = sched_setaffinity(this_thread, &own);
}

/// Every `threads`-th of the CPUs from the one at `index` on; none where somebody would go without.
fn share(cpus: &[usize], index: usize, threads: usize) -> impl Iterator<Item = usize> {
    let is_enough = cpus.len() >= threads;
    cpus.iter()
        .copied()
        .skip(index)
        .step_by(threads.max(1))
        .filter(move |_| is_enough)
}

#[cfg(test)]
mod tests {
    use super::{keep_apart, share};
    use nix::sched::{CpuSet, sched_getaffinity};
    use nix::unistd::Pid;

    fn shares(cpus: &[usize], threads: usize) -> Vec<Vec<usize>> {
        (0..threads)
            .map(|index| share(cpus, index, threads).collect())
            .collect()
    }

    #[test]
    fn every_cpu_belongs_to_one_thread() {
        assert_eq!(shares(&[0, 1], 2), [vec![0], vec![1]]);
        assert_eq!(shares(&[0, 1, 4, 5, 6], 2), [vec![0, 4, 6], vec![1, 5]]);
        assert_eq!(shares(&[3], 1), [vec![3]]);
    }

    #[test]
    fn too_few_cpus_are_not_shared_out() {
        assert_eq!(shares(&[0, 1], 3), [vec![], vec![], Vec::<usize>::new()]);
        assert_eq!(shares(&[], 1), [Vec::<usize>::new()]);
    }

    fn allowed() -> Vec<usize> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).expect("affinity");
        (0..CpuSet::count())
            .filter(|cpu| allowed.is_set(*cpu) == Ok(true))
            .collect()
    }

    #[test]
    fn threads_are_kept_apart() {
        let all = allowed();
        let placed = |index| {
            std::thread::spawn(move || {
                keep_apart(index, 2);
                allowed()
            })
        };
        let [first, second] = [0, 1].map(placed).map(|thread| thread.join().expect("thread"));
        if all.len() < 2 {
            assert_eq!([first, second], [all.clone(), all], "nobody goes without a CPU");
            return;
        }
        assert!(first.iter().all(|cpu| !second.contains(cpu)), "{first:?} {second:?}");
        let mut both = [first, second].concat();
        both.sort_unstable();
        assert_eq!(both, all);
    }
}
