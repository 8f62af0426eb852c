//! Messages between canisters.

use crate::{CallbackId, CanisterId, CoarseTime, Cycles, RejectCode};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Argument or reply bytes, shared between the copies of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Payload(pub Arc<[u8]>);

impl Payload {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl std::ops::Deref for Payload {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Serialize for Payload {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(serde_bytes::ByteBuf::deserialize(deserializer)?.into_vec()))
    }
}

/// A call from a canister to another canister or to the management canister.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who is called.
    pub receiver: CanisterId,
    /// Who calls.
    pub sender: CanisterId,
    /// The caller's callback that takes the response.
    pub sender_reply_callback: CallbackId,
    /// Cycles attached to the call.
    pub payment: Cycles,
    /// The method called.
    pub method_name: String,
    /// The argument.
    pub payload: Payload,
    /// For best-effort calls, when the caller stops waiting; `None` for a guaranteed response.
    pub deadline: Option<CoarseTime>,
}

/// The one answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// Who called.
    pub originator: CanisterId,
    /// Who was called.
    pub respondent: CanisterId,
    /// The caller's callback that takes the response.
    pub originator_reply_callback: CallbackId,
    /// Attached cycles that were not accepted.
    pub refund: Cycles,
    /// What is answered.
    pub payload: ResponsePayload,
    /// The deadline of the request.
    pub deadline: Option<CoarseTime>,
}

/// Reply or reject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponsePayload {
    /// The callee replied with these bytes.
    Data(Payload),
    /// The call was rejected.
    Reject(RejectContext),
}

/// Why a call was rejected, as the caller's reject callback sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectContext {
    /// The class of the rejection.
    pub code: RejectCode,
    /// The text of `ic0.msg_reject_msg_copy`, at most [`crate::limits::REJECT_MESSAGE_BYTES_MAX`] bytes.
    pub message: String,
}
