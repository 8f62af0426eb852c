//! One canister: an actor with its inputs, its Wasm state and its place in the order of rounds.

use crate::state::{CanisterInput, SystemState, SystemTask};
use parking_lot::Mutex;
use replicore_engine::{ExecutionState, PausedExecution};
use replicore_types::{CallContextId, Cycles, NumInstructions, Time};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A canister. A clone is cheap and shares everything large.
#[derive(Clone, Debug)]
pub struct CanisterState {
    /// What the system keeps.
    pub system: SystemState,
    /// Module, memories and globals; `None` while no code is installed.
    pub execution: Option<ExecutionState>,
    /// Where the canister stands in the order of rounds.
    pub priority: Priority,
    /// The message that is being executed in slices, if there is one.
    pub paused: Option<PausedCall>,
}

/// What fairness needs to remember.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Priority {
    /// Grows by the compute allocation per round and falls with every full execution; percent.
    pub accumulated: i64,
    /// Height of the last round in which the canister executed all its inputs.
    pub last_full_execution: u64,
}

/// What a paused message executes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PausedInput {
    /// A message.
    Message(CanisterInput),
    /// A system task.
    Task(SystemTask),
}

/// A message between slices: everything needed to start it again from the beginning and to come to the same point.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PausedCall {
    /// What is executed.
    pub input: PausedInput,
    /// Its call context, where it was created before the execution or exists already.
    pub call_context: Option<CallContextId>,
    /// Slices done so far; the next one has this index.
    pub slices: u32,
    /// Batch time of the round in which the message started.
    pub started: Time,
    /// Cycles taken from the balance for the largest possible execution.
    pub prepaid: Cycles,
    /// Instructions of the slices done so far.
    pub instructions: NumInstructions,
    /// The work itself while the process lives. Not part of the state: where it is missing, the slices are executed again.
    #[serde(skip)]
    pub live: LiveExecution,
}

/// The hand-over point of a paused execution: taken by the round that goes on with it.
#[derive(Clone, Debug, Default)]
pub struct LiveExecution(pub Arc<Mutex<Option<PausedExecution>>>);

impl CanisterState {
    /// A canister without code.
    pub fn new(system: SystemState) -> Self {
        Self { system, execution: None, priority: Priority::default(), paused: None }
    }
}
