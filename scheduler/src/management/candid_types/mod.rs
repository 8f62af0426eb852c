//! Arguments and results of the management canister as Candid types.
//!
//! The order of a type table follows from the fields, so a result has exactly the published fields and no others:
//! clients and reference transcripts compare the bytes.

mod args;
mod http;
mod results;
mod threshold;

pub(crate) use args::*;
pub(crate) use http::*;
pub(crate) use results::*;
pub(crate) use threshold::*;

use candid::{CandidType, DecoderConfig, Deserialize};
use replicore_types::{ErrorCode, PrincipalId, UserError};

/// How much work a decoder may spend on skipping fields that it does not know.
const SKIPPING_QUOTA: usize = 10_000;

/// Decodes the one argument of a method.
///
/// # Errors
/// `InvalidManagementPayload` (IC0408) where the bytes are not Candid of this type.
pub(crate) fn decode<T: CandidType + for<'de> Deserialize<'de>>(payload: &[u8]) -> Result<T, UserError> {
    let mut config = DecoderConfig::new();
    config.set_skipping_quota(SKIPPING_QUOTA);
    config.set_full_error_message(false);
    candid::utils::decode_one_with_config(payload, &config).map_err(|error| {
        UserError::new(
            ErrorCode::InvalidManagementPayload,
            format!("Error decoding candid: {error}"),
        )
    })
}

/// Encodes the one result of a method.
///
/// # Errors
/// None for the types here; the error is passed on because a reply must not panic the round.
pub(crate) fn encode<T: CandidType>(result: T) -> Result<Vec<u8>, UserError> {
    candid::encode_one(result).map_err(|error| {
        UserError::new(
            ErrorCode::CanisterContractViolation,
            format!("The reply could not be encoded: {error}"),
        )
    })
}

/// The reply of methods without result: Candid for no values.
pub(crate) const EMPTY_REPLY: &[u8] = b"DIDL\0\0";

/// Who may read a part of the canister beside its controllers.
#[derive(Clone, Debug, PartialEq, Eq, CandidType, Deserialize)]
pub(crate) enum Visibility {
    #[serde(rename = "controllers")]
    Controllers,
    #[serde(rename = "public")]
    Public,
    #[serde(rename = "allowed_viewers")]
    AllowedViewers(Vec<PrincipalId>),
}

/// An environment variable.
#[derive(Clone, Debug, PartialEq, Eq, CandidType, Deserialize)]
pub(crate) struct EnvironmentVariable {
    pub name: String,
    pub value: String,
}

/// The hash of one chunk of a chunk store.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct ChunkHash {
    pub hash: serde_bytes::ByteBuf,
}

/// A global of a module in an uploaded snapshot.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) enum Global {
    #[serde(rename = "i32")]
    I32(i32),
    #[serde(rename = "i64")]
    I64(i64),
    #[serde(rename = "f32")]
    F32(f32),
    #[serde(rename = "f64")]
    F64(f64),
    #[serde(rename = "v128")]
    V128(candid::Nat),
}

/// The global timer in a snapshot.
#[derive(Clone, Copy, Debug, CandidType, Deserialize)]
pub(crate) enum GlobalTimer {
    #[serde(rename = "inactive")]
    Inactive,
    #[serde(rename = "active")]
    Active(u64),
}

/// The state of the low-memory hook in a snapshot.
#[derive(Clone, Copy, Debug, CandidType, Deserialize)]
pub(crate) enum HookStatus {
    #[serde(rename = "condition_not_satisfied")]
    ConditionNotSatisfied,
    #[serde(rename = "ready")]
    Ready,
    #[serde(rename = "executed")]
    Executed,
}
