//! Modelled applications on a replica in the same process: the same on every run, profiles included.

use replicore_benches::embedded::{self, EmbeddedOptions};
use replicore_benches::profile;
use replicore_benches::simulate::{self, SimulationOptions};
use replicore_engine::{Engine, EngineConfig, Tiers};
use replicore_workloads::arrival::Arrivals;
use replicore_workloads::{Identity, models};
use std::sync::Arc;
use std::time::Duration;

const OPTIONS: EmbeddedOptions = EmbeddedOptions {
    operations: 25,
    users: 5,
    canisters: 3,
    items: 10,
    seed: 7,
};

fn engine(profile: bool) -> Arc<Engine> {
    let config = EngineConfig {
        profile,
        // Nothing here runs long enough for better code.
        tiers: Tiers::Baseline,
        ..EngineConfig::default()
    };
    Arc::new(Engine::new(config).unwrap())
}

#[test]
fn every_model_runs_embedded() {
    let engine = engine(false);
    for model in models::ALL {
        let run = embedded::run(model, Arc::clone(&engine), &OPTIONS)
            .unwrap_or_else(|error| panic!("{}: {error}", model.name()));
        assert!(run.rounds > 0, "{}", model.name());
    }
}

#[test]
fn profiles_are_the_same_on_every_run_and_change_no_state() {
    for name in ["ledger", "social"] {
        let model = models::named(name).unwrap();
        let run = |profiled| {
            let engine = engine(profiled);
            let run = embedded::run(model, Arc::clone(&engine), &OPTIONS).unwrap();
            (run.root, engine.profile())
        };
        let (first, second, plain) = (run(true), run(true), run(false));
        assert_eq!(first, second, "{name}");
        assert_eq!(first.0, plain.0, "{name}");
        let profile = first.1.unwrap();
        assert!(profile::flame(&profile).unwrap().contains("canister_update"), "{name}");
        assert!(profile::table(&profile).contains("ic0.msg_reply"), "{name}");
    }
}

#[test]
fn a_simulation_is_the_same_on_every_run_and_fills_batches() {
    let users: Vec<_> = (0..20).map(Identity::numbered).collect();
    let options = SimulationOptions {
        rate: 400.0,
        arrivals: Arrivals::Bursts,
        duration: Duration::from_millis(500),
        user_skew: 0.8,
        canisters: 3,
        items: 10,
        seed: 3,
    };
    let model = models::named("ledger").unwrap();
    let run = |seed| {
        let options = SimulationOptions {
            seed,
            ..options.clone()
        };
        simulate::run(model, engine(false), &users, &options).unwrap()
    };
    let (first, second, other) = (run(3), run(3), run(4));
    assert_eq!((first.root, &first.updates), (second.root, &second.updates));
    assert_ne!(first.root, other.root);
    // The first tenth of the second: five rounds take four hundred operations, four fifths of them updates.
    assert!(first.batch_max > 30, "{}", first.batch_max);
    assert!(first.updates.len() > 200 && first.queries > 20, "{first:?}");
}
