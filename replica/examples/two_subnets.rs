//! Two subnets in one process whose canisters call each other: every round certifies what it sends, and a slice of that,
//! read out of the certified tree, enters the next batch of the other.
//!
//! Run it with `cargo run -p replicore --example two_subnets`.

mod messages;

use messages::{START, call, create, install};
use replicore::StateMachine;
use replicore_engine::{Engine, EngineConfig};
use replicore_scheduler::certified_state::read_stream_slice;
use replicore_scheduler::state::Genesis;
use replicore_scheduler::{ReplicatedState, SchedulerCores};
use replicore_types::limits::STREAM_SLICE_BYTES_MAX;
use replicore_types::{
    Batch, CanisterId, Ingress, IngressState, PrincipalId, Randomness, StreamSlice, SubnetConfig, SubnetId,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// `relay` calls `inc` of the canister in its argument and replies with what that replied.
const MODULE: &str = r#"
(module
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ic0" "call_perform" (func $call_perform (result i32)))
  (memory 1)
  (table funcref (elem $answered))
  (data (i32.const 64) "inc")
  (func $answered (param i32)
    (call $arg_copy (i32.const 128) (i32.const 0) (call $arg_size))
    (call $append (i32.const 128) (call $arg_size))
    (call $reply))
  (func (export "canister_update inc")
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
    (call $append (i32.const 0) (i32.const 4)) (call $reply))
  (func (export "canister_update relay")
    (call $arg_copy (i32.const 128) (i32.const 0) (call $arg_size))
    (call $call_new (i32.const 128) (call $arg_size) (i32.const 64) (i32.const 3)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (drop (call $call_perform))))
"#;

/// Canister ids of a subnet.
const IDS: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let engine = Arc::new(Engine::new(EngineConfig::default())?);
    let mut states = [genesis("the one", 0), genesis("the other", IDS)];
    let names = states
        .each_ref()
        .map(|state| (state.metadata.subnet_id, state.metadata.canister_range));
    for (state, (peer, range)) in states.iter_mut().zip(names.into_iter().rev()) {
        state.connect(peer, range)?;
    }
    let [mut one, mut other] = states.map(|state| StateMachine::new(state, Arc::clone(&engine), SchedulerCores(1)));

    // A canister on each subnet.
    let (here, there) = (CanisterId::from_index(0), CanisterId::from_index(IDS));
    for (machine, canister) in [(&mut one, here), (&mut other, there)] {
        round(machine, vec![create(1)?], Vec::new());
        round(machine, vec![install(2, canister, MODULE)?], Vec::new());
    }

    // Calls from one to the other; rounds on both until all are answered.
    let calls = [3, 4, 5, 6, 7];
    let messages = calls.map(|number| call(number, here, "relay", there.as_slice().to_vec()));
    let ids = messages.each_ref().map(|message| message.message_id);
    round(&mut one, messages.into(), Vec::new());
    for _ in 0..3 {
        let (to_other, to_one) = (slice(&one, &other)?, slice(&other, &one)?);
        println!(
            "{} messages there, {} back",
            to_other.messages.len(),
            to_one.messages.len()
        );
        round(&mut other, Vec::new(), vec![to_other]);
        round(&mut one, Vec::new(), vec![to_one]);
    }
    for (number, id) in calls.into_iter().zip(ids) {
        let status = one.state().ingress_history.get(&id).map(|status| &status.state);
        let Some(IngressState::Completed(count)) = status else {
            return Err(format!("call {number} was not replied to: {status:?}").into());
        };
        println!("call {number}: the canister there has counted to {}", count[0]);
    }
    Ok(())
}

fn genesis(name: &str, first: u64) -> ReplicatedState {
    ReplicatedState::genesis(Genesis {
        subnet_id: SubnetId(PrincipalId::self_authenticating(name)),
        subnet: SubnetConfig::default(),
        root_key: Arc::from(&[0; 133][..]),
        nodes: BTreeMap::new(),
        canister_indices: (first, first + IDS - 1),
        threshold_public_keys: Default::default(),
    })
}

/// What one subnet has certified for another, from the message on that the other expects. The root would come with a
/// certificate of its subnet; here both are in one process.
fn slice(from: &StateMachine, to: &StateMachine) -> Result<StreamSlice, Box<dyn Error>> {
    let id = |machine: &StateMachine| machine.state().metadata.subnet_id;
    let expected = to.state().stream_header(&id(from)).ok_or("not connected")?.received;
    let state = from.state();
    let tree = state
        .certified
        .stream_slice(state, &id(to), expected, STREAM_SLICE_BYTES_MAX);
    Ok(read_stream_slice(
        &tree.ok_or("not connected")?,
        &state.certified_root(),
        id(from),
        id(to),
    )?)
}

fn round(machine: &mut StateMachine, messages: Vec<Ingress>, stream_slices: Vec<StreamSlice>) {
    let height = machine.state().metadata.height.next();
    machine.execute_batch(Batch {
        height,
        time: START.plus(Duration::from_secs(height.0)),
        randomness: Randomness([height.0 as u8; 32]),
        messages,
        stream_slices,
        ..Batch::default()
    });
}

#[test]
fn it_runs() -> Result<(), Box<dyn Error>> {
    main()
}
