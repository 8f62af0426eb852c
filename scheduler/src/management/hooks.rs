//! Running `start`, `canister_init`, `canister_pre_upgrade` and `canister_post_upgrade` on a canister that may yet be
//! thrown away.

use super::error;
use super::footprint::{self, Footprint};
use crate::state::{CanisterState, CyclesUseCase, ReplicatedState, SystemMetadata, SystemState};
use replicore_engine::{
    Call, CallContextView, EntryPoint, Execute, ExecutionOutcome, InstructionLimits, LogRecord, MemoryView,
    SystemChanges, SystemView, WorkDone,
};
use replicore_types::{CallbackId, NumBytes, NumInstructions, PrincipalId, UserError};
use std::sync::Arc;

/// What hooks of one `install_code` share.
pub(crate) struct Hooks<'a, E> {
    engine: &'a E,
    metadata: SystemMetadata,
    available: NumBytes,
    caller: PrincipalId,
    /// Instructions of everything so far, compiling included.
    pub used: NumInstructions,
    /// What all of it together may use.
    limit: NumInstructions,
    /// Log records of hooks, those of a failed one included.
    pub log: Vec<LogRecord>,
}

impl<'a, E: Execute> Hooks<'a, E> {
    /// Nothing has run yet.
    pub fn new(engine: &'a E, state: &ReplicatedState, caller: PrincipalId, limit: NumInstructions) -> Self {
        Self {
            engine,
            metadata: state.metadata.clone(),
            available: footprint::subnet_available_memory(state),
            caller,
            used: NumInstructions::ZERO,
            limit,
            log: Vec::new(),
        }
    }

    /// Runs `entry_point` on `canister`, if its module exports `name`, and applies what it changes. `bounded` says
    /// whether the canister's own limit of the heap holds.
    ///
    /// # Errors
    /// Why the hook failed, as the caller of `install_code` reads it. `canister` is as before, its log aside.
    pub fn run(
        &mut self,
        canister: &mut CanisterState,
        name: &str,
        entry_point: EntryPoint,
        bounded: bool,
    ) -> Result<(), UserError> {
        if !canister
            .execution
            .as_ref()
            .is_some_and(|execution| execution.interface.has(name))
        {
            return Ok(());
        }
        let done = self.execute(canister, entry_point, bounded);
        self.used += done.instructions;
        self.log.extend(done.changes.log.iter().cloned());
        let id = canister.system.canister_id;
        match done.result {
            Ok(_) => {
                apply(&mut canister.system, done.changes);
                Ok(())
            }
            Err(failure) => Err(error::from_canister(id, &failure.error)),
        }
    }

    fn execute(&self, canister: &mut CanisterState, entry_point: EntryPoint, bounded: bool) -> WorkDone {
        let view = self.view(canister, bounded);
        let left = self.limit - self.used;
        let limits = InstructionLimits {
            message: left,
            slice: left,
        };
        let call = Call {
            entry_point,
            caller: self.caller,
            caller_info: None,
            call_context: CallContextView::default(),
            message_id: None,
            view: &view,
        };
        let Some(execution) = canister.execution.as_mut() else {
            return nothing_done();
        };
        let mut outcome = self.engine.execute(execution, call, limits);
        loop {
            match outcome {
                ExecutionOutcome::Finished(done) => {
                    // The memories may differ from those of any warm instance that the canister has.
                    return *done;
                }
                ExecutionOutcome::Paused(paused) => outcome = self.engine.resume(execution, paused),
            }
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
                subnet_available_memory: self.available,
                subnet_memory_usage: self.metadata.memory_taken,
            },
            certified_data: system.certified_data.clone(),
            global_timer: system.global_timer,
            environment_variables: settings.environment_variables.clone(),
            free_slots: Arc::default(),
            next_callback_id: CallbackId(system.calls.last_callback + 1),
            log_next_index: system.log.next_index(),
            log_bytes_max: usize::try_from(settings.log_memory_limit.0).unwrap_or(usize::MAX),
            subnet_id: self.metadata.subnet_id,
            root_key: self.metadata.root_key.clone(),
            subnet: self.metadata.subnet,
        }
    }
}

fn nothing_done() -> WorkDone {
    WorkDone {
        result: Ok(None),
        changes: SystemChanges::default(),
        instructions: NumInstructions::ZERO,
        stats: replicore_engine::ExecutionStats::default(),
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
