//! Creation, start, stop, uninstall, delete, and what waits for them.

use super::stub::{Subnet, assert_empty, assert_refused, own_answer, user};
use crate::management::types::{
    CanisterIdArgs, CreateCanisterArgs, ListCanistersResult, ProvisionalTopUpArgs, UninstallCodeArgs, decode,
};
use crate::management::{check_ingress, effective_canister_id, query, raw_rand_reply, remove_code};
use crate::state::{CallOrigin, CanisterStatus, ChangeOrigin, CyclesUseCase, SubnetCallKind, SubnetMessage};
use candid::Nat;
use replicore_types::{
    CallContextId, CallbackId, CanisterId, Cycles, ErrorCode, MessageId, PrincipalId, SubnetConfig, SubnetType, Time,
};

fn about(id: CanisterId) -> CanisterIdArgs {
    CanisterIdArgs { canister_id: id.0 }
}

#[test]
fn ids_count_up_and_the_creator_controls() {
    let mut subnet = Subnet::new();
    let (a, b) = (subnet.create(), subnet.create());
    assert_eq!((a, b), (CanisterId::from_index(0), CanisterId::from_index(1)));
    let canister = subnet.canister(a);
    assert_eq!(canister.system.balance, Cycles(100_000_000_000_000));
    assert_eq!(canister.memory_usage().0, 222);
    assert!(canister.system.is_controller(&user()));
}

#[test]
fn a_canister_pays_the_creation_fee_with_attached_cycles() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let few = own_answer(subnet.ask_as(a, Cycles(1_000), "create_canister", CreateCanisterArgs::default()));
    assert_eq!(
        few.result.unwrap_err().code,
        ErrorCode::InsufficientCyclesForCreateCanister
    );
    assert_eq!(few.refund, Cycles(1_000));
    let sent = Cycles(2_000_000_000_000);
    let made = own_answer(subnet.ask_as(a, sent, "create_canister", CreateCanisterArgs::default()));
    made.result.unwrap();
    assert_eq!(made.refund, Cycles::ZERO);
    let created = subnet.canister(CanisterId::from_index(1));
    assert_eq!(created.system.balance, Cycles(1_500_000_000_000));
    assert_eq!(
        created.system.consumed.get(CyclesUseCase::CanisterCreation),
        Cycles(500_000_000_000)
    );
    assert!(created.system.is_controller(&a.0));
}

#[test]
fn users_create_canisters_on_rented_subnets_only() {
    let message = |subnet: &mut Subnet| {
        let SubnetMessage::Ingress(ingress) = subnet.ingress(user(), "create_canister", b"DIDL\0\0".to_vec()) else {
            unreachable!()
        };
        ingress
    };
    let mut subnet = Subnet::new();
    let ingress = message(&mut subnet);
    let text = "Only canisters can call ic00 method create_canister";
    assert_refused(check_ingress(&subnet.state, &ingress), 406, text);
    let mut rented = Subnet::of(SubnetConfig {
        subnet_type: SubnetType::CloudEngine,
        ..SubnetConfig::default()
    });
    let ingress = message(&mut rented);
    check_ingress(&rented.state, &ingress).unwrap();
    own_answer(rented.call(SubnetMessage::Ingress(ingress))).result.unwrap();
    assert!(rented.canister(CanisterId::from_index(0)).system.is_controller(&user()));
}

#[test]
fn a_stop_waits_and_a_start_cancels_it() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let stop = subnet.ingress(user(), "stop_canister", candid::encode_one(about(a)).unwrap());
    assert!(
        subnet.call(stop).answers.is_empty(),
        "answered when the canister has stopped"
    );
    assert_eq!(subnet.canister(a).system.version, 1);
    assert!(
        subnet.ask_as(a, Cycles(5), "stop_canister", about(a)).answers[0]
            .result
            .is_err(),
        "not its controller"
    );
    let start = subnet.ingress(user(), "start_canister", candid::encode_one(about(a)).unwrap());
    let work = subnet.call(start);
    let [cancelled, started] = &work.answers[..] else {
        panic!("two answers")
    };
    assert_eq!(
        cancelled.result.as_ref().unwrap_err().code,
        ErrorCode::CanisterStoppingCancelled
    );
    assert!(started.result.is_ok());
    assert_eq!(subnet.canister(a).system.status, CanisterStatus::Running);
    assert_eq!(subnet.canister(a).system.version, 2);
}

#[test]
fn a_stopped_canister_is_stopped_at_once_and_can_be_deleted() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let refused = subnet.ask_with("delete_canister", about(a));
    assert_refused(
        refused,
        510,
        &format!("Canister {a} must be stopped before it is deleted."),
    );
    subnet.state.canister_mut(&a).unwrap().system.status = CanisterStatus::Stopped;
    let version = subnet.canister(a).system.version;
    assert_empty(subnet.ask_with("stop_canister", about(a)));
    assert_eq!(subnet.canister(a).system.version, version + 1, "as every stop");
    assert_empty(subnet.ask_with("delete_canister", about(a)));
    assert!(subnet.state.canister(&a).is_none());
    assert_refused(
        subnet.ask_with("canister_status", about(a)),
        301,
        &format!("Canister {a} not found."),
    );
}

#[test]
fn uninstalling_rejects_open_calls_and_marks_their_contexts() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let origin = CallOrigin::Canister {
        sender: CanisterId::from_index(9),
        callback: CallbackId(3),
        deadline: None,
        method_name: "m".into(),
    };
    let calls = &mut subnet.state.canister_mut(&a).unwrap().system.calls;
    let waiting = calls.open(origin.clone(), Cycles(77), Time(1), None);
    calls.call_context_mut(waiting).unwrap().open_callbacks = 1;
    let ended = CallOrigin::Ingress {
        source: user(),
        message_id: MessageId([9; 32]),
        method_name: "n".into(),
    };
    let other = calls.open(ended, Cycles::ZERO, Time(1), None);
    let args = UninstallCodeArgs {
        canister_id: a.0,
        sender_canister_version: None,
    };
    let message = subnet.ingress(user(), "uninstall_code", candid::encode_one(args).unwrap());
    let work = subnet.call(message);
    let [first, second, own] = &work.answers[..] else {
        panic!("three answers")
    };
    assert_eq!(
        (&first.origin, first.respondent, first.refund),
        (&origin, a, Cycles(77))
    );
    let error = first.result.as_ref().unwrap_err();
    assert_eq!(
        (error.code.number(), error.description.as_str()),
        (406, "Canister has been uninstalled.")
    );
    assert!(second.result.is_err() && own.result.is_ok());
    let contexts = &subnet.canister(a).system.calls.call_contexts;
    assert!(contexts[&waiting].deleted && contexts[&waiting].responded);
    assert!(!contexts.contains_key(&other), "nothing is awaited any more");
    assert_eq!(waiting, CallContextId(1));
    assert_eq!(subnet.canister(a).system.version, 1);
}

#[test]
fn cycles_arrive() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let answer = own_answer(subnet.ask_as(CanisterId::from_index(8), Cycles(11), "deposit_cycles", about(a)));
    assert_eq!((answer.result.is_ok(), answer.refund), (true, Cycles::ZERO));
    let args = ProvisionalTopUpArgs {
        canister_id: a.0,
        amount: Nat::from(31u32),
    };
    assert_empty(subnet.ask_with("provisional_top_up_canister", args));
    assert_eq!(subnet.canister(a).system.balance, Cycles(100_000_000_000_042));
}

#[test]
fn randomness_comes_with_the_next_batch() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let request = SubnetMessage::Request(std::sync::Arc::new(replicore_types::Request {
        receiver: CanisterId::MANAGEMENT,
        sender: a,
        sender_reply_callback: CallbackId(1),
        payment: Cycles(4),
        method_name: "raw_rand".into(),
        payload: b"DIDL\0\0".to_vec().into(),
        deadline: None,
    }));
    assert!(subnet.call(request).answers.is_empty());
    let context = subnet.state.subnet.call_contexts.values().next().unwrap();
    assert_eq!((&context.kind, context.cycles), (&SubnetCallKind::RawRand, Cycles(4)));
    let reply = raw_rand_reply([7; 32]).unwrap();
    assert_eq!(reply[..], [&b"DIDL\x01\x6d\x7b\x01\x00\x20"[..], &[7; 32]].concat());
}

#[test]
fn the_filter_refuses_what_execution_would_refuse() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let stranger = PrincipalId::from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    let mut check = |source, method: &str, payload: Vec<u8>| {
        let SubnetMessage::Ingress(ingress) = subnet.ingress(source, method, payload) else {
            unreachable!()
        };
        check_ingress(&subnet.state, &ingress)
    };
    let arg = candid::encode_one(about(a)).unwrap();
    let text = format!("Only controllers of canister {a} can call ic00 method stop_canister");
    assert_refused(check(stranger, "stop_canister", arg.clone()), 512, &text);
    check(user(), "stop_canister", arg.clone()).unwrap();
    assert_refused(
        check(user(), "canister_info", arg),
        406,
        "Only canisters can call ic00 method canister_info",
    );
    let absent = CanisterId::from_index(255);
    let arg = candid::encode_one(about(absent)).unwrap();
    assert_refused(
        check(user(), "stop_canister", arg),
        301,
        "Canister gmhf2-taaaa-aaaaa-aad7q-cai not found",
    );
    assert_refused(check(user(), "x", vec![]), 536, "Management canister has no method 'x'");
    assert_eq!(
        effective_canister_id("install_code", &[0]).unwrap_err().code,
        ErrorCode::InvalidManagementPayload
    );
    assert_eq!(effective_canister_id("raw_rand", b"DIDL\0\0").unwrap(), None);
}

#[test]
fn a_canister_that_cannot_pay_keeps_nothing_that_costs() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let now = subnet.state.metadata.time;
    let canister = subnet.state.canister_mut(&a).unwrap();
    let origin = ChangeOrigin::Canister {
        canister: CanisterId::MANAGEMENT,
        version: None,
    };
    assert!(remove_code(canister, origin, now).is_empty());
    assert_eq!(canister.memory_usage().0, 0);
    assert_eq!((canister.system.history.total(), canister.system.version), (1, 1));
}

#[test]
fn canisters_are_listed_as_ranges() {
    let mut subnet = Subnet::of(SubnetConfig {
        subnet_type: SubnetType::CloudEngine,
        ..SubnetConfig::default()
    });
    let ids = [subnet.create(), subnet.create(), subnet.create(), subnet.create()];
    subnet.state.remove_canister(&ids[2]);
    let reply = query(&subnet.state, user(), "list_canisters", b"DIDL\0\0").unwrap();
    let listed: ListCanistersResult = decode(&reply).unwrap();
    let ranges: Vec<_> = listed.canisters.iter().map(|range| (range.start, range.end)).collect();
    assert_eq!(ranges, [(ids[0].0, ids[1].0), (ids[3].0, ids[3].0)]);
}
