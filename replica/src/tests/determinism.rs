//! Cores, caches and checkpoints change no result.

use super::script;
use crate::checkpoints::CheckpointWriter;
use crate::machine::StateMachine;
use replicore_engine::{Engine, EngineConfig, Tiers};
use replicore_persistence::{OperatorKey, StateDirectory};
use replicore_scheduler::SchedulerCores;
use replicore_types::{IngressState, SubnetConfig};
use std::sync::Arc;

/// What is compared after every batch: the certified root and the hash of the whole state.
type Trace = Vec<([u8; 32], [u8; 32])>;

fn engine() -> Arc<Engine> {
    Arc::new(Engine::new(EngineConfig::default()).unwrap())
}

fn machine(cores: usize) -> StateMachine {
    machine_with(cores, engine())
}

fn machine_with(cores: usize, engine: Arc<Engine>) -> StateMachine {
    let genesis = StateMachine::for_test(
        SubnetConfig {
            heartbeat_interval_ms: 0,
            ..SubnetConfig::default()
        },
        engine,
    );
    StateMachine::new(
        genesis.state().clone(),
        Arc::clone(genesis.engine()),
        SchedulerCores(cores),
    )
}

/// Executes the script; `between` may replace the machine after a batch.
fn run(
    seed: u64,
    mut machine: StateMachine,
    mut between: impl FnMut(StateMachine) -> StateMachine,
) -> (Trace, StateMachine) {
    let mut trace = Trace::new();
    for batch in script::batches(seed) {
        let stats = machine.execute_batch(batch);
        let state = machine.state();
        assert_eq!(stats.root_hash, state.certified_root());
        trace.push((state.certified_root(), state.state_hash()));
        machine = between(machine);
    }
    (trace, machine)
}

#[test]
fn the_script_does_what_it_is_meant_to() {
    let (trace, end) = run(1, machine(1), |machine| machine);
    let state = end.state();
    assert_eq!(state.canisters.len() as u64, script::CANISTERS);
    let heap = |id| {
        let canister: &replicore_scheduler::CanisterState = state.canister(&id).unwrap();
        let page = canister
            .execution
            .as_ref()
            .unwrap()
            .heap
            .pages
            .iter()
            .next()
            .unwrap()
            .1
            .to_vec();
        [0, 8, 16, 24].map(|at| u64::from_le_bytes(page[at..at + 8].try_into().unwrap()))
    };
    let counts: Vec<[u64; 4]> = state.canisters.keys().map(|id| heap(*id)).collect();
    let sum = |of: usize| counts.iter().map(|counts| counts[of]).sum::<u64>();
    assert!(
        (0..4).all(|of| sum(of) > 5),
        "calls, heartbeats, timers, answers: {counts:?}"
    );
    let statuses = || state.ingress_history.iter().map(|(_, status)| &status.state);
    let replied = statuses()
        .filter(|status| matches!(status, IngressState::Completed(_)))
        .count();
    let failed = statuses()
        .filter(|status| matches!(status, IngressState::Failed(_)))
        .count();
    assert!(replied > 100 && failed > 30, "{replied} replied, {failed} failed");
    let other = run(2, machine(1), |machine| machine).0;
    assert_ne!(trace, other, "another seed is another history");
}

#[test]
fn cores_change_nothing() {
    let (expected, _) = run(3, machine(1), |machine| machine);
    for cores in [2, 4] {
        assert_eq!(run(3, machine(cores), |machine| machine).0, expected, "{cores} cores");
    }
}

#[test]
fn compiler_tiers_change_nothing() {
    let (expected, _) = run(7, machine(1), |machine| machine);
    for tiers in [Tiers::Baseline, Tiers::Optimised] {
        let engine = Engine::new(EngineConfig {
            tiers,
            ..EngineConfig::default()
        });
        let machine = machine_with(1, Arc::new(engine.unwrap()));
        assert_eq!(run(7, machine, |machine| machine).0, expected, "{tiers:?}");
    }
}

#[test]
fn a_cold_engine_changes_nothing() {
    let (expected, _) = run(4, machine(1), |machine| machine);
    let (cold, _) = run(4, machine(2), |machine| {
        StateMachine::new(machine.state().clone(), engine(), SchedulerCores(2))
    });
    assert_eq!(cold, expected);
}

#[test]
fn checkpoints_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    check_checkpoints(&StateDirectory::open(directory.path()).unwrap());
}

#[test]
fn encrypted_checkpoints_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let key = OperatorKey::new([1; 32]);
    check_checkpoints(&StateDirectory::open_encrypted(directory.path(), &key, [2; 32]).unwrap());
}

fn check_checkpoints(opened: &StateDirectory) {
    let (expected, _) = run(5, machine(1), |machine| machine);
    let writer = |height: u64| {
        let (writer, state) = CheckpointWriter::open(opened).unwrap();
        assert_eq!(state.is_some(), height > 1);
        (writer, state)
    };
    let (recovered, _) = run(5, machine(2), |machine| {
        let height = machine.state().metadata.height.0;
        // Sometimes the checkpoint is only written, sometimes the state is read back from it.
        writer(height).0.write(machine.state()).unwrap();
        if height % 3 == 0 {
            return machine;
        }
        let state = writer(height + 1).1.unwrap();
        assert_eq!(state.state_hash(), machine.state().state_hash());
        let engine = if height % 2 == 0 {
            engine()
        } else {
            Arc::clone(machine.engine())
        };
        StateMachine::new(state, engine, SchedulerCores(2))
    });
    assert_eq!(recovered, expected);
}

#[test]
fn memories_read_from_a_checkpoint_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    check_rebased(&StateDirectory::open(directory.path()).unwrap());
}

#[test]
fn memories_read_from_an_encrypted_checkpoint_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let key = OperatorKey::new([1; 32]);
    check_rebased(&StateDirectory::open_encrypted(directory.path(), &key, [2; 32]).unwrap());
}

fn check_rebased(opened: &StateDirectory) {
    let (expected, _) = run(6, machine(1), |machine| machine);
    let (writer, _) = CheckpointWriter::open(opened).unwrap();
    let (rebased, _) = run(6, machine(1), |mut machine| {
        writer.write(machine.state()).unwrap();
        // The next batch changes the memory first, as it does while a checkpoint is written in the background.
        machine.rebase(&writer.rebases().take());
        machine
    });
    assert_eq!(rebased, expected);
}
