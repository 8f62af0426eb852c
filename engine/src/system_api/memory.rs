//! Growth of heap and stable memory: limits, allocation, reservation.

use super::{Host, MessageState};
use crate::trap::Failure;
use replicore_types::fees::MemoryReservation;
use replicore_types::{NumBytes, WASM_PAGE_BYTES};

/// Books growth of the heap by `additional` Wasm pages from `current`; called before the heap grows.
pub(crate) fn try_grow_heap(host: &mut Host<'_, '_>, current: u64, additional: u64) -> Result<(), Failure> {
    let page = WASM_PAGE_BYTES as u64;
    let added = NumBytes(additional.saturating_mul(page));
    let size = NumBytes(current.saturating_add(additional).saturating_mul(page));
    let message = host.message();
    let limit = message.view.memory.wasm_memory_limit;
    if !limit.get().eq(&0) && size > limit && additional > 0 {
        return Err(Failure::WasmMemoryLimit { bytes: size, limit });
    }
    allocate(message, added)?;
    message.note_low_wasm_memory(size);
    Ok(())
}

/// Books `added` bytes of memory usage.
///
/// # Errors
/// When the subnet has no room, when the canister would freeze, or when cycles cannot be reserved.
pub(super) fn allocate(message: &mut MessageState, added: NumBytes) -> Result<(), Failure> {
    message.reads.resources = true;
    let (old, new) = (message.memory_usage(), message.memory_usage() + added);
    if added.get() == 0 {
        return Ok(());
    }
    let allocation = message.view.memory.memory_allocation;
    let allocated = new.max(allocation) - old.max(allocation);
    if message.mode.checks_freezing_threshold() && allocated.get() > 0 {
        let threshold = message.freezing_threshold(new);
        let balance = message.balance();
        if balance < threshold {
            return Err(Failure::InsufficientCyclesInMemoryGrow {
                bytes: allocated,
                missing: message.caller_is_controller().then_some(threshold - balance),
            });
        }
    }
    if message.mode.takes_subnet_memory() && allocated.get() > 0 {
        let taken = message.subnet_memory_taken();
        if allocated > message.view.memory.subnet_available_memory - taken {
            return Err(Failure::OutOfMemory);
        }
        reserve(message, allocated, taken)?;
    }
    message.memory_growth += added;
    Ok(())
}

/// Moves cycles to the reserved balance where the subnet is fuller than its threshold.
fn reserve(message: &mut MessageState, allocated: NumBytes, taken: NumBytes) -> Result<(), Failure> {
    let reserved = message.view.subnet.storage_reservation(MemoryReservation {
        allocated,
        taken_before: taken,
        subnet_usage: message.view.memory.subnet_memory_usage,
    });
    if reserved.is_zero() {
        return Ok(());
    }
    let requested = message.view.reserved_balance + message.cycles_reserved + reserved;
    if let Some(limit) = message.view.reserved_balance_limit
        && requested > limit
    {
        return Err(Failure::ReservedCyclesLimitInMemoryGrow {
            bytes: allocated,
            requested,
            limit,
        });
    }
    let balance = message.balance();
    if balance < reserved {
        return Err(Failure::InsufficientCyclesInMemoryGrow {
            bytes: allocated,
            missing: message.caller_is_controller().then_some(reserved - balance),
        });
    }
    message.cycles_reserved += reserved;
    Ok(())
}

impl MessageState {
    fn caller_is_controller(&self) -> bool {
        self.view.controllers.contains(&self.caller)
    }

    /// Subnet memory that this message has taken so far.
    fn subnet_memory_taken(&self) -> NumBytes {
        let allocation = self.view.memory.memory_allocation;
        self.memory_usage().max(allocation) - self.view.memory.memory_usage.max(allocation)
    }

    /// The low-memory hook is due once less than the threshold is left below the limit.
    fn note_low_wasm_memory(&mut self, heap: NumBytes) {
        let threshold = self.view.memory.wasm_memory_threshold;
        let limit = match self.view.memory.wasm_memory_limit {
            NumBytes(0) => NumBytes(replicore_types::limits::WASM32_HEAP_BYTES_MAX),
            limit => limit,
        };
        self.low_wasm_memory |= threshold.get() > 0 && heap + threshold > limit;
    }
}
