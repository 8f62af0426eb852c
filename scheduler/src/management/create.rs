//! Canisters come into being.

use super::error;
use super::settings::{self, SettingsChange};
use super::types::{self, CanisterIdResult, CreateCanisterArgs, ProvisionalCreateArgs};
use super::work::{Reply, Work};
use crate::state::{CanisterChange, CanisterState, ChangeDetails, CyclesUseCase, ReplicatedState, SystemState};
use candid::Nat;
use replicore_types::limits::{CANISTERS_MAX, WASM_MEMORY_LIMIT_DEFAULT};
use replicore_types::{CanisterId, Cycles, ErrorCode, NumBytes, PrincipalId, SubnetConfig, UserError};
use std::sync::Arc;

/// What a canister starts with where its creator names no amount: for provisional creation, and for creation through
/// the subnet endpoint, where nobody could attach cycles.
pub(crate) const PROVISIONAL_CYCLES: Cycles = Cycles(100_000_000_000_000);

/// `create_canister`: paid with attached cycles, what is left of them is the first balance.
pub(crate) fn create<E>(work: &mut Work<'_, E>, args: CreateCanisterArgs) -> Result<Reply, UserError> {
    let mut settings = args.settings.unwrap_or_default();
    // A bound by default is a bound to the low-memory hook as well; other canisters have none to it.
    settings
        .wasm_memory_limit
        .get_or_insert_with(|| Nat::from(WASM_MEMORY_LIMIT_DEFAULT));
    let settings = SettingsChange::parse(settings)?;
    if work.caller.canister.is_none() {
        let cycles = (PROVISIONAL_CYCLES, Cycles::ZERO);
        return create_with(work, settings, None, cycles, args.sender_canister_version);
    }
    let fee = work.subnet().fee(SubnetConfig::canister_creation_fee);
    let sent = work.cycles;
    if sent < fee.taken {
        return Err(error::creation_fee_missing(sent, fee.taken));
    }
    let cycles = (sent - fee.taken, fee.counted);
    let reply = create_with(work, settings, None, cycles, args.sender_canister_version)?;
    work.cycles = Cycles::ZERO;
    Ok(reply)
}

/// `provisional_create_canister_with_cycles`: cycles out of nothing, for networks where they have no price.
pub(crate) fn create_with_cycles<E>(work: &mut Work<'_, E>, args: ProvisionalCreateArgs) -> Result<Reply, UserError> {
    let settings = SettingsChange::parse(args.settings.unwrap_or_default())?;
    let balance = provisional_amount(args.amount)?;
    let id = args
        .specified_id
        .map(|id| check_specified(work.state, id))
        .transpose()?;
    create_with(
        work,
        settings,
        id,
        (balance, Cycles::ZERO),
        args.sender_canister_version,
    )
}

/// The amount asked for, or the default.
pub(crate) fn provisional_amount(amount: Option<Nat>) -> Result<Cycles, UserError> {
    let Some(amount) = amount else {
        return Ok(PROVISIONAL_CYCLES);
    };
    u128::try_from(&amount.0).map(Cycles).map_err(|_| {
        error::setting_out_of_range(format!(
            "Cycles expected to be in the range of [0..2^128-1], got {amount}"
        ))
    })
}

fn create_with<E>(
    work: &mut Work<'_, E>,
    change: SettingsChange,
    specified: Option<CanisterId>,
    (balance, fee): (Cycles, Cycles),
    sender_version: Option<u64>,
) -> Result<Reply, UserError> {
    let now = work.now();
    let creator = work.caller.principal;
    // Checked on a canister that does not exist yet, so that a refused creation uses up no id.
    let candidate = SystemState::new(CanisterId::MANAGEMENT, settings::initial(creator), balance, now);
    let reservation = change.check(&candidate, NumBytes::ZERO, work.state)?;
    if work.state.canisters.len() >= CANISTERS_MAX {
        return Err(UserError::new(
            ErrorCode::MaxNumberOfCanistersReached,
            format!(
                "Subnet {} has reached the allowed canister limit of {CANISTERS_MAX} canisters.",
                work.state.metadata.subnet_id
            ),
        ));
    }
    let id = match specified {
        Some(id) => id,
        None => next_id(work.state)?,
    };
    let mut canister = CanisterState::new(SystemState {
        canister_id: id,
        ..candidate
    });
    change.apply(&mut canister.system.settings);
    settings::reserve(&mut canister.system, reservation);
    canister.system.consumed.add(CyclesUseCase::CanisterCreation, fee);
    let details = ChangeDetails::Creation {
        controllers: (*canister.system.settings.controllers).clone(),
        environment_variables_hash: settings::environment_hash_of(&canister),
    };
    let origin = work.change_origin(sender_version);
    Arc::make_mut(&mut canister.system.history).push(CanisterChange {
        timestamp: now,
        canister_version: 0,
        origin,
        details,
    });
    work.state.insert_canister(canister);
    types::encode(CanisterIdResult { canister_id: id.0 }).map(Reply::Now)
}

/// The next free id of the subnet's range.
fn next_id(state: &mut ReplicatedState) -> Result<CanisterId, UserError> {
    let last = state.metadata.canister_range.1.index().unwrap_or(0);
    while state.metadata.next_canister_index <= last {
        let id = CanisterId::from_index(state.metadata.next_canister_index);
        state.metadata.next_canister_index += 1;
        if !state.canisters.contains_key(&id) {
            return Ok(id);
        }
    }
    Err(UserError::new(
        ErrorCode::SubnetOversubscribed,
        "Could not create canister. Subnet has surpassed its canister ID allocation.",
    ))
}

/// A canister id that the caller chose: it must belong to the subnet and be free, now and as far as is known before.
fn check_specified(state: &ReplicatedState, id: PrincipalId) -> Result<CanisterId, UserError> {
    let id = CanisterId(id);
    let (first, last) = state.metadata.canister_range;
    let hosted = match (first.index(), id.index(), last.index()) {
        (Some(first), Some(index), Some(last)) => (first..=last).contains(&index),
        _ => false,
    };
    if !hosted {
        return Err(UserError::new(
            ErrorCode::CanisterNotHostedBySubnet,
            format!("Unsuccessful validation of specified ID: {id} is outside the range of canister ids of the subnet"),
        ));
    }
    if state.canister(&id).is_some() {
        return Err(UserError::new(
            ErrorCode::CanisterIdAlreadyExists,
            format!("Unsuccessful canister creation: canister id {id} already exists."),
        ));
    }
    Ok(id)
}
