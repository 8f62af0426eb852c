//! One message through the engine, on a warm canister.

use crate::BenchError;
use crate::measure::{Effort, Figure, seconds};
use replicore_engine::{
    Call, CallContextView, CanisterModule, Engine, EngineConfig, EntryPoint, Execute, ExecutionOutcome, ExecutionState,
    InstructionLimits, MemoryView, SystemView,
};
use replicore_types::limits::{LOG_BYTES_DEFAULT, MESSAGE_INSTRUCTIONS_MAX, SLICE_INSTRUCTIONS_MAX};
use replicore_types::{
    CallContextId, CallbackId, CanisterId, Cycles, NumBytes, NumInstructions, Payload, PrincipalId, SubnetConfig,
    SubnetId, SubnetType, Time,
};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const MODULE: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_caller_size" (func $caller_size (result i32)))
    (memory 1)
    (func (export "canister_update noop") (call $reply))
    (func (export "canister_update host_calls") (local $left i32)
        (local.set $left (i32.const 1000000))
        (loop $again
            (drop (call $caller_size))
            (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
        (call $reply)))"#;
const HOST_CALLS: f64 = 1e6;

struct Canister {
    engine: Engine,
    state: ExecutionState,
    view: SystemView,
}

/// `engine.noop_update_us`: `Engine::execute` of an update that replies nothing.
pub fn noop_update(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new()?;
    let messages = effort.scale(20_000);
    canister.update("noop")?;
    let mut samples = Vec::new();
    for _ in 0..effort.runs {
        let (elapsed, result) = seconds(|| (0..messages).try_for_each(|_| canister.update("noop").map(drop)));
        result?;
        samples.push(elapsed / messages as f64 * 1e6);
    }
    Ok(vec![Figure::of(
        "engine.noop_update_us",
        "us",
        samples,
        canister.root(),
    )])
}

/// `engine.host_call_ns`: one `ic0.msg_caller_size` in a loop of a million.
pub fn host_call(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut canister = Canister::new()?;
    canister.update("host_calls")?;
    let mut samples = Vec::new();
    for _ in 0..effort.runs {
        let (elapsed, result) = seconds(|| canister.update("host_calls").map(drop));
        result?;
        samples.push(elapsed / HOST_CALLS * 1e9);
    }
    Ok(vec![Figure::of("engine.host_call_ns", "ns", samples, canister.root())])
}

impl Canister {
    fn new() -> Result<Self, BenchError> {
        let engine = Engine::new(EngineConfig::default()).map_err(BenchError::new)?;
        let wasm = wat::parse_str(MODULE).map_err(BenchError::new)?;
        let module = CanisterModule {
            hash: Sha256::digest(&wasm).into(),
            bytes: wasm.into(),
        };
        let prepared = engine.prepare(&module, SubnetType::Application);
        let state = prepared.map_err(|(error, _)| BenchError::new(error))?.initial;
        Ok(Self {
            engine,
            state,
            view: view(),
        })
    }

    fn update(&mut self, method: &str) -> Result<u64, BenchError> {
        let call = Call {
            entry_point: EntryPoint::Update {
                method: method.into(),
                argument: Payload::default(),
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
        let limits = InstructionLimits {
            message: NumInstructions(MESSAGE_INSTRUCTIONS_MAX),
            slice: NumInstructions(SLICE_INSTRUCTIONS_MAX),
        };
        match self.engine.execute(&mut self.state, call, limits) {
            ExecutionOutcome::Finished(done) => match done.result {
                Ok(_) => Ok(done.instructions.0),
                Err(failure) => Err(BenchError::new(failure.error)),
            },
            ExecutionOutcome::Paused(_) => Err(BenchError::new("the message did not end within its slice")),
        }
    }

    fn root(&self) -> String {
        hex::encode(self.state.heap.pages.digest())
    }
}

fn view() -> SystemView {
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
