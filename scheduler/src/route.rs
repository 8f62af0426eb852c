//! From outputs to inputs: within the round where the receiver is a running canister of the subnet, into a stream where it
//! lives on another one, otherwise by way of the next round.

use crate::apply;
use crate::induct::accepts_calls;
use crate::management::{self, Answer, error};
use crate::round::Round;
use crate::state::{CallOrigin, CanisterMessage, CanisterState, CyclesUseCase, SubnetMessage, SystemState};
use replicore_engine::Execute;
use replicore_types::{
    CanisterId, Cycles, ErrorCode, IngressState, IngressStatus, RejectCode, RejectContext, Request, Response,
    ResponsePayload, UserError, WasmResult,
};
use std::sync::Arc;

impl<E: Execute> Round<'_, E> {
    /// Delivers what the canisters sent, by sender and in the order of sending.
    pub fn route(&mut self) {
        for sender in std::mem::take(&mut self.unrouted) {
            let Some(canister) = self.state.canister_mut(&sender) else {
                continue;
            };
            for message in canister.system.queues.take_output() {
                self.stats.messages_routed += 1;
                match message {
                    CanisterMessage::Request(request) => self.route_request(request),
                    CanisterMessage::Response(response) => self.deliver_response(response),
                }
            }
        }
    }

    fn route_request(&mut self, request: Arc<Request>) {
        if request.receiver == CanisterId::MANAGEMENT {
            // A call that names no method, or whose argument does not say which canister it is about, has no
            // destination: it fails on the spot.
            match management::effective_canister_id(&request.method_name, &request.payload) {
                Ok(_) => {
                    let subnet = &self.state.metadata.subnet;
                    match management::unroutable(subnet, &request.method_name, &request.payload) {
                        Some(reject) => self.reject(&request, reject),
                        None => self.state.subnet.outbound.push_back(request),
                    }
                }
                Err(error) => self.reject(&request, apply::reject_of(&error)),
            }
            return;
        }
        if let Err(request) = self.try_deliver(request).or_else(|request| self.try_send(request)) {
            self.state.subnet.outbound.push_back(request);
        }
    }

    /// Hands a request to a running canister that has room for it; gives it back otherwise.
    pub fn try_deliver(&mut self, request: Arc<Request>) -> Result<(), Arc<Request>> {
        let receiver = request.receiver;
        match self
            .state
            .canister_mut(&receiver)
            .filter(|canister| accepts_request(&canister.system, &request).is_ok())
        {
            Some(canister) => canister.system.queues.push_request(request)?,
            None => return Err(request),
        }
        self.ready.insert(receiver);
        Ok(())
    }

    /// Hands a response to the canister that waits for it. Where nobody waits any more (a best-effort call that timed
    /// out) it is dropped.
    pub fn deliver_response(&mut self, response: Arc<Response>) {
        let originator = response.originator;
        let Some(canister) = self.state.canister_mut(&originator) else {
            if let Err(response) = self.try_answer(response) {
                self.state.metadata.metrics.consumed_without_canister += response.refund;
            }
            return;
        };
        let callback = response.originator_reply_callback;
        let calls = &canister.system.calls;
        let key = match calls.callbacks.get(&callback) {
            Some(registered) => registered.callback.deadline.map(|deadline| (deadline, callback)),
            None => return drop_response(canister, &response),
        };
        if key.is_some_and(|key| !calls.deadlines.contains_key(&key)) {
            return drop_response(canister, &response);
        }
        if let Some(key) = key {
            // Answered in time: it cannot expire any more.
            canister.system.calls.deadlines.remove(&key);
        }
        canister.system.queues.push_response(response);
        self.ready.insert(originator);
    }

    pub fn reject(&mut self, request: &Request, context: RejectContext) {
        self.respond_to(request, ResponsePayload::Reject(context), request.payment);
    }

    fn respond_to(&mut self, request: &Request, payload: ResponsePayload, refund: Cycles) {
        self.deliver_response(Arc::new(Response {
            originator: request.sender,
            respondent: request.receiver,
            originator_reply_callback: request.sender_reply_callback,
            refund,
            payload,
            deadline: request.deadline,
        }));
    }

    /// What left the last round: answers of the management canister, calls to it, and calls to canisters that were not
    /// there or not running.
    pub fn deliver_outbound(&mut self) {
        for response in std::mem::take(&mut self.state.subnet.responses) {
            self.deliver_response(response);
        }
        for request in std::mem::take(&mut self.state.subnet.outbound) {
            if request.receiver == CanisterId::MANAGEMENT {
                self.state.subnet.inbox.push_back(SubnetMessage::Request(request));
            } else if let Err(request) = self.try_deliver(request) {
                let context = self.refusal(&request);
                self.reject(&request, context);
            }
        }
    }

    /// Why a request cannot be delivered.
    pub fn refusal(&self, request: &Request) -> RejectContext {
        let receiver = request.receiver;
        let (first, last) = self.state.metadata.canister_range;
        let (code, message) = match self.state.canister(&receiver) {
            Some(canister) => match accepts_request(&canister.system, request) {
                Ok(()) => (
                    RejectCode::SysTransient,
                    format!("Queue of canister {receiver} is full"),
                ),
                Err(error) => (error.reject_code(), error.description),
            },
            None if receiver.index().is_some() && (first..=last).contains(&receiver) => (
                RejectCode::DestinationInvalid,
                error::canister_not_found(receiver).description,
            ),
            None => (
                RejectCode::DestinationInvalid,
                format!("No route to canister {receiver}"),
            ),
        };
        RejectContext { code, message }
    }

    /// Delivers an answer that a management call caused.
    pub fn deliver_answer(&mut self, answer: Answer) {
        let Answer {
            respondent,
            origin,
            result,
            refund,
        } = answer;
        match origin {
            CallOrigin::Ingress { source, message_id, .. } => {
                let state = match result {
                    Ok(reply) => IngressState::Completed(reply),
                    Err(error) => IngressState::Failed(error),
                };
                let (receiver, time) = (respondent, self.context.time);
                self.statuses.give(
                    message_id,
                    IngressStatus {
                        receiver,
                        source,
                        time,
                        state,
                    },
                );
            }
            CallOrigin::Canister {
                sender,
                callback,
                deadline,
                ..
            } => {
                let response = Response {
                    originator: sender,
                    respondent,
                    originator_reply_callback: callback,
                    refund,
                    payload: answer_payload(result),
                    deadline,
                };
                self.send_response(response);
            }
            CallOrigin::SystemTask => {}
        }
    }

    /// The management canister's own answers arrive in the next round; those of a canister take its output.
    pub fn send_response(&mut self, response: Response) {
        let respondent = response.respondent;
        let response = Arc::new(response);
        match self.state.canister_mut(&respondent) {
            Some(canister) => {
                canister.system.queues.push_output_response(response);
                self.unrouted.insert(respondent);
            }
            None => self.state.subnet.responses.push_back(response),
        }
    }
}

/// A response that nobody waits for any more: its cycles are lost, and count as that.
fn drop_response(originator: &mut CanisterState, response: &Response) {
    originator
        .system
        .consumed
        .add(CyclesUseCase::DroppedMessages, response.refund);
}

/// Whether a canister takes a call: it runs, and enough cycles are attached. Calls to itself need none.
fn accepts_request(receiver: &SystemState, request: &Request) -> Result<(), UserError> {
    let id = request.receiver;
    accepts_calls(id, &receiver.status)?;
    let minimum = receiver.settings.minimum_incoming_call_cycles;
    if request.sender == id || request.payment >= minimum {
        return Ok(());
    }
    Err(error::too_few_cycles_attached(id, minimum, request.payment))
}

/// An answer as a calling canister reads it. What a canister's user would see as a reject of the canister has no code in
/// its text.
fn answer_payload(result: Result<replicore_types::Payload, UserError>) -> ResponsePayload {
    match result {
        Ok(reply) => apply::response_payload(Ok(WasmResult::Reply(reply))),
        Err(error) if error.code == ErrorCode::CanisterRejectedMessage => {
            apply::response_payload(Ok(WasmResult::Reject(error.description)))
        }
        Err(error) => apply::response_payload(Err(error)),
    }
}
