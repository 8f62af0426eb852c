//! What time ends: messages that waited too long, best-effort calls whose deadline passed.

use crate::round::Round;
use crate::state::{CanisterState, CyclesUseCase};
use replicore_engine::Execute;
use replicore_types::{
    CallbackId, CanisterId, Cycles, ErrorCode, IngressState, IngressStatus, RejectCode, RejectContext, Request,
    Response, ResponsePayload, Time, UserError,
};
use std::sync::Arc;

impl<E: Execute> Round<'_, E> {
    /// Ends what has waited too long at the time of the batch.
    pub fn expire(&mut self) {
        let now = self.context.time;
        let due: Vec<CanisterId> = self.state.activity.due_expiries(now).collect();
        for id in due {
            self.expire_messages(id, now);
            let Some(canister) = self.state.canister_mut(&id) else {
                continue;
            };
            expire_callbacks(canister, now);
            self.wake(id);
        }
    }

    fn expire_messages(&mut self, id: CanisterId, now: Time) {
        let Some(canister) = self.state.canister_mut(&id) else {
            return;
        };
        let expired = canister.system.queues.take_expired_ingress(now);
        let requests = canister.system.queues.take_expired_requests(now);
        for ingress in expired {
            let text = format!(
                "Ingress message {} timed out waiting to start executing.",
                ingress.message_id
            );
            let state = IngressState::Failed(UserError::new(ErrorCode::IngressMessageTimeout, text));
            let status = IngressStatus {
                receiver: id,
                source: ingress.source,
                time: now,
                state,
            };
            self.statuses.give(ingress.message_id, status);
        }
        for request in requests {
            self.give_back_payment(id, &request);
        }
    }

    /// The cycles of a best-effort call that `receiver` did not take up go back to its sender. There is no way back to
    /// another subnet: who is there has had its answer.
    fn give_back_payment(&mut self, receiver: CanisterId, request: &Request) {
        if let Some(sender) = self.state.canister_mut(&request.sender) {
            sender.system.balance += request.payment;
        } else if let Some(receiver) = self.state.canister_mut(&receiver) {
            let consumed = &mut receiver.system.consumed;
            consumed.add(CyclesUseCase::DroppedMessages, request.payment);
        }
    }
}

/// Turns best-effort calls whose deadline has passed into rejects, in the slots that the calls hold. A response that
/// comes later finds no callback and is dropped.
fn expire_callbacks(canister: &mut CanisterState, now: Time) {
    let calls = &mut canister.system.calls;
    while let Some((deadline, callback)) = calls.deadlines.get_min().map(|(key, ())| *key) {
        if deadline.to_time() > now {
            break;
        }
        calls.deadlines.remove(&(deadline, callback));
        let Some(registered) = calls.callbacks.get(&callback) else {
            continue;
        };
        let response = expired(
            canister.system.canister_id,
            registered.callback.respondent,
            callback,
            deadline,
        );
        canister.system.queues.push_response(Arc::new(response));
    }
}

fn expired(
    originator: CanisterId,
    respondent: CanisterId,
    callback: CallbackId,
    deadline: replicore_types::CoarseTime,
) -> Response {
    Response {
        originator,
        respondent,
        originator_reply_callback: callback,
        refund: Cycles::ZERO,
        payload: ResponsePayload::Reject(RejectContext {
            code: RejectCode::SysUnknown,
            message: "Call deadline has expired.".into(),
        }),
        deadline: Some(deadline),
    }
}
