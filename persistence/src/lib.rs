//! Pages in, memory that lasts out: page maps, the batch log, checkpoints, recovery.
//!
//! Never here: messages, canisters' semantics, clocks, randomness.

mod checkpoint;
mod page_map;
mod sys;

pub use page_map::{Digest, Page, PageDelta, PageIndex, PageMap, PageRun};
pub use sys::frame::frames_in_use;
