//! A canister on its own: what the scheduler would do around the engine, as little of it as the tests need.

#![allow(dead_code, reason = "every test binary uses a part of the helpers")]

use replicore_engine::{
    Call, CallContextView, CanisterModule, Engine, EngineConfig, EntryPoint, Execute, ExecutionOutcome, ExecutionState,
    InstructionLimits, MemoryView, SystemView, WorkDone,
};
use replicore_types::limits::{LOG_BYTES_DEFAULT, MESSAGE_INSTRUCTIONS_MAX, SLICE_INSTRUCTIONS_MAX};
use replicore_types::{
    CallContextId, CallbackId, CanisterId, Cycles, NumBytes, NumInstructions, Payload, PrincipalId, SubnetConfig,
    SubnetId, SubnetType, Time, WasmResult,
};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub const TIME: Time = Time(1_620_328_630_000_000_003);

/// An engine and one installed canister.
pub struct Canister {
    pub engine: Arc<Engine>,
    pub state: ExecutionState,
    pub view: SystemView,
    pub limits: InstructionLimits,
    pub caller: PrincipalId,
    pub available_cycles: Cycles,
}

/// The bytes of a module with their hash.
pub fn module(wasm: Vec<u8>) -> CanisterModule {
    let hash = Sha256::digest(&wasm).into();
    CanisterModule {
        bytes: wasm.into(),
        hash,
    }
}

pub fn engine() -> Arc<Engine> {
    Arc::new(Engine::new(EngineConfig::default()).expect("the engine starts"))
}

/// A view with plenty of everything.
pub fn view() -> SystemView {
    SystemView {
        canister_id: CanisterId::from_index(0),
        controllers: Arc::new(BTreeSet::from([PrincipalId::anonymous()])),
        status: 1,
        version: 7,
        time: TIME,
        balance: Cycles(100_000_000_000_000),
        reserved_balance: Cycles(0),
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
        subnet_id: SubnetId(PrincipalId::from_slice(&[9; 29])),
        root_key: Arc::from([5u8; 133].as_slice()),
        subnet: SubnetConfig {
            subnet_type: SubnetType::Application,
            ..SubnetConfig::default()
        },
    }
}

impl Canister {
    pub fn new(wat: &str) -> Self {
        Self::with_engine(engine(), wat::parse_str(wat).expect("the test's module parses"))
    }

    pub fn with_engine(engine: Arc<Engine>, wasm: Vec<u8>) -> Self {
        let prepared = engine
            .prepare(&module(wasm), SubnetType::Application)
            .expect("the module is valid");
        Self {
            engine,
            state: prepared.initial,
            view: view(),
            limits: InstructionLimits {
                message: NumInstructions(MESSAGE_INSTRUCTIONS_MAX),
                slice: NumInstructions(SLICE_INSTRUCTIONS_MAX),
            },
            caller: PrincipalId::anonymous(),
            available_cycles: Cycles::ZERO,
        }
    }

    /// Executes an entry point to its end.
    pub fn run(&mut self, entry_point: EntryPoint) -> WorkDone {
        let view = Arc::new(self.view.clone());
        let call = self.call(entry_point, &view);
        let mut outcome = self.engine.execute(&mut self.state, call, self.limits);
        loop {
            match outcome {
                ExecutionOutcome::Finished(done) => return *done,
                ExecutionOutcome::Paused(paused) => outcome = self.engine.resume(&mut self.state, paused),
            }
        }
    }

    pub fn call<'a>(&self, entry_point: EntryPoint, view: &'a Arc<SystemView>) -> Call<'a> {
        Call {
            entry_point,
            caller: self.caller,
            caller_info: None,
            call_context: CallContextView {
                id: Some(CallContextId(1)),
                available_cycles: self.available_cycles,
                ..CallContextView::default()
            },
            message_id: None,
            view,
        }
    }

    pub fn update(&mut self, method: &str, argument: &[u8]) -> WorkDone {
        self.run(EntryPoint::Update {
            method: method.into(),
            argument: Payload::from(argument),
        })
    }

    pub fn query(&mut self, method: &str, argument: &[u8]) -> WorkDone {
        self.run(EntryPoint::Query {
            method: method.into(),
            argument: Payload::from(argument),
            data_certificate: Some(Payload::from(&b"certificate"[..]).into()),
        })
    }
}

/// The bytes of a reply; anything else fails the test.
#[track_caller]
pub fn reply(done: &WorkDone) -> Vec<u8> {
    match &done.result {
        Ok(Some(WasmResult::Reply(bytes))) => bytes.to_vec(),
        other => panic!("expected a reply, got {other:?}"),
    }
}

/// Code and text of an error; anything else fails the test.
#[track_caller]
pub fn error(done: &WorkDone) -> (String, String) {
    match &done.result {
        Err(failed) => (failed.error.code.to_string(), failed.error.description.clone()),
        other => panic!("expected an error, got {other:?}"),
    }
}

/// Page faults of this thread so far that needed no disk.
pub fn minor_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let behind_name = stat.rsplit(')').next().unwrap();
    behind_name.split_whitespace().nth(7).unwrap().parse().unwrap()
}
