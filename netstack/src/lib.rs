//! From packets to verified requests, and from answers to packets.
//!
//! In: bytes from sockets. Out: calls of a [`ReplicaService`], each request verified once (signature, expiry, sender,
//! size) and carried by a type that cannot be made otherwise; and the service's answers as HTTP responses. The network
//! stack knows no state: it never executes, never certifies and never decides what a canister may do.

#![deny(unsafe_code)]

pub mod config;
pub mod envelope;
mod http;
#[expect(
    unsafe_code,
    reason = "the one place that talks to the kernel; each block says why it is sound"
)]
mod ring;
pub mod service;

pub use config::{NetBackend, NetLimits, ServerConfig, SignatureCacheConfig};
pub use service::{
    CallReply, Query, QueryReply, QueryResponse, ReadState, ReadStateError, ReplicaService, Responder, ServiceBusy,
    StatusReport, Target,
};
