//! A profile as text.

use super::{functions, readable};
use replicore_engine::profile::{EntryProfile, Profile};
use std::cmp::Reverse;
use std::fmt::Write;

/// Functions shown of each entry point.
const FUNCTIONS_MAX: usize = 15;

/// Per canister and entry point: instructions of a message, the functions that they go to, the pages that it touches.
pub fn table(profile: &Profile) -> String {
    let mut text = String::new();
    let mut canister = None;
    let mut entries: Vec<_> = profile.entries.iter().collect();
    // Within a canister what costs most comes first.
    entries.sort_by_key(|((id, name), entry)| (*id, Reverse(entry.instructions), name.clone()));
    for ((id, name), entry) in entries {
        if canister != Some(id) {
            let _infallible = writeln!(text, "canister {id}");
            canister = Some(id);
        }
        write_entry(&mut text, name, entry);
    }
    text
}

fn write_entry(text: &mut String, name: &str, entry: &EntryProfile) {
    let messages = entry.messages.max(1) as f64;
    let per_message = |count: u64| count as f64 / messages;
    let _infallible = writeln!(
        text,
        "\n  {name}: {} messages, {} failed, {:.1} instructions each",
        entry.messages,
        entry.failed,
        per_message(entry.instructions)
    );
    let _infallible = writeln!(
        text,
        "  heap pages read {:.1}, written {:.1} each; {} and {} different ones; stable {:.1} written each",
        per_message(entry.heap_pages_read.values().sum()),
        per_message(entry.heap_pages_written.values().sum()),
        entry.heap_pages_read.len(),
        entry.heap_pages_written.len(),
        per_message(entry.stable_pages_written),
    );
    let _infallible = writeln!(
        text,
        "  {:>14} {:>6} {:>14} {:>6} {:>10}  function",
        "own", "%", "inclusive", "%", "calls"
    );
    let mut functions: Vec<_> = functions(entry).into_iter().collect();
    functions.sort_by_key(|(name, totals)| (Reverse(totals.own), *name));
    let percent = |count: u64| 100.0 * count as f64 / entry.instructions.max(1) as f64;
    for (function, totals) in functions.iter().take(FUNCTIONS_MAX) {
        let _infallible = writeln!(
            text,
            "  {:>14.1} {:>5.1}% {:>14.1} {:>5.1}% {:>10.1}  {}",
            per_message(totals.own),
            percent(totals.own),
            per_message(totals.inclusive),
            percent(totals.inclusive),
            per_message(totals.calls),
            readable(function),
        );
    }
    if functions.len() > FUNCTIONS_MAX {
        let rest: u64 = functions[FUNCTIONS_MAX..].iter().map(|(_, totals)| totals.own).sum();
        let _infallible = writeln!(
            text,
            "  {:>14.1} {:>5.1}% {:>33}  {} more functions",
            per_message(rest),
            percent(rest),
            "",
            functions.len() - FUNCTIONS_MAX
        );
    }
}
