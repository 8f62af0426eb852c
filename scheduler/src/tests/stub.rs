//! A scriptable engine: the argument of every call is a list of actions, callbacks included. What it charges and what it
//! may do follows the System API closely enough to test everything around it.

use replicore_engine::*;
use replicore_types::limits::{QUEUE_CAPACITY, REPLY_BYTES_MAX};
use replicore_types::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// One thing that a message does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    Reply(Vec<u8>),
    /// Replies with the counter of writes.
    ReplyCounter,
    Reject(String),
    Trap,
    /// Counts up a global.
    Write,
    Work(u64),
    Accept(u128),
    Burn(u128),
    Timer(Option<u64>),
    Print(String),
    Call(Box<CallAction>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallAction {
    pub to: Option<CanisterId>,
    pub method: String,
    pub argument: Vec<u8>,
    pub cycles: u128,
    pub timeout_seconds: Option<u32>,
    pub on_reply: Vec<Action>,
    pub on_reject: Vec<Action>,
    pub on_cleanup: Option<Vec<Action>>,
}

pub fn script(actions: &[Action]) -> Payload {
    Payload::from(postcard::to_allocvec(actions).unwrap())
}

/// Methods of every stub canister: `u` update, `q` query, `c` composite query; `heartbeat`, `timer` as exports.
pub fn interface(entry_points: &[&str]) -> ModuleInterface {
    ModuleInterface {
        methods: BTreeMap::from([
            ("u".to_string(), MethodKind::Update),
            ("q".to_string(), MethodKind::Query),
            ("c".to_string(), MethodKind::CompositeQuery),
        ]),
        system_entry_points: entry_points
            .iter()
            .map(|name| name.to_string())
            .collect::<BTreeSet<_>>(),
        custom_sections: BTreeMap::new(),
        width: fees::WasmWidth::Wasm32,
    }
}

pub fn execution_state(entry_points: &[&str]) -> ExecutionState {
    ExecutionState {
        module: CanisterModule {
            bytes: Arc::from(&b"module"[..]),
            hash: [1; 32],
        },
        interface: Arc::new(interface(entry_points)),
        heap: WasmMemory {
            pages: Default::default(),
            size_wasm_pages: 1,
        },
        stable: WasmMemory::default(),
        globals: Arc::from([GlobalValue::I64(0)]),
        warm_version: 0,
    }
}

/// Instructions of every `canister_pre_upgrade`, beside the base: more than a slice.
pub const PRE_UPGRADE_WORK: u64 = 3_000_000_000;

/// Instructions of a message without work.
pub const BASE: u64 = 1_000;

#[derive(Default)]
pub struct Stub {
    /// Callback scripts by hash: what the table of a module would hold.
    scripts: Mutex<BTreeMap<u64, Vec<Action>>>,
}

struct Paused {
    state: ExecutionState,
    work: Box<WorkDone>,
    limits: InstructionLimits,
    done: u64,
}

impl Stub {
    fn intern(&self, script: &[Action]) -> u64 {
        let bytes = postcard::to_allocvec(script).unwrap();
        let key = u64::from_le_bytes(blake3::hash(&bytes).as_bytes()[..8].try_into().unwrap());
        self.scripts.lock().unwrap().insert(key, script.to_vec());
        key
    }

    fn script_of(&self, entry_point: &EntryPoint) -> Vec<Action> {
        let interned = |closure: &WasmClosure| {
            self.scripts
                .lock()
                .unwrap()
                .get(&closure.environment)
                .cloned()
                .unwrap_or_default()
        };
        match entry_point {
            EntryPoint::Update { argument, .. }
            | EntryPoint::ReplicatedQuery { argument, .. }
            | EntryPoint::Query { argument, .. }
            | EntryPoint::CompositeQuery { argument, .. } => postcard::from_bytes(argument).unwrap_or_default(),
            EntryPoint::Callback { closure, .. } | EntryPoint::Cleanup { closure, .. } => interned(closure),
            EntryPoint::Init(argument) | EntryPoint::PostUpgrade(argument) => {
                postcard::from_bytes(argument).unwrap_or_default()
            }
            EntryPoint::PreUpgrade => vec![Action::Work(PRE_UPGRADE_WORK), Action::Write],
            EntryPoint::Heartbeat | EntryPoint::GlobalTimer | EntryPoint::OnLowWasmMemory => vec![Action::Write],
            _ => Vec::new(),
        }
    }

    fn slice(&self, canister: &mut ExecutionState, paused: Paused) -> ExecutionOutcome {
        let total = paused.work.instructions.0;
        let done = (paused.done + paused.limits.slice.0).min(total);
        if done < total {
            return ExecutionOutcome::Paused(PausedExecution::new(
                Box::new(Paused { done, ..paused }),
                NumInstructions(done),
            ));
        }
        if paused.work.result.is_ok() {
            *canister = paused.state;
        }
        ExecutionOutcome::Finished(paused.work)
    }
}

impl Execute for Stub {
    fn prepare(&self, module: &CanisterModule, _: SubnetType) -> Result<PreparedModule, (UserError, NumInstructions)> {
        // Modules are told apart by their bytes alone; hooks do what the argument says.
        let mut initial = execution_state(&["canister_init", "canister_pre_upgrade", "canister_post_upgrade"]);
        initial.module = module.clone();
        Ok(PreparedModule {
            interface: initial.interface.clone(),
            initial,
            compile_instructions: NumInstructions(20_006_000),
            compile_instructions_known: NumInstructions(20_000_060),
        })
    }

    fn execute(&self, canister: &mut ExecutionState, call: Call<'_>, limits: InstructionLimits) -> ExecutionOutcome {
        let script = self.script_of(&call.entry_point);
        let mut run = Run::new(canister, &call, self);
        let mut result = run.run(&script);
        if run.instructions > limits.message.0 {
            run.instructions = limits.message.0;
            result = Err(failure(
                ErrorCode::CanisterInstructionLimitExceeded,
                "Canister exceeded the limit",
            ));
        }
        let keeps = !matches!(
            call.entry_point,
            EntryPoint::ReplicatedQuery { .. } | EntryPoint::Query { .. } | EntryPoint::CompositeQuery { .. }
        );
        let log = std::mem::take(&mut run.changes.log);
        let changes = if result.is_ok() {
            SystemChanges { log, ..run.changes }
        } else {
            SystemChanges {
                log,
                ..Default::default()
            }
        };
        let work = Box::new(WorkDone {
            result,
            changes,
            instructions: NumInstructions(run.instructions),
            stats: ExecutionStats::default(),
        });
        let state = if keeps { run.state } else { canister.clone() };
        self.slice(
            canister,
            Paused {
                state,
                work,
                limits,
                done: 0,
            },
        )
    }

    fn resume(&self, canister: &mut ExecutionState, paused: PausedExecution) -> ExecutionOutcome {
        let paused = paused.into_state().downcast::<Paused>().unwrap();
        self.slice(canister, *paused)
    }
}

fn failure(code: ErrorCode, text: &str) -> ExecutionError {
    ExecutionError {
        error: UserError::new(code, text),
        log: None,
    }
}

struct Run<'a> {
    stub: &'a Stub,
    view: &'a SystemView,
    call: &'a Call<'a>,
    state: ExecutionState,
    changes: SystemChanges,
    instructions: u64,
    available: Cycles,
    answer: Option<WasmResult>,
}

impl<'a> Run<'a> {
    fn new(canister: &ExecutionState, call: &'a Call<'a>, stub: &'a Stub) -> Self {
        Self {
            stub,
            view: call.view,
            call,
            state: canister.clone(),
            changes: SystemChanges::default(),
            instructions: BASE,
            available: call.call_context.available_cycles,
            answer: None,
        }
    }

    fn counter(&self) -> i64 {
        let GlobalValue::I64(counter) = self.state.globals[0] else {
            panic!()
        };
        counter
    }

    fn run(&mut self, script: &[Action]) -> Result<Option<WasmResult>, ExecutionError> {
        for action in script {
            self.act(action)?;
        }
        Ok(self.answer.take())
    }

    fn act(&mut self, action: &Action) -> Result<(), ExecutionError> {
        let contract = |text| Err(failure(ErrorCode::CanisterContractViolation, text));
        match action {
            Action::Reply(_) | Action::ReplyCounter | Action::Reject(_)
                if self.answer.is_some() || self.call.call_context.responded =>
            {
                return contract("the call is already replied");
            }
            Action::Reply(bytes) => self.answer = Some(WasmResult::Reply(Payload::from(bytes.clone()))),
            Action::ReplyCounter => {
                self.answer = Some(WasmResult::Reply(Payload::from(self.counter().to_le_bytes().to_vec())));
            }
            Action::Reject(text) => self.answer = Some(WasmResult::Reject(text.clone())),
            Action::Trap => {
                return Err(failure(
                    ErrorCode::CanisterTrapped,
                    "Canister trapped: unreachable.\nAdvice",
                ));
            }
            Action::Write => self.state.globals = Arc::from([GlobalValue::I64(self.counter() + 1)]),
            Action::Work(instructions) => self.instructions += instructions,
            Action::Accept(amount) => {
                let accepted = Cycles(*amount).min(self.available);
                self.available -= accepted;
                self.changes.cycles_accepted += accepted;
            }
            Action::Burn(amount) => {
                let balance = self.view.balance - self.changes.balance_taken - self.changes.cycles_burned;
                self.changes.cycles_burned += Cycles(*amount).min(balance);
            }
            Action::Timer(deadline) => self.changes.global_timer = Some(deadline.map(Time)),
            Action::Print(text) => {
                let index = self.view.log_next_index + self.changes.log.len() as u64;
                let record = LogRecord {
                    index,
                    time: self.view.time,
                    content: text.clone().into_bytes(),
                };
                self.changes.log.push(record);
            }
            Action::Call(call) => self.perform(call),
        }
        Ok(())
    }

    /// `call_perform`: silently does nothing where the queue is full or cycles are missing.
    fn perform(&mut self, call: &CallAction) {
        let receiver = call.to.unwrap_or(self.view.canister_id);
        let made = self
            .changes
            .calls
            .iter()
            .filter(|made| made.request.receiver == receiver)
            .count();
        if made >= self.view.free_slots.get(&receiver).copied().unwrap_or(QUEUE_CAPACITY) {
            return;
        }
        if self.changes.calls.len() >= self.view.free_callbacks {
            return;
        }
        let subnet = self.view.subnet;
        let bytes = NumBytes((call.method.len() + call.argument.len()) as u64);
        let fee = subnet.call_fee() + subnet.transmission_cost(bytes);
        let transmission = subnet.transmission_cost(NumBytes(REPLY_BYTES_MAX as u64));
        let execution = subnet.execution_cost(
            NumInstructions(limits::MESSAGE_INSTRUCTIONS_MAX),
            fees::WasmWidth::Wasm32,
        );
        let taken = fee + transmission + execution + Cycles(call.cycles);
        let balance = self.view.balance + self.changes.cycles_accepted - self.changes.balance_taken;
        if balance < taken + Cycles(10_000_000_000) {
            return;
        }
        self.changes.balance_taken += taken;
        let callback_id = CallbackId(self.view.next_callback_id.0 + self.changes.calls.len() as u64);
        let seconds = CoarseTime::floor(self.view.time).0;
        let deadline = call
            .timeout_seconds
            .map(|timeout| CoarseTime(seconds + timeout.min(300)));
        let closure = |script: &[Action]| WasmClosure {
            function: 0,
            environment: self.stub.intern(script),
        };
        self.changes.calls.push(OutgoingCall {
            request: Request {
                receiver,
                sender: self.view.canister_id,
                sender_reply_callback: callback_id,
                payment: Cycles(call.cycles),
                method_name: call.method.clone(),
                payload: Payload::from(call.argument.clone()),
                deadline,
            },
            callback_id,
            callback: Callback {
                respondent: receiver,
                cycles_sent: Cycles(call.cycles),
                prepayment_for_response_execution: execution,
                prepayment_for_response_transmission: transmission,
                on_reply: closure(&call.on_reply),
                on_reject: closure(&call.on_reject),
                on_cleanup: call.on_cleanup.as_deref().map(closure),
                deadline,
            },
            transmission_fee: fee,
        });
    }
}
