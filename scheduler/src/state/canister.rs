//! One canister: an actor with its inputs, its Wasm state and its place in the order of rounds.

use crate::management::footprint::{self, Footprint};
use crate::state::{CanisterInput, LiveExecution, LowMemoryHook, SystemState, SystemTask};
use replicore_engine::ExecutionState;
use replicore_types::fees::WasmWidth;
use replicore_types::{CanisterId, Cycles, Height, NumBytes, NumInstructions, SubnetConfig, Time};
use serde::{Deserialize, Serialize};

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
    /// Height of the last round in which the canister had a turn.
    pub last_turn: Height,
    /// Whose turn it is when the next round begins.
    pub turn: RoundTurn,
}

/// What begins the canister's round: tasks and messages take turns, so that neither starves the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoundTurn {
    /// The global timer, if it is due.
    #[default]
    GlobalTimer,
    /// The heartbeat, if it is exported.
    Heartbeat,
    /// Messages, if some wait: then no task runs in this round.
    Message,
}

impl RoundTurn {
    /// Whose turn comes after this one.
    pub fn next(self) -> Self {
        match self {
            Self::GlobalTimer => Self::Heartbeat,
            Self::Heartbeat => Self::Message,
            Self::Message => Self::GlobalTimer,
        }
    }
}

/// Something to execute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkItem {
    /// A message.
    Message(CanisterInput),
    /// A system task.
    Task(SystemTask),
}

/// What a message sees of the outside as it was when the message started, whatever happens while it is paused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartingPoint {
    /// Batch time of the round.
    pub time: Time,
    /// Balance, with the prepayment taken out and the refunds of a response added.
    pub balance: Cycles,
    /// Reserved balance.
    pub reserved_balance: Cycles,
    /// Memory of waiting messages.
    pub message_bytes: NumBytes,
    /// Subnet memory taken.
    pub subnet_memory_taken: NumBytes,
    /// Open calls that the canister may hold.
    pub callbacks_allowed: usize,
    /// Memory of messages that the canister may hold.
    pub message_memory_allowed: NumBytes,
    /// Cycles taken from the balance for the largest possible execution; zero for responses, whose call has prepaid.
    pub prepaid: Cycles,
}

/// A message between slices: everything needed to start it again from the beginning and to come to the same point.
///
/// Nothing of the message shows in the canister but its prepayment, until the last slice ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PausedCall {
    /// What is executed.
    pub item: WorkItem,
    /// What it saw when it started.
    pub start: StartingPoint,
    /// Slices done so far.
    pub slices: u32,
    /// Instructions of the slices done so far.
    pub instructions: NumInstructions,
    /// The work itself while the process lives. Not part of the state: where it is missing, the slices are executed again.
    #[serde(skip)]
    pub live: LiveExecution,
}

impl CanisterState {
    /// A canister without code.
    pub fn new(system: SystemState) -> Self {
        Self {
            system,
            execution: None,
            priority: Priority::default(),
            paused: None,
        }
    }

    /// The canister id.
    pub fn id(&self) -> CanisterId {
        self.system.canister_id
    }

    /// True while something is to be executed.
    pub fn is_runnable(&self) -> bool {
        self.paused.is_some() || !self.system.tasks.is_empty() || self.hook_is_due() || self.system.queues.has_input()
    }

    /// True where the low-memory hook is the next thing to run.
    pub fn hook_is_due(&self) -> bool {
        self.system.low_memory_hook == LowMemoryHook::Ready
    }

    /// Pointer width of the module; it decides what an instruction costs.
    pub fn width(&self) -> WasmWidth {
        self.execution
            .as_ref()
            .map_or(WasmWidth::Wasm32, |execution| execution.interface.width)
    }

    /// True where the module exports the system entry point.
    pub fn exports(&self, entry_point: &str) -> bool {
        self.execution
            .as_ref()
            .is_some_and(|execution| execution.interface.has(entry_point))
    }

    /// Size of the Wasm heap.
    pub fn heap_bytes(&self) -> NumBytes {
        NumBytes(
            self.execution
                .as_ref()
                .map_or(0, |execution| execution.heap.size_bytes()),
        )
    }

    /// Everything that storage is charged for: memories, code, history, chunks and snapshots.
    pub fn memory_usage(&self) -> NumBytes {
        Footprint::of(self).total()
    }

    /// Subnet memory that the canister takes: its allocation, or what it uses beyond.
    pub fn memory_taken(&self) -> NumBytes {
        self.memory_usage().max(self.system.settings.memory_allocation)
    }

    /// Memory of waiting messages and of responses that may come.
    pub fn message_memory_usage(&self) -> NumBytes {
        NumBytes(self.system.queues.message_bytes())
    }

    /// Cycles that the canister burns in a day without doing anything.
    pub fn idle_cycles_burned_per_day(&self, subnet: &SubnetConfig) -> Cycles {
        footprint::idle_cycles_per_day(&self.system, self.memory_usage(), subnet)
    }

    /// Cycles that the balance must keep: idle life for the freezing threshold, less what is reserved for storage.
    pub fn freezing_threshold(&self, subnet: &SubnetConfig) -> Cycles {
        footprint::freezing_threshold(&self.system, self.memory_usage(), subnet)
    }

    /// Takes cycles and keeps the freezing threshold.
    ///
    /// # Errors
    /// The cycles that are missing.
    pub fn withdraw(&mut self, amount: Cycles, subnet: &SubnetConfig) -> Result<(), Cycles> {
        let needed = amount + self.freezing_threshold(subnet);
        match self.system.balance.checked_sub(needed) {
            Some(_) => {
                self.system.balance -= amount;
                Ok(())
            }
            None => Err(needed - self.system.balance),
        }
    }
}
