//! HTTP outcalls.

use candid::{CandidType, Deserialize, Nat};
use serde_bytes::ByteBuf;

/// A header of a request or a response.
#[derive(Clone, Debug, PartialEq, Eq, CandidType, Deserialize)]
pub(crate) struct HttpHeader {
    pub name: String,
    pub value: String,
}

/// Methods of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, CandidType, Deserialize)]
#[allow(non_camel_case_types, reason = "the Candid names")]
pub(crate) enum HttpMethod {
    get,
    head,
    post,
    put,
    delete,
    patch,
}

/// What comes back, before and after the transformation.
#[derive(Clone, Debug, PartialEq, Eq, CandidType, Deserialize)]
pub(crate) struct HttpRequestResult {
    pub status: Nat,
    pub headers: Vec<HttpHeader>,
    pub body: ByteBuf,
}

/// The argument of a transformation.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct TransformArgs {
    pub response: HttpRequestResult,
    pub context: ByteBuf,
}

candid::define_function!(pub(crate) TransformFunction : (TransformArgs) -> (HttpRequestResult) query);

/// Which query of the caller makes of the response what the caller gets.
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct TransformContext {
    pub function: TransformFunction,
    pub context: ByteBuf,
}

/// `http_request`
#[derive(Clone, Debug, CandidType, Deserialize)]
pub(crate) struct HttpRequestArgs {
    pub url: String,
    pub max_response_bytes: Option<u64>,
    pub method: HttpMethod,
    pub headers: Vec<HttpHeader>,
    pub body: Option<ByteBuf>,
    pub transform: Option<TransformContext>,
    pub is_replicated: Option<bool>,
    pub pricing_version: Option<u32>,
}
