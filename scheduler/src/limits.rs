//! What one round may do. Every bound is a function of the state and the batch, so that a round is the same on any
//! number of cores and on any machine.
//!
//! The unit is the instruction; work that is not Wasm counts as the instructions that take about as long.
//!
//! Two measures bound a round. Its *path* is the longest turn of every iteration, one after the other: what the round
//! takes however many cores there are. Its *total* is the work of all canisters: what it takes on the cores there are.

use replicore_types::NumBytes;
use replicore_types::limits::{
    CALLBACK_SHARES, CALLBACKS_GUARANTEED_PER_CANISTER, CALLBACKS_MAX, MESSAGE_MEMORY_BYTES_MAX,
    MESSAGE_MEMORY_GUARANTEED_PER_CANISTER_BYTES, MESSAGE_MEMORY_SHARES, ROUND_INSTRUCTIONS_MAX,
    SLICE_INSTRUCTIONS_MAX,
};

/// Instructions on the path of a round beyond which nothing more is started. A message that began before may add a
/// slice.
pub const ROUND_PATH_INSTRUCTIONS_MAX: u64 = ROUND_INSTRUCTIONS_MAX - SLICE_INSTRUCTIONS_MAX + 1;

/// What a message counts for on the path, beside its instructions. It bounds the messages that one canister executes in
/// a round to 1,000.
pub const PATH_MESSAGE_INSTRUCTIONS: u64 = 2_000_000;

/// What a turn that executed anything counts for on the path, beside its messages. It bounds the iterations of a round,
/// and with them the calls that follow from each other in it, to 200.
pub const PATH_TURN_INSTRUCTIONS: u64 = 8_000_000;

/// Instructions of all canisters in one round beyond which nothing more is started: four cores, one second.
pub const ROUND_TOTAL_INSTRUCTIONS_MAX: u64 = 8_000_000_000;

/// What a message counts for in the total: about as long as starting and finishing it takes. It bounds the messages of a
/// round to 80,000.
pub const TOTAL_MESSAGE_INSTRUCTIONS: u64 = 100_000;

/// Canisters that start together while nothing is known of their weight; see [`next_wave`]. These run in every round,
/// whatever they weigh: half of them are what fairness rests on.
pub const FIRST_WAVE_CANISTERS: usize = 8;

/// How the next wave of an iteration grows: while canisters turn out to be light, more of them start together. The sum
/// of a wave stays within what is left of the round, judged by the heaviest canister of the wave before.
pub fn next_wave(last: usize, heaviest_instructions: u64, left_instructions: u64) -> usize {
    let affordable = left_instructions / heaviest_instructions.max(1);
    let affordable = usize::try_from(affordable).unwrap_or(usize::MAX);
    (last * 4).min(affordable).max(FIRST_WAVE_CANISTERS / 2)
}

/// Canisters whose turn may be executed ahead of their wave at one time: what a round may execute in vain.
pub const TURNS_AHEAD_MAX: usize = 32;

/// Open calls that one canister may hold where all canisters together hold `open` when the round begins.
pub fn callbacks_allowed(open: usize) -> usize {
    (CALLBACKS_MAX.saturating_sub(open) / CALLBACK_SHARES).max(CALLBACKS_GUARANTEED_PER_CANISTER)
}

/// Message memory that one canister may hold where all canisters together hold `held` when the round begins.
pub fn message_memory_allowed(held: NumBytes) -> NumBytes {
    let share = MESSAGE_MEMORY_BYTES_MAX.saturating_sub(held.0) / MESSAGE_MEMORY_SHARES;
    NumBytes(share.max(MESSAGE_MEMORY_GUARANTEED_PER_CANISTER_BYTES))
}

/// Management calls that are executed side by side: as many as the total of a round counts cores.
pub const MANAGEMENT_WAVE_CALLS: usize = 4;

/// Instructions that management calls may use in one iteration; the wave that exceeds it is the last one.
pub const MANAGEMENT_ITERATION_INSTRUCTIONS_MAX: u64 = 500_000_000;

/// Instructions of management calls and of the code install under way beyond which a round takes up no further call:
/// however many installs come, canisters keep their own part of the round.
pub const MANAGEMENT_ROUND_INSTRUCTIONS_MAX: u64 = 2_000_000_000;

/// What a management call counts for beside the instructions it reports.
pub const MANAGEMENT_CALL_OVERHEAD_INSTRUCTIONS: u64 = 500_000;

/// Storage and compute are charged when this much time has passed since the last charge.
pub const CHARGE_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);

/// Canisters charged in one round, those first that have waited longest: it keeps the round short where 100,000
/// canisters are due at once. What they pay is by time, so nothing is lost.
pub const CHARGES_PER_ROUND_MAX: usize = 1_000;

/// Part of the message limit kept for cleanup after a callback that used up its own part, in percent.
pub const CLEANUP_INSTRUCTIONS_PERCENT: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_grow_while_canisters_are_light_and_never_stop() {
        assert_eq!(next_wave(8, 1_000, ROUND_TOTAL_INSTRUCTIONS_MAX), 32);
        assert_eq!(next_wave(1_024, 1_000_000_000, 3_000_000_000), 4);
        assert_eq!(next_wave(8, u64::MAX, 0), 4);
    }

    #[test]
    fn open_calls_are_shared_and_some_are_everybodys() {
        assert_eq!(callbacks_allowed(0), 250_000);
        assert_eq!(callbacks_allowed(600_000), 100_000);
        assert_eq!(callbacks_allowed(1_000_000), 50);
        assert_eq!(callbacks_allowed(usize::MAX), 50);
    }

    #[test]
    fn message_memory_is_shared_and_some_is_everybodys() {
        assert_eq!(message_memory_allowed(NumBytes(0)), NumBytes(5 << 30));
        assert_eq!(message_memory_allowed(NumBytes(16 << 30)), NumBytes(1 << 30));
        assert_eq!(message_memory_allowed(NumBytes(20 << 30)), NumBytes(100 << 20));
        assert_eq!(message_memory_allowed(NumBytes(u64::MAX)), NumBytes(100 << 20));
    }
}
