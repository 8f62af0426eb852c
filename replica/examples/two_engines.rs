//! Two engines on the same batches, compared after every round: what an operator of two machines, or of two versions on
//! one machine, would run beside each other.
//!
//! One engine has a core and keeps everything warm; the other has four and keeps one instance. The comparison ends the
//! example at the first round that differs. Run it with `cargo run -p replicore --example two_engines -- [SEED] [ROUNDS]`.

mod batches;

use replicore::StateMachine;
use replicore_engine::{Engine, EngineConfig};
use replicore_scheduler::SchedulerCores;
use std::error::Error;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    compare(number(1)?, number(30)?)
}

/// Executes the batches of a seed on both engines.
fn compare(seed: u64, rounds: u64) -> Result<(), Box<dyn Error>> {
    let mut first = machine(1, EngineConfig::default())?;
    let mut second = machine(
        4,
        EngineConfig {
            warm_canisters_max: 1,
            ..EngineConfig::default()
        },
    )?;
    for batch in batches::batches(seed, rounds)? {
        let height = batch.height.0;
        let (one, two) = (first.execute_batch(batch.clone()), second.execute_batch(batch));
        // The root commits to what is certified; the state hash to everything that the next round depends on.
        let hashes = [first.state().state_hash(), second.state().state_hash()];
        if one != two || hashes[0] != hashes[1] {
            return Err(format!("seed {seed}: the engines differ at height {height}:\n{one:?}\n{two:?}").into());
        }
        println!(
            "height {height}: {} messages, root {}",
            one.messages_executed,
            hex::encode(one.root_hash)
        );
    }
    println!("seed {seed}: {rounds} rounds, the same state after each");
    Ok(())
}

fn machine(cores: usize, config: EngineConfig) -> Result<StateMachine, Box<dyn Error>> {
    let engine = Arc::new(Engine::new(config)?);
    let genesis = StateMachine::for_test(batches::subnet(), Arc::clone(&engine));
    Ok(StateMachine::new(
        genesis.state().clone(),
        engine,
        SchedulerCores(cores),
    ))
}

#[test]
fn the_engines_agree() -> Result<(), Box<dyn Error>> {
    compare(2, 10)
}
