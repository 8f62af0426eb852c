//! Modules as they are executed, and the cache of them.
//!
//! ```text
//! first message   in memory? | on disk? | baseline code, and a request for better | optimised code
//! in background   optimised code -> memory and disk: messages that begin from then on run on it
//! ```

use super::address_space::Mappings;
use super::background::Background;
use super::disk_cache::DiskCache;
use super::jitdump::JitDump;
use super::perf_map::PerfMap;
use super::prepared::Prepared;
use super::tiers::{Tier, TierEngine, Tiers};
use crate::module::{self, FunctionNames, ValidatedModule, WriteTracking, refusal_charge};
use crate::system_api::HostState;
use crate::{CanisterModule, ExecutionState, GlobalValue, ModuleInterface, WasmMemory};
use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};
use rayon::{ThreadPool, ThreadPoolBuilder};
use replicore_types::{ErrorCode, Lock, NumInstructions, UserError};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wasmtime::{InstancePre, Module};

/// A module ready to be instantiated.
pub(crate) struct Compiled {
    pub(crate) hash: [u8; 32],
    pub(crate) tier: Tier,
    pub(crate) write_tracking: WriteTracking,
    /// Better code has been asked for.
    requested: AtomicBool,
    pub(crate) interface: Arc<ModuleInterface>,
    pub(crate) instance_pre: InstancePre<HostState>,
    pub(crate) function_names: FunctionNames,
    /// Memory and mutable globals before any code ran.
    pub(crate) initial_heap: WasmMemory,
    pub(crate) initial_globals: Arc<[GlobalValue]>,
    /// Exports of the mutable globals, in the order of `initial_globals`.
    pub(crate) global_exports: Vec<String>,
    /// An instance must not serve a second message.
    pub(crate) drops_data_segments: bool,
    pub(crate) compile_instructions: NumInstructions,
    pub(crate) compile_instructions_known: NumInstructions,
}

impl Compiled {
    /// The index of an imported System API function that production implements in Wasm: the stable memory functions.
    pub(crate) fn import(&self, name: &str) -> Option<u32> {
        if !name.starts_with("stable") {
            return None;
        }
        let functions = self
            .instance_pre
            .module()
            .imports()
            .filter(|import| import.ty().func().is_some());
        let position = functions
            .enumerate()
            .find(|(_, import)| import.module() == "ic0" && import.name() == name)?
            .0;
        u32::try_from(position).ok()
    }

    /// What a profile calls a function by its id among the events: an import where it is one, see `module/profiled.rs`.
    pub(crate) fn function_label(&self, function: u32) -> String {
        let module = self.instance_pre.module();
        let mut imports = module.imports().filter(|import| import.module() == "ic0");
        match imports.nth(function as usize) {
            Some(import) => format!("ic0.{}", import.name()),
            None => self
                .function_names
                .label(function)
                .unwrap_or_else(|| format!("function {function}")),
        }
    }

    /// The state of a canister that has just got the module.
    pub(crate) fn initial_state(&self, module: &CanisterModule, version: u64) -> ExecutionState {
        ExecutionState {
            module: module.clone(),
            interface: self.interface.clone(),
            heap: self.initial_heap.clone(),
            stable: WasmMemory::default(),
            globals: self.initial_globals.clone(),
            warm_version: version,
        }
    }

    fn new(hash: [u8; 32], prepared: &Prepared<'_>, machine: &Module, tier: &TierEngine) -> wasmtime::Result<Self> {
        Ok(Self {
            hash,
            tier: tier.tier,
            write_tracking: tier.tracking,
            requested: AtomicBool::new(false),
            instance_pre: tier.linker(prepared.interface.width).instantiate_pre(machine)?,
            interface: Arc::new(prepared.interface.clone()),
            function_names: prepared.function_names.clone(),
            initial_heap: prepared.initial_heap(),
            initial_globals: prepared.globals.clone().into(),
            global_exports: prepared.global_exports.clone(),
            drops_data_segments: prepared.drops_data_segments,
            compile_instructions: prepared.compile_charge.full(),
            compile_instructions_known: prepared.compile_charge.known(),
        })
    }
}

/// What Linux `perf` is told of the code.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ForPerf {
    /// Names, in `/tmp/perf-PID.map`.
    pub map: bool,
    /// Names and code, in `/tmp/jit-PID.dump`.
    pub jitdump: bool,
}

/// Compiles modules and keeps them, in memory by recency and on disk where a folder is given.
pub(crate) struct ModuleCache {
    shared: Arc<Shared>,
    background: Option<Background<CanisterModule>>,
}

/// Modules by their hash.
type CompiledModules = LruCache<[u8; 32], Arc<Compiled>>;

/// What the background thread shares with those that execute.
struct Shared {
    tiers: Tiers,
    /// Modules tell what they do.
    profiled: bool,
    /// Gets the names of functions, where they are asked for.
    perf_map: Option<PerfMap>,
    /// Gets their code as well.
    jitdump: Option<JitDump>,
    /// `None` where the baseline compiler is not wanted or does not know this machine.
    baseline: Option<TierEngine>,
    optimised: TierEngine,
    compiled: Mutex<CompiledModules>,
}

/// Why a module is refused, and what the attempt costs.
pub(crate) type Refusal = (UserError, NumInstructions);

/// Why there is no code of a module.
pub(crate) enum NoCode {
    /// The module breaks a rule: everywhere and always.
    Refused(Refusal),
    /// The host has no room for the code.
    Host(wasmtime::Error),
}

impl ModuleCache {
    /// `for_perf` asks for what Linux `perf` reads; the instances of the modules take their mappings from `mappings`.
    pub(crate) fn new(
        tiers: Tiers,
        tracking: WriteTracking,
        modules_max: NonZeroUsize,
        folder: Option<PathBuf>,
        for_perf: ForPerf,
        mappings: &Arc<Mappings>,
    ) -> wasmtime::Result<Self> {
        // Baseline code that is about to be replaced is not worth a file.
        let baseline_folder = folder.clone().filter(|_| tiers == Tiers::Baseline);
        Ok(Self::start(Shared {
            tiers,
            profiled: false,
            perf_map: for_perf.map.then(PerfMap::create).transpose()?,
            jitdump: for_perf.jitdump.then(JitDump::create).transpose()?,
            baseline: TierEngine::new(Tier::Baseline, tracking, baseline_folder, mappings).ok(),
            optimised: TierEngine::new(Tier::Optimised, tracking, folder, mappings)?,
            compiled: Mutex::new(LruCache::new(modules_max)),
        }))
    }

    /// A cache of modules with the events that profiles are made of.
    pub(crate) fn profiled(
        tracking: WriteTracking,
        modules_max: NonZeroUsize,
        mappings: &Arc<Mappings>,
    ) -> wasmtime::Result<Self> {
        Ok(Self::start(Shared {
            tiers: Tiers::Optimised,
            profiled: true,
            perf_map: None,
            jitdump: None,
            baseline: None,
            optimised: TierEngine::new(Tier::Optimised, tracking, None, mappings)?,
            compiled: Mutex::new(LruCache::new(modules_max)),
        }))
    }

    fn start(shared: Shared) -> Self {
        let (tiers, shared) = (shared.tiers, Arc::new(shared));
        let worker = Arc::clone(&shared);
        let background = (tiers == Tiers::Both)
            .then(compiler_threads)
            .flatten()
            .and_then(|threads| {
                Background::start("module-compiler", move |module| {
                    threads.install(|| worker.improve(&module));
                })
            });
        Self { shared, background }
    }

    /// The executable form of a module, compiled if need be.
    pub(crate) fn get(&self, module: &CanisterModule) -> Result<Arc<Compiled>, NoCode> {
        let known = self.shared.compiled().get(&module.hash).cloned();
        let compiled = match known {
            Some(compiled) => compiled,
            None => self.shared.keep(self.shared.first_code(module)?),
        };
        if compiled.tier == Tier::Baseline
            && let Some(background) = &self.background
            && !compiled.requested.swap(true, Ordering::Relaxed)
            && !background.try_add(module.clone())
        {
            compiled.requested.store(false, Ordering::Relaxed);
        }
        Ok(compiled)
    }

    /// Returns when no better code is being made.
    pub(crate) fn wait_until_idle(&self) {
        if let Some(background) = &self.background {
            background.wait_until_idle();
        }
    }
}

impl Shared {
    fn compiled(&self) -> MutexGuard<'_, CompiledModules> {
        Lock::Modules.take(self.compiled.try_lock(), || self.compiled.lock())
    }

    /// The tiers in the order in which they are tried: what one cannot compile the other does, so that a module is
    /// refused by both or by none.
    fn order(&self) -> impl Iterator<Item = &TierEngine> {
        let (first, second) = match self.tiers {
            Tiers::Both | Tiers::Baseline => (self.baseline.as_ref(), Some(&self.optimised)),
            Tiers::Optimised => (Some(&self.optimised), self.baseline.as_ref()),
        };
        first.into_iter().chain(second)
    }

    /// Code that is there soonest.
    fn first_code(&self, module: &CanisterModule) -> Result<Compiled, NoCode> {
        if let Some(compiled) = self.order().find_map(|tier| load(tier, module)) {
            return Ok(compiled);
        }
        let refused = |error: UserError| NoCode::Refused((error, refusal_charge(&module.bytes)));
        let wasm = module::decode(&module.bytes).map_err(|error| refused(error.error))?;
        let validated = module::validate(&wasm).map_err(|error| refused(error.error))?;
        let mut error = None;
        for tier in self.order() {
            match compile(tier, module, &validated, self.profiled) {
                Ok(compiled) => return Ok(compiled),
                Err(NotCompiled::Host(error)) => return Err(NoCode::Host(error)),
                Err(NotCompiled::Refused(refusal)) => error = Some(refusal),
            }
        }
        Err(refused(error.unwrap_or_else(|| engine_error("no compiler"))))
    }

    /// Keeps new code, unless better code came in the meantime. Returns what is kept.
    fn keep(&self, compiled: Compiled) -> Arc<Compiled> {
        let mut cache = self.compiled();
        match cache.get(&compiled.hash) {
            Some(kept) if kept.tier >= compiled.tier => kept.clone(),
            _ => {
                if let Some(map) = &self.perf_map {
                    map.add(&compiled);
                }
                if let Some(dump) = &self.jitdump {
                    dump.add(&compiled);
                }
                let compiled = Arc::new(compiled);
                cache.push(compiled.hash, compiled.clone());
                compiled
            }
        }
    }

    /// Replaces baseline code by optimised code. Where that fails the baseline code stays.
    fn improve(&self, module: &CanisterModule) {
        let known = self.compiled().peek(&module.hash).map(|compiled| compiled.tier);
        if known != Some(Tier::Baseline) {
            return;
        }
        let Ok(wasm) = module::decode(&module.bytes) else {
            return;
        };
        let Ok(validated) = module::validate(&wasm) else { return };
        if let Ok(compiled) = compile(&self.optimised, module, &validated, self.profiled) {
            self.keep(compiled);
        }
    }
}

/// The threads on which functions are compiled in the background: half as many as the host has cores. Were they those that
/// the process shares, baseline code and the certified tree, which are made there while a round waits, would stand in line
/// behind seconds of optimising. `None` where the system gives no thread.
fn compiler_threads() -> Option<ThreadPool> {
    ThreadPoolBuilder::new()
        .num_threads((rayon::current_num_threads() / 2).max(1))
        .thread_name(|number| format!("optimiser-{number}"))
        .build()
        .ok()
}

/// A module that was prepared before.
fn load(tier: &TierEngine, module: &CanisterModule) -> Option<Compiled> {
    let (machine, facts) = tier.disk.as_ref()?.load(&tier.engine, &module.hash)?;
    let prepared = DiskCache::facts(&facts)?;
    Compiled::new(module.hash, &prepared, &machine, tier).ok()
}

/// Why one compiler has no code of a module.
enum NotCompiled {
    Refused(UserError),
    Host(wasmtime::Error),
}

impl From<module::WasmError> for NotCompiled {
    fn from(error: module::WasmError) -> Self {
        Self::Refused(error.error)
    }
}

fn compile(
    tier: &TierEngine,
    module: &CanisterModule,
    validated: &ValidatedModule<'_>,
    profiled: bool,
) -> Result<Compiled, NotCompiled> {
    let mut instrumented = module::instrument(validated, tier.tracking, tier.tier.code_style())?;
    if profiled {
        module::add_events(&mut instrumented, validated.width())?;
    }
    let prepared = Prepared::new(validated.interface(), &instrumented);
    // Compiling depends on the module alone, so that its refusal is an answer; what comes after it asks the host for
    // memory that can be executed, which another host may have.
    let code = tier.engine.precompile_module(&instrumented.wasm);
    let code = code.map_err(|error| NotCompiled::Refused(engine_error(format_args!("{error:#}"))))?;
    // SAFETY: the bytes are what this engine has just made.
    let machine = unsafe { Module::deserialize(&tier.engine, &code) }.map_err(NotCompiled::Host)?;
    if let Some(disk) = &tier.disk {
        disk.store(&code, &module.hash, &prepared);
    }
    let compiled = Compiled::new(module.hash, &prepared, &machine, tier);
    compiled.map_err(|error| NotCompiled::Refused(engine_error(format_args!("{error:#}"))))
}

fn engine_error(error: impl std::fmt::Display) -> UserError {
    let refused = module::WasmError::engine(error).error;
    debug_assert_eq!(refused.code, ErrorCode::CanisterWasmEngineError);
    refused
}
