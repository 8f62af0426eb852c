//! What the network stack asks of the replica behind it.

use crate::verify::VerifiedIngress;
use replicore_types::{CanisterId, MessageId, NodeId, Payload, PrincipalId, SubnetId, Time, UserError};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Answer of `GET /api/v2/status`.
#[derive(Clone, Debug)]
pub struct StatusReport {
    /// DER encoding of the root key (133 bytes).
    pub root_key: Arc<[u8]>,
    /// True once requests are served from a certified state.
    pub healthy: bool,
    /// Height of the last certified state.
    pub certified_height: u64,
    /// Name and version of the implementation.
    pub implementation: String,
}

/// Answer to an update call.
#[derive(Clone, Debug)]
pub enum CallReply {
    /// A certificate that holds the final status of the request: 200 `replied`.
    Certificate(Payload),
    /// Accepted, and not finished within the time a caller may wait (or the caller does not wait): 202.
    Accepted,
    /// Refused before it entered a batch: 200 `non_replicated_rejection`.
    Rejected(UserError),
    /// The ingress pool is full: 503 with `Retry-After`.
    Busy(ServiceBusy),
}

/// A bound of the replica that is reached; the text names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceBusy(pub &'static str);

/// Outcome of a query.
#[derive(Clone, Debug)]
pub enum QueryResponse {
    /// `status: replied`
    Replied(Payload),
    /// `status: rejected`; the canister's own rejects carry IC0406.
    Rejected(UserError),
}

/// Answer to a query: the outcome and the node's signature over it.
#[derive(Clone, Debug)]
pub struct QueryReply {
    /// What the query gave.
    pub response: QueryResponse,
    /// Time that the signature covers.
    pub timestamp: Time,
    /// Ed25519 signature by `node` over the response hash with domain `ic-response`.
    pub signature: [u8; 64],
    /// The signing node.
    pub node: NodeId,
}

/// Why a `read_state` request is refused; each becomes an HTTP status with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadStateError {
    /// 400: a path that nobody may ask for, or too many of them.
    InvalidPath(String),
    /// 403: a path that this sender may not read.
    Forbidden(String),
    /// 404: the effective canister or subnet is not here.
    NotFound(String),
    /// 503: no certified state yet.
    Unavailable,
}

/// What a verified query or read_state is addressed to (from the request path).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// `/canister/<effective canister id>/`
    Canister(CanisterId),
    /// `/subnet/<subnet id>/`
    Subnet(SubnetId),
}

/// A verified query call.
#[derive(Clone, Debug)]
pub struct Query {
    /// Where it was sent.
    pub target: Target,
    /// Request id of the query: what the node signature covers.
    pub message_id: MessageId,
    /// Who signed, or anonymous.
    pub source: PrincipalId,
    /// The canister queried; may be the management canister.
    pub receiver: CanisterId,
    /// Method.
    pub method_name: String,
    /// Argument.
    pub method_payload: Payload,
    /// `sender_info`: info bytes and signing canister.
    pub sender_info: Option<(Payload, PrincipalId)>,
}

/// A verified `read_state` request.
#[derive(Clone, Debug)]
pub struct ReadState {
    /// Where it was sent.
    pub target: Target,
    /// Who signed, or anonymous.
    pub source: PrincipalId,
    /// Canister targets of the delegation chain, if it restricts them: request statuses of other canisters are not readable.
    pub delegation_targets: Option<Vec<CanisterId>>,
    /// The paths: sequences of labels.
    pub paths: Vec<Vec<Vec<u8>>>,
}

/// Takes one answer, from any thread, at once or later. Dropping it unanswered makes the network stack answer 500.
pub type Responder<T> = Box<dyn FnOnce(T) + Send>;

/// The replica, as the network stack sees it. Called on network threads: a method returns promptly and answers through
/// the responder, from wherever the work is done.
pub trait ReplicaService: Send + Sync + 'static {
    /// For `GET /api/v2/status`.
    fn status(&self) -> StatusReport;

    /// The time that expiries are judged by.
    fn now(&self) -> Time;

    /// Whether the service wants to be told when calls and queries were received.
    fn wants_arrivals(&self) -> bool {
        false
    }

    /// A call or query was received whole at that time. Told right before it is asked for, on the same thread, where
    /// [`ReplicaService::wants_arrivals`].
    fn arrived(&self, message: &MessageId, at: Instant) {
        let _ = (message, at);
    }

    /// Whether a call of this canister would be taken now. Asked before its signatures are verified, so that what is
    /// refused costs next to nothing; it has to be quick, and it knows of nothing but what has been verified. Calls of
    /// the management canister are not asked about. `waited` is how long the network thread has had the call at least: it
    /// came with others that were looked at first.
    ///
    /// # Errors
    /// The bound that is in the way.
    fn has_room(&self, canister: &CanisterId, waited: Duration) -> Result<(), ServiceBusy> {
        let _ = (canister, waited);
        Ok(())
    }

    /// A verified call. `wait` is how the v3/v4 endpoints differ from v2: the answer is awaited (bounded by the
    /// service), otherwise [`CallReply::Accepted`] comes as soon as the message is in the pool.
    fn call(&self, message: VerifiedIngress, target: Target, wait: bool, respond: Responder<CallReply>);

    /// A verified query.
    fn query(&self, query: Query, respond: Responder<Result<QueryReply, ServiceBusy>>);

    /// A verified `read_state`: the CBOR of a certificate.
    fn read_state(&self, read: ReadState, respond: Responder<Result<Payload, ReadStateError>>);
}
