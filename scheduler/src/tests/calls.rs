//! Calls between canisters: answers, cycles, limits, deadlines; and the same results on any number of cores.

use super::stub::{Action, Action::*, CallAction, script};
use super::world::{START, World, id};
use crate::state::{CanisterStatus, CyclesUseCase};
use proptest::prelude::*;
use replicore_types::*;

fn call(to: u64, actions: &[Action]) -> CallAction {
    CallAction {
        to: Some(id(to)),
        method: "u".into(),
        argument: script(actions).to_vec(),
        on_reply: vec![Reply(b"reply".to_vec())],
        on_reject: vec![Reply(b"reject".to_vec())],
        ..CallAction::default()
    }
}

fn perform(call: CallAction) -> Action {
    Call(Box::new(call))
}

#[test]
fn a_call_and_its_reply_take_one_round() {
    let mut world = World::new(2, &[]);
    let message = world.update(0, &[perform(call(1, &[Write, Reply(vec![1, 2, 3])]))]);
    world.round(vec![message.clone()]);
    assert_eq!(world.reply(&message), b"reply");
    assert_eq!(world.counter(1), 1);
    let caller = &world.canister(0).system;
    assert!(caller.calls.is_idle() && !caller.queues.has_open_calls());
    assert!(!world.canister(1).system.queues.has_open_calls());
    // Method name, argument and three bytes of reply; nothing of the prepayments is left.
    let argument = script(&[Write, Reply(vec![1, 2, 3])]).len() as u128;
    let transmission = Cycles(260_000 + (1 + argument + 3) * 1_000);
    assert_eq!(
        caller.consumed.get(CyclesUseCase::RequestAndResponseTransmission),
        transmission
    );
    assert_eq!(
        caller.consumed.get(CyclesUseCase::Instructions),
        Cycles(2 * 5_000_000 + 2 * 1_000)
    );
    assert_eq!(world.total_cycles(), Cycles(2 * START.0));
}

#[test]
fn rejects_arrive_with_their_codes() {
    let mut world = World::new(2, &[]);
    world.state.canister_mut(&id(1)).unwrap().execution = None;
    let no_code = world.update(0, &[perform(call(1, &[]))]);
    let nowhere = world.update(0, &[perform(call(9, &[]))]);
    world.round(vec![no_code.clone(), nowhere.clone()]);
    assert_eq!(world.reply(&no_code), b"reject");
    assert_eq!(world.status(&nowhere), Some(IngressState::Processing));
    world.round(Vec::new());
    assert_eq!(world.reply(&nowhere), b"reject");
}

#[test]
fn accepted_cycles_stay_and_others_come_back_also_after_a_trap() {
    let mut world = World::new(2, &[]);
    let with = |cycles, actions: &[Action]| {
        perform(CallAction {
            cycles,
            ..call(1, actions)
        })
    };
    let accepting = world.update(0, &[with(1_000, &[Accept(300), Reply(vec![])])]);
    world.round(vec![accepting]);
    assert_eq!(
        world.balance(1) + world.canister(1).system.consumed.total(),
        START + Cycles(300)
    );
    let trapping = world.update(0, &[with(1_000, &[Accept(300), Trap])]);
    world.round(vec![trapping]);
    assert_eq!(
        world.balance(1) + world.canister(1).system.consumed.total(),
        START + Cycles(300)
    );
    assert_eq!(world.total_cycles(), Cycles(2 * START.0));
}

#[test]
fn a_trapped_callback_runs_its_cleanup_and_the_caller_learns_of_the_trap() {
    let mut world = World::new(2, &[]);
    let failing = |cleanup| CallAction {
        on_reply: vec![Write, Trap],
        on_cleanup: Some(cleanup),
        ..call(1, &[Reply(vec![])])
    };
    let message = world.update(0, &[perform(failing(vec![Write]))]);
    let both = world.update(0, &[perform(failing(vec![Trap]))]);
    world.round(vec![message.clone(), both.clone()]);
    assert_eq!(world.error(&message).code, ErrorCode::CanisterTrapped);
    assert!(!world.error(&message).description.contains("call_on_cleanup"));
    assert!(
        world
            .error(&both)
            .description
            .contains("\n\ncall_on_cleanup also failed:\n\nCanister trapped: unreachable")
    );
    assert_eq!(world.counter(0), 1);
}

#[test]
fn the_501st_open_call_does_not_go_out() {
    let mut world = World::new(2, &[]);
    let calls: Vec<Action> = (0..501)
        .map(|_| {
            perform(CallAction {
                on_reply: vec![],
                ..call(1, &[Reply(vec![])])
            })
        })
        .collect();
    let message = world.update(0, &calls);
    world.round(vec![message.clone()]);
    // 501 messages and half of their callbacks are all that the path of one round allows.
    assert_eq!(world.canister(1).system.version, 500);
    assert!(!world.status(&message).is_some_and(|status| status.is_terminal()));
    assert_eq!(world.settle(), 1);
    assert_eq!(world.error(&message).code, ErrorCode::CanisterDidNotReply);
    assert_eq!(world.total_cycles(), Cycles(2 * START.0));
}

#[test]
fn a_best_effort_call_times_out_while_its_callee_works() {
    let mut world = World::new(2, &[]);
    let slow = CallAction {
        timeout_seconds: Some(1),
        cycles: 500,
        on_reject: vec![Reply(b"timeout".to_vec())],
        ..call(1, &[Accept(100), Work(3_000_000_000), Reply(vec![])])
    };
    let message = world.update(0, &[perform(slow)]);
    world.round(vec![message.clone()]);
    assert_eq!(world.status(&message), Some(IngressState::Processing));
    world.round_after(2_000_000_000, Vec::new());
    assert_eq!(world.reply(&message), b"timeout");
    world.settle();
    // The answer came too late: what the callee gave back is lost, what it accepted is not.
    let lost = world.canister(0).system.consumed.get(CyclesUseCase::DroppedMessages);
    assert_eq!(lost, Cycles(400));
    assert_eq!(world.total_cycles(), Cycles(2 * START.0));
    assert!(!world.canister(0).system.queues.has_open_calls());
}

#[test]
fn a_stopping_canister_runs_its_callbacks_and_then_stops() {
    let mut world = World::new(2, &[]);
    let message = world.update(0, &[perform(call(1, &[Work(3_000_000_000), Reply(vec![])]))]);
    world.round(vec![message.clone()]);
    world.state.canister_mut(&id(0)).unwrap().system.status = CanisterStatus::Stopping(Vec::new());
    world.state.settle();
    let refused = world.update(0, &[Reply(vec![])]);
    world.round(vec![refused.clone()]);
    assert_eq!(world.error(&refused).code, ErrorCode::CanisterStopping);
    assert_eq!(world.reply(&message), b"reply");
    assert_eq!(world.canister(0).system.status, CanisterStatus::Stopped);
}

#[test]
fn an_endless_self_call_ends_with_the_round_and_goes_on_in_the_next() {
    let mut world = World::new(1, &[]);
    // Every callback calls again: a chain without end would need an infinite script, so a long one does.
    let mut actions = vec![Reply(vec![7])];
    for _ in 0..40 {
        actions = vec![
            Write,
            perform(CallAction {
                on_reply: actions,
                ..call(0, &[Work(100_000_000), Reply(vec![])])
            }),
        ];
    }
    let message = world.update(0, &actions);
    world.round(vec![message.clone()]);
    assert_eq!(world.status(&message), Some(IngressState::Processing));
    assert!(world.settle() >= 1);
    assert_eq!(world.reply(&message), [7]);
    assert_eq!(world.counter(0), 40);
}

/// A tree of actions over a few canisters; every call's callbacks are trees too.
fn actions(depth: u32) -> BoxedStrategy<Vec<Action>> {
    let leaf = prop_oneof![
        4 => Just(Write),
        3 => Just(ReplyCounter),
        1 => Just(Reject("r".into())),
        1 => Just(Trap),
        2 => (0u128..1_000).prop_map(Accept),
        1 => (0u128..1_000).prop_map(Burn),
        1 => Just(Work(2_500_000_000)),
        2 => Just(Print("p".into())),
    ];
    if depth == 0 {
        return prop::collection::vec(leaf, 0..4).boxed();
    }
    let call = (
        0u64..5,
        actions(depth - 1),
        actions(depth - 1),
        actions(depth - 1),
        0u128..2_000,
        any::<bool>(),
        any::<bool>(),
    );
    let call = call.prop_map(|(to, argument, on_reply, on_reject, cycles, cleanup, best_effort)| {
        perform(CallAction {
            on_cleanup: cleanup.then(|| vec![Write]),
            timeout_seconds: best_effort.then_some(300),
            on_reply,
            on_reject,
            cycles,
            ..call_to(to, &argument)
        })
    });
    prop::collection::vec(prop_oneof![3 => leaf, 2 => call], 0..5).boxed()
}

fn call_to(to: u64, argument: &[Action]) -> CallAction {
    call(to, argument)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn any_program_gives_the_same_state_on_any_cores_and_loses_no_cycles(
        programs in prop::collection::vec((0u64..4, actions(2)), 1..12)
    ) {
        let mut roots = Vec::new();
        for cores in [1, 2, 4] {
            let mut world = World::new(4, &["canister_global_timer"]).on_cores(cores);
            let messages: Vec<_> = programs.iter().map(|(to, actions)| world.update(*to, actions)).collect();
            world.round(messages.clone());
            world.settle();
            for message in &messages {
                prop_assert!(world.status(message).is_some_and(|status| status.is_terminal()));
            }
            for index in 0..4 {
                let system = &world.canister(index).system;
                prop_assert!(system.calls.is_idle() && !system.queues.has_open_calls());
                prop_assert_eq!(system.queues.message_bytes(), 0);
            }
            prop_assert_eq!(world.total_cycles(), Cycles(4 * START.0));
            roots.push((world.state.certified_root(), world.state.state_hash()));
        }
        prop_assert_eq!(roots[0], roots[1]);
        prop_assert_eq!(roots[0], roots[2]);
    }
}

#[test]
fn a_canister_may_ask_for_cycles_of_other_canisters() {
    let mut world = World::new(2, &[]);
    let settings = &mut world.state.canister_mut(&id(1)).unwrap().system.settings;
    settings.minimum_incoming_call_cycles = Cycles(1_000);
    let with = |cycles| CallAction {
        cycles,
        ..call(1, &[Write, Reply(vec![])])
    };
    let (enough, less) = (
        world.update(0, &[perform(with(1_000))]),
        world.update(0, &[perform(with(999))]),
    );
    let to_itself = world.update(1, &[perform(call(1, &[Reply(vec![])]))]);
    let from_a_user = world.update(1, &[Write, Reply(vec![])]);
    world.round(vec![enough.clone(), less.clone(), to_itself.clone(), from_a_user]);
    world.round(Vec::new());
    assert_eq!(world.reply(&enough), b"reply");
    assert_eq!(world.reply(&to_itself), b"reply");
    assert_eq!(world.reply(&less), b"reject");
    // One call and one user got in, and every cycle is back or paid for.
    assert_eq!(world.counter(1), 2);
    assert_eq!(world.total_cycles(), Cycles(2 * START.0));
}
