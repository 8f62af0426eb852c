//! `install_code` and `install_chunked_code`.
//!
//! ```text
//! check caller, take the largest possible fee of code of the new module's pointer width
//!   attempt on a copy of the canister (install_attempt.rs), slice by slice: one a round
//! settle: the copy becomes the canister, or what was executed is paid and the copy is dropped;
//!         what was not executed is given back
//! ```
//! Between two slices the canister executes nothing, and calls of the management canister about it wait; so do other
//! installs. It goes on being charged for what it receives: settling keeps what happened to it meanwhile.

use super::error;
use super::footprint::{self, Footprint};
use super::hooks::Hooks;
use super::install_attempt::{Attempt, Progress, Request, Source};
use super::types::{self, InstallChunkedCodeArgs, InstallCodeArgs};
use super::work::{Reply, Work};
use crate::state::{
    ChangeOrigin, ChunkStore, CyclesUseCase, InstallStart, LiveInstall, PausedInstall, ReplicatedState, SubnetMessage,
};
use replicore_engine::{CanisterModule, Execute, PreparedModule};
use replicore_types::limits::{CHUNKS_MAX, INSTALL_CODE_INSTRUCTIONS_MAX, SYSTEM_INSTALL_CODE_INSTRUCTIONS_MAX};
use replicore_types::{CanisterId, ErrorCode, NumBytes, NumInstructions, SubnetType, UserError};
use sha2::{Digest, Sha256};

/// `install_code`
pub(crate) fn install<E: Execute>(work: &mut Work<'_, E>, args: InstallCodeArgs) -> Result<Reply, UserError> {
    deploy(work, request_of(args))
}

/// `install_chunked_code`
pub(crate) fn install_chunked<E: Execute>(
    work: &mut Work<'_, E>,
    args: InstallChunkedCodeArgs,
) -> Result<Reply, UserError> {
    let canister = CanisterId(args.target_canister);
    work.check_controller(canister)?;
    let store_id = args.store_canister.map_or(canister, CanisterId);
    let store = work.check_controller_or_self(store_id)?.system.chunk_store.clone();
    if args.wasm_module_hash.len() != 32 {
        return Err(UserError::new(
            ErrorCode::CanisterContractViolation,
            format!("Invalid wasm hash {:?}", args.wasm_module_hash.as_slice()),
        ));
    }
    if args.chunk_hashes_list.len() > CHUNKS_MAX {
        return Err(error::invalid_payload(format!(
            "At most {CHUNKS_MAX} chunks can be installed as one module"
        )));
    }
    deploy(work, chunked_request_of(args, store))
}

fn request_of(args: InstallCodeArgs) -> Request {
    Request {
        canister: CanisterId(args.canister_id),
        mode: args.mode,
        source: Source::Inline(args.wasm_module.into_vec()),
        argument: args.arg.into_vec().into(),
        sender_version: args.sender_canister_version,
    }
}

fn chunked_request_of(args: InstallChunkedCodeArgs, store: ChunkStore) -> Request {
    Request {
        canister: CanisterId(args.target_canister),
        mode: args.mode,
        source: Source::Chunks {
            store,
            hashes: args.chunk_hashes_list,
            module_hash: args.wasm_module_hash.into_vec(),
        },
        argument: args.arg.into_vec().into(),
        sender_version: args.sender_canister_version,
    }
}

fn instructions_max(subnet_type: SubnetType) -> NumInstructions {
    NumInstructions(match subnet_type {
        SubnetType::System => SYSTEM_INSTALL_CODE_INSTRUCTIONS_MAX,
        SubnetType::Application | SubnetType::VerifiedApplication | SubnetType::CloudEngine => {
            INSTALL_CODE_INSTRUCTIONS_MAX
        }
    })
}

/// Prepays and executes the first slice.
fn deploy<E: Execute>(work: &mut Work<'_, E>, request: Request) -> Result<Reply, UserError> {
    let id = request.canister;
    let canister = work.check_controller(id)?;
    let subnet = work.subnet();
    let limit = instructions_max(subnet.subnet_type);
    let width = request.source.declared_width(work.engine);
    let prepaid = subnet.fee(|subnet| subnet.execution_cost(limit, width));
    if let Some(missing) = footprint::missing_cycles(canister, prepaid.taken, &subnet) {
        return Err(error::install_out_of_cycles(id, missing));
    }
    let start = InstallStart {
        time: work.now(),
        subnet_memory_taken: work.state.metadata.memory_taken,
        balance: canister.system.balance,
        consumed: canister.system.consumed,
        message_bytes: NumBytes(canister.system.queues.message_bytes()),
        prepaid,
        module_was_known: None,
        chunk_store: request.source.chunk_store().cloned(),
    };
    let attempt = begin(work, request, &start)?;
    work.canister_mut(id)?
        .system
        .consume(prepaid, CyclesUseCase::Instructions);
    go_on(work, attempt, start, 0)
}

/// The attempt as it is before its first slice, at `start`: from the canister as it was then.
fn begin<E: Execute>(work: &Work<'_, E>, request: Request, start: &InstallStart) -> Result<Attempt, UserError> {
    let mut canister = work.canister(request.canister)?.clone();
    canister.system.balance = start.balance - start.prepaid.taken;
    canister.system.consumed = start.consumed;
    canister.system.queues.message_bytes = start.message_bytes.0;
    let mut metadata = work.state.metadata.clone();
    metadata.time = start.time;
    metadata.memory_taken = start.subnet_memory_taken;
    let origin = match work.caller.canister {
        Some(canister) => ChangeOrigin::Canister {
            canister,
            version: request.sender_version,
        },
        None => ChangeOrigin::User {
            user: work.caller.principal,
        },
    };
    let limit = instructions_max(metadata.subnet.subnet_type);
    let hooks = Hooks::new(metadata, work.caller.principal, limit);
    let width = request.source.declared_width(work.engine);
    let mut attempt = Attempt::new(hooks, width, canister, request, origin);
    attempt.module_was_known = start.module_was_known;
    Ok(attempt)
}

/// Executes the next slice of the install that is under way; `work` is for its call.
///
/// # Errors
/// Why the install failed, as its caller reads it.
pub(crate) fn resume<E: Execute>(work: &mut Work<'_, E>, paused: PausedInstall) -> Result<Reply, UserError> {
    let attempt = match paused.live.take() {
        Some(attempt) => *attempt,
        None => {
            // The work itself is gone: the slices before are executed again and come to the same point.
            let mut attempt = begin(work, request_again(&paused)?, &paused.start)?;
            for _ in 0..paused.slices {
                attempt.slice(work.engine, work.state)?;
            }
            attempt
        }
    };
    go_on(work, attempt, paused.start, paused.slices)
}

/// What a paused install was asked for.
fn request_again(paused: &PausedInstall) -> Result<Request, UserError> {
    let payload = match &paused.message {
        SubnetMessage::Ingress(ingress) => &ingress.method_payload,
        SubnetMessage::Request(request) => &request.payload,
    };
    match &paused.start.chunk_store {
        None => Ok(request_of(types::decode(payload)?)),
        Some(store) => Ok(chunked_request_of(types::decode(payload)?, store.clone())),
    }
}

/// Executes a slice, after `slices` earlier ones, and settles or puts the rest aside.
fn go_on<E: Execute>(
    work: &mut Work<'_, E>,
    mut attempt: Attempt,
    mut start: InstallStart,
    slices: u32,
) -> Result<Reply, UserError> {
    let before = attempt.hooks.executed();
    let progress = attempt.slice(work.engine, work.state);
    work.instructions += attempt.hooks.executed() - before;
    let result = match progress {
        Ok(Progress::Paused) => {
            start.module_was_known = attempt.module_was_known;
            work.state.subnet.long_install = Some(PausedInstall {
                canister: attempt.canister.id(),
                message: work.message.clone(),
                start,
                slices: slices + 1,
                live: LiveInstall::new(attempt),
            });
            return Ok(Reply::Later);
        }
        Ok(Progress::Ended) => Ok(()),
        Err(error) => Err(error),
    };
    settle(work, attempt, &start, result)
}

/// Gives back the prepayment, takes what was executed, and commits the attempt where it succeeded.
fn settle<E: Execute>(
    work: &mut Work<'_, E>,
    mut attempt: Attempt,
    start: &InstallStart,
    result: Result<(), UserError>,
) -> Result<Reply, UserError> {
    let (subnet, height) = (work.subnet(), work.state.metadata.height);
    let limit = instructions_max(subnet.subnet_type);
    let (used, width) = (attempt.hooks.used, attempt.width);
    let cost = subnet.fee(|subnet| subnet.settled_execution_cost(limit, used, width));
    let canister = work.canister_mut(attempt.canister.id())?;
    canister.system.refund(start.prepaid, CyclesUseCase::Instructions);
    let result = result.and_then(|()| {
        let spent = start.balance - (attempt.canister.system.balance + start.prepaid.taken);
        let balance = canister.system.balance - spent - cost.taken;
        attempt.pay_for_growth(Footprint::of(canister).total(), balance)
    });
    if result.is_ok() {
        let old = std::mem::replace(canister, attempt.canister);
        let (system, old) = (&mut canister.system, old.system);
        // What the attempt took, from what the canister has by now.
        let spent = start.balance - (system.balance + start.prepaid.taken);
        system.balance = old.balance - spent;
        system.consumed = old.consumed.plus_change(&start.consumed, &system.consumed);
        // What happened to the canister between two slices stays.
        system.queues = old.queues;
        system.calls = old.calls;
        system.cycles_debit = old.cycles_debit;
    } else {
        let limit = canister.system.settings.log_memory_limit;
        for record in attempt.hooks.log {
            canister.system.log.push(record, limit);
        }
    }
    canister.system.consume(cost, CyclesUseCase::Instructions);
    canister.system.add_install_debit(used, height);
    if result.is_ok() {
        footprint::update_low_memory_hook(canister);
    }
    result.map(|()| Reply::empty())
}

/// A prepared module with what preparing it costs.
pub(crate) struct Known {
    /// The module.
    pub prepared: PreparedModule,
    /// Whether the subnet had compiled it before.
    pub was_known: bool,
    /// What is charged.
    pub instructions: NumInstructions,
}

/// Validates and compiles a module, and notes that the subnet knows it from now on. `was_known` says whether it did
/// before, where that was found out earlier.
///
/// # Errors
/// As [`Execute::prepare`].
pub(crate) fn prepare_known<E: Execute>(
    engine: &E,
    state: &mut ReplicatedState,
    module: &CanisterModule,
    was_known: Option<bool>,
) -> Result<Known, (UserError, NumInstructions)> {
    let metadata = &mut state.metadata;
    let prepared = engine.prepare(module, metadata.subnet.subnet_type)?;
    let known = metadata.known_modules.insert(module.hash).is_some();
    let was_known = was_known.unwrap_or(known);
    let instructions = match was_known {
        true => prepared.compile_instructions_known,
        false => prepared.compile_instructions,
    };
    Ok(Known {
        prepared,
        was_known,
        instructions,
    })
}

/// The module with these bytes.
pub(crate) fn module_of(bytes: Vec<u8>) -> CanisterModule {
    let hash = Sha256::digest(&bytes).into();
    CanisterModule {
        bytes: bytes.into(),
        hash,
    }
}
