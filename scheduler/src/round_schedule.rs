//! In which order canisters run: who paid for it and is due comes first, then who has waited longest.
//!
//! ```text
//! messages between slices   d1 d2 w1 w2 w3 ...     d: its compute allocation is due; w: the others; within each, the
//! everything else           d1 w1 w2 w3 w4 ...        one first that had its last turn longest ago, then by id
//! order of the round        one of the one line, one of the other, in turn
//! ```
//! A turn runs a canister until nothing is left for it, or until it has used its part of the round, whichever it is: no
//! canister gets ahead by leaving something over.
//!
//! **Bound.** However long turns take, a round gives a turn to at least [`TURNS_MIN`] canisters of either line, or to
//! all of it. Allocations come to at most 299 percent, so that those who are due take fewer than three of them on
//! average, and at least one is left for who has waited longest. Whoever waits is overtaken by each of the others at
//! most once, and by each allocation once more than it is worth. Among `n` runnable canisters, `m` of them with an
//! allocation, nobody waits more than [`rounds_waited_max`] rounds; with turns that use less than a whole slice it is
//! less by as much.

use crate::limits::FIRST_WAVE_CANISTERS;
use crate::state::{Priority, ReplicatedState};
use replicore_types::{CanisterId, Height};

/// Canisters of either line that a round gives a turn to whatever the others take: the first wave always runs whole.
pub const TURNS_MIN: usize = FIRST_WAVE_CANISTERS / 2;

/// Rounds that a canister without allocation waits at most among `runnable` canisters, of which `allocated` have a
/// compute allocation. Rounds in which its own rate limit holds it up do not count.
pub fn rounds_waited_max(runnable: usize, allocated: usize) -> usize {
    // TURNS_MIN turns a round, of which allocations take 2.99 a round and each one more: what is left is one a round.
    (runnable + allocated) / (TURNS_MIN - 3)
}

/// The runnable canisters in the order in which they run.
pub(crate) fn order(state: &ReplicatedState, runnable: Vec<CanisterId>) -> Vec<CanisterId> {
    let height = state.metadata.height;
    let (mut between_slices, mut others) = (Vec::new(), Vec::with_capacity(runnable.len()));
    for id in runnable {
        let Some(canister) = state.canister(&id) else { continue };
        let allocation = canister.system.settings.compute_allocation;
        let place = (
            !is_due(&canister.priority, allocation, height),
            canister.priority.last_turn,
            id,
        );
        match canister.paused {
            Some(_) => between_slices.push(place),
            None => others.push(place),
        }
    }
    between_slices.sort_unstable();
    others.sort_unstable();
    in_turn(between_slices, others).map(|(_, _, id)| id).collect()
}

/// True where the rounds since its last turn are worth a turn to its allocation, in percent of a core.
fn is_due(priority: &Priority, allocation: u64, height: Height) -> bool {
    let waited = height.0.saturating_sub(priority.last_turn.0);
    waited.saturating_mul(allocation) >= 100
}

/// One of each, as long as there are both.
fn in_turn<T>(left: Vec<T>, right: Vec<T>) -> impl Iterator<Item = T> {
    let (mut left, mut right) = (left.into_iter(), right.into_iter());
    let mut is_left = false;
    std::iter::from_fn(move || {
        is_left = !is_left;
        match is_left {
            true => left.next().or_else(|| right.next()),
            false => right.next().or_else(|| left.next()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_take_turns_and_the_longer_one_goes_on() {
        assert_eq!(
            in_turn(vec![1, 2], vec![5, 6, 7, 8]).collect::<Vec<_>>(),
            [1, 5, 2, 6, 7, 8]
        );
        assert_eq!(in_turn(vec![1, 2], vec![]).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn an_allocation_is_due_when_the_rounds_are_worth_a_turn() {
        let priority = Priority {
            last_turn: Height(10),
            ..Priority::default()
        };
        let due = |allocation, height| is_due(&priority, allocation, Height(height));
        assert!(due(100, 11) && due(50, 12) && due(1, 110));
        assert!(!due(99, 11) && !due(50, 11) && !due(0, 1_000_000));
    }
}
