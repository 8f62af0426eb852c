//! The tree against an independent implementation (`ic-certification`) and against plain maps.

use super::*;
use crate::state::{CanisterSettings, CanisterState, Genesis, SystemState};
use ic_certification::hash_tree as reference;
use ic_certification::{HashTree as ReferenceTree, LookupResult};
use proptest::prelude::*;
use replicore_engine::{
    CanisterModule, CustomSection, CustomSectionVisibility, ExecutionState, ModuleInterface, WasmMemory,
};
use replicore_types::{
    Cycles, ErrorCode, IngressState, IngressStatus, NodeId, Payload, PrincipalId, SubnetConfig, SubnetId, UserError,
};
use std::collections::{BTreeMap, BTreeSet};

fn decode(bytes: &[u8]) -> ReferenceTree {
    let mut decoder = minicbor::Decoder::new(bytes);
    let tree = decode_node(&mut decoder);
    assert_eq!(decoder.position(), bytes.len());
    tree
}

fn decode_node(decoder: &mut minicbor::Decoder<'_>) -> ReferenceTree {
    let length = decoder.array().unwrap().unwrap();
    let kind = decoder.u8().unwrap();
    assert_eq!(length, [1, 3, 3, 2, 2][usize::from(kind)]);
    match kind {
        0 => reference::empty(),
        1 => {
            let left = decode_node(decoder);
            reference::fork(left, decode_node(decoder))
        }
        2 => {
            let label = decoder.bytes().unwrap().to_vec();
            reference::label(label, decode_node(decoder))
        }
        3 => reference::leaf(decoder.bytes().unwrap().to_vec()),
        _ => reference::pruned(<[u8; 32]>::try_from(decoder.bytes().unwrap()).unwrap()),
    }
}

fn paths(paths: &[&[&[u8]]]) -> PathSet {
    PathSet::new(paths.iter().map(|path| path.iter().copied()))
}

fn label(bytes: &[u8]) -> Label {
    Label::new(bytes).unwrap()
}

/// The example of the interface specification: forks that halve the labels give its very tree, but for one `Empty`.
#[test]
fn the_specifications_example_is_pruned_as_there() {
    let leaf = |text: &str| Subtree::Leaf(text.as_bytes().to_vec());
    let tree = Subtree::labels([
        ("a", Subtree::labels([("x", leaf("hello")), ("y", leaf("world"))])),
        ("b", leaf("good")),
        ("c", Subtree::Labels(BTreeMap::new())),
        ("d", leaf("morning")),
    ]);
    let pruned = tree.witness(&paths(&[&[b"a", b"y"], &[b"ax"], &[b"d"]]));
    assert_eq!(pruned.digest(), tree.digest());
    let pruned = decode(&pruned.encode());
    assert_eq!(pruned.digest(), tree.digest());
    assert_eq!(pruned.lookup_path([&b"a"[..], b"a"]), LookupResult::Unknown);
    assert_eq!(pruned.lookup_path([&b"a"[..], b"y"]), LookupResult::Found(b"world"));
    assert_eq!(pruned.lookup_path([b"aa"]), LookupResult::Absent);
    assert_eq!(pruned.lookup_path([b"ax"]), LookupResult::Absent);
    assert_eq!(pruned.lookup_path([b"b"]), LookupResult::Unknown);
    assert_eq!(pruned.lookup_path([b"bb"]), LookupResult::Unknown);
    assert_eq!(pruned.lookup_path([b"d"]), LookupResult::Found(b"morning"));
    assert_eq!(pruned.lookup_path([b"e"]), LookupResult::Absent);
    let HashTree::Fork(sides) = tree.witness(&paths(&[&[b"d"]])) else {
        panic!("a fork of pairs of labels")
    };
    let c_digest = reference::labeled_hash(b"c", &digest::empty_digest());
    let HashTree::Fork(right) = sides.1 else {
        panic!("a fork of c and d")
    };
    assert_eq!(right.0, HashTree::Pruned(c_digest));
    assert_eq!(
        hex(&c_digest),
        "ec8324b8a1f1ac16bd2e806edba78006479c9877fed4eb464a25485465af601d"
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Short labels over few letters: many share beginnings, and some are the beginning of others.
fn any_label() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0x80), any::<u8>()], 0..4),
        prop::collection::vec(any::<u8>(), 32..=32),
        (0u64..300).prop_map(|index| replicore_types::CanisterId::from_index(index).as_slice().to_vec()),
    ]
}

fn rebuilt(model: &BTreeMap<Vec<u8>, Digest>) -> DigestMap {
    let mut map = DigestMap::default();
    map.update(
        model
            .iter()
            .map(|(bytes, digest)| (label(bytes), Some(*digest)))
            .collect(),
        false,
    );
    map
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Batches of insertions and removals: history leaves no trace, old versions stay, witnesses prove.
    #[test]
    fn digest_map_behaves_like_a_map(
        batches in prop::collection::vec(prop::collection::vec((any_label(), prop::option::weighted(0.7, any::<u8>())), 0..150), 1..6),
        probes in prop::collection::vec(any_label(), 1..8),
    ) {
        let mut model = BTreeMap::new();
        let mut map = DigestMap::default();
        for (round, batch) in batches.into_iter().enumerate() {
            let (old_map, old_digest) = (map.clone(), map.digest());
            let mut changes = Vec::new();
            for (bytes, value) in batch {
                let content = value.map(|value| digest::leaf_digest(&[value]));
                changes.push((label(&bytes), content));
                match content {
                    Some(content) => model.insert(bytes, content),
                    None => model.remove(&bytes),
                };
            }
            map.update(changes, round % 2 == 0);
            prop_assert_eq!(map.len(), model.len());
            prop_assert_eq!(map.digest(), rebuilt(&model).digest());
            prop_assert_eq!(old_map.digest(), old_digest);
        }
        for probe in &probes {
            let below = label(probe);
            prop_assert_eq!(map.contains(&below), model.contains_key(probe));
            let (before, after) = map.neighbours(&below);
            let expected = model.range::<Vec<u8>, _>(..probe).next_back().map(|(bytes, _)| bytes.as_slice());
            prop_assert_eq!(before.as_ref().map(Label::as_slice), expected);
            let after_probe = (std::ops::Bound::Excluded(probe), std::ops::Bound::Unbounded);
            let expected = model.range::<Vec<u8>, _>(after_probe).next().map(|(bytes, _)| bytes.as_slice());
            prop_assert_eq!(after.as_ref().map(Label::as_slice), expected);
        }
        let asked = PathSet::new(probes.iter().map(|probe| [probe.as_slice()]));
        let witness = map_witness(&map, &asked, |label, _| model.get(label.as_slice()).map(|digest| Subtree::Digest(*digest)));
        let witness = decode(&witness.encode());
        prop_assert_eq!(witness.digest(), map.digest());
        for probe in &probes {
            let found = witness.lookup_path([probe.as_slice()]);
            let expected = if model.contains_key(probe) { LookupResult::Unknown } else { LookupResult::Absent };
            prop_assert_eq!(found, expected);
        }
        for probe in &probes {
            let mut encoded = b"before".to_vec();
            let exists = map.encode_one(&label(probe), |out| HashTree::Leaf(probe.clone()).encode_into(out), &mut encoded);
            prop_assert_eq!(exists, model.contains_key(probe));
            let shown = HashTree::Labeled(probe.clone(), Box::new(HashTree::Leaf(probe.clone())));
            let expected = match exists {
                true => map.witness(&[(label(probe), shown)].into()).encode(),
                false => Vec::new(),
            };
            prop_assert_eq!(encoded, [&b"before"[..], &expected].concat());
        }
    }
}

fn user(number: u8) -> PrincipalId {
    PrincipalId::self_authenticating([number])
}

fn request(number: u8) -> MessageId {
    MessageId([number; 32])
}

const CREATED: u64 = 1_620_328_630_000_000_000;

fn execution(hash: u8) -> ExecutionState {
    let section = |visibility, content: &str| CustomSection {
        visibility,
        content: content.as_bytes().into(),
    };
    ExecutionState {
        module: CanisterModule {
            bytes: Arc::from([hash]),
            hash: [hash; 32],
        },
        interface: Arc::new(ModuleInterface {
            custom_sections: [
                (
                    "candid:service".to_owned(),
                    section(CustomSectionVisibility::Public, "service : {}"),
                ),
                ("secret".to_owned(), section(CustomSectionVisibility::Private, "hidden")),
            ]
            .into(),
            ..ModuleInterface::default()
        }),
        heap: WasmMemory::default(),
        stable: WasmMemory::default(),
        globals: Arc::from([]),
        warm_version: 0,
    }
}

fn canister(index: u64, controller: PrincipalId, module: Option<u8>) -> CanisterState {
    let id = replicore_types::CanisterId::from_index(index);
    let settings = CanisterSettings {
        controllers: Arc::new(BTreeSet::from([controller])),
        ..Default::default()
    };
    let mut canister = CanisterState::new(SystemState::new(id, settings, Cycles::ZERO, Time(CREATED)));
    canister.execution = module.map(execution);
    canister.system.certified_data = Payload::from(&b"data"[..]);
    canister
}

fn subnet_id() -> SubnetId {
    SubnetId(user(200))
}

fn state() -> ReplicatedState {
    let mut state = ReplicatedState::genesis(Genesis {
        subnet_id: subnet_id(),
        subnet: SubnetConfig::default(),
        root_key: Arc::from(&b"root key"[..]),
        nodes: [(NodeId(user(201)), Arc::from(&b"node key"[..]))].into(),
        canister_indices: (0, 99),
        threshold_public_keys: Default::default(),
    });
    state.metadata.time = Time(CREATED + 7);
    for (index, module) in [(3, Some(1)), (5, None), (6, Some(2))] {
        state.insert_canister(canister(index, user(1), module));
    }
    let statuses = [
        IngressState::Completed(Payload::from(&b"DIDL"[..])),
        IngressState::Failed(UserError::new(ErrorCode::CanisterTrapped, "trapped")),
        IngressState::Processing,
    ];
    for (number, ingress_state) in (1..).zip(statuses) {
        let receiver = replicore_types::CanisterId::from_index(3);
        let status = IngressStatus {
            receiver,
            source: user(1),
            time: Time(CREATED),
            state: ingress_state,
        };
        state.set_ingress_status(request(number), status);
    }
    state
}

fn certified(state: &ReplicatedState, asked: &[&[&[u8]]]) -> ReferenceTree {
    let tree = CertifiedState::rebuild(state);
    let witness = decode(&tree.witness(state, paths(asked)).encode());
    assert_eq!(witness.digest(), tree.root_hash());
    assert!(matches!(witness.lookup_path([b"time"]), LookupResult::Found(_)));
    witness
}

#[test]
fn request_statuses_read_as_specified() {
    let state = state();
    let (replied, rejected, unknown) = (request(1), request(2), request(9));
    let tree = certified(
        &state,
        &[
            &[b"request_status", replied.as_bytes()],
            &[b"request_status", rejected.as_bytes()],
            &[b"request_status", unknown.as_bytes()],
        ],
    );
    let read =
        |id: &MessageId, field: &str| match tree.lookup_path([&b"request_status"[..], id.as_bytes(), field.as_bytes()])
        {
            LookupResult::Found(value) => Some(value.to_vec()),
            LookupResult::Absent => None,
            other => panic!("{other:?}"),
        };
    assert_eq!(read(&replied, "status"), Some(b"replied".to_vec()));
    assert_eq!(read(&replied, "reply"), Some(b"DIDL".to_vec()));
    assert_eq!(read(&replied, "reject_code"), None);
    assert_eq!(read(&rejected, "status"), Some(b"rejected".to_vec()));
    assert_eq!(read(&rejected, "reject_code"), Some(vec![5]));
    assert_eq!(read(&rejected, "reject_message"), Some(b"trapped".to_vec()));
    assert_eq!(read(&rejected, "error_code"), Some(b"IC0502".to_vec()));
    assert_eq!(read(&unknown, "status"), None);
    assert_eq!(
        tree.lookup_path([&b"request_status"[..], request(3).as_bytes(), b"status"]),
        LookupResult::Unknown
    );
    let LookupResult::Found(time) = tree.lookup_path([b"time"]) else {
        panic!("no time")
    };
    assert_eq!((time.len(), leb128_value(time)), (9, CREATED + 7));
}

/// The short way to the witness of one status gives what the general one does, however many statuses there are.
#[test]
fn the_short_way_to_a_status_leads_to_the_same_witness() {
    let mut state = state();
    for (before, count) in [(3, 3_u8), (3, 4), (4, 11), (11, 12), (12, 13), (13, 40), (40, 200)] {
        for number in before..count {
            let status = IngressStatus {
                receiver: replicore_types::CanisterId::from_index(3),
                source: user(1),
                time: Time(CREATED),
                state: match number % 3 {
                    0 => IngressState::Completed(Payload::from(vec![number; usize::from(number)])),
                    1 => IngressState::Received,
                    _ => IngressState::Done,
                },
            };
            // In no order, and none of them one that is there.
            let mut id = [number.wrapping_mul(91); 32];
            id[31] = 255;
            state.set_ingress_status(MessageId(id), status);
        }
        let tree = CertifiedState::rebuild(&state);
        let frame = tree.status_frame();
        let ids: Vec<_> = state.ingress_history.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids.len(), usize::from(count));
        for id in &ids {
            let mut encoded = vec![7];
            assert!(tree.encode_status(&frame, &state, id, &mut encoded));
            let expected = tree
                .witness(&state, paths(&[&[b"request_status", id.as_bytes()]]))
                .encode();
            assert_eq!(encoded, [&[7][..], &expected].concat(), "{count} statuses");
        }
        let mut encoded = vec![7];
        assert!(!tree.encode_status(&frame, &state, &MessageId([250; 32]), &mut encoded));
        assert_eq!(encoded, [7], "nothing is appended for what does not exist");
    }
}

fn leb128_value(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
}

#[test]
fn canisters_read_as_specified() {
    let state = state();
    let id = |index| replicore_types::CanisterId::from_index(index).as_slice().to_vec();
    let (full, empty, gone) = (id(3), id(5), id(4));
    let tree = certified(
        &state,
        &[
            &[b"canister", &full],
            &[b"canister", &empty, b"module_hash"],
            &[b"canister", &gone, b"controllers"],
        ],
    );
    assert_eq!(
        tree.lookup_path([b"canister", &full[..], b"module_hash"]),
        LookupResult::Found(&[1; 32])
    );
    assert_eq!(
        tree.lookup_path([b"canister", &full[..], b"certified_data"]),
        LookupResult::Found(b"data")
    );
    let candid = [&b"canister"[..], &full, b"metadata", b"candid:service"];
    assert_eq!(tree.lookup_path(candid), LookupResult::Found(b"service : {}"));
    let controllers = [&[0xd9, 0xd9, 0xf7, 0x81, 0x58, 29][..], user(1).as_slice()].concat();
    assert_eq!(
        tree.lookup_path([b"canister", &full[..], b"controllers"]),
        LookupResult::Found(&controllers)
    );
    assert_eq!(
        tree.lookup_path([b"canister", &empty[..], b"module_hash"]),
        LookupResult::Absent
    );
    assert_eq!(
        tree.lookup_path([b"canister", &gone[..], b"controllers"]),
        LookupResult::Absent
    );
}

#[test]
fn subnet_facts_read_as_specified() {
    let state = state();
    let (subnet, node) = (subnet_id(), NodeId(user(201)));
    let tree = certified(
        &state,
        &[
            &[b"subnet"],
            &[b"canister_ranges", subnet.as_slice()],
            &[b"api_boundary_nodes"],
        ],
    );
    let read = |path: &[&[u8]]| match tree.lookup_path(path) {
        LookupResult::Found(value) => value.to_vec(),
        other => panic!("{other:?}"),
    };
    assert_eq!(read(&[b"subnet", subnet.as_slice(), b"public_key"]), b"root key");
    assert_eq!(read(&[b"subnet", subnet.as_slice(), b"type"]), b"cloud_engine");
    assert_eq!(
        read(&[b"subnet", subnet.as_slice(), b"node", node.as_slice(), b"public_key"]),
        b"node key"
    );
    let first = replicore_types::CanisterId::from_index(0);
    let ranges = "d9d9f781824a000000000000000001014a00000000000000630101";
    assert_eq!(
        hex(&read(&[b"canister_ranges", subnet.as_slice(), first.as_slice()])),
        ranges
    );
    assert_eq!(hex(&read(&[b"subnet", subnet.as_slice(), b"canister_ranges"])), ranges);
    let metrics = read(&[b"subnet", subnet.as_slice(), b"metrics"]);
    assert!(
        hex(&metrics).starts_with("d9d9f7a46d6e756d5f63616e697374657273"),
        "{}",
        hex(&metrics)
    );
    assert_eq!(tree.lookup_path([b"api_boundary_nodes"]), LookupResult::Absent);
}

#[test]
fn update_and_rebuild_agree() {
    let mut state = state();
    let mut tree = CertifiedState::rebuild(&state);
    let id = replicore_types::CanisterId::from_index;
    state.metadata.time = Time(CREATED + 8);
    state.canister_mut(&id(3)).unwrap().execution = Some(execution(9));
    state.canister_mut(&id(6)).unwrap().system.certified_data = Payload::from(&b"other"[..]);
    state.insert_canister(canister(7, user(2), None));
    state.remove_canister(&id(5));
    let mut reduced = Vec::new();
    state.ingress_history.reduce_to(0, state.metadata.time, &mut reduced);
    assert_eq!(reduced, [request(1), request(2)]);
    let before = tree.root_hash();
    let mut always = tree.clone();
    always.rebuild_always();
    let root_hash = tree.update(
        &state,
        &[id(3), id(5), id(6), id(7)],
        &[request(1), request(1), request(2), request(8)],
    );
    assert_ne!(root_hash, before);
    assert_eq!(root_hash, CertifiedState::rebuild(&state).root_hash());
    assert_eq!(
        root_hash,
        always.update(&state, &[], &[]),
        "what changed need not be named"
    );
    assert_eq!(
        root_hash,
        tree.update(&state, &[id(3), id(77)], &[request(2)]),
        "nothing changed"
    );
}

fn check(target: ReadStateTarget, source: u8, targets: Option<&[CanisterId]>, path: &[&[u8]]) -> Result<(), u16> {
    let path = path.iter().map(|label| label.to_vec()).collect();
    let request = ReadStateRequest {
        target,
        source: user(source),
        delegation_targets: targets,
        paths: &[path],
    };
    check_read_state(&state(), &request)
        .map(drop)
        .map_err(|refused| match refused {
            ReadStateRefused::Invalid(_) => 400,
            ReadStateRefused::Forbidden(_) => 403,
            ReadStateRefused::NotFound(_) => 404,
        })
}

#[test]
fn paths_are_read_by_whom_they_concern() {
    let id = replicore_types::CanisterId::from_index;
    let (canister, subnet) = (ReadStateTarget::Canister(id(3)), ReadStateTarget::Subnet(subnet_id()));
    let three = id(3).as_slice().to_vec();
    let (mine, unknown) = (request(1), request(9));
    assert_eq!(check(canister, 1, None, &[b"time"]), Ok(()));
    assert_eq!(check(canister, 1, None, &[b"nonsense"]), Err(404));
    assert_eq!(
        check(canister, 1, None, &[b"canister", &three, b"certified_data"]),
        Err(404)
    );
    assert_eq!(check(canister, 1, None, &[b"request_status", mine.as_bytes()]), Ok(()));
    assert_eq!(
        check(canister, 2, None, &[b"request_status", mine.as_bytes()]),
        Err(403)
    );
    assert_eq!(
        check(canister, 2, None, &[b"request_status", unknown.as_bytes(), b"status"]),
        Ok(())
    );
    assert_eq!(
        check(canister, 1, Some(&[id(3)]), &[b"request_status", mine.as_bytes()]),
        Ok(())
    );
    assert_eq!(
        check(canister, 1, Some(&[id(4)]), &[b"request_status", mine.as_bytes()]),
        Err(403)
    );
    assert_eq!(check(canister, 1, None, &[b"request_status", b"short"]), Err(400));
    assert_eq!(
        check(
            canister,
            2,
            None,
            &[b"canister", &three, b"metadata", b"candid:service"]
        ),
        Ok(())
    );
    assert_eq!(
        check(canister, 2, None, &[b"canister", &three, b"metadata", b"secret"]),
        Err(403)
    );
    assert_eq!(
        check(canister, 1, None, &[b"canister", &three, b"metadata", b"secret"]),
        Ok(())
    );
    assert_eq!(
        check(canister, 1, None, &[b"canister", &three, b"metadata", b"\xff"]),
        Err(400)
    );
    assert_eq!(
        check(canister, 2, None, &[b"canister", id(5).as_slice(), b"controllers"]),
        Err(400)
    );
    assert_eq!(check(subnet, 2, None, &[b"canister", &three, b"controllers"]), Err(404));
    assert_eq!(
        check(subnet, 2, None, &[b"subnet", subnet_id().as_slice(), b"metrics"]),
        Ok(())
    );
    assert_eq!(
        check(canister, 2, None, &[b"subnet", subnet_id().as_slice(), b"metrics"]),
        Err(404)
    );
    let subnet_bytes = subnet_id().as_slice().to_vec();
    assert_eq!(check(subnet, 2, None, &[b"canister_ranges", &subnet_bytes]), Ok(()));
    assert_eq!(check(canister, 2, None, &[b"canister_ranges", &subnet_bytes]), Err(404));
    assert_eq!(check(subnet, 2, None, &[b"canister_ranges"]), Err(404));
    assert_eq!(
        check(ReadStateTarget::Subnet(SubnetId(user(9))), 1, None, &[b"time"]),
        Err(404)
    );
    assert_eq!(check(canister, 1, None, &[&b"x"[..]; 128]), Err(400));
}

#[test]
fn a_request_names_one_request_id_and_at_most_a_thousand_paths() {
    let target = ReadStateTarget::Subnet(subnet_id());
    let ask = |paths: &[Vec<Vec<u8>>]| {
        check_read_state(
            &state(),
            &ReadStateRequest {
                target,
                source: user(1),
                delegation_targets: None,
                paths,
            },
        )
    };
    let status = |number| vec![b"request_status".to_vec(), request(number).as_bytes().to_vec()];
    assert!(ask(&[status(1), status(1)]).is_ok());
    assert!(matches!(
        ask(&[status(1), status(2)]),
        Err(ReadStateRefused::Invalid(_))
    ));
    let time = vec![b"time".to_vec()];
    assert!(ask(&vec![time.clone(); 1_000]).is_ok());
    assert!(matches!(ask(&vec![time; 1_001]), Err(ReadStateRefused::Invalid(_))));
}
