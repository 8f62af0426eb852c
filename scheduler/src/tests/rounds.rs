//! Order, limits, slices, tasks, charges: what a round does around the messages.

use super::stub::{Action::*, BASE, script};
use super::world::{START, World, id};
use crate::NextRound;
use crate::state::{CanisterStatus, CyclesUseCase};
use replicore_types::*;

const FEE: u128 = 1_200_000 + 2_000 * 100;
const EXECUTION: u128 = 5_000_000;

#[test]
fn one_update_costs_its_fees_to_the_cycle() {
    let mut world = World::new(1, &[]);
    let message = world.update(0, &[Write, Work(506), ReplyCounter]);
    let stats = world.round(vec![message.clone()]);
    assert_eq!(world.reply(&message), 1i64.to_le_bytes());
    assert_eq!(
        world.balance(0),
        START - Cycles(FEE + EXECUTION + u128::from(BASE) + 506)
    );
    let system = &world.canister(0).system;
    assert_eq!(system.consumed.get(CyclesUseCase::IngressInduction), Cycles(FEE));
    assert_eq!(
        system.consumed.get(CyclesUseCase::Instructions),
        Cycles(EXECUTION + u128::from(BASE) + 506)
    );
    assert_eq!(system.instructions_executed, NumInstructions(BASE + 506));
    assert_eq!(system.version, 1);
    assert_eq!((stats.messages_executed, stats.messages_failed), (1, 0));
    assert_eq!(stats.finished, [message.message_id]);
    assert_eq!(world.state.next_round(), NextRound::OnMessage);
}

#[test]
fn a_failed_message_leaves_its_log_and_its_costs() {
    let mut world = World::new(1, &[]);
    let message = world.update(0, &[Write, Print("before".into()), Burn(5), Trap]);
    world.round(vec![message.clone()]);
    let error = world.error(&message);
    assert_eq!(error.code, ErrorCode::CanisterTrapped);
    assert!(
        error
            .description
            .starts_with(&format!("Error from Canister {}: Canister trapped: unreachable", id(0)))
    );
    assert_eq!(world.counter(0), 0);
    assert_eq!(world.canister(0).system.version, 0);
    assert_eq!(world.canister(0).system.log.records().count(), 1);
    assert_eq!(world.balance(0), START - Cycles(FEE + EXECUTION + u128::from(BASE)));
}

#[test]
fn messages_of_a_batch_run_in_order_and_duplicates_do_not_run() {
    let mut world = World::new(1, &[]);
    let messages: Vec<_> = (0..5).map(|_| world.update(0, &[Write, ReplyCounter])).collect();
    let mut batch = messages.clone();
    batch.push(messages[2].clone());
    let stats = world.round(batch);
    assert_eq!((stats.ingress_inducted, stats.ingress_dropped), (5, 1));
    for (number, message) in messages.iter().enumerate() {
        assert_eq!(world.reply(message), (number as i64 + 1).to_le_bytes());
    }
    assert_eq!(world.round(vec![messages[0].clone()]).ingress_dropped, 1);
    assert_eq!(world.counter(0), 5);
}

#[test]
fn an_expired_message_is_never_inducted_and_answers_are_forgotten_in_time() {
    let mut world = World::new(1, &[]);
    let message = world.update(0, &[Reply(vec![1])]);
    world.round(vec![message.clone()]);
    let late = world.update(0, &[Reply(vec![2])]);
    world.round_after(limits::INGRESS_TTL.as_nanos() as u64 + 1, vec![late.clone()]);
    assert_eq!(world.status(&late), None);
    assert!(world.status(&message).is_some());
    world.round_after(limits::INGRESS_HISTORY_TTL.as_nanos() as u64, Vec::new());
    assert_eq!(world.status(&message), None);
    assert!(world.state.ingress_history.is_empty());
}

#[test]
fn wrong_receivers_and_methods_are_refused_with_their_codes() {
    let mut world = World::new(1, &[]);
    let nowhere = world.ingress(id(7), "u", script(&[]));
    let missing = world.ingress(id(0), "nope", script(&[]));
    let composite = world.ingress(id(0), "c", script(&[]));
    let silent = world.update(0, &[]);
    let rejecting = world.update(0, &[Reject("no".into())]);
    world.round(vec![
        nowhere.clone(),
        missing.clone(),
        composite.clone(),
        silent.clone(),
        rejecting.clone(),
    ]);
    let code = |message: &Ingress| world.error(message).code.number();
    assert_eq!(
        [&nowhere, &missing, &composite, &silent, &rejecting].map(code),
        [301, 536, 527, 506, 406]
    );
    assert_eq!(world.error(&rejecting).description, "no");
    // Refused after induction: induction and the base fee, nothing else.
    let spent = Cycles(4 * (FEE + EXECUTION) + 2 * u128::from(BASE));
    assert_eq!(world.balance(0), START - spent);
}

#[test]
fn a_replicated_query_keeps_nothing_but_its_costs() {
    let mut world = World::new(1, &[]);
    let message = world.ingress(id(0), "q", script(&[Write, ReplyCounter]));
    world.round(vec![message.clone()]);
    assert_eq!(world.reply(&message), 1i64.to_le_bytes());
    assert_eq!(world.counter(0), 0);
    assert_eq!(world.canister(0).system.version, 1);
}

#[test]
fn a_long_message_takes_a_slice_per_round_and_prepays() {
    let mut world = World::new(1, &[]);
    let work = 5_000_000_000;
    let message = world.update(0, &[Write, Work(work - BASE), ReplyCounter]);
    let short = world.update(0, &[ReplyCounter]);
    world.round(vec![message.clone(), short.clone()]);
    assert_eq!(world.status(&message), Some(IngressState::Processing));
    assert_eq!(world.status(&short), Some(IngressState::Received));
    assert_eq!(world.balance(0), START - Cycles(2 * FEE + EXECUTION + 40_000_000_000));
    assert_eq!(world.canister(0).paused.as_ref().unwrap().slices, 1);
    assert_eq!(world.state.next_round(), NextRound::Now);
    world.round(Vec::new());
    world.round(Vec::new());
    assert_eq!(world.reply(&message), 1i64.to_le_bytes());
    assert_eq!(world.reply(&short), 1i64.to_le_bytes());
    let spent = 2 * FEE + 2 * EXECUTION + u128::from(work) + u128::from(BASE);
    assert_eq!(world.balance(0), START - Cycles(spent));
}

#[test]
fn a_paused_message_without_its_live_work_comes_to_the_same_state() {
    let mut live = World::new(1, &[]);
    let message = live.update(0, &[Write, Work(7_000_000_000), ReplyCounter]);
    live.round(vec![message.clone()]);
    live.round(Vec::new());
    let mut restarted = World::new(1, &[]);
    restarted.state = live.state.clone();
    // The first to go on takes the live work; the other executes the slices again.
    for _ in 0..2 {
        live.round(Vec::new());
        restarted.round(Vec::new());
        assert_eq!(live.state.state_hash(), restarted.state.state_hash());
    }
    assert_eq!(live.reply(&message), restarted.reply(&message));
}

#[test]
fn a_message_beyond_its_limit_ends_with_an_error_after_all_its_slices() {
    let mut world = World::new(1, &[]);
    let message = world.update(0, &[Write, Work(50_000_000_000)]);
    world.round(vec![message.clone()]);
    let rounds = world.settle();
    assert_eq!(rounds, 19);
    assert_eq!(world.error(&message).code, ErrorCode::CanisterInstructionLimitExceeded);
    assert_eq!(world.balance(0), START - Cycles(FEE + EXECUTION + 40_000_000_000));
    assert_eq!(world.counter(0), 0);
}

#[test]
fn tasks_and_messages_take_turns_as_in_the_reference() {
    // One canister with both tasks; its timer is always due. The counters are those of the published transcript.
    let mut world = World::new(1, &["canister_heartbeat", "canister_global_timer"]);
    let mut executed = Vec::new();
    executed.push(world.round(Vec::new()).messages_executed); // heartbeat
    let set_timer = [Timer(Some(1)), Reply(vec![])];
    for messages in [1, 1, 0, 1, 3, 0, 0, 1] {
        let batch = (0..messages).map(|_| world.update(0, &set_timer)).collect();
        // The stub's timer does not set itself again.
        executed.push(world.round(batch).messages_executed);
        world.state.canister_mut(&id(0)).unwrap().system.global_timer = Some(Time(1));
        world.state.settle();
    }
    assert_eq!(executed, [1, 1, 3, 2, 1, 5, 2, 2, 3]);
}

#[test]
fn heartbeats_keep_their_distance_however_many_rounds_there_are() {
    let mut world = World::new(1, &["canister_heartbeat"]);
    world.state.metadata.subnet.heartbeat_interval_ms = 1_000;
    let mut beats = |milliseconds: u64| {
        world
            .round_after(milliseconds * 1_000_000, Vec::new())
            .messages_executed
    };
    let executed: Vec<u64> = [1_000, 1, 500, 499, 999, 1, 3_000].map(&mut beats).into();
    assert_eq!(executed, [1, 0, 0, 1, 0, 1, 1]);
}

#[test]
fn a_timer_waits_for_its_time_and_runs_once() {
    let mut world = World::new(1, &["canister_global_timer"]);
    let now = world.state.metadata.time.0;
    let message = world.update(0, &[Timer(Some(now + 1_000)), Reply(vec![])]);
    world.round(vec![message]);
    assert_eq!(world.state.next_round(), NextRound::At(Time(now + 1_000)));
    world.round(Vec::new());
    assert_eq!(world.counter(0), 0);
    world.round_after(1_000, Vec::new());
    world.round_after(1_000, Vec::new());
    assert_eq!(world.counter(0), 1);
    assert_eq!(world.canister(0).system.global_timer, None);
}

#[test]
fn storage_is_charged_by_time_and_an_empty_balance_uninstalls() {
    let mut world = World::new(1, &[]);
    world.round_after(9_000_000_000, Vec::new());
    assert_eq!(world.balance(0), START);
    world.round_after(3_600_000_000_000, Vec::new());
    let memory = world.canister(0).memory_usage();
    let fee = world
        .state
        .metadata
        .subnet
        .storage_cost(memory, std::time::Duration::from_secs(3_609));
    assert_eq!(world.canister(0).system.consumed.get(CyclesUseCase::Memory), fee);
    assert_eq!(world.balance(0), START - fee);
    world.state.canister_mut(&id(0)).unwrap().system.balance = Cycles(10);
    world.round_after(3_600_000_000_000, Vec::new());
    assert_eq!(world.balance(0), Cycles(0));
    assert!(world.canister(0).execution.is_none());
    assert_eq!(
        world.canister(0).system.consumed.get(CyclesUseCase::Uninstall),
        Cycles(10)
    );
}

#[test]
fn a_canister_that_cannot_prepay_refuses_and_keeps_its_cycles() {
    let mut world = World::new(1, &[]);
    world.state.canister_mut(&id(0)).unwrap().system.balance = Cycles(30_000_000_000);
    let message = world.update(0, &[Reply(vec![])]);
    world.round(vec![message.clone()]);
    let error = world.error(&message);
    assert_eq!(error.code, ErrorCode::CanisterOutOfCycles);
    assert!(error.description.contains("please top up the canister with at least"));
    assert_eq!(world.balance(0), Cycles(30_000_000_000 - FEE));
}

#[test]
fn stopped_canisters_refuse_and_pay() {
    let mut world = World::new(1, &[]);
    world.state.canister_mut(&id(0)).unwrap().system.status = CanisterStatus::Stopped;
    let message = world.update(0, &[Reply(vec![])]);
    world.round(vec![message.clone()]);
    assert_eq!(world.error(&message).code, ErrorCode::CanisterStopped);
    assert_eq!(world.balance(0), START - Cycles(FEE));
}

#[test]
fn idle_canisters_are_not_touched() {
    let mut world = World::new(1_000, &[]);
    world.round(Vec::new());
    let message = world.update(3, &[Reply(vec![])]);
    assert_eq!(world.round(vec![message]).canisters_touched, 1);
}

#[test]
fn the_bytes_of_the_state_are_told_at_every_tenth_height() {
    let mut world = World::new(3, &[]);
    world.state.metadata.metrics.canister_state_bytes = 7;
    for _ in 0..25 {
        let told_before = world.state.metadata.metrics.canister_state_bytes;
        world.round(Vec::new());
        let metadata = &world.state.metadata;
        let expected = match metadata.height.0 % 10 {
            0 => metadata.memory_taken.0,
            _ => told_before,
        };
        assert_eq!(metadata.metrics.canister_state_bytes, expected, "{}", metadata.height);
        assert_ne!(metadata.memory_taken.0, 7);
    }
}
