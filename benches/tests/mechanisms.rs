//! No mechanism changes a result: what a replica did in one configuration, others execute again to the same roots.

use replicore::config::Config;
use replicore::mechanisms::Mechanism;
use replicore::offline;
use replicore_benches::ablation::{self, Variant};

/// Those that take part in executing a batch.
const OF_EXECUTION: [Mechanism; 5] = [
    Mechanism::WarmInstances,
    Mechanism::WriteBarrier,
    Mechanism::Tiering,
    Mechanism::ParallelRounds,
    Mechanism::IncrementalHash,
];

fn config(without: &[Mechanism]) -> Config {
    let mut config = Config::default();
    without.iter().for_each(|mechanism| mechanism.switch_off(&mut config));
    config
}

/// The subset of `mechanisms` that a number stands for.
fn subset(mechanisms: &[Mechanism], number: usize) -> Vec<Mechanism> {
    let chosen = mechanisms.iter().enumerate().filter(|(bit, _)| number >> bit & 1 == 1);
    chosen.map(|(_, mechanism)| *mechanism).collect()
}

#[test]
fn every_combination_executes_a_log_to_its_roots() {
    let directory = tempfile::tempdir().unwrap();
    ablation::leave_behind(directory.path(), "social", &Variant::nothing()).unwrap();
    let mut roots = Vec::new();
    for number in 0..1 << OF_EXECUTION.len() {
        let without = subset(&OF_EXECUTION, number);
        let replayed = offline::replay(directory.path(), None, None, &config(&without))
            .unwrap_or_else(|error| panic!("without {without:?}: {error}"));
        assert!(replayed.batches > 20, "{replayed:?}");
        assert!(replayed.confirmed_checkpoint.is_some(), "{replayed:?}");
        roots.push(replayed.root);
    }
    assert!(roots.iter().all(|root| *root == roots[0]));
}

/// Some of the thousand combinations of all mechanisms; more by `REPLICORE_COMBINATIONS`.
#[test]
fn what_a_replica_did_without_some_mechanisms_is_the_same_with_all() {
    let count = std::env::var("REPLICORE_COMBINATIONS").map_or(4, |count| count.parse().unwrap());
    for step in 1..=count {
        // An odd stride comes to every number below a power of two once.
        let number = step * 389 % (1 << Mechanism::ALL.len());
        let variant = Variant {
            name: "some",
            without: subset(&Mechanism::ALL, number),
        };
        let directory = tempfile::tempdir().unwrap();
        ablation::leave_behind(directory.path(), "ledger", &variant)
            .unwrap_or_else(|error| panic!("without {:?}: {error}", variant.without));
        let replayed = offline::replay(directory.path(), None, None, &Config::default())
            .unwrap_or_else(|error| panic!("without {:?}: {error}", variant.without));
        assert!(
            replayed.batches > 0 && replayed.confirmed_checkpoint.is_some(),
            "{replayed:?}"
        );
    }
}
