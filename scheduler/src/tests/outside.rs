//! Calls that are answered from outside: by a later batch, or by nobody.

use super::stub::{Action::*, CallAction};
use super::world::{START, World};
use crate::management::outcall_for_test;
use crate::{NextRound, execute_round};
use replicore_types::limits::HTTP_OUTCALL_TIMEOUT;
use replicore_types::*;

/// A canister that has made an outcall, and the message that made it.
fn waiting() -> (World, Ingress) {
    let mut world = World::new(1, &[]);
    let call = CallAction {
        to: Some(CanisterId::MANAGEMENT),
        method: "http_request".into(),
        argument: outcall_for_test("https://example.com/"),
        cycles: 30_000_000_000,
        on_reply: vec![Reply(b"reply".to_vec())],
        on_reject: vec![Reply(b"reject".to_vec())],
        ..CallAction::default()
    };
    let message = world.update(0, &[Call(Box::new(call))]);
    world.round(vec![message.clone()]);
    world.settle();
    assert_eq!(world.status(&message), Some(IngressState::Processing));
    assert_eq!(world.state.subnet.call_contexts.len(), 1);
    (world, message)
}

#[test]
fn an_answer_enters_with_a_batch_and_only_once() {
    for payload in [
        ResponsePayload::Data(b"anything"[..].into()),
        ResponsePayload::Reject(RejectContext {
            code: RejectCode::SysFatal,
            message: "Timeout expired".into(),
        }),
    ] {
        let (mut world, message) = waiting();
        let expected: &[u8] = match payload {
            ResponsePayload::Data(_) => b"reply",
            ResponsePayload::Reject(_) => b"reject",
        };
        let callback = *world.state.subnet.call_contexts.keys().next().unwrap();
        let answer = ConsensusResponse { callback, payload };
        let metadata = &world.state.metadata;
        let batch = Batch {
            height: metadata.height.next(),
            time: Time(metadata.time.0 + 1),
            consensus_responses: vec![answer.clone(), answer],
            ..Batch::default()
        };
        world.state = execute_round(world.state.clone(), batch, &world.engine, world.cores).0;
        assert_eq!(world.reply(&message), expected, "in the round of the answer");
        assert!(world.state.subnet.call_contexts.is_empty());
        let fee = SubnetConfig::default().http_request_fee(NumBytes(20), NumBytes(2_000_000));
        let kept = world.canister(0).system.balance;
        assert!(START - kept > fee && START - kept < fee + Cycles(1_000_000_000));
    }
}

#[test]
fn an_outcall_that_nobody_answers_is_given_up_after_a_minute() {
    let (mut world, message) = waiting();
    let opened = world.state.subnet.call_contexts.values().next().unwrap().time;
    assert_eq!(
        world.state.next_round(),
        NextRound::At(opened.plus(HTTP_OUTCALL_TIMEOUT))
    );
    let left = opened.plus(HTTP_OUTCALL_TIMEOUT).since(world.state.metadata.time);
    world.round_after(left.as_nanos() as u64 - 1, vec![]);
    assert_eq!(world.status(&message), Some(IngressState::Processing));
    world.round(vec![]);
    assert_eq!(world.reply(&message), b"reject");
}
