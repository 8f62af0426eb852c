//! What one round may do. Every bound is a function of the state and the batch, so that a round is the same on any
//! number of cores and on any machine.
//!
//! The unit is the instruction; work that is not Wasm counts as the instructions that take about as long.

/// Instructions of one canister in one round beyond which it starts nothing more. A message that began before may add
/// a slice.
pub const CANISTER_ROUND_INSTRUCTIONS_MAX: u64 = 2_000_000_000;

/// Instructions of all canisters in one round beyond which nothing more is started: four cores, one second.
pub const ROUND_TOTAL_INSTRUCTIONS_MAX: u64 = 8_000_000_000;

/// What starting and finishing a message counts for. It bounds the number of messages of a round: 20,000 per canister,
/// 80,000 in all.
pub const MESSAGE_OVERHEAD_INSTRUCTIONS: u64 = 100_000;

/// Messages that one canister executes before its outputs are routed and others have their turn.
pub const TURN_MESSAGES_MAX: u32 = 1_000;

/// Canisters that start together while nothing is known of their weight; see [`next_wave`].
pub const FIRST_WAVE_CANISTERS: usize = 8;

/// How the next wave of an iteration grows: while canisters turn out to be light, more of them start together. The sum
/// of a wave stays within what is left of the round, judged by the heaviest canister of the wave before.
pub fn next_wave(last: usize, heaviest_instructions: u64, left_instructions: u64) -> usize {
    let affordable = left_instructions / heaviest_instructions.max(1);
    let affordable = usize::try_from(affordable).unwrap_or(usize::MAX);
    (last * 4).min(affordable).max(FIRST_WAVE_CANISTERS / 2)
}

/// Instructions that management calls may use in one iteration; the call that exceeds it is the last one.
pub const MANAGEMENT_ITERATION_INSTRUCTIONS_MAX: u64 = 500_000_000;

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
}
