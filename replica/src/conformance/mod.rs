//! Conformance: reference transcripts run on the embedded engine, every answer compared.
//!
//! A transcript records what the production replica answered to a script of messages, with instruction counts, cycles
//! and memories. The script is executed here through the same [`crate::StateMachine`] that serves real traffic.

mod compare;
mod harness;
mod transcript;

pub use transcript::{Transcript, TranscriptError};

use std::path::Path;

/// What came of one transcript.
#[derive(Debug, Default)]
pub struct CaseResult {
    /// Steps executed.
    pub steps: usize,
    /// Every difference, in order of the script; empty means pass.
    pub differences: Vec<String>,
}

/// Runs one transcript file. A file that cannot be read is a difference too.
pub fn run_file(path: &Path) -> CaseResult {
    match Transcript::read(path).and_then(|transcript| harness::run(&transcript)) {
        Ok(result) => result,
        Err(error) => CaseResult {
            steps: 0,
            differences: vec![error.to_string()],
        },
    }
}
