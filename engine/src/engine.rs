//! The engine: from a call to its outcome.

use crate::instance::{Compiled, Entry, ForPerf, HeapChanges, Instance, InstancePool, ModuleCache, Tiers};
use crate::meter::Meter;
use crate::module::{FunctionNames, WriteTracking, symbols};
use crate::profile::{Ending, Profile, Recorder};
use crate::stable_memory::StableMemory;
use crate::system_api::{self, HostState, MessageState, Mode, Progress, Running};
use crate::trap::{self, Failure, TrapCode};
use crate::{
    Call, CanisterModule, EntryPoint, Execute, ExecutionError, ExecutionOutcome, ExecutionState, ExecutionStats,
    InstructionLimits, MethodKind, PausedExecution, PreparedModule, SystemChanges, WorkDone,
};
use parking_lot::Mutex;
use replicore_types::fees::WasmWidth;
use replicore_types::{CanisterId, NumInstructions, SubnetType, UserError};
use std::future::Future;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use wasmtime::{Trap, WasmBacktrace};

/// Instructions for a heap page whose content changed.
const PAGE_CHANGED: u64 = 1_000;
/// The same for wasm64 modules.
const PAGE_CHANGED_WASM64: u64 = 4_000;

/// Heap pages up to which a query instance counts as warm whatever changed since its last query: 8 MiB, copied within a
/// millisecond.
const BRING_FORWARD_PAGES_MAX: u64 = 2_048;

/// Bounds of one engine. No result depends on them.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Compiled modules kept in memory.
    pub modules_max: NonZeroUsize,
    /// Canisters whose instance is kept warm for replicated messages; with none every message gets a new instance.
    pub warm_canisters_max: usize,
    /// Canisters whose instances are kept warm for queries.
    pub warm_query_canisters_max: usize,
    /// Query instances of one canister, hence queries of one canister that run warm at the same time.
    pub query_instances_per_canister_max: usize,
    /// Which compilers make the code of modules.
    pub tiers: Tiers,
    /// How the pages that a message writes are found.
    pub write_tracking: WriteTracking,
    /// Memory of idle warm instances in bytes, for replicated messages and for queries each.
    pub warm_bytes_max: u64,
    /// Profiles what is executed, see [`Engine::profile`]. Every module is then compiled by the optimising compiler alone,
    /// with events in it, and kept on no disk.
    pub profile: bool,
    /// Writes the names of canister functions where Linux `perf` looks for them: `/tmp/perf-PID.map`, a new file, of which a
    /// process has one.
    pub perf_map: bool,
    /// Writes the code of canister functions for `perf inject --jit`: `/tmp/jit-PID.dump`, likewise.
    pub jitdump: bool,
    /// Folder for machine code, so that modules need not be compiled again after a restart.
    pub cache_folder: Option<PathBuf>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            modules_max: NonZeroUsize::new(1_000).unwrap_or(NonZeroUsize::MIN),
            warm_canisters_max: 1_000,
            warm_query_canisters_max: 500,
            query_instances_per_canister_max: 4,
            tiers: Tiers::Both,
            write_tracking: WriteTracking::Barrier,
            warm_bytes_max: 8 << 30,
            profile: false,
            perf_map: false,
            jitdump: false,
            cache_folder: None,
        }
    }
}

/// Why an engine could not be made: a setting that this machine or the Wasm engine refuses.
#[derive(Debug)]
pub struct EngineError(String);

impl std::fmt::Display for EngineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the Wasm engine cannot start: {}", self.0)
    }
}

impl std::error::Error for EngineError {}

/// Executes messages on wasmtime. Shared by all threads.
pub struct Engine {
    modules: ModuleCache,
    warm: InstancePool,
    queries: InstancePool,
    instances_made: AtomicU64,
    /// Where profiles are asked for.
    profile: Option<Mutex<Profile>>,
}

/// Names versions of canister states; unique in the process.
static NEXT_VERSION: AtomicU64 = AtomicU64::new(1);

fn fresh_version() -> u64 {
    NEXT_VERSION.fetch_add(1, Ordering::Relaxed)
}

impl Engine {
    /// An engine with these bounds.
    ///
    /// # Errors
    /// When the settings do not fit this machine.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        let error = |error: wasmtime::Error| EngineError(format!("{error:#}"));
        let modules = if config.profile {
            ModuleCache::profiled(config.write_tracking, config.modules_max)
        } else {
            let folder = config.cache_folder.clone();
            ModuleCache::new(
                config.tiers,
                config.write_tracking,
                config.modules_max,
                folder,
                ForPerf {
                    map: config.perf_map,
                    jitdump: config.jitdump,
                },
            )
        };
        Ok(Self {
            modules: modules.map_err(error)?,
            instances_made: AtomicU64::new(0),
            profile: config.profile.then(Mutex::default),
            warm: InstancePool::new(config.warm_canisters_max, 1, config.warm_bytes_max),
            queries: InstancePool::new(
                config.warm_query_canisters_max,
                config.query_instances_per_canister_max,
                config.warm_bytes_max,
            ),
        })
    }

    /// Instances that are warm now, for replicated messages and for queries.
    pub fn warm_instances(&self) -> (usize, usize) {
        (self.warm.len(), self.queries.len())
    }

    /// Instances made so far: messages that found none, neither of their canister nor one of the same module to take over.
    pub fn instances_made(&self) -> u64 {
        self.instances_made.load(Ordering::Relaxed)
    }

    /// Returns when no better code is being made in the background: from then on messages run on the best there is.
    pub fn finish_compiling(&self) {
        self.modules.wait_until_idle();
    }

    /// What was profiled so far, where [`EngineConfig::profile`] is set. The same messages give the same profile.
    pub fn profile(&self) -> Option<Profile> {
        self.profile.as_ref().map(|profile| profile.lock().clone())
    }

    /// True where a query of the canister would find an instance that holds `state`, or is brought there by few pages:
    /// executing it then needs no compilation, no instantiation and no long copy.
    pub fn is_warm_for_query(&self, canister: CanisterId, state: &ExecutionState) -> bool {
        self.queries.any(canister, |instance| {
            let few_pages = state.heap.pages.len() <= BRING_FORWARD_PAGES_MAX;
            instance.can_hold(state) && (few_pages || instance.holds(state.warm_version))
        })
    }

    /// Gives the version of a canister's memories a name where it has none, so that warm instances know it again.
    pub fn name_version(&self, state: &mut ExecutionState) {
        if state.warm_version == 0 {
            state.warm_version = fresh_version();
        }
    }

    fn pool(&self, mode: Mode) -> &InstancePool {
        if mode.is_replicated() {
            &self.warm
        } else {
            &self.queries
        }
    }

    /// An instance that holds `state`, and where it goes afterwards; or else what the message ends with.
    fn instance(
        &self,
        state: &ExecutionState,
        canister: CanisterId,
        mode: Mode,
    ) -> Result<(Box<Instance>, Place), ExecutionOutcome> {
        let pool = self.pool(mode);
        let ended = |error| finished_at_once(Err(broken(error)));
        let place = |warm| Place { canister, mode, warm };
        if let Some(mut instance) = pool.take_ready(canister, state) {
            instance.bring_to(state).map_err(ended)?;
            return Ok((instance, place(true)));
        }
        let compiled = self
            .modules
            .get(&state.module)
            .map_err(|(error, _)| finished_with(Err(ExecutionError { error, log: None })))?;
        if let Some(mut instance) = pool.take(canister, state, &compiled) {
            let warm = instance.holds(state.warm_version);
            instance.bring_to(state).map_err(ended)?;
            return Ok((instance, place(warm)));
        }
        self.instances_made.fetch_add(1, Ordering::Relaxed);
        let made = Instance::new(compiled, state).map_err(ended)?;
        Ok((Box::new(made), place(false)))
    }

    /// Polls a message until it ends or pauses.
    fn go_on(&self, state: &mut ExecutionState, mut message: InFlight) -> ExecutionOutcome {
        match message.future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {
                let executed = NumInstructions(message.progress.executed());
                ExecutionOutcome::Paused(PausedExecution::new(Box::new(message), executed))
            }
            Poll::Ready((instance, result)) => {
                ExecutionOutcome::Finished(Box::new(self.finish(state, instance, result, message.at)))
            }
        }
    }

    /// Charges for the pages, then commits or rolls back.
    fn finish(
        &self,
        state: &mut ExecutionState,
        mut instance: Box<Instance>,
        result: wasmtime::Result<()>,
        at: Place,
    ) -> WorkDone {
        let in_code = instance.instructions_executed();
        let changes = instance.heap_changes();
        let for_pages = page_charge(&changes, at.mode, state.interface.width);
        let executed = in_code + for_pages;
        let failed = result.err().map(|error| {
            let compiled = Arc::clone(&instance.compiled);
            describe(instance.running(), error, &compiled)
        });
        let slices = instance.slices();
        let running = instance.running();
        let mut stats = ExecutionStats {
            heap_pages_dirtied: changes.pages.len() as u64,
            stable_pages_dirtied: running.stable.pages_written(),
            warm: at.warm,
            slices,
            reads: running.message.reads,
        };
        if let (Some(profile), Some(recorder)) = (&self.profile, running.recorder.take()) {
            let ending = Ending {
                canister: at.canister,
                executed: in_code,
                page_instructions: for_pages,
                failed: failed.is_some(),
                pages_read: instance.take_pages_read(),
                pages_written: &changes.pages,
                stable_pages_written: stats.stable_pages_dirtied,
            };
            profile
                .lock()
                .add(*recorder, ending, |function| instance.compiled.function_label(function));
        }
        let running = instance.running();
        let stable = std::mem::take(&mut running.stable);
        let is_kept = failed.is_none() && keeps_state(&running.message);
        let (answer, system_changes) = running.message.take_changes(failed.is_none());
        instance.end();
        let is_reusable = if !is_kept {
            instance.roll_back(&changes)
        } else {
            // The version names stable memory as well: answers to queries are kept under it.
            if stable.has_changed(&state.stable) || instance.has_changed(&changes) {
                instance.commit(&changes, fresh_version(), state);
                stats.stable_pages_dirtied = stable.commit(&mut state.stable);
            } else {
                instance.keep();
            }
            true
        };
        if is_reusable && !instance.compiled.drops_data_segments {
            self.pool(at.mode).put(at.canister, instance);
        }
        WorkDone {
            result: match failed {
                None => Ok(answer),
                Some(error) => Err(error),
            },
            changes: system_changes,
            instructions: NumInstructions(executed),
            stats,
        }
    }
}

impl Execute for Engine {
    fn prepare(
        &self,
        module: &CanisterModule,
        _subnet_type: SubnetType,
    ) -> Result<PreparedModule, (UserError, NumInstructions)> {
        let compiled = self.modules.get(module)?;
        Ok(PreparedModule {
            initial: compiled.initial_state(module, fresh_version()),
            interface: compiled.interface.clone(),
            compile_instructions: compiled.compile_instructions,
            compile_instructions_known: compiled.compile_instructions_known,
        })
    }

    fn declared_width(&self, module: &CanisterModule) -> WasmWidth {
        crate::module::declared_width(&module.bytes)
    }

    fn execute(&self, canister: &mut ExecutionState, call: Call<'_>, limits: InstructionLimits) -> ExecutionOutcome {
        let entry = match Target::of(&call.entry_point, canister) {
            Ok(Some(entry)) => entry,
            Ok(None) => return finished_at_once(Ok(None)),
            Err(failure) => return finished_at_once(Err(failure)),
        };
        self.name_version(canister);
        let mode = Mode::of(&call.entry_point);
        let (mut instance, at) = match self.instance(canister, call.view.canister_id, mode) {
            Ok(found) => found,
            Err(outcome) => return outcome,
        };
        let entry = match entry.resolve(&mut instance) {
            Ok(entry) => entry,
            Err(failure) => {
                self.pool(mode).put(at.canister, instance);
                return finished_at_once(Err(failure));
            }
        };
        let recorder = self
            .profile
            .is_some()
            .then(|| Box::new(Recorder::new(&call.entry_point)));
        let running = Running {
            message: MessageState::new(call, canister.interface.width),
            meter: if mode.is_replicated() {
                Meter::new(limits)
            } else {
                Meter::yielding(limits)
            },
            stable: StableMemory::new(&canister.stable),
            failure: None,
            failed_function: None,
            counter_at_failure: None,
            recorder,
        };
        let progress = match instance.begin(running) {
            Ok(progress) => progress,
            Err(error) => return finished_at_once(Err(broken(error))),
        };
        let future = Box::pin(async move {
            let result = instance.run(entry).await;
            (instance, result)
        });
        self.go_on(canister, InFlight { future, progress, at })
    }

    fn resume(&self, canister: &mut ExecutionState, paused: PausedExecution) -> ExecutionOutcome {
        match paused.into_state().downcast::<InFlight>() {
            Ok(message) => self.go_on(canister, *message),
            Err(_) => finished_at_once(Err(Failure::Engine(
                "the paused message belongs to another engine".into(),
            ))),
        }
    }
}

/// Runs to the end of the message and gives its instance back.
type MessageFuture = Pin<Box<dyn Future<Output = (Box<Instance>, wasmtime::Result<()>)> + Send>>;

/// A message between slices, with its instance and its stack.
struct InFlight {
    future: MessageFuture,
    progress: Progress,
    at: Place,
}

/// Where an instance came from and goes back to.
#[derive(Clone, Copy)]
struct Place {
    canister: CanisterId,
    mode: Mode,
    warm: bool,
}

/// What an entry point names in the module.
enum Target<'a> {
    /// The export whose name is both together.
    Export(&'static str, &'a str),
    Closure(crate::WasmClosure),
}

impl<'a> Target<'a> {
    /// `None` where the module does not export the system entry point: then there is nothing to do.
    fn of(entry_point: &'a EntryPoint, state: &ExecutionState) -> Result<Option<Self>, Failure> {
        let method = |kind: MethodKind, word: &'static str, prefix: &'static str, name: &'a String| {
            if state.interface.method(name) == Some(kind) {
                Ok(Some(Self::Export(prefix, name)))
            } else {
                Err(Failure::MethodNotFound(word, name.clone()))
            }
        };
        let system = |name: &'static str| Ok(state.interface.has(name).then_some(Self::Export(name, "")));
        match entry_point {
            EntryPoint::Start => Ok(state.interface.has("start").then_some(Self::Export(symbols::START, ""))),
            EntryPoint::Init(_) => system("canister_init"),
            EntryPoint::PreUpgrade => system("canister_pre_upgrade"),
            EntryPoint::PostUpgrade(_) => system("canister_post_upgrade"),
            EntryPoint::InspectMessage { .. } => system("canister_inspect_message"),
            EntryPoint::Heartbeat => system("canister_heartbeat"),
            EntryPoint::GlobalTimer => system("canister_global_timer"),
            EntryPoint::OnLowWasmMemory => system("canister_on_low_wasm_memory"),
            EntryPoint::Update { method: name, .. } => method(MethodKind::Update, "update", "canister_update ", name),
            EntryPoint::ReplicatedQuery { method: name, .. } | EntryPoint::Query { method: name, .. } => {
                method(MethodKind::Query, "query", "canister_query ", name)
            }
            EntryPoint::CompositeQuery { method: name, .. } => method(
                MethodKind::CompositeQuery,
                "composite_query",
                "canister_composite_query ",
                name,
            ),
            EntryPoint::Callback { closure, .. } | EntryPoint::Cleanup { closure, .. } => {
                Ok(Some(Self::Closure(*closure)))
            }
        }
    }

    fn resolve(&self, instance: &mut Instance) -> Result<Entry, Failure> {
        match self {
            Self::Export(prefix, name) => instance
                .export(prefix, name)
                .ok_or_else(|| Failure::Engine(format!("the prepared module does not export {prefix}{name}"))),
            Self::Closure(closure) => instance.closure(*closure),
        }
    }
}

/// What the sender of a message reads that the Wasm engine failed.
fn broken(error: wasmtime::Error) -> Failure {
    Failure::Engine(format!("{error:#}"))
}

/// A composite query that made no call has no callback that could see what it wrote.
fn keeps_state(message: &MessageState) -> bool {
    message.mode.keeps_state() && !(message.mode == Mode::CompositeQuery && message.calls.is_empty())
}

/// Changed pages are charged where they may be kept: not in queries, replicated ones included. A message that fails
/// pays for them as well.
fn page_charge(changes: &HeapChanges, mode: Mode, width: WasmWidth) -> u64 {
    if !mode.keeps_state() || !mode.is_replicated() {
        return 0;
    }
    let per_page = match width {
        WasmWidth::Wasm32 => PAGE_CHANGED,
        WasmWidth::Wasm64 => PAGE_CHANGED_WASM64,
    };
    changes.pages.len() as u64 * per_page
}

/// Turns the end of the Wasm code into the error that the sender reads, and logs it where failures are logged.
fn describe(running: &mut Running, error: wasmtime::Error, compiled: &Compiled) -> ExecutionError {
    let (failure, imported) = match running.failure.take() {
        Some(failure) => (failure, running.failed_function),
        None => (trapped(&error), None),
    };
    let backtrace = backtrace(
        &failure,
        &error,
        &compiled.function_names,
        imported.and_then(|name| compiled.import(name)),
    );
    let log = failure.log_text(&backtrace);
    if let Some(text) = &log {
        system_api::trap_record(&mut running.message, text);
    }
    ExecutionError {
        error: failure.user_error(&backtrace),
        log,
    }
}

fn trapped(error: &wasmtime::Error) -> Failure {
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => Failure::Trapped(TrapCode::StackOverflow),
        Some(Trap::MemoryOutOfBounds) => Failure::Trapped(TrapCode::HeapOutOfBounds),
        Some(Trap::TableOutOfBounds) => Failure::Trapped(TrapCode::TableOutOfBounds),
        Some(Trap::IntegerDivisionByZero) => Failure::Trapped(TrapCode::IntegerDivisionByZero),
        Some(Trap::UnreachableCodeReached) => Failure::Trapped(TrapCode::Unreachable),
        Some(Trap::BadSignature) => Failure::contract("function invocation does not match its signature"),
        Some(_) => Failure::Trapped(TrapCode::Other),
        None => Failure::Engine(format!("{error:#}")),
    }
}

fn backtrace(failure: &Failure, error: &wasmtime::Error, names: &FunctionNames, imported: Option<u32>) -> String {
    if !failure.is_logged() {
        return String::new();
    }
    // Production implements stable memory in Wasm: its functions stand in backtraces under their imported names.
    let import = imported.filter(|_| matches!(failure, Failure::Trapped(_)));
    let stack = error
        .downcast_ref::<WasmBacktrace>()
        .map_or(&[][..], WasmBacktrace::frames);
    let indices = import.into_iter().chain(stack.iter().map(|frame| frame.func_index()));
    trap::backtrace_text(indices.filter_map(|index| names.frame(index)))
}

fn finished_at_once(result: Result<Option<replicore_types::WasmResult>, Failure>) -> ExecutionOutcome {
    finished_with(result.map_err(|failure| ExecutionError {
        error: failure.user_error(""),
        log: failure.log_text(""),
    }))
}

/// A message that ended before any code ran.
fn finished_with(result: Result<Option<replicore_types::WasmResult>, ExecutionError>) -> ExecutionOutcome {
    ExecutionOutcome::Finished(Box::new(WorkDone {
        result,
        changes: SystemChanges::default(),
        instructions: NumInstructions(0),
        stats: ExecutionStats::default(),
    }))
}

/// Instances travel between threads with their store.
const fn assert_send<T: Send>() {}
const _: () = assert_send::<HostState>();
