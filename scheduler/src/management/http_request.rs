//! `http_request`: checked and paid for here, made by the process outside of all rounds, answered by way of a batch.

use super::error;
use super::types::{self, HttpHeader, HttpMethod as Method, HttpRequestArgs, HttpRequestResult, TransformArgs};
use super::work::{Reply, Work};
use crate::outcall::{HttpMethod, HttpOutcall, HttpResponse, Transform};
use crate::state::{CyclesUseCase, SubnetCallKind};
use candid::Nat;
use replicore_types::limits::{
    HTTP_HEADER_BYTES_MAX, HTTP_HEADERS_BYTES_MAX, HTTP_HEADERS_MAX, HTTP_REQUEST_BYTES_MAX, HTTP_RESPONSE_BYTES_MAX,
    HTTP_URL_BYTES_MAX,
};
use replicore_types::{NumBytes, PrincipalId, UserError};
use serde_bytes::ByteBuf;
use std::sync::Arc;

/// `http_request`
pub(crate) fn http_request<E>(work: &mut Work<'_, E>, args: HttpRequestArgs) -> Result<Reply, UserError> {
    let outcall = checked(args, work.caller.principal)?;
    let subnet = work.subnet();
    let request = NumBytes(request_bytes(&outcall) as u64);
    let fee = subnet.fee(|subnet| subnet.http_request_fee(request, NumBytes(outcall.response_bytes_max)));
    let Some(left) = work.cycles.checked_sub(fee.taken) else {
        return Err(error::request_underpaid("http_request", work.cycles, fee.taken));
    };
    work.cycles = left;
    if let Some(canister) = work.caller.canister.and_then(|id| work.state.canister_mut(&id)) {
        canister.system.consumed.add(CyclesUseCase::HttpOutcalls, fee.counted);
    }
    Ok(work.wait_for(SubnetCallKind::HttpRequest(Arc::new(outcall))))
}

/// The argument of the transformation of `response`.
///
/// # Errors
/// None in practice; see [`crate::management`].
pub fn transform_argument(response: HttpResponse, context: &[u8]) -> Result<Vec<u8>, UserError> {
    types::encode(TransformArgs {
        response: result_of(response),
        context: ByteBuf::from(context),
    })
}

/// What the caller of an outcall without transformation gets.
///
/// # Errors
/// None in practice; see [`crate::management`].
pub fn http_reply(response: HttpResponse) -> Result<Vec<u8>, UserError> {
    types::encode(result_of(response))
}

fn result_of(response: HttpResponse) -> HttpRequestResult {
    HttpRequestResult {
        status: Nat::from(response.status),
        headers: response
            .headers
            .into_iter()
            .map(|(name, value)| HttpHeader { name, value })
            .collect(),
        body: ByteBuf::from(response.body),
    }
}

/// Checks an outcall in the order of the production replica.
fn checked(args: HttpRequestArgs, caller: PrincipalId) -> Result<HttpOutcall, UserError> {
    let transform = args.transform.map(|transform| {
        let function = transform.function.0;
        let owner = PrincipalId::from_slice(function.principal.as_slice());
        if owner != caller {
            return Err(error::rejected(format!(
                "transform principal id expected to be {caller}, got {owner}"
            )));
        }
        Ok(Transform {
            method: function.method,
            context: transform.context.into_vec().into(),
        })
    });
    let transform = transform.transpose()?;
    if args.url.len() > HTTP_URL_BYTES_MAX {
        let text = format!("url size {} exceeds {HTTP_URL_BYTES_MAX}", args.url.len());
        return Err(error::rejected(text));
    }
    let body_bytes = args.body.as_ref().map_or(0, |body| body.len());
    check_headers(&args.headers, body_bytes)?;
    let response_bytes_max = args.max_response_bytes.unwrap_or(HTTP_RESPONSE_BYTES_MAX);
    if response_bytes_max > HTTP_RESPONSE_BYTES_MAX {
        return Err(error::rejected(format!(
            "max_response_bytes expected to be in the range [0..{HTTP_RESPONSE_BYTES_MAX}], got {response_bytes_max}"
        )));
    }
    // A replicated request is made by many: what changes the server must not be repeated.
    if matches!(args.method, Method::put | Method::delete | Method::patch) && args.is_replicated != Some(false) {
        return Err(error::rejected(
            "The requested HTTP method is only allowed for non-replicated requests.",
        ));
    }
    Ok(HttpOutcall {
        url: args.url,
        method: method_of(args.method),
        headers: args
            .headers
            .into_iter()
            .map(|HttpHeader { name, value }| (name, value))
            .collect(),
        body: args.body.map(|body| body.into_vec().into()),
        response_bytes_max,
        transform,
    })
}

fn method_of(method: Method) -> HttpMethod {
    match method {
        Method::get => HttpMethod::Get,
        Method::head => HttpMethod::Head,
        Method::post => HttpMethod::Post,
        Method::put => HttpMethod::Put,
        Method::delete => HttpMethod::Delete,
        Method::patch => HttpMethod::Patch,
    }
}

fn check_headers(headers: &[HttpHeader], body_bytes: usize) -> Result<(), UserError> {
    let longest = |length: fn(&HttpHeader) -> usize| headers.iter().map(length).max().unwrap_or(0);
    let (name, value) = (
        longest(|header| header.name.len()),
        longest(|header| header.value.len()),
    );
    let total: usize = headers
        .iter()
        .map(|header| header.name.len() + header.value.len())
        .sum();
    let rules = [
        ("number of all http headers", headers.len(), HTTP_HEADERS_MAX),
        (
            "number of bytes to represent some http header name",
            name,
            HTTP_HEADER_BYTES_MAX,
        ),
        (
            "number of bytes to represent some http header value",
            value,
            HTTP_HEADER_BYTES_MAX,
        ),
        (
            "total number of bytes to represent all http header names and values",
            total,
            HTTP_HEADERS_BYTES_MAX,
        ),
        (
            "total number of bytes to represent all http header names and values and http body",
            total + body_bytes,
            HTTP_REQUEST_BYTES_MAX,
        ),
    ];
    match rules.into_iter().find(|(_, found, max)| found > max) {
        Some((what, found, max)) => Err(error::rejected(format!("{what} {found} exceeds {max}"))),
        None => Ok(()),
    }
}

/// Bytes that a request is charged for.
fn request_bytes(outcall: &HttpOutcall) -> usize {
    let headers: usize = outcall
        .headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let transform = outcall.transform.as_ref();
    outcall.url.len()
        + headers
        + outcall.body.as_ref().map_or(0, |body| body.len())
        + transform.map_or(0, |transform| transform.method.len() + transform.context.len())
}
