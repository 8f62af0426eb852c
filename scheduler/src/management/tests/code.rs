//! Installing code, from the argument and from chunks.

use super::stub::{Subnet, assert_empty, assert_refused, hex, user};
use crate::management::types::{
    CanisterIdArgs, ChunkHash, InstallChunkedCodeArgs, InstallCodeArgs, InstallMode, UpgradeOptions, UploadChunkArgs,
    WasmMemoryPersistence,
};
use crate::state::{ChangeDetails, DeploymentMode};
use replicore_types::{CanisterId, Cycles, Payload, SubnetConfig, SubnetType, Time, UserError};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

const A: &str = "rwlgt-iiaaa-aaaaa-aaaaa-cai";

fn install(subnet: &mut Subnet, id: CanisterId, mode: InstallMode, module: &str) -> Result<Payload, UserError> {
    subnet.ask_with(
        "install_code",
        InstallCodeArgs {
            mode,
            canister_id: id.0,
            wasm_module: ByteBuf::from(module),
            arg: ByteBuf::new(),
            sender_canister_version: None,
        },
    )
}

fn upgrade(persistence: Option<WasmMemoryPersistence>) -> InstallMode {
    InstallMode::Upgrade(Some(UpgradeOptions {
        skip_pre_upgrade: None,
        wasm_memory_persistence: persistence,
    }))
}

#[test]
fn a_module_costs_less_once_the_subnet_knows_it() {
    let mut subnet = Subnet::new();
    let (a, b) = (subnet.create(), subnet.create());
    let (first, reply) = subnet.costs(a, |subnet| install(subnet, a, InstallMode::Install, ""));
    assert_empty(reply);
    let (second, reply) = subnet.costs(b, |subnet| install(subnet, b, InstallMode::Install, ""));
    assert_empty(reply);
    assert_eq!((first, second), (25_432_000, 25_004_320));
    assert_eq!(subnet.canister(a).system.version, 1);
    assert_eq!(subnet.canister(a).memory_usage().0, 222 + 192 + 32);
}

#[test]
fn wasm64_pays_twice_per_instruction() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let (cost, reply) = subnet.costs(a, |subnet| install(subnet, a, InstallMode::Reinstall, "wasm64"));
    assert_empty(reply);
    assert_eq!(cost, 45_864_000);
}

#[test]
fn growth_is_paid_for_once_everything_has_run() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let free = 400_000_000_000;
    subnet.state.canister_mut(&a).unwrap().system.balance = Cycles(free);
    // A month of a GiB costs 822,960,000,000.
    let module = "pages=16384 hook=canister_init";
    let (cost, reply) = subnet.costs(a, |subnet| install(subnet, a, InstallMode::Install, module));
    let error = reply.unwrap_err();
    assert_eq!(error.code.number(), 532, "{error}");
    let text = &error.description;
    let beginning = "Canister cannot grow memory by 10738";
    assert!(
        text.starts_with(beginning) && text.contains(" bytes due to insufficient cycles. At least 42"),
        "{text}"
    );
    assert_eq!(cost, 5_000_000 + 20_432_000 + 1, "init has run");
    let canister = subnet.canister(a);
    assert!(canister.execution.is_none());
    assert_eq!(canister.system.log.records().count(), 1);
}

#[test]
fn hashes_are_32_bytes_long() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let mut install = |chunk: &[u8], hash: &[u8]| {
        let args = InstallChunkedCodeArgs {
            mode: InstallMode::Install,
            target_canister: a.0,
            store_canister: None,
            chunk_hashes_list: vec![ChunkHash {
                hash: ByteBuf::from(chunk),
            }],
            wasm_module_hash: ByteBuf::from(hash),
            arg: ByteBuf::new(),
            sender_canister_version: None,
        };
        subnet.costs(a, |subnet| subnet.ask_with("install_chunked_code", args))
    };
    let (cost, reply) = install(&[1; 32], &[2; 3]);
    assert_refused(reply, 504, "Invalid wasm hash [2, 2, 2]");
    assert_eq!(cost, 0);
    let (_, reply) = install(&[1; 31], &[2; 32]);
    assert_refused(
        reply,
        504,
        "Error from Wasm chunk store: Chunk hash is invalid. The length is not 32.",
    );
}

#[test]
fn hooks_run_in_order_and_see_the_new_version() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let module = "hook=start hook=canister_init hook=canister_pre_upgrade hook=canister_post_upgrade";
    let (cost, reply) = subnet.costs(a, |subnet| install(subnet, a, InstallMode::Install, module));
    assert_empty(reply);
    assert_eq!(cost, 5_000_000 + 20_432_000 + 2);
    assert_empty(install(&mut subnet, a, InstallMode::Upgrade(None), module));
    let canister = subnet.canister(a);
    let log: Vec<_> = canister
        .system
        .log
        .records()
        .map(|record| String::from_utf8_lossy(&record.content))
        .collect();
    assert_eq!(
        log,
        [
            "start at version 1",
            "canister_init at version 1",
            "canister_pre_upgrade at version 1",
            "start at version 2",
            "canister_post_upgrade at version 2"
        ]
    );
    assert_eq!(canister.execution.as_ref().unwrap().stable.size_wasm_pages, 5);
    let deployed = canister
        .system
        .history
        .changes()
        .iter()
        .filter_map(|change| match change.details {
            ChangeDetails::CodeDeployment { mode, .. } => Some((mode, change.canister_version)),
            _ => None,
        });
    assert_eq!(
        deployed.collect::<Vec<_>>(),
        [(DeploymentMode::Install, 1), (DeploymentMode::Upgrade, 2)]
    );
}

#[test]
fn a_failed_upgrade_changes_nothing_but_what_was_executed_is_paid() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let good = "hook=canister_pre_upgrade hook=canister_init";
    assert_empty(install(&mut subnet, a, InstallMode::Install, good));
    subnet.state.canister_mut(&a).unwrap().system.global_timer = Some(Time(5));
    let bad = "trap=canister_post_upgrade";
    let (cost, reply) = subnet.costs(a, |subnet| install(subnet, a, InstallMode::Upgrade(None), bad));
    assert_refused(
        reply,
        502,
        &format!("Error from Canister {A}: Canister trapped: unreachable."),
    );
    assert_eq!(cost, 5_000_000 + 20_432_000 + 2);
    let canister = subnet.canister(a);
    assert_eq!(&canister.execution.as_ref().unwrap().module.bytes[..], good.as_bytes());
    assert_eq!(canister.system.version, 1);
    assert_eq!(canister.system.global_timer, Some(Time(5)));
    assert_eq!(&canister.system.certified_data[..], b"canister_init");
    assert_eq!(
        canister.system.log.next_index(),
        3,
        "the log keeps what failed hooks printed"
    );
}

#[test]
fn wrong_modes_cost_the_base_fee() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let (cost, reply) = subnet.costs(a, |subnet| install(subnet, a, InstallMode::Upgrade(None), ""));
    let text = "Attempted to execute a message, but the canister contains no Wasm module..";
    assert_refused(reply, 537, &format!("Error from Canister {A}: {text}"));
    assert_eq!(cost, 5_000_000);
    assert_empty(install(&mut subnet, a, InstallMode::Install, ""));
    let (cost, reply) = subnet.costs(a, |subnet| install(subnet, a, InstallMode::Install, ""));
    let text = "cannot be installed because the canister is not empty. Try installing with mode='reinstall' instead.";
    assert_refused(reply, 514, &format!("Canister {A} {text}"));
    assert_eq!(cost, 5_000_000);
    let (cost, reply) = subnet.costs(a, |subnet| install(subnet, a, InstallMode::Reinstall, "invalid"));
    assert_refused(
        reply,
        505,
        &format!("Error from Canister {A}: Canister's Wasm module is not valid: word"),
    );
    assert_eq!(cost, 25_000_000);
}

#[test]
fn the_heap_is_kept_only_where_both_sides_agree() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let (plain, eop) = ("pages=3", "pages=1 section=enhanced-orthogonal-persistence");
    assert_empty(install(&mut subnet, a, InstallMode::Install, plain));
    let keep = upgrade(Some(WasmMemoryPersistence::Keep));
    let refused = install(&mut subnet, a, keep, plain).unwrap_err();
    assert!(
        refused
            .description
            .starts_with("Invalid upgrade option: The `wasm_memory_persistence: opt Keep`")
    );
    assert_empty(install(&mut subnet, a, keep, eop));
    assert_eq!(subnet.canister(a).execution.as_ref().unwrap().heap.size_wasm_pages, 3);
    let refused = install(&mut subnet, a, upgrade(None), eop).unwrap_err();
    assert!(
        refused
            .description
            .starts_with("Missing upgrade option: Enhanced orthogonal persistence")
    );
    assert_empty(install(
        &mut subnet,
        a,
        upgrade(Some(WasmMemoryPersistence::Replace)),
        eop,
    ));
    assert_eq!(subnet.canister(a).execution.as_ref().unwrap().heap.size_wasm_pages, 1);
}

#[test]
fn the_heap_must_be_within_its_bound_after_the_hooks() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let (cost, reply) = subnet.costs(a, |subnet| install(subnet, a, InstallMode::Install, "pages=65536"));
    let error = reply.unwrap_err();
    assert_eq!(error.code.number(), 539);
    assert!(
        error
            .description
            .contains("limit of 3221225472 bytes. The peak Wasm memory usage was 4294967296 bytes.")
    );
    assert_eq!(cost, 25_432_000);
    assert!(subnet.canister(a).execution.is_none());
}

#[test]
fn installs_in_quick_succession_are_refused_where_rates_are_limited() {
    let config = SubnetConfig {
        subnet_type: SubnetType::Application,
        ..SubnetConfig::default()
    };
    let mut subnet = Subnet::of(config);
    let a = subnet.create();
    assert_empty(install(&mut subnet, a, InstallMode::Install, ""));
    assert_eq!(subnet.canister(a).system.install_code_debit.0, 20_432_000);
    assert_eq!(
        install(&mut subnet, a, InstallMode::Reinstall, "")
            .unwrap_err()
            .code
            .number(),
        209
    );
    subnet.state.metadata.height.0 += 1;
    assert_empty(install(&mut subnet, a, InstallMode::Reinstall, ""));
}

#[test]
fn a_poor_canister_cannot_install() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    subnet.state.canister_mut(&a).unwrap().system.balance.0 = 1_000;
    let (cost, reply) = subnet.costs(a, |subnet| install(subnet, a, InstallMode::Install, ""));
    let error = reply.unwrap_err();
    assert_eq!(error.code.number(), 207);
    assert!(error.description.starts_with(&format!(
        "Canister installation failed with `Canister {A} is out of cycles"
    )));
    assert_eq!(cost, 0);
}

fn upload(subnet: &mut Subnet, id: CanisterId, chunk: &[u8]) -> Result<Payload, UserError> {
    subnet.ask_with(
        "upload_chunk",
        UploadChunkArgs {
            canister_id: id.0,
            chunk: ByteBuf::from(chunk),
        },
    )
}

fn install_chunks(subnet: &mut Subnet, id: CanisterId, chunks: &[&[u8]], module: &[u8]) -> Result<Payload, UserError> {
    let hash = |bytes: &[u8]| ByteBuf::from(Sha256::digest(bytes).to_vec());
    subnet.ask_with(
        "install_chunked_code",
        InstallChunkedCodeArgs {
            mode: InstallMode::Install,
            target_canister: id.0,
            store_canister: None,
            chunk_hashes_list: chunks.iter().map(|chunk| ChunkHash { hash: hash(chunk) }).collect(),
            wasm_module_hash: hash(module),
            arg: ByteBuf::new(),
            sender_canister_version: None,
        },
    )
}

#[test]
fn chunks_are_stored_once_and_charged_each_time() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    for memory in [1_048_798, 1_048_798] {
        let (cost, reply) = subnet.costs(a, |subnet| upload(subnet, a, b"first chunk"));
        let expected =
            "4449444c026c01cedfa0a804016d7b010020a99f0c263f8cbb16c2ce9686585e4ecc4020a1265f3219de463b6102d7a61ef0";
        assert_eq!(reply.unwrap()[..], hex(expected));
        assert_eq!((cost, subnet.canister(a).memory_usage().0), (200_000_000, memory));
    }
    upload(&mut subnet, a, b"").unwrap();
    let args = || CanisterIdArgs { canister_id: a.0 };
    let stored = subnet.ask_with("stored_chunks", args()).unwrap();
    let expected = "4449444c036d016c01cedfa0a804026d7b010002\
                    20a99f0c263f8cbb16c2ce9686585e4ecc4020a1265f3219de463b6102d7a61ef0\
                    20e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(stored[..], hex(expected));
    assert_empty(subnet.ask_with("clear_chunk_store", args()));
    assert_eq!(subnet.canister(a).memory_usage().0, 222);
    let (cost, reply) = subnet.costs(a, |subnet| upload(subnet, a, &vec![0; 1_048_577]));
    let text = "Error from Wasm chunk store: Wasm chunk size 1048577 exceeds the maximum chunk size of 1048576.";
    assert_refused(reply, 504, text);
    assert_eq!(cost, 200_000_000);
}

#[test]
fn chunked_code_is_joined_checked_and_installed() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let (one, two) = (&b"hook=start "[..], &b"pages=1"[..]);
    upload(&mut subnet, a, one).unwrap();
    upload(&mut subnet, a, two).unwrap();
    let whole = [one, two].concat();
    let (cost, reply) = subnet.costs(a, |subnet| install_chunks(subnet, a, &[two, one], &whole));
    let error = reply.unwrap_err();
    assert_eq!(error.code.number(), 504);
    assert!(
        error.description.contains("does not match given hash WasmHash(["),
        "{error}"
    );
    assert_eq!(cost, 5_000_000 + 2 * 1_048_576);
    let error = install_chunks(&mut subnet, a, &[one, b"absent"], &whole).unwrap_err();
    assert!(error.description.contains("was not found."), "{error}");
    let (cost, reply) = subnet.costs(a, |subnet| install_chunks(subnet, a, &[one, two], &whole));
    assert_empty(reply);
    assert_eq!(cost, 5_000_000 + 2 * 1_048_576 + 20_432_000 + 1);
    assert_eq!(
        subnet
            .canister(a)
            .system
            .settings
            .controllers
            .iter()
            .copied()
            .collect::<Vec<_>>(),
        [user()]
    );
    let (cost, reply) = subnet.costs(a, |subnet| install_chunks(subnet, a, &[one, two], &whole));
    assert_eq!(reply.unwrap_err().code.number(), 514);
    assert_eq!(cost, 5_000_000);
}
