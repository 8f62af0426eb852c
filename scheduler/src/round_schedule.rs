//! In which order canisters run: who waited longest and who paid for compute comes first.
//!
//! Every canister collects its compute allocation for each round that passes and pays for each round in which it ran
//! all its inputs. Order is by what it has, then by the round in which it last ran in full, then by id. Rounds in which
//! nothing waits cost nothing: what was collected is computed from the height.

use crate::state::{Priority, ReplicatedState};
use replicore_types::{CanisterId, Height};

/// What a full execution costs, in percent of a round.
const FULL_EXECUTION: i64 = 100;
/// Credit and debt that are remembered.
const ACCUMULATED_MAX: i64 = 2_000;

/// The runnable canisters in the order in which they run: long executions first, they hold a prepayment.
pub(crate) fn order(state: &ReplicatedState, mut runnable: Vec<CanisterId>) -> Vec<CanisterId> {
    let height = state.metadata.height.0;
    runnable.sort_by_cached_key(|id| {
        let Some(canister) = state.canister(id) else {
            return (false, i64::MAX, u64::MAX, *id);
        };
        let priority = &canister.priority;
        let waited = i64::try_from(height.saturating_sub(priority.last_full_execution)).unwrap_or(i64::MAX);
        let allocation = i64::try_from(canister.system.settings.compute_allocation).unwrap_or(0);
        // A round of waiting weighs one percent for everybody, and the allocation on top of it.
        let credit = priority
            .accumulated
            .saturating_add(waited.saturating_mul(allocation + 1).min(ACCUMULATED_MAX));
        (
            canister.paused.is_none(),
            credit.saturating_neg(),
            priority.last_full_execution,
            *id,
        )
    });
    runnable
}

/// Accounts for a round in which the canister ran; `was_full` where nothing of it is left over.
pub(crate) fn after_round(priority: &mut Priority, height: Height, was_full: bool) {
    if was_full {
        let waited = i64::try_from(height.0.saturating_sub(priority.last_full_execution)).unwrap_or(i64::MAX);
        let credit = waited.min(ACCUMULATED_MAX);
        let after = priority
            .accumulated
            .saturating_add(credit)
            .saturating_sub(FULL_EXECUTION);
        priority.accumulated = after.clamp(-ACCUMULATED_MAX, 0);
        priority.last_full_execution = height.0;
    }
}
