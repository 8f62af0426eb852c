//! Queries on one state: outside the rounds, in parallel, without effect.
//!
//! A composite query calls queries of other canisters. The calls are evaluated depth first, each on its canister as the
//! state has it; what a canister's own callbacks change is seen by its later callbacks of the same query only.
//!
//! An evaluation is a stack of frames, one for each canister on the way down, and advances in slices:
//!
//! ```text
//! run a message of the top frame -> paused: give the evaluation back
//!                                -> ended:  its next call   -> a new frame on top
//!                                           or its answer   -> the frame goes, the one below runs its callback
//! ```

mod dependencies;

pub use dependencies::Dependencies;

use crate::context::RoundContext;
use crate::management::error;
use crate::message;
use crate::state::{CanisterState, CanisterStatus, ReplicatedState};
use replicore_engine::{
    Call, CallContextView, Callback, DataCertificate, EntryPoint, EnvironmentReads, Execute, ExecutionOutcome,
    ExecutionState, InstructionLimits, MethodKind, OutgoingCall, PausedExecution, ResponseView, SystemView, WorkDone,
};
use replicore_types::limits::{
    COMPOSITE_QUERY_CALL_INSTRUCTIONS, COMPOSITE_QUERY_DEPTH_MAX, COMPOSITE_QUERY_INSTRUCTIONS_MAX,
    QUERY_INSTRUCTIONS_MAX,
};
use replicore_types::{
    CallContextId, CallbackId, CanisterId, Cycles, ErrorCode, NumInstructions, Payload, PrincipalId, Randomness,
    RejectCode, RejectContext, UserError, WasmResult,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// A query as a user sends it.
#[derive(Clone, Debug)]
pub struct QueryCall {
    /// Who asks.
    pub source: PrincipalId,
    /// Who is asked.
    pub receiver: CanisterId,
    /// The method.
    pub method: String,
    /// The argument.
    pub argument: Payload,
    /// `sender_info` of the request.
    pub caller_info: Option<(Payload, PrincipalId)>,
}

/// What came of one slice.
pub enum QueryProgress {
    /// The query has its answer.
    Finished(FinishedQuery),
    /// It wants another slice, on the same state.
    Paused(QueryEvaluation),
}

/// An answered query.
#[derive(Clone, Debug)]
pub struct FinishedQuery {
    /// The answer; a canister's own reject is [`WasmResult::Reject`].
    ///
    /// As an error what kept the query from being answered: no such canister, no code, stopped, frozen, no such method,
    /// a trap, a limit.
    pub result: Result<WasmResult, UserError>,
    /// Instructions of all its messages.
    pub instructions: NumInstructions,
    /// What the answer depends on; `None` where that is more than one canister and its environment.
    pub dependencies: Option<Dependencies>,
}

/// Evaluates a query on `state` without a pause.
///
/// # Errors
/// As for [`FinishedQuery::result`].
pub fn execute_query<E: Execute>(
    state: &ReplicatedState,
    engine: &E,
    query: QueryCall,
    data_certificate: Option<DataCertificate>,
) -> Result<WasmResult, UserError> {
    let whole = NumInstructions(COMPOSITE_QUERY_INSTRUCTIONS_MAX);
    let mut progress = begin_query(state, engine, query, data_certificate, whole);
    loop {
        match progress {
            QueryProgress::Finished(finished) => return finished.result,
            QueryProgress::Paused(evaluation) => progress = evaluation.advance(state, engine, whole),
        }
    }
}

/// Begins a query and evaluates its first slice of at most `slice` instructions.
pub fn begin_query<E: Execute>(
    state: &ReplicatedState,
    engine: &E,
    query: QueryCall,
    data_certificate: Option<DataCertificate>,
    slice: NumInstructions,
) -> QueryProgress {
    let mut evaluation = QueryEvaluation {
        context: RoundContext::new(state, Randomness::default()),
        frames: Vec::with_capacity(1),
        instructions_left: COMPOSITE_QUERY_INSTRUCTIONS_MAX,
        reads: EnvironmentReads::default(),
        paused: None,
        certificate: data_certificate.clone(),
    };
    match evaluation.enter(state, query, data_certificate) {
        Ok(entry_point) => evaluation.go_on(state, engine, Some(entry_point), slice),
        Err(error) => QueryProgress::Finished(evaluation.finished(state, Err(error))),
    }
}

/// The canister, if it can answer the query as far as that is known without executing it.
///
/// # Errors
/// Why it cannot.
pub fn check<'a>(
    state: &'a ReplicatedState,
    receiver: &CanisterId,
    method: &str,
) -> Result<&'a CanisterState, UserError> {
    resolve(state, *receiver, method).map(|(canister, _)| canister)
}

/// A query between its slices. It goes on with the state that it began with.
pub struct QueryEvaluation {
    context: RoundContext,
    /// Never empty between slices; the last one runs.
    frames: Vec<Frame>,
    instructions_left: u64,
    /// What the messages read; those of called canisters count as `resources`.
    reads: EnvironmentReads,
    paused: Option<Paused>,
    /// The data certificate of the canister that the user asked.
    certificate: Option<DataCertificate>,
}

/// The message of the top frame that is paused, and what it may use in all.
struct Paused {
    execution: PausedExecution,
    limit: NumInstructions,
}

/// One canister's part of a query: its Wasm state as its messages leave it, and the calls it made.
struct Frame {
    canister: CanisterId,
    execution: ExecutionState,
    view: Arc<SystemView>,
    caller: PrincipalId,
    caller_info: Option<(Payload, PrincipalId)>,
    instructions: NumInstructions,
    calls: VecDeque<OutgoingCall>,
    stage: Stage,
    /// What the messages so far have come to.
    result: Result<Option<WasmResult>, UserError>,
}

/// Which message of a frame runs, or waits for the frame above.
enum Stage {
    /// The query method.
    Method,
    /// The callback of this call, once the frame above has its answer.
    Callback {
        callback: Box<Callback>,
        refund: Cycles,
        response: Option<ResponseView>,
    },
    /// The cleanup after a callback trapped.
    Cleanup,
}

/// What follows a message.
enum Next {
    Run(EntryPoint),
    Call(Box<OutgoingCall>),
    Answer(Result<WasmResult, UserError>),
}

/// The whole query ends: no canister on the way gets to see it.
struct Ends(UserError);

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
    let kind = match execution.interface.method(method) {
        Some(kind @ (MethodKind::Query | MethodKind::CompositeQuery)) => kind,
        Some(MethodKind::Update) | None => return Err(message::method_not_found(id, "query", method)),
    };
    if canister.system.balance < canister.freezing_threshold(&state.metadata.subnet) {
        let text = format!(
            "Canister {id} is unable to process query calls because it's frozen. Please top up the canister with cycles \
             and try again."
        );
        return Err(UserError::new(ErrorCode::CanisterOutOfCycles, text));
    }
    Ok((canister, kind))
}

impl QueryEvaluation {
    /// Evaluates another slice of at most `slice` instructions; `state` must be the one that the query began on.
    pub fn advance<E: Execute>(self, state: &ReplicatedState, engine: &E, slice: NumInstructions) -> QueryProgress {
        self.go_on(state, engine, None, slice)
    }

    /// The canister that the user asked.
    pub fn receiver(&self) -> Option<CanisterId> {
        self.frames.first().map(|frame| frame.canister)
    }

    fn go_on<E: Execute>(
        mut self,
        state: &ReplicatedState,
        engine: &E,
        entry_point: Option<EntryPoint>,
        slice: NumInstructions,
    ) -> QueryProgress {
        let mut slice_left = slice.0.max(1);
        let mut entry_point = entry_point;
        loop {
            let before = self.instructions_left;
            let ended = match self.execute(engine, entry_point.take(), NumInstructions(slice_left)) {
                Ok(Some(ended)) => ended,
                Ok(None) => return QueryProgress::Paused(self),
                Err(Ends(error)) => return QueryProgress::Finished(self.finished(state, Err(error))),
            };
            slice_left = slice_left.saturating_sub(before - self.instructions_left).max(1);
            match self.after_message(state, ended) {
                Ok(Ok(next)) => entry_point = Some(next),
                Ok(Err(answer)) => return QueryProgress::Finished(self.finished(state, answer)),
                Err(Ends(error)) => return QueryProgress::Finished(self.finished(state, Err(error))),
            }
        }
    }

    /// What the top frame runs next, or else the answer of the whole query.
    fn after_message(
        &mut self,
        state: &ReplicatedState,
        ended: Result<Option<WasmResult>, UserError>,
    ) -> Result<Result<EntryPoint, Result<WasmResult, UserError>>, Ends> {
        let Some(frame) = self.frames.last_mut() else {
            return Ok(Err(
                ended.and_then(|answer| answer.ok_or_else(|| no_response(CanisterId::MANAGEMENT)))
            ));
        };
        let mut next = frame.after(ended);
        loop {
            match next {
                Next::Run(entry_point) => return Ok(Ok(entry_point)),
                Next::Call(call) => match self.call(state, *call)? {
                    Ok(entry_point) => return Ok(Ok(entry_point)),
                    Err(error) => next = self.respond(Err(error)),
                },
                Next::Answer(answer) => {
                    let callee = self.frames.pop();
                    if self.frames.is_empty() {
                        // Kept for what the answer depends on.
                        self.frames.extend(callee);
                        return Ok(Err(answer));
                    }
                    next = self.respond(answer);
                }
            }
        }
    }

    /// The callback of the top frame for an answer to its call.
    fn respond(&mut self, answer: Result<WasmResult, UserError>) -> Next {
        let given = match answer {
            Ok(WasmResult::Reply(reply)) => ResponseView::Reply(reply),
            Ok(WasmResult::Reject(message)) => ResponseView::Reject(RejectContext {
                code: RejectCode::CanisterReject,
                message,
            }),
            Err(error) => ResponseView::Reject(RejectContext {
                code: error.reject_code(),
                message: error.description,
            }),
        };
        match self.frames.last_mut() {
            Some(Frame {
                stage:
                    Stage::Callback {
                        callback,
                        refund,
                        response,
                    },
                ..
            }) => {
                let closure = match &given {
                    ResponseView::Reply(_) => callback.on_reply,
                    ResponseView::Reject(_) => callback.on_reject,
                };
                *response = Some(given.clone());
                Next::Run(EntryPoint::Callback {
                    closure,
                    response: given,
                    refund: *refund,
                    composite: true,
                })
            }
            _ => unreachable!("the frame below the one that answers waits for a call"),
        }
    }

    /// Takes up a call of the top frame: what the callee runs, or why the call fails.
    fn call(&mut self, state: &ReplicatedState, call: OutgoingCall) -> Result<Result<EntryPoint, UserError>, Ends> {
        self.reads.resources = true;
        if self.frames.len() > COMPOSITE_QUERY_DEPTH_MAX {
            let text = "Composite query calls exceeded the maximum call depth.";
            return Err(Ends(UserError::new(ErrorCode::QueryCallGraphTooDeep, text)));
        }
        self.spend(COMPOSITE_QUERY_CALL_INSTRUCTIONS)?;
        let Some(frame) = self.frames.last_mut() else {
            unreachable!("a frame made the call");
        };
        frame.stage = Stage::Callback {
            callback: Box::new(call.callback),
            refund: call.request.payment,
            response: None,
        };
        let request = call.request;
        // Queries do not reach the management canister: it is as if nobody had that id.
        let receiver = match request.receiver == CanisterId::MANAGEMENT {
            true => CanisterId(self.context.subnet_id.0),
            false => request.receiver,
        };
        let query = QueryCall {
            source: frame.canister.0,
            receiver,
            method: request.method_name,
            argument: request.payload,
            caller_info: None,
        };
        // There is one data certificate, that of the canister that the user asked. It sees it in calls of its own, too.
        let certificate = self.certificate.clone().filter(|_| self.receiver() == Some(receiver));
        Ok(self.enter(state, query, certificate))
    }

    /// Puts a frame on top: what it runs first, or why the canister cannot answer.
    fn enter(
        &mut self,
        state: &ReplicatedState,
        query: QueryCall,
        data_certificate: Option<DataCertificate>,
    ) -> Result<EntryPoint, UserError> {
        let QueryCall {
            source,
            receiver,
            method,
            argument,
            caller_info,
        } = query;
        let (canister, kind) = resolve(state, receiver, &method)?;
        let Some(execution) = canister.execution.clone() else {
            return Err(error::no_module(receiver));
        };
        let start = message::starting_point(canister, &self.context, canister.system.balance, Cycles::ZERO);
        self.frames.push(Frame {
            canister: receiver,
            execution,
            view: Arc::new(message::system_view(canister, &start, &self.context)),
            caller: source,
            caller_info,
            instructions: NumInstructions::ZERO,
            calls: VecDeque::new(),
            stage: Stage::Method,
            result: Ok(None),
        });
        Ok(match kind {
            MethodKind::CompositeQuery => EntryPoint::CompositeQuery {
                method,
                argument,
                data_certificate,
            },
            MethodKind::Query | MethodKind::Update => EntryPoint::Query {
                method,
                argument,
                data_certificate,
            },
        })
    }

    fn spend(&mut self, instructions: u64) -> Result<(), Ends> {
        match self.instructions_left.checked_sub(instructions) {
            Some(left) => {
                self.instructions_left = left;
                Ok(())
            }
            None => Err(allowance_exceeded()),
        }
    }

    /// Runs a message of the top frame, or goes on with the paused one; `None` where it pauses.
    fn execute<E: Execute>(
        &mut self,
        engine: &E,
        entry_point: Option<EntryPoint>,
        slice: NumInstructions,
    ) -> Result<Option<Result<Option<WasmResult>, UserError>>, Ends> {
        let Some(frame) = self.frames.last_mut() else {
            unreachable!("an evaluation has a frame until it ends");
        };
        let (outcome, limit) = match (self.paused.take(), entry_point) {
            (Some(Paused { execution, limit }), _) => (engine.resume(&mut frame.execution, execution), limit),
            (None, Some(entry_point)) => {
                let message = NumInstructions(QUERY_INSTRUCTIONS_MAX.min(self.instructions_left));
                let limits = InstructionLimits {
                    message,
                    slice: slice.min(message),
                };
                (frame.start(engine, entry_point, limits), message)
            }
            (None, None) => unreachable!("an evaluation that is not paused has something to run"),
        };
        match outcome {
            ExecutionOutcome::Paused(execution) => {
                self.paused = Some(Paused { execution, limit });
                Ok(None)
            }
            ExecutionOutcome::Finished(done) => self.settle(*done, limit).map(Some),
        }
    }

    /// Books a message that ended.
    fn settle(
        &mut self,
        done: WorkDone,
        limit: NumInstructions,
    ) -> Result<Result<Option<WasmResult>, UserError>, Ends> {
        let WorkDone {
            result,
            changes,
            instructions,
            stats,
        } = done;
        self.reads = EnvironmentReads {
            time: self.reads.time | stats.reads.time,
            balance: self.reads.balance | stats.reads.balance,
            certificate: self.reads.certificate | stats.reads.certificate,
            resources: self.reads.resources | stats.reads.resources,
        };
        self.spend(instructions.0.min(self.instructions_left))?;
        if limit.0 < QUERY_INSTRUCTIONS_MAX
            && result
                .as_ref()
                .is_err_and(|failed| failed.error.code == ErrorCode::CanisterInstructionLimitExceeded)
        {
            // Not the message's own limit: what the calls before it left was not enough.
            return Err(allowance_exceeded());
        }
        let Some(frame) = self.frames.last_mut() else {
            unreachable!("the message that ended belongs to a frame");
        };
        frame.instructions += instructions;
        let result = result.map_err(|failed| error::from_canister(frame.canister, &failed.error));
        if result.is_ok() {
            for call in changes.calls {
                Arc::make_mut(&mut frame.view).next_callback_id = CallbackId(call.callback_id.0 + 1);
                frame.calls.push_back(call);
            }
        }
        Ok(result)
    }

    fn finished(&self, state: &ReplicatedState, result: Result<WasmResult, UserError>) -> FinishedQuery {
        let asked = self.frames.first().filter(|_| result.is_ok());
        let canister = asked.and_then(|frame| state.canister(&frame.canister));
        FinishedQuery {
            result,
            instructions: NumInstructions(COMPOSITE_QUERY_INSTRUCTIONS_MAX - self.instructions_left),
            dependencies: canister.and_then(|canister| Dependencies::of(state, canister, self.reads)),
        }
    }
}

impl Frame {
    fn start<E: Execute>(
        &mut self,
        engine: &E,
        entry_point: EntryPoint,
        limits: InstructionLimits,
    ) -> ExecutionOutcome {
        let call = Call {
            entry_point,
            caller: self.caller,
            caller_info: self.caller_info.clone(),
            call_context: CallContextView {
                id: Some(CallContextId(1)),
                instructions_executed: self.instructions,
                ..CallContextView::default()
            },
            message_id: None,
            view: &self.view,
        };
        engine.execute(&mut self.execution, call, limits)
    }

    /// Takes note of how the frame's message ended, and says what follows.
    fn after(&mut self, ended: Result<Option<WasmResult>, UserError>) -> Next {
        match std::mem::replace(&mut self.stage, Stage::Method) {
            Stage::Method => self.result = ended,
            Stage::Callback { callback, response, .. } => match ended {
                // The callback decides nothing: what stood before stands.
                Ok(None) => {}
                Ok(Some(answer)) => self.result = Ok(Some(answer)),
                Err(error) => {
                    // The error of the callback stands, whatever its cleanup does.
                    self.result = Err(error);
                    if let (Some(closure), Some(response)) = (callback.on_cleanup, response) {
                        self.stage = Stage::Cleanup;
                        return Next::Run(EntryPoint::Cleanup {
                            closure,
                            response,
                            composite: true,
                        });
                    }
                }
            },
            Stage::Cleanup => {}
        }
        if !matches!(self.result, Ok(Some(_)))
            && let Some(call) = self.calls.pop_front()
        {
            return Next::Call(Box::new(call));
        }
        Next::Answer(match std::mem::replace(&mut self.result, Ok(None)) {
            Ok(Some(answer)) => Ok(answer),
            Err(error) => Err(error),
            Ok(None) => Err(no_response(self.canister)),
        })
    }
}

fn no_response(canister: CanisterId) -> UserError {
    UserError::new(
        ErrorCode::CanisterDidNotReply,
        format!("Canister {canister} did not produce a response"),
    )
}

/// All calls of the query together used more than they may.
fn allowance_exceeded() -> Ends {
    Ends(UserError::new(
        ErrorCode::QueryCallGraphTotalInstructionLimitExceeded,
        "Composite query calls exceeded the instruction limit.",
    ))
}
