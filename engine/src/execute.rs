//! The seam that the scheduler sees.

use crate::{
    Call, CanisterModule, ExecutionOutcome, ExecutionState, InstructionLimits, ModuleInterface, PausedExecution,
};
use replicore_types::fees::WasmWidth;
use replicore_types::{NumInstructions, SubnetType, UserError};
use std::sync::Arc;

/// A validated, instrumented and compiled (or compiling) module with its initial state.
#[derive(Clone, Debug)]
pub struct PreparedModule {
    /// Initial memories and globals: data segments applied, `start` not run, stable memory empty.
    pub initial: ExecutionState,
    /// What the module offers (same as `initial.interface`).
    pub interface: Arc<ModuleInterface>,
    /// The compile charge in full: 20,000,000 + 6,000 per instruction of the instrumented module. Whether a module is
    /// already known to the subnet (then the per-module part is divided by 100) is replicated state, so the scheduler
    /// decides which of the two is charged.
    pub compile_instructions: NumInstructions,
    /// The same where the subnet already holds the module.
    pub compile_instructions_known: NumInstructions,
}

/// Executes messages. Implemented by [`crate::Engine`] with the `wasm` feature, and by stubs in the scheduler's tests.
///
/// Every result is a function of the arguments: what is cached, warm or compiled how never shows.
pub trait Execute: Send + Sync {
    /// Validates and compiles a module.
    ///
    /// # Errors
    /// `CanisterInvalidWasm` (IC0505), `CanisterWasmEngineError` (IC0521) with the rule or limit that is broken, and the
    /// instructions to charge for the attempt.
    fn prepare(
        &self,
        module: &CanisterModule,
        subnet_type: SubnetType,
    ) -> Result<PreparedModule, (UserError, NumInstructions)>;

    /// The pointer width that a module declares, valid or not: a refused wasm64 module is charged as one. Modules that
    /// cannot be read count as wasm32.
    fn declared_width(&self, _module: &CanisterModule) -> WasmWidth {
        WasmWidth::Wasm32
    }

    /// Executes one message, up to the end of its first slice.
    ///
    /// `canister` changes only if the message ends well and its entry point keeps state.
    fn execute(&self, canister: &mut ExecutionState, call: Call<'_>, limits: InstructionLimits) -> ExecutionOutcome;

    /// Goes on with a message for another slice. `canister` must be what [`Execute::execute`] was given.
    fn resume(&self, canister: &mut ExecutionState, paused: PausedExecution) -> ExecutionOutcome;
}
