//! Pages in, memory that lasts out: page maps, the batch log, checkpoints, recovery.
//!
//! Never here: messages, canisters' semantics, clocks, randomness.

mod page_map;

pub use page_map::{Page, PageDelta, PageIndex, PageMap};
