//! The abstract behaviour of the interface specification, as a machine that follows what is executed and says whether it
//! may be.
//!
//! It knows messages, calls and call contexts; no queue, no fee, no round. Where the specification leaves a choice (which
//! message is next, whether the system rejects one that nobody has begun) it takes the one that was made and holds to it
//! from then on. What it checks:
//!
//! - A message is executed once at most, and between two canisters in the order of sending.
//! - An execution that fails changes nothing; one of a query neither.
//! - A call context gets its answers and cycles, and no other; it answers once; it ends when its last call has.
//! - Every call gets one response: the callee's, or the system's. Attached cycles that were not accepted come back.
//! - After a failed callback its cleanup runs, and nothing in between.

use crate::record::Event;
use replicore_engine::{EntryPoint, OutgoingCall, ResponseView};
use replicore_scheduler::ReplicatedState;
use replicore_types::*;
use std::collections::{BTreeMap, BTreeSet};

type ContextKey = (CanisterId, CallContextId);

/// How a call was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Reply(Payload),
    /// By the canister.
    Reject(String),
    /// The canister trapped or said nothing.
    Failed,
    /// By the system, for whatever reason.
    BySystem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Progress {
    /// Nobody has begun it.
    Waiting,
    /// A context works on it.
    Begun,
    /// The callee has answered: this comes back.
    Answered(Answer, Cycles),
    /// The system rejected it: nobody may begin it any more.
    Rejected,
}

/// A call between canisters.
#[derive(Clone, Debug)]
struct CallRecord {
    context: ContextKey,
    made: OutgoingCall,
    progress: Progress,
    /// The caller has had its response, or is gone. With a best-effort call the callee may not know yet.
    is_over: bool,
    /// A later call between the two was begun first: this one can only be rejected.
    is_passed: bool,
}

/// A call of a user.
#[derive(Clone, Debug)]
struct IngressRecord {
    message: Ingress,
    has_begun: bool,
    answer: Option<Answer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Ingress(MessageId),
    Call(usize),
    Task,
}

#[derive(Clone, Debug)]
struct Context {
    origin: Origin,
    available: Cycles,
    responded: bool,
    open_calls: usize,
}

/// What the specification knows of a subnet.
#[derive(Default)]
pub struct Model {
    ingress: BTreeMap<MessageId, IngressRecord>,
    calls: Vec<CallRecord>,
    contexts: BTreeMap<ContextKey, Context>,
    states: BTreeMap<CanisterId, [u8; 32]>,
    /// The context whose cleanup has to run next.
    cleanup: Option<ContextKey>,
    /// Canisters whose code may be taken away: their contexts may end at any time.
    losers: BTreeSet<CanisterId>,
}

type Checked<T = ()> = Result<T, String>;

impl Model {
    /// A model of a subnet in which these canisters may lose their code.
    pub fn new(losers: BTreeSet<CanisterId>) -> Self {
        Self {
            losers,
            ..Self::default()
        }
    }

    /// Messages that come with a batch.
    pub fn ordered(&mut self, batch: &Batch) {
        for message in &batch.messages {
            let record = IngressRecord {
                message: message.clone(),
                has_begun: false,
                answer: None,
            };
            self.ingress.insert(message.message_id, record);
        }
    }

    /// Follows one execution.
    ///
    /// # Errors
    /// What the specification does not allow.
    pub fn executed(&mut self, event: &Event) -> Checked {
        self.step(event).map_err(|what| format!("{what}\nin {event:?}"))
    }

    fn step(&mut self, event: &Event) -> Checked {
        let is_cleanup = matches!(event.entry_point, EntryPoint::Cleanup { .. });
        if let Some(key) = self.cleanup.take() {
            demand(is_cleanup && key == key_of(event)?, "a cleanup has to run first")?;
            self.check_state(event)?;
            demand(event.calls.is_empty(), "a cleanup calls nobody")?;
            return self.end_callback(key);
        }
        demand(!is_cleanup, "a cleanup without a failed callback")?;
        match &event.entry_point {
            EntryPoint::Start | EntryPoint::Init(_) | EntryPoint::PreUpgrade | EntryPoint::PostUpgrade(_) => {
                self.states.remove(&event.canister);
                demand(event.calls.is_empty(), "installing calls nobody")
            }
            EntryPoint::Heartbeat | EntryPoint::GlobalTimer | EntryPoint::OnLowWasmMemory => {
                self.check_state(event)?;
                self.begin(event, Origin::Task, Cycles::ZERO)
            }
            EntryPoint::Update { method, argument } | EntryPoint::ReplicatedQuery { method, argument } => {
                self.check_state(event)?;
                let (origin, cycles) = match event.message_id {
                    Some(id) => (self.begin_ingress(event, id, method, argument)?, Cycles::ZERO),
                    None => self.begin_call(event, method, argument)?,
                };
                demand(
                    event.context.available_cycles == cycles,
                    "the attached cycles are offered",
                )?;
                self.begin(event, origin, cycles)
            }
            EntryPoint::Callback {
                response,
                refund,
                closure,
                ..
            } => {
                self.check_state(event)?;
                self.callback(event, response, *refund, closure.environment)
            }
            other => Err(format!("{other:?} is no replicated execution")),
        }
    }

    /// State lasts from execution to execution; a failed one and a query leave none.
    fn check_state(&mut self, event: &Event) -> Checked {
        if let Some(last) = self.states.insert(event.canister, event.after) {
            demand(
                last == event.before,
                "the state is the one that the last execution left",
            )?;
        }
        let is_query = matches!(event.entry_point, EntryPoint::ReplicatedQuery { .. });
        let keeps = event.result.is_ok() && !is_query;
        demand(keeps || event.after == event.before, "nothing stays of it")?;
        demand(keeps || event.calls.is_empty(), "nothing is called")
    }

    fn begin_ingress(&mut self, event: &Event, id: MessageId, method: &str, argument: &Payload) -> Checked<Origin> {
        let record = self.ingress.get_mut(&id).ok_or("nobody sent this message")?;
        let message = &record.message;
        demand(!record.has_begun, "a message is executed once")?;
        demand(
            message.receiver == event.canister && message.method_name == *method && message.method_payload == *argument,
            "the message is what was sent",
        )?;
        demand(message.source == event.caller, "the caller is the sender")?;
        record.has_begun = true;
        Ok(Origin::Ingress(id))
    }

    fn begin_call(&mut self, event: &Event, method: &str, argument: &Payload) -> Checked<(Origin, Cycles)> {
        let is_between = |call: &CallRecord| {
            call.progress == Progress::Waiting
                && call.context.0.0 == event.caller
                && call.made.request.receiver == event.canister
        };
        let is_this = |call: &CallRecord| {
            let request = &call.made.request;
            request.method_name == *method
                && request.payload == *argument
                && request.payment == event.context.available_cycles
                && request.deadline == event.context.deadline
                && !call.is_passed
        };
        let place = self
            .calls
            .iter()
            .position(|call| is_between(call) && is_this(call))
            .ok_or("nobody waits for this call")?;
        self.calls[..place]
            .iter_mut()
            .filter(|call| is_between(call))
            .for_each(|call| call.is_passed = true);
        self.calls[place].progress = Progress::Begun;
        Ok((Origin::Call(place), self.calls[place].made.request.payment))
    }

    /// A call or task that ended with its first message, or opened a context.
    fn begin(&mut self, event: &Event, origin: Origin, cycles: Cycles) -> Checked {
        demand(event.accepted <= cycles, "no more is accepted than was offered")?;
        let key = key_of(event)?;
        demand(!self.contexts.contains_key(&key), "a new call has a new context")?;
        let context = Context {
            origin,
            available: cycles,
            responded: false,
            open_calls: 0,
        };
        self.contexts.insert(key, context);
        self.finish(event, key)
    }

    fn callback(&mut self, event: &Event, response: &ResponseView, refund: Cycles, environment: u64) -> Checked {
        let key = key_of(event)?;
        let context = self.contexts.get(&key).ok_or("the context of a callback is open")?;
        demand(
            event.context.available_cycles == context.available,
            "the context has its cycles",
        )?;
        demand(
            event.context.responded == context.responded,
            "the context knows whether it has answered",
        )?;
        let is_named = |call: &CallRecord| {
            let callback = &call.made.callback;
            let closure = match response {
                ResponseView::Reply(_) => callback.on_reply,
                ResponseView::Reject(_) => callback.on_reject,
            };
            call.context == key && closure.environment == environment && !call.is_over
        };
        let candidates = self.calls.iter().enumerate().filter(|(_, call)| is_named(call));
        let found = candidates
            .map(|(place, call)| self.explain(call, response, refund).map(|()| place))
            .reduce(Result::or)
            .ok_or("nobody waits for this response")?;
        let place = found?;
        let call = &mut self.calls[place];
        call.is_over = true;
        if call.progress == Progress::Waiting && !is_timeout(&call.made, response) {
            call.progress = Progress::Rejected;
        }
        let failed = event.result.is_err();
        if failed && self.calls[place].made.callback.on_cleanup.is_some() {
            self.cleanup = Some(key);
            return Ok(());
        }
        match failed {
            true => self.end_callback(key),
            false => {
                self.context(key)?.open_calls -= 1;
                self.finish(event, key)
            }
        }
    }

    /// Whether a call may have this response.
    fn explain(&self, call: &CallRecord, response: &ResponseView, refund: Cycles) -> Checked {
        let (request, callee) = (&call.made.request, call.made.request.receiver);
        if callee == CanisterId::MANAGEMENT {
            return demand(refund <= request.payment, "no more comes back than was attached");
        }
        if is_timeout(&call.made, response) {
            return demand(refund.is_zero(), "nothing comes back with an unknown outcome");
        }
        match (&call.progress, response) {
            (Progress::Answered(Answer::Reply(said), back), ResponseView::Reply(heard)) => demand(
                said == heard && *back == refund,
                "the reply and the refund are the callee's",
            ),
            (Progress::Answered(Answer::Reject(said), back), ResponseView::Reject(heard)) => demand(
                heard.code == RejectCode::CanisterReject && *said == heard.message && *back == refund,
                "the reject and the refund are the callee's",
            ),
            (Progress::Answered(Answer::Failed, back), ResponseView::Reject(heard)) => demand(
                heard.code == RejectCode::CanisterError && *back == refund,
                "the callee failed",
            ),
            (Progress::Waiting, ResponseView::Reject(_)) => {
                demand(refund == request.payment, "what nobody has begun comes back whole")
            }
            (Progress::Begun, ResponseView::Reject(_)) => demand(
                self.losers.contains(&callee),
                "only a lost context is rejected half-way",
            ),
            _ => Err("the response is not the callee's".into()),
        }
    }

    /// Calls made and the answer given by a message of a context.
    fn finish(&mut self, event: &Event, key: ContextKey) -> Checked {
        for made in &event.calls {
            let record = CallRecord {
                context: key,
                made: made.clone(),
                progress: Progress::Waiting,
                is_over: false,
                is_passed: false,
            };
            self.calls.push(record);
        }
        let context = self.context(key)?;
        demand(
            event.accepted <= context.available,
            "no more is accepted than was offered",
        )?;
        context.open_calls += event.calls.len();
        context.available -= event.accepted;
        match &event.result {
            Ok(Some(answer)) => {
                demand(!context.responded, "a context answers once")?;
                self.answer(
                    key,
                    match answer {
                        WasmResult::Reply(reply) => Answer::Reply(reply.clone()),
                        WasmResult::Reject(text) => Answer::Reject(text.clone()),
                    },
                )?;
                self.end_if_idle(key)
            }
            Ok(None) | Err(_) => self.end_if_idle(key),
        }
    }

    /// A callback that failed, and its cleanup with it.
    fn end_callback(&mut self, key: ContextKey) -> Checked {
        self.context(key)?.open_calls -= 1;
        self.end_if_idle(key)
    }

    fn end_if_idle(&mut self, key: ContextKey) -> Checked {
        let context = self.context(key)?;
        if context.open_calls > 0 {
            return Ok(());
        }
        if !context.responded {
            self.answer(key, Answer::Failed)?;
        }
        self.contexts.remove(&key);
        Ok(())
    }

    /// A context answers: its cycles go back.
    fn answer(&mut self, key: ContextKey, answer: Answer) -> Checked {
        let context = self.context(key)?;
        context.responded = true;
        let back = std::mem::replace(&mut context.available, Cycles::ZERO);
        match context.origin {
            // A task may answer; nobody hears it.
            Origin::Task => {}
            Origin::Ingress(id) => {
                let record = self.ingress.get_mut(&id).ok_or("a message that was sent")?;
                record.answer = Some(answer);
            }
            Origin::Call(place) => {
                let call = &mut self.calls[place];
                if call.progress == Progress::Begun {
                    call.progress = Progress::Answered(answer, back);
                }
            }
        }
        Ok(())
    }

    fn context(&mut self, key: ContextKey) -> Checked<&mut Context> {
        self.contexts
            .get_mut(&key)
            .ok_or_else(|| format!("there is no context {key:?}"))
    }

    /// Compares with the state after a round: contexts that the system ended, and what users read.
    ///
    /// # Errors
    /// What differs.
    pub fn compare(&mut self, state: &ReplicatedState) -> Checked {
        self.end_lost_contexts(state)?;
        for (id, record) in &self.ingress {
            let Some(status) = state.ingress_history.get(id) else {
                continue;
            };
            let reads = match (&record.answer, &status.state) {
                (_, IngressState::Done) => true,
                (Some(Answer::Reply(said)), IngressState::Completed(heard)) => said == heard,
                (Some(Answer::Reject(said)), IngressState::Failed(error)) => {
                    error.code == ErrorCode::CanisterRejectedMessage && error.description.ends_with(said)
                }
                (Some(Answer::Failed | Answer::BySystem), IngressState::Failed(_)) => true,
                (Some(_), _) => false,
                (None, IngressState::Completed(_)) => record.message.receiver == CanisterId::MANAGEMENT,
                (None, IngressState::Failed(_)) => !record.has_begun,
                (None, _) => true,
            };
            demand(reads, "users read the answer that was given")
                .map_err(|what| format!("{what}: {record:?} and {status:?}"))?;
        }
        Ok(())
    }

    fn end_lost_contexts(&mut self, state: &ReplicatedState) -> Checked {
        let is_open = |key: &ContextKey| {
            state.canister(&key.0).is_some_and(|canister| {
                let context = canister.system.calls.call_contexts.get(&key.1);
                context.is_some_and(|context| !context.deleted)
            })
        };
        let lost: Vec<ContextKey> = self.contexts.keys().filter(|key| !is_open(key)).copied().collect();
        for key in lost {
            demand(self.losers.contains(&key.0), "a context that the state does not know")?;
            if !self.context(key)?.responded
                && let Origin::Ingress(id) = self.context(key)?.origin
                && let Some(record) = self.ingress.get_mut(&id)
            {
                record.answer = Some(Answer::BySystem);
            }
            self.contexts.remove(&key);
            let calls = self.calls.iter_mut().filter(|call| call.context == key);
            // Responses still come, and their cycles; no callback runs.
            calls.for_each(|call| call.is_over = true);
        }
        Ok(())
    }

    /// At rest nobody waits for anything.
    ///
    /// # Errors
    /// Who does.
    pub fn at_rest(&self) -> Checked {
        demand(self.contexts.is_empty(), "every context has ended")?;
        match self.calls.iter().find(|call| !call.is_over) {
            Some(call) => Err(format!("a call without a response: {call:?}")),
            None => Ok(()),
        }
    }
}

/// Whether a best-effort call ends without anybody knowing what became of it.
fn is_timeout(made: &OutgoingCall, response: &ResponseView) -> bool {
    let is_unknown = matches!(response, ResponseView::Reject(reject) if reject.code == RejectCode::SysUnknown);
    is_unknown && made.request.deadline.is_some()
}

fn key_of(event: &Event) -> Checked<ContextKey> {
    let id = event.context.id.ok_or("a message belongs to a call context")?;
    Ok((event.canister, id))
}

fn demand(holds: bool, what: &str) -> Checked {
    match holds {
        true => Ok(()),
        false => Err(format!("not so: {what}")),
    }
}
