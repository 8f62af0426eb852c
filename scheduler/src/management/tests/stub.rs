//! A subnet with an engine whose modules are lists of words.
//!
//! | word | meaning |
//! |---|---|
//! | `hook=NAME` | exports the system entry point, which takes one instruction |
//! | `trap=NAME` | exports it, and it traps |
//! | `pages=N` | initial heap in Wasm pages |
//! | `section=NAME` | has the private custom section |
//! | `wasm64` | 64-bit |
//! | `invalid` | is refused |

use crate::management::types::EMPTY_REPLY;
use crate::management::{Answer, ManagementWork, execute};
use crate::state::{CallOrigin, CanisterState, Genesis, ReplicatedState, SubnetMessage};
use candid::CandidType;
use replicore_engine::{
    Call, CanisterModule, CustomSection, CustomSectionVisibility, EntryPoint, Execute, ExecutionError,
    ExecutionOutcome, ExecutionState, ExecutionStats, InstructionLimits, LogRecord, ModuleInterface, PausedExecution,
    PreparedModule, SystemChanges, WasmMemory, WorkDone,
};
use replicore_types::fees::{MemoryReservation, WasmWidth};
use replicore_types::{
    CallbackId, CanisterId, Cycles, ErrorCode, Ingress, MessageId, NumBytes, NumInstructions, Payload, PrincipalId,
    Request, SubnetConfig, SubnetId, SubnetType, Time, UserError,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Executes modules that are lists of words.
pub struct WordEngine;

fn words(module: &CanisterModule) -> Vec<String> {
    String::from_utf8_lossy(&module.bytes)
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn interface_of(words: &[String]) -> ModuleInterface {
    let mut interface = ModuleInterface::default();
    for word in words {
        if let Some(name) = word.strip_prefix("hook=").or(word.strip_prefix("trap=")) {
            interface.system_entry_points.insert(name.to_owned());
        }
        if let Some(name) = word.strip_prefix("section=") {
            let section = CustomSection {
                visibility: CustomSectionVisibility::Private,
                content: Arc::from(&b"v1"[..]),
            };
            interface.custom_sections.insert(name.to_owned(), section);
        }
        if word == "wasm64" {
            interface.width = WasmWidth::Wasm64;
        }
    }
    interface
}

fn export_name(entry_point: &EntryPoint) -> &'static str {
    match entry_point {
        EntryPoint::Start => "start",
        EntryPoint::Init(_) => "canister_init",
        EntryPoint::PreUpgrade => "canister_pre_upgrade",
        EntryPoint::PostUpgrade(_) => "canister_post_upgrade",
        _ => "?",
    }
}

impl Execute for WordEngine {
    fn prepare(&self, module: &CanisterModule, _: SubnetType) -> Result<PreparedModule, (UserError, NumInstructions)> {
        let words = words(module);
        if words.iter().any(|word| word == "invalid") {
            let error = UserError::new(
                ErrorCode::CanisterInvalidWasm,
                "Canister's Wasm module is not valid: word",
            );
            return Err((error, NumInstructions(20_000_000)));
        }
        let pages = words
            .iter()
            .find_map(|word| word.strip_prefix("pages=")?.parse().ok())
            .unwrap_or(0);
        let interface = Arc::new(interface_of(&words));
        Ok(PreparedModule {
            initial: ExecutionState {
                module: module.clone(),
                interface: interface.clone(),
                heap: WasmMemory {
                    size_wasm_pages: pages,
                    ..WasmMemory::default()
                },
                stable: WasmMemory::default(),
                globals: Arc::from([]),
                warm_version: 0,
            },
            interface,
            compile_instructions: NumInstructions(20_432_000),
            compile_instructions_known: NumInstructions(20_004_320),
        })
    }

    fn execute(&self, canister: &mut ExecutionState, call: Call<'_>, _: InstructionLimits) -> ExecutionOutcome {
        let name = export_name(&call.entry_point);
        let traps = words(&canister.module).contains(&format!("trap={name}"));
        let record = LogRecord {
            index: call.view.log_next_index,
            time: call.view.time,
            content: format!("{name} at version {}", call.view.version).into_bytes(),
        };
        let mut changes = SystemChanges {
            log: vec![record],
            ..SystemChanges::default()
        };
        let failure = UserError::new(ErrorCode::CanisterTrapped, "Canister trapped: unreachable.");
        if !traps {
            canister.stable.size_wasm_pages += 1;
            changes.certified_data = Some(name.as_bytes().to_vec());
        }
        ExecutionOutcome::Finished(Box::new(WorkDone {
            result: if traps {
                Err(ExecutionError {
                    error: failure,
                    log: None,
                })
            } else {
                Ok(None)
            },
            changes,
            instructions: NumInstructions(1),
            stats: ExecutionStats::default(),
        }))
    }

    fn resume(&self, _: &mut ExecutionState, _: PausedExecution) -> ExecutionOutcome {
        unreachable!("the stub never pauses")
    }
}

/// The principal that signs ingress messages.
pub fn user() -> PrincipalId {
    PrincipalId::anonymous()
}

/// A subnet of 13 nodes and what talks to its management canister.
pub struct Subnet {
    pub state: ReplicatedState,
    messages: u8,
}

impl Subnet {
    pub fn new() -> Self {
        Self::of(SubnetConfig {
            subnet_type: SubnetType::Application,
            rate_limits: false,
            ..SubnetConfig::default()
        })
    }

    pub fn of(subnet: SubnetConfig) -> Self {
        let mut state = ReplicatedState::genesis(Genesis {
            subnet_id: SubnetId(PrincipalId::self_authenticating([1; 32])),
            subnet,
            root_key: Arc::from([0; 133]),
            nodes: BTreeMap::new(),
            canister_indices: (0, 99),
            threshold_public_keys: Default::default(),
        });
        state.metadata.time = Time(1_620_328_630_000_000_000);
        Self { state, messages: 0 }
    }

    /// A call in a new round.
    pub fn call(&mut self, message: SubnetMessage) -> ManagementWork {
        self.state.metadata.time = Time(self.state.metadata.time.0 + 1);
        execute(&message, &mut self.state, &WordEngine)
    }

    /// An ingress message with an envelope of 100 bytes.
    pub fn ingress(&mut self, source: PrincipalId, method: &str, payload: Vec<u8>) -> SubnetMessage {
        self.messages += 1;
        SubnetMessage::Ingress(Arc::new(Ingress {
            message_id: MessageId([self.messages; 32]),
            source,
            receiver: CanisterId::MANAGEMENT,
            effective_canister_id: None,
            method_name: method.into(),
            method_payload: payload.into(),
            expiry: Time(u64::MAX),
            envelope_bytes: 100,
            sender_info: None,
        }))
    }

    /// The answer to an ingress call of the controller.
    pub fn ask(&mut self, method: &str, payload: Vec<u8>) -> Result<Payload, UserError> {
        let message = self.ingress(user(), method, payload);
        own_answer(self.call(message)).result
    }

    /// [`Self::ask`] with a Candid argument.
    pub fn ask_with(&mut self, method: &str, argument: impl CandidType) -> Result<Payload, UserError> {
        self.ask(method, candid::encode_one(argument).unwrap())
    }

    /// The answer to a call of a canister that attaches cycles.
    pub fn ask_as(
        &mut self,
        sender: CanisterId,
        cycles: Cycles,
        method: &str,
        argument: impl CandidType,
    ) -> ManagementWork {
        let request = Request {
            receiver: CanisterId::MANAGEMENT,
            sender,
            sender_reply_callback: CallbackId(7),
            payment: cycles,
            method_name: method.into(),
            payload: candid::encode_one(argument).unwrap().into(),
            deadline: None,
        };
        self.call(SubnetMessage::Request(Arc::new(request)))
    }

    /// A canister of the user with 100 T cycles.
    pub fn create(&mut self) -> CanisterId {
        let payload = hex("4449444c026c01d8a38ca80d016e7d0100018080e983b1de16");
        let reply = self.ask("provisional_create_canister_with_cycles", payload).unwrap();
        let id = CanisterId(PrincipalId::from_slice(&reply[reply.len() - 10..]));
        assert_eq!(
            reply[..],
            [&hex("4449444c016c01b3c4b1f204680100010a")[..], id.as_slice()].concat()
        );
        id
    }

    /// Cycles that so many bytes of new memory have reserved now.
    pub fn reservation_of(&self, bytes: u64) -> Cycles {
        self.state.metadata.subnet.storage_reservation(MemoryReservation {
            allocated: NumBytes(bytes),
            taken_before: NumBytes::ZERO,
            subnet_usage: self.state.metadata.memory_taken,
        })
    }

    pub fn canister(&self, id: CanisterId) -> &CanisterState {
        self.state.canister(&id).unwrap()
    }

    /// What a step took from the balance, and its answer.
    pub fn costs<T>(&mut self, id: CanisterId, step: impl FnOnce(&mut Self) -> T) -> (u128, T) {
        let before = self.canister(id).system.balance;
        let result = step(self);
        ((before - self.canister(id).system.balance).0, result)
    }
}

/// The one answer that a call without consequences for others has.
pub fn own_answer(work: ManagementWork) -> Answer {
    let [answer] = <[Answer; 1]>::try_from(work.answers).expect("one answer");
    assert_eq!(answer.respondent, CanisterId::MANAGEMENT);
    assert!(!matches!(answer.origin, CallOrigin::SystemTask));
    answer
}

pub fn assert_empty(reply: Result<Payload, UserError>) {
    assert_eq!(&reply.unwrap()[..], EMPTY_REPLY);
}

pub fn assert_refused<T: std::fmt::Debug>(reply: Result<T, UserError>, code: u16, first_line: &str) {
    let error = reply.unwrap_err();
    assert_eq!(error.code.number(), code, "{error}");
    assert_eq!(error.description.lines().next().unwrap_or_default(), first_line);
}

pub fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

pub fn principals(bytes: &[&[u8]]) -> BTreeSet<PrincipalId> {
    bytes.iter().map(|bytes| PrincipalId::from_slice(bytes)).collect()
}
