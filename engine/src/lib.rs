//! One message in, one outcome out.
//!
//! The engine turns canister modules into executables, keeps their instances warm, meters them exactly and gives them
//! the System API. What it is given is a [`Call`] with everything that the canister may see; what it gives back is an
//! [`ExecutionOutcome`] with everything that the canister did. It never sees a queue, a socket or a clock, and no type
//! of the Wasm engine underneath shows in its interface.

mod call;
#[cfg(feature = "wasm")]
mod engine;
mod execute;
mod execution_state;
#[cfg(feature = "wasm")]
mod instance;
#[cfg(feature = "wasm")]
mod meter;
pub mod module;
mod outcome;
#[cfg(feature = "wasm")]
pub mod profile;
#[cfg(feature = "wasm")]
mod stable_memory;
#[cfg(feature = "wasm")]
pub mod system_api;
#[cfg_attr(
    not(feature = "wasm"),
    expect(dead_code, reason = "without the executor nothing fails")
)]
mod trap;

pub use call::{
    Call, CallContextView, DataCertificate, DataCertificates, EntryPoint, InstructionLimits, MemoryView, ResponseView,
    SystemView, WasmClosure,
};
#[cfg(feature = "wasm")]
pub use engine::{Engine, EngineConfig, EngineError};
pub use execute::{Execute, PreparedModule};
pub use execution_state::{
    CanisterModule, CustomSection, CustomSectionVisibility, ExecutionState, GlobalValue, MethodKind, ModuleInterface,
    WasmMemory,
};
#[cfg(feature = "wasm")]
pub use instance::Tiers;
pub use module::WriteTracking;
pub use outcome::{
    Callback, CyclesBurned, EnvironmentReads, ExecutionError, ExecutionOutcome, ExecutionStats, LogRecord,
    OutgoingCall, PausedExecution, SystemChanges, WorkDone,
};
pub use trap::cleanup_also_failed;
