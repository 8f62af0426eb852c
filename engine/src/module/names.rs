//! How backtraces name functions.

use super::instrument::HOST_FUNCTIONS;
use super::parsed::Parsed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Functions that the production replica imports besides those of the module.
const PRODUCTION_HOST_FUNCTIONS: u32 = 5;

/// What a backtrace calls a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameName<'a> {
    /// By its name.
    Named(&'a str),
    /// By its index in the module that the production replica makes of the canister's.
    Unnamed(u32),
}

/// The names of a module's functions, by their index in the instrumented module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionNames {
    names: Arc<BTreeMap<u32, String>>,
    imported: u32,
    defined: u32,
    /// Imports that were added behind those of the instrumentation. Not kept: only profiled modules have any, and those
    /// are made anew.
    #[serde(skip)]
    added_imports: u32,
}

impl FunctionNames {
    pub(super) fn new(parsed: &Parsed<'_>) -> Self {
        let names = parsed
            .function_names
            .iter()
            .map(|(index, name)| (*index, (*name).to_owned()))
            .collect();
        let imported = parsed.imported_functions().count() as u32;
        Self {
            names: Arc::new(names),
            imported,
            defined: parsed.functions.len() as u32,
            added_imports: 0,
        }
    }

    /// The same names where `count` more functions are imported.
    #[cfg(feature = "wasm")]
    pub(super) fn behind_imports(self, count: u32) -> Self {
        Self {
            added_imports: self.added_imports + count,
            ..self
        }
    }

    /// What a profile calls a function of the module: its name, or its index in the original module.
    #[cfg(feature = "wasm")]
    pub(crate) fn label(&self, instrumented_index: u32) -> Option<String> {
        let original = self.original_index(instrumented_index)?;
        Some(match self.names.get(&original) {
            Some(name) => name.clone(),
            None => format!("function {original}"),
        })
    }

    /// True where the module names none of its functions: then no backtrace is shown.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// What backtraces call a function of the instrumented module. `None` for functions that the instrumentation added,
    /// which no backtrace shows.
    pub fn frame(&self, instrumented_index: u32) -> Option<FrameName<'_>> {
        let original = self.original_index(instrumented_index)?;
        Some(match self.names.get(&original) {
            Some(name) => FrameName::Named(name),
            None => FrameName::Unnamed(self.production_index(original)),
        })
    }

    /// The name of an imported function, for traps in host functions that the production replica implements in Wasm.
    pub fn import(&self, import_index: u32) -> Option<&str> {
        self.names.get(&import_index).map(String::as_str)
    }

    fn original_index(&self, instrumented_index: u32) -> Option<u32> {
        if instrumented_index < self.imported {
            return Some(instrumented_index);
        }
        let original = instrumented_index.checked_sub(HOST_FUNCTIONS + self.added_imports)?;
        (self.imported..self.imported + self.defined)
            .contains(&original)
            .then_some(original)
    }

    fn production_index(&self, original_index: u32) -> u32 {
        if original_index < self.imported {
            original_index
        } else {
            original_index + PRODUCTION_HOST_FUNCTIONS
        }
    }
}
