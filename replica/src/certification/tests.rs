//! Keys, certificates and signatures, checked with the published verification rules.

use super::keys::{BLS_CIPHERSUITE, BLS_DER_PREFIX, ED25519_DER_PREFIX, STATE_ROOT_DOMAIN};
use super::*;
use blst::BLST_ERROR;
use blst::min_sig::{PublicKey, Signature};
use ic_certification::{HashTree, LookupResult, hash_tree};
use replicore_scheduler::ReplicatedState;
use replicore_scheduler::certified_state::{CertifiedState, PathSet};
use replicore_scheduler::state::Genesis;
use replicore_types::{
    CanisterId, ErrorCode, IngressState, IngressStatus, MessageId, Payload, PrincipalId, SubnetConfig, Time, UserError,
};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;

fn keys() -> (tempfile::TempDir, RootKey, NodeKey) {
    let directory = tempfile::tempdir().unwrap();
    let root_key = RootKey::load_or_create(directory.path()).unwrap();
    let node_key = NodeKey::load_or_create(directory.path()).unwrap();
    (directory, root_key, node_key)
}

fn verify_bls(public_key_der: &[u8], root_hash: &[u8; 32], signature: &[u8]) -> BLST_ERROR {
    assert_eq!(public_key_der[..37], BLS_DER_PREFIX);
    let public_key = PublicKey::key_validate(&public_key_der[37..]).unwrap();
    let signature = Signature::sig_validate(signature, true).unwrap();
    let message = [&STATE_ROOT_DOMAIN[..], root_hash].concat();
    signature.verify(true, &message, BLS_CIPHERSUITE, &[], &public_key, true)
}

#[test]
fn keys_are_made_once_and_kept_private() {
    let (directory, root_key, node_key) = keys();
    assert_eq!(root_key.public_key_der().len(), 133);
    assert_eq!(node_key.public_key_der().len(), 44);
    assert_eq!(
        root_key.subnet_id().0,
        PrincipalId::self_authenticating(root_key.public_key_der())
    );
    assert_eq!(
        node_key.node_id().0,
        PrincipalId::self_authenticating(node_key.public_key_der())
    );
    let again = RootKey::load_or_create(directory.path()).unwrap();
    assert_eq!(again.public_key_der(), root_key.public_key_der());
    let again = NodeKey::load_or_create(directory.path()).unwrap();
    assert_eq!(again.public_key_der(), node_key.public_key_der());
    let files: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    assert_eq!(files.len(), 2, "nothing unfinished is left");
    assert!(
        files
            .iter()
            .all(|file| file.metadata().unwrap().mode() & 0o7777 == 0o600)
    );
}

#[test]
fn keys_that_others_may_read_or_that_are_damaged_are_refused() {
    let (directory, ..) = keys();
    let path = directory.path().join(ROOT_KEY_FILE);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = RootKey::load_or_create(directory.path()).err().unwrap();
    assert!(matches!(error, KeyError::Mode(_, 0o640)), "{error}");
    assert!(error.to_string().contains("chmod 600"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&path, [1; 31]).unwrap();
    assert!(matches!(
        RootKey::load_or_create(directory.path()),
        Err(KeyError::Length(_))
    ));
    std::fs::write(&path, [0xff; 32]).unwrap();
    assert!(matches!(
        RootKey::load_or_create(directory.path()),
        Err(KeyError::Value(_))
    ));
    std::fs::write(&path, [1; 4_000]).unwrap();
    assert!(matches!(
        RootKey::load_or_create(directory.path()),
        Err(KeyError::Length(_))
    ));
}

fn decode_tree(decoder: &mut minicbor::Decoder<'_>) -> HashTree {
    decoder.array().unwrap();
    match decoder.u8().unwrap() {
        0 => hash_tree::empty(),
        1 => {
            let left = decode_tree(decoder);
            hash_tree::fork(left, decode_tree(decoder))
        }
        2 => {
            let label = decoder.bytes().unwrap().to_vec();
            hash_tree::label(label, decode_tree(decoder))
        }
        3 => hash_tree::leaf(decoder.bytes().unwrap().to_vec()),
        _ => hash_tree::pruned(<[u8; 32]>::try_from(decoder.bytes().unwrap()).unwrap()),
    }
}

/// Reads a certificate as a client does: tag, map, tree, signature, no delegation.
fn verified_tree(certificate: &[u8], root_key_der: &[u8]) -> HashTree {
    let mut decoder = minicbor::Decoder::new(certificate);
    assert_eq!(decoder.tag().unwrap().as_u64(), 55_799);
    assert_eq!(decoder.map().unwrap(), Some(2));
    assert_eq!(decoder.str().unwrap(), "tree");
    let tree = decode_tree(&mut decoder);
    assert_eq!(decoder.str().unwrap(), "signature");
    let signature = decoder.bytes().unwrap();
    assert_eq!(decoder.position(), certificate.len());
    assert_eq!(
        verify_bls(root_key_der, &tree.digest(), signature),
        BLST_ERROR::BLST_SUCCESS
    );
    tree
}

fn state(root_key: &RootKey, node_key: &NodeKey) -> ReplicatedState {
    let mut state = ReplicatedState::genesis(Genesis {
        subnet_id: root_key.subnet_id(),
        subnet: SubnetConfig::default(),
        root_key: Arc::from(root_key.public_key_der()),
        nodes: [(node_key.node_id(), Arc::from(node_key.public_key_der()))].into(),
        canister_indices: (0, 9),
        threshold_public_keys: Default::default(),
    });
    state.metadata.time = Time(5);
    let status = IngressStatus {
        receiver: CanisterId::from_index(0),
        source: PrincipalId::anonymous(),
        time: Time(5),
        state: IngressState::Completed(Payload::from(&b"reply"[..])),
    };
    state.set_ingress_status(MessageId([7; 32]), status);
    state
}

#[test]
fn certificates_verify_under_the_root_key() {
    let (_directory, root_key, node_key) = keys();
    let state = state(&root_key, &node_key);
    let tree = CertifiedState::rebuild(&state);
    let root = CertifiedRoot::new(&tree, &root_key);
    let id = MessageId([7; 32]);
    let certificate = root.certificate(&tree, &state, request_status_paths(&id));
    let shown = verified_tree(&certificate, root_key.public_key_der());
    assert_eq!(shown.digest(), *root.root_hash());
    assert_eq!(
        shown.lookup_path([&b"request_status"[..], id.as_bytes(), b"reply"]),
        LookupResult::Found(b"reply")
    );
    assert_eq!(shown.lookup_path([b"time"]), LookupResult::Found(&[5]));
    let frame = tree.status_frame();
    assert_eq!(root.status_certificate(&tree, &state, &frame, &id), Some(certificate));
    assert_eq!(
        root.status_certificate(&tree, &state, &frame, &MessageId([8; 32])),
        None
    );
    let absent = root.certificate(&tree, &state, data_certificate_paths(&CanisterId::from_index(3)));
    let shown = verified_tree(&absent, root_key.public_key_der());
    let path = [
        &b"canister"[..],
        CanisterId::from_index(3).as_slice(),
        b"certified_data",
    ]
    .map(<[u8]>::to_vec);
    assert_eq!(shown.lookup_path(&path), LookupResult::Absent);
    let subnet = root.certificate(&tree, &state, PathSet::new([[&b"subnet"[..]]]));
    let shown = verified_tree(&subnet, root_key.public_key_der());
    let path = [
        &b"subnet"[..],
        root_key.subnet_id().as_slice(),
        b"node",
        node_key.node_id().as_slice(),
        b"public_key",
    ]
    .map(<[u8]>::to_vec);
    assert_eq!(shown.lookup_path(&path), LookupResult::Found(node_key.public_key_der()));
    assert_ne!(
        verify_bls(root_key.public_key_der(), &[0; 32], root.signature()),
        BLST_ERROR::BLST_SUCCESS
    );
}

#[test]
fn query_responses_verify_under_the_node_key() {
    let (_directory, _, node_key) = keys();
    assert_eq!(node_key.public_key_der()[..12], ED25519_DER_PREFIX);
    let key: [u8; 32] = node_key.public_key_der()[12..].try_into().unwrap();
    let key = ed25519_zebra::VerificationKey::try_from(key).unwrap();
    let (id, time) = (MessageId([1; 32]), Time(1_620_328_630_000_000_000));
    let error = UserError::new(ErrorCode::CanisterTrapped, "trapped");
    for outcome in [QueryOutcome::Replied(b"DIDL"), QueryOutcome::Rejected(&error)] {
        let signature = ed25519_zebra::Signature::from_bytes(&sign_query_response(&node_key, outcome, &id, time));
        let message = [&b"\x0bic-response"[..], &query_response_hash(outcome, &id, time)].concat();
        key.verify(&signature, &message).unwrap();
        assert!(key.verify(&signature, &message[1..]).is_err());
    }
}

/// Pinned: the values were computed with the reference hash of ic-transport-types 0.49.
#[test]
fn response_hashes_are_independent_of_the_representation() {
    let (id, time) = (MessageId([1; 32]), Time(1_620_328_630_000_000_000));
    let error = UserError::new(ErrorCode::CanisterTrapped, "trapped");
    let hashes = [QueryOutcome::Replied(b"DIDL"), QueryOutcome::Rejected(&error)]
        .map(|outcome| hex::encode(query_response_hash(outcome, &id, time)));
    assert_eq!(hashes, [REPLIED_HASH, REJECTED_HASH]);
}

const REPLIED_HASH: &str = "77988cf6c90190a7c0a63d68dd409a5ed971713daf9114b209f665a7ff0b39c8";
const REJECTED_HASH: &str = "b1c0d56b0200e5ec3f7f6f2a4f876ce0d8156ac8ed553df44fc624d88d666775";
