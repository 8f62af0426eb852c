//! Names for the machine code of canisters, where Linux `perf` and `samply` look for them: a line per function in
//! `/tmp/perf-PID.map`.
//!
//! Entries stay when a module's code goes, and nothing but the file's order says which of two at one address is newer: perf
//! takes the later. Backtraces and profiles by instruction count do not depend on it.

use super::Compiled;
use super::tiers::Tier;
use parking_lot::Mutex;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};

/// The map of this process.
pub(super) struct PerfMap(Mutex<File>);

impl PerfMap {
    /// Begins it.
    ///
    /// # Errors
    /// The file exists: an earlier process with this id left it, or another engine of this one writes it.
    pub fn create() -> io::Result<Self> {
        // A link that somebody put there is not followed.
        let file = File::create_new(format!("/tmp/perf-{}.map", std::process::id()))?;
        Ok(Self(Mutex::new(file)))
    }

    /// Adds the functions of a module. What cannot be written is left out: it costs names, nothing else.
    pub fn add(&self, compiled: &Compiled) {
        let _lost = self.0.lock().write_all(lines(compiled).as_bytes());
    }
}

/// `address size name` per function, the numbers in hexadecimal.
fn lines(compiled: &Compiled) -> String {
    let module = compiled.instance_pre.module();
    let start = module.text().as_ptr() as usize;
    let mut lines = String::new();
    for function in module.functions() {
        let name = label(compiled, function.index.as_u32());
        let _infallible = writeln!(lines, "{:x} {:x} {name}", start + function.offset, function.len);
    }
    lines
}

/// What a function is called, in one line: it begins with the module's hash and tier.
pub(super) fn label(compiled: &Compiled, index: u32) -> String {
    let hash = u32::from_be_bytes([compiled.hash[0], compiled.hash[1], compiled.hash[2], compiled.hash[3]]);
    let tier = match compiled.tier {
        Tier::Baseline => "baseline",
        Tier::Optimised => "optimised",
    };
    let name = compiled.function_names.label(index);
    let name = name.unwrap_or_else(|| format!("instrumentation {index}"));
    format!("canister {hash:08x} {tier}: {}", name.replace('\n', " "))
}
