//! What a canister occupies, what that costs to keep, and what of its balance is free to spend.

use super::error;
use crate::state::{CanisterState, CyclesUseCase, LowMemoryHook, ReplicatedState, SystemMetadata, SystemState};
use replicore_engine::ExecutionState;
use replicore_types::fees::{MemoryReservation, WasmWidth, available_share};
use replicore_types::limits::{CHUNK_BYTES_MAX, WASM32_HEAP_BYTES_MAX};
use replicore_types::{Cycles, NumBytes, NumInstructions, SubnetConfig, UserError};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes that one persisted global is charged as.
const GLOBAL_BYTES: u64 = 32;

/// The memory of a canister by what it is used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footprint {
    pub heap: u64,
    pub stable: u64,
    pub globals: u64,
    pub module: u64,
    pub custom_sections: u64,
    pub history: u64,
    pub chunk_store: u64,
    pub snapshots: u64,
}

impl Footprint {
    /// What `canister` occupies.
    pub fn of(canister: &CanisterState) -> Self {
        let system = Self::of_system(&canister.system);
        match &canister.execution {
            Some(execution) => Self {
                ..system.with_execution(execution)
            },
            None => system,
        }
    }

    /// What the canister occupies beside its code and memories.
    fn of_system(system: &SystemState) -> Self {
        Self {
            history: system.history.bytes(),
            chunk_store: (system.chunk_store.chunks.len() * CHUNK_BYTES_MAX) as u64,
            snapshots: system.snapshots.values().map(|snapshot| snapshot.size.0).sum(),
            ..Self::default()
        }
    }

    /// The same canister with other code and memories.
    pub fn with_execution(self, execution: &ExecutionState) -> Self {
        let sections = &execution.interface.custom_sections;
        Self {
            heap: execution.heap.size_bytes(),
            stable: execution.stable.size_bytes(),
            // The instruction counter is a global too.
            globals: (execution.globals.len() as u64 + 1) * GLOBAL_BYTES,
            module: execution.module.bytes.len() as u64,
            custom_sections: sections
                .iter()
                .map(|(name, section)| (name.len() + section.content.len() + 1) as u64)
                .sum(),
            ..self
        }
    }

    /// Everything that storage is charged for.
    pub fn total(&self) -> NumBytes {
        NumBytes(
            self.heap
                + self.stable
                + self.globals
                + self.module
                + self.custom_sections
                + self.history
                + self.chunk_store
                + self.snapshots,
        )
    }
}

/// Cycles per day for doing nothing, with `memory` in use.
pub(crate) fn idle_cycles_per_day(system: &SystemState, memory: NumBytes, subnet: &SubnetConfig) -> Cycles {
    let held = memory.max(system.settings.memory_allocation);
    subnet.storage_cost(held, DAY)
        + subnet.storage_cost(NumBytes(system.queues.message_bytes()), DAY)
        + subnet.compute_allocation_cost(system.settings.compute_allocation, DAY)
}

/// The balance below which the canister is frozen, with `memory` in use.
pub(crate) fn freezing_threshold(system: &SystemState, memory: NumBytes, subnet: &SubnetConfig) -> Cycles {
    let per_day = idle_cycles_per_day(system, memory, subnet);
    let seconds = u128::from(system.settings.freezing_threshold_seconds);
    Cycles(per_day.0.saturating_mul(seconds) / u128::from(DAY.as_secs())) - system.reserved_balance
}

/// Cycles that are missing for paying `amount` without freezing; `None` where it can be paid.
pub(crate) fn missing_cycles(canister: &CanisterState, amount: Cycles, subnet: &SubnetConfig) -> Option<Cycles> {
    let needed = freezing_threshold(&canister.system, Footprint::of(canister).total(), subnet) + amount;
    let available = canister.system.balance;
    (available < needed).then(|| needed - available)
}

/// Charges a canister for work that the management canister does for it.
///
/// # Errors
/// `CanisterOutOfCycles` (IC0207); nothing is charged then.
pub(crate) fn charge_instructions(
    canister: &mut CanisterState,
    instructions: NumInstructions,
    subnet: &SubnetConfig,
) -> Result<(), UserError> {
    let cost = subnet.fee(|subnet| subnet.instructions_cost(instructions, WasmWidth::Wasm32));
    if let Some(missing) = missing_cycles(canister, cost.taken, subnet) {
        return Err(error::out_of_cycles(canister.system.canister_id, missing));
    }
    canister.system.consume(cost, CyclesUseCase::Instructions);
    Ok(())
}

/// Subnet memory that one operation may still take.
pub(crate) fn subnet_available_memory(state: &ReplicatedState) -> NumBytes {
    available_share(state.metadata.memory_taken)
}

/// What the growth of a canister's memory from `before` to `after` asks of the subnet and of the balance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growth {
    /// Memory usage before.
    pub before: NumBytes,
    /// Memory usage after.
    pub after: NumBytes,
    /// Subnet memory still free.
    pub available: NumBytes,
    /// Subnet memory in use.
    pub taken: NumBytes,
}

impl Growth {
    /// Growth of one canister of `state`.
    pub fn new(state: &ReplicatedState, before: NumBytes, after: NumBytes) -> Self {
        Self::on(&state.metadata, before, after)
    }

    /// Growth of one canister of a subnet.
    pub fn on(metadata: &SystemMetadata, before: NumBytes, after: NumBytes) -> Self {
        Self {
            before,
            after,
            available: available_share(metadata.memory_taken),
            taken: metadata.memory_taken,
        }
    }

    /// Checks that the growth fits the subnet and leaves the canister unfrozen, and moves the cycles that are to be
    /// reserved for it from `system`'s balance.
    ///
    /// # Errors
    /// `SubnetOversubscribed`, `InsufficientCyclesInMemoryGrow`, `ReservedCyclesLimitExceededInMemoryGrow`; nothing is
    /// moved then.
    pub fn pay(&self, system: &mut SystemState, subnet: &SubnetConfig) -> Result<(), UserError> {
        let allocation = system.settings.memory_allocation;
        let taken = self.after.max(allocation) - self.before.max(allocation);
        if taken.is_zero() {
            return Ok(());
        }
        if taken > self.available {
            return Err(error::subnet_memory_exceeded(taken, self.available));
        }
        let reservation = subnet.storage_reservation(MemoryReservation {
            allocated: taken,
            taken_before: NumBytes::ZERO,
            subnet_usage: self.taken,
        });
        let threshold = freezing_threshold(system, self.after, subnet);
        let needed = threshold + reservation;
        if system.balance < needed {
            return Err(error::memory_growth_unpaid(taken, needed - system.balance));
        }
        let reserved = system.reserved_balance + reservation;
        let limit = system.settings.reserved_cycles_limit;
        if !reservation.is_zero() && reserved > limit {
            return Err(error::reserved_limit_exceeded(taken, reserved, limit));
        }
        system.balance -= reservation;
        system.reserved_balance = reserved;
        Ok(())
    }
}

/// Brings the state of the low-memory hook up to date with memory use and settings. A bound of zero counts as a bound
/// here, and an absent one as 4 GiB.
pub(crate) fn update_low_memory_hook(canister: &mut CanisterState) {
    let Some(execution) = &canister.execution else { return };
    let settings = &canister.system.settings;
    let heap = execution.heap.size_bytes();
    let mut capacity = settings
        .wasm_memory_limit
        .map_or(WASM32_HEAP_BYTES_MAX, |limit| limit.0);
    if !settings.memory_allocation.is_zero() {
        let others = Footprint::of(canister).total().0 - heap;
        capacity = capacity.min(settings.memory_allocation.0.saturating_sub(others));
    }
    let low = capacity < heap.saturating_add(settings.wasm_memory_threshold.0);
    canister.system.low_memory_hook = match (low, canister.system.low_memory_hook) {
        (false, _) => LowMemoryHook::NotSatisfied,
        (true, LowMemoryHook::Executed) => LowMemoryHook::Executed,
        (true, _) => LowMemoryHook::Ready,
    };
}
