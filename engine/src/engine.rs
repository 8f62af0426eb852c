//! The engine: from a call to its outcome.

use crate::instance::{
    Compiled, Entry, ForPerf, HeapChanges, Instance, InstancePool, MAPPINGS_PER_INSTANCE, Mappings, ModuleCache,
    NoCode, Refusal, Tiers,
};
use crate::meter::Meter;
use crate::module::{FunctionNames, WriteTracking, symbols};
use crate::profile::{Ending, Profile, Recorder};
use crate::stable_memory::StableMemory;
use crate::system_api::{self, HostState, MessageState, Mode, Running};
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
    /// Memory mappings that instances take together, of which each needs four: idle ones make room for one more. See
    /// [`EngineConfig::within_mappings`].
    pub mappings_max: u64,
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
            mappings_max: u64::MAX,
            profile: false,
            perf_map: false,
            jitdump: false,
            cache_folder: None,
        }
    }
}

impl EngineConfig {
    /// The same within a process that may have `process_max` memory mappings (`vm.max_map_count` on Linux): instances take
    /// half of them at most, and warm ones leave an eighth of that half to those that execute. The other half is for cold
    /// heaps that come in piece by piece, for files, threads and the allocator.
    pub fn within_mappings(self, process_max: u64) -> Self {
        let mappings_max = (process_max / 2).min(self.mappings_max);
        let room = mappings_max / MAPPINGS_PER_INSTANCE / 8 * 7;
        let for_queries = self.warm_query_canisters_max as u64 * self.query_instances_per_canister_max as u64;
        let wanted = self.warm_canisters_max as u64 + for_queries;
        let cut = |canisters: usize| match wanted > room {
            true => (canisters as u128 * u128::from(room) / u128::from(wanted)) as usize,
            false => canisters,
        };
        Self {
            warm_canisters_max: cut(self.warm_canisters_max),
            warm_query_canisters_max: cut(self.warm_query_canisters_max),
            mappings_max,
            ..self
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
    #[cfg(test)]
    mappings: Arc<Mappings>,
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
        let mappings = Mappings::new(config.mappings_max);
        let modules = if config.profile {
            ModuleCache::profiled(config.write_tracking, config.modules_max, &mappings)
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
                &mappings,
            )
        };
        Ok(Self {
            modules: modules.map_err(error)?,
            instances_made: AtomicU64::new(0),
            #[cfg(test)]
            mappings,
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

    /// An instance that holds `state`, and where it goes afterwards.
    fn instance(&self, state: &ExecutionState, canister: CanisterId, mode: Mode) -> Result<Found, NoCode> {
        let pool = self.pool(mode);
        let place = |warm| Place { canister, mode, warm };
        if let Some(mut instance) = pool.take_ready(canister, state) {
            instance.bring_to(state).map_err(NoCode::Host)?;
            return Ok((instance, place(true)));
        }
        let compiled = self.modules.get(&state.module)?;
        if let Some(mut instance) = pool.take(canister, state, &compiled) {
            let warm = instance.holds(state.warm_version);
            instance.bring_to(state).map_err(NoCode::Host)?;
            return Ok((instance, place(warm)));
        }
        self.instances_made.fetch_add(1, Ordering::Relaxed);
        let made = Instance::new(compiled, state).map_err(NoCode::Host)?;
        Ok((Box::new(made), place(false)))
    }

    /// Calls `ask` until the host has given what it needs, with fewer warm instances each time.
    fn with_room<T>(&self, mut ask: impl FnMut() -> Result<T, NoCode>) -> Result<T, Refusal> {
        let mut room = Room::default();
        loop {
            match ask() {
                Ok(given) => return Ok(given),
                Err(NoCode::Refused(refusal)) => return Err(refusal),
                Err(NoCode::Host(error)) => room.make(self, &error),
            }
        }
    }

    /// Executes so many slices of a message from its start. What the host refuses on the way is no outcome: the message
    /// begins again once warm instances have made room.
    fn execute_slices(&self, canister: &mut ExecutionState, message: MessageState, work: Work) -> ExecutionOutcome {
        let mut attempt = self.attempt(canister, message, work);
        let mut room = Room::default();
        loop {
            match attempt {
                Ok(outcome) => return outcome,
                Err(refused) => {
                    room.make(self, &refused.error);
                    attempt = self.attempt(canister, refused.message, refused.work);
                }
            }
        }
    }

    fn attempt(&self, canister: &mut ExecutionState, message: MessageState, work: Work) -> Attempt {
        let entry = match Target::of(&message.entry_point, canister) {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(finished_at_once(Ok(None))),
            Err(failure) => return Ok(finished_at_once(Err(failure))),
        };
        self.name_version(canister);
        let mode = message.mode;
        let found = self.with_room(|| self.instance(canister, message.view.canister_id, mode));
        let (mut instance, at) = match found {
            Ok(found) => found,
            Err((error, _)) => return Ok(finished_with(Err(ExecutionError { error, log: None }))),
        };
        let entry = match entry.resolve(&mut instance) {
            Ok(entry) => entry,
            Err(failure) => {
                self.pool(mode).put(at.canister, instance);
                return Ok(finished_at_once(Err(failure)));
            }
        };
        let profiles = self.profile.is_some();
        let recorder = profiles.then(|| Box::new(Recorder::new(&message.entry_point)));
        let meter = match mode.is_replicated() {
            true => Meter::new(work.limits),
            false => Meter::yielding(work.limits),
        };
        instance.begin(message, meter, StableMemory::new(&canister.stable), recorder);
        let future = Box::pin(async move {
            let result = instance.run(entry).await;
            (instance, result)
        });
        let limits = work.limits;
        let mut outcome = self.go_on(canister, InFlight { future, at, limits })?;
        for _ in 1..work.slices {
            match outcome {
                ExecutionOutcome::Paused(paused) => outcome = self.go_on(canister, InFlight::of(paused))?,
                ExecutionOutcome::Finished(_) => break,
            }
        }
        Ok(outcome)
    }

    /// Polls a message until it ends or pauses.
    fn go_on(&self, state: &mut ExecutionState, mut message: InFlight) -> Attempt {
        match message.future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {
                let paused = PausedExecution::new(Box::new(message), system_api::paused_at());
                Ok(ExecutionOutcome::Paused(paused))
            }
            Poll::Ready((mut instance, result)) => {
                if let Err(error) = &result
                    && instance.was_refused(error)
                {
                    return Err(Refused::of(instance, result, message.limits));
                }
                let done = self.finish(state, instance, result, message.at);
                Ok(ExecutionOutcome::Finished(Box::new(done)))
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
        let compiled = self.with_room(|| self.modules.get(module))?;
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
        let message = MessageState::new(call, canister.interface.width);
        self.execute_slices(canister, message, Work { limits, slices: 1 })
    }

    fn resume(&self, canister: &mut ExecutionState, paused: PausedExecution) -> ExecutionOutcome {
        match self.go_on(canister, InFlight::of(paused)) {
            Ok(outcome) => outcome,
            Err(refused) => {
                Room::default().make(self, &refused.error);
                self.execute_slices(canister, refused.message, refused.work)
            }
        }
    }
}

/// An instance for a message, and where it belongs.
type Found = (Box<Instance>, Place);

/// What became of a message, unless the host refused what it needed.
type Attempt = Result<ExecutionOutcome, Box<Refused>>;

/// How much of a message is executed.
#[derive(Clone, Copy)]
struct Work {
    limits: InstructionLimits,
    /// Slices from the start of the message.
    slices: u32,
}

/// A message that the host had no room for. Nothing of it is left but what it began with.
struct Refused {
    error: wasmtime::Error,
    message: MessageState,
    /// What has to be executed again, the slice that was refused included.
    work: Work,
}

impl Refused {
    #[cold]
    fn of(mut instance: Box<Instance>, result: wasmtime::Result<()>, limits: InstructionLimits) -> Box<Self> {
        let slices = instance.slices();
        Box::new(Self {
            error: result
                .err()
                .unwrap_or_else(|| wasmtime::Error::msg("the host refused nothing")),
            message: instance.take_running().message.again(),
            work: Work { limits, slices },
        })
    }
}

/// What is given up for a message, so that the host has room.
#[derive(Default)]
struct Room {
    /// Nothing was left to give up; others may have given up theirs.
    was_last: bool,
}

impl Room {
    /// Drops warm instances, of each part of the pools the one that was not used for longest.
    ///
    /// # Panics
    /// Where there is none left. What a host has room for must decide no result: the replica stops, as it does where a
    /// disk is full, and answers nothing.
    #[cold]
    fn make(&mut self, engine: &Engine, refused: &wasmtime::Error) {
        let is_last = engine.warm.drop_oldest() + engine.queries.drop_oldest() == 0;
        assert!(
            !(is_last && self.was_last),
            "the host has no room for the instance of a canister, and no warm one is left to give up: {refused:#}. The \
             limits of the process on memory and on mappings (vm.max_map_count) are too low for what executes"
        );
        self.was_last = is_last;
    }
}

/// Runs to the end of the message and gives its instance back.
type MessageFuture = Pin<Box<dyn Future<Output = (Box<Instance>, wasmtime::Result<()>)> + Send>>;

/// A message between slices, with its instance and its stack.
struct InFlight {
    future: MessageFuture,
    at: Place,
    limits: InstructionLimits,
}

impl InFlight {
    /// The message that an engine paused.
    fn of(paused: PausedExecution) -> Self {
        let message = paused.into_state().downcast::<Self>();
        *message.expect("a paused message goes on where it was paused")
    }
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
            Self::Export(prefix, name) => {
                let export = instance.export(prefix, name);
                Ok(export.expect("a module exports what its interface names"))
            }
            Self::Closure(closure) => instance.closure(*closure),
        }
    }
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
        // What is no trap was refused by the host, and never comes here.
        Some(_) | None => Failure::Trapped(TrapCode::Other),
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

#[cfg(test)]
mod tests;
