//! Settings, status, history: bytes and texts as the production replica gives them.

use super::stub::{Subnet, assert_empty, assert_refused, hex, own_answer, principals, user};
use crate::management::types::{
    self, CanisterIdArgs, CanisterInfoArgs, CanisterStatusResult, DefiniteSettings, DefiniteSettingsMay2026,
    EnvironmentVariable, ProvisionalTopUpArgs, SettingsArgs, UpdateSettingsArgs, Visibility,
};
use crate::management::{check_ingress, effective_canister_id, error, ingress_payer, query};
use crate::state::{CanisterStatus, LowMemoryHook, SubnetMessage};
use candid::Nat;
use replicore_types::{CanisterId, Cycles, InterfaceVersion, NumBytes, Payload, PrincipalId, UserError};

fn arguments(id: CanisterId, settings: SettingsArgs) -> UpdateSettingsArgs {
    UpdateSettingsArgs {
        canister_id: id.0,
        settings,
        sender_canister_version: None,
    }
}

fn update(subnet: &mut Subnet, id: CanisterId, settings: SettingsArgs) -> Result<Payload, UserError> {
    subnet.ask_with("update_settings", arguments(id, settings))
}

/// The fee on the method name and the argument: the envelope around them is not known when it is charged.
fn update_fee(id: CanisterId, settings: SettingsArgs) -> u128 {
    let argument = candid::encode_one(arguments(id, settings)).unwrap();
    1_200_000 + 2_000 * ("update_settings".len() + argument.len()) as u128
}

fn nat(number: u128) -> Option<Nat> {
    Some(Nat::from(number))
}

#[test]
fn the_limit_of_the_log_is_nothing_or_a_page_at_least() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let mut limit = |bytes| {
        let settings = SettingsArgs {
            log_memory_limit: nat(bytes),
            ..Default::default()
        };
        update(&mut subnet, a, settings)
    };
    assert_empty(limit(0));
    assert_empty(limit(2 << 20));
    let low = "The canister log memory limit 4095 is too low. It must be at least 4096.";
    assert_refused(limit(4_095), 406, low);
    let high = "The canister log memory limit 2097153 is too high. It must be at most 2097152.";
    assert_refused(limit((2 << 20) + 1), 406, high);
    let range = "Log memory limit expected to be in the range of [0..2^64-1], got 18_446_744_073_709_551_616";
    assert_refused(limit(1 << 64), 504, range);
}

#[test]
fn allocations_reserve_cycles_where_the_subnet_fills_up() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    subnet.state.metadata.memory_taken = NumBytes(1 << 40);
    let allocate = |subnet: &mut Subnet, gib: u128, limit: u128| {
        let settings = SettingsArgs {
            memory_allocation: nat(gib << 30),
            reserved_cycles_limit: nat(limit),
            ..Default::default()
        };
        update(subnet, a, settings)
    };
    let reserved = |subnet: &Subnet| subnet.canister(a).system.reserved_balance;
    let before = subnet.canister(a).system.balance + reserved(&subnet);
    let grown = (1 << 30) - subnet.canister(a).memory_usage().0;
    let expected = subnet.reservation_of(grown);
    assert!(!expected.is_zero());
    assert_refused(
        allocate(&mut subnet, 1, 1_000),
        533,
        &format!(
            "Cannot increase memory allocation to 1.00 GiB due to its reserved cycles limit. The current limit (1_000) \
             would be exceeded by {}.",
            error::grouped((expected - Cycles(1_000)).0)
        ),
    );
    assert_eq!(reserved(&subnet), Cycles::ZERO);
    assert_empty(allocate(&mut subnet, 1, u128::MAX));
    assert_eq!(reserved(&subnet), expected);
    let fees = before - subnet.canister(a).system.balance - expected;
    assert!(fees < Cycles(10_000_000), "{fees:?}");
    assert_refused(
        allocate(&mut subnet, 1, 5),
        540,
        &format!(
            "Cannot set the reserved cycles limit 5 below the reserved cycles balance of the canister {}.",
            error::grouped(expected.0)
        ),
    );
}

#[test]
fn refused_values_name_their_range_and_change_nothing_but_the_fee() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let cases = [
        (
            SettingsArgs {
                compute_allocation: nat(101),
                ..Default::default()
            },
            504,
            "ComputeAllocation expected to be in the range [0..100], got 101",
        ),
        (
            SettingsArgs {
                freezing_threshold: nat(1 << 64),
                ..Default::default()
            },
            504,
            "Freezing threshold expected to be in the range of [0..2^64-1], got 18_446_744_073_709_551_616",
        ),
        (
            SettingsArgs {
                wasm_memory_limit: nat((1 << 48) + 1),
                ..Default::default()
            },
            504,
            "Wasm memory limit expected to be in the range of [0..2^64-1], got 281_474_976_710_657",
        ),
        (
            SettingsArgs {
                memory_allocation: nat(13 << 40),
                ..Default::default()
            },
            101,
            "Canister requested 13.00 TiB of memory but only 509.50 GiB are available in the subnet.",
        ),
    ];
    for (settings, code, text) in cases {
        let (cost, reply) = subnet.costs(a, |subnet| update(subnet, a, settings.clone()));
        assert_refused(reply, code, text);
        assert_eq!(cost, update_fee(a, settings));
    }
    assert_eq!(subnet.canister(a).system.version, 0);
}

#[test]
fn allocations_must_be_payable() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let reply = update(
        &mut subnet,
        a,
        SettingsArgs {
            compute_allocation: nat(50),
            ..Default::default()
        },
    );
    // 30 days of 50 % and of 222 bytes, less 100 T.
    let text = "Cannot increase compute allocation to 50% due to insufficient cycles. \
                At least 1_196_000_000_170_130 additional cycles are required.";
    assert_refused(reply, 530, text);
    assert_empty(update(
        &mut subnet,
        a,
        SettingsArgs {
            compute_allocation: nat(1),
            ..Default::default()
        },
    ));
    assert_eq!(subnet.canister(a).system.settings.compute_allocation, 1);
}

#[test]
fn a_threshold_may_freeze_the_canister_and_the_fee_is_then_forgone() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let huge = SettingsArgs {
        freezing_threshold: nat(1_000_000_000_000_000_000),
        ..Default::default()
    };
    let (cost, reply) = subnet.costs(a, |subnet| update(subnet, a, huge));
    assert_empty(reply);
    assert_eq!(cost, 0);
    let normal = SettingsArgs {
        freezing_threshold: nat(2_592_000),
        ..Default::default()
    };
    let (cost, reply) = subnet.costs(a, |subnet| update(subnet, a, normal.clone()));
    assert_empty(reply);
    assert_eq!(cost, update_fee(a, normal));
    let payer = |method: &str, argument: Vec<u8>| ingress_payer(method, &argument).unwrap();
    let about = || CanisterIdArgs { canister_id: a.0 };
    assert_eq!(payer("stop_canister", candid::encode_one(about()).unwrap()), Some(a));
    let gift = ProvisionalTopUpArgs {
        canister_id: a.0,
        amount: Nat::from(1u32),
    };
    assert_eq!(
        payer("provisional_top_up_canister", candid::encode_one(gift).unwrap()),
        None
    );
    let change = |value: String| UpdateSettingsArgs {
        canister_id: a.0,
        settings: SettingsArgs {
            environment_variables: Some(vec![EnvironmentVariable {
                name: "A".into(),
                value,
            }]),
            ..Default::default()
        },
        sender_canister_version: None,
    };
    assert_eq!(
        payer("update_settings", candid::encode_one(change("1".into())).unwrap()),
        None
    );
    assert_eq!(
        payer("update_settings", candid::encode_one(change("1".repeat(400))).unwrap()),
        Some(a)
    );
}

#[test]
fn lists_are_bounded() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let eleven = (0..11u8).map(|number| PrincipalId::from_slice(&[number])).collect();
    let args = UpdateSettingsArgs {
        canister_id: a.0,
        settings: SettingsArgs {
            controllers: Some(eleven),
            ..Default::default()
        },
        sender_canister_version: None,
    };
    let encoded = candid::encode_one(args).unwrap();
    assert_eq!(
        effective_canister_id("update_settings", &encoded)
            .unwrap_err()
            .code
            .number(),
        408
    );
    let twice = vec![
        EnvironmentVariable {
            name: "A".into(),
            value: "1".into()
        };
        2
    ];
    let reply = update(
        &mut subnet,
        a,
        SettingsArgs {
            environment_variables: Some(twice),
            ..Default::default()
        },
    );
    assert_eq!(reply.unwrap_err().code.number(), 408);
    let long = vec![EnvironmentVariable {
        name: "A".into(),
        value: "1".repeat(129),
    }];
    let reply = update(
        &mut subnet,
        a,
        SettingsArgs {
            environment_variables: Some(long),
            ..Default::default()
        },
    );
    assert_eq!(reply.unwrap_err().code.number(), 408);
}

/// The type table of a status, as recorded from the production replica, and the index of its one value.
fn status_type_table() -> Vec<u8> {
    let table = "4449444c0d6c0ec5df841c019cb1fa2568b2ceef2f02c0cff2717d9cbab69c0203ffdb81f7037dbcc1ee81067e98cec7e707788d\
                 aacd94087de3f9f5d90806e8fc8cec090bb0e4d2970a7d81cfaef40a0c84aaa89e0f7d6c09a4a884027da2e6e2267dacdffc5d7d\
                 a4b6f090067dbbfeb3af067d91bde3cf067da4cadab30d7de3abc9880e7da4cda1a70f7d6b038da4879b047ff496e4910b7fffdb\
                 a5db0e7f6d046c020005017d6d7b6c0c9cb1fa2568c0cff2717de8f09b737d8ba08eaa0107d7e09b90020980ad988a047dedd9c8\
                 c9070a98c8faa9097dad828e8c0a0af8e287cc0c7ddeebb5a90e7da882acc60f7d6d086c02f1fee18d0371cbe4fdc704716d686b\
                 03d7e09b90027fa981ceb7067fcaa989aa08096c04c1f8dc83037d83cac6e9057da1d0b8af0a7d8fd0cfd00f7d6e050100";
    hex(&table.replace(char::is_whitespace, ""))
}

#[test]
fn status_has_the_published_bytes() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    subnet.state.metadata.subnet.interface = InterfaceVersion::May2026;
    subnet.state.canister_mut(&a).unwrap().system.status = CanisterStatus::Stopped;
    let reply = subnet
        .ask_with("canister_status", CanisterIdArgs { canister_id: a.0 })
        .unwrap();
    let table = status_type_table();
    assert_eq!(reply[..table.len()], table);
    let status: CanisterStatusResult<DefiniteSettingsMay2026> = types::decode(&reply).unwrap();
    assert_eq!(status.memory_size, Nat::from(222u32));
    assert_eq!(status.idle_cycles_burned_per_day, Nat::from(5_671u32));
    assert!(status.ready_for_migration);
    let as_query = query(
        &subnet.state,
        user(),
        "canister_status",
        &candid::encode_one(CanisterIdArgs { canister_id: a.0 }).unwrap(),
    );
    assert_eq!(as_query.unwrap(), reply);
}

#[test]
fn only_controllers_and_itself_see_the_status() {
    let mut subnet = Subnet::new();
    let (a, b) = (subnet.create(), subnet.create());
    let args = || CanisterIdArgs { canister_id: a.0 };
    assert!(
        own_answer(subnet.ask_as(a, Cycles::ZERO, "canister_status", args()))
            .result
            .is_ok()
    );
    let refused = own_answer(subnet.ask_as(b, Cycles::ZERO, "canister_status", args())).result;
    assert_refused(
        refused,
        512,
        &format!("Only the controllers of the canister {a} can control it."),
    );
    let payload = candid::encode_one(args()).unwrap();
    assert_eq!(
        query(&subnet.state, b.0, "canister_status", &payload)
            .unwrap_err()
            .code
            .number(),
        512
    );
    assert_eq!(
        query(&subnet.state, user(), "stop_canister", &payload)
            .unwrap_err()
            .code
            .number(),
        536
    );
}

#[test]
fn the_status_shows_the_settings_of_the_interface_in_force() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let settings = SettingsArgs {
        minimum_incoming_canister_call_cycles: nat(u128::MAX),
        status_visibility: Some(Visibility::Public),
        ..Default::default()
    };
    assert_empty(update(&mut subnet, a, settings));
    let reply = subnet
        .ask_with("canister_status", CanisterIdArgs { canister_id: a.0 })
        .unwrap();
    let status: CanisterStatusResult<DefiniteSettings> = types::decode(&reply).unwrap();
    assert_eq!(
        status.settings.minimum_incoming_canister_call_cycles,
        Nat::from(u128::MAX)
    );
    assert_eq!(status.settings.status_visibility, Visibility::Public);
    let beyond = SettingsArgs {
        minimum_incoming_canister_call_cycles: Some(Nat::from(u128::MAX) + Nat::from(1u32)),
        ..Default::default()
    };
    assert_eq!(update(&mut subnet, a, beyond).unwrap_err().code.number(), 504);
}

#[test]
fn a_canister_chooses_who_sees_its_status() {
    let mut subnet = Subnet::new();
    let (a, b) = (subnet.create(), subnet.create());
    let args = || CanisterIdArgs { canister_id: a.0 };
    let payload = candid::encode_one(args()).unwrap();
    let stranger = PrincipalId::from_slice(&[7]);
    let sees = |subnet: &mut Subnet, who: PrincipalId| {
        let asked = query(&subnet.state, who, "canister_status", &payload).is_ok();
        let SubnetMessage::Ingress(message) = subnet.ingress(who, "canister_status", payload.clone()) else {
            panic!("no ingress message");
        };
        assert_eq!(check_ingress(&subnet.state, &message).is_ok(), asked);
        asked
    };
    for (visibility, for_b, for_stranger) in [
        (Visibility::Controllers, false, false),
        (Visibility::AllowedViewers(vec![b.0]), true, false),
        (Visibility::Public, true, true),
    ] {
        let settings = SettingsArgs {
            status_visibility: Some(visibility),
            ..Default::default()
        };
        assert_empty(update(&mut subnet, a, settings));
        assert!(sees(&mut subnet, user()));
        assert_eq!(sees(&mut subnet, b.0), for_b);
        assert_eq!(sees(&mut subnet, stranger), for_stranger);
        let as_canister = own_answer(subnet.ask_as(b, Cycles::ZERO, "canister_status", args())).result;
        assert_eq!(as_canister.is_ok(), for_b);
        // Only the status: what the canister consumed stays its controllers' matter.
        assert!(query(&subnet.state, stranger, "canister_metrics", &payload).is_err());
    }
}

#[test]
fn history_has_the_published_bytes() {
    let mut subnet = Subnet::new();
    let (a, b) = (subnet.create(), subnet.create());
    let controllers: Vec<_> = principals(&[&[4], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]])
        .into_iter()
        .collect();
    assert_empty(update(
        &mut subnet,
        b,
        SettingsArgs {
            controllers: Some(controllers),
            ..Default::default()
        },
    ));
    let args = CanisterInfoArgs {
        canister_id: b.0,
        num_requested_changes: Some(1),
    };
    let reply = own_answer(subnet.ask_as(a, Cycles::ZERO, "canister_info", args))
        .result
        .unwrap();
    let table = "4449444c166c04d7e09b90020181cfaef40a029ff4c1b60b048fedd8b10e786d686e036d7b6d056c04d6f68e800178c0c3dff502\
                 78e6b384d80406c2b9dbda0a0a6b0280d1e8900207dced83b40b086c018fc1d4fb06686c02c0c3dff50209b3c4b1f204686e786b\
                 079f90dedf020bd798fbac040cbd81f4ce040e8cb1bb9a0511c89cb4c90a1398f795de0a1590c6909a0f7f6c02d7e09b900201c2\
                 e7e2ce0b026c02e3a683c3040d81cfaef40a036b03c8bb8a707f9ce9c699067f9baaebec087f6c05c0c3dff50278dbe1c691030f\
                 9ed9c0ad081082bff3a50d78b6b897890f036b0291a0c58d0370a4f794e508706e686c02d7e09b900212c2e7e2ce0b026e016c04\
                 dca5dce70214b3c4b1f20468c8b6fa9307688fedd8b10e786c03b3c4b1f2046898cec7e707788fedd8b10e786c01d7e09b900201\
                 0100";
    let table = hex(&table.replace(char::is_whitespace, ""));
    assert_eq!(reply[..table.len()], table);
    // Two controllers, no module, one change: controllers_change at version 1 by the anonymous user; two in all.
    let values = "02010104010a0102030405060708090a0001";
    assert_eq!(reply[table.len()..][..18], hex(values));
}

#[test]
fn the_low_memory_hook_follows_the_settings() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let module = crate::management::types::InstallCodeArgs {
        mode: types::InstallMode::Install,
        canister_id: a.0,
        wasm_module: "pages=1".as_bytes().to_vec().into(),
        arg: Vec::new().into(),
        sender_canister_version: None,
    };
    assert_empty(subnet.ask_with("install_code", module));
    let hook = |subnet: &Subnet| subnet.canister(a).system.low_memory_hook;
    assert_eq!(hook(&subnet), LowMemoryHook::NotSatisfied);
    let limit = |bytes| SettingsArgs {
        wasm_memory_limit: nat(bytes),
        ..Default::default()
    };
    assert_empty(update(&mut subnet, a, limit(1_000)));
    assert_eq!(hook(&subnet), LowMemoryHook::Ready);
    subnet.state.canister_mut(&a).unwrap().system.low_memory_hook = LowMemoryHook::Executed;
    assert_empty(update(&mut subnet, a, limit(0)));
    assert_eq!(
        hook(&subnet),
        LowMemoryHook::Executed,
        "a bound of zero is a bound here"
    );
    assert_empty(update(&mut subnet, a, limit(65_536)));
    assert_eq!(hook(&subnet), LowMemoryHook::NotSatisfied);
}

#[test]
fn visibility_is_kept_and_logs_follow_it() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let stranger = PrincipalId::from_slice(&[9; 10]);
    let payload = candid::encode_one(CanisterIdArgs { canister_id: a.0 }).unwrap();
    let refused = query(&subnet.state, stranger, "fetch_canister_logs", &payload).unwrap_err();
    assert_eq!(refused.code.number(), 406);
    let viewers = Visibility::AllowedViewers(vec![stranger]);
    assert_empty(update(
        &mut subnet,
        a,
        SettingsArgs {
            log_visibility: Some(viewers),
            ..Default::default()
        },
    ));
    let empty = hex("4449444c046c01ef92c2c406016d026c03bd88c00278d6f68e800178b99adecb01036d7b010000");
    assert_eq!(
        query(&subnet.state, stranger, "fetch_canister_logs", &payload).unwrap()[..],
        empty
    );
}

#[test]
fn status_values_are_those_of_the_reference() {
    let mut subnet = Subnet::new();
    subnet.state.metadata.subnet.interface = InterfaceVersion::May2026;
    let a = subnet.create();
    let settings = SettingsArgs {
        freezing_threshold: nat(10),
        ..Default::default()
    };
    assert_empty(update(&mut subnet, a, settings));
    // As after running out of cycles and being topped up: nothing is left but the settings.
    let system = &mut subnet.state.canister_mut(&a).unwrap().system;
    system.history = Default::default();
    (system.version, system.balance) = (7, Cycles(9_999_998_492_000));
    let reply = subnet
        .ask_with("canister_status", CanisterIdArgs { canister_id: a.0 })
        .unwrap();
    let values = "000000000000000000010104020a010100e0baeef284a30200000700000000000000e0baeef284a3020101040a0000010101\
                  0480a0e5b9c29101000000808080800c000000000000000000";
    let table = status_type_table();
    assert_eq!(reply[table.len()..], hex(&values.replace(char::is_whitespace, "")));
}
