//! A request on its way to the service.

use super::Answer;
use crate::mailbox::PendingReply;
use crate::service::{Query, ReadState, ReplicaService, Target};
use crate::verify::{VerifiedIngress, VerifyError};
use replicore_types::{CanisterId, MessageId, PrincipalId};
use std::time::Instant;

/// What the service is to be asked, and the duty to answer it.
#[derive(Debug)]
pub(crate) struct Work {
    pub question: Question,
    pub pending: PendingReply,
    /// When it was received, where the service wants to know.
    pub received: Option<Instant>,
}

/// What the service is to be asked: a request with all that outlives the connection's bytes.
#[derive(Debug)]
pub(crate) enum Question {
    Call {
        message: VerifiedIngress,
        target: Target,
        /// The v3 and v4 forms wait for the answer.
        wait: bool,
    },
    Query(Query),
    ReadState(ReadState),
}

impl Question {
    /// The request id of a call or query.
    fn message_id(&self) -> Option<&MessageId> {
        match self {
            Self::Call { message, .. } => Some(&message.message_id),
            Self::Query(query) => Some(&query.message_id),
            Self::ReadState(_) => None,
        }
    }

    /// The sender and the canister that it is counted for.
    pub(super) fn parties(&self) -> (Option<PrincipalId>, Option<PrincipalId>) {
        let (sender, canister) = match self {
            Self::Call { message, .. } => (message.source, Some(message.receiver)),
            Self::Query(query) => (query.source, Some(query.receiver)),
            Self::ReadState(read) => (read.source, None),
        };
        let canister = canister.filter(|canister| *canister != CanisterId::MANAGEMENT);
        (
            Some(sender).filter(|sender| *sender != PrincipalId::anonymous()),
            canister.map(|canister| canister.principal()),
        )
    }
}

impl Work {
    /// Asks the service. Only for what has been verified.
    pub(super) fn start(self, service: &dyn ReplicaService) {
        if let (Some(at), Some(message)) = (self.received, self.question.message_id()) {
            service.arrived(message, at);
        }
        let pending = self.pending;
        match self.question {
            Question::Call { message, target, wait } => service.call(
                message,
                target,
                wait,
                Box::new(move |reply| pending.fulfil(Answer::Call { reply, wait })),
            ),
            Question::Query(query) => {
                service.query(query, Box::new(move |reply| pending.fulfil(Answer::Query(reply))));
            }
            Question::ReadState(read) => {
                service.read_state(read, Box::new(move |reply| pending.fulfil(Answer::ReadState(reply))));
            }
        }
    }

    /// Answers that it could not be verified.
    pub(super) fn refuse(self, error: &VerifyError) {
        self.pending.fulfil(Answer::text(400, error.to_string()));
    }
}
