//! A profile as flame graph: a self-contained SVG to look at in a browser.

use super::{OUTSIDE, paths, readable};
use crate::BenchError;
use inferno::flamegraph::{Options, from_lines};
use replicore_engine::profile::Profile;

/// Draws it: canister, entry point, then the calls, as wide as their instructions.
///
/// # Errors
/// There is nothing to draw.
pub fn flame(profile: &Profile) -> Result<String, BenchError> {
    let lines = folded(profile);
    let mut options = Options::default();
    options.title = "Instructions by canister, entry point and function".to_owned();
    options.count_name = "instructions".to_owned();
    // Colours by name, so that the same profile gives the same picture.
    options.deterministic = true;
    let mut svg = Vec::new();
    from_lines(&mut options, lines.iter().map(String::as_str), &mut svg).map_err(BenchError::new)?;
    String::from_utf8(svg).map_err(BenchError::new)
}

/// One line per path: `canister;entry;function;function count`.
fn folded(profile: &Profile) -> Vec<String> {
    let mut lines = Vec::new();
    for ((canister, entry_name), entry) in &profile.entries {
        let start = format!("{canister};{entry_name}");
        if entry.calls.own_instructions > 0 {
            lines.push(format!("{start};{OUTSIDE} {}", entry.calls.own_instructions));
        }
        paths(entry, &mut |path, node| {
            if node.own_instructions > 0 {
                let names: Vec<String> = path.iter().map(|name| readable(name).replace(';', ":")).collect();
                lines.push(format!("{start};{} {}", names.join(";"), node.own_instructions));
            }
        });
    }
    lines.sort();
    lines
}
