//! Checkpoints of whole states: many canisters of which few changed, and opening a large one.

use crate::BenchError;
use crate::measure::{Effort, Figure, seconds};
use crate::scheduler::Subnet;
use replicore::StateMachine;
use replicore::checkpoints::CheckpointWriter;
use replicore_engine::{Engine, EngineConfig};
use replicore_netstack::QueryResponse;
use replicore_persistence::{PageDelta, PageIndex, StateDirectory};
use replicore_scheduler::SchedulerCores;
use replicore_types::{CanisterId, OS_PAGE_BYTES, PrincipalId};
use std::path::Path;
use std::sync::Arc;

/// A canister with a query that reads its stable memory.
const MODULE: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "stable64_read" (func $stable_read (param i64 i64 i64)))
    (memory 1)
    (func (export "canister_update noop") (call $reply))
    (func (export "canister_query peek")
        (call $stable_read (i64.const 0) (i64.const 81920) (i64.const 8))
        (call $reply)))"#;

/// Canisters that change between two checkpoints of many.
const CHANGED: u64 = 100;
/// Pages that are made between two checkpoints of a growing state: 256 MiB.
const PAGES_PER_CHECKPOINT: u64 = 65_536;

/// `persistence.checkpoint_100k_canisters_ms`: from a state of 100,000 canisters, of which 100 executed a message since
/// the last checkpoint, to a durable checkpoint with its state hash.
pub fn many_canisters(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let canisters = effort.scale(100_000).max(CHANGED);
    let directory = tempfile::tempdir().map_err(BenchError::new)?;
    let state_directory = StateDirectory::open(directory.path()).map_err(BenchError::new)?;
    let (writer, _) = CheckpointWriter::open(&state_directory).map_err(BenchError::new)?;
    let mut subnet = Subnet::of_copies(canisters, 1)?;
    checkpoint(&writer, &mut subnet.machine)?;
    let samples = effort.samples(|| {
        let messages = subnet.one_for_each(CHANGED);
        subnet.round(messages);
        Ok(checkpoint(&writer, &mut subnet.machine)? * 1e3)
    })?;
    let root = hex::encode(subnet.machine.state().state_hash());
    let id = "persistence.checkpoint_100k_canisters_ms";
    Ok(vec![
        Figure::of(id, "ms", samples, root).against("canisters", vec![canisters as f64]),
    ])
}

/// `persistence.open_10gib_ms`: from a directory with a canister of 10 GiB of stable memory (what was written lately is
/// in the kernel's cache) to the answer of the first query, which reads a page of it; the engine and its compiled code
/// are made ready on the way, as at a start.
pub fn open_large(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let pages = effort.scale((10 << 30) / OS_PAGE_BYTES as u64);
    let directory = tempfile::tempdir().map_err(BenchError::new)?;
    let root = write_large(directory.path(), pages)?;
    // Once beforehand, so that compiled code lies where a replica would have left it.
    open_and_ask(directory.path(), &root)?;
    let samples = effort.samples(|| Ok(open_and_ask(directory.path(), &root)? * 1e3))?;
    let gibibytes = (pages * OS_PAGE_BYTES as u64) as f64 / f64::from(1 << 30);
    Ok(vec![
        Figure::of("persistence.open_10gib_ms", "ms", samples, hex::encode(root)).against("gibibytes", vec![gibibytes]),
    ])
}

/// Seconds for a checkpoint of the machine's state, which afterwards reads from it what it holds.
fn checkpoint(writer: &CheckpointWriter, machine: &mut StateMachine) -> Result<f64, BenchError> {
    let (elapsed, written) = seconds(|| writer.write(machine.state()));
    written.map_err(BenchError::new)?;
    machine.rebase(&writer.rebases().take());
    Ok(elapsed)
}

/// A state directory with a canister of so many pages of stable memory, and the state's certified root.
fn write_large(path: &Path, pages: u64) -> Result<[u8; 32], BenchError> {
    let directory = StateDirectory::open(path).map_err(BenchError::new)?;
    let (writer, _) = CheckpointWriter::open(&directory).map_err(BenchError::new)?;
    let mut subnet = Subnet::of_module(MODULE, 1, 1)?;
    let mut page = [7; OS_PAGE_BYTES];
    for first in (0..pages).step_by(PAGES_PER_CHECKPOINT as usize) {
        let mut delta = PageDelta::default();
        for index in first..(first + PAGES_PER_CHECKPOINT).min(pages) {
            page[..8].copy_from_slice(&index.to_le_bytes());
            delta.insert(PageIndex(index), &page);
        }
        let mut state = subnet.machine.state().clone();
        let mut canister = state
            .canister(&CanisterId::from_index(0))
            .cloned()
            .ok_or_else(|| BenchError::new("the canister is not there"))?;
        let execution = canister
            .execution
            .as_mut()
            .ok_or_else(|| BenchError::new("the canister has no code"))?;
        execution.stable.pages.apply(delta);
        execution.stable.size_wasm_pages = pages.div_ceil(16);
        state.insert_canister(canister);
        let engine = Arc::clone(subnet.machine.engine());
        subnet.machine = StateMachine::new(state, engine, SchedulerCores(1));
        subnet.round(Vec::new());
        checkpoint(&writer, &mut subnet.machine)?;
    }
    Ok(subnet.machine.state().certified_root())
}

/// Seconds from a directory to an answer.
fn open_and_ask(path: &Path, root: &[u8; 32]) -> Result<f64, BenchError> {
    let (elapsed, asked) = seconds(|| {
        let directory = StateDirectory::open_existing(path, None).map_err(BenchError::new)?;
        let (_writer, state) = CheckpointWriter::open(&directory).map_err(BenchError::new)?;
        let state = state.ok_or_else(|| BenchError::new("there is no checkpoint"))?;
        let engine = Engine::new(EngineConfig {
            cache_folder: Some(path.join("compiled")),
            ..EngineConfig::default()
        });
        let engine = Arc::new(engine.map_err(BenchError::new)?);
        let machine = StateMachine::new(state, engine, SchedulerCores(1));
        let canister = CanisterId::from_index(0);
        let response = machine.query(PrincipalId::anonymous(), canister, "peek".to_owned(), Vec::new().into());
        Ok::<_, BenchError>((machine.state().certified_root(), response))
    });
    match asked? {
        (found, QueryResponse::Replied(_)) if found == *root => Ok(elapsed),
        (_, response) => Err(BenchError::new(format!("another root, or no reply: {response:?}"))),
    }
}
