//! Queries and the ingress filter.

use super::stub::{Action, Action::*, CallAction, script};
use super::world::{World, id};
use crate::inspect::should_accept;
use crate::query::{QueryCall, QueryProgress, begin_query, execute_query};
use crate::state::CanisterStatus;
use replicore_types::*;

fn query(world: &World, to: u64, method: &str, actions: &[Action]) -> Result<WasmResult, UserError> {
    let query = QueryCall {
        source: PrincipalId::anonymous(),
        receiver: id(to),
        method: method.into(),
        argument: script(actions),
        caller_info: None,
    };
    execute_query(&world.state, &world.engine, query, None)
}

fn code(result: Result<WasmResult, UserError>) -> u16 {
    result.expect_err("it fails").code.number()
}

fn nested(to: u64, method: &str, actions: &[Action]) -> Action {
    Call(Box::new(CallAction {
        to: Some(id(to)),
        method: method.into(),
        argument: script(actions).to_vec(),
        on_reply: vec![Reply(b"reply".to_vec())],
        on_reject: vec![Reply(b"reject".to_vec())],
        ..CallAction::default()
    }))
}

#[test]
fn a_query_changes_nothing_and_costs_nothing() {
    let world = World::new(1, &[]);
    let before = world.state.state_hash();
    let reply = query(&world, 0, "q", &[Write, ReplyCounter]).unwrap();
    assert_eq!(reply, WasmResult::Reply(Payload::from(1i64.to_le_bytes().to_vec())));
    assert_eq!(
        query(&world, 0, "q", &[Reject("no".into())]),
        Ok(WasmResult::Reject("no".into()))
    );
    assert_eq!(world.state.state_hash(), before);
}

#[test]
fn queries_that_cannot_be_answered_say_why() {
    let mut world = World::new(4, &[]);
    assert_eq!(code(query(&world, 9, "q", &[])), 301);
    assert_eq!(code(query(&world, 0, "u", &[])), 536);
    assert_eq!(code(query(&world, 0, "q", &[])), 506);
    assert_eq!(code(query(&world, 0, "q", &[Trap])), 502);
    world.state.canister_mut(&id(1)).unwrap().execution = None;
    world.state.canister_mut(&id(2)).unwrap().system.balance = Cycles(0);
    assert_eq!(
        code(query(&world, 2, "u", &[])),
        536,
        "frozen, but that is asked second"
    );
    world.state.canister_mut(&id(3)).unwrap().system.status = CanisterStatus::Stopped;
    assert_eq!(
        [1, 2, 3].map(|to| code(query(&world, to, "q", &[Reply(vec![])]))),
        [537, 207, 508]
    );
}

#[test]
fn composite_queries_call_queries_down_to_their_depth() {
    let world = World::new(2, &[]);
    let reply = |text: &str| Ok(WasmResult::Reply(Payload::from(text.as_bytes())));
    assert_eq!(
        query(&world, 0, "c", &[nested(1, "q", &[Reply(vec![])])]),
        reply("reply")
    );
    assert_eq!(query(&world, 0, "c", &[nested(1, "u", &[])]), reply("reject"));
    assert_eq!(query(&world, 0, "c", &[nested(7, "q", &[])]), reply("reject"));
    let mut actions = vec![Reply(vec![])];
    for _ in 0..6 {
        actions = vec![nested(0, "c", &actions)];
    }
    assert_eq!(query(&world, 0, "c", &actions), reply("reply"));
    assert_eq!(code(query(&world, 0, "c", &[nested(0, "c", &actions)])), 525);
}

#[test]
fn a_composite_query_has_one_allowance_for_all_its_calls() {
    let world = World::new(2, &[]);
    let heavy = |times: usize| -> Vec<Action> {
        (0..times)
            .map(|_| {
                let Call(mut call) = nested(1, "q", &[Work(2_000_000_000), Reply(vec![])]) else {
                    unreachable!()
                };
                call.on_reply = vec![];
                Call(call)
            })
            .collect()
    };
    assert_eq!(code(query(&world, 0, "c", &heavy(2))), 506);
    // The third call has less left than it needs: the whole query ends.
    assert_eq!(code(query(&world, 0, "c", &heavy(3))), 526);
}

#[test]
fn the_filter_lets_in_what_can_be_executed() {
    let mut world = World::new(4, &[]);
    world.state.canister_mut(&id(1)).unwrap().execution = None;
    world.state.canister_mut(&id(2)).unwrap().system.balance = Cycles(0);
    world.state.canister_mut(&id(3)).unwrap().system.status = CanisterStatus::Stopped;
    let messages: Vec<Ingress> = [0, 1, 2, 3, 9]
        .into_iter()
        .map(|to| world.ingress(id(to), "missing", script(&[])))
        .collect();
    let composite = world.ingress(id(0), "c", script(&[]));
    let answer =
        |message: &Ingress| should_accept(&world.state, &world.engine, message).map_err(|error| error.code.number());
    let answers: Vec<_> = messages.iter().map(answer).collect();
    // A missing method passes: it is found out, and paid for, in execution.
    assert_eq!(answers, [Ok(()), Err(537), Err(207), Err(508), Err(301)]);
    assert_eq!(answer(&composite), Err(527));
}

#[test]
fn a_canister_that_inspects_and_does_not_accept_refuses() {
    let mut world = World::new(1, &["canister_inspect_message"]);
    let message = world.update(0, &[Reply(vec![])]);
    let error = should_accept(&world.state, &world.engine, &message).unwrap_err();
    assert_eq!(error.code, ErrorCode::CanisterRejectedMessage);
    assert_eq!(
        error.description,
        format!("Error from Canister {}: Canister rejected the message", id(0))
    );
}

#[test]
fn a_query_in_slices_has_the_answer_of_one_in_a_piece() {
    let world = World::new(2, &[]);
    let actions = [
        Work(70_000),
        nested(1, "q", &[Work(50_000), Reply(b"callee".to_vec())]),
        nested(1, "q", &[Work(30_000), Trap]),
    ];
    let ask = |slice: u64| {
        let query = QueryCall {
            source: PrincipalId::anonymous(),
            receiver: id(0),
            method: "c".into(),
            argument: script(&actions),
            caller_info: None,
        };
        let slice = NumInstructions(slice);
        let mut progress = begin_query(&world.state, &world.engine, query, None, slice);
        let mut pauses = 0;
        loop {
            match progress {
                QueryProgress::Finished(finished) => return (finished.result, finished.instructions, pauses),
                QueryProgress::Paused(evaluation) => {
                    pauses += 1;
                    progress = evaluation.advance(&world.state, &world.engine, slice);
                }
            }
        }
    };
    let (whole, instructions, pauses) = ask(5_000_000_000);
    assert_eq!(pauses, 0);
    assert!(instructions.0 >= 120_000);
    let (sliced, sliced_instructions, pauses) = ask(10_000);
    assert!(pauses >= 10, "{pauses}");
    assert_eq!((sliced, sliced_instructions), (whole, instructions));
}
