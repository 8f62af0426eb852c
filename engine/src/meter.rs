//! Instructions of one message: what is granted, what is used, where a slice ends.
//!
//! The Wasm code counts down from the slice's limit. Two things look at the counter: the code itself, at function
//! entries and loop heads, where it can be suspended; and System API charges, where it cannot. A charge that ends a slice
//! therefore opens the next one at once and *owes* the pause: the counter is shifted below zero, so that the code's own
//! next look at it leads here, and the suspension happens there. Totals and limits are the same as if it had paused
//! in the middle of the charge.

use crate::InstructionLimits;
use crate::trap::Failure;

/// Slices that a message may take in any case: a safeguard beside the bound on instructions.
const SLICES_MAX: i64 = 400;

/// The instruction account of one message.
#[derive(Debug)]
pub(crate) struct Meter {
    message_limit: i64,
    slice_limit_max: i64,
    /// Limit of the slice that runs: the largest one, less what the slice before went over.
    slice_limit: i64,
    /// Instructions of the slices before.
    executed_before: i64,
    slices_left: i64,
    /// Slices only give others their turn: they bound nothing and change no result.
    yielding: bool,
    /// A pause is owed; the counter is shifted by `slice_limit + 1`.
    pause_owed: bool,
}

impl Meter {
    pub(crate) fn new(limits: InstructionLimits) -> Self {
        let bounded = |number: u64| i64::try_from(number).unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
        let message_limit = bounded(limits.message.get());
        let slice_limit = bounded(limits.slice.get()).min(message_limit);
        let slices = (message_limit / slice_limit.max(1)).min(SLICES_MAX);
        Self {
            message_limit,
            slice_limit_max: slice_limit,
            slice_limit,
            executed_before: 0,
            slices_left: (2 * slices).clamp(4, SLICES_MAX),
            yielding: false,
            pause_owed: false,
        }
    }

    /// The same for queries, where a slice is only a place to pause: any number of them, however far a System API charge
    /// goes over one, and every total and error as if there were none.
    pub(crate) fn yielding(limits: InstructionLimits) -> Self {
        Self {
            yielding: true,
            ..Self::new(limits)
        }
    }

    /// What the counter starts with.
    pub(crate) fn initial_counter(&self) -> i64 {
        self.slice_limit
    }

    /// Instructions used so far, given the counter; never more than the message may use.
    pub(crate) fn executed(&self, counter: i64) -> u64 {
        self.executed_exactly(counter).min(self.message_limit).max(0) as u64
    }

    /// Takes `instructions` off and returns the new counter.
    ///
    /// # Errors
    /// When the message may not go on. An amount that no counter can hold fails before anything is charged.
    pub(crate) fn charge(&mut self, counter: i64, instructions: u64) -> Result<i64, (Failure, i64)> {
        let mut left = self.left(counter);
        if left < 0 {
            left = self.next_slice(left).map_err(|failure| (failure, counter))?;
            self.pause_owed = true;
        }
        let Ok(fee) = i64::try_from(instructions) else {
            let limit = if self.yielding {
                self.message_limit
            } else {
                self.slice_limit
            };
            return Err((Failure::InstructionLimit(limit.max(0) as u64), self.shifted(left)));
        };
        left = left.saturating_sub(fee);
        if left < 0 {
            left = match self.next_slice(left) {
                Ok(next) => next,
                Err(failure) => return Err((failure, self.shifted(left))),
            };
            self.pause_owed = true;
        }
        Ok(self.shifted(left))
    }

    /// The Wasm code found its counter negative: opens the next slice. The caller suspends, then goes on with the
    /// returned counter.
    ///
    /// # Errors
    /// When the message may not go on.
    pub(crate) fn out_of_instructions(&mut self, counter: i64) -> Result<i64, Failure> {
        let mut left = self.left(counter);
        if !self.pause_owed || left < 0 {
            left = self.next_slice(left)?;
        }
        self.pause_owed = false;
        Ok(left)
    }

    fn left(&self, counter: i64) -> i64 {
        if self.pause_owed {
            counter.saturating_add(self.slice_limit + 1)
        } else {
            counter
        }
    }

    fn shifted(&self, left: i64) -> i64 {
        if self.pause_owed {
            left - self.slice_limit - 1
        } else {
            left
        }
    }

    fn executed_exactly(&self, counter: i64) -> i64 {
        self.executed_before
            .saturating_add(self.slice_limit.saturating_sub(self.left(counter)).max(0))
    }

    fn next_slice(&mut self, left: i64) -> Result<i64, Failure> {
        if self.yielding {
            return self.next_place_to_pause(left);
        }
        if self.slice_limit >= self.message_limit - self.executed_before || self.slices_left <= 1 {
            return Err(Failure::InstructionLimit(self.message_limit as u64));
        }
        let used = self.slice_limit.saturating_sub(left).max(0);
        let carried = (used - self.slice_limit).max(0);
        let remaining = (self.message_limit - self.executed_before).max(0);
        let next = (self.slice_limit_max.saturating_sub(carried)).clamp(0, remaining);
        if next == 0 {
            return Err(Failure::SliceOverrun {
                instructions: used as u64,
                limit: self.slice_limit_max as u64,
            });
        }
        self.executed_before = self.executed_before.saturating_add(used);
        self.slice_limit = next.min((self.message_limit - self.executed_before).max(0));
        self.slices_left -= 1;
        Ok(self.slice_limit)
    }

    fn next_place_to_pause(&mut self, left: i64) -> Result<i64, Failure> {
        let executed = self
            .executed_before
            .saturating_add(self.slice_limit.saturating_sub(left));
        if executed > self.message_limit {
            return Err(Failure::InstructionLimit(self.message_limit as u64));
        }
        self.executed_before = executed;
        self.slice_limit = self.slice_limit_max.min(self.message_limit - executed);
        Ok(self.slice_limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicore_types::NumInstructions;

    fn meter(message: u64, slice: u64) -> Meter {
        Meter::new(InstructionLimits {
            message: NumInstructions(message),
            slice: NumInstructions(slice),
        })
    }

    #[test]
    fn without_slices_the_first_end_is_the_last() {
        let mut meter = meter(100, 100);
        assert_eq!(meter.charge(100, 40), Ok(60));
        assert_eq!(meter.executed(60), 40);
        assert!(matches!(
            meter.out_of_instructions(-1),
            Err(Failure::InstructionLimit(100))
        ));
        assert_eq!(meter.executed(-50), 100);
    }

    #[test]
    fn a_charge_over_the_end_of_a_slice_owes_a_pause() {
        let mut meter = meter(100, 10);
        let counter = meter.charge(10, 14).unwrap();
        assert!(counter < 0, "the code's own check must lead to the pause");
        assert_eq!(meter.executed(counter), 14);
        let counter = meter.charge(counter, 2).unwrap();
        assert_eq!(meter.executed(counter), 16);
        let counter = meter.out_of_instructions(counter - 1).unwrap();
        assert_eq!(meter.executed(counter), 17);
        assert_eq!(counter, 6 - 3);
    }

    #[test]
    fn an_operation_above_two_slices_overruns() {
        let mut meter = meter(100, 10);
        let failure = meter.charge(10, 20).unwrap_err().0;
        assert_eq!(
            failure,
            Failure::SliceOverrun {
                instructions: 20,
                limit: 10
            }
        );
        assert_eq!(meter.charge(10, 19).map(|counter| meter.executed(counter)), Ok(19));
    }

    #[test]
    fn yielding_changes_no_total_and_no_limit() {
        // Charges by the System API and by the code (which sees a negative counter and asks for more), in slices of 10
        // and in a piece: the same totals, and the end at the same step.
        let steps = [7, 25, 1, 9, 40, 3, 10, 4, 1, 1];
        for limit in 90..105 {
            let run = |mut meter: Meter| {
                let mut counter = meter.initial_counter();
                let mut totals = Vec::new();
                for (number, step) in steps.into_iter().enumerate() {
                    let charged = if number % 2 == 0 {
                        meter.charge(counter, step).map_err(|(failure, _)| failure)
                    } else {
                        counter -= step as i64;
                        if counter < 0 {
                            meter.out_of_instructions(counter)
                        } else {
                            Ok(counter)
                        }
                    };
                    match charged {
                        Ok(next) => counter = next,
                        Err(failure) => return (totals, Some(failure)),
                    }
                    totals.push(meter.executed(counter));
                }
                (totals, None)
            };
            let limits = |slice| InstructionLimits {
                message: NumInstructions(limit),
                slice: NumInstructions(slice),
            };
            let (sliced, whole) = (run(Meter::yielding(limits(10))), run(Meter::new(limits(limit))));
            assert_eq!(sliced, whole, "limit {limit}");
            assert_eq!(sliced.1.is_none(), limit >= 101);
        }
    }

    #[test]
    fn an_amount_above_the_counter_charges_nothing() {
        let mut meter = meter(100, 10);
        let (failure, counter) = meter.charge(10, u64::MAX).unwrap_err();
        assert_eq!((failure, meter.executed(counter)), (Failure::InstructionLimit(10), 0));
    }
}
