//! Pages in, memory that lasts out: page maps, the batch log, checkpoints, recovery.
//!
//! Never here: messages, canisters' semantics, clocks, randomness.

pub mod batch_log;
pub mod checkpoint;
pub mod disk;
mod error;
mod page_map;
mod sys;

pub use batch_log::{BatchLog, BatchLogOptions, LogTail, SyncReport};
pub use checkpoint::{
    CheckpointItem, CheckpointItems, CheckpointOptions, CheckpointRequest, CheckpointStore, LoadedCheckpoint,
    WrittenCheckpoint,
};
pub use error::{PersistenceError, Result};
pub use page_map::{Digest, Page, PageDelta, PageIndex, PageMap, PageRun};
pub use sys::frame::frames_in_use;
