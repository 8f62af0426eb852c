//! What preparing a module costs.
//!
//! The charge is a function of the instruction count of the module *as the production replica instruments it*, so it is
//! computed from that form and not from ours.

use super::decode::charged_bytes;
use super::parsed::Parsed;
use replicore_types::NumInstructions;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Charged for every attempt.
const BASE: u64 = 20_000_000;
/// Charged for every instruction of the instrumented module.
const PER_INSTRUCTION: u64 = 6_000;
/// A module that the subnet already holds costs this fraction of the per-instruction part.
const KNOWN_DIVISOR: u64 = 100;

/// The charge for a module that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompileCharge {
    /// Instructions of the module as the production replica instruments it: 72 for the empty module.
    pub instrumented_instructions: u64,
}

impl CompileCharge {
    /// The charge where the subnet sees the module for the first time.
    pub fn full(self) -> NumInstructions {
        NumInstructions(BASE + self.per_module())
    }

    /// The charge where the subnet already holds the module.
    pub fn known(self) -> NumInstructions {
        NumInstructions(BASE + self.per_module() / KNOWN_DIVISOR)
    }

    fn per_module(self) -> u64 {
        self.instrumented_instructions.saturating_mul(PER_INSTRUCTION)
    }
}

/// The charge for uploaded bytes that were refused: every byte counts as an instruction, after unpacking where it is
/// known how many there are.
pub fn refusal_charge(module: &[u8]) -> NumInstructions {
    NumInstructions(BASE + PER_INSTRUCTION.saturating_mul(charged_bytes(module) as u64))
}

/// Instructions of the instrumented empty module: helper functions, and the initial values of the counters.
pub(super) const EMPTY_MODULE_INSTRUCTIONS: u64 = 72;
/// A global's initial value is a constant and an `end`.
pub(super) const INSTRUCTIONS_PER_GLOBAL: u64 = 2;

/// Instructions of the functions that take the place of imported stable memory functions in the production replica.
pub(super) fn replaced_imports(parsed: &Parsed<'_>) -> u64 {
    // An import that occurs twice is replaced once.
    let imported: BTreeSet<_> = parsed.imports.iter().map(|import| import.name).collect();
    imported.into_iter().filter_map(replacement).sum()
}

fn replacement(name: &str) -> Option<u64> {
    Some(match name {
        "stable64_size" => 2,
        "stable64_grow" => 21,
        "stable64_read" => 119,
        "stable64_write" => 107,
        "stable_size" => 10,
        "stable_grow" => 24,
        "stable_read" => 106,
        "stable_write" => 91,
        _ => return None,
    })
}
