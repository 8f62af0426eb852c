//! How many messages may be under way so that the next one does not wait too long.
//!
//! Nobody knows how long messages will take, but how long the last ones took is known: where the first message of a round
//! had `ahead` others before it, and the round with its `messages` was answered after `latency`, then so many were done in
//! that time, and `(ahead + messages) * target / latency` are worth a wait of `target` (Little's law). The bound follows that
//! figure while it matters: when messages take longer than they should, and when there are about as many of them as there
//! may be. A stall thus lowers it for one round, and the next round, which finds few messages that went quickly, raises it
//! again.

use std::time::{Duration, Instant};

/// Messages that are counted from when they are taken in until the round that has them is published.
#[derive(Debug)]
pub(super) struct Flow {
    under_way: usize,
    allowed: usize,
    has_learned: bool,
}

/// How a message that is taken in finds a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// When it is taken in.
    pub since: Instant,
    /// Messages before it.
    pub ahead: usize,
}

/// What a flow is held to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim {
    /// How long a message may wait until it is published; zero for any time.
    pub target: Duration,
    /// Messages that may be under way in any case.
    pub least: usize,
    /// Messages that may be under way before anything was learned.
    pub first: usize,
}

impl Flow {
    /// One that has not learned anything.
    pub(super) fn new(aim: Aim) -> Self {
        Self {
            under_way: 0,
            allowed: match aim.target.is_zero() {
                true => usize::MAX,
                false => aim.first,
            },
            has_learned: false,
        }
    }

    /// Messages that may be under way, where that was learned.
    pub(super) fn learned(&self) -> Option<usize> {
        self.has_learned.then_some(self.allowed)
    }

    /// True while one more may come.
    pub(super) fn has_room(&self) -> bool {
        self.under_way < self.allowed
    }

    /// True where nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way == 0
    }

    /// Messages under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Counts one in.
    pub(super) fn enter(&mut self, since: Instant) -> Mark {
        self.under_way += 1;
        Mark {
            since,
            ahead: self.under_way - 1,
        }
    }

    /// Counts `count` out.
    pub(super) fn leave(&mut self, count: usize) {
        self.under_way -= count;
    }

    /// Learns from a round that is answered now: it had so many messages, of which this came first and so waited longest.
    pub(super) fn learn(&mut self, first: Mark, messages: usize, now: Instant, aim: Aim) {
        if aim.target.is_zero() {
            return;
        }
        let latency = now.saturating_duration_since(first.since).max(Duration::from_nanos(1));
        let done = first.ahead + messages;
        let is_binding = done >= self.allowed / 2;
        if latency > aim.target || is_binding {
            let worth = done as u128 * aim.target.as_nanos() / latency.as_nanos();
            let worth = usize::try_from(worth).unwrap_or(usize::MAX);
            self.allowed = worth.max(aim.least);
            self.has_learned = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AIM: Aim = Aim {
        target: Duration::from_millis(500),
        least: 10,
        first: 10_000,
    };

    fn after(millis: u64, ahead: usize, flow: &mut Flow) -> usize {
        let since = Instant::now();
        flow.learn(Mark { since, ahead }, 1, since + Duration::from_millis(millis), AIM);
        flow.allowed
    }

    #[test]
    fn as_many_are_allowed_as_are_worth_the_wait() {
        let mut flow = Flow::new(AIM);
        assert_eq!(after(100, 99, &mut flow), 10_000, "quick, and far from the bound");
        assert_eq!(after(2_000, 7_999, &mut flow), 2_000, "four a millisecond");
        assert_eq!(after(400, 1_599, &mut flow), 2_000, "at the bound, as it should be");
        assert_eq!(after(100, 1_599, &mut flow), 8_000, "at the bound, and quicker now");
        assert_eq!(after(400, 1_599, &mut flow), 8_000, "far from the bound");
    }

    #[test]
    fn a_stall_is_forgotten_with_the_next_round() {
        let mut flow = Flow::new(AIM);
        assert_eq!(after(5_000, 0, &mut flow), AIM.least);
        assert_eq!(after(1, 9, &mut flow), 5_000);
        assert_eq!(after(1, 3_999, &mut flow), 2_000_000);
    }

    #[test]
    fn without_a_target_nothing_is_learned() {
        let aim = Aim {
            target: Duration::ZERO,
            ..AIM
        };
        let (mut flow, since) = (Flow::new(aim), Instant::now());
        let mark = flow.enter(since);
        flow.learn(mark, 1, since + Duration::from_secs(100), aim);
        assert!(flow.has_room() && flow.learned().is_none() && !flow.is_idle());
        assert_eq!(flow.allowed, usize::MAX);
        flow.leave(1);
        assert!(flow.is_idle());
    }
}
