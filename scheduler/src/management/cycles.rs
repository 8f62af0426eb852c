//! Cycles for a canister from others.

use super::create::provisional_amount;
use super::types::{CanisterIdArgs, ProvisionalTopUpArgs};
use super::work::{Reply, Work};
use replicore_types::{CanisterId, Cycles, UserError};

/// `deposit_cycles`: all attached cycles, from any canister.
pub(crate) fn deposit<E>(work: &mut Work<'_, E>, args: &CanisterIdArgs) -> Result<Reply, UserError> {
    let cycles = work.cycles;
    work.canister_mut(CanisterId(args.canister_id))?.system.balance += cycles;
    work.cycles = Cycles::ZERO;
    Ok(Reply::empty())
}

/// `provisional_top_up_canister`: cycles out of nothing.
pub(crate) fn top_up<E>(work: &mut Work<'_, E>, args: &ProvisionalTopUpArgs) -> Result<Reply, UserError> {
    let amount = provisional_amount(Some(args.amount.clone()))?;
    work.canister_mut(CanisterId(args.canister_id))?.system.balance += amount;
    Ok(Reply::empty())
}
