//! Checkpoints of a long ingress history of which little changed.

use crate::BenchError;
use crate::measure::{Effort, Figure, seconds};
use crate::scheduler::Subnet;
use replicore::StateMachine;
use replicore::checkpoints::CheckpointWriter;
use replicore_persistence::StateDirectory;
use replicore_scheduler::SchedulerCores;
use replicore_types::limits::INGRESS_HISTORY_TTL;
use replicore_types::{CanisterId, IngressState, IngressStatus, MessageId, Payload, PrincipalId, Time};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Requests answered between two checkpoints.
const CHANGED: u64 = 1_000;

/// `scheduler.checkpoint_history_1000_ms`: from a state with 600,000 answers, given over the time for which they are
/// kept, and 1,000 more since the last checkpoint, to a durable checkpoint. Beside it the kibibytes that it wrote, and
/// those of the whole history.
pub fn checkpoint(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let directory = tempfile::tempdir().map_err(BenchError::new)?;
    let state_directory = StateDirectory::open(directory.path()).map_err(BenchError::new)?;
    let (writer, _) = CheckpointWriter::open(&state_directory).map_err(BenchError::new)?;
    let mut subnet = long_history(effort.scale(600_000))?;
    subnet.round(Vec::new());
    writer.write(subnet.machine.state()).map_err(BenchError::new)?;
    let mut written = Vec::new();
    let samples = effort.samples(|| {
        subnet.noop_round(CHANGED);
        let before = writer.store().stats().total_bytes;
        let (elapsed, result) = seconds(|| writer.write(subnet.machine.state()));
        result.map_err(BenchError::new)?;
        written.push(writer.store().stats().total_bytes.saturating_sub(before) as f64 / 1024.0);
        Ok(elapsed * 1e3)
    })?;
    let state = subnet.machine.state();
    let history = &state.ingress_history;
    let bytes: usize = history
        .pieces()
        .keys()
        .filter_map(|piece| history.piece_bytes(*piece))
        .map(|bytes| bytes.len())
        .sum();
    // What was written piece by piece is the state, whole.
    drop(writer);
    let (_, read_back) = CheckpointWriter::open(&state_directory).map_err(BenchError::new)?;
    let root = read_back.map(|state| state.state_hash());
    if root != Some(state.state_hash()) {
        return Err(BenchError::new("the checkpoint reads back as another state"));
    }
    let root = hex::encode(root.unwrap_or_default());
    Ok(vec![
        Figure::of("scheduler.checkpoint_history_1000_ms", "ms", samples, root)
            .against("written_kib", written)
            .against("history_kib", vec![bytes as f64 / 1024.0]),
    ])
}

/// A subnet with so many answers, spread evenly over the time for which they are kept.
fn long_history(answers: u64) -> Result<Subnet, BenchError> {
    let mut subnet = Subnet::new(1, 1)?;
    let mut state = subnet.machine.state().clone();
    let start = state.metadata.time;
    let step = INGRESS_HISTORY_TTL.as_nanos() as u64 / 2 / (answers / CHANGED).max(1);
    for number in 0..answers {
        let now = Time(start.0 + number / CHANGED * step);
        let id = MessageId(Sha256::digest([&b"before"[..], &number.to_be_bytes()].concat()).into());
        let status = IngressStatus {
            receiver: CanisterId::from_index(0),
            source: PrincipalId::anonymous(),
            time: now,
            state: IngressState::Completed(Payload::from(id.as_bytes().to_vec())),
        };
        state.metadata.time = now;
        state.set_ingress_status(id, status);
    }
    let engine = Arc::clone(subnet.machine.engine());
    subnet.machine = StateMachine::new(state, engine, SchedulerCores(1));
    // A replica writes checkpoints seconds apart.
    subnet.round_nanos = 1_000_000_000;
    Ok(subnet)
}
