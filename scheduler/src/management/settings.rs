//! Canister settings: parsing what was asked for, checking it against subnet and balance, applying it.

use super::error;
use super::footprint::{self, Footprint};
use super::types::{EnvironmentVariable, SettingsArgs, UpdateSettingsArgs, Visibility as VisibilityArgs};
use super::work::{Reply, Work};
use crate::state::{
    CanisterChange, CanisterSettings, CanisterState, ChangeDetails, CyclesUseCase, ReplicatedState, SubnetMessage,
    SystemState, Visibility,
};
use candid::Nat;
use replicore_types::fees::MemoryReservation;
use replicore_types::limits::{
    COMPUTE_ALLOCATION_TOTAL_MAX, CONTROLLERS_MAX, ENVIRONMENT_VARIABLE_BYTES_MAX, ENVIRONMENT_VARIABLES_MAX,
    LOG_BYTES_DEFAULT,
};
use replicore_types::{CanisterId, Cycles, NumBytes, PrincipalId, SubnetConfig, UserError};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bounds of the Wasm heap can be set up to this many bytes.
const WASM_MEMORY_BOUND_MAX: u64 = 1 << 48;
/// Bytes that the log may be allowed to take.
const LOG_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Principals in a list of viewers.
const VIEWERS_MAX: usize = 10;
/// A settings change of at most this size is paid for after it was made, so that it can unfreeze its canister.
const DELAYED_FEE_PAYLOAD_BYTES_MAX: usize = 366;

/// Settings to be changed, parsed: every value is in its range.
#[derive(Clone, Debug, Default)]
pub(crate) struct SettingsChange {
    controllers: Option<BTreeSet<PrincipalId>>,
    compute_allocation: Option<u64>,
    memory_allocation: Option<NumBytes>,
    freezing_threshold_seconds: Option<u64>,
    reserved_cycles_limit: Option<Cycles>,
    minimum_incoming_call_cycles: Option<Cycles>,
    wasm_memory_limit: Option<NumBytes>,
    wasm_memory_threshold: Option<NumBytes>,
    log_visibility: Option<Visibility>,
    snapshot_visibility: Option<Visibility>,
    status_visibility: Option<Visibility>,
    log_memory_limit: Option<NumBytes>,
    environment_variables: Option<BTreeMap<String, String>>,
}

/// The bound on controllers holds when the argument is decoded, before the canister is looked at.
///
/// # Errors
/// `InvalidManagementPayload` (IC0408).
pub(crate) fn check_controllers_bound(args: &SettingsArgs) -> Result<(), UserError> {
    match &args.controllers {
        Some(controllers) if controllers.len() > CONTROLLERS_MAX => Err(error::invalid_payload(format!(
            "Error decoding candid: The number of elements exceeds maximum allowed {CONTROLLERS_MAX}"
        ))),
        _ => Ok(()),
    }
}

impl SettingsChange {
    /// Parses what was asked for.
    ///
    /// # Errors
    /// `CanisterContractViolation` (IC0504) for the first value out of range, `InvalidManagementPayload` (IC0408) for
    /// lists that are too long or name something twice.
    pub fn parse(args: SettingsArgs) -> Result<Self, UserError> {
        check_controllers_bound(&args)?;
        let bytes = |nat: Option<Nat>, name: &str, max: u64| -> Result<Option<NumBytes>, UserError> {
            Ok(bounded(nat, max, |shown| {
                format!("{name} expected to be in the range of [0..2^64-1], got {shown}")
            })?
            .map(NumBytes))
        };
        Ok(Self {
            controllers: args.controllers.map(|list| list.into_iter().collect()),
            compute_allocation: bounded(args.compute_allocation, 100, |shown| {
                format!("ComputeAllocation expected to be in the range [0..100], got {shown}")
            })?,
            memory_allocation: bounded(args.memory_allocation, u64::MAX, |shown| {
                format!("MemoryAllocation expected to be in the range [0..2^64-1], got {shown}")
            })?
            .map(NumBytes),
            freezing_threshold_seconds: bounded(args.freezing_threshold, u64::MAX, |shown| {
                format!("Freezing threshold expected to be in the range of [0..2^64-1], got {shown}")
            })?,
            reserved_cycles_limit: parse_cycles(args.reserved_cycles_limit, "Reserved cycles limit")?,
            minimum_incoming_call_cycles: parse_cycles(
                args.minimum_incoming_canister_call_cycles,
                "Minimum incoming canister call cycles",
            )?,
            wasm_memory_limit: bytes(args.wasm_memory_limit, "Wasm memory limit", WASM_MEMORY_BOUND_MAX)?,
            wasm_memory_threshold: bytes(
                args.wasm_memory_threshold,
                "Wasm memory threshold",
                WASM_MEMORY_BOUND_MAX,
            )?,
            log_visibility: args.log_visibility.map(parse_visibility).transpose()?,
            snapshot_visibility: args.snapshot_visibility.map(parse_visibility).transpose()?,
            status_visibility: args.status_visibility.map(parse_visibility).transpose()?,
            log_memory_limit: args.log_memory_limit.map(parse_log_limit).transpose()?,
            environment_variables: args.environment_variables.map(parse_environment).transpose()?,
        })
    }

    /// Checks the change against the subnet and the canister's balance, and returns the cycles that [`reserve`] is to
    /// move for it. `system` is the canister as it is now; `memory` what it uses.
    ///
    /// # Errors
    /// `SubnetOversubscribed` (IC0101), `InsufficientCyclesInComputeAllocation` (IC0530),
    /// `InsufficientCyclesInMemoryAllocation` (IC0531), `ReservedCyclesLimitExceededInMemoryAllocation` (IC0533),
    /// `ReservedCyclesLimitIsTooLow` (IC0540).
    pub fn check(&self, system: &SystemState, memory: NumBytes, state: &ReplicatedState) -> Result<Cycles, UserError> {
        let allocation = self.memory_allocation.unwrap_or(system.settings.memory_allocation);
        let (held, wanted) = (system.settings.memory_allocation.max(memory), allocation.max(memory));
        let available = footprint::subnet_available_memory(state) + held;
        if wanted > available {
            return Err(error::subnet_memory_exceeded(wanted, available));
        }
        self.check_compute(
            system.settings.compute_allocation,
            state.metadata.compute_allocation_taken,
        )?;
        let subnet = &state.metadata.subnet;
        self.check_balance(system, memory, subnet)?;
        let reservation = subnet.storage_reservation(MemoryReservation {
            allocated: wanted - held,
            taken_before: NumBytes::ZERO,
            subnet_usage: state.metadata.memory_taken,
        });
        let limit = self
            .reserved_cycles_limit
            .unwrap_or(system.settings.reserved_cycles_limit);
        let reserved = system.reserved_balance + reservation;
        if system.reserved_balance > limit {
            return Err(error::reserved_limit_too_low(limit, system.reserved_balance));
        }
        if reserved > limit {
            return Err(error::reserved_limit_exceeded_by_allocation(
                allocation, reserved, limit,
            ));
        }
        if system.balance < reservation {
            return Err(error::memory_allocation_unpaid(
                allocation,
                reservation - system.balance,
            ));
        }
        Ok(reservation)
    }

    fn check_compute(&self, current: u64, taken: u64) -> Result<(), UserError> {
        let Some(requested) = self.compute_allocation else {
            return Ok(());
        };
        let available = COMPUTE_ALLOCATION_TOTAL_MAX.saturating_sub(taken.saturating_sub(current));
        if requested > current && requested > available {
            return Err(error::subnet_compute_exceeded(requested, available));
        }
        Ok(())
    }

    /// A larger allocation must not freeze the canister; other settings may.
    fn check_balance(&self, system: &SystemState, memory: NumBytes, subnet: &SubnetConfig) -> Result<(), UserError> {
        let more_compute = self
            .compute_allocation
            .filter(|new| *new > system.settings.compute_allocation);
        let more_memory = self
            .memory_allocation
            .filter(|new| *new > system.settings.memory_allocation);
        if more_compute.is_none() && more_memory.is_none() {
            return Ok(());
        }
        let mut changed = system.clone();
        self.apply(&mut changed.settings);
        let threshold = footprint::freezing_threshold(&changed, memory, subnet);
        if system.balance >= threshold {
            return Ok(());
        }
        let missing = threshold - system.balance;
        Err(match (more_compute, more_memory) {
            (Some(percent), _) => error::compute_allocation_unpaid(percent, missing),
            (None, memory) => error::memory_allocation_unpaid(memory.unwrap_or_default(), missing),
        })
    }

    /// Writes the change into `settings`.
    pub fn apply(&self, settings: &mut CanisterSettings) {
        fn set<T: Clone>(target: &mut T, value: &Option<T>) {
            if let Some(value) = value {
                *target = value.clone();
            }
        }
        if let Some(controllers) = &self.controllers {
            settings.controllers = Arc::new(controllers.clone());
        }
        if let Some(variables) = &self.environment_variables {
            settings.environment_variables = Arc::new(variables.clone());
        }
        if self.wasm_memory_limit.is_some() {
            settings.wasm_memory_limit = self.wasm_memory_limit;
        }
        set(&mut settings.compute_allocation, &self.compute_allocation);
        set(&mut settings.memory_allocation, &self.memory_allocation);
        set(
            &mut settings.freezing_threshold_seconds,
            &self.freezing_threshold_seconds,
        );
        set(&mut settings.reserved_cycles_limit, &self.reserved_cycles_limit);
        set(
            &mut settings.minimum_incoming_call_cycles,
            &self.minimum_incoming_call_cycles,
        );
        set(&mut settings.wasm_memory_threshold, &self.wasm_memory_threshold);
        set(&mut settings.log_visibility, &self.log_visibility);
        set(&mut settings.snapshot_visibility, &self.snapshot_visibility);
        set(&mut settings.status_visibility, &self.status_visibility);
        set(&mut settings.log_memory_limit, &self.log_memory_limit);
    }

    /// What the canister history records of the change; `None` where it records nothing.
    pub fn details(&self) -> Option<ChangeDetails> {
        let environment_variables_hash = self.environment_variables.as_ref().map(environment_hash);
        if self.controllers.is_none() && environment_variables_hash.is_none() {
            return None;
        }
        Some(ChangeDetails::SettingsChange {
            controllers: self.controllers.clone(),
            environment_variables_hash,
        })
    }
}

/// Moves cycles of the balance to those that are reserved for storage.
pub(crate) fn reserve(system: &mut SystemState, cycles: Cycles) {
    system.balance -= cycles;
    system.reserved_balance += cycles;
}

/// `update_settings`
pub(crate) fn update<E>(work: &mut Work<'_, E>, args: UpdateSettingsArgs) -> Result<Reply, UserError> {
    let id = CanisterId(args.canister_id);
    let canister = work.check_controller(id)?;
    let change = SettingsChange::parse(args.settings)?;
    let reservation = change.check(&canister.system, Footprint::of(canister).total(), work.state)?;
    let origin = work.change_origin(args.sender_canister_version);
    let now = work.now();
    let canister = work.canister_mut(id)?;
    change.apply(&mut canister.system.settings);
    let system = &mut canister.system;
    reserve(system, reservation);
    system.log.shrink_to(system.settings.log_memory_limit);
    system.version += 1;
    if let Some(details) = change.details() {
        let canister_version = system.version;
        Arc::make_mut(&mut system.history).push(CanisterChange {
            timestamp: now,
            canister_version,
            origin,
            details,
        });
    }
    footprint::update_low_memory_hook(canister);
    Ok(Reply::empty())
}

/// True for ingress messages whose induction fee is charged after their execution instead of before: small changes of
/// settings, which may be what brings a frozen canister back.
pub(crate) fn ingress_fee_is_delayed(method: &str, payload: &[u8]) -> bool {
    method == "update_settings" && payload.len() <= DELAYED_FEE_PAYLOAD_BYTES_MAX
}

/// Charges the fee that [`ingress_fee_is_delayed`] is about. A canister that cannot pay it keeps it.
pub(crate) fn charge_delayed_ingress_fee(message: &SubnetMessage, state: &mut ReplicatedState) {
    let SubnetMessage::Ingress(ingress) = message else {
        return;
    };
    if !ingress_fee_is_delayed(&ingress.method_name, &ingress.method_payload) {
        return;
    }
    let Ok(Some(id)) = super::effective_canister_id(&ingress.method_name, &ingress.method_payload) else {
        return;
    };
    let subnet = state.metadata.subnet;
    let Some(canister) = state.canister_mut(&id) else {
        return;
    };
    // Known here is the call, not the envelope that it came in: its name and its argument count.
    let bytes = NumBytes((ingress.method_name.len() + ingress.method_payload.len()) as u64);
    let fee = subnet.fee(|subnet| subnet.ingress_induction_cost(bytes));
    if footprint::missing_cycles(canister, fee.taken, &subnet).is_none() {
        canister.system.consume(fee, CyclesUseCase::IngressInduction);
    }
}

/// SHA-256 over the sorted concatenation of the hashes of names and values: the representation-independent hash of the
/// map.
pub(crate) fn environment_hash(variables: &BTreeMap<String, String>) -> [u8; 32] {
    let mut pairs: Vec<[u8; 64]> = variables
        .iter()
        .map(|(name, value)| {
            let mut pair = [0; 64];
            pair[..32].copy_from_slice(&Sha256::digest(name.as_bytes()));
            pair[32..].copy_from_slice(&Sha256::digest(value.as_bytes()));
            pair
        })
        .collect();
    pairs.sort_unstable();
    let mut hasher = Sha256::new();
    pairs.iter().for_each(|pair| hasher.update(pair));
    hasher.finalize().into()
}

/// The settings of a canister as it is created: the defaults, `creator` as the controller.
pub(crate) fn initial(creator: PrincipalId) -> CanisterSettings {
    CanisterSettings {
        controllers: Arc::new(BTreeSet::from([creator])),
        ..CanisterSettings::default()
    }
}

/// The canister's environment variables as the history shows them at creation.
pub(crate) fn environment_hash_of(canister: &CanisterState) -> Option<[u8; 32]> {
    let variables = &canister.system.settings.environment_variables;
    (!variables.is_empty()).then(|| environment_hash(variables))
}

fn bounded(nat: Option<Nat>, max: u64, text: impl Fn(&Nat) -> String) -> Result<Option<u64>, UserError> {
    let Some(nat) = nat else { return Ok(None) };
    match u64::try_from(&nat.0) {
        Ok(number) if number <= max => Ok(Some(number)),
        _ => Err(error::setting_out_of_range(text(&nat))),
    }
}

fn parse_cycles(nat: Option<Nat>, name: &str) -> Result<Option<Cycles>, UserError> {
    let Some(nat) = nat else { return Ok(None) };
    match u128::try_from(&nat.0) {
        Ok(cycles) => Ok(Some(Cycles(cycles))),
        Err(_) => Err(error::setting_out_of_range(format!(
            "{name} expected to be in the range of [0..2^128-1], got {nat}"
        ))),
    }
}

fn parse_log_limit(nat: Nat) -> Result<NumBytes, UserError> {
    // No log at all, or at least a page of one.
    match u64::try_from(&nat.0) {
        Ok(bytes) if (1..LOG_BYTES_DEFAULT as u64).contains(&bytes) => Err(error::rejected(format!(
            "The canister log memory limit {bytes} is too low. It must be at least {LOG_BYTES_DEFAULT}."
        ))),
        Ok(bytes) if bytes > LOG_BYTES_MAX => Err(error::rejected(format!(
            "The canister log memory limit {bytes} is too high. It must be at most {LOG_BYTES_MAX}."
        ))),
        Ok(bytes) => Ok(NumBytes(bytes)),
        Err(_) => Err(error::setting_out_of_range(format!(
            "Log memory limit expected to be in the range of [0..2^64-1], got {nat}"
        ))),
    }
}

fn parse_visibility(visibility: VisibilityArgs) -> Result<Visibility, UserError> {
    Ok(match visibility {
        VisibilityArgs::Controllers => Visibility::Controllers,
        VisibilityArgs::Public => Visibility::Public,
        VisibilityArgs::AllowedViewers(viewers) if viewers.len() > VIEWERS_MAX => {
            return Err(error::invalid_payload(format!(
                "Error decoding candid: The number of elements exceeds maximum allowed {VIEWERS_MAX}"
            )));
        }
        VisibilityArgs::AllowedViewers(viewers) => Visibility::AllowedViewers(viewers.into_iter().collect()),
    })
}

fn parse_environment(variables: Vec<EnvironmentVariable>) -> Result<BTreeMap<String, String>, UserError> {
    let (count, max) = (variables.len(), ENVIRONMENT_VARIABLES_MAX);
    let length_max = ENVIRONMENT_VARIABLE_BYTES_MAX;
    if count > max {
        return Err(error::invalid_payload(format!(
            "Too many environment variables: {count} (max: {max})"
        )));
    }
    let mut map = BTreeMap::new();
    for EnvironmentVariable { name, value } in variables {
        if name.len() > length_max {
            return Err(error::invalid_payload(format!(
                "Environment variable name \"{name}\" exceeds the maximum allowed length of {length_max}."
            )));
        }
        if value.len() > length_max {
            return Err(error::invalid_payload(format!(
                "Environment variable value \"{value}\" exceeds the maximum allowed length of {length_max}."
            )));
        }
        if map.insert(name, value).is_some() {
            return Err(error::invalid_payload(
                "Duplicate environment variables are not allowed.",
            ));
        }
    }
    Ok(map)
}
