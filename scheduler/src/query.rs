//! Queries on one state: outside the rounds, in parallel, without effect.
//!
//! A composite query calls queries of other canisters. The calls are evaluated depth first, each on its canister as the
//! state has it; what a canister's own callbacks change is seen by its later callbacks of the same query only.

use crate::context::RoundContext;
use crate::management::error;
use crate::message;
use crate::state::{CanisterState, CanisterStatus, ReplicatedState};
use replicore_engine::{
    Call, CallContextView, Callback, EntryPoint, Execute, ExecutionOutcome, ExecutionState, InstructionLimits,
    MethodKind, OutgoingCall, ResponseView, SystemView, WorkDone,
};
use replicore_types::limits::{
    COMPOSITE_QUERY_CALL_INSTRUCTIONS, COMPOSITE_QUERY_DEPTH_MAX, COMPOSITE_QUERY_INSTRUCTIONS_MAX,
    QUERY_INSTRUCTIONS_MAX,
};
use replicore_types::{
    CallContextId, CanisterId, Cycles, ErrorCode, NumInstructions, Payload, PrincipalId, Randomness, RejectCode,
    RejectContext, UserError, WasmResult,
};
use std::collections::VecDeque;

/// Gives the data certificate of a canister; called only where a query may read it.
pub type DataCertificate<'a> = &'a dyn Fn(CanisterId) -> Option<Payload>;

/// Evaluates a query on `state`. A canister's own reject is [`WasmResult::Reject`].
///
/// # Errors
/// What keeps the query from being answered: no such canister, no code, stopped, frozen, no such method, a trap, a limit.
pub fn execute_query<E: Execute>(
    state: &ReplicatedState,
    engine: &E,
    source: PrincipalId,
    receiver: CanisterId,
    method: String,
    argument: Payload,
    data_certificate: DataCertificate<'_>,
) -> Result<WasmResult, UserError> {
    let mut evaluation = Evaluation {
        state,
        engine,
        context: RoundContext::new(state, Randomness::default()),
        data_certificate,
        instructions_left: COMPOSITE_QUERY_INSTRUCTIONS_MAX,
    };
    evaluation
        .evaluate(source, receiver, method, argument, 0)
        .map_err(Failure::into_error)
}

/// Why a query has no answer.
enum Failure {
    /// The call failed; a calling canister sees it as a reject.
    Call(UserError),
    /// The whole query ends.
    Query(UserError),
}

impl Failure {
    fn into_error(self) -> UserError {
        let (Self::Call(error) | Self::Query(error)) = self;
        error
    }
}

struct Evaluation<'a, E> {
    state: &'a ReplicatedState,
    engine: &'a E,
    context: RoundContext,
    data_certificate: DataCertificate<'a>,
    instructions_left: u64,
}

/// One canister's part of a query: its Wasm state as its messages leave it, and the calls it made.
struct Frame<'a> {
    canister: &'a CanisterState,
    execution: ExecutionState,
    view: SystemView,
    caller: PrincipalId,
    depth: usize,
    instructions: NumInstructions,
    calls: VecDeque<OutgoingCall>,
}

/// The canister and the kind of the method, if the canister can answer queries.
fn resolve<'a>(
    state: &'a ReplicatedState,
    id: CanisterId,
    method: &str,
) -> Result<(&'a CanisterState, MethodKind), UserError> {
    let canister = state.canister(&id).ok_or_else(|| error::canister_not_found(id))?;
    let (code, word) = match canister.system.status {
        CanisterStatus::Running => (None, ""),
        CanisterStatus::Stopping(_) => (Some(ErrorCode::CanisterStopping), "stopping"),
        CanisterStatus::Stopped => (Some(ErrorCode::CanisterStopped), "stopped"),
    };
    if let Some(code) = code {
        let text = format!("Canister {id} is {word} and therefore does not have a CallContextManager");
        return Err(UserError::new(code, text));
    }
    let Some(execution) = &canister.execution else {
        return Err(error::no_module(id));
    };
    if canister.system.balance < canister.freezing_threshold(&state.metadata.subnet) {
        let text = format!(
            "Canister {id} is unable to process query calls because it's frozen. Please top up the canister with cycles \
             and try again."
        );
        return Err(UserError::new(ErrorCode::CanisterOutOfCycles, text));
    }
    match execution.interface.method(method) {
        Some(kind @ (MethodKind::Query | MethodKind::CompositeQuery)) => Ok((canister, kind)),
        Some(MethodKind::Update) | None => Err(message::method_not_found(id, "query", method)),
    }
}

impl<E: Execute> Evaluation<'_, E> {
    fn evaluate(
        &mut self,
        caller: PrincipalId,
        receiver: CanisterId,
        method: String,
        argument: Payload,
        depth: usize,
    ) -> Result<WasmResult, Failure> {
        let (canister, kind) = resolve(self.state, receiver, &method).map_err(Failure::Call)?;
        let Some(execution) = canister.execution.clone() else {
            return Err(Failure::Call(error::no_module(receiver)));
        };
        let start = message::starting_point(canister, &self.context, canister.system.balance, Cycles::ZERO);
        let view = message::system_view(canister, &start, &self.context);
        let instructions = NumInstructions::ZERO;
        let mut frame = Frame {
            canister,
            execution,
            view,
            caller,
            depth,
            instructions,
            calls: VecDeque::new(),
        };
        // Calls within a composite query see no data certificate: it would be the one of another canister's caller.
        let data_certificate = if depth == 0 {
            (self.data_certificate)(receiver)
        } else {
            None
        };
        let is_composite = kind == MethodKind::CompositeQuery;
        let entry_point = match is_composite {
            true => EntryPoint::CompositeQuery {
                method,
                argument,
                data_certificate,
            },
            false => EntryPoint::Query {
                method,
                argument,
                data_certificate,
            },
        };
        let mut result = self.execute(&mut frame, entry_point)?;
        while matches!(result, Ok(None) | Err(_)) {
            let Some(call) = frame.calls.pop_front() else { break };
            result = self.answer_call(&mut frame, call, result)?;
        }
        match result {
            Ok(Some(answer)) => Ok(answer),
            Err(error) => Err(Failure::Call(error)),
            Ok(None) => Err(Failure::Call(UserError::new(
                ErrorCode::CanisterDidNotReply,
                format!("Canister {receiver} did not produce a response"),
            ))),
        }
    }

    /// Evaluates a call of the frame and runs its callback. `before` stands where the callback decides nothing.
    fn answer_call(
        &mut self,
        frame: &mut Frame<'_>,
        call: OutgoingCall,
        before: Result<Option<WasmResult>, UserError>,
    ) -> Result<Result<Option<WasmResult>, UserError>, Failure> {
        let response = self.response_to(frame, &call)?;
        let closure = match &response {
            ResponseView::Reply(_) => call.callback.on_reply,
            ResponseView::Reject(_) => call.callback.on_reject,
        };
        let refund = call.request.payment;
        let entry_point = EntryPoint::Callback {
            closure,
            response: response.clone(),
            refund,
            composite: true,
        };
        match self.execute(frame, entry_point)? {
            Ok(None) => Ok(before.and(Ok(None))),
            Ok(Some(answer)) => Ok(Ok(Some(answer))),
            Err(error) => {
                self.clean_up(frame, &call.callback, response)?;
                Ok(Err(error))
            }
        }
    }

    fn clean_up(&mut self, frame: &mut Frame<'_>, callback: &Callback, response: ResponseView) -> Result<(), Failure> {
        if let Some(closure) = callback.on_cleanup {
            // The error of the callback stands, whatever the cleanup does.
            let _ = self.execute(
                frame,
                EntryPoint::Cleanup {
                    closure,
                    response,
                    composite: true,
                },
            )?;
        }
        Ok(())
    }

    fn response_to(&mut self, frame: &Frame<'_>, call: &OutgoingCall) -> Result<ResponseView, Failure> {
        if frame.depth >= COMPOSITE_QUERY_DEPTH_MAX {
            let text = "Composite query calls exceeded the maximum call depth.";
            return Err(Failure::Query(UserError::new(ErrorCode::QueryCallGraphTooDeep, text)));
        }
        self.spend(COMPOSITE_QUERY_CALL_INSTRUCTIONS)?;
        let request = &call.request;
        // Queries do not reach the management canister: it is as if nobody had that id.
        let receiver = match request.receiver == CanisterId::MANAGEMENT {
            true => CanisterId(self.context.subnet_id.0),
            false => request.receiver,
        };
        let sender = frame.canister.id().0;
        let (method, payload) = (request.method_name.clone(), request.payload.clone());
        Ok(
            match self.evaluate(sender, receiver, method, payload, frame.depth + 1) {
                Ok(WasmResult::Reply(reply)) => ResponseView::Reply(reply),
                Ok(WasmResult::Reject(message)) => ResponseView::Reject(RejectContext {
                    code: RejectCode::CanisterReject,
                    message,
                }),
                Err(Failure::Call(error)) => ResponseView::Reject(RejectContext {
                    code: error.reject_code(),
                    message: error.description,
                }),
                Err(failure @ Failure::Query(_)) => return Err(failure),
            },
        )
    }

    fn spend(&mut self, instructions: u64) -> Result<(), Failure> {
        match self.instructions_left.checked_sub(instructions) {
            Some(left) => {
                self.instructions_left = left;
                Ok(())
            }
            None => Err(allowance_exceeded()),
        }
    }

    /// Runs one message of the frame.
    fn execute(
        &mut self,
        frame: &mut Frame<'_>,
        entry_point: EntryPoint,
    ) -> Result<Result<Option<WasmResult>, UserError>, Failure> {
        let id = frame.canister.id();
        let call = Call {
            entry_point,
            caller: frame.caller,
            caller_info: None,
            call_context: CallContextView {
                id: Some(CallContextId(1)),
                instructions_executed: frame.instructions,
                ..CallContextView::default()
            },
            message_id: None,
            view: &frame.view,
        };
        let limit = NumInstructions(QUERY_INSTRUCTIONS_MAX.min(self.instructions_left));
        let outcome = self.engine.execute(
            &mut frame.execution,
            call,
            InstructionLimits {
                message: limit,
                slice: limit,
            },
        );
        let ExecutionOutcome::Finished(done) = outcome else {
            let text = format!("Query of canister {id} paused although it runs in one slice");
            return Err(Failure::Query(UserError::new(ErrorCode::QueryCallGraphInternal, text)));
        };
        let WorkDone {
            result,
            changes,
            instructions,
            ..
        } = *done;
        frame.instructions += instructions;
        self.spend(instructions.0.min(self.instructions_left))?;
        if limit.0 < QUERY_INSTRUCTIONS_MAX
            && result
                .as_ref()
                .is_err_and(|failed| failed.error.code == ErrorCode::CanisterInstructionLimitExceeded)
        {
            // Not the message's own limit: what the calls before it left was not enough.
            return Err(allowance_exceeded());
        }
        let result = result.map_err(|failed| error::from_canister(id, &failed.error));
        if result.is_ok() {
            for call in changes.calls {
                frame.view.next_callback_id = replicore_types::CallbackId(call.callback_id.0 + 1);
                frame.calls.push_back(call);
            }
        }
        Ok(result)
    }
}

/// All calls of the query together used more than they may.
fn allowance_exceeded() -> Failure {
    Failure::Query(UserError::new(
        ErrorCode::QueryCallGraphTotalInstructionLimitExceeded,
        "Composite query calls exceeded the instruction limit.",
    ))
}
