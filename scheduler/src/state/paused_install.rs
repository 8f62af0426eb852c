//! A code install between two slices.

use crate::management::Attempt;
use crate::state::{ChunkStore, ConsumedCycles, SubnetMessage};
use parking_lot::Mutex;
use replicore_types::fees::Fee;
use replicore_types::{CanisterId, Cycles, NumBytes, Time};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// An install that goes on in the next round: everything needed to start it again from the beginning and to come to the
/// same point. Nothing of it shows in the canister but its prepayment, until the last slice ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PausedInstall {
    /// Where code is installed. Until the end it executes nothing, and calls about it wait.
    pub canister: CanisterId,
    /// The call.
    pub message: SubnetMessage,
    /// What it saw when it began.
    pub start: InstallStart,
    /// Slices done so far.
    pub slices: u32,
    /// The work itself while the process lives. Not part of the state: where it is missing, the slices are executed again.
    #[serde(skip)]
    pub live: LiveInstall,
}

/// What an install sees of the outside as it was at its beginning, whatever happens while it is paused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstallStart {
    /// Batch time of the round.
    pub time: Time,
    /// Memory used by or allocated to all canisters.
    pub subnet_memory_taken: NumBytes,
    /// Balance before the prepayment.
    pub balance: Cycles,
    /// Consumed before the prepayment.
    pub consumed: ConsumedCycles,
    /// Memory of waiting messages.
    pub message_bytes: NumBytes,
    /// Taken for the largest possible execution.
    pub prepaid: Fee,
    /// Whether the subnet knew the module when it was prepared; `None` where it is not prepared yet.
    pub module_was_known: Option<bool>,
    /// The store that the module comes from, if it comes from one.
    pub chunk_store: Option<ChunkStore>,
}

/// The hand-over point of a paused install, as [`LiveExecution`](crate::state::LiveExecution) is that of a message.
#[derive(Clone, Default)]
pub struct LiveInstall(Arc<Mutex<Option<Box<Attempt>>>>);

impl LiveInstall {
    pub(crate) fn new(attempt: Attempt) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(attempt)))))
    }

    /// Takes the work, if nobody has.
    pub(crate) fn take(&self) -> Option<Box<Attempt>> {
        self.0.lock().take()
    }
}

impl fmt::Debug for LiveInstall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LiveInstall").field(&self.0.lock().is_some()).finish()
    }
}
