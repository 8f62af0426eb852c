//! What was executed, in the order in which it was: an engine that takes notes.

use crate::run::ShortSlices;
use replicore_engine::*;
use replicore_types::fees::WasmWidth;
use replicore_types::*;
use std::sync::Mutex;

/// One finished execution, as the outside sees it.
#[derive(Clone, Debug)]
pub struct Event {
    pub canister: CanisterId,
    pub caller: PrincipalId,
    pub entry_point: EntryPoint,
    pub context: CallContextView,
    pub message_id: Option<MessageId>,
    /// Digest of memories and globals before and after.
    pub before: [u8; 32],
    pub after: [u8; 32],
    pub result: Result<Option<WasmResult>, ErrorCode>,
    pub accepted: Cycles,
    pub calls: Vec<OutgoingCall>,
}

/// Notes every execution that ends.
pub struct Recorder {
    engine: ShortSlices,
    events: Mutex<Vec<Event>>,
}

/// A paused execution and what is noted of it when it ends.
struct Paused {
    inner: PausedExecution,
    event: Event,
}

impl Recorder {
    pub fn new(engine: ShortSlices) -> Self {
        Self {
            engine,
            events: Mutex::default(),
        }
    }

    /// What was noted since the last time.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    fn note(&self, canister: &ExecutionState, outcome: ExecutionOutcome, mut event: Event) -> ExecutionOutcome {
        match outcome {
            ExecutionOutcome::Finished(done) => {
                event.after = digest(canister);
                event.result = done.result.clone().map_err(|failed| failed.error.code);
                event.accepted = done.changes.cycles_accepted;
                event.calls = done.changes.calls.clone();
                self.events.lock().unwrap().push(event);
                ExecutionOutcome::Finished(done)
            }
            ExecutionOutcome::Paused(inner) => {
                let instructions = inner.instructions;
                ExecutionOutcome::Paused(PausedExecution::new(Box::new(Paused { inner, event }), instructions))
            }
        }
    }
}

impl Execute for Recorder {
    fn prepare(
        &self,
        module: &CanisterModule,
        subnet: SubnetType,
    ) -> Result<PreparedModule, (UserError, NumInstructions)> {
        self.engine.prepare(module, subnet)
    }

    fn declared_width(&self, module: &CanisterModule) -> WasmWidth {
        self.engine.declared_width(module)
    }

    fn execute(&self, canister: &mut ExecutionState, call: Call<'_>, limits: InstructionLimits) -> ExecutionOutcome {
        let before = digest(canister);
        let event = Event {
            canister: call.view.canister_id,
            caller: call.caller,
            entry_point: call.entry_point.clone(),
            context: call.call_context.clone(),
            message_id: call.message_id,
            before,
            after: before,
            result: Ok(None),
            accepted: Cycles::ZERO,
            calls: Vec::new(),
        };
        let outcome = self.engine.execute(canister, call, limits);
        self.note(canister, outcome, event)
    }

    fn resume(&self, canister: &mut ExecutionState, paused: PausedExecution) -> ExecutionOutcome {
        let paused = paused.into_state().downcast::<Paused>().expect("paused by this engine");
        let Paused { inner, event } = *paused;
        let outcome = self.engine.resume(canister, inner);
        self.note(canister, outcome, event)
    }
}

fn digest(canister: &ExecutionState) -> [u8; 32] {
    let globals = postcard::to_stdvec(&canister.globals.to_vec()).expect("encodes");
    let parts = [
        &canister.module.hash[..],
        &canister.heap.pages.digest(),
        &canister.heap.size_wasm_pages.to_le_bytes(),
        &canister.stable.pages.digest(),
        &canister.stable.size_wasm_pages.to_le_bytes(),
        &globals,
    ];
    <sha2::Sha256 as sha2::Digest>::digest(parts.concat()).into()
}
