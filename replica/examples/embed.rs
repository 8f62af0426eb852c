//! Embedding the engine without its network, log and sequencer: batches in, certified state out.
//!
//! Two machines execute the same batches, one on a single core and one on four, and must have the same root after each:
//! what a cluster of replicas would compare. The last root is signed, and the certificate of a call's reply goes through
//! the verifier of a client. Run it with `cargo run -p replicore --example embed`.

use replicore::StateMachine;
use replicore::certification::{CertifiedRoot, RootKey, request_status_paths};
use replicore_engine::{Engine, EngineConfig};
use replicore_scheduler::state::Genesis;
use replicore_scheduler::{ReplicatedState, SchedulerCores};
use replicore_types::{Batch, CanisterId, Ingress, MessageId, Payload, PrincipalId, Randomness, SubnetConfig, Time};
use replicore_workloads::certificate::{RequestStatus, Verifier};
use replicore_workloads::management::{InstallMode, create_argument, install_argument};
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

/// A canister that counts.
const COUNTER: &str = r#"
(module
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (memory 1)
  (func (export "canister_update inc")
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
    (call $append (i32.const 0) (i32.const 4))
    (call $reply))
)"#;

/// Time of the first batch. An embedder's sequencer agrees on time and randomness; here they are made up.
const START: Time = Time(1_700_000_000_000_000_000);

fn main() -> Result<(), Box<dyn Error>> {
    // 1. An engine runs canisters and caches what it compiles. Each machine gets its own; sharing one would do as well.
    //    All begin with the same empty state, which commits to the key that the subnet signs with.
    let key = RootKey::from_seed(b"a real one is 32 random bytes...")?;
    let mut machines = Vec::new();
    for cores in [1, 4] {
        let engine = Arc::new(Engine::new(EngineConfig::default())?);
        machines.push(StateMachine::new(genesis(&key), engine, SchedulerCores(cores)));
    }

    // 2. The batches, as a sequencer would order them: a canister is made and installed, then called.
    let canister = CanisterId::from_index(0);
    let install = install_argument(InstallMode::Install, canister.0, &wat::parse_str(COUNTER)?, &[])?;
    let batches = [
        vec![call(
            1,
            CanisterId::MANAGEMENT,
            "provisional_create_canister_with_cycles",
            create_argument(10_000_000_000_000)?,
        )],
        vec![Ingress {
            // Management calls name the canister that they are about, as the path of an HTTP request does.
            effective_canister_id: Some(canister),
            ..call(2, CanisterId::MANAGEMENT, "install_code", install)
        }],
        (3..103)
            .map(|number| call(number, canister, "inc", Vec::new()))
            .collect(),
    ];

    // 3. Every machine executes every batch. The root is what a subnet signs: it commits to all that is certified.
    for messages in batches {
        let mut roots = Vec::new();
        for machine in &mut machines {
            let statistics = machine.execute_batch(batch(machine, messages.clone()));
            roots.push(statistics.root_hash);
            println!(
                "height {}: {} messages, {} instructions, root {}",
                statistics.height.0,
                statistics.messages_executed,
                statistics.instructions,
                hex::encode(statistics.root_hash)
            );
        }
        if roots.iter().any(|root| *root != roots[0]) {
            return Err("the machines diverged".into());
        }
    }

    // 4. What became of a message is part of the state; so is all that a query or a certificate would show.
    let last = machines[0].state().ingress_history.get(&message_id(102));
    println!("the last call: {:?}", last.ok_or("the call is not known")?.state);

    // 5. Whoever holds the subnet's key signs the root, once for a round; every certificate of the round carries that one
    //    signature beside the part of the tree that it shows. Clients need the public key and nothing else.
    let state = machines[0].state();
    let signed = CertifiedRoot::new(&state.certified, &key);
    let certificate = signed.certificate(&state.certified, state, request_status_paths(&message_id(102)));
    let verifier = Verifier::new(key.public_key_der())?;
    match verifier.request_status(&certificate, message_id(102).as_bytes())? {
        RequestStatus::Replied(count) => {
            println!(
                "certified in {} bytes: the canister has counted to {}",
                certificate.len(),
                count[0]
            );
            Ok(())
        }
        other => Err(format!("the last call is certified as {other:?}").into()),
    }
}

/// An empty subnet with this key. Nodes sign queries; here nobody asks for any.
fn genesis(key: &RootKey) -> ReplicatedState {
    ReplicatedState::genesis(Genesis {
        subnet_id: key.subnet_id(),
        subnet: SubnetConfig::default(),
        root_key: key.public_key_der().into(),
        nodes: BTreeMap::new(),
        canister_indices: (0, 1_000_000),
        threshold_public_keys: BTreeMap::default(),
    })
}

/// The next batch of a machine: its height follows the state's, its time is later.
fn batch(machine: &StateMachine, messages: Vec<Ingress>) -> Batch {
    let height = machine.state().metadata.height.next();
    Batch {
        height,
        time: START.plus(Duration::from_secs(height.0)),
        randomness: Randomness([height.0 as u8; 32]),
        messages,
        consensus_responses: Vec::new(),
        stream_slices: Vec::new(),
        requires_checkpoint: false,
    }
}

/// A call as the network stack hands it over once it is verified. Here nothing is signed: the embedder vouches for it.
fn call(number: u64, receiver: CanisterId, method: &str, argument: Vec<u8>) -> Ingress {
    Ingress {
        message_id: message_id(number),
        source: PrincipalId::self_authenticating(b"the public key of a user"),
        receiver,
        effective_canister_id: (receiver != CanisterId::MANAGEMENT).then_some(receiver),
        method_name: method.into(),
        envelope_bytes: argument.len() as u32,
        method_payload: Payload::from(argument),
        expiry: START.plus(Duration::from_secs(60)),
        sender_info: None,
    }
}

/// Ids of messages must differ; those of real calls are hashes of their content.
fn message_id(number: u64) -> MessageId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    MessageId(id)
}

#[test]
fn it_runs() -> Result<(), Box<dyn Error>> {
    main()
}
