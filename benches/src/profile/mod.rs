//! Profiles for people: as text, flame graph, heat map, and for the Firefox profiler.

mod firefox;
mod flame;
mod heat;
pub mod host;
mod table;

pub use firefox::firefox;
pub use flame::flame;
pub use heat::heat;
pub use table::table;

use replicore_engine::profile::{CallNode, EntryProfile, Profile};
use std::collections::BTreeMap;

/// What is charged to no function of the canister.
const OUTSIDE: &str = "[message]";

/// The name of a function as its author wrote it: names of Rust's compiler are taken apart, others stay.
fn readable(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

/// The profile of one canister alone, by the textual form of its id.
pub fn only(profile: &Profile, canister: &str) -> Profile {
    let entries = profile.entries.iter().filter(|((id, _), _)| id.to_string() == canister);
    Profile {
        entries: entries.map(|(key, entry)| (key.clone(), entry.clone())).collect(),
    }
}

/// Every path of calls with the instructions that were charged at its end, outermost first.
fn paths(entry: &EntryProfile, visit: &mut dyn FnMut(&[&str], &CallNode)) {
    fn walk<'a>(node: &'a CallNode, path: &mut Vec<&'a str>, visit: &mut dyn FnMut(&[&str], &CallNode)) {
        for (name, callee) in &node.callees {
            path.push(name);
            visit(path, callee);
            walk(callee, path, visit);
            path.pop();
        }
    }
    walk(&entry.calls, &mut Vec::new(), visit);
}

/// A function over all paths that lead to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FunctionTotals {
    calls: u64,
    own: u64,
    /// With what it called; where a function calls itself, once.
    inclusive: u64,
}

fn functions(entry: &EntryProfile) -> BTreeMap<&str, FunctionTotals> {
    fn walk<'a>(node: &'a CallNode, path: &mut Vec<&'a str>, totals: &mut BTreeMap<&'a str, FunctionTotals>) {
        for (name, callee) in &node.callees {
            let total = totals.entry(name).or_default();
            total.calls += callee.calls;
            total.own += callee.own_instructions;
            if !path.contains(&name.as_str()) {
                total.inclusive += callee.instructions();
            }
            path.push(name);
            walk(callee, path, totals);
            path.pop();
        }
    }
    let mut totals = BTreeMap::new();
    walk(&entry.calls, &mut Vec::new(), &mut totals);
    totals
}

#[cfg(test)]
mod tests;
