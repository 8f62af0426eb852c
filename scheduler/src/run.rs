//! One canister's turn: its tasks and messages one after the other, on one thread.
//!
//! A turn touches nothing but its canister. What it does to others leaves as [`Turn`] and as messages in the canister's
//! output, and is committed in canonical order when all turns of the wave have ended.

use crate::apply;
use crate::context::RoundContext;
use crate::limits::{
    PATH_MESSAGE_INSTRUCTIONS, PATH_TURN_INSTRUCTIONS, ROUND_PATH_INSTRUCTIONS_MAX, TOTAL_MESSAGE_INSTRUCTIONS,
};
use crate::message::{self, Begun};
use crate::state::{
    CanisterInput, CanisterMessage, CanisterState, LiveExecution, LowMemoryHook, PausedCall, RegisteredCallback,
    StartingPoint, SystemTask, WorkItem,
};
use replicore_engine::{Call, Execute, ExecutionOutcome, InstructionLimits, PausedExecution, WorkDone};
use replicore_types::{IngressState, IngressStatus, MessageId, NumBytes, OS_PAGE_BYTES, Response};
use std::sync::Arc;

/// What a turn did beside changing its canister.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// New ingress statuses in the order in which they came to be.
    pub statuses: Vec<(MessageId, Arc<IngressStatus>)>,
    /// Instructions as they count on the path of the round.
    pub path_instructions: u64,
    /// Instructions executed.
    pub instructions: u64,
    /// Messages and tasks started or gone on with.
    pub messages: u32,
    /// Messages of `messages` that failed.
    pub failed: u32,
    /// Bytes of pages written.
    pub heap_delta_bytes: u64,
    /// True where the canister executes nothing more in this round: it used a whole slice.
    pub slice_used: bool,
}

/// What all turns of an iteration have in common.
pub(crate) struct Runner<'a, E> {
    /// The round.
    pub context: &'a RoundContext,
    /// What executes Wasm.
    pub engine: &'a E,
}

impl<E: Execute> Runner<'_, E> {
    /// Executes what waits for the canister until nothing is left or the end of the round's path is reached. `path` is
    /// its length before this iteration.
    pub fn run_turn(&self, canister: &mut CanisterState, path: u64) -> Turn {
        let mut turn = Turn::default();
        if let Some(paused) = canister.paused.take() {
            self.go_on(canister, paused, &mut turn);
        }
        while !turn.slice_used && path + turn.path_instructions < ROUND_PATH_INSTRUCTIONS_MAX {
            let Some(item) = next_item(canister) else { break };
            self.start(canister, item, &mut turn);
        }
        if turn.heap_delta_bytes > 0 {
            let written = NumBytes(turn.heap_delta_bytes);
            canister.system.add_heap_delta_debit(written, self.context.height);
        }
        if turn.instructions > 0 {
            turn.path_instructions += PATH_TURN_INSTRUCTIONS;
        }
        turn
    }

    fn start(&self, canister: &mut CanisterState, item: WorkItem, turn: &mut Turn) {
        turn.messages += 1;
        turn.path_instructions += PATH_MESSAGE_INSTRUCTIONS;
        if let WorkItem::Message(CanisterInput::Canister(CanisterMessage::Response(response))) = &item {
            let response = Arc::clone(response);
            let Some(start) = apply::begin_response(canister, &response, self.context) else {
                return;
            };
            return self.execute(canister, item, start, None, turn);
        }
        match message::begin_call(canister, &item, self.context) {
            Begun::Execute(start) => self.execute(canister, item, start, None, turn),
            Begun::Refused(error) => {
                turn.failed += 1;
                if item == WorkItem::Task(SystemTask::OnLowWasmMemory)
                    && error.code == replicore_types::ErrorCode::CanisterOutOfCycles
                {
                    // The hook is not lost: it runs once the canister can pay, in a later round.
                    canister.system.low_memory_hook = LowMemoryHook::Ready;
                    turn.slice_used = true;
                }
                apply::refuse(canister, &item, error, self.context, turn);
            }
        }
    }

    fn go_on(&self, canister: &mut CanisterState, paused: PausedCall, turn: &mut Turn) {
        turn.messages += 1;
        turn.path_instructions += PATH_MESSAGE_INSTRUCTIONS;
        let (item, start) = (paused.item.clone(), paused.start);
        self.execute(canister, item, start, Some(paused), turn);
    }

    /// Executes one slice and commits it: the whole effect of a message that ended, or the pause.
    fn execute(
        &self,
        canister: &mut CanisterState,
        item: WorkItem,
        start: StartingPoint,
        paused: Option<PausedCall>,
        turn: &mut Turn,
    ) {
        let done_before = paused.as_ref().map_or(0, |paused| paused.instructions.0);
        let slices = paused.as_ref().map_or(0, |paused| paused.slices);
        match self.slice(canister, &item, &start, paused.as_ref()) {
            Slice::Paused(live) => {
                let instructions = live.instructions;
                turn.slice_used = true;
                turn.count(instructions.0.saturating_sub(done_before));
                apply::note_processing(canister, &item, self.context, turn);
                canister.paused = Some(PausedCall {
                    item,
                    start,
                    slices: slices + 1,
                    instructions,
                    live: LiveExecution::new(live),
                });
            }
            Slice::Call(done) => {
                turn.finished(&done, done_before);
                apply::finish_call(canister, &item, &start, done, self.context, turn);
            }
            Slice::Response(response, registered, done) => {
                turn.finished(&done, done_before);
                self.finish_response(canister, &response, &registered, &start, done, turn);
            }
            Slice::Nothing => {}
        }
    }

    /// Executes the next slice of `item`: its first one, or the one after `paused`.
    fn slice(
        &self,
        canister: &mut CanisterState,
        item: &WorkItem,
        start: &StartingPoint,
        paused: Option<&PausedCall>,
    ) -> Slice {
        let view = Arc::new(message::call_view(canister, item, start, self.context));
        let WorkItem::Message(CanisterInput::Canister(CanisterMessage::Response(response))) = item else {
            let call = message::call(canister, item, &view);
            let limits = message::instruction_limits(canister, item, self.context);
            return match self.run_slice(canister, call, limits, paused) {
                ExecutionOutcome::Finished(done) => Slice::Call(done),
                ExecutionOutcome::Paused(live) => Slice::Paused(live),
            };
        };
        let Some(registered) = canister
            .system
            .calls
            .callbacks
            .get(&response.originator_reply_callback)
            .cloned()
        else {
            return Slice::Nothing;
        };
        let call = message::callback_call(canister, &registered, response, &view);
        let limits = message::instruction_limits(canister, item, self.context);
        match self.run_slice(canister, call, limits, paused) {
            ExecutionOutcome::Finished(done) => Slice::Response(Arc::clone(response), registered, done),
            ExecutionOutcome::Paused(live) => Slice::Paused(live),
        }
    }

    /// The engine's part of a slice. Where the paused work itself is gone, the slices before are executed again: they
    /// come to the same point.
    fn run_slice(
        &self,
        canister: &mut CanisterState,
        call: Call<'_>,
        limits: InstructionLimits,
        paused: Option<&PausedCall>,
    ) -> ExecutionOutcome {
        let Some(execution) = canister.execution.as_mut() else {
            return ExecutionOutcome::Finished(Box::new(apply::without_module(canister.id())));
        };
        if let Some(live) = paused.and_then(|paused| paused.live.take()) {
            return self.engine.resume(execution, live);
        }
        let mut outcome = self.engine.execute(execution, call, limits);
        for _ in 0..paused.map_or(0, |paused| paused.slices) {
            match outcome {
                ExecutionOutcome::Paused(live) => outcome = self.engine.resume(execution, live),
                ExecutionOutcome::Finished(_) => break,
            }
        }
        outcome
    }

    /// Runs the cleanup of a failed callback, and commits the two.
    fn finish_response(
        &self,
        canister: &mut CanisterState,
        response: &Response,
        registered: &RegisteredCallback,
        start: &StartingPoint,
        done: Box<WorkDone>,
        turn: &mut Turn,
    ) {
        let item = WorkItem::Task(SystemTask::Heartbeat);
        let cleanup = done.result.is_err().then(|| {
            let mut view = message::call_view(canister, &item, start, self.context);
            // What the callback logged is not in the canister's log yet.
            view.log_next_index += done.changes.log.len() as u64;
            let view = Arc::new(view);
            let call = message::cleanup_call(canister, registered, response, &view)?;
            // The cleanup runs in one go: it has what the callback left of its last slice, at least its reserved part.
            let left = self.context.message_instructions_max() - done.instructions;
            let message = left.min(self.context.slice_instructions_max());
            let limits = InstructionLimits {
                message,
                slice: message,
            };
            match self.run_slice(canister, call, limits, None) {
                ExecutionOutcome::Finished(cleanup) => Some(cleanup),
                ExecutionOutcome::Paused(_) => None,
            }
        });
        let cleanup = cleanup.flatten();
        if let Some(cleanup) = &cleanup {
            turn.count(cleanup.instructions.0);
        }
        apply::finish_response(canister, response, registered, done, cleanup, self.context, turn);
    }
}

/// What a slice led to.
enum Slice {
    Paused(PausedExecution),
    Call(Box<WorkDone>),
    Response(Arc<Response>, Arc<RegisteredCallback>, Box<WorkDone>),
    Nothing,
}

impl Turn {
    fn count(&mut self, instructions: u64) {
        self.instructions += instructions;
        self.path_instructions += instructions;
    }

    /// Instructions as they count in the total of the round.
    pub fn total_instructions(&self) -> u64 {
        self.instructions + u64::from(self.messages) * TOTAL_MESSAGE_INSTRUCTIONS
    }

    fn finished(&mut self, done: &WorkDone, done_before: u64) {
        self.count(done.instructions.0.saturating_sub(done_before));
        self.failed += u32::from(done.result.is_err());
        if done.result.is_ok() {
            let pages = done.stats.heap_pages_dirtied + done.stats.stable_pages_dirtied;
            self.heap_delta_bytes += pages * OS_PAGE_BYTES as u64;
        }
    }

    /// Records a new status of an ingress message.
    pub fn set_status(&mut self, id: MessageId, status: IngressStatus) {
        // Within a turn only the last status counts, and a message that ends at once was never `Processing` to anybody.
        debug_assert!(status.state != IngressState::Received);
        self.statuses.push((id, Arc::new(status)));
    }
}

/// What comes next: the hook, then tasks, then messages.
fn next_item(canister: &mut CanisterState) -> Option<WorkItem> {
    if canister.hook_is_due() {
        canister.system.low_memory_hook = LowMemoryHook::Executed;
        return Some(WorkItem::Task(SystemTask::OnLowWasmMemory));
    }
    if let Some(task) = canister.system.tasks.pop_front() {
        return Some(WorkItem::Task(task));
    }
    canister.system.queues.pop_input().map(WorkItem::Message)
}
