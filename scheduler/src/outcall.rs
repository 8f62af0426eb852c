//! HTTP outcalls as the state keeps them until their answer comes with a batch.

use replicore_types::Payload;
use serde::{Deserialize, Serialize};

/// Methods of HTTP requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HttpMethod {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `DELETE`
    Delete,
    /// `PATCH`
    Patch,
}

impl HttpMethod {
    /// The name in a request line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Patch => "PATCH",
        }
    }
}

/// A query of the calling canister that makes of a response what the canister gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transform {
    /// The query.
    pub method: String,
    /// Handed to it beside the response.
    pub context: Payload,
}

/// A request that a canister wants made. Sizes are checked; whether the URL is one is seen by who makes the request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpOutcall {
    /// Where to.
    pub url: String,
    /// How.
    pub method: HttpMethod,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The request's body.
    pub body: Option<Payload>,
    /// Bytes that the response may have: names and values of its headers and its body; and its encoding after the
    /// transformation.
    pub response_bytes_max: u64,
    /// What is done with the response.
    pub transform: Option<Transform>,
}

/// A response as it came, or as the transformation left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}
