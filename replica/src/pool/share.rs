//! How many messages of one canister a round is given.
//!
//! A canister executes a bounded number of messages in a round. What a batch has beyond that waits in the state, where the
//! pool does not see it: the waiting time that it learns would not be the one that callers have. So a line gives a round
//! what the canister does in one, and keeps the rest. Where messages are left in the state, they and the new ones are twice
//! as many as were done the last time; where none are, twice as many as the last time may be given.

/// Messages of one canister that wait in the state in any case, so that a long message that comes to its end is followed
/// by more than one short one.
pub(super) const IN_STATE_MIN: usize = 16;

/// What one canister may have of a round.
#[derive(Debug)]
pub(super) struct Share {
    /// Messages that a round is given, with those that its state has.
    per_round: usize,
    /// Messages in the state of the last round, with those that it was given.
    in_state: usize,
    /// The round that was begun last.
    round: u64,
    /// Messages that it may still have.
    left: usize,
}

impl Share {
    /// That of a canister of which nothing is known.
    pub(super) fn new() -> Self {
        Self {
            per_round: usize::MAX,
            in_state: 0,
            round: 0,
            left: 0,
        }
    }

    /// True if the round with this number, which executes `most` at most, may have one more. `waiting` says how many wait
    /// in its state; it is asked once for each round.
    pub(super) fn has_room(&mut self, (round, most): (u64, usize), waiting: impl FnOnce() -> usize) -> bool {
        if self.round != round {
            self.round = round;
            self.begin(waiting(), most);
        }
        self.left > 0
    }

    /// One more is given.
    pub(super) fn give(&mut self) {
        self.left = self.left.saturating_sub(1);
        self.in_state += 1;
    }

    fn begin(&mut self, waiting: usize, most: usize) {
        let done = self.in_state.saturating_sub(waiting);
        let likely = match waiting {
            0 => self.per_round.saturating_mul(2),
            _ => (2 * done).max(IN_STATE_MIN),
        };
        self.per_round = likely.min(most);
        self.in_state = waiting;
        // One at least: a pool that has messages never makes an empty batch.
        self.left = self.per_round.saturating_sub(waiting).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rounds with more than enough messages in the pool, of which each does so many; what each was given.
    fn given(done: &[usize]) -> Vec<usize> {
        let (mut share, mut in_state) = (Share::new(), 0);
        let round = |(number, done): (usize, &usize)| {
            let mut given = 0;
            while share.has_room((number as u64 + 1, 1_000), || in_state) {
                share.give();
                given += 1;
            }
            in_state = (in_state + given).saturating_sub(*done);
            given
        };
        done.iter().enumerate().map(round).collect()
    }

    #[test]
    fn a_quick_canister_is_given_all_that_a_round_does() {
        assert_eq!(given(&[1_000; 3]), [1_000; 3]);
    }

    #[test]
    fn a_slow_one_is_given_twice_of_what_it_does_with_what_it_has_left() {
        let rounds = given(&[100; 14]);
        assert_eq!(rounds[..3], [1_000, 1, 1], "900 are left of the first round");
        assert_eq!(
            rounds[11..],
            [100, 100, 100],
            "and in the end 100 wait while 100 are done: {rounds:?}"
        );
    }

    #[test]
    fn one_that_gets_quicker_is_given_more() {
        // A long message over many rounds, and then short ones.
        let done = [[0; 20], [1_000; 20]].concat();
        let rounds = given(&done);
        assert_eq!(rounds[..20], [[1_000, 1].as_slice(), &[1; 18]].concat());
        assert_eq!(rounds.last(), Some(&1_000), "{rounds:?}");
    }
}
