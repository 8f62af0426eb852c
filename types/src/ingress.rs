//! Ingress messages, after verification, and what becomes of them.

use crate::{CanisterId, MessageId, Payload, PrincipalId, Time, UserError};
use serde::{Deserialize, Serialize};

/// A verified call from outside, as it travels in a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingress {
    /// Request id of the call; no two inducted messages have the same one.
    pub message_id: MessageId,
    /// Who signed, or the anonymous principal.
    pub source: PrincipalId,
    /// The canister addressed; may be the management canister.
    pub receiver: CanisterId,
    /// The canister from the request path; for management calls the one that the call is about.
    /// `None` for calls through the subnet endpoint.
    pub effective_canister_id: Option<CanisterId>,
    /// The method called.
    pub method_name: String,
    /// The argument.
    pub method_payload: Payload,
    /// The message is inducted at no batch time after this one.
    pub expiry: Time,
    /// Size of the envelope in bytes: what the induction fee is charged for.
    pub envelope_bytes: u32,
    /// Signed attributes of the sender (`sender_info` of the envelope): the info bytes and the signing canister.
    pub sender_info: Option<(Payload, PrincipalId)>,
}

/// The answer that a canister method gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WasmResult {
    /// `ic0.msg_reply` with these bytes.
    Reply(Payload),
    /// `ic0.msg_reject` with this text.
    Reject(String),
}

/// What is known of a request id (interface specification, "Request status").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngressStatus {
    /// The canister addressed.
    pub receiver: CanisterId,
    /// Who sent the message.
    pub source: PrincipalId,
    /// Batch time at which the message was inducted.
    pub time: Time,
    /// How far it has come.
    pub state: IngressState,
}

/// How far an ingress message has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IngressState {
    /// Inducted and waiting in its canister's queue.
    Received,
    /// Its call context exists and has not responded.
    Processing,
    /// The canister replied.
    Completed(Payload),
    /// The call was rejected, by the canister (code 406) or by the system.
    Failed(UserError),
    /// An answer existed and has been dropped to bound the history.
    Done,
}

impl IngressState {
    /// True once no further change but to `Done` can follow.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Completed(_) | Self::Failed(_) | Self::Done)
    }
}
