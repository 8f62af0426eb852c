//! What a message does, and how the scriptable canister reads it.

use crate::canister::{ARGUMENT_BYTES_MAX, HOOK_BYTES_MAX, Operation, SCRATCH, code_of};
use replicore_types::CanisterId;

/// One thing that a message does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Replies with these bytes.
    Reply(Vec<u8>),
    /// Replies with the counter and everything that was seen so far.
    ReplySeen,
    Reject(String),
    Trap,
    Count,
    /// So many turns of a loop.
    Work(u32),
    Accept(u64),
    Burn(u64),
    Timer(u64),
    Certify(Vec<u8>),
    Print(String),
    GrowHeap(u32),
    GrowStable(u32),
    /// Fills scratch memory from an offset.
    WriteHeap {
        at: u32,
        value: u8,
        bytes: u32,
    },
    /// Writes the beginning of scratch memory to stable memory.
    WriteStable {
        at: u32,
        bytes: u32,
    },
    ReadStable {
        at: u32,
        bytes: u32,
    },
    /// Any function with any arguments.
    Any {
        function: &'static str,
        arguments: Vec<u64>,
    },
    /// Keeps a program for a system entry point.
    Hook {
        number: u64,
        actions: Vec<Action>,
    },
    Call(Box<Call>),
}

/// A call of another canister.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub to: CanisterId,
    pub method: String,
    pub argument: Argument,
    pub cycles: u64,
    pub timeout_seconds: Option<u32>,
    pub on_reply: Vec<Action>,
    pub on_reject: Vec<Action>,
    pub on_cleanup: Option<Vec<Action>>,
    /// The reply callback names a function that traps at once, so that only the cleanup runs.
    pub panics: bool,
}

/// The argument of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    Program(Vec<Action>),
    Bytes(Vec<u8>),
}

impl Argument {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Argument::Program(actions) => encode(actions),
            Argument::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// The program of these actions. One that would be too long for the canister ends early.
pub fn encode(actions: &[Action]) -> Vec<u8> {
    let mut writer = Writer(Vec::new());
    for action in actions {
        let before = writer.0.len();
        writer.action(action);
        if writer.0.len() > ARGUMENT_BYTES_MAX / 4 {
            writer.0.truncate(before);
            break;
        }
    }
    writer.0
}

struct Writer(Vec<u8>);

impl Writer {
    fn operation(&mut self, operation: Operation) {
        self.0.push(operation as u8);
    }

    fn push(&mut self, word: u64) {
        self.operation(Operation::Push);
        self.0.extend(word.to_le_bytes());
    }

    fn bytes(&mut self, operation: Operation, bytes: &[u8]) {
        self.operation(operation);
        self.0.extend((bytes.len() as u16).to_le_bytes());
        self.0.extend(bytes);
    }

    fn function(&mut self, name: &str, arguments: &[u64]) {
        arguments.iter().for_each(|word| self.push(*word));
        self.0.push(code_of(name));
    }

    /// Calls a function that takes an address and a length.
    fn function_on(&mut self, name: &str, bytes: &[u8]) {
        self.bytes(Operation::Data, bytes);
        self.0.push(code_of(name));
    }

    fn action(&mut self, action: &Action) {
        match action {
            Action::Reply(bytes) => {
                self.function_on("msg_reply_data_append", bytes);
                self.function("msg_reply", &[]);
            }
            Action::ReplySeen => {
                self.function("msg_reply_data_append", &[0, 24]);
                self.function("msg_reply", &[]);
            }
            Action::Reject(text) => self.function_on("msg_reject", text.as_bytes()),
            Action::Trap => self.operation(Operation::Trap),
            Action::Count => self.operation(Operation::Count),
            Action::Work(turns) => {
                self.push(u64::from(*turns));
                self.operation(Operation::Work);
            }
            Action::Accept(amount) => self.function("msg_cycles_accept128", &[0, *amount, SCRATCH]),
            Action::Burn(amount) => self.function("cycles_burn128", &[0, *amount, SCRATCH]),
            Action::Timer(time) => self.function("global_timer_set", &[*time]),
            Action::Certify(bytes) => self.function_on("certified_data_set", bytes),
            Action::Print(text) => self.function_on("debug_print", text.as_bytes()),
            Action::GrowHeap(pages) => {
                self.push(u64::from(*pages));
                self.operation(Operation::Grow);
            }
            Action::GrowStable(pages) => self.function("stable64_grow", &[u64::from(*pages)]),
            Action::WriteHeap { at, value, bytes } => {
                [SCRATCH + u64::from(*at), u64::from(*value), u64::from(*bytes)]
                    .into_iter()
                    .for_each(|word| self.push(word));
                self.operation(Operation::Fill);
            }
            Action::WriteStable { at, bytes } => {
                self.function("stable64_write", &[u64::from(*at), SCRATCH, u64::from(*bytes)]);
            }
            Action::ReadStable { at, bytes } => {
                self.function("stable64_read", &[SCRATCH, u64::from(*at), u64::from(*bytes)]);
            }
            Action::Any { function, arguments } => self.function(function, arguments),
            Action::Hook { number, actions } => {
                let program = encode(actions);
                if program.len() <= HOOK_BYTES_MAX {
                    self.push(*number);
                    self.bytes(Operation::Hook, &program);
                }
            }
            Action::Call(call) => self.call(call),
        }
    }

    fn call(&mut self, call: &Call) {
        self.bytes(Operation::Data, call.to.as_slice());
        self.bytes(Operation::Data, call.method.as_bytes());
        self.push(u64::from(call.panics));
        self.bytes(Operation::Closure, &encode(&call.on_reply));
        self.push(0);
        self.bytes(Operation::Closure, &encode(&call.on_reject));
        self.0.push(code_of("call_new"));
        if let Some(cleanup) = &call.on_cleanup {
            self.push(0);
            self.bytes(Operation::Closure, &encode(cleanup));
            self.0.push(code_of("call_on_cleanup"));
        }
        self.function_on("call_data_append", &call.argument.bytes());
        if call.cycles > 0 {
            self.function("call_cycles_add128", &[0, call.cycles]);
        }
        if let Some(seconds) = call.timeout_seconds {
            self.function("call_with_best_effort_response", &[u64::from(seconds)]);
        }
        self.function("call_perform", &[]);
    }
}
