//! Two subnets that exchange slices of their streams, whole or in pieces, once or often.

use super::stub::{Action, Action::*, CallAction, script};
use super::world::{START, World, id};
use crate::certified_state::{SliceError, read_stream_slice};
use crate::state::CanisterStatus;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use replicore_types::limits::{STREAM_MESSAGES_MAX, STREAM_SLICE_BYTES_MAX};
use replicore_types::*;

/// Index of the first canister of the second subnet.
const THERE: u64 = 1 << 21;
const CANISTERS: u64 = 3;

struct Pair {
    here: World,
    there: World,
}

fn subnet_of(world: &World) -> SubnetId {
    world.state.metadata.subnet_id
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            here: World::of_subnet("here", 0, CANISTERS),
            there: World::of_subnet("there", THERE, CANISTERS),
        };
        let name = |world: &World| (subnet_of(world), world.state.metadata.canister_range);
        let ((here, range_here), (there, range_there)) = (name(&pair.here), name(&pair.there));
        pair.here.state.connect(there, range_there).unwrap();
        pair.there.state.connect(here, range_here).unwrap();
        pair
    }

    /// A round on each subnet with what the other has certified; true while something was on its way.
    fn exchange(&mut self, bytes_max: usize) -> bool {
        let to_there = slice(&self.here, &self.there, bytes_max);
        let to_here = slice(&self.there, &self.here, bytes_max);
        let is_busy = [&to_there, &to_here].iter().any(|slice| !slice.messages.is_empty());
        self.here.round_with(1, Vec::new(), vec![to_here]);
        self.there.round_with(1, Vec::new(), vec![to_there]);
        is_busy
    }

    fn settle(&mut self) {
        for _ in 0..500 {
            let is_busy = self.exchange(STREAM_SLICE_BYTES_MAX);
            let is_idle = |world: &World| world.state.next_round() != crate::NextRound::Now;
            if !is_busy && is_idle(&self.here) && is_idle(&self.there) {
                // Once more, so that both learn what may be discarded.
                self.exchange(STREAM_SLICE_BYTES_MAX);
                self.exchange(STREAM_SLICE_BYTES_MAX);
                return;
            }
        }
        panic!("the subnets never come to rest");
    }

    fn check(&self) {
        for world in [&self.here, &self.there] {
            world.state.audit().unwrap();
            let made = Cycles(START.0 * u128::from(CANISTERS)) + world.state.subnet.streams.cycles_received();
            assert_eq!(world.state.cycles_accounted(), made);
        }
    }

    /// Nothing is kept and nobody waits.
    fn assert_at_rest(&self) {
        self.check();
        for (world, peer) in [(&self.here, &self.there), (&self.there, &self.here)] {
            let (mine, theirs) = (
                world.state.stream_header(&subnet_of(peer)).unwrap(),
                peer.state.stream_header(&subnet_of(world)).unwrap(),
            );
            assert_eq!((mine.begin, mine.end), (theirs.received, theirs.received));
            for canister in world.state.canisters.values() {
                assert!(canister.system.calls.callbacks.is_empty() && canister.system.calls.call_contexts.is_empty());
                assert_eq!(canister.system.queues.slots_taken(), (0, 0));
            }
        }
    }
}

/// What `from` has certified for `to`, from the message on that `to` expects.
fn slice(from: &World, to: &World, bytes_max: usize) -> StreamSlice {
    let expected = to.state.stream_header(&subnet_of(from)).unwrap().received;
    slice_from(from, to, expected, bytes_max)
}

fn slice_from(from: &World, to: &World, begin: u64, bytes_max: usize) -> StreamSlice {
    let (state, peer) = (&from.state, subnet_of(to));
    let tree = state.certified.stream_slice(state, &peer, begin, bytes_max).unwrap();
    read_stream_slice(&tree, &state.certified_root(), subnet_of(from), peer).unwrap()
}

fn call(to: u64, argument: &[Action], on_reply: &[Action]) -> Action {
    Call(Box::new(CallAction {
        to: Some(id(to)),
        method: "u".into(),
        argument: script(argument).to_vec(),
        cycles: 5_000_000,
        on_reply: on_reply.to_vec(),
        on_reject: vec![Reject("rejected there".into())],
        ..CallAction::default()
    }))
}

#[test]
fn a_call_crosses_and_its_answer_comes_back() {
    let mut pair = Pair::new();
    let message = pair.here.update(
        0,
        &[call(
            THERE,
            &[Accept(2_000_000), Write, Reply(vec![1])],
            &[Reply(vec![2])],
        )],
    );
    pair.here.round(vec![message.clone()]);
    assert!(pair.exchange(STREAM_SLICE_BYTES_MAX), "the call is on its way");
    pair.check();
    pair.settle();
    assert_eq!(pair.here.reply(&message), [2]);
    let gained = pair.there.state.subnet.streams.cycles_received();
    assert_eq!(gained, Cycles(5_000_000));
    assert_eq!(
        pair.here.state.subnet.streams.cycles_received(),
        Cycles(3_000_000),
        "the rest came back"
    );
    pair.assert_at_rest();
}

#[test]
fn what_fails_there_is_a_reject_here() {
    let mut pair = Pair::new();
    pair.there.state.canister_mut(&id(THERE + 1)).unwrap().system.status = CanisterStatus::Stopped;
    let calls = [
        call(THERE, &[Trap], &[Reply(vec![])]),
        call(THERE + 1, &[Reply(vec![])], &[Reply(vec![])]),
        call(THERE + 77, &[Reply(vec![])], &[Reply(vec![])]),
        call(THERE + (1 << 20) + 1, &[Reply(vec![])], &[Reply(vec![])]),
    ];
    let messages: Vec<_> = calls.into_iter().map(|call| pair.here.update(0, &[call])).collect();
    pair.here.round(messages.clone());
    pair.settle();
    for message in &messages {
        let error = pair.here.error(message);
        assert!(error.description.contains("rejected there"), "{error}");
    }
    assert_eq!(
        pair.here.state.subnet.streams.cycles_received(),
        Cycles(15_000_000),
        "nothing was kept there"
    );
    pair.assert_at_rest();
}

#[test]
fn a_best_effort_call_ends_in_time_whatever_comes_later() {
    let mut pair = Pair::new();
    let late = Call(Box::new(CallAction {
        to: Some(id(THERE)),
        method: "u".into(),
        argument: script(&[Reply(vec![1])]).to_vec(),
        cycles: 5_000_000,
        timeout_seconds: Some(10),
        on_reply: vec![Reply(vec![1])],
        on_reject: vec![Reply(vec![9])],
        ..CallAction::default()
    }));
    let message = pair.here.update(0, &[late]);
    pair.here.round(vec![message.clone()]);
    // Nothing is exchanged until the deadline has passed.
    pair.here.round_after(11_000_000_000, Vec::new());
    assert_eq!(pair.here.reply(&message), [9]);
    pair.settle();
    pair.assert_at_rest();
}

#[test]
fn slices_may_be_lost_repeated_and_cut() {
    let mut pair = Pair::new();
    let messages: Vec<_> = (0..6)
        .map(|number| {
            pair.here.update(
                number % CANISTERS,
                &[call(THERE, &[Write, ReplyCounter], &[Reply(vec![])])],
            )
        })
        .collect();
    pair.here.round(messages.clone());
    let peer = subnet_of(&pair.here);
    let received = |pair: &Pair| pair.there.state.stream_header(&peer).unwrap().received;
    let all = slice(&pair.here, &pair.there, STREAM_SLICE_BYTES_MAX);
    assert_eq!(all.messages.len(), 6);
    // A gap brings nothing.
    let late = slice_from(&pair.here, &pair.there, 2, STREAM_SLICE_BYTES_MAX);
    pair.there.round_with(1, Vec::new(), vec![late]);
    assert_eq!(received(&pair), 0);
    // One at a time, and what is known already once more.
    pair.exchange(1);
    assert_eq!(received(&pair), 1);
    pair.there.round_with(1, Vec::new(), vec![all.clone(), all.clone()]);
    assert_eq!(received(&pair), 6);
    pair.there.round_with(1, Vec::new(), vec![all]);
    assert_eq!(
        (received(&pair), pair.there.canister(THERE).system.rounds_executed),
        (6, 2)
    );
    assert_eq!(pair.there.counter(THERE), 6, "each was executed once");
    pair.settle();
    messages
        .iter()
        .for_each(|message| assert!(pair.here.reply(message).is_empty()));
    pair.assert_at_rest();
}

#[test]
fn nobody_is_believed_without_the_root() {
    let mut pair = Pair::new();
    let message = pair.here.update(0, &[call(THERE, &[Reply(vec![])], &[])]);
    pair.here.round(vec![message]);
    let (here, there) = (subnet_of(&pair.here), subnet_of(&pair.there));
    let state = &pair.here.state;
    let tree = state.certified.stream_slice(state, &there, 0, 1).unwrap();
    assert_eq!(read_stream_slice(&tree, &[7; 32], here, there), Err(SliceError::Root));
    let root = state.certified_root();
    assert_eq!(read_stream_slice(&tree, &root, here, here), Err(SliceError::NoStream));
    let other = pair
        .there
        .state
        .certified
        .witness(&pair.there.state, Default::default());
    assert_eq!(
        read_stream_slice(&other, &pair.there.state.certified_root(), there, here),
        Err(SliceError::NoStream)
    );
    // A subnet speaks for its own canisters only, and discards nothing that the other has not sent.
    let mut forged = slice(&pair.here, &pair.there, STREAM_SLICE_BYTES_MAX);
    forged.header.received = 1_000;
    if let StreamMessage::Request(request) = &forged.messages[0] {
        let request = Request {
            sender: id(THERE + 1),
            ..(**request).clone()
        };
        forged.messages[0] = StreamMessage::Request(request.into());
    }
    pair.there.round_with(1, Vec::new(), vec![forged]);
    assert_eq!(pair.there.canister(THERE).system.rounds_executed, 0);
    assert_eq!(pair.there.state.stream_header(&here).unwrap().begin, 0);
    pair.there.state.audit().unwrap();
}

#[test]
fn a_full_stream_takes_no_more_calls_and_every_answer() {
    let pair = Pair::new();
    let there = subnet_of(&pair.there);
    let mut streams = pair.here.state.subnet.streams.clone();
    let response = StreamMessage::Response(std::sync::Arc::new(Response {
        originator: id(THERE),
        respondent: id(0),
        originator_reply_callback: CallbackId(1),
        refund: Cycles::ZERO,
        payload: ResponsePayload::Data(Payload::default()),
        deadline: None,
    }));
    for _ in 0..STREAM_MESSAGES_MAX {
        assert!(streams.has_room(&there));
        streams.push(&there, response.clone());
    }
    assert!(!streams.has_room(&there));
    streams.push(&there, response);
    streams.discard(&there, 2);
    assert!(streams.has_room(&there));
    assert!(
        !streams.has_room(&subnet_of(&pair.here)),
        "nobody is connected to itself"
    );
}

#[test]
fn ids_belong_to_one_subnet() {
    let mut pair = Pair::new();
    let range = pair.there.state.metadata.canister_range;
    let third = SubnetId(PrincipalId::self_authenticating(b"third"));
    assert!(pair.here.state.connect(third, range).is_err());
    assert!(pair.there.state.connect(third, range).is_err());
}

/// Calls of calls across both subnets, with slices cut and held back as the seed says. Returns the roots after every round.
fn generated(seed: u64, cores: usize, reads_back: bool) -> Vec<[u8; 32]> {
    let mut choices = ChaCha8Rng::seed_from_u64(seed);
    let mut pair = Pair::new();
    pair.here.cores = crate::SchedulerCores(cores);
    pair.there.cores = crate::SchedulerCores(cores);
    let mut trace = Vec::new();
    for _ in 0..10 {
        let mut any = |world: &mut World, first: u64| -> Vec<Ingress> {
            (0..choices.random_range(0..5))
                .map(|_| {
                    let script = actions(&mut choices, 3);
                    world.update(first + choices.random_range(0..CANISTERS), &script)
                })
                .collect()
        };
        let (to_here, to_there) = (any(&mut pair.here, 0), any(&mut pair.there, THERE));
        let bytes_max = [1, 300, STREAM_SLICE_BYTES_MAX][choices.random_range(0..3)];
        let slice_here = slice(&pair.there, &pair.here, bytes_max);
        let slice_there = slice(&pair.here, &pair.there, bytes_max);
        let nanos = choices.random_range(1..20_000_000_000);
        let hold = choices.random_bool(0.2);
        pair.here
            .round_with(nanos, to_here, if hold { Vec::new() } else { vec![slice_here] });
        pair.there.round_with(nanos, to_there, vec![slice_there]);
        pair.check();
        trace.extend([pair.here.state.state_hash(), pair.there.state.state_hash()]);
        if reads_back && choices.random_bool(0.5) {
            pair.here.state = super::generated::read_back(&pair.here.state);
            pair.there.state = super::generated::read_back(&pair.there.state);
        } else if !reads_back {
            let _same_draws = choices.random_bool(0.5);
        }
    }
    pair.settle();
    pair.assert_at_rest();
    trace.extend([pair.here.state.state_hash(), pair.there.state.state_hash()]);
    trace
}

fn actions(choices: &mut ChaCha8Rng, depth: u32) -> Vec<Action> {
    (0..choices.random_range(1..4))
        .map(|_| match choices.random_range(0..if depth == 0 { 7 } else { 12 }) {
            0 | 1 => Reply(vec![choices.random()]),
            2 => Reject("no".into()),
            3 => Trap,
            4 | 5 => Write,
            6 => Accept(choices.random_range(0..2_000_000)),
            _ => {
                let first = if choices.random() { THERE } else { 0 };
                let argument = actions(choices, depth - 1);
                Call(Box::new(CallAction {
                    to: Some(id(first + choices.random_range(0..=CANISTERS))),
                    method: "u".into(),
                    argument: script(&argument).to_vec(),
                    cycles: choices.random_range(0..3_000_000),
                    timeout_seconds: choices.random_bool(0.3).then(|| choices.random_range(0..60)),
                    on_reply: actions(choices, depth - 1),
                    on_reject: actions(choices, 0),
                    on_cleanup: choices.random_bool(0.5).then(|| vec![Write]),
                }))
            }
        })
        .collect()
}

#[test]
fn generated_calls_across_subnets_keep_the_promises() {
    for seed in 0..40 {
        let expected = generated(seed, 1, false);
        assert_eq!(generated(seed, 2, false), expected, "seed {seed} on two cores");
        assert_eq!(generated(seed, 1, true), expected, "seed {seed} with restarts");
    }
}
