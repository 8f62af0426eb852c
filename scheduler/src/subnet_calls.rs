//! Calls of the management canister: what follows from them, and how answers find their way.

use crate::limits::MANAGEMENT_CALL_OVERHEAD_INSTRUCTIONS;
use crate::management::{self, Answer, ManagementWork};
use crate::round::Round;
use crate::state::{CallOrigin, CanisterStatus, StopContext, SubnetCallContext, SubnetCallKind, SubnetMessage};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use replicore_engine::Execute;
use replicore_types::limits::{HTTP_OUTCALL_TIMEOUT, STOP_CANISTER_TIMEOUT};
use replicore_types::{
    CallbackId, CanisterId, ConsensusResponse, ErrorCode, IngressState, IngressStatus, Payload, Randomness, RejectCode,
    RejectContext, Response, ResponsePayload, Time, UserError,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Candid of no values.
const EMPTY_REPLY: &[u8] = b"DIDL\0\0";

impl<E: Execute> Round<'_, E> {
    /// What follows from a call that was executed.
    pub fn finish_management_call(
        &mut self,
        message: &SubnetMessage,
        work: ManagementWork,
        touched_before: BTreeSet<CanisterId>,
    ) -> u64 {
        self.stats.management_calls += 1;
        if let SubnetMessage::Ingress(ingress) = message {
            // Where the answer is among those below it replaces this.
            let status = IngressStatus {
                receiver: ingress.receiver,
                source: ingress.source,
                time: self.context.time,
                state: IngressState::Processing,
            };
            self.statuses.give(ingress.message_id, status);
        }
        self.finish_management_work(work, touched_before)
    }

    /// Executes the next slice of the code install that is under way.
    pub fn resume_install(&mut self) {
        let touched_before = std::mem::take(&mut self.state.touched);
        match management::resume_install(&mut self.state, self.engine) {
            Some(work) => {
                self.finish_management_work(work, touched_before);
            }
            None => self.state.touched = touched_before,
        }
    }

    /// Delivers answers, wakes whom the work has changed, and counts it. Management work has its own part of the
    /// round, so that installs hold no canister up.
    fn finish_management_work(&mut self, work: ManagementWork, touched_before: BTreeSet<CanisterId>) -> u64 {
        for answer in work.answers {
            self.deliver_answer(answer);
        }
        let touched = std::mem::replace(&mut self.state.touched, touched_before);
        for id in &touched {
            self.wake(*id);
        }
        self.state.touched.extend(touched);
        let instructions = work.instructions.0 + MANAGEMENT_CALL_OVERHEAD_INSTRUCTIONS;
        self.management_instructions += instructions;
        self.stats.instructions += work.instructions.0;
        instructions
    }

    /// Answers calls that waited for this batch: for its randomness, or for a response that it brings.
    pub fn answer_waiting(&mut self, randomness: Randomness, responses: Vec<ConsensusResponse>) {
        let is_random = |context: &SubnetCallContext| context.kind == SubnetCallKind::RawRand;
        let contexts = self.state.subnet.call_contexts.iter();
        let waiting: Vec<CallbackId> = contexts
            .filter(|(_, context)| is_random(context))
            .map(|(id, _)| *id)
            .collect();
        let mut generator = ChaCha20Rng::from_seed(randomness.0);
        for id in waiting {
            let mut bytes = [0; 32];
            generator.fill_bytes(&mut bytes);
            if let Some(context) = self.state.subnet.call_contexts.remove(&id) {
                self.answer_context(&context, management::raw_rand_reply(bytes));
            }
        }
        for ConsensusResponse { callback, payload } in responses {
            // One for an unknown call was answered before.
            if let Some(context) = self.state.subnet.call_contexts.remove(&callback) {
                self.answer_from_outside(&context, payload);
            }
        }
        self.give_up_outcalls();
    }

    /// Outcalls that nobody answered in time.
    fn give_up_outcalls(&mut self) {
        let now = self.context.time;
        let is_overdue = |context: &SubnetCallContext| {
            matches!(context.kind, SubnetCallKind::HttpRequest(_)) && now.since(context.time) >= HTTP_OUTCALL_TIMEOUT
        };
        let contexts = self.state.subnet.call_contexts.iter();
        let overdue: Vec<CallbackId> = contexts
            .filter(|(_, context)| is_overdue(context))
            .map(|(id, _)| *id)
            .collect();
        for id in overdue {
            if let Some(context) = self.state.subnet.call_contexts.remove(&id) {
                let reject = RejectContext {
                    code: RejectCode::SysTransient,
                    message: "Canister http request timed out".into(),
                };
                self.answer_from_outside(&context, ResponsePayload::Reject(reject));
            }
        }
    }

    /// Answers a call with what came from outside, word by word.
    fn answer_from_outside(&mut self, context: &SubnetCallContext, payload: ResponsePayload) {
        // Only canisters call what is answered from outside.
        if let SubnetMessage::Request(request) = &context.message {
            self.send_response(Response {
                originator: request.sender,
                respondent: CanisterId::MANAGEMENT,
                originator_reply_callback: request.sender_reply_callback,
                refund: context.cycles,
                payload,
                deadline: request.deadline,
            });
        }
    }

    fn answer_context(&mut self, context: &Arc<SubnetCallContext>, result: Result<Payload, UserError>) {
        let origin = match &context.message {
            SubnetMessage::Ingress(ingress) => CallOrigin::Ingress {
                source: ingress.source,
                message_id: ingress.message_id,
                method_name: ingress.method_name.clone(),
            },
            SubnetMessage::Request(request) => CallOrigin::Canister {
                sender: request.sender,
                callback: request.sender_reply_callback,
                deadline: request.deadline,
                method_name: request.method_name.clone(),
            },
        };
        self.deliver_answer(Answer {
            respondent: CanisterId::MANAGEMENT,
            origin,
            result,
            refund: context.cycles,
        });
    }

    /// Stops stopping canisters that have no open call context left, and gives up on those that wait too long.
    pub fn stop_canisters(&mut self) {
        let now = self.context.time;
        let mut stopping: BTreeSet<CanisterId> = self.state.activity.stopping().collect();
        stopping.extend(self.state.touched.iter().copied());
        for id in stopping {
            let Some(canister) = self.state.canister(&id) else {
                continue;
            };
            let CanisterStatus::Stopping(contexts) = &canister.system.status else {
                continue;
            };
            let is_idle = canister.system.calls.is_idle() && !self.state.is_between_slices(&id);
            if is_idle {
                self.finish_stop(id);
            } else if contexts.iter().any(|context| is_overdue(context, now)) {
                self.time_out_stops(id, now);
            }
        }
    }

    fn finish_stop(&mut self, id: CanisterId) {
        let Some(canister) = self.state.canister_mut(&id) else {
            return;
        };
        let status = std::mem::replace(&mut canister.system.status, CanisterStatus::Stopped);
        canister.system.version += 1;
        let CanisterStatus::Stopping(contexts) = status else {
            return;
        };
        for context in contexts {
            self.deliver_answer(management::stop_answer(context, Ok(Payload::from(EMPTY_REPLY))));
        }
    }

    fn time_out_stops(&mut self, id: CanisterId, now: Time) {
        let Some(canister) = self.state.canister_mut(&id) else {
            return;
        };
        let CanisterStatus::Stopping(contexts) = &mut canister.system.status else {
            return;
        };
        let (overdue, kept): (Vec<_>, Vec<_>) = contexts.drain(..).partition(|context| is_overdue(context, now));
        *contexts = kept;
        for context in overdue {
            let error = UserError::new(ErrorCode::StopCanisterRequestTimeout, "Stop canister request timed out");
            self.deliver_answer(management::stop_answer(context, Err(error)));
        }
    }
}

fn is_overdue(context: &StopContext, now: Time) -> bool {
    let (StopContext::Ingress { started, .. } | StopContext::Canister { started, .. }) = context;
    now.since(*started) >= STOP_CANISTER_TIMEOUT
}
