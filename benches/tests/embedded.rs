//! Modelled applications on a replica in the same process: the same on every run, profiles included.

use replicore_benches::embedded::{self, EmbeddedOptions};
use replicore_benches::profile;
use replicore_engine::{Engine, EngineConfig, Tiers};
use replicore_workloads::models;
use std::sync::Arc;

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
