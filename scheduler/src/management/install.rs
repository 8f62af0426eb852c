//! `install_code` and `install_chunked_code`.
//!
//! ```text
//! check caller, take the largest possible fee
//!   check mode                                     refused: base fee
//!   [chunked] join the chunks                      refused: base fee + a fee per chunk
//!   [upgrade] pre_upgrade on the old code          ┐
//!   prepare the new module                         │ on a copy of the canister;
//!   replace code, heap (unless kept), globals      │ refused: the copy is dropped,
//!   start, then init or post_upgrade               │ what was executed is paid
//!   check the heap against its bound               ┘
//! the copy becomes the canister, what was not executed is given back
//! ```

use super::error;
use super::footprint::{self, Footprint, Growth};
use super::hooks::Hooks;
use super::types::{
    ChunkHash, InstallChunkedCodeArgs, InstallCodeArgs, InstallMode, UpgradeOptions, WasmMemoryPersistence,
};
use super::work::{Reply, Work};
use crate::state::{
    CanisterChange, CanisterState, ChangeDetails, ChangeOrigin, ChunkStore, CyclesUseCase, DeploymentMode,
    ReplicatedState, SystemState,
};
use replicore_engine::{CanisterModule, EntryPoint, Execute, ExecutionState, PreparedModule};
use replicore_types::fees::WasmWidth;
use replicore_types::limits::{
    CHUNK_BYTES_MAX, CHUNKS_MAX, INSTALL_CODE_INSTRUCTIONS_MAX, SYSTEM_INSTALL_CODE_INSTRUCTIONS_MAX,
};
use replicore_types::{CanisterId, Height, NumBytes, NumInstructions, Payload, SubnetType, UserError};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Section by which a module says that it can take over the heap of the module before it.
const PERSISTENCE_SECTION: &str = "enhanced-orthogonal-persistence";

/// What one round works off of a canister's debit of install instructions.
const INSTALL_CODE_INSTRUCTIONS_PER_ROUND: u64 = 2_000_000_000;

/// Where the module comes from.
enum Source {
    /// From the argument.
    Inline(Vec<u8>),
    /// From a chunk store.
    Chunks {
        store: ChunkStore,
        hashes: Vec<ChunkHash>,
        module_hash: Vec<u8>,
    },
}

/// What is installed, and how.
struct Request {
    canister: CanisterId,
    mode: InstallMode,
    source: Source,
    argument: Payload,
    sender_version: Option<u64>,
}

/// `install_code`
pub(crate) fn install<E: Execute>(work: &mut Work<'_, E>, args: InstallCodeArgs) -> Result<Reply, UserError> {
    deploy(
        work,
        Request {
            canister: CanisterId(args.canister_id),
            mode: args.mode,
            source: Source::Inline(args.wasm_module.into_vec()),
            argument: args.arg.into_vec().into(),
            sender_version: args.sender_canister_version,
        },
    )
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
    if args.chunk_hashes_list.len() > CHUNKS_MAX {
        return Err(error::invalid_payload(format!(
            "At most {CHUNKS_MAX} chunks can be installed as one module"
        )));
    }
    deploy(
        work,
        Request {
            canister,
            mode: args.mode,
            source: Source::Chunks {
                store,
                hashes: args.chunk_hashes_list,
                module_hash: args.wasm_module_hash.into_vec(),
            },
            argument: args.arg.into_vec().into(),
            sender_version: args.sender_canister_version,
        },
    )
}

fn instructions_max(subnet_type: SubnetType) -> NumInstructions {
    NumInstructions(match subnet_type {
        SubnetType::System => SYSTEM_INSTALL_CODE_INSTRUCTIONS_MAX,
        SubnetType::Application | SubnetType::VerifiedApplication | SubnetType::CloudEngine => {
            INSTALL_CODE_INSTRUCTIONS_MAX
        }
    })
}

/// Prepays, attempts, and settles.
fn deploy<E: Execute>(work: &mut Work<'_, E>, request: Request) -> Result<Reply, UserError> {
    let id = request.canister;
    let old = work.check_controller(id)?.clone();
    let subnet = work.subnet();
    let limit = instructions_max(subnet.subnet_type);
    let old_width = old
        .execution
        .as_ref()
        .map_or(WasmWidth::Wasm32, |execution| execution.interface.width);
    let prepaid = subnet.execution_cost(limit, old_width);
    if let Some(missing) = footprint::missing_cycles(&old, prepaid, &subnet) {
        return Err(error::install_out_of_cycles(id, missing));
    }
    let mut attempt = Attempt {
        hooks: Hooks::new(work.engine, work.state, work.caller.principal, limit),
        engine: work.engine,
        state: &mut *work.state,
        width: old_width,
        canister: old,
    };
    attempt.canister.system.balance -= prepaid;
    let origin = match work.caller.canister {
        Some(canister) => ChangeOrigin::Canister {
            canister,
            version: request.sender_version,
        },
        None => ChangeOrigin::User {
            user: work.caller.principal,
        },
    };
    let result = attempt.run(request, origin);
    let Attempt {
        hooks, canister, width, ..
    } = attempt;
    let (used, log) = (hooks.used, hooks.log);
    work.instructions += used;
    let cost = subnet.fee(|subnet| subnet.settled_execution_cost(limit, used, width));
    let height = work.state.metadata.height;
    match result {
        Ok(()) => {
            let mut canister = canister;
            canister.system.balance += prepaid;
            canister.system.consume(cost, CyclesUseCase::Instructions);
            add_debit(&mut canister.system, used, height);
            footprint::update_low_memory_hook(&mut canister);
            work.state.insert_canister(canister);
        }
        Err(error) => {
            let canister = work.canister_mut(id)?;
            canister.system.consume(cost, CyclesUseCase::Instructions);
            add_debit(&mut canister.system, used, height);
            for record in log {
                canister
                    .system
                    .log
                    .push(record, canister.system.settings.log_memory_limit);
            }
            return Err(error);
        }
    }
    Ok(Reply::empty())
}

/// Install instructions that the rounds since have not worked off.
fn open_debit(system: &SystemState, height: Height) -> NumInstructions {
    let rounds = height.0.saturating_sub(system.install_code_debit_at.0);
    system.install_code_debit - NumInstructions(rounds.saturating_mul(INSTALL_CODE_INSTRUCTIONS_PER_ROUND))
}

fn add_debit(system: &mut SystemState, used: NumInstructions, height: Height) {
    system.install_code_debit = open_debit(system, height) + used;
    system.install_code_debit_at = height;
}

/// One installation on a copy of the canister.
struct Attempt<'a, E> {
    hooks: Hooks<'a, E>,
    engine: &'a E,
    state: &'a mut ReplicatedState,
    /// Pointer width of the code that is paid for: that of the new module as soon as it is known.
    width: WasmWidth,
    canister: CanisterState,
}

impl<E: Execute> Attempt<'_, E> {
    fn run(&mut self, request: Request, origin: ChangeOrigin) -> Result<(), UserError> {
        let id = request.canister;
        self.check_mode(request.mode)?;
        let module = self.module(request.source)?;
        if let InstallMode::Upgrade(options) = request.mode
            && !options.and_then(|options| options.skip_pre_upgrade).unwrap_or(false)
        {
            self.hooks.run(
                &mut self.canister,
                "canister_pre_upgrade",
                EntryPoint::PreUpgrade,
                false,
            )?;
        }
        let prepared = self.prepare(&module)?;
        let execution = self.new_execution(prepared, request.mode)?;
        self.replace(execution, request.mode, origin)?;
        self.hooks.run(&mut self.canister, "start", EntryPoint::Start, true)?;
        let (name, entry_point) = match request.mode {
            InstallMode::Install | InstallMode::Reinstall => ("canister_init", EntryPoint::Init(request.argument)),
            InstallMode::Upgrade(_) => ("canister_post_upgrade", EntryPoint::PostUpgrade(request.argument)),
        };
        self.hooks.run(&mut self.canister, name, entry_point, true)?;
        check_heap_bound(id, &self.canister)
    }

    fn check_mode(&self, mode: InstallMode) -> Result<(), UserError> {
        let system = &self.canister.system;
        let id = system.canister_id;
        match (mode, &self.canister.execution) {
            (InstallMode::Install, Some(_)) => return Err(error::canister_not_empty(id)),
            (InstallMode::Upgrade(_), None) => return Err(error::no_module(id)),
            _ => {}
        }
        let metadata = &self.state.metadata;
        if metadata.subnet.rate_limits && !open_debit(system, metadata.height).is_zero() {
            return Err(error::install_rate_limited(id));
        }
        Ok(())
    }

    /// The bytes of the module. Joining chunks costs an instruction per byte of their slots.
    fn module(&mut self, source: Source) -> Result<CanisterModule, UserError> {
        let (store, hashes, module_hash) = match source {
            Source::Inline(bytes) => return Ok(module_of(bytes)),
            Source::Chunks {
                store,
                hashes,
                module_hash,
            } => (store, hashes, module_hash),
        };
        self.hooks.used += NumInstructions((hashes.len() * CHUNK_BYTES_MAX) as u64);
        let mut bytes = Vec::new();
        for ChunkHash { hash } in &hashes {
            let chunk = <[u8; 32]>::try_from(hash.as_slice())
                .ok()
                .and_then(|hash| store.chunks.get(&hash));
            let chunk =
                chunk.ok_or_else(|| error::chunk_store(format!("Chunk hash {:?} was not found", hash.as_slice())))?;
            bytes.extend_from_slice(chunk);
        }
        let module = module_of(bytes);
        if module.hash[..] != module_hash[..] {
            return Err(error::chunk_store(format!(
                "Wasm module hash {:?} does not match given hash WasmHash({module_hash:?})",
                module.hash
            )));
        }
        Ok(module)
    }

    /// Validates and compiles. What the subnet has compiled before costs less.
    fn prepare(&mut self, module: &CanisterModule) -> Result<PreparedModule, UserError> {
        let id = self.canister.system.canister_id;
        match prepare_known(self.engine, self.state, module) {
            Ok((prepared, instructions)) => {
                self.hooks.used += instructions;
                self.width = prepared.interface.width;
                Ok(prepared)
            }
            Err((cause, instructions)) => {
                self.hooks.used += instructions;
                self.width = self.engine.declared_width(module);
                Err(error::from_canister(id, &cause))
            }
        }
    }

    /// The new code with what an upgrade keeps of the old memories.
    fn new_execution(&self, prepared: PreparedModule, mode: InstallMode) -> Result<ExecutionState, UserError> {
        let mut execution = prepared.initial;
        // No warm instance has these memories.
        execution.warm_version = 0;
        let (InstallMode::Upgrade(options), Some(old)) = (mode, &self.canister.execution) else {
            return Ok(execution);
        };
        let persistent =
            |execution: &ExecutionState| execution.interface.custom_sections.contains_key(PERSISTENCE_SECTION);
        let UpgradeOptions {
            wasm_memory_persistence,
            ..
        } = options.unwrap_or_default();
        match wasm_memory_persistence {
            None if persistent(old) => return Err(error::persistence_option_missing()),
            Some(WasmMemoryPersistence::Keep) if !persistent(&execution) => {
                return Err(error::persistence_not_supported());
            }
            Some(WasmMemoryPersistence::Keep) => {
                let size = execution.heap.size_wasm_pages.max(old.heap.size_wasm_pages);
                execution.heap = old.heap.clone();
                execution.heap.size_wasm_pages = size;
            }
            None | Some(WasmMemoryPersistence::Replace) => {}
        }
        execution.stable = old.stable.clone();
        Ok(execution)
    }

    /// Puts the new code into the canister: everything that the install changes before the first of its code runs.
    fn replace(&mut self, execution: ExecutionState, mode: InstallMode, origin: ChangeOrigin) -> Result<(), UserError> {
        let memory = Footprint::of(&self.canister);
        let growth = Growth::new(self.state, memory.total(), memory.with_execution(&execution).total());
        growth.pay(&mut self.canister.system, &self.state.metadata.subnet)?;
        let module_hash = execution.module.hash;
        self.canister.execution = Some(execution);
        let now = self.state.metadata.time;
        let system = &mut self.canister.system;
        system.global_timer = None;
        system.version += 1;
        system.last_install_at = Some(now);
        let mode = match mode {
            InstallMode::Install => DeploymentMode::Install,
            InstallMode::Reinstall => DeploymentMode::Reinstall,
            InstallMode::Upgrade(_) => DeploymentMode::Upgrade,
        };
        if mode != DeploymentMode::Upgrade {
            system.certified_data = Payload::default();
            system.log.clear();
        }
        let canister_version = system.version;
        let details = ChangeDetails::CodeDeployment { mode, module_hash };
        Arc::make_mut(&mut system.history).push(CanisterChange {
            timestamp: now,
            canister_version,
            origin,
            details,
        });
        Ok(())
    }
}

/// Validates and compiles a module, and notes that the subnet knows it from now on. Gives the instructions to charge.
///
/// # Errors
/// As [`Execute::prepare`].
pub(crate) fn prepare_known<E: Execute>(
    engine: &E,
    state: &mut ReplicatedState,
    module: &CanisterModule,
) -> Result<(PreparedModule, NumInstructions), (UserError, NumInstructions)> {
    let metadata = &mut state.metadata;
    let prepared = engine.prepare(module, metadata.subnet.subnet_type)?;
    let known = metadata.known_modules.insert(module.hash).is_some();
    let instructions = if known {
        prepared.compile_instructions_known
    } else {
        prepared.compile_instructions
    };
    Ok((prepared, instructions))
}

/// The module with these bytes.
pub(crate) fn module_of(bytes: Vec<u8>) -> CanisterModule {
    let hash = Sha256::digest(&bytes).into();
    CanisterModule {
        bytes: bytes.into(),
        hash,
    }
}

/// The heap after an install must be within the canister's bound.
fn check_heap_bound(id: CanisterId, canister: &CanisterState) -> Result<(), UserError> {
    let limit = canister.system.settings.wasm_memory_limit_in_force();
    let heap = NumBytes(
        canister
            .execution
            .as_ref()
            .map_or(0, |execution| execution.heap.size_bytes()),
    );
    if !limit.is_zero() && heap > limit {
        return Err(error::wasm_memory_limit(id, heap, limit));
    }
    Ok(())
}
