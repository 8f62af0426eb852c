//! One message through the engine.

use crate::BenchError;
use crate::measure::{Effort, Figure, seconds};
use replicore_engine::{
    Call, CallContextView, CanisterModule, Engine, EngineConfig, EntryPoint, Execute, ExecutionOutcome, ExecutionState,
    InstructionLimits, MemoryView, SystemView, WorkDone,
};
use replicore_types::limits::{LOG_BYTES_DEFAULT, MESSAGE_INSTRUCTIONS_MAX, SLICE_INSTRUCTIONS_MAX};
use replicore_types::{
    CallContextId, CallbackId, CanisterId, Cycles, NumBytes, NumInstructions, Payload, PrincipalId, SubnetConfig,
    SubnetId, SubnetType, Time,
};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Host calls in one message.
const HOST_CALLS: u64 = 1_000_000;
/// Heap pages that `touch_and_trap` writes.
const PAGES_TOUCHED: u64 = 64;
const HEAP_WASM_PAGES: u64 = 4_096;
/// 10 GiB.
const STABLE_WASM_PAGES: u64 = 163_840;
/// Canisters of the Zipf measurement, and what its pools hold.
const FLEET: u64 = 10_000;
/// Canisters whose indices differ by this share the slots of the engine's pool.
const SHARDS: u64 = 16;

/// Loops `$left` times over `body`.
fn repeated(name: &str, body: &str) -> String {
    format!(
        r#"(func (export "canister_update {name}") (local $left i32)
             (local.set $left (i32.const {HOST_CALLS}))
             (loop $again
               {body}
               (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
             (call $reply))"#
    )
}

/// The canister of these measurements. Its argument is a random number that pages are chosen with.
fn module(heap_wasm_pages: u64) -> String {
    let host_calls = repeated("host_calls", "(drop (call $caller_size))");
    let host_copies = repeated(
        "host_copies",
        "(call $argument_copy (i32.const 0) (i32.const 0) (i32.const 1024))",
    );
    let heap_pages = heap_wasm_pages * 16;
    let page_mask = heap_pages - 1;
    format!(
        r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "msg_caller_size" (func $caller_size (result i32)))
    (import "ic0" "msg_arg_data_copy" (func $argument_copy (param i32 i32 i32)))
    (import "ic0" "trap" (func $trap (param i32 i32)))
    (import "ic0" "stable64_grow" (func $stable_grow (param i64) (result i64)))
    (import "ic0" "stable64_write" (func $stable_write (param i64 i64 i64)))
    (memory {heap_wasm_pages})
    (func $next (param $seed i64) (result i64)
        (i64.add (i64.mul (local.get $seed) (i64.const 6364136223846793005)) (i64.const 1442695040888963407)))
    (func $seed (result i64)
        (call $argument_copy (i32.const 0) (i32.const 0) (i32.const 8)) (i64.load (i32.const 0)))
    (func $write_pages (param $count i32) (local $seed i64)
        (local.set $seed (call $seed))
        (loop $again
            (local.set $seed (call $next (local.get $seed)))
            (i64.store
                (i32.shl (i32.and (i32.wrap_i64 (i64.shr_u (local.get $seed) (i64.const 33))) (i32.const {page_mask}))
                         (i32.const 12))
                (local.get $seed))
            (br_if $again (local.tee $count (i32.sub (local.get $count) (i32.const 1))))))
    (func (export "canister_update noop") (call $reply))
    (func (export "canister_update write5")
        (call $write_pages (i32.const 5)) (call $append (i32.const 0) (i32.const 32)) (call $reply))
    (func (export "canister_update touch")
        (if (i32.eqz (i32.load8_u (i32.const 65535))) (then (call $write_pages (i32.const 1)) (call $reply))))
    (func (export "canister_update trap_only") (call $trap (i32.const 0) (i32.const 0)))
    (func (export "canister_update touch_and_trap") (local $page i32)
        (loop $again
            (i64.store offset=4096 (i32.shl (local.get $page) (i32.const 12)) (i64.const -1))
            (br_if $again (i32.lt_u (local.tee $page (i32.add (local.get $page) (i32.const 1)))
                                    (i32.const {PAGES_TOUCHED}))))
        (call $trap (i32.const 0) (i32.const 0)))
    (func (export "canister_update fill") (local $page i32)
        (loop $again
            (i32.store (i32.shl (local.get $page) (i32.const 12)) (i32.add (local.get $page) (i32.const 1)))
            (br_if $again (i32.lt_u (local.tee $page (i32.add (local.get $page) (i32.const 1)))
                                    (i32.const {heap_pages}))))
        (call $reply))
    (func (export "canister_update exhaust") (loop $again (br $again)))
    (func (export "canister_update spin") (local $left i32)
        (local.set $left (i32.const 1000000))
        (loop $again (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (call $reply))
    (func (export "canister_update stable_grow")
        (drop (call $stable_grow (i64.const {STABLE_WASM_PAGES}))) (call $reply))
    (func (export "canister_update stable_write")
        (call $stable_write
            (i64.mul (i64.and (i64.shr_u (call $next (call $seed)) (i64.const 33)) (i64.const 4095))
                     (i64.const {stable_stride}))
            (i64.const 0) (i64.const 8))
        (call $reply))
    {host_calls} {host_copies})"#,
        stable_stride = STABLE_WASM_PAGES * 16,
    )
}

struct Canister {
    engine: Arc<Engine>,
    state: ExecutionState,
    view: SystemView,
    /// Makes arguments that differ from call to call and not from run to run.
    calls: u64,
    limits: InstructionLimits,
    /// The state after installation.
    empty: ExecutionState,
}

/// `engine.noop_update_us`: `Engine::execute` of an update that replies nothing.
pub fn noop_update(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new(1)?;
    let messages = effort.scale(20_000);
    let samples = effort.samples(|| Ok(canister.microseconds("noop", messages)))?;
    Ok(vec![Figure::of(
        "engine.noop_update_us",
        "us",
        samples,
        canister.root(),
    )])
}

/// `engine.host_call_ns`: one `ic0.msg_caller_size` in a loop of a million.
pub fn host_call(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    host_calls(effort, "engine.host_call_ns", "host_calls")
}

/// `engine.host_copy_1k_ns`: one `ic0.msg_arg_data_copy` of 1 KiB in a loop of a million.
pub fn host_copy(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    host_calls(effort, "engine.host_copy_1k_ns", "host_copies")
}

fn host_calls(effort: &Effort, id: &'static str, method: &str) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new(1)?;
    let samples = effort.samples(|| {
        let elapsed = canister.microseconds(method, 1);
        Ok(elapsed / HOST_CALLS as f64 * 1e3)
    })?;
    Ok(vec![Figure::of(id, "ns", samples, canister.root())])
}

/// `engine.write5_random_pages_us`: an update that reads its argument, writes 8 bytes into each of 5 random pages of a
/// 256 MiB heap and replies 32 bytes, less the no-op of the same canister. The heap is written once before.
pub fn write_five_pages(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new(if effort.is_smoke() { 256 } else { HEAP_WASM_PAGES })?;
    canister.update("fill")?;
    let messages = effort.scale(4_000);
    let samples = effort.samples(|| {
        let noop = canister.microseconds("noop", messages);
        Ok(canister.microseconds("write5", messages) - noop)
    })?;
    let root = canister.root();
    Ok(vec![Figure::of("engine.write5_random_pages_us", "us", samples, root)])
}

/// `engine.trap_rollback_page_us`: what each of 64 written heap pages adds to a message that ends in `ic0.trap`;
/// `engine.trap_host_us` and `engine.trap_exhausted_us`: what the trap itself and running out of instructions add to a
/// no-op.
pub fn traps(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new(16)?;
    let messages = effort.scale(2_000);
    let samples = effort.samples(|| {
        let noop = canister.microseconds("noop", messages);
        let trap = canister.microseconds("trap_only", messages);
        let touched = canister.microseconds("touch_and_trap", messages);
        let exhausted = canister.with_limits(1_000, 1_000, |canister| canister.microseconds("exhaust", messages));
        Ok((
            (touched - trap) / PAGES_TOUCHED as f64,
            (trap - noop).max(0.0),
            (exhausted - noop).max(0.0),
        ))
    })?;
    let figure = |id, value: fn(&(f64, f64, f64)) -> f64| {
        Figure::of(id, "us", samples.iter().map(value).collect(), canister.root())
    };
    Ok(vec![
        figure("engine.trap_rollback_page_us", |sample| sample.0),
        figure("engine.trap_host_us", |sample| sample.1),
        figure("engine.trap_exhausted_us", |sample| sample.2),
    ])
}

/// `engine.stable_single_write_us`: an update that writes 8 bytes into one of 4,096 pages spread over 10 GiB of stable
/// memory, less the no-op. The pages are written before, so that the process has their memory already.
pub fn stable_write(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new(1)?;
    canister.update("stable_grow")?;
    let messages = effort.scale(4_000);
    canister.microseconds("stable_write", effort.scale(20_000));
    let samples = effort.samples(|| {
        let noop = canister.microseconds("noop", messages);
        Ok(canister.microseconds("stable_write", messages) - noop)
    })?;
    let root = hex::encode(canister.state.stable.pages.digest());
    Ok(vec![Figure::of("engine.stable_single_write_us", "us", samples, root)])
}

/// `engine.slice_resume_us`: pausing an execution at the end of its slice and going on with it, from the same work done
/// in about 1,000 slices and in one.
pub fn slice_resume(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new(1)?;
    let instructions = canister.update("spin")?.instructions.0;
    let samples = effort.samples(|| {
        let (whole, _) = timed_spin(&mut canister, MESSAGE_INSTRUCTIONS_MAX)?;
        let (sliced, slices) = timed_spin(&mut canister, instructions / 300)?;
        Ok((sliced - whole).max(0.0) / f64::from(slices.max(2) - 1))
    })?;
    Ok(vec![Figure::of(
        "engine.slice_resume_us",
        "us",
        samples,
        canister.root(),
    )])
}

fn timed_spin(canister: &mut Canister, slice: u64) -> Result<(f64, u32), BenchError> {
    canister.with_limits(MESSAGE_INSTRUCTIONS_MAX, slice, |canister| {
        let (elapsed, done) = seconds(|| canister.update("spin"));
        Ok((elapsed * 1e6, done?.stats.slices))
    })
}

/// `engine.cold_1gib_first_message_us`: the first message of a canister with a 1 GiB heap, all of it written, on an
/// engine that holds no instance of it; the message writes one page. Beside it, the second message.
pub fn cold_heap(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let wasm_pages = if effort.is_smoke() { 256 } else { 16_384 };
    let mut canister = Canister::with_engine(engine(1)?, wasm_pages)?;
    canister.update("fill")?;
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    effort.samples(|| {
        canister.make_cold()?;
        cold.push(canister.microseconds("write5", 1));
        warm.push(canister.microseconds("write5", 1));
        Ok(())
    })?;
    let root = canister.root();
    Ok(vec![
        Figure::of("engine.cold_1gib_first_message_us", "us", cold, root).against("second_message", warm),
    ])
}

/// `engine.zipf_update_us`: an update that writes one page, to one of 10,000 canisters drawn by a Zipf law with
/// exponent 1, with 500 warm slots; beside it other numbers of slots, for the plot.
pub fn zipf(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let fleet = if effort.is_smoke() { 200 } else { FLEET };
    let messages = effort.scale(20_000);
    let slots = [
        ("slots_50", 50),
        ("slots_200", 200),
        ("slots_500", 500),
        ("slots_2000", 2_000),
        ("slots_10000", 10_000),
    ];
    let mut fleets = Vec::new();
    for (name, slots) in slots {
        fleets.push((name, Fleet::new(fleet, slots)?, Vec::new()));
    }
    effort.samples(|| {
        for (_, fleet, samples) in &mut fleets {
            samples.push(fleet.microseconds(messages)?);
        }
        Ok(())
    })?;
    let root = fleets[0].1.root();
    if fleets.iter().any(|(_, fleet, _)| fleet.root() != root) {
        return Err(BenchError::new("the number of warm slots changed a result"));
    }
    let main = fleets[2].2.clone();
    let figure = Figure::of("engine.zipf_update_us", "us", main, root);
    Ok(vec![fleets.into_iter().fold(figure, |figure, (name, _, samples)| {
        figure.against(name, samples)
    })])
}

/// Canisters with the same module, called with the frequencies of a Zipf law.
struct Fleet {
    canister: Canister,
    states: Vec<ExecutionState>,
    /// Cumulative weights by rank.
    cumulative: Vec<f64>,
    random: u64,
}

impl Fleet {
    fn new(canisters: u64, slots: usize) -> Result<Self, BenchError> {
        let canister = Canister::with_engine(engine(slots)?, 16)?;
        let mut total = 0.0;
        Ok(Self {
            states: (0..canisters).map(|_| canister.state.clone()).collect(),
            cumulative: (1..=canisters)
                .map(|rank| {
                    total += 1.0 / rank as f64;
                    total
                })
                .collect(),
            canister,
            random: 1,
        })
    }

    fn next(&mut self) -> usize {
        self.random = mixed(self.random);
        let total = self.cumulative.last().copied().unwrap_or(1.0);
        let point = (self.random >> 11) as f64 / (1_u64 << 53) as f64 * total;
        self.cumulative.partition_point(|&below| below <= point)
    }

    fn microseconds(&mut self, messages: u64) -> Result<f64, BenchError> {
        let (elapsed, result) = seconds(|| -> Result<(), BenchError> {
            for _ in 0..messages {
                let index = self.next().min(self.states.len() - 1);
                self.canister.view.canister_id = CanisterId::from_index(index as u64);
                std::mem::swap(&mut self.canister.state, &mut self.states[index]);
                let done = self.canister.update("touch");
                std::mem::swap(&mut self.canister.state, &mut self.states[index]);
                done?;
            }
            Ok(())
        });
        result?;
        Ok(elapsed / messages as f64 * 1e6)
    }

    fn root(&self) -> String {
        let mut hasher = Sha256::new();
        for state in &self.states {
            hasher.update(state.heap.pages.digest());
        }
        hex::encode(hasher.finalize())
    }
}

fn mixed(number: u64) -> u64 {
    number
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407)
}

fn engine(warm_canisters_max: usize) -> Result<Arc<Engine>, BenchError> {
    let config = EngineConfig {
        warm_canisters_max,
        ..EngineConfig::default()
    };
    Ok(Arc::new(Engine::new(config).map_err(BenchError::new)?))
}

impl Canister {
    fn new(heap_wasm_pages: u64) -> Result<Self, BenchError> {
        Self::with_engine(engine(1_000)?, heap_wasm_pages)
    }

    fn with_engine(engine: Arc<Engine>, heap_wasm_pages: u64) -> Result<Self, BenchError> {
        let wasm = wat::parse_str(module(heap_wasm_pages)).map_err(BenchError::new)?;
        let module = CanisterModule {
            hash: Sha256::digest(&wasm).into(),
            bytes: wasm.into(),
        };
        let prepared = engine.prepare(&module, SubnetType::Application);
        let state = prepared.map_err(|(error, _)| BenchError::new(error))?.initial;
        let mut canister = Self {
            engine,
            empty: state.clone(),
            state,
            view: view(),
            calls: 0,
            limits: InstructionLimits {
                message: NumInstructions(MESSAGE_INSTRUCTIONS_MAX),
                slice: NumInstructions(SLICE_INSTRUCTIONS_MAX),
            },
        };
        canister.engine.finish_compiling();
        canister.update("noop")?;
        Ok(canister)
    }

    /// Executes one update to its end, with a random number and zeros for an argument.
    fn execute(&mut self, method: &str) -> WorkDone {
        self.calls = mixed(self.calls);
        let mut argument = [0; 1024];
        argument[..8].copy_from_slice(&self.calls.to_le_bytes());
        self.execute_with(method, Payload::from(&argument[..]))
    }

    fn execute_with(&mut self, method: &str, argument: Payload) -> WorkDone {
        let call = Call {
            entry_point: EntryPoint::Update {
                method: method.into(),
                argument,
            },
            caller: PrincipalId::anonymous(),
            caller_info: None,
            call_context: CallContextView {
                id: Some(CallContextId(1)),
                ..CallContextView::default()
            },
            message_id: None,
            view: &self.view,
        };
        let mut outcome = self.engine.execute(&mut self.state, call, self.limits);
        loop {
            match outcome {
                ExecutionOutcome::Finished(done) => return *done,
                ExecutionOutcome::Paused(paused) => outcome = self.engine.resume(&mut self.state, paused),
            }
        }
    }

    /// The same for an update that must end well.
    fn update(&mut self, method: &str) -> Result<WorkDone, BenchError> {
        let done = self.execute(method);
        match &done.result {
            Ok(_) => Ok(done),
            Err(failure) => Err(BenchError::new(&failure.error)),
        }
    }

    /// Microseconds of one update, as the mean of `messages` ones, whether they end well or not.
    fn microseconds(&mut self, method: &str, messages: u64) -> f64 {
        let (elapsed, ()) = seconds(|| {
            for _ in 0..messages {
                std::hint::black_box(self.execute(method));
            }
        });
        elapsed / messages as f64 * 1e6
    }

    /// Leaves the engine with the module's code and no instance of the canister: the only slot of a shard goes to another
    /// canister with the same module.
    fn make_cold(&mut self) -> Result<(), BenchError> {
        let before = self.view.canister_id;
        self.view.canister_id = CanisterId::from_index(SHARDS);
        let other = ExecutionState {
            heap: self.empty.heap.clone(),
            globals: self.empty.globals.clone(),
            warm_version: 0,
            ..self.state.clone()
        };
        let state = std::mem::replace(&mut self.state, other);
        let result = self.update("noop");
        self.state = state;
        self.view.canister_id = before;
        result.map(drop)
    }

    fn with_limits<T>(&mut self, message: u64, slice: u64, work: impl FnOnce(&mut Self) -> T) -> T {
        let limits = InstructionLimits {
            message: NumInstructions(message),
            slice: NumInstructions(slice),
        };
        let before = std::mem::replace(&mut self.limits, limits);
        let result = work(self);
        self.limits = before;
        result
    }

    fn root(&self) -> String {
        hex::encode(self.state.heap.pages.digest())
    }
}

/// What a canister with plenty of everything sees.
pub(crate) fn view() -> SystemView {
    SystemView {
        canister_id: CanisterId::from_index(0),
        controllers: Arc::new(BTreeSet::new()),
        status: 1,
        version: 1,
        time: Time(1_600_000_000_000_000_000),
        balance: Cycles(1 << 80),
        reserved_balance: Cycles::ZERO,
        reserved_balance_limit: None,
        freezing_threshold_seconds: 2_592_000,
        compute_allocation_percent: 0,
        memory: MemoryView {
            subnet_available_memory: NumBytes(1 << 40),
            ..MemoryView::default()
        },
        certified_data: Payload::default(),
        global_timer: None,
        environment_variables: Arc::new(BTreeMap::new()),
        free_slots: Arc::new(BTreeMap::new()),
        next_callback_id: CallbackId(1),
        log_next_index: 0,
        log_bytes_max: LOG_BYTES_DEFAULT,
        subnet_id: SubnetId(PrincipalId::management_canister()),
        root_key: Arc::from(&[0; 133][..]),
        subnet: SubnetConfig::default(),
    }
}
