//! Snapshots in pieces: reading them out, and building one from what was read elsewhere.

use super::chunks;
use super::error;
use super::footprint;
use super::info::snapshot_source;
use super::snapshots::{check_count, find, snapshot_size, store, viewed};
use super::types::{
    self, Global, GlobalTimer, HookStatus, ReadSnapshotDataArgs, ReadSnapshotDataResult, ReadSnapshotMetadataResult,
    Slice, SnapshotArgs, SnapshotDataKind, UploadDataKind, UploadSnapshotDataArgs, UploadSnapshotMetadataArgs,
    UploadSnapshotMetadataResult,
};
use super::work::{Reply, Work};
use crate::state::{ChunkStore, Snapshot};
use candid::Nat;
use replicore_engine::{ExecutionState, GlobalValue, WasmMemory};
use replicore_persistence::{PageDelta, PageIndex, PageMap};
use replicore_types::limits::{
    CERTIFIED_DATA_BYTES_MAX, CHUNK_BYTES_MAX, CHUNKS_MAX, STABLE_MEMORY_BYTES_MAX, WASM_GLOBALS_MAX,
    WASM_MODULE_BYTES_MAX, WASM64_HEAP_BYTES_MAX,
};
use replicore_types::{
    CanisterId, ErrorCode, NumBytes, NumInstructions, OS_PAGE_BYTES, SubnetType, Time, UserError, WASM_PAGE_BYTES,
};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Bytes that one read or write moves.
const SLICE_BYTES_MAX: u64 = 2_000_000;
/// Charged for every read or write, beside an instruction per byte.
const DATA_INSTRUCTIONS: u64 = 5_000_000;

/// `read_canister_snapshot_metadata`
pub(crate) fn read_metadata<E>(work: &mut Work<'_, E>, args: &SnapshotArgs) -> Result<Reply, UserError> {
    let snapshot = snapshot_of(work, args.canister_id.into(), &args.snapshot_id)?;
    let execution = &snapshot.execution;
    types::encode(ReadSnapshotMetadataResult {
        source: snapshot_source(snapshot.taken_from_canister),
        taken_at_timestamp: snapshot.taken_at.as_nanos(),
        wasm_module_size: execution.module.bytes.len() as u64,
        globals: execution.globals.iter().map(global_result).collect(),
        wasm_memory_size: execution.heap.size_bytes(),
        stable_memory_size: execution.stable.size_bytes(),
        wasm_chunk_store: chunks::hashes(&snapshot.chunk_store),
        canister_version: snapshot.canister_version,
        certified_data: ByteBuf::from(snapshot.certified_data.to_vec()),
        global_timer: Some(match snapshot.global_timer {
            None => GlobalTimer::Inactive,
            Some(time) => GlobalTimer::Active(time.as_nanos()),
        }),
        on_low_wasm_memory_hook_status: Some(HookStatus::ConditionNotSatisfied),
    })
    .map(Reply::Now)
}

fn snapshot_of<E>(work: &Work<'_, E>, id: CanisterId, snapshot: &[u8]) -> Result<Arc<Snapshot>, UserError> {
    let system = &viewed(work, id)?.system;
    let found = find(work.state, id, snapshot)?;
    system
        .snapshots
        .get(&found)
        .cloned()
        .ok_or_else(|| error::snapshot_not_found(id, "?"))
}

/// `read_canister_snapshot_data`
pub(crate) fn read<E>(work: &mut Work<'_, E>, args: &ReadSnapshotDataArgs) -> Result<Reply, UserError> {
    let id = CanisterId(args.canister_id);
    let snapshot = snapshot_of(work, id, &args.snapshot_id)?;
    let requested = match &args.kind {
        SnapshotDataKind::WasmModule(slice)
        | SnapshotDataKind::WasmMemory(slice)
        | SnapshotDataKind::StableMemory(slice) => slice.size,
        SnapshotDataKind::WasmChunk(_) => CHUNK_BYTES_MAX as u64,
    };
    check_slice_size(requested)?;
    charge(work, id, requested)?;
    let execution = &snapshot.execution;
    let chunk = match &args.kind {
        SnapshotDataKind::WasmModule(slice) => {
            let (start, end) = bounds(*slice, execution.module.bytes.len() as u64)?;
            execution.module.bytes[start..end].to_vec()
        }
        SnapshotDataKind::WasmMemory(slice) => read_memory(&execution.heap, *slice)?,
        SnapshotDataKind::StableMemory(slice) => read_memory(&execution.stable, *slice)?,
        SnapshotDataKind::WasmChunk(hash) => {
            let hash = hash.hash.as_slice();
            let chunk = <[u8; 32]>::try_from(hash)
                .ok()
                .and_then(|hash| snapshot.chunk_store.chunks.get(&hash));
            chunk
                .ok_or_else(|| error::chunk_store(format!("Chunk hash {hash:?} was not found")))?
                .to_vec()
        }
    };
    types::encode(ReadSnapshotDataResult {
        chunk: ByteBuf::from(chunk),
    })
    .map(Reply::Now)
}

fn check_slice_size(requested: u64) -> Result<(), UserError> {
    if requested > SLICE_BYTES_MAX {
        return Err(error::invalid_payload(format!(
            "Requested slice too large: {requested} > {SLICE_BYTES_MAX}"
        )));
    }
    Ok(())
}

fn charge<E>(work: &mut Work<'_, E>, id: CanisterId, bytes: u64) -> Result<(), UserError> {
    let subnet = work.subnet();
    if subnet.subnet_type == SubnetType::System {
        return Ok(());
    }
    let instructions = NumInstructions(DATA_INSTRUCTIONS + bytes);
    footprint::charge_instructions(work.canister_mut(id)?, instructions, &subnet)?;
    work.instructions += instructions;
    Ok(())
}

/// Start and end of a slice of something `total` bytes long.
fn bounds(slice: Slice, total: u64) -> Result<(usize, usize), UserError> {
    let end = slice.offset.checked_add(slice.size).filter(|end| *end <= total);
    let bounds = end.and_then(|end| Some((usize::try_from(slice.offset).ok()?, usize::try_from(end).ok()?)));
    bounds.ok_or_else(|| {
        error::invalid_payload(format!(
            "Invalid subslice into wasm module / main memory / stable memory: offset: {}, size: {}",
            slice.offset, slice.size
        ))
    })
}

fn read_memory(memory: &WasmMemory, slice: Slice) -> Result<Vec<u8>, UserError> {
    let (start, end) = bounds(slice, memory.size_bytes())?;
    let mut bytes = vec![0; end - start];
    let mut position = start;
    while position < end {
        let offset = position % OS_PAGE_BYTES;
        let length = (OS_PAGE_BYTES - offset).min(end - position);
        if let Some(page) = memory.pages.get(PageIndex((position / OS_PAGE_BYTES) as u64)) {
            bytes[position - start..][..length].copy_from_slice(&page[offset..][..length]);
        }
        position += length;
    }
    Ok(bytes)
}

fn write_memory(memory: &mut WasmMemory, offset: u64, bytes: &[u8]) -> Result<(), UserError> {
    let (start, end) = bounds(
        Slice {
            offset,
            size: bytes.len() as u64,
        },
        memory.size_bytes(),
    )?;
    let mut delta = PageDelta::default();
    let mut position = start;
    while position < end {
        let index = PageIndex((position / OS_PAGE_BYTES) as u64);
        let within = position % OS_PAGE_BYTES;
        let length = (OS_PAGE_BYTES - within).min(end - position);
        let mut page = memory.pages.get(index).map_or([0; OS_PAGE_BYTES], |page| *page);
        page[within..][..length].copy_from_slice(&bytes[position - start..][..length]);
        delta.insert(index, &page);
        position += length;
    }
    memory.pages = memory.pages.update(delta);
    Ok(())
}

/// `upload_canister_snapshot_metadata`: an empty snapshot of the sizes given, to be filled.
pub(crate) fn upload_metadata<E>(work: &mut Work<'_, E>, args: UploadSnapshotMetadataArgs) -> Result<Reply, UserError> {
    let id = CanisterId(args.canister_id);
    let system = &work.check_controller(id)?.system;
    check_sizes(&args)?;
    let replaced = args
        .replace_snapshot
        .as_ref()
        .map(|bytes| find(work.state, id, bytes))
        .transpose()?;
    check_count(system, replaced.is_some())?;
    let canister_version = system.version;
    let execution = empty_execution(&args)?;
    let snapshot = Snapshot {
        taken_at: work.now(),
        canister_version,
        taken_from_canister: false,
        size: snapshot_size(&execution, 0, args.certified_data.len()),
        certified_data: args.certified_data.into_vec().into(),
        global_timer: match args.global_timer {
            Some(GlobalTimer::Active(nanos)) => Some(Time(nanos)),
            Some(GlobalTimer::Inactive) | None => None,
        },
        chunk_store: ChunkStore::default(),
        execution,
    };
    charge(work, id, 0)?;
    let (new_id, _) = store(work, id, snapshot, replaced)?;
    types::encode(UploadSnapshotMetadataResult {
        snapshot_id: ByteBuf::from(new_id.to_bytes()),
    })
    .map(Reply::Now)
}

fn check_sizes(args: &UploadSnapshotMetadataArgs) -> Result<(), UserError> {
    let page = WASM_PAGE_BYTES as u64;
    let bounds = [
        (
            "wasm_module_size",
            args.wasm_module_size,
            WASM_MODULE_BYTES_MAX as u64,
            1,
        ),
        ("wasm_memory_size", args.wasm_memory_size, WASM64_HEAP_BYTES_MAX, page),
        (
            "stable_memory_size",
            args.stable_memory_size,
            STABLE_MEMORY_BYTES_MAX,
            page,
        ),
        (
            "certified_data",
            args.certified_data.len() as u64,
            CERTIFIED_DATA_BYTES_MAX as u64,
            1,
        ),
        ("globals", args.globals.len() as u64, WASM_GLOBALS_MAX as u64, 1),
    ];
    for (name, value, max, unit) in bounds {
        if value > max || value % unit != 0 {
            return Err(error::invalid_payload(format!(
                "Invalid snapshot metadata: {name} is {value}, at most {max}"
            )));
        }
    }
    Ok(())
}

fn empty_execution(args: &UploadSnapshotMetadataArgs) -> Result<ExecutionState, UserError> {
    let memory = |bytes: u64| WasmMemory {
        pages: PageMap::default(),
        size_wasm_pages: bytes / WASM_PAGE_BYTES as u64,
    };
    let globals = args.globals.iter().map(global_value).collect::<Result<Vec<_>, _>>()?;
    let module_bytes = usize::try_from(args.wasm_module_size).unwrap_or(0);
    Ok(ExecutionState {
        module: super::install::module_of(vec![0; module_bytes]),
        interface: Arc::default(),
        heap: memory(args.wasm_memory_size),
        stable: memory(args.stable_memory_size),
        globals: globals.into(),
        warm_version: 0,
    })
}

/// `upload_canister_snapshot_data`
pub(crate) fn upload<E>(work: &mut Work<'_, E>, args: &UploadSnapshotDataArgs) -> Result<Reply, UserError> {
    let id = CanisterId(args.canister_id);
    let canister = work.check_controller(id)?;
    let snapshot_id = find(work.state, id, &args.snapshot_id)?;
    let Some(snapshot) = canister.system.snapshots.get(&snapshot_id) else {
        return Ok(Reply::empty());
    };
    if snapshot.taken_from_canister {
        return Err(UserError::new(
            ErrorCode::CanisterSnapshotImmutable,
            "Only canister snapshots created by metadata upload can be mutated.",
        ));
    }
    let mut snapshot = (**snapshot).clone();
    check_slice_size(args.chunk.len() as u64)?;
    charge(work, id, args.chunk.len() as u64)?;
    write(&mut snapshot, args)?;
    if let UploadDataKind::WasmChunk = args.kind {
        let canister = work.canister(id)?;
        let before = footprint::Footprint::of(canister).total();
        let old = canister
            .system
            .snapshots
            .get(&snapshot_id)
            .map_or(NumBytes::ZERO, |old| old.size);
        let growth = footprint::Growth::new(work.state, before, before - old + snapshot.size);
        let subnet = work.subnet();
        growth.pay(&mut work.canister_mut(id)?.system, &subnet)?;
    }
    let snapshots = &mut work.canister_mut(id)?.system.snapshots;
    Arc::make_mut(snapshots).insert(snapshot_id, Arc::new(snapshot));
    Ok(Reply::empty())
}

fn write(snapshot: &mut Snapshot, args: &UploadSnapshotDataArgs) -> Result<(), UserError> {
    let chunk = args.chunk.as_slice();
    let execution = &mut snapshot.execution;
    match args.kind {
        UploadDataKind::WasmModule(at) => {
            let slice = Slice {
                offset: at.offset,
                size: chunk.len() as u64,
            };
            let (start, end) = bounds(slice, execution.module.bytes.len() as u64)?;
            let mut bytes = execution.module.bytes.to_vec();
            bytes[start..end].copy_from_slice(chunk);
            execution.module = super::install::module_of(bytes);
        }
        UploadDataKind::WasmMemory(at) => write_memory(&mut execution.heap, at.offset, chunk)?,
        UploadDataKind::StableMemory(at) => write_memory(&mut execution.stable, at.offset, chunk)?,
        UploadDataKind::WasmChunk => {
            let store = Arc::make_mut(&mut snapshot.chunk_store.chunks);
            if chunk.len() > CHUNK_BYTES_MAX || store.len() >= CHUNKS_MAX {
                return Err(error::chunk_store(
                    "The chunk does not fit into the chunk store of the snapshot",
                ));
            }
            store.insert(Sha256::digest(chunk).into(), Arc::from(chunk));
            snapshot.size = snapshot_size(&snapshot.execution, store.len(), snapshot.certified_data.len());
        }
    }
    Ok(())
}

fn global_result(global: &GlobalValue) -> Global {
    match *global {
        GlobalValue::I32(value) => Global::I32(value),
        GlobalValue::I64(value) => Global::I64(value),
        GlobalValue::F32(bits) => Global::F32(f32::from_bits(bits)),
        GlobalValue::F64(bits) => Global::F64(f64::from_bits(bits)),
        GlobalValue::V128(bits) => Global::V128(Nat::from(bits)),
    }
}

fn global_value(global: &Global) -> Result<GlobalValue, UserError> {
    Ok(match global {
        Global::I32(value) => GlobalValue::I32(*value),
        Global::I64(value) => GlobalValue::I64(*value),
        Global::F32(value) => GlobalValue::F32(value.to_bits()),
        Global::F64(value) => GlobalValue::F64(value.to_bits()),
        Global::V128(value) => GlobalValue::V128(
            u128::try_from(&value.0).map_err(|_| error::invalid_payload("A v128 global has more than 128 bits."))?,
        ),
    })
}
