//! One call while it is executed.

use super::{Answer, ManagementWork, error};
use crate::state::{
    CallOrigin, CanisterState, ChangeOrigin, ReplicatedState, SubnetCallContext, SubnetCallKind, SubnetMessage,
};
use replicore_types::{
    CallbackId, CanisterId, Cycles, NumInstructions, Payload, PrincipalId, SubnetConfig, Time, UserError,
};
use std::sync::Arc;

/// How a method answers its caller.
pub(crate) enum Reply {
    /// With these bytes.
    Now(Vec<u8>),
    /// In a later round: what waits for the answer is in the state.
    Later,
}

impl Reply {
    /// The reply of methods without result.
    pub fn empty() -> Self {
        Self::Now(super::types::EMPTY_REPLY.to_vec())
    }
}

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The principal.
    pub principal: PrincipalId,
    /// The canister, where it is one of this subnet's canisters that calls.
    pub canister: Option<CanisterId>,
    /// Where the answer goes.
    pub origin: CallOrigin,
}

/// One call while it is executed.
pub(crate) struct Work<'a, E> {
    /// The call itself.
    pub message: &'a SubnetMessage,
    /// The state, before and after.
    pub state: &'a mut ReplicatedState,
    /// What runs canisters' code.
    pub engine: &'a E,
    /// Who calls.
    pub caller: Caller,
    /// Attached cycles that the method has not taken.
    pub cycles: Cycles,
    /// Instructions that count against the round.
    pub instructions: NumInstructions,
    /// Answers to others.
    pub answers: Vec<Answer>,
}

impl<'a, E> Work<'a, E> {
    /// Nothing is done yet.
    pub fn new(message: &'a SubnetMessage, state: &'a mut ReplicatedState, engine: &'a E) -> Self {
        let (caller, cycles) = caller_of(message);
        Self {
            message,
            state,
            engine,
            caller,
            cycles,
            instructions: NumInstructions::ZERO,
            answers: Vec::new(),
        }
    }

    /// What fees depend on.
    pub fn subnet(&self) -> SubnetConfig {
        self.state.metadata.subnet
    }

    /// Time of the batch.
    pub fn now(&self) -> Time {
        self.state.metadata.time
    }

    /// A canister.
    ///
    /// # Errors
    /// `CanisterNotFound` (IC0301).
    pub fn canister(&self, id: CanisterId) -> Result<&CanisterState, UserError> {
        self.state.canister(&id).ok_or_else(|| error::target_not_found(id))
    }

    /// A canister, to be changed.
    ///
    /// # Errors
    /// `CanisterNotFound` (IC0301).
    pub fn canister_mut(&mut self, id: CanisterId) -> Result<&mut CanisterState, UserError> {
        self.state.canister_mut(&id).ok_or_else(|| error::target_not_found(id))
    }

    /// Checks that the canister exists and that the caller controls it.
    ///
    /// # Errors
    /// `CanisterNotFound` (IC0301), `CanisterInvalidController` (IC0512).
    pub fn check_controller(&self, id: CanisterId) -> Result<&CanisterState, UserError> {
        let canister = self.canister(id)?;
        if canister.system.is_controller(&self.caller.principal) {
            return Ok(canister);
        }
        Err(error::not_controller(
            id,
            canister.system.settings.controllers.iter(),
            self.caller.principal,
        ))
    }

    /// [`Self::check_controller`], with the canister itself allowed too.
    ///
    /// # Errors
    /// As there.
    pub fn check_controller_or_self(&self, id: CanisterId) -> Result<&CanisterState, UserError> {
        if self.caller.canister == Some(id) {
            self.canister(id)
        } else {
            self.check_controller(id)
        }
    }

    /// Who makes a change, for the canister history. `version` is what the caller says its own version is.
    pub fn change_origin(&self, version: Option<u64>) -> ChangeOrigin {
        match self.caller.canister {
            Some(canister) => ChangeOrigin::Canister { canister, version },
            None => ChangeOrigin::User {
                user: self.caller.principal,
            },
        }
    }

    /// Puts the call aside until something outside the round happens.
    pub fn wait_for(&mut self, kind: SubnetCallKind) -> Reply {
        let subnet = &mut self.state.subnet;
        subnet.last_call_context += 1;
        let context = SubnetCallContext {
            message: self.message.clone(),
            cycles: self.cycles,
            time: self.state.metadata.time,
            kind,
        };
        subnet
            .call_contexts
            .insert(CallbackId(subnet.last_call_context), Arc::new(context));
        Reply::Later
    }

    /// Adds the answer for the caller to those for others. An error gives all attached cycles back that are left.
    pub fn finish(mut self, result: Result<Reply, UserError>) -> ManagementWork {
        let result = match result {
            Ok(Reply::Later) => {
                return ManagementWork {
                    answers: self.answers,
                    instructions: self.instructions,
                };
            }
            Ok(Reply::Now(bytes)) => Ok(Payload::from(bytes)),
            Err(error) => Err(error),
        };
        self.answers.push(Answer {
            respondent: CanisterId::MANAGEMENT,
            origin: self.caller.origin,
            result,
            refund: self.cycles,
        });
        ManagementWork {
            answers: self.answers,
            instructions: self.instructions,
        }
    }
}

/// Who sent a message, and the cycles attached.
pub(crate) fn caller_of(message: &SubnetMessage) -> (Caller, Cycles) {
    match message {
        SubnetMessage::Ingress(ingress) => {
            let origin = CallOrigin::Ingress {
                source: ingress.source,
                message_id: ingress.message_id,
                method_name: ingress.method_name.clone(),
            };
            (
                Caller {
                    principal: ingress.source,
                    canister: None,
                    origin,
                },
                Cycles::ZERO,
            )
        }
        SubnetMessage::Request(request) => {
            let origin = CallOrigin::Canister {
                sender: request.sender,
                callback: request.sender_reply_callback,
                deadline: request.deadline,
                method_name: request.method_name.clone(),
            };
            (
                Caller {
                    principal: request.sender.0,
                    canister: Some(request.sender),
                    origin,
                },
                request.payment,
            )
        }
    }
}
