//! Storage and compute, charged by the time that has passed.

use crate::limits::{CHARGE_INTERVAL, CHARGES_PER_ROUND_MAX};
use crate::management;
use crate::round::Round;
use crate::state::{CanisterState, ChangeOrigin, CyclesUseCase, SystemState};
use replicore_engine::Execute;
use replicore_types::fees::Fee;
use replicore_types::{CanisterId, Cycles, NumBytes, SubnetConfig, Time};

impl<E: Execute> Round<'_, E> {
    /// Charges the canisters that have not paid for a charge interval. One that cannot pay loses its code and what is
    /// left of its balance.
    pub fn charge(&mut self) {
        let now = self.context.time;
        let Some(paid_until) = now.0.checked_sub(CHARGE_INTERVAL.as_nanos() as u64) else {
            return;
        };
        let due: Vec<CanisterId> = self
            .state
            .activity
            .unpaid(Time(paid_until))
            .take(CHARGES_PER_ROUND_MAX)
            .collect();
        let subnet = self.context.subnet;
        for id in due {
            if self.state.is_between_slices(&id) {
                // What a message between slices sees must not change; its canister pays when it has ended.
                continue;
            }
            let Some(canister) = self.state.canister_mut(&id) else {
                continue;
            };
            if charge_until(canister, now, &subnet) {
                continue;
            }
            let origin = ChangeOrigin::Canister {
                canister: CanisterId::MANAGEMENT,
                version: None,
            };
            let answers = management::remove_code(canister, origin, now);
            // What is promised to it would have to be paid for as well.
            canister.system.settings.compute_allocation = 0;
            canister.system.settings.memory_allocation = NumBytes::ZERO;
            for answer in answers {
                self.deliver_answer(answer);
            }
            self.wake(id);
        }
        // Answers of canisters that lost their code.
        self.route();
    }
}

/// Charges a canister up to `now`. False where it could not pay: then its balance is zero.
fn charge_until(canister: &mut CanisterState, now: Time, subnet: &SubnetConfig) -> bool {
    let duration = now.since(canister.system.charged_until);
    canister.system.charged_until = now;
    let (taken, messages) = (
        canister.memory_taken(),
        NumBytes(canister.system.queues.message_bytes()),
    );
    let percent = canister.system.settings.compute_allocation;
    let memory = subnet.fee(|subnet| subnet.storage_charge(taken, duration));
    let messages = subnet.fee(|subnet| subnet.storage_charge(messages, duration));
    let compute = subnet.fee(|subnet| subnet.compute_allocation_cost(percent, duration));
    let fees = [
        (memory, CyclesUseCase::Memory),
        (messages, CyclesUseCase::Memory),
        (compute, CyclesUseCase::ComputeAllocation),
    ];
    fees.into_iter()
        .all(|(fee, use_case)| take(&mut canister.system, fee, use_case))
}

/// Takes a fee, storage from the reserved balance first. Where it is not covered everything that is left is taken.
fn take(system: &mut SystemState, fee: Fee, use_case: CyclesUseCase) -> bool {
    let from_reserved = match use_case {
        CyclesUseCase::Memory => fee.taken.min(system.reserved_balance),
        _ => Cycles::ZERO,
    };
    let rest = fee.taken - from_reserved;
    if system.balance < rest {
        let left = system.balance + system.reserved_balance;
        system.consumed.add(CyclesUseCase::Uninstall, left);
        system.balance = Cycles::ZERO;
        system.reserved_balance = Cycles::ZERO;
        return false;
    }
    system.reserved_balance -= from_reserved;
    system.balance -= rest;
    system.consumed.add(use_case, fee.counted);
    true
}
