//! Nobody waits longer than the stated bound, whatever the others do.

use super::stub::{Action::*, script};
use super::world::{World, id};
use crate::round_schedule::{TURNS_MIN, rounds_waited_max};
use replicore_types::*;

/// Work of more than one slice.
const LONG: u64 = 39_000_000_000;
/// Work of nearly one slice.
const HEAVY: u64 = 1_990_000_000;

/// Queues a message without a round, as if it had been there before.
fn queue(world: &mut World, canister: u64, work: u64) {
    let message = world.ingress(id(canister), "u", script(&[Work(work), Reply(vec![])]));
    let message = Ingress {
        expiry: Time(u64::MAX),
        ..message
    };
    let canister = world.state.canister_mut(&id(canister)).unwrap();
    canister.system.queues.push_ingress(std::sync::Arc::new(message));
}

/// Executes rounds until `until` has had so many turns, and gives the longest time between two of its turns.
fn longest_wait(world: &mut World, until: u64, turns: u64, rounds_max: usize) -> usize {
    let executed = |world: &World| world.canister(until).system.rounds_executed;
    let (mut longest, mut waited, mut before) = (0, 0, executed(world));
    for _ in 0..rounds_max {
        world.round(Vec::new());
        waited += 1;
        longest = longest.max(waited);
        if executed(world) > before {
            (waited, before) = (0, executed(world));
        }
        if before >= turns {
            return longest;
        }
    }
    panic!("{before} turns in {rounds_max} rounds");
}

fn rich(canisters: u64, entry_points: &[&str]) -> World {
    let mut world = World::new(canisters, entry_points);
    for index in 0..canisters {
        world.state.canister_mut(&id(index)).unwrap().system.balance = Cycles(1 << 100);
    }
    world
}

#[test]
fn turns_that_went_ahead_are_taken_over_or_dropped() {
    // Of 60 canisters a round holds those up to eight billion instructions, whichever were executed; some messages end
    // in a later slice.
    let run = |cores| {
        let mut world = rich(60, &[]).on_cores(cores);
        for index in 0..60 {
            for number in 0..3 {
                let work = [1_000, 40_000_000, 900_000_000, 2_500_000_000][((index * 7 + number * 3) % 4) as usize];
                queue(&mut world, index, work);
            }
        }
        world.state.settle();
        let mut trace = Vec::new();
        while world.state.next_round() == crate::NextRound::Now {
            world.round(Vec::new());
            trace.push((world.state.state_hash(), world.state.certified_root()));
        }
        trace
    };
    let expected = run(1);
    assert!(expected.len() > 10, "{} rounds", expected.len());
    for cores in [2, 3, 4, 8] {
        assert_eq!(run(cores), expected, "{cores} cores");
    }
}

#[test]
fn those_that_always_use_their_slice_do_not_starve_one_light_canister() {
    let others = 40;
    let mut world = rich(others + 1, &[]);
    for index in 0..others {
        for _ in 0..20 {
            queue(&mut world, index, HEAVY);
        }
    }
    (0..5).for_each(|_| queue(&mut world, others, 1_000));
    world.state.settle();
    let bound = rounds_waited_max(others as usize + 1, 0);
    let waited = longest_wait(&mut world, others, 1, bound + 1);
    assert!(waited <= bound, "{waited} rounds, the bound is {bound}");
}

#[test]
fn long_executions_and_new_messages_both_go_on() {
    // Many more long executions than fit a round, and more behind each of them.
    let (long, short) = (30, 30);
    let mut world = rich(long + short, &[]);
    for index in 0..long {
        (0..3).for_each(|_| queue(&mut world, index, LONG));
    }
    for index in long..long + short {
        (0..50).for_each(|_| queue(&mut world, index, HEAVY));
    }
    world.state.settle();
    let mut last_turn = vec![world.state.metadata.height; (long + short) as usize];
    let bound = rounds_waited_max((long + short) as usize, 0) as u64;
    for _ in 0..60 {
        world.round(Vec::new());
        let height = world.state.metadata.height;
        for (index, last) in last_turn.iter_mut().enumerate() {
            let now = world.canister(index as u64).priority.last_turn;
            if now.0 > 0 {
                *last = now;
            }
            assert!(height.0 - last.0 <= bound, "canister {index} waits at {height:?}");
        }
    }
    let turns = |from: u64, to: u64| {
        (from..to)
            .map(|index| world.canister(index).system.rounds_executed)
            .sum::<u64>()
    };
    assert!(turns(0, long) >= 60 * TURNS_MIN as u64);
    // Those that turned out to be long had their first turn among the new ones.
    assert!(turns(long, long + short) >= 60 * TURNS_MIN as u64 - long);
}

#[test]
fn a_heartbeat_storm_leaves_the_others_their_turns() {
    let others = 100;
    let mut world = rich(others + 1, &["canister_heartbeat"]);
    for index in 0..others {
        (0..10).for_each(|_| queue(&mut world, index, HEAVY));
    }
    queue(&mut world, others, 1_000);
    world.state.settle();
    let bound = rounds_waited_max(others as usize + 1, 0);
    let waited = longest_wait(&mut world, others, 1, bound + 1);
    assert!(waited <= bound);
}

#[test]
fn of_twenty_thousand_runnable_canisters_each_has_its_turn_in_the_first_round() {
    let canisters = 20_000;
    let mut world = World::new(canisters, &[]);
    (0..canisters).for_each(|index| queue(&mut world, index, 10));
    world.state.settle();
    let stats = world.round(Vec::new());
    assert_eq!(stats.messages_executed, canisters);
    assert_eq!(stats.canisters_waiting, 0);
}

#[test]
fn an_allocation_is_kept_against_any_crowd() {
    let others = 60;
    let mut world = rich(others + 1, &[]);
    for index in 0..=others {
        (0..40).for_each(|_| queue(&mut world, index, HEAVY));
    }
    world
        .state
        .canister_mut(&id(others))
        .unwrap()
        .system
        .settings
        .compute_allocation = 50;
    world.state.settle();
    let rounds = 30;
    (0..rounds).for_each(|_| drop(world.round(Vec::new())));
    let turns = world.canister(others).system.rounds_executed;
    assert!(turns >= rounds / 2 - 1, "{turns} turns in {rounds} rounds");
}

#[test]
fn installs_leave_canisters_their_part_of_the_round() {
    let mut world = rich(3, &[]);
    (0..10).for_each(|_| queue(&mut world, 0, HEAVY));
    world.state.settle();
    for _ in 0..5 {
        // Calls that the management canister refuses after decoding still count as its work.
        let refused: Vec<_> = (0..2_000)
            .map(|_| world.ingress(CanisterId::MANAGEMENT, "start_canister", Payload::default()))
            .collect();
        world.round(refused);
    }
    assert_eq!(world.canister(0).system.rounds_executed, 5);
}
