//! Signatures and HTTP requests as the round sees them: checks, charges, and what is put aside.

use super::stub::*;
use crate::management::types::{
    EcdsaCurve, EcdsaKeyId, HttpHeader, HttpMethod, HttpRequestArgs, NodeMetricsHistoryArgs, SchnorrAlgorithm,
    SchnorrAux, SchnorrKeyId, SignWithEcdsaArgs, SignWithSchnorrArgs, VetKdCurve, VetKdDeriveKeyArgs, VetKdKeyId,
    VetKdPublicKeyArgs,
};
use crate::management::{types, unroutable};
use crate::outcall::HttpMethod as Method;
use crate::state::{CyclesUseCase, SubnetCallKind};
use crate::threshold::{ThresholdOperation, vetkd};
use group::Group;
use group::prime::PrimeCurveAffine;
use replicore_types::{
    CanisterId, Cycles, Height, KeyName, NodeId, PrincipalId, RejectCode, SubnetConfig, ThresholdAlgorithm,
    ThresholdKeyId, ThresholdKeys, Time,
};
use serde_bytes::ByteBuf;
use std::sync::Arc;

const FEE: Cycles = Cycles(10_000_000_000);

fn ecdsa(name: &str) -> SignWithEcdsaArgs {
    SignWithEcdsaArgs {
        message_hash: ByteBuf::from([6; 32]),
        derivation_path: vec![ByteBuf::from("a")],
        key_id: EcdsaKeyId {
            curve: EcdsaCurve::Secp256k1,
            name: name.into(),
        },
    }
}

fn schnorr(algorithm: SchnorrAlgorithm, root_bytes: Option<usize>) -> SignWithSchnorrArgs {
    SignWithSchnorrArgs {
        message: ByteBuf::from("message"),
        derivation_path: vec![],
        key_id: SchnorrKeyId {
            algorithm,
            name: "key_1".into(),
        },
        aux: root_bytes.map(|bytes| {
            SchnorrAux::Bip341(types::Bip341Aux {
                merkle_root_hash: ByteBuf::from(vec![0; bytes]),
            })
        }),
    }
}

#[test]
fn a_signature_is_paid_for_and_put_aside() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let poor = own_answer(subnet.ask_as(a, FEE - Cycles(1), "sign_with_ecdsa", ecdsa("key_1")));
    assert_eq!(poor.refund, FEE - Cycles(1));
    let text = "sign_with_ecdsa request sent with 9_999_999_999 cycles, but 10_000_000_000 cycles are required.";
    assert_refused(poor.result, 406, text);
    assert!(
        subnet
            .ask_as(a, FEE + Cycles(5), "sign_with_ecdsa", ecdsa("key_1"))
            .answers
            .is_empty()
    );
    let context = subnet.state.subnet.call_contexts.values().next().unwrap();
    let SubnetCallKind::Threshold(request) = &context.kind else {
        panic!("{context:?}")
    };
    assert_eq!(
        (context.cycles, request.key.to_string().as_str()),
        (Cycles(5), "ecdsa:Secp256k1:key_1")
    );
    let expected = ThresholdOperation::SignHash {
        path: vec![b"a".to_vec()],
        message_hash: [6; 32],
    };
    assert_eq!(request.operation, expected);
}

#[test]
fn twenty_signatures_of_a_key_may_wait() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    for _ in 0..20 {
        assert!(
            subnet
                .ask_as(a, FEE, "sign_with_ecdsa", ecdsa("key_1"))
                .answers
                .is_empty()
        );
    }
    let full = own_answer(subnet.ask_as(a, FEE, "sign_with_ecdsa", ecdsa("key_1")));
    let text = "sign_with_ecdsa request failed: request queue for key ecdsa:Secp256k1:key_1 is full.";
    assert_refused(full.result, 406, text);
    assert!(
        subnet
            .ask_as(a, FEE, "sign_with_ecdsa", ecdsa("test_key_1"))
            .answers
            .is_empty()
    );
}

#[test]
fn wrong_arguments_are_refused_in_the_words_of_production() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let mut refused = |args| own_answer(subnet.ask_as(a, FEE, "sign_with_schnorr", args)).result;
    let text = "Schnorr algorithm Ed25519 does not support aux input";
    assert_refused(refused(schnorr(SchnorrAlgorithm::Ed25519, Some(32))), 406, text);
    let text = "Invalid aux field for Bip340Secp256k1";
    assert_refused(refused(schnorr(SchnorrAlgorithm::Bip340Secp256k1, Some(8))), 406, text);
    let mut long = schnorr(SchnorrAlgorithm::Ed25519, None);
    long.derivation_path = vec![ByteBuf::new(); 256];
    let text = "Error decoding candid: The number of elements exceeds maximum allowed 255";
    assert_refused(refused(long), 408, text);
    assert!(
        subnet
            .ask_as(
                a,
                FEE,
                "sign_with_schnorr",
                schnorr(SchnorrAlgorithm::Bip340Secp256k1, Some(0))
            )
            .answers
            .is_empty()
    );

    let short = SignWithEcdsaArgs {
        message_hash: ByteBuf::from([6; 31]),
        ..ecdsa("key_1")
    };
    let text = "Error decoding candid: message_hash has 31 bytes, expected 32";
    assert_refused(
        own_answer(subnet.ask_as(a, FEE, "sign_with_ecdsa", short)).result,
        408,
        text,
    );
    let vetkd = VetKdDeriveKeyArgs {
        input: ByteBuf::new(),
        context: ByteBuf::new(),
        transport_public_key: ByteBuf::from([1; 48]),
        key_id: VetKdKeyId {
            curve: VetKdCurve::Bls12381G2,
            name: "key_1".into(),
        },
    };
    let text = "The provided transport public key is invalid.";
    assert_refused(
        own_answer(subnet.ask_as(a, FEE, "vetkd_derive_key", vetkd)).result,
        406,
        text,
    );
}

#[test]
fn calls_about_keys_that_nobody_holds_have_no_destination() {
    let subnet = SubnetConfig::default();
    let payload = |name| candid::encode_one(ecdsa(name)).unwrap();
    assert_eq!(unroutable(&subnet, "sign_with_ecdsa", &payload("key_1")), None);
    assert_eq!(unroutable(&subnet, "start_canister", b"DIDL"), None);
    let none = SubnetConfig {
        threshold_keys: ThresholdKeys::NONE,
        ..subnet
    };
    let reject = unroutable(&none, "sign_with_ecdsa", &payload("key_1")).unwrap();
    assert_eq!(reject.code, RejectCode::DestinationInvalid);
    let text = "Unable to route management canister request sign_with_ecdsa: ChainKeyError(\"Requested unknown or \
                disabled threshold key: ecdsa:Secp256k1:key_1, existing enabled keys: []\")";
    assert_eq!(reject.message, text);
}

/// The argument of an outcall that names no bound for its response.
pub fn outcall_for_test(url: &str) -> Vec<u8> {
    let args = HttpRequestArgs {
        max_response_bytes: None,
        ..get(url)
    };
    candid::encode_one(args).unwrap()
}

fn get(url: &str) -> HttpRequestArgs {
    HttpRequestArgs {
        url: url.into(),
        max_response_bytes: Some(1_000),
        method: HttpMethod::get,
        headers: vec![],
        body: None,
        transform: None,
        is_replicated: None,
        pricing_version: None,
    }
}

#[test]
fn an_outcall_is_paid_for_by_the_bytes_it_may_have() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    // 13 nodes: (3,000,000 + 60,000 * 13 + 400 * 20 + 800 * 1,000) * 13.
    let fee = Cycles(59_644_000);
    let mut args = get("https://example.com/");
    let poor = own_answer(subnet.ask_as(a, fee - Cycles(1), "http_request", args.clone()));
    let text = "http_request request sent with 59_643_999 cycles, but 59_644_000 cycles are required.";
    assert_refused(poor.result, 406, text);
    args.method = HttpMethod::delete;
    args.is_replicated = Some(false);
    assert!(subnet.ask_as(a, fee, "http_request", args).answers.is_empty());
    let context = subnet.state.subnet.call_contexts.values().next().unwrap();
    let SubnetCallKind::HttpRequest(outcall) = &context.kind else {
        panic!("{context:?}")
    };
    assert_eq!((context.cycles, outcall.method), (Cycles::ZERO, Method::Delete));
    assert_eq!(subnet.canister(a).system.consumed.get(CyclesUseCase::HttpOutcalls), fee);
}

#[test]
fn outcalls_beyond_a_bound_are_refused_with_it() {
    let mut subnet = Subnet::new();
    let a: CanisterId = subnet.create();
    let header = |name: usize, value: usize| HttpHeader {
        name: "n".repeat(name),
        value: "v".repeat(value),
    };
    let mut refused = |args: HttpRequestArgs, text: &str| {
        let answer = own_answer(subnet.ask_as(a, Cycles(1 << 40), "http_request", args));
        assert_refused(answer.result, 406, text);
        assert_eq!(answer.refund, Cycles(1 << 40));
    };
    refused(get(&"u".repeat(8_193)), "url size 8193 exceeds 8192");
    let with = |headers, body| HttpRequestArgs {
        headers,
        body,
        ..get("https://example.com")
    };
    let many = vec![header(1, 1); 65];
    refused(with(many, None), "number of all http headers 65 exceeds 64");
    let text = "number of bytes to represent some http header value 8193 exceeds 8192";
    refused(with(vec![header(1, 8_193)], None), text);
    let text = "total number of bytes to represent all http header names and values 57344 exceeds 49152";
    refused(with(vec![header(8_000, 192); 7], None), text);
    let text =
        "total number of bytes to represent all http header names and values and http body 2000001 exceeds 2000000";
    refused(with(vec![header(1, 1)], Some(ByteBuf::from(vec![0; 1_999_999]))), text);
}

/// The master key whose secret is one: the generator.
fn hold_a_vetkd_key(subnet: &mut Subnet) -> [u8; vetkd::PUBLIC_KEY_BYTES] {
    let master = blstrs::G2Affine::generator().to_compressed();
    let key = ThresholdKeyId {
        algorithm: ThresholdAlgorithm::VetKdBls12381G2,
        name: KeyName::from_bytes(b"key_1").unwrap(),
    };
    let keys = [(key, master[..].into())].into_iter().collect();
    subnet.state.metadata.threshold_public_keys = Arc::new(keys);
    master
}

#[test]
fn a_vetkd_public_key_follows_from_master_key_canister_and_context() {
    let mut subnet = Subnet::new();
    let (a, b) = (subnet.create(), subnet.create());
    let master = hold_a_vetkd_key(&mut subnet);
    let args = |canister: Option<CanisterId>, context: &str, name: &str| VetKdPublicKeyArgs {
        canister_id: canister.map(|canister| canister.0),
        context: ByteBuf::from(context),
        key_id: VetKdKeyId {
            curve: VetKdCurve::Bls12381G2,
            name: name.into(),
        },
    };
    let mut ask = |args| own_answer(subnet.ask_as(a, Cycles::ZERO, "vetkd_public_key", args)).result;
    let mut key_of = |canister, context| {
        let reply = ask(args(canister, context, "key_1")).unwrap();
        let result: types::VetKdPublicKeyResult = candid::decode_one(&reply).unwrap();
        result.public_key.into_vec()
    };
    let own = key_of(None, "context");
    assert_eq!(key_of(Some(a), "context"), own);
    assert_ne!(key_of(Some(b), "context"), own);
    assert_ne!(key_of(Some(a), ""), own);
    let derived = vetkd::derive(&master, a.as_slice(), b"context").unwrap();
    assert_eq!(own, derived.public_key.to_compressed());
    let point: [u8; vetkd::PUBLIC_KEY_BYTES] = own.try_into().unwrap();
    assert!(!bool::from(
        blstrs::G2Projective::from(blstrs::G2Affine::from_compressed(&point).unwrap()).is_identity()
    ));
    let unknown = ask(args(None, "context", "key_2"));
    let text = format!(
        "Subnet {} does not hold threshold key vetkd:Bls12_381_G2:key_2.",
        subnet.state.metadata.subnet_id
    );
    assert_refused(unknown, 406, &text);
}

#[derive(candid::CandidType)]
struct AboutSubnet {
    subnet_id: PrincipalId,
}

#[test]
fn a_canister_learns_which_replica_runs_the_subnet() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let subnet_id = subnet.state.metadata.subnet_id.0;
    let reply = own_answer(subnet.ask_as(a, Cycles::ZERO, "subnet_info", AboutSubnet { subnet_id })).result;
    let info: types::SubnetInfoResult = candid::decode_one(&reply.unwrap()).unwrap();
    assert_eq!(info.replica_version, concat!("replicore-", env!("CARGO_PKG_VERSION")));
    let elsewhere = AboutSubnet { subnet_id: a.0 };
    let refused = own_answer(subnet.ask_as(a, Cycles::ZERO, "subnet_info", elsewhere)).result;
    assert_eq!(refused.unwrap_err().code.number(), 404);
    let of_a_user = subnet.ask_with("subnet_info", AboutSubnet { subnet_id });
    assert_refused(of_a_user, 406, "Only canisters can call ic00 method subnet_info");
}

#[test]
fn a_canister_reads_the_blocks_of_the_last_days() {
    const DAY: u64 = 24 * 60 * 60 * 1_000_000_000;
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let node = PrincipalId::self_authenticating([2; 32]);
    let nodes = [(NodeId(node), Arc::from([2; 44]))];
    subnet.state.metadata.nodes = Arc::new(nodes.into_iter().collect());
    for (time, height) in [(DAY, 5), (DAY + 7, 6), (2 * DAY, 9)] {
        subnet.state.metadata.daily_blocks.note(Time(time), Height(height));
    }
    let subnet_id = subnet.state.metadata.subnet_id.0;
    let mut since = |start_at_timestamp_nanos| {
        let args = NodeMetricsHistoryArgs {
            subnet_id,
            start_at_timestamp_nanos,
        };
        let reply = own_answer(subnet.ask_as(a, Cycles::ZERO, "node_metrics_history", args)).result;
        let history: Vec<types::NodeMetricsEntry> = candid::decode_one(&reply.unwrap()).unwrap();
        let blocks = history.iter().map(|entry| {
            let [metrics] = &entry.node_metrics[..] else {
                panic!("one node")
            };
            assert_eq!((metrics.node_id, metrics.num_block_failures_total), (node, 0));
            (entry.timestamp_nanos, metrics.num_blocks_proposed_total)
        });
        blocks.collect::<Vec<_>>()
    };
    assert_eq!(since(0), [(DAY + 7, 6), (2 * DAY, 9)]);
    assert_eq!(since(DAY + 8), [(2 * DAY, 9)]);
    assert_eq!(since(3 * DAY), []);
}

#[test]
fn a_canister_reads_the_counters_of_the_subnet() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    subnet.state.metadata.metrics.update_transactions = 7;
    let subnet_id = subnet.state.metadata.subnet_id.0;
    let reply = own_answer(subnet.ask_as(a, Cycles::ZERO, "subnet_metrics", AboutSubnet { subnet_id })).result;
    let metrics: types::SubnetMetricsResult = candid::decode_one(&reply.unwrap()).unwrap();
    assert_eq!(metrics.update_transactions_total, candid::Nat::from(7_u64));
    let elsewhere = AboutSubnet { subnet_id: a.0 };
    let refused = own_answer(subnet.ask_as(a, Cycles::ZERO, "subnet_metrics", elsewhere)).result;
    assert_eq!(refused.unwrap_err().code.number(), 404);
}
