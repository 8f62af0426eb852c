//! Recording batches in a log, and replaying the log into a fresh machine: how an embedder survives a crash, and how a
//! history is executed again to look into it.
//!
//! Every record holds a batch and the root before it. Replay compares: a history that comes to another state is noticed
//! at the height where it does. Run it with `cargo run -p replicore --example replay_log -- [DIRECTORY]`; a directory
//! that holds a log already is replayed only.

mod batches;

use replicore::StateMachine;
use replicore_engine::{Engine, EngineConfig};
use replicore_persistence::{BatchLog, BatchLogOptions, FileDisk};
use replicore_scheduler::SchedulerCores;
use replicore_types::Batch;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SEED: u64 = 1;
const BATCHES: u64 = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args()
        .nth(1)
        .map_or(temporary.path().to_owned(), PathBuf::from);
    record_and_replay(&directory)
}

/// Records a history where there is none, and replays it.
fn record_and_replay(directory: &Path) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(directory)?;
    let mut log = open(directory)?;
    if log.last_height().is_none() {
        record(&mut log)?;
    }
    drop(log);
    replay(&open(directory)?)
}

fn open(directory: &Path) -> Result<BatchLog, Box<dyn Error>> {
    let (log, tail) = BatchLog::open(Arc::new(FileDisk), directory, BatchLogOptions::default())?;
    println!("opened the log: {tail:?}");
    Ok(log)
}

/// Executes batches and logs each before anybody may see what it led to.
fn record(log: &mut BatchLog) -> Result<(), Box<dyn Error>> {
    let mut machine = fresh()?;
    for batch in batches::batches(SEED, BATCHES)? {
        let height = batch.height.0;
        log.append(
            height,
            &postcard::to_stdvec(&(machine.state().certified_root(), &batch))?,
        )?;
        // A replica executes while the disk writes, and waits for both before it answers.
        machine.execute_batch(batch);
        log.sync()?;
    }
    println!(
        "recorded {BATCHES} batches, root {}",
        hex::encode(machine.state().certified_root())
    );
    Ok(())
}

/// Executes what the log holds, from the beginning.
fn replay(log: &BatchLog) -> Result<(), Box<dyn Error>> {
    let mut machine = fresh()?;
    for record in log.read_from(1)? {
        let (height, bytes) = record?;
        let (root_before, batch): ([u8; 32], Batch) = postcard::from_bytes(&bytes)?;
        if machine.state().certified_root() != root_before {
            return Err(format!("replay came to another root before height {height}").into());
        }
        let statistics = machine.execute_batch(batch);
        println!(
            "height {height}: {} messages, {} instructions",
            statistics.messages_executed, statistics.instructions
        );
    }
    println!("replayed, root {}", hex::encode(machine.state().certified_root()));
    Ok(())
}

fn fresh() -> Result<StateMachine, Box<dyn Error>> {
    let engine = Arc::new(Engine::new(EngineConfig::default())?);
    let genesis = StateMachine::for_test(batches::subnet(), Arc::clone(&engine));
    Ok(StateMachine::new(genesis.state().clone(), engine, SchedulerCores(2)))
}

#[test]
fn what_is_recorded_replays_again_and_again() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    record_and_replay(directory.path())?;
    record_and_replay(directory.path())
}
