//! Programs drawn from a seed, on the real engine: a scriptable canister that can do whatever the System API offers, calls
//! of calls with traps and rejects, upgrades, stops and deletes while calls are on their way.
//!
//! On any number of cores, in either tier, with instances kept or not and after a crash at any height the state is the
//! same; what is executed is what the abstract behaviour of the specification allows; no cycle is made or lost.
//!
//! `REPLICORE_SEEDS=1000..9000 cargo test -p replicore --test programs` runs more seeds. A failure names its seed and
//! prints the smallest scenario that it finds to fail in the same way.

mod canister;
mod generator;
mod model;
mod program;
mod record;
mod run;
mod shrink;

use generator::{Generator, Message, Scenario};
use model::Model;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use record::Recorder;
use replicore::checkpoints::CheckpointWriter;
use replicore_engine::{Engine, EngineConfig, Tiers};
use replicore_persistence::StateDirectory;
use replicore_types::{Batch, CanisterId, Cycles};
use run::{CYCLES, ShortSlices, World, genesis, read_back};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

/// Seeds that every test run takes.
const SEEDS: std::ops::Range<u64> = 0..60;

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("REPLICORE_SEEDS") else {
        return SEEDS;
    };
    let bounds = text.split_once("..").expect("REPLICORE_SEEDS=FROM..TO");
    bounds.0.parse().unwrap()..bounds.1.parse().unwrap()
}

fn engine(tiers: Tiers, warm_canisters_max: usize) -> Arc<Engine> {
    let config = EngineConfig {
        tiers,
        warm_canisters_max,
        ..EngineConfig::default()
    };
    Arc::new(Engine::new(config).unwrap())
}

/// Optimised code, every canister kept warm.
static WARM: LazyLock<Arc<Engine>> = LazyLock::new(|| engine(Tiers::Optimised, 1_000));
/// Baseline code, one canister kept warm.
static COLD: LazyLock<Arc<Engine>> = LazyLock::new(|| engine(Tiers::Baseline, 1));
/// Both, one after the other, whenever the second is ready.
static MIXED: LazyLock<Arc<Engine>> = LazyLock::new(|| engine(Tiers::Both, 3));

/// Checks every seed; a failure is made smaller before it is shown.
fn for_each_seed(check: impl Fn(u64, &Scenario) -> Result<(), String>) {
    let fails = |seed: u64, scenario: &Scenario| {
        catch_unwind(AssertUnwindSafe(|| check(seed, scenario)))
            .unwrap_or_else(|_| Err("it panics".into()))
            .err()
    };
    for seed in seeds() {
        let scenario = Generator::new(seed).scenario();
        if let Some(error) = fails(seed, &scenario) {
            let smallest = shrink::minimise(scenario, |candidate| fails(seed, candidate).is_some());
            let its_error = fails(seed, &smallest);
            panic!("seed {seed}: {error}\nIt needs no more than {smallest:#?}\nwhere: {its_error:?}");
        }
    }
}

/// The state hashes of a scenario on an engine.
fn trace(scenario: &Scenario, engine: &Arc<Engine>, cores: usize) -> Result<Vec<[u8; 32]>, String> {
    let short = ShortSlices(Arc::clone(engine));
    let mut world = World::new(genesis(engine), &short, cores);
    let mut trace = Vec::new();
    world.run(scenario, |world, _| {
        trace.push(world.state.state_hash());
        Ok(())
    })?;
    Ok(trace)
}

fn same(expected: &[[u8; 32]], found: &[[u8; 32]], how: &str) -> Result<(), String> {
    match expected.iter().zip(found).position(|(one, other)| one != other) {
        Some(round) => Err(format!("{how}: another state after round {}", round + 1)),
        None if expected.len() != found.len() => Err(format!("{how}: another number of rounds")),
        None => Ok(()),
    }
}

#[test]
fn the_state_depends_on_nothing_but_the_batches() {
    for_each_seed(|seed, scenario| {
        let expected = trace(scenario, &WARM, 1)?;
        let cores = [2, 3, 4, 8][seed as usize % 4];
        same(&expected, &trace(scenario, &COLD, 1)?, "baseline code, cold")?;
        same(&expected, &trace(scenario, &MIXED, cores)?, "both tiers on many cores")
    });
}

/// Canisters that the scenario may take the code from.
fn losers(scenario: &Scenario) -> BTreeSet<CanisterId> {
    let messages = scenario.batches.iter().flat_map(|plan| &plan.messages);
    messages
        .filter_map(|message| match message {
            Message::Install { canister, .. } => Some(*canister),
            Message::Manage { canister, method } if *method != "start_canister" => Some(*canister),
            _ => None,
        })
        .map(CanisterId::from_index)
        .collect()
}

#[test]
fn what_is_executed_is_what_the_specification_allows() {
    for_each_seed(|_, scenario| {
        let recorder = Recorder::new(ShortSlices(Arc::clone(&WARM)));
        let mut world = World::new(genesis(&WARM), &recorder, 1);
        let mut model = Model::new(losers(scenario));
        let mut minted = Cycles::ZERO;
        let mut known = 0;
        world.run(scenario, |world, batch| {
            model.ordered(&batch);
            recorder.take().iter().try_for_each(|event| model.executed(event))?;
            model.compare(&world.state)?;
            world.state.audit().map_err(|broken| broken.to_string())?;
            // Only users make canisters out of nothing here.
            let made = world.state.metadata.next_canister_index - known;
            known += made;
            minted += Cycles(u128::from(CYCLES * made));
            let found = world.state.cycles_accounted();
            if found != minted {
                return Err(format!("{minted} cycles were made, {found} are there"));
            }
            Ok(())
        })?;
        model.at_rest()
    });
}

#[test]
fn a_restart_at_any_height_changes_nothing() {
    for_each_seed(|seed, scenario| {
        let expected = trace(scenario, &WARM, 1)?;
        let mut restarts = ChaCha8Rng::seed_from_u64(seed);
        let short = ShortSlices(Arc::clone(&COLD));
        let mut world = World::new(genesis(&COLD), &short, 1);
        let mut trace = Vec::new();
        world.run(scenario, |world, _| {
            trace.push(world.state.state_hash());
            if restarts.random_bool(0.4) {
                world.state = read_back(&world.state, &COLD);
            }
            Ok(())
        })?;
        same(&expected, &trace, "with restarts")
    });
}

#[test]
fn a_checkpoint_and_the_batches_after_it_come_to_the_same_state() {
    for_each_seed(|seed, scenario| {
        // Files are slow: a few seeds have them.
        if !seed.is_multiple_of(8) {
            return Ok(());
        }
        let directory = tempfile::tempdir().unwrap();
        let state_directory = StateDirectory::open(directory.path()).unwrap();
        let short = ShortSlices(Arc::clone(&WARM));
        let mut world = World::new(genesis(&WARM), &short, 1);
        let mut choices = ChaCha8Rng::seed_from_u64(seed);
        let (mut writer, _) = CheckpointWriter::open(&state_directory).map_err(|error| error.to_string())?;
        // Batches since the last checkpoint: what a log would hold.
        let mut log: Vec<Batch> = Vec::new();
        world.run(scenario, |world, batch| {
            log.push(batch);
            match choices.random_range(0..6) {
                0 => {
                    writer.write(&world.state).map_err(|error| error.to_string())?;
                    log.clear();
                }
                1 if writer.store().stats().height.is_some() => {
                    let before = world.state.state_hash();
                    let (reopened, state) =
                        CheckpointWriter::open(&state_directory).map_err(|error| error.to_string())?;
                    writer = reopened;
                    world.state = state.ok_or("the checkpoint is there")?;
                    log.iter().cloned().for_each(|batch| world.round(batch));
                    same(&[before], &[world.state.state_hash()], "after a crash")?;
                }
                _ => {}
            }
            Ok(())
        })
    });
}

mod of_the_tools {
    //! That what finds failures would find them.

    use super::*;
    use crate::program::{Action, Argument};

    /// The events of a scenario that has calls, with its batches.
    fn recorded() -> (Scenario, Vec<(Batch, Vec<record::Event>)>) {
        let scenario = Generator::new(3).scenario();
        let recorder = Recorder::new(ShortSlices(Arc::clone(&WARM)));
        let mut world = World::new(genesis(&WARM), &recorder, 1);
        let mut rounds = Vec::new();
        world
            .run(&scenario, |_, batch| {
                rounds.push((batch, recorder.take()));
                Ok(())
            })
            .unwrap();
        (scenario, rounds)
    }

    /// Whether the model follows the events after `change` has had its way with one of them.
    fn follows(change: impl Fn(&mut record::Event) -> bool) -> bool {
        let (scenario, mut rounds) = recorded();
        let changed = rounds.iter_mut().flat_map(|(_, events)| events).any(change);
        assert!(changed, "the scenario has nothing to change");
        let mut model = Model::new(losers(&scenario));
        rounds.iter().all(|(batch, events)| {
            model.ordered(batch);
            events.iter().all(|event| model.executed(event).is_ok())
        })
    }

    #[test]
    fn the_model_notices_what_is_not_allowed() {
        use replicore_engine::{EntryPoint, ResponseView};
        assert!(follows(|_| true), "as it was it is allowed");
        assert!(!follows(|event| match &mut event.entry_point {
            EntryPoint::Callback {
                response: ResponseView::Reply(reply),
                ..
            } => {
                *reply = b"another reply".to_vec().into();
                true
            }
            _ => false,
        }));
        assert!(!follows(|event| match &mut event.entry_point {
            EntryPoint::Callback { refund, .. } => {
                *refund += Cycles(1 << 100);
                true
            }
            _ => false,
        }));
        assert!(!follows(|event| {
            let fails = event.result.is_err() && matches!(event.entry_point, EntryPoint::Update { .. });
            if fails {
                event.after = [0; 32];
            }
            fails
        }));
        assert!(!follows(|event| match &mut event.entry_point {
            EntryPoint::Update { argument, .. } => {
                *argument = b"never sent".to_vec().into();
                true
            }
            _ => false,
        }));
    }

    #[test]
    fn scenarios_go_everywhere() {
        use replicore_engine::system_api::Mode;
        let mut seen: BTreeSet<(u8, bool)> = BTreeSet::new();
        let mut codes = BTreeSet::new();
        for seed in SEEDS {
            let recorder = Recorder::new(ShortSlices(Arc::clone(&WARM)));
            let mut world = World::new(genesis(&WARM), &recorder, 1);
            world.run(&Generator::new(seed).scenario(), |_, _| Ok(())).unwrap();
            for event in recorder.take() {
                seen.insert((Mode::of(&event.entry_point) as u8, event.result.is_ok()));
                codes.extend(event.result.err().map(|code| code.name()));
            }
        }
        for mode in [
            Mode::Init,
            Mode::PreUpgrade,
            Mode::PostUpgrade,
            Mode::Update,
            Mode::ReplicatedQuery,
            Mode::ReplyCallback,
            Mode::RejectCallback,
            Mode::Cleanup,
            Mode::SystemTask,
        ] {
            for is_ok in [true, false] {
                assert!(seen.contains(&(mode as u8, is_ok)), "{mode:?} that is well: {is_ok}");
            }
        }
        assert!(codes.len() >= 3, "{codes:?}");
    }

    #[test]
    fn a_failure_is_made_small() {
        fn calls_and_traps(actions: &[Action]) -> bool {
            actions.iter().any(|action| match action {
                Action::Call(call) => {
                    let called = match &call.argument {
                        Argument::Program(actions) => actions.contains(&Action::Trap) || calls_and_traps(actions),
                        Argument::Bytes(_) => false,
                    };
                    called || calls_and_traps(&call.on_reply)
                }
                _ => false,
            })
        }
        let fails = |scenario: &Scenario| {
            let mut messages = scenario.batches.iter().flat_map(|plan| &plan.messages);
            messages.any(|message| matches!(message, Message::Call { actions, .. } if calls_and_traps(actions)))
        };
        let seed = (0..).find(|seed| fails(&Generator::new(*seed).scenario())).unwrap();
        let smallest = shrink::minimise(Generator::new(seed).scenario(), fails);
        assert!(fails(&smallest));
        let messages: Vec<_> = smallest.batches.iter().flat_map(|plan| &plan.messages).collect();
        assert_eq!(messages.len(), 1);
        assert!(format!("{smallest:?}").matches("Trap").count() == 1);
    }
}
