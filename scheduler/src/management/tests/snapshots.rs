//! Snapshots: taken, loaded, read in pieces, built from pieces.

use super::stub::{Subnet, assert_empty, assert_refused, hex, user};
use crate::management::types::{
    self, CanisterIdArgs, InstallCodeArgs, InstallMode, LoadSnapshotArgs, Offset, ReadSnapshotDataArgs,
    ReadSnapshotDataResult, ReadSnapshotMetadataResult, Slice, SnapshotArgs, SnapshotDataKind, TakeSnapshotArgs,
    UploadDataKind, UploadSnapshotDataArgs, UploadSnapshotMetadataArgs, UploadSnapshotMetadataResult,
};
use crate::state::SnapshotId;
use replicore_persistence::{PageDelta, PageIndex};
use replicore_types::{CanisterId, Payload, Time, UserError};
use serde_bytes::ByteBuf;

const MODULE: &str = "pages=1 hook=canister_init";

fn installed() -> (Subnet, CanisterId) {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let args = InstallCodeArgs {
        mode: InstallMode::Install,
        canister_id: a.0,
        wasm_module: ByteBuf::from(MODULE),
        arg: ByteBuf::new(),
        sender_canister_version: None,
    };
    assert_empty(subnet.ask_with("install_code", args));
    write_heap(&mut subnet, a, 7);
    (subnet, a)
}

fn write_heap(subnet: &mut Subnet, id: CanisterId, byte: u8) {
    let heap = &mut subnet.state.canister_mut(&id).unwrap().execution.as_mut().unwrap().heap;
    let mut delta = PageDelta::default();
    delta.insert(PageIndex(2), &[byte; 4096]);
    heap.pages = heap.pages.update(delta);
}

fn heap_byte(subnet: &Subnet, id: CanisterId) -> u8 {
    subnet
        .canister(id)
        .execution
        .as_ref()
        .unwrap()
        .heap
        .pages
        .get(PageIndex(2))
        .map_or(0, |page| page[0])
}

fn take(subnet: &mut Subnet, id: CanisterId, replace: Option<ByteBuf>) -> Result<Payload, UserError> {
    let args = TakeSnapshotArgs {
        canister_id: id.0,
        replace_snapshot: replace,
        uninstall_code: None,
        sender_canister_version: None,
    };
    subnet.ask_with("take_canister_snapshot", args)
}

fn load(subnet: &mut Subnet, id: CanisterId, snapshot: Vec<u8>) -> Result<Payload, UserError> {
    let snapshot_id = ByteBuf::from(snapshot);
    let args = LoadSnapshotArgs {
        canister_id: id.0,
        snapshot_id,
        sender_canister_version: None,
    };
    subnet.ask_with("load_canister_snapshot", args)
}

fn snapshot_id(id: CanisterId, number: u64) -> Vec<u8> {
    SnapshotId {
        canister_id: id,
        number,
    }
    .to_bytes()
}

/// heap and stable memory of a page each, one global, module, certified data
const SIZE: u128 = 2 * 65_536 + 32 + MODULE.len() as u128 + 13;

#[test]
fn a_snapshot_brings_memory_back() {
    let (mut subnet, a) = installed();
    let (cost, reply) = subnet.costs(a, |subnet| take(subnet, a, None));
    let reply = reply.unwrap();
    let start = hex("4449444c026c03dbb70101dc84e196077882bff3a50d786d7b010012000000000000000000000000000000000101");
    assert_eq!(reply[..start.len()], start);
    assert_eq!(cost, 2_000_000_000 + SIZE);
    write_heap(&mut subnet, a, 8);
    let (cost, reply) = subnet.costs(a, |subnet| load(subnet, a, snapshot_id(a, 0)));
    assert_empty(reply);
    assert_eq!(cost, 5_000_000 + 2_000_000_000 + SIZE + 20_004_320);
    assert_eq!(heap_byte(&subnet, a), 7);
    assert_eq!(subnet.canister(a).system.version, 2);
    let missing = load(&mut subnet, a, snapshot_id(a, 255));
    assert_refused(
        missing,
        305,
        &format!("Could not find the snapshot ID {a}-255 for canister {a}."),
    );
}

#[test]
fn a_snapshot_is_a_reference_to_the_version_that_the_canister_has() {
    let (mut subnet, a) = installed();
    let pages = |subnet: &Subnet| subnet.canister(a).execution.as_ref().unwrap().heap.pages.clone();
    let before = pages(&subnet);
    take(&mut subnet, a, None).unwrap();
    let snapshot = subnet.canister(a).system.snapshots.values().next().unwrap().clone();
    assert!(
        snapshot.execution.heap.pages.is_same_version(&before) && pages(&subnet).is_same_version(&before),
        "taking one costs the same however large the memory is"
    );
    write_heap(&mut subnet, a, 8);
    load(&mut subnet, a, snapshot_id(a, 0)).unwrap();
    assert!(pages(&subnet).is_same_version(&before), "and so does loading it");
}

#[test]
fn loading_what_was_taken_leaves_the_timer() {
    let (mut subnet, a) = installed();
    subnet.state.canister_mut(&a).unwrap().system.global_timer = Some(Time(7));
    take(&mut subnet, a, None).unwrap();
    subnet.state.canister_mut(&a).unwrap().system.global_timer = Some(Time(8));
    assert_empty(load(&mut subnet, a, snapshot_id(a, 0)));
    assert_eq!(subnet.canister(a).system.global_timer, Some(Time(8)));
}

#[test]
fn snapshots_of_others_are_known_but_not_given() {
    let (mut subnet, a) = installed();
    take(&mut subnet, a, None).unwrap();
    let b = subnet.create();
    let delete = SnapshotArgs {
        canister_id: b.0,
        snapshot_id: ByteBuf::from(snapshot_id(a, 0)),
    };
    assert_refused(
        subnet.ask_with("delete_canister_snapshot", delete),
        406,
        &format!("The snapshot {a}-0 does not belong to canister {b}."),
    );
    subnet.state.canister_mut(&a).unwrap().system.settings.controllers = Default::default();
    assert_refused(
        load(&mut subnet, b, snapshot_id(a, 0)),
        406,
        &format!(
            "Only a controller of the canister that snapshot {a}-0 belongs to can load it on canister {b}. Sender: {}.",
            user()
        ),
    );
}

#[test]
fn snapshots_are_listed_replaced_and_deleted() {
    let (mut subnet, a) = installed();
    take(&mut subnet, a, None).unwrap();
    let memory = subnet.canister(a).memory_usage();
    take(&mut subnet, a, Some(ByteBuf::from(snapshot_id(a, 0)))).unwrap();
    assert_eq!(subnet.canister(a).memory_usage(), memory);
    let list = |subnet: &mut Subnet| {
        let reply = subnet
            .ask_with("list_canister_snapshots", CanisterIdArgs { canister_id: a.0 })
            .unwrap();
        types::decode::<Vec<types::SnapshotResult>>(&reply).unwrap()
    };
    let listed = list(&mut subnet);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id.to_vec(), snapshot_id(a, 1));
    assert_eq!(u128::from(listed[0].total_size), SIZE);
    let args = SnapshotArgs {
        canister_id: a.0,
        snapshot_id: listed[0].id.clone(),
    };
    assert_empty(subnet.ask_with("delete_canister_snapshot", args));
    assert!(list(&mut subnet).is_empty());
    for _ in 0..10 {
        take(&mut subnet, a, None).unwrap();
    }
    assert_eq!(take(&mut subnet, a, None).unwrap_err().code.number(), 406);
}

#[test]
fn an_empty_canister_has_nothing_to_snapshot() {
    let mut subnet = Subnet::new();
    let a = subnet.create();
    let text = format!("Failed to create snapshot for empty canister {a}:");
    assert_refused(take(&mut subnet, a, None), 406, &text);
}

#[test]
fn a_snapshot_travels_in_pieces() {
    let (mut subnet, a) = installed();
    take(&mut subnet, a, None).unwrap();
    let source = ByteBuf::from(snapshot_id(a, 0));
    let args = SnapshotArgs {
        canister_id: a.0,
        snapshot_id: source.clone(),
    };
    let metadata = subnet.ask_with("read_canister_snapshot_metadata", args).unwrap();
    let metadata: ReadSnapshotMetadataResult = types::decode(&metadata).unwrap();
    let mut read = |kind| {
        let args = ReadSnapshotDataArgs {
            canister_id: a.0,
            snapshot_id: source.clone(),
            kind,
        };
        let reply = subnet.ask_with("read_canister_snapshot_data", args)?;
        Ok::<_, UserError>(types::decode::<ReadSnapshotDataResult>(&reply)?.chunk)
    };
    let module = read(SnapshotDataKind::WasmModule(Slice {
        offset: 0,
        size: metadata.wasm_module_size,
    }))
    .unwrap();
    let heap = read(SnapshotDataKind::WasmMemory(Slice {
        offset: 8_000,
        size: 1_000,
    }))
    .unwrap();
    assert!(heap[..192].iter().all(|byte| *byte == 0) && heap[192..].iter().all(|byte| *byte == 7));
    let beyond = read(SnapshotDataKind::WasmMemory(Slice {
        offset: 65_536,
        size: 1,
    }));
    assert_eq!(beyond.unwrap_err().code.number(), 408);

    let b = subnet.create();
    let args = UploadSnapshotMetadataArgs {
        canister_id: b.0,
        replace_snapshot: None,
        wasm_module_size: metadata.wasm_module_size,
        globals: metadata.globals,
        wasm_memory_size: metadata.wasm_memory_size,
        stable_memory_size: metadata.stable_memory_size,
        certified_data: metadata.certified_data,
        global_timer: metadata.global_timer,
        on_low_wasm_memory_hook_status: metadata.on_low_wasm_memory_hook_status,
    };
    let made = subnet.ask_with("upload_canister_snapshot_metadata", args).unwrap();
    let uploaded = types::decode::<UploadSnapshotMetadataResult>(&made)
        .unwrap()
        .snapshot_id;
    let mut write = |kind, chunk| {
        let args = UploadSnapshotDataArgs {
            canister_id: b.0,
            snapshot_id: uploaded.clone(),
            kind,
            chunk,
        };
        assert_empty(subnet.ask_with("upload_canister_snapshot_data", args));
    };
    write(UploadDataKind::WasmModule(Offset { offset: 0 }), module);
    write(UploadDataKind::WasmMemory(Offset { offset: 8_000 }), heap);
    assert_empty(load(&mut subnet, b, uploaded.to_vec()));
    let canister = subnet.canister(b);
    assert_eq!(
        &canister.execution.as_ref().unwrap().module.bytes[..],
        MODULE.as_bytes()
    );
    assert_eq!(heap_byte(&subnet, b), 7);
    assert_eq!(&canister.system.certified_data[..], b"canister_init");
}

#[test]
fn a_taken_snapshot_cannot_be_written() {
    let (mut subnet, a) = installed();
    take(&mut subnet, a, None).unwrap();
    let args = UploadSnapshotDataArgs {
        canister_id: a.0,
        snapshot_id: ByteBuf::from(snapshot_id(a, 0)),
        kind: UploadDataKind::WasmMemory(Offset { offset: 0 }),
        chunk: ByteBuf::from(vec![1]),
    };
    assert_eq!(
        subnet
            .ask_with("upload_canister_snapshot_data", args)
            .unwrap_err()
            .code
            .number(),
        409
    );
}
