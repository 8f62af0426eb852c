//! The shared words of replicore: identifiers, amounts, messages, batches, limits, fees and error codes.
//!
//! Everything here is a value. Nothing here does I/O, reads a clock or an environment variable, or depends on another
//! crate of the workspace; every other crate depends on this one.

#![forbid(unsafe_code)]

mod amounts;
mod batch;
mod contention;
mod errors;
pub mod fees;
mod ids;
mod ingress;
pub mod limits;
mod messages;
mod subnet;
mod threshold;
mod time;

pub use amounts::{Cycles, NumBytes, NumInstructions, OS_PAGE_BYTES, WASM_PAGE_BYTES};
pub use batch::{Batch, ConsensusResponse, Randomness, StreamHeader, StreamMessage, StreamSlice};
pub use contention::Lock;
pub use errors::{ErrorCode, RejectCode, UserError};
pub use ids::{CallContextId, CallbackId, CanisterId, MessageId, NodeId, PrincipalId, SubnetId};
pub use ingress::{Ingress, IngressState, IngressStatus, WasmResult};
pub use messages::{Payload, RejectContext, Request, Response, ResponsePayload};
pub use subnet::{CostSchedule, InterfaceVersion, SubnetConfig, SubnetType};
pub use threshold::{KeyName, KeyNames, ThresholdAlgorithm, ThresholdKeyId, ThresholdKeys};
pub use time::{CoarseTime, Height, Time};
