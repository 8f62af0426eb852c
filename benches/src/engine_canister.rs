//! The canister of the engine's measurements, without a scheduler around it.

use crate::BenchError;
use crate::measure::seconds;
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
pub const HOST_CALLS: u64 = 1_000_000;
/// Heap pages that `touch_and_trap` writes.
pub const PAGES_TOUCHED: u64 = 64;
/// Wasm pages of its heap where a large one is asked for: 256 MiB.
pub const HEAP_WASM_PAGES: u64 = 4_096;
/// Pages of stable memory that `stable_write` chooses from.
pub const STABLE_PAGES_WRITTEN: u64 = 4_096;
/// 10 GiB.
const STABLE_WASM_PAGES: u64 = 163_840;
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
pub(crate) fn module(heap_wasm_pages: u64) -> String {
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
    (memory (export "memory") {heap_wasm_pages})
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
    (func (export "canister_update write_many")
        (call $argument_copy (i32.const 8) (i32.const 8) (i32.const 4))
        (call $write_pages (i32.load (i32.const 8))) (call $reply))
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
    (func (export "canister_update argument") (drop (call $seed)) (call $reply))
    (func (export "canister_update stable_write")
        (call $stable_write
            (i64.mul (i64.and (i64.shr_u (call $next (call $seed)) (i64.const 33)) (i64.const {stable_mask}))
                     (i64.const {stable_stride}))
            (i64.const 0) (i64.const 8))
        (call $reply))
    {host_calls} {host_copies})"#,
        stable_stride = STABLE_WASM_PAGES * 16,
        stable_mask = STABLE_PAGES_WRITTEN - 1,
    )
}

/// An engine with this one canister.
pub struct Canister {
    engine: Arc<Engine>,
    /// What the canister is now.
    pub state: ExecutionState,
    /// What it sees of the system.
    pub view: Arc<SystemView>,
    /// Makes arguments that differ from call to call and not from run to run.
    calls: u64,
    limits: InstructionLimits,
    /// The state after installation.
    empty: ExecutionState,
}

impl Canister {
    /// The canister with a heap of so many Wasm pages, a power of two.
    ///
    /// # Errors
    /// Where the engine cannot start.
    pub fn new(heap_wasm_pages: u64) -> Result<Self, BenchError> {
        Self::with_engine(engine(1_000)?, heap_wasm_pages)
    }

    /// The same on this engine, whose code is as good as it gets when this returns.
    ///
    /// # Errors
    /// Where the module is refused.
    pub fn with_engine(engine: Arc<Engine>, heap_wasm_pages: u64) -> Result<Self, BenchError> {
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
            view: Arc::new(view()),
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

    /// Executes one update to its end, with a random number for an argument.
    pub fn execute(&mut self, method: &str) -> WorkDone {
        self.calls = mixed(self.calls);
        self.execute_with(method, Payload::from(&self.calls.to_le_bytes()[..]))
    }

    /// Executes one update that copies an argument of 1 KiB [`HOST_CALLS`] times.
    pub fn copy_arguments(&mut self) -> WorkDone {
        self.execute_with("host_copies", Payload::from(&[0; 1024][..]))
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
    ///
    /// # Errors
    /// What the canister or the engine says.
    pub fn update(&mut self, method: &str) -> Result<WorkDone, BenchError> {
        let done = self.execute(method);
        match &done.result {
            Ok(_) => Ok(done),
            Err(failure) => Err(BenchError::new(&failure.error)),
        }
    }

    /// Executes an update that must end well: it writes 8 bytes into each of so many random pages, and must end well.
    ///
    /// # Errors
    /// What the canister or the engine says.
    pub fn write_pages(&mut self, pages: u32) -> Result<WorkDone, BenchError> {
        self.calls = mixed(self.calls);
        let mut argument = [0; 12];
        argument[..8].copy_from_slice(&self.calls.to_le_bytes());
        argument[8..].copy_from_slice(&pages.to_le_bytes());
        let done = self.execute_with("write_many", Payload::from(&argument[..]));
        match &done.result {
            Ok(_) => Ok(done),
            Err(failure) => Err(BenchError::new(&failure.error)),
        }
    }

    /// Microseconds of one update, as the mean of `messages` ones, whether they end well or not.
    pub fn microseconds(&mut self, method: &str, messages: u64) -> f64 {
        let (elapsed, ()) = seconds(|| {
            for _ in 0..messages {
                std::hint::black_box(self.execute(method));
            }
        });
        elapsed / messages as f64 * 1e6
    }

    /// Leaves the engine with the module's code and no instance of the canister: the only slot of a shard goes to another
    /// canister with the same module.
    ///
    /// # Errors
    /// Where that canister fails.
    pub fn make_cold(&mut self) -> Result<(), BenchError> {
        let before = self.view.canister_id;
        Arc::make_mut(&mut self.view).canister_id = CanisterId::from_index(SHARDS);
        let other = ExecutionState {
            heap: self.empty.heap.clone(),
            globals: self.empty.globals.clone(),
            warm_version: 0,
            ..self.state.clone()
        };
        let state = std::mem::replace(&mut self.state, other);
        let result = self.update("noop");
        self.state = state;
        Arc::make_mut(&mut self.view).canister_id = before;
        result.map(drop)
    }

    /// Lets `work` run under other limits on instructions.
    pub fn with_limits<T>(&mut self, message: u64, slice: u64, work: impl FnOnce(&mut Self) -> T) -> T {
        let limits = InstructionLimits {
            message: NumInstructions(message),
            slice: NumInstructions(slice),
        };
        let before = std::mem::replace(&mut self.limits, limits);
        let result = work(self);
        self.limits = before;
        result
    }

    /// A hash of the heap.
    pub fn root(&self) -> String {
        hex::encode(self.state.heap.pages.digest())
    }
}

/// What a canister with plenty of everything sees.
pub fn view() -> SystemView {
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
            message_memory_free: NumBytes(1 << 40),
            ..MemoryView::default()
        },
        certified_data: Payload::default(),
        global_timer: None,
        environment_variables: Arc::new(BTreeMap::new()),
        free_slots: Arc::new(BTreeMap::new()),
        free_callbacks: usize::MAX,
        next_callback_id: CallbackId(1),
        log_next_index: 0,
        log_bytes_max: LOG_BYTES_DEFAULT,
        subnet_id: SubnetId(PrincipalId::management_canister()),
        root_key: Arc::from(&[0; 133][..]),
        subnet: SubnetConfig::default(),
    }
}

/// The next number of a generator.
pub(crate) fn mixed(number: u64) -> u64 {
    number
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407)
}

/// An engine with so many warm slots.
pub(crate) fn engine(warm_canisters_max: usize) -> Result<Arc<Engine>, BenchError> {
    let config = EngineConfig {
        warm_canisters_max,
        ..EngineConfig::default()
    };
    Ok(Arc::new(Engine::new(config).map_err(BenchError::new)?))
}
