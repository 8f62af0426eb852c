//! How the pages that a message writes are found.

use serde::{Deserialize, Serialize};

/// How the engine learns which pages of the heap a message wrote. No result depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriteTracking {
    /// Every store in the code marks its page: no fault, no call of the kernel.
    #[default]
    Barrier,
    /// The heap is read-only until the first write to a page faults. There to be measured against; heaps of cold canisters
    /// are then copied as a whole.
    Faults,
}
