//! Why a workload ends early, and the steps on which it may.

use crate::agent::{Agent, AgentError, CallOutcome};
use candid::Principal;
use candid::utils::{ArgumentDecoder, ArgumentEncoder};
use std::fmt;

/// Why a workload ended early.
#[derive(Debug)]
pub enum WorkloadError {
    /// The endpoint could not be used.
    Agent(AgentError),
    /// A step was answered otherwise than it must be.
    Unexpected(String),
}

impl WorkloadError {
    /// An answer that must not be.
    pub fn unexpected(what: impl fmt::Display) -> Self {
        Self::Unexpected(what.to_string())
    }
}

impl fmt::Display for WorkloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(error) => error.fmt(f),
            Self::Unexpected(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for WorkloadError {}

impl From<AgentError> for WorkloadError {
    fn from(error: AgentError) -> Self {
        Self::Agent(error)
    }
}

/// The reply of a step that must be replied to.
///
/// # Errors
/// It was rejected, or is not finished.
pub fn replied(step: &str, outcome: CallOutcome) -> Result<Vec<u8>, WorkloadError> {
    match outcome {
        CallOutcome::Replied(reply) => Ok(reply),
        other => Err(WorkloadError::Unexpected(format!("{step}: {other:?}"))),
    }
}

/// A Candid argument.
///
/// # Errors
/// The value has no Candid form.
pub fn encode(result: Result<Vec<u8>, candid::Error>) -> Result<Vec<u8>, WorkloadError> {
    result.map_err(|error| WorkloadError::Unexpected(format!("argument: {error}")))
}

/// A Candid reply.
///
/// # Errors
/// The bytes are of another type.
pub fn decode<T>(result: Result<T, candid::Error>) -> Result<T, WorkloadError> {
    result.map_err(|error| WorkloadError::Unexpected(format!("reply: {error}")))
}

/// Queries a method that must reply.
///
/// # Errors
/// [`WorkloadError`].
pub fn ask<A, R>(agent: &mut Agent, canister: Principal, method: &str, arguments: A) -> Result<R, WorkloadError>
where
    A: ArgumentEncoder,
    R: for<'a> ArgumentDecoder<'a>,
{
    let reply = agent.query(canister, method, &arguments_of(arguments)?)?;
    reply_of(&replied(method, reply)?)
}

/// Calls a method that must reply.
///
/// # Errors
/// [`WorkloadError`].
pub fn tell<A, R>(agent: &mut Agent, canister: Principal, method: &str, arguments: A) -> Result<R, WorkloadError>
where
    A: ArgumentEncoder,
    R: for<'a> ArgumentDecoder<'a>,
{
    let reply = agent.update(canister, method, &arguments_of(arguments)?)?;
    reply_of(&replied(method, reply)?)
}

/// Candid of a tuple of arguments.
///
/// # Errors
/// A value has no Candid form.
pub fn arguments_of(arguments: impl ArgumentEncoder) -> Result<Vec<u8>, WorkloadError> {
    encode(candid::encode_args(arguments))
}

/// A tuple of results from Candid.
///
/// # Errors
/// The bytes are of another type.
pub fn reply_of<R: for<'a> ArgumentDecoder<'a>>(reply: &[u8]) -> Result<R, WorkloadError> {
    decode(candid::decode_args(reply))
}
