//! One installation on a copy of the canister, from its checks to its last hook.
//!
//! ```text
//! Begin       check mode                                     refused: base fee
//!             [chunked] join the chunks                      refused: base fee + a fee per chunk
//! PreUpgrade  [upgrade] pre_upgrade on the old code          ┐
//! Replace     prepare the new module,                        │ refused: the copy is dropped,
//!             replace code, heap (unless kept), globals      │ what was executed is paid
//! Start       start                                          │
//! Entry       init or post_upgrade                           │
//!             check the heap against its bound,              │
//!             pay for the memory that came of all of it      ┘
//! ```
//! Each of the three hooks may pause when its slice is used up, and the attempt with it.

use super::error;
use super::footprint::{Footprint, Growth};
use super::hooks::{HookProgress, Hooks};
use super::install::{Known, module_of, prepare_known};
use super::types::{ChunkHash, InstallMode, UpgradeOptions, WasmMemoryPersistence};
use crate::state::{
    CanisterChange, CanisterState, ChangeDetails, ChangeOrigin, ChunkStore, DeploymentMode, ReplicatedState,
};
use replicore_engine::{CanisterModule, EntryPoint, Execute, ExecutionState, PreparedModule};
use replicore_types::fees::WasmWidth;
use replicore_types::limits::CHUNK_BYTES_MAX;
use replicore_types::{CanisterId, Cycles, NumBytes, NumInstructions, Payload, UserError};
use std::sync::Arc;

/// Section by which a module says that it can take over the heap of the module before it.
const PERSISTENCE_SECTION: &str = "enhanced-orthogonal-persistence";

/// Where the module comes from.
#[derive(Clone)]
pub(crate) enum Source {
    /// From the argument.
    Inline(Vec<u8>),
    /// From a chunk store.
    Chunks {
        /// The store as it was when the call began.
        store: ChunkStore,
        /// The chunks in their order.
        hashes: Vec<ChunkHash>,
        /// SHA-256 of all of them together.
        module_hash: Vec<u8>,
    },
}

impl Source {
    /// The store, where the module comes from one.
    pub fn chunk_store(&self) -> Option<&ChunkStore> {
        match self {
            Self::Inline(_) => None,
            Self::Chunks { store, .. } => Some(store),
        }
    }

    /// The pointer width that the module declares, which everything is paid by; 32 bits where there is none to be read.
    pub fn declared_width<E: Execute>(&self, engine: &E) -> WasmWidth {
        match self {
            Self::Inline(bytes) => engine.declared_width(&module_of(bytes.clone())),
            Self::Chunks {
                store,
                hashes,
                module_hash,
            } => joined(store, hashes, module_hash).map_or(WasmWidth::Wasm32, |module| engine.declared_width(&module)),
        }
    }
}

/// The module that the chunks make.
fn joined(store: &ChunkStore, hashes: &[ChunkHash], module_hash: &[u8]) -> Result<CanisterModule, UserError> {
    let mut bytes = Vec::new();
    for ChunkHash { hash } in hashes {
        let key = <[u8; 32]>::try_from(hash.as_slice())
            .map_err(|_| error::chunk_store("Chunk hash is invalid. The length is not 32"))?;
        let chunk = store.chunks.get(&key);
        bytes.extend_from_slice(chunk.ok_or_else(|| error::chunk_store(format!("Chunk hash {key:?} was not found")))?);
    }
    let module = module_of(bytes);
    if module.hash[..] != *module_hash {
        return Err(error::chunk_store(format!(
            "Wasm module hash {:?} does not match given hash WasmHash({module_hash:?})",
            module.hash
        )));
    }
    Ok(module)
}

/// What is installed, and how.
pub(crate) struct Request {
    /// Into which canister.
    pub canister: CanisterId,
    /// How.
    pub mode: InstallMode,
    /// What.
    pub source: Source,
    /// Argument of init or post_upgrade.
    pub argument: Payload,
    /// Version of the calling canister, where it says so.
    pub sender_version: Option<u64>,
}

/// How far an attempt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The canister of the attempt is the new one.
    Ended,
    /// The slice is used up.
    Paused,
}

/// What comes next.
enum Stage {
    Begin(Source),
    PreUpgrade(CanisterModule),
    Replace(CanisterModule),
    Start,
    Entry,
}

/// One installation on a copy of the canister.
pub(crate) struct Attempt {
    /// What the hooks share.
    pub hooks: Hooks,
    /// Pointer width of the code that is paid for: that of the new module.
    pub width: WasmWidth,
    /// The copy.
    pub canister: CanisterState,
    /// Whether the subnet knew the module when it was prepared; `None` before that.
    pub module_was_known: Option<bool>,
    mode: InstallMode,
    argument: Payload,
    origin: ChangeOrigin,
    stage: Stage,
}

impl Attempt {
    /// Nothing is done. `canister` has paid for all instructions that the attempt may use, those of code of this width.
    pub fn new(
        hooks: Hooks,
        width: WasmWidth,
        canister: CanisterState,
        request: Request,
        origin: ChangeOrigin,
    ) -> Self {
        Self {
            hooks,
            width,
            canister,
            module_was_known: None,
            mode: request.mode,
            argument: request.argument,
            origin,
            stage: Stage::Begin(request.source),
        }
    }

    /// Goes on to the end, or until a hook has used up its slice.
    ///
    /// # Errors
    /// Why the installation is refused; the attempt is over.
    pub fn slice<E: Execute>(&mut self, engine: &E, state: &mut ReplicatedState) -> Result<Progress, UserError> {
        loop {
            // Where a hook pauses, its stage stays.
            let hook = match &self.stage {
                Stage::Begin(source) => {
                    self.check_mode()?;
                    let source = source.clone();
                    self.stage = Stage::PreUpgrade(self.module(source)?);
                    continue;
                }
                Stage::Replace(module) => {
                    let module = module.clone();
                    let prepared = self.prepare(engine, state, &module)?;
                    self.replace(self.new_execution(prepared)?);
                    self.stage = Stage::Start;
                    continue;
                }
                Stage::PreUpgrade(_) if !self.runs_pre_upgrade() => None,
                Stage::PreUpgrade(_) => Some(("canister_pre_upgrade", EntryPoint::PreUpgrade, false)),
                Stage::Start => Some(("start", EntryPoint::Start, true)),
                Stage::Entry => Some(self.entry()),
            };
            if let Some((name, entry_point, bounded)) = hook
                && self.hooks.run(engine, &mut self.canister, name, entry_point, bounded)? == HookProgress::Paused
            {
                return Ok(Progress::Paused);
            }
            match &self.stage {
                Stage::PreUpgrade(module) => self.stage = Stage::Replace(module.clone()),
                Stage::Start => self.stage = Stage::Entry,
                Stage::Begin(_) | Stage::Replace(_) | Stage::Entry => {
                    return check_heap_bound(&self.canister).map(|()| Progress::Ended);
                }
            }
        }
    }

    fn runs_pre_upgrade(&self) -> bool {
        match self.mode {
            InstallMode::Upgrade(options) => !options.and_then(|options| options.skip_pre_upgrade).unwrap_or(false),
            InstallMode::Install | InstallMode::Reinstall => false,
        }
    }

    /// The hook that sees the argument.
    fn entry(&self) -> (&'static str, EntryPoint, bool) {
        let argument = self.argument.clone();
        match self.mode {
            InstallMode::Install | InstallMode::Reinstall => ("canister_init", EntryPoint::Init(argument), true),
            InstallMode::Upgrade(_) => ("canister_post_upgrade", EntryPoint::PostUpgrade(argument), true),
        }
    }

    fn check_mode(&self) -> Result<(), UserError> {
        let system = &self.canister.system;
        let id = system.canister_id;
        match (self.mode, &self.canister.execution) {
            (InstallMode::Install, Some(_)) => return Err(error::canister_not_empty(id)),
            (InstallMode::Upgrade(_), None) => return Err(error::no_module(id)),
            _ => {}
        }
        let metadata = &self.hooks.metadata;
        if metadata.subnet.rate_limits && !system.open_install_debit(metadata.height).is_zero() {
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
        joined(&store, &hashes, &module_hash)
    }

    /// Validates and compiles. What the subnet has compiled before costs less.
    fn prepare<E: Execute>(
        &mut self,
        engine: &E,
        state: &mut ReplicatedState,
        module: &CanisterModule,
    ) -> Result<PreparedModule, UserError> {
        let id = self.canister.system.canister_id;
        match prepare_known(engine, state, module, self.module_was_known) {
            Ok(Known {
                prepared,
                was_known,
                instructions,
            }) => {
                self.hooks.used += instructions;
                self.width = prepared.interface.width;
                self.module_was_known = Some(was_known);
                Ok(prepared)
            }
            Err((cause, instructions)) => {
                self.hooks.used += instructions;
                self.width = engine.declared_width(module);
                Err(error::from_canister(id, &cause))
            }
        }
    }

    /// The new code with what an upgrade keeps of the old memories.
    fn new_execution(&self, prepared: PreparedModule) -> Result<ExecutionState, UserError> {
        // Its version is one that `prepare` made for it: no warm instance has these memories.
        let mut execution = prepared.initial;
        let (InstallMode::Upgrade(options), Some(old)) = (self.mode, &self.canister.execution) else {
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
    fn replace(&mut self, execution: ExecutionState) {
        let module_hash = execution.module.hash;
        self.canister.execution = Some(execution);
        let now = self.hooks.metadata.time;
        let system = &mut self.canister.system;
        system.global_timer = None;
        system.version += 1;
        system.last_install_at = Some(now);
        let mode = match self.mode {
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
            origin: self.origin.clone(),
            details,
        });
    }

    /// Pays, once everything has run, for the memory that the canister has more than `before`. `balance` is what it
    /// would keep otherwise.
    ///
    /// # Errors
    /// As [`Growth::pay`].
    pub fn pay_for_growth(&mut self, before: NumBytes, balance: Cycles) -> Result<(), UserError> {
        let growth = Growth::on(&self.hooks.metadata, before, Footprint::of(&self.canister).total());
        let system = &mut self.canister.system;
        let held = std::mem::replace(&mut system.balance, balance);
        let paid = growth.pay(system, &self.hooks.metadata.subnet);
        system.balance = held - (balance - system.balance);
        paid
    }
}

/// The heap after an install must be within the canister's bound.
fn check_heap_bound(canister: &CanisterState) -> Result<(), UserError> {
    let limit = canister.system.settings.wasm_memory_limit_in_force();
    let heap = NumBytes(
        canister
            .execution
            .as_ref()
            .map_or(0, |execution| execution.heap.size_bytes()),
    );
    if !limit.is_zero() && heap > limit {
        return Err(error::wasm_memory_limit(canister.id(), heap, limit));
    }
    Ok(())
}
