//! From packets to verified requests, and from answers to packets.
//!
//! In: bytes from sockets. Out: calls of a [`ReplicaService`], each request verified once (signature, expiry, sender,
//! size) and carried by a type that cannot be made otherwise; and the service's answers as HTTP responses. The network
//! stack knows no state: it never executes, never certifies and never decides what a canister may do.

pub mod service;

pub use service::{
    CallReply, Query, QueryReply, QueryResponse, ReadState, ReadStateError, ReplicaService, Responder, ServiceBusy,
    StatusReport, Target,
};
