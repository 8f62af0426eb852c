//! From packets to verified requests, and from answers to packets.
//!
//! In: bytes from sockets. Out: calls of a [`ReplicaService`], each request verified once (signature, expiry, sender,
//! size) and carried by a type that cannot be made otherwise; and the service's answers as HTTP responses. The network
//! stack knows no state: it never executes, never certifies and never decides what a canister may do.
//!
//! ```text
//! ring        bytes in and out: io_uring or epoll, one per thread
//! connection  requests in order, answers in the same order
//! http        parse, route, respond
//! envelope    CBOR to typed content, request id
//! verify      expiry, sender, delegations, signatures and their cache -> VerifiedEnvelope
//! api         one file per endpoint: what the service is asked, how its answers look
//! crowd       who has how much in flight
//! mailbox     answers from any thread back to the connection
//! event_loop  the turn of one network thread
//! plain       other HTTP services on the same loops
//! load        a client on the same rings, for measurements
//! floor       a server on the same rings that does nothing, for measurements
//! ```

#![deny(unsafe_code)]

mod api;
pub mod config;
mod connection;
mod crowd;
pub mod envelope;
mod event_loop;
pub mod floor;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod handler;
mod http;
pub mod load;
mod mailbox;
mod plain;
#[expect(
    unsafe_code,
    reason = "the one place that talks to the kernel; each block says why it is sound"
)]
mod ring;
mod server;
pub mod service;
#[cfg(test)]
mod simulation;
pub mod verify;

pub use config::{NetBackend, NetLimits, RingFeatures, ServerConfig, SignatureCacheConfig};
pub use mailbox::AnswersTogether;
pub use plain::{HttpRequest, HttpResponse, HttpService};
pub use server::{NetStats, Placement, Server, ServerHandle, ServerObserver};
pub use service::{
    CallReply, Query, QueryReply, QueryResponse, ReadState, ReadStateError, ReplicaService, Responder, ServiceBusy,
    StatusReport, Target,
};
pub use verify::VerifiedIngress;
