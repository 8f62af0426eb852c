//! `replicore inspect`

use super::{CliError, DirectoryArgs};
use clap::Args;
use replicore::offline::{self, InspectedCanister, Inspection};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Options of `replicore inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    #[command(flatten)]
    directory: DirectoryArgs,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Prints what the directory holds.
pub fn run(args: &InspectArgs) -> Result<ExitCode, CliError> {
    let inspection = args.directory.look(|place| offline::inspect(place))?;
    if args.json {
        println!("{}", to_json(&inspection));
    } else {
        print(&inspection);
    }
    Ok(ExitCode::SUCCESS)
}

fn amplification(inspection: &Inspection) -> f64 {
    inspection.total_bytes as f64 / inspection.live_bytes.max(1) as f64
}

fn print(inspection: &Inspection) {
    for (name, height) in [
        ("checkpoint", inspection.checkpoint),
        ("previous checkpoint", inspection.previous_checkpoint),
    ] {
        let height = height.map_or_else(|| "none".to_owned(), |height| format!("height {height}"));
        println!("{name:<20} {height}");
    }
    println!(
        "checkpoint files     {} bytes, {} in use, amplification {:.2}",
        inspection.total_bytes,
        inspection.live_bytes,
        amplification(inspection)
    );
    let log = &inspection.log;
    let range = log
        .heights
        .map_or_else(String::new, |(first, last)| format!(", heights {first} to {last}"));
    let torn = if log.tail.torn {
        ", cut off behind its last batch"
    } else {
        ""
    };
    println!(
        "batch log            {} batches{range}, {} bytes in {} segments{torn}",
        log.batches, log.bytes, log.segments
    );
    println!("canisters            {}", inspection.canisters.len());
    println!(
        "{:<29} {:>14} {:>14} {:>9}  module",
        "canister", "heap bytes", "stable bytes", "snapshots"
    );
    for canister in &inspection.canisters {
        println!(
            "{:<29} {:>14} {:>14} {:>9}  {}",
            canister.id.to_string(),
            canister.heap_bytes,
            canister.stable_bytes,
            canister.snapshots,
            module(canister).unwrap_or_else(|| "none".to_owned())
        );
    }
}

fn module(canister: &InspectedCanister) -> Option<String> {
    canister.module_hash.map(hex::encode)
}

fn to_json(inspection: &Inspection) -> Value {
    let canisters = inspection.canisters.iter().map(|canister| {
        json!({
            "id": canister.id.to_string(),
            "module_hash": module(canister),
            "heap_bytes": canister.heap_bytes,
            "stable_bytes": canister.stable_bytes,
            "snapshots": canister.snapshots,
        })
    });
    let log = &inspection.log;
    json!({
        "checkpoint_height": inspection.checkpoint.map(|height| height.0),
        "previous_checkpoint_height": inspection.previous_checkpoint.map(|height| height.0),
        "live_bytes": inspection.live_bytes,
        "total_bytes": inspection.total_bytes,
        "amplification": amplification(inspection),
        "log": {
            "segments": log.segments,
            "bytes": log.bytes,
            "batches": log.batches,
            "first_height": log.heights.map(|(first, _)| first.0),
            "last_height": log.heights.map(|(_, last)| last.0),
            "torn": log.tail.torn,
        },
        "canisters": canisters.collect::<Vec<_>>(),
    })
}
