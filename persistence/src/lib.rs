//! Pages in, memory that lasts out: page maps, the batch log, checkpoints, recovery.
//!
//! - [`PageMap`]: a version of a canister's memory. Clones are free, a changed copy shares what it didn't change.
//! - [`BatchLog`]: every batch, durable before its replies leave.
//! - [`CheckpointStore`]: durable versions of the whole state, each written as its difference from the last.
//! - [`sync`]: a checkpoint fetched from a peer, every piece checked.
//! - [`encryption`]: an option, by which nothing on disk can be read or changed without a key.
//! - [`StateDirectory`]: the directory that holds both, and its lock.
//!
//! Recovery is: open the directory, open the store and take its latest checkpoint, open the log and execute what it
//! holds above that checkpoint's height. `FORMAT.md` describes every byte on disk.
//!
//! Never here: messages, canisters' semantics, clocks, randomness.

#![deny(unsafe_code)]

pub mod batch_log;
pub mod checkpoint;
#[cfg(test)]
mod crash_tests;
pub mod disk;
pub mod encryption;
mod error;
mod page_map;
mod state_directory;
pub mod sync;
#[expect(unsafe_code, reason = "the one folder for it: frames, mappings, system calls")]
mod sys;

pub use batch_log::{BatchLog, BatchLogOptions, LogTail, SyncReport};
pub use checkpoint::{
    Blob, CheckpointItem, CheckpointItems, CheckpointOptions, CheckpointRequest, CheckpointStore, LoadedCheckpoint,
    OpenedCheckpoints, StoredMemory, WrittenCheckpoint,
};
pub use disk::FileDisk;
pub use encryption::{Cipher, OperatorKey};
pub use error::{PersistenceError, Result};
pub use page_map::{CHUNK_PAGES, Digest, Outline, Page, PageDelta, PageIndex, PageMap, PageRef};
pub use state_directory::StateDirectory;
pub use sys::frame::{NewPage, frames_in_use};
pub use sys::thread::work_in_background;
