//! The messages that wait before and behind one canister.

use imbl::OrdMap;
use replicore_types::{CanisterId, Ingress, Request, Response};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// A message from a canister.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CanisterMessage {
    /// A call.
    Request(Arc<Request>),
    /// The answer to a call.
    Response(Arc<Response>),
}

/// The next message that a canister executes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CanisterInput {
    /// From a user.
    Ingress(Arc<Ingress>),
    /// From a canister.
    Canister(CanisterMessage),
}

/// Which kind of input has its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputTurn {
    /// A message from a canister.
    #[default]
    Canister,
    /// An ingress message.
    Ingress,
}

/// Both directions between this canister and one other (or itself).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// What the other canister sent, in its order.
    pub input: VecDeque<CanisterMessage>,
    /// Requests among `input`.
    pub input_requests: usize,
    /// Open calls to the other canister: response slots taken in `input`, waiting responses included.
    pub open_calls: usize,
    /// Requests in `output` for the other canister.
    pub output_requests: usize,
    /// Requests of the other canister that are not answered yet: response slots taken in the output.
    pub open_requests: usize,
}

/// Input and output of one canister.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CanisterQueues {
    pub(crate) ingress: VecDeque<Arc<Ingress>>,
    pub(crate) pairs: OrdMap<CanisterId, Pair>,
    /// Senders with input, in the order of their turns.
    pub(crate) senders: VecDeque<CanisterId>,
    /// Sent messages that are not routed yet, in the order of sending.
    pub(crate) output: VecDeque<CanisterMessage>,
    pub(crate) turn: InputTurn,
    /// Bytes of the messages that wait and of the responses that may come.
    pub(crate) message_bytes: u64,
}
