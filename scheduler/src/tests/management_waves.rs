//! Installs and the like about different canisters run side by side, and come to what they come to one after the other.

use super::stub::{Action, Action::*, script};
use super::world::{World, id};
use crate::state::SnapshotId;
use candid::{CandidType, Encode, Principal};
use proptest::prelude::*;
use replicore_types::*;
use serde_bytes::ByteBuf;

const CANISTERS: u64 = 4;
const MODULES: u8 = 3;
const METHODS: &[&str] = &[
    "stop_canister",
    "start_canister",
    "uninstall_code",
    "clear_chunk_store",
    "canister_status",
];

#[derive(CandidType)]
#[expect(non_camel_case_types, reason = "the Candid names")]
enum Mode {
    install,
    reinstall,
    upgrade,
}

#[derive(CandidType)]
struct Install {
    mode: Mode,
    canister_id: Principal,
    wasm_module: ByteBuf,
    arg: ByteBuf,
}

#[derive(CandidType)]
struct InstallChunked {
    mode: Mode,
    target_canister: Principal,
    store_canister: Option<Principal>,
    chunk_hashes_list: Vec<ChunkHash>,
    wasm_module_hash: ByteBuf,
    arg: ByteBuf,
}

#[derive(CandidType)]
struct ChunkHash {
    hash: ByteBuf,
}

#[derive(CandidType)]
struct UploadChunk {
    canister_id: Principal,
    chunk: ByteBuf,
}

#[derive(CandidType)]
struct Canister {
    canister_id: Principal,
}

#[derive(CandidType)]
struct LoadSnapshot {
    canister_id: Principal,
    snapshot_id: ByteBuf,
}

/// One call, about one canister.
#[derive(Clone, Debug)]
enum Step {
    Install(u8, u8, Vec<Action>),
    Upload(u8),
    InstallChunked(u64, u8),
    TakeSnapshot,
    LoadSnapshot(u64, u64),
    Method(&'static str),
    Update(Vec<Action>),
}

fn hook() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        4 => Just(Write),
        2 => Just(Print("hook".into())),
        1 => Just(Trap),
        2 => (1_u64..200_000_000).prop_map(Work),
        // More than a slice: the install goes on in the next round, and the others wait.
        1 => Just(Work(3_000_000_000)),
    ];
    prop::collection::vec(action, 0..3)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u8..3, 0..MODULES, hook()).prop_map(|(mode, module, hook)| Step::Install(mode, module, hook)),
        2 => (0..MODULES).prop_map(Step::Upload),
        2 => (0..CANISTERS, 0..MODULES).prop_map(|(store, module)| Step::InstallChunked(store, module)),
        2 => Just(Step::TakeSnapshot),
        2 => (0..CANISTERS, 0_u64..2).prop_map(|(owner, number)| Step::LoadSnapshot(owner, number)),
        2 => prop::sample::select(METHODS).prop_map(Step::Method),
        2 => Just(Step::Update(vec![Write, ReplyCounter])),
    ]
}

fn module(number: u8) -> ByteBuf {
    ByteBuf::from(vec![b'm', number])
}

/// The method that a step calls, and its argument.
fn call(canister: u64, step: &Step) -> (&'static str, Vec<u8>) {
    let canister_id = id(canister).0;
    let encoded = |argument: Result<Vec<u8>, _>| -> Vec<u8> { Result::<_, candid::Error>::unwrap(argument) };
    match step {
        Step::Install(mode, number, hook) => {
            let mode = [Mode::install, Mode::reinstall, Mode::upgrade]
                .into_iter()
                .nth(usize::from(*mode));
            let argument = Install {
                mode: mode.unwrap(),
                canister_id,
                wasm_module: module(*number),
                arg: ByteBuf::from(script(hook).to_vec()),
            };
            ("install_code", encoded(Encode!(&argument)))
        }
        Step::Upload(number) => {
            let chunk = module(*number);
            ("upload_chunk", encoded(Encode!(&UploadChunk { canister_id, chunk })))
        }
        Step::InstallChunked(store, number) => {
            let hash: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(
                <sha2::Sha256 as sha2::Digest>::new(),
                module(*number),
            ))
            .into();
            let argument = InstallChunked {
                mode: Mode::reinstall,
                target_canister: canister_id,
                store_canister: Some(id(*store).0),
                chunk_hashes_list: vec![ChunkHash {
                    hash: ByteBuf::from(hash),
                }],
                wasm_module_hash: ByteBuf::from(hash),
                arg: ByteBuf::new(),
            };
            ("install_chunked_code", encoded(Encode!(&argument)))
        }
        Step::TakeSnapshot => ("take_canister_snapshot", encoded(Encode!(&Canister { canister_id }))),
        Step::LoadSnapshot(owner, number) => {
            let snapshot = SnapshotId {
                canister_id: id(*owner),
                number: *number,
            };
            let snapshot_id = ByteBuf::from(snapshot.to_bytes());
            (
                "load_canister_snapshot",
                encoded(Encode!(&LoadSnapshot {
                    canister_id,
                    snapshot_id
                })),
            )
        }
        Step::Method(name) => (name, encoded(Encode!(&Canister { canister_id }))),
        Step::Update(_) => unreachable!("no call of the management canister"),
    }
}

fn message(world: &mut World, canister: u64, step: &Step) -> Ingress {
    if let Step::Update(actions) = step {
        return world.update(canister, actions);
    }
    let (method, argument) = call(canister, step);
    Ingress {
        effective_canister_id: Some(id(canister)),
        ..world.ingress(CanisterId::MANAGEMENT, method, argument.into())
    }
}

/// The state hash after every round, and the most management calls that one round took.
fn run(cores: usize, rounds: &[Vec<(u64, Step)>]) -> (Vec<[u8; 32]>, u64) {
    let mut world = World::new(CANISTERS, &[]).on_cores(cores);
    world.state.metadata.subnet.rate_limits = false;
    let (mut trace, mut most) = (Vec::new(), 0);
    for round in 0.. {
        let messages = match rounds.get(round) {
            Some(steps) => steps
                .iter()
                .map(|(canister, step)| message(&mut world, *canister, step))
                .collect(),
            None if world.state.next_round() != crate::NextRound::Now => break,
            None => Vec::new(),
        };
        let stats = world.round(messages);
        assert!(round < 500, "the subnet never comes to rest");
        most = most.max(stats.management_calls);
        trace.push(world.state.state_hash());
    }
    (trace, most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn calls_about_different_canisters_are_the_same_side_by_side(
        rounds in prop::collection::vec(prop::collection::vec((0..CANISTERS, step()), 0..10), 1..6),
    ) {
        let (expected, _) = run(1, &rounds);
        for cores in [2, 3, 4, 8] {
            prop_assert_eq!(&run(cores, &rounds).0, &expected, "{} cores", cores);
        }
    }
}

#[test]
fn a_wave_holds_one_call_for_each_of_four_canisters() {
    // Each hook uses up what an iteration has for calls, so that a wave is all that one executes.
    let long = || Step::Install(1, 0, vec![Work(600_000_000)]);
    let steps: Vec<_> = (0..CANISTERS).map(|canister| (canister, long())).collect();
    let mut world = World::new(CANISTERS, &[]).on_cores(2);
    world.state.metadata.subnet.rate_limits = false;
    let messages: Vec<_> = steps
        .iter()
        .map(|(canister, step)| message(&mut world, *canister, step))
        .collect();
    let stats = world.round(messages.clone());
    assert_eq!(stats.management_calls, 4);
    for message in &messages {
        assert!(matches!(world.status(message), Some(IngressState::Completed(_))));
    }
    // The same module is compiled once: who comes second in the wave pays less, as one after the other.
    let consumed = |world: &World, canister| {
        let consumed = world.canister(canister).system.consumed;
        consumed.get(crate::state::CyclesUseCase::Instructions)
    };
    assert!(consumed(&world, 0) > consumed(&world, 1));
    assert_eq!(consumed(&world, 1), consumed(&world, 3));
}
