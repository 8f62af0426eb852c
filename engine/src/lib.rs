//! One message in, one outcome out.
//!
//! The engine turns canister modules into executables, keeps their instances warm, meters them exactly and gives them
//! the System API. What it is given is a [`Call`] with everything that the canister may see; what it gives back is an
//! [`ExecutionOutcome`] with everything that the canister did. It never sees a queue, a socket or a clock, and no type
//! of the Wasm engine underneath shows in its interface.

mod call;
mod execute;
mod execution_state;
pub mod module;
mod outcome;

pub use call::{
    Call, CallContextView, EntryPoint, InstructionLimits, MemoryView, ResponseView, SystemView, WasmClosure,
};
pub use execute::{Execute, PreparedModule};
pub use execution_state::{
    CanisterModule, CustomSection, CustomSectionVisibility, ExecutionState, GlobalValue, MethodKind, ModuleInterface,
    WasmMemory,
};
pub use outcome::{
    Callback, CyclesBurned, ExecutionError, ExecutionOutcome, ExecutionStats, LogRecord, OutgoingCall, PausedExecution,
    SystemChanges, WorkDone,
};
