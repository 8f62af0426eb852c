//! Snapshots: taking, loading, listing, deleting.

use super::error;
use super::footprint::{self, Footprint, Growth};
use super::install::prepare_known;
use super::lifecycle::remove_code;
use super::status::may_view;
use super::types::{self, CanisterIdArgs, LoadSnapshotArgs, SnapshotArgs, SnapshotResult, TakeSnapshotArgs};
use super::work::{Reply, Work};
use crate::state::{
    CanisterChange, CanisterState, ChangeDetails, CyclesUseCase, ReplicatedState, Snapshot, SnapshotId, SystemState,
};
use replicore_engine::{Execute, ExecutionState, GlobalValue};
use replicore_types::limits::{CHUNK_BYTES_MAX, SNAPSHOTS_MAX};
use replicore_types::{CanisterId, NumBytes, NumInstructions, SubnetType, UserError};
use serde_bytes::ByteBuf;
use std::sync::Arc;

/// Charged for taking and for loading a snapshot, beside an instruction per byte.
const SNAPSHOT_INSTRUCTIONS: u64 = 2_000_000_000;

/// The size of a snapshot: what storage is charged for.
pub(crate) fn snapshot_size(execution: &ExecutionState, chunks: usize, certified_data: usize) -> NumBytes {
    let memory = Footprint::default().with_execution(execution);
    let chunks = (chunks * CHUNK_BYTES_MAX) as u64;
    NumBytes(memory.heap + memory.stable + memory.globals + memory.module + chunks + certified_data as u64)
}

/// `take_canister_snapshot`
pub(crate) fn take<E>(work: &mut Work<'_, E>, args: &TakeSnapshotArgs) -> Result<Reply, UserError> {
    let id = CanisterId(args.canister_id);
    let canister = work.check_controller(id)?;
    let execution = canister
        .execution
        .clone()
        .ok_or_else(|| error::rejected(format!("Failed to create snapshot for empty canister {id}:")))?;
    let replaced = args
        .replace_snapshot
        .as_ref()
        .map(|bytes| find(work.state, id, bytes))
        .transpose()?;
    check_count(&canister.system, replaced.is_some())?;
    let system = &canister.system;
    let snapshot = Snapshot {
        taken_at: work.now(),
        canister_version: system.version,
        taken_from_canister: true,
        size: snapshot_size(&execution, system.chunk_store.chunks.len(), system.certified_data.len()),
        certified_data: system.certified_data.clone(),
        global_timer: system.global_timer,
        chunk_store: system.chunk_store.clone(),
        execution,
    };
    charge(work, id, snapshot.size)?;
    let (new_id, snapshot) = store(work, id, snapshot, replaced)?;
    if args.uninstall_code == Some(true) {
        let origin = work.change_origin(args.sender_canister_version);
        let now = work.now();
        let answers = remove_code(work.canister_mut(id)?, origin, now);
        work.answers.extend(answers);
    }
    types::encode(listed(new_id, &snapshot)).map(Reply::Now)
}

/// Refuses one snapshot more than a canister may have.
pub(crate) fn check_count(system: &SystemState, replaces: bool) -> Result<(), UserError> {
    if !replaces && system.snapshots.len() >= SNAPSHOTS_MAX {
        return Err(error::too_many_snapshots(system.canister_id, SNAPSHOTS_MAX));
    }
    Ok(())
}

/// Charges for moving `size` bytes into or out of a snapshot.
pub(crate) fn charge<E>(work: &mut Work<'_, E>, id: CanisterId, size: NumBytes) -> Result<(), UserError> {
    let subnet = work.subnet();
    if subnet.subnet_type == SubnetType::System {
        return Ok(());
    }
    let instructions = NumInstructions(SNAPSHOT_INSTRUCTIONS.saturating_add(size.0));
    footprint::charge_instructions(work.canister_mut(id)?, instructions, &subnet).map_err(|cause| {
        UserError::new(
            cause.code,
            format!("Canister snapshotting failed with: `{}`", cause.description),
        )
    })?;
    work.instructions += instructions;
    Ok(())
}

/// Stores a snapshot in place of `replaced`, and pays for the memory.
pub(crate) fn store<E>(
    work: &mut Work<'_, E>,
    id: CanisterId,
    snapshot: Snapshot,
    replaced: Option<SnapshotId>,
) -> Result<(SnapshotId, Arc<Snapshot>), UserError> {
    let subnet = work.subnet();
    let canister = work.canister(id)?;
    let before = Footprint::of(canister).total();
    let freed = replaced
        .and_then(|id| canister.system.snapshots.get(&id))
        .map_or(NumBytes::ZERO, |old| old.size);
    let growth = Growth::new(work.state, before, before - freed + snapshot.size);
    let system = &mut work.canister_mut(id)?.system;
    growth.pay(system, &subnet)?;
    let new_id = SnapshotId {
        canister_id: id,
        number: system.next_snapshot,
    };
    system.next_snapshot += 1;
    let snapshot = Arc::new(snapshot);
    let snapshots = Arc::make_mut(&mut system.snapshots);
    if let Some(old) = replaced {
        snapshots.remove(&old);
    }
    snapshots.insert(new_id, snapshot.clone());
    Ok((new_id, snapshot))
}

/// The snapshot of canister `id` that `bytes` name.
///
/// # Errors
/// `CanisterSnapshotNotFound` (IC0305), `CanisterRejectedMessage` (IC0406) for a snapshot of another canister,
/// `InvalidManagementPayload` (IC0408) for bytes that are no snapshot id.
pub(crate) fn find(state: &ReplicatedState, id: CanisterId, bytes: &[u8]) -> Result<SnapshotId, UserError> {
    let snapshot = parse_id(bytes)?;
    let shown = format!("{}-{}", snapshot.canister_id, snapshot.number);
    let exists = state
        .canister(&snapshot.canister_id)
        .is_some_and(|owner| owner.system.snapshots.contains_key(&snapshot));
    if !exists {
        return Err(error::snapshot_not_found(id, &shown));
    }
    if snapshot.canister_id != id {
        return Err(error::snapshot_of_another(&shown, id));
    }
    Ok(snapshot)
}

/// A snapshot id: eight bytes of number, then the canister that it belongs to.
pub(crate) fn parse_id(bytes: &[u8]) -> Result<SnapshotId, UserError> {
    let parsed = bytes.split_first_chunk::<8>().and_then(|(number, owner)| {
        let owner = replicore_types::PrincipalId::try_from_slice(owner).ok()?;
        Some(SnapshotId {
            canister_id: CanisterId(owner),
            number: u64::from_be_bytes(*number),
        })
    });
    parsed.ok_or_else(|| error::invalid_payload("Error decoding candid: the snapshot id is malformed"))
}

/// The canister whose snapshot these bytes name, if they name one.
pub(crate) fn owner(bytes: &[u8]) -> Option<CanisterId> {
    parse_id(bytes).ok().map(|id| id.canister_id)
}

/// `load_canister_snapshot`: of this canister, or of another one that the caller controls too.
pub(crate) fn load<E: Execute>(work: &mut Work<'_, E>, args: &LoadSnapshotArgs) -> Result<Reply, UserError> {
    let id = CanisterId(args.canister_id);
    let old = work.check_controller(id)?.clone();
    let snapshot_id = parse_id(&args.snapshot_id)?;
    let owner_id = snapshot_id.canister_id;
    let owner = match work.state.canister(&owner_id) {
        Some(owner) => owner,
        None => {
            return Err(error::snapshot_not_found(
                id,
                &format!("{owner_id}-{}", snapshot_id.number),
            ));
        }
    };
    let found = owner.system.snapshots.get(&snapshot_id).cloned();
    let snapshot = found.ok_or_else(|| error::snapshot_not_found(id, &format!("{owner_id}-{}", snapshot_id.number)))?;
    if owner_id != id && !owner.system.is_controller(&work.caller.principal) {
        let shown = format!("{owner_id}-{}", snapshot_id.number);
        return Err(error::snapshot_not_controlled(&shown, id, work.caller.principal));
    }
    let instructions = NumInstructions(SNAPSHOT_INSTRUCTIONS.saturating_add(snapshot.size.0));
    let subnet = work.subnet();
    let width = snapshot.execution.interface.width;
    if let Some(missing) = footprint::missing_cycles(&old, subnet.execution_cost(instructions, width), &subnet) {
        return Err(error::out_of_cycles(id, missing));
    }
    let origin = work.change_origin(args.sender_canister_version);
    let (prepared, compiling) = match prepare_known(work.engine, work.state, &snapshot.execution.module, None) {
        Ok(known) => (Ok(known.prepared), known.instructions),
        Err((cause, compiling)) => (Err(cause), compiling),
    };
    let used = instructions + compiling;
    work.instructions += used;
    let cost = subnet.fee(|subnet| subnet.execution_cost(used, width));
    work.canister_mut(id)?.system.consume(cost, CyclesUseCase::Instructions);
    let initial = prepared.map_err(|cause| error::from_canister(id, &cause))?.initial;
    let execution = restored(initial, &snapshot)?;
    let memory = Footprint::of(&old);
    let growth = Growth::new(work.state, memory.total(), memory.with_execution(&execution).total());
    let now = work.now();
    let canister = work.canister_mut(id)?;
    growth.pay(&mut canister.system, &subnet)?;
    canister.execution = Some(execution);
    restore_system(&mut canister.system, &snapshot);
    canister.system.last_install_at = Some(now);
    let details = ChangeDetails::LoadSnapshot {
        from_canister: (owner_id != id).then_some(owner_id),
        snapshot_id,
        canister_version: snapshot.canister_version,
        taken_at: snapshot.taken_at,
        taken_from_canister: snapshot.taken_from_canister,
    };
    let canister_version = canister.system.version;
    Arc::make_mut(&mut canister.system.history).push(CanisterChange {
        timestamp: now,
        canister_version,
        origin,
        details,
    });
    finish_load(canister);
    Ok(Reply::empty())
}

fn finish_load(canister: &mut CanisterState) {
    footprint::update_low_memory_hook(canister);
}

fn restore_system(system: &mut SystemState, snapshot: &Snapshot) {
    system.certified_data = snapshot.certified_data.clone();
    system.chunk_store = snapshot.chunk_store.clone();
    // A snapshot that was taken on the subnet leaves the timer as it is.
    if !snapshot.taken_from_canister && snapshot.global_timer.is_some() {
        system.global_timer = snapshot.global_timer;
    }
    system.version += 1;
}

/// The code of a snapshot with its memories and globals.
fn restored(initial: ExecutionState, snapshot: &Snapshot) -> Result<ExecutionState, UserError> {
    let saved = &snapshot.execution;
    let same_kinds = initial.globals.len() == saved.globals.len()
        && initial
            .globals
            .iter()
            .zip(saved.globals.iter())
            .all(|(one, other)| kind(one) == kind(other));
    if !same_kinds {
        return Err(error::invalid_payload(
            "Wasm exported globals of the snapshot differ from those of its module.",
        ));
    }
    if saved.heap.size_wasm_pages < initial.heap.size_wasm_pages {
        return Err(error::invalid_payload(
            "The Wasm memory of the snapshot is smaller than its module declares.",
        ));
    }
    Ok(ExecutionState {
        heap: saved.heap.clone(),
        stable: saved.stable.clone(),
        globals: saved.globals.clone(),
        warm_version: 0,
        ..initial
    })
}

fn kind(global: &GlobalValue) -> std::mem::Discriminant<GlobalValue> {
    std::mem::discriminant(global)
}

/// `list_canister_snapshots`
pub(crate) fn list<E>(work: &mut Work<'_, E>, args: &CanisterIdArgs) -> Result<Reply, UserError> {
    let system = &viewed(work, CanisterId(args.canister_id))?.system;
    let snapshots: Vec<_> = system
        .snapshots
        .iter()
        .map(|(id, snapshot)| listed(*id, snapshot))
        .collect();
    types::encode(snapshots).map(Reply::Now)
}

/// The canister, if the caller may see its snapshots.
pub(crate) fn viewed<'a, E>(work: &'a Work<'_, E>, id: CanisterId) -> Result<&'a CanisterState, UserError> {
    let canister = work.canister(id)?;
    let system = &canister.system;
    if may_view(system, &system.settings.snapshot_visibility, &work.caller.principal) {
        return Ok(canister);
    }
    work.check_controller(id)
}

fn listed(id: SnapshotId, snapshot: &Snapshot) -> SnapshotResult {
    SnapshotResult {
        id: ByteBuf::from(id.to_bytes()),
        taken_at_timestamp: snapshot.taken_at.as_nanos(),
        total_size: snapshot.size.0,
    }
}

/// `delete_canister_snapshot`
pub(crate) fn delete<E>(work: &mut Work<'_, E>, args: &SnapshotArgs) -> Result<Reply, UserError> {
    let id = CanisterId(args.canister_id);
    work.check_controller(id)?;
    let snapshot = find(work.state, id, &args.snapshot_id)?;
    Arc::make_mut(&mut work.canister_mut(id)?.system.snapshots).remove(&snapshot);
    Ok(Reply::empty())
}
