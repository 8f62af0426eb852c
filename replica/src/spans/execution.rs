//! The engine as the scheduler sees it, with spans around the messages that it executes.
//!
//! The scheduler and the engine read no clock: what stands between them here does, and their results do not depend on it.

use super::{Attributes, Spans, Stage, Value};
use replicore_engine::{
    Call, CanisterModule, Execute, ExecutionOutcome, ExecutionState, InstructionLimits, PausedExecution, PreparedModule,
};
use replicore_types::fees::WasmWidth;
use replicore_types::{MessageId, NumInstructions, SubnetType, UserError};
use std::time::Instant;

/// An engine whose executions of sampled ingress messages are traced, where there is something to trace them with. A message
/// that is not sampled costs a comparison; without spans, a branch.
pub(crate) struct TracedExecution<'a, E> {
    pub engine: &'a E,
    pub spans: Option<&'a Spans>,
}

/// A sampled message between slices.
struct Paused {
    message: MessageId,
    /// Slices so far.
    slices: u32,
    execution: PausedExecution,
}

impl<E: Execute> TracedExecution<'_, E> {
    /// Executes a slice of a sampled message, the one after `slices` others.
    fn slice(
        &self,
        spans: &Spans,
        message: MessageId,
        slices: u32,
        execute: impl FnOnce(&E) -> ExecutionOutcome,
    ) -> ExecutionOutcome {
        let begin = Instant::now();
        let outcome = execute(self.engine);
        let end = Instant::now();
        spans.record(message, Stage::Execute(slices), begin, end, about(slices, &outcome));
        match outcome {
            ExecutionOutcome::Finished(done) => ExecutionOutcome::Finished(done),
            ExecutionOutcome::Paused(execution) => {
                let instructions = execution.instructions;
                let paused = Paused {
                    message,
                    slices: slices + 1,
                    execution,
                };
                ExecutionOutcome::Paused(PausedExecution::new(Box::new(paused), instructions))
            }
        }
    }
}

/// What a span of execution tells: instructions are those of all slices so far.
fn about(slices: u32, outcome: &ExecutionOutcome) -> Attributes {
    let mut attributes = vec![("replicore.slice", Value::Number(u64::from(slices)))];
    let instructions = match outcome {
        ExecutionOutcome::Finished(done) => {
            let (heap, stable) = (done.stats.heap_pages_dirtied, done.stats.stable_pages_dirtied);
            attributes.push(("replicore.pages_written", Value::Number(heap + stable)));
            done.instructions
        }
        ExecutionOutcome::Paused(paused) => paused.instructions,
    };
    attributes.push(("replicore.instructions", Value::Number(instructions.0)));
    attributes
}

impl<E: Execute> Execute for TracedExecution<'_, E> {
    fn prepare(
        &self,
        module: &CanisterModule,
        subnet_type: SubnetType,
    ) -> Result<PreparedModule, (UserError, NumInstructions)> {
        self.engine.prepare(module, subnet_type)
    }

    fn declared_width(&self, module: &CanisterModule) -> WasmWidth {
        self.engine.declared_width(module)
    }

    fn execute(&self, canister: &mut ExecutionState, call: Call<'_>, limits: InstructionLimits) -> ExecutionOutcome {
        let sampled = self.spans.zip(call.message_id);
        match sampled.filter(|(spans, message)| spans.is_sampled(message)) {
            None => self.engine.execute(canister, call, limits),
            Some((spans, message)) => self.slice(spans, message, 0, |engine| engine.execute(canister, call, limits)),
        }
    }

    fn resume(&self, canister: &mut ExecutionState, paused: PausedExecution) -> ExecutionOutcome {
        let instructions = paused.instructions;
        match paused.into_state().downcast::<Paused>() {
            // Of a message that is not sampled.
            Err(state) => self.engine.resume(canister, PausedExecution::new(state, instructions)),
            Ok(traced) => {
                let Paused {
                    message,
                    slices,
                    execution,
                } = *traced;
                match self.spans {
                    Some(spans) => self.slice(spans, message, slices, |engine| engine.resume(canister, execution)),
                    None => self.engine.resume(canister, execution),
                }
            }
        }
    }
}
