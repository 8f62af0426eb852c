//! Running `start`, `canister_init`, `canister_pre_upgrade` and `canister_post_upgrade` on a canister that may yet be
//! thrown away.

use super::error;
use super::footprint::Footprint;
use crate::state::{CanisterState, CyclesUseCase, SystemMetadata, SystemState};
use replicore_engine::{
    Call, CallContextView, EntryPoint, Execute, ExecutionOutcome, InstructionLimits, LogRecord, MemoryView,
    PausedExecution, SystemChanges, SystemView,
};
use replicore_types::fees::available_share;
use replicore_types::limits::{SLICE_INSTRUCTIONS_MAX, SYSTEM_INSTALL_CODE_SLICE_INSTRUCTIONS_MAX};
use replicore_types::{CallbackId, NumBytes, NumInstructions, PrincipalId, SubnetType, UserError};
use std::sync::Arc;

/// What hooks of one `install_code` share, from the first slice to the last.
pub(crate) struct Hooks {
    /// The subnet as it was when the call began: what a hook sees does not depend on the rounds that it takes.
    pub metadata: SystemMetadata,
    caller: PrincipalId,
    /// Instructions of everything that has ended, compiling included.
    pub used: NumInstructions,
    /// What all of it together may use.
    limit: NumInstructions,
    /// After how many instructions a hook pauses until the next round.
    slice: NumInstructions,
    /// Log records of hooks, those of a failed one included.
    pub log: Vec<LogRecord>,
    /// The hook between two slices.
    paused: Option<PausedExecution>,
}

/// How far a hook came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookProgress {
    /// It ended, or there is none.
    Ended,
    /// It used up its slice: run it again in the next round.
    Paused,
}

impl Hooks {
    /// Nothing has run yet.
    pub fn new(metadata: SystemMetadata, caller: PrincipalId, limit: NumInstructions) -> Self {
        let slice = match metadata.subnet.subnet_type {
            SubnetType::System => SYSTEM_INSTALL_CODE_SLICE_INSTRUCTIONS_MAX,
            SubnetType::Application | SubnetType::VerifiedApplication | SubnetType::CloudEngine => {
                SLICE_INSTRUCTIONS_MAX
            }
        };
        Self {
            metadata,
            caller,
            used: NumInstructions::ZERO,
            limit,
            slice: NumInstructions(slice),
            log: Vec::new(),
            paused: None,
        }
    }

    /// Instructions of everything so far, those of a paused hook included.
    pub fn executed(&self) -> NumInstructions {
        let paused = self
            .paused
            .as_ref()
            .map_or(NumInstructions::ZERO, |paused| paused.instructions);
        self.used + paused
    }

    /// Runs `entry_point` on `canister`, if its module exports `name`, and applies what it changes once it has ended;
    /// goes on with it where it is paused. `bounded` says whether the canister's own limit of the heap holds.
    ///
    /// # Errors
    /// Why the hook failed, as the caller of `install_code` reads it. `canister` is as before, its log aside.
    pub fn run<E: Execute>(
        &mut self,
        engine: &E,
        canister: &mut CanisterState,
        name: &str,
        entry_point: EntryPoint,
        bounded: bool,
    ) -> Result<HookProgress, UserError> {
        let view = Arc::new(self.view(canister, bounded));
        let Some(execution) = canister
            .execution
            .as_mut()
            .filter(|execution| execution.interface.has(name))
        else {
            return Ok(HookProgress::Ended);
        };
        let outcome = match self.paused.take() {
            Some(paused) => engine.resume(execution, paused),
            None => {
                let message = self.limit - self.used;
                let limits = InstructionLimits {
                    message,
                    slice: self.slice.min(message),
                };
                let call = Call {
                    entry_point,
                    caller: self.caller,
                    caller_info: None,
                    call_context: CallContextView::default(),
                    message_id: None,
                    view: &view,
                };
                engine.execute(execution, call, limits)
            }
        };
        let done = match outcome {
            ExecutionOutcome::Finished(done) => *done,
            ExecutionOutcome::Paused(paused) => {
                self.paused = Some(paused);
                return Ok(HookProgress::Paused);
            }
        };
        self.used += done.instructions;
        self.log.extend(done.changes.log.iter().cloned());
        match done.result {
            Ok(_) => {
                apply(&mut canister.system, done.changes);
                Ok(HookProgress::Ended)
            }
            Err(failure) => Err(error::from_canister(canister.system.canister_id, &failure.error)),
        }
    }

    fn view(&self, canister: &CanisterState, bounded: bool) -> SystemView {
        let system = &canister.system;
        let settings = &system.settings;
        SystemView {
            canister_id: system.canister_id,
            controllers: settings.controllers.clone(),
            status: system.status.number(),
            version: system.version,
            time: self.metadata.time,
            balance: system.balance,
            reserved_balance: system.reserved_balance,
            reserved_balance_limit: Some(settings.reserved_cycles_limit),
            freezing_threshold_seconds: settings.freezing_threshold_seconds,
            compute_allocation_percent: settings.compute_allocation,
            memory: MemoryView {
                memory_allocation: settings.memory_allocation,
                wasm_memory_limit: if bounded {
                    settings.wasm_memory_limit_in_force()
                } else {
                    NumBytes::ZERO
                },
                wasm_memory_threshold: settings.wasm_memory_threshold,
                memory_usage: Footprint::of(canister).total(),
                message_memory_usage: NumBytes(system.queues.message_bytes()),
                message_memory_free: NumBytes::ZERO,
                subnet_available_memory: available_share(self.metadata.memory_taken),
                subnet_memory_usage: self.metadata.memory_taken,
            },
            certified_data: system.certified_data.clone(),
            global_timer: system.global_timer,
            environment_variables: settings.environment_variables.clone(),
            free_slots: Arc::default(),
            // Hooks make no calls.
            free_callbacks: 0,
            next_callback_id: CallbackId(system.calls.last_callback + 1),
            log_next_index: system.log.next_index(),
            log_bytes_max: usize::try_from(settings.log_memory_limit.0).unwrap_or(usize::MAX),
            subnet_id: self.metadata.subnet_id,
            root_key: self.metadata.root_key.clone(),
            subnet: self.metadata.subnet,
        }
    }
}

/// Applies what a hook changed. Hooks make no calls and accept no cycles.
fn apply(system: &mut SystemState, changes: SystemChanges) {
    system.consume(changes.cycles_burned, CyclesUseCase::BurnedCycles);
    system.balance -= changes.cycles_reserved;
    system.reserved_balance += changes.cycles_reserved;
    if let Some(data) = changes.certified_data {
        system.certified_data = data.into();
    }
    if let Some(timer) = changes.global_timer {
        system.global_timer = timer;
    }
    for record in changes.log {
        system.log.push(record, system.settings.log_memory_limit);
    }
}
