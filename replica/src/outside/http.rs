//! Makes HTTP requests for canisters and transforms the responses.

use super::World;
use super::address::PublicResolver;
use crate::config::OutcallsConfig;
use replicore_engine::MethodKind;
use replicore_scheduler::management::{http_reply, transform_argument};
use replicore_scheduler::outcall::{HttpMethod, HttpOutcall, HttpResponse, Transform};
use replicore_scheduler::query::{self, QueryCall};
use replicore_types::limits::{HTTP_HEADER_BYTES_MAX, HTTP_HEADERS_BYTES_MAX, HTTP_HEADERS_MAX};
use replicore_types::{CanisterId, RejectCode, RejectContext, UserError, WasmResult};
use std::io::{self, Read};
use std::time::Duration;
use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::typestate::{WithBody, WithoutBody};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Body, Error, RequestBuilder};

/// Longest time from the beginning of a request to the end of its response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// What the outside sees where a canister names no user agent of its own.
const USER_AGENT: &str = "ic/1.0";

/// Makes requests by the rules of the configuration.
pub struct HttpClient {
    agent: Agent,
    config: OutcallsConfig,
}

impl HttpClient {
    /// A client. It follows no redirect: where to go next is for the canister to decide.
    ///
    /// # Errors
    /// The file with root certificates cannot be read.
    pub fn new(config: &OutcallsConfig) -> io::Result<Self> {
        let roots = match &config.root_certificates {
            None => RootCerts::WebPki,
            Some(path) => {
                let pem = std::fs::read(path)?;
                let certificates = parse_pem(&pem).filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                });
                RootCerts::new_with_certs(&certificates.collect::<Vec<Certificate<'static>>>())
            }
        };
        let settings = Agent::config_builder()
            .timeout_global(Some(REQUEST_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(USER_AGENT)
            .accept("")
            .accept_encoding("")
            .max_response_header_size(HTTP_HEADERS_BYTES_MAX * 2)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .build();
        let resolver = PublicResolver::new(config.allow_loopback);
        Ok(Self {
            agent: Agent::with_parts(settings, DefaultConnector::default(), resolver),
            config: config.clone(),
        })
    }

    /// Makes a request and reads its response.
    fn fetch(&self, outcall: &HttpOutcall) -> Result<HttpResponse, RejectContext> {
        let uri = self.checked_uri(&outcall.url)?;
        let response = match outcall.method {
            HttpMethod::Get => without_body(self.agent.get(&uri), outcall),
            HttpMethod::Head => without_body(self.agent.head(&uri), outcall),
            HttpMethod::Delete => without_body(self.agent.delete(&uri), outcall),
            HttpMethod::Post => with_body(self.agent.post(&uri), outcall),
            HttpMethod::Put => with_body(self.agent.put(&uri), outcall),
            HttpMethod::Patch => with_body(self.agent.patch(&uri), outcall),
        };
        let response = response.map_err(|error| connection_error(&uri, &error))?;
        read_response(response, outcall.response_bytes_max)
    }

    fn checked_uri(&self, url: &str) -> Result<Uri, RejectContext> {
        let failed = |error: &dyn std::fmt::Display| fatal(format!("Failed to parse URL: {error}"));
        let uri: Uri = url.parse().map_err(|error| failed(&error))?;
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if self.config.allow_loopback && is_loopback(&host) => {}
            _ => return Err(fatal("Url need to specify https scheme".into())),
        }
        if !self.config.enabled {
            return Err(fatal("HTTP outcalls are switched off (outcalls.enabled)".into()));
        }
        let is_listed = |hosts: &[String]| hosts.iter().any(|listed| matches_host(listed, &host));
        let OutcallsConfig { allow, deny, .. } = &self.config;
        if is_listed(deny) || !(allow.is_empty() || is_listed(allow)) {
            return Err(fatal(format!(
                "Host {host} is not allowed by the configuration of the replica"
            )));
        }
        Ok(uri)
    }
}

/// Methods that usually have no body; the caller may want one all the same.
fn without_body(request: RequestBuilder<WithoutBody>, outcall: &HttpOutcall) -> Result<Response<Body>, Error> {
    let request = with_headers(request, outcall);
    match outcall.body.as_deref() {
        None | Some([]) => request.call(),
        Some(body) => request.force_send_body().send(body),
    }
}

fn with_body(request: RequestBuilder<WithBody>, outcall: &HttpOutcall) -> Result<Response<Body>, Error> {
    with_headers(request, outcall).send(outcall.body.as_deref().unwrap_or_default())
}

fn with_headers<B>(request: RequestBuilder<B>, outcall: &HttpOutcall) -> RequestBuilder<B> {
    let headers = outcall.headers.iter();
    headers.fold(request, |request, (name, value)| request.header(name, value))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// A listed name stands for itself and, where it begins with a dot, for every name that ends with it.
fn matches_host(listed: &str, host: &str) -> bool {
    match listed.starts_with('.') {
        true => host.ends_with(&listed.to_ascii_lowercase()),
        false => listed.eq_ignore_ascii_case(host),
    }
}

/// Makes the request of `caller` and gives what it is answered.
///
/// # Errors
/// What the caller's call is rejected with.
pub fn answer(
    client: &HttpClient,
    world: &World,
    caller: CanisterId,
    outcall: &HttpOutcall,
) -> Result<Vec<u8>, RejectContext> {
    let response = client.fetch(outcall)?;
    let Some(transform) = &outcall.transform else {
        return http_reply(response).map_err(|error| reject_of(&error));
    };
    let reply = transformed(world, caller, transform, response)?;
    match reply.len() as u64 > outcall.response_bytes_max {
        true => Err(fatal(format!(
            "Transformed http response exceeds limit: {}",
            outcall.response_bytes_max
        ))),
        false => Ok(reply),
    }
}

/// Runs the caller's query on the last certified state; to the query the management canister is the caller.
fn transformed(
    world: &World,
    caller: CanisterId,
    transform: &Transform,
    response: HttpResponse,
) -> Result<Vec<u8>, RejectContext> {
    let argument = transform_argument(response, &transform.context).map_err(|error| reject_of(&error))?;
    let Some(snapshot) = world.published.load() else {
        return Err(fatal("no certified state yet".into()));
    };
    let canister = snapshot.state.canister(&caller);
    let code = canister.and_then(|canister| canister.execution.as_ref());
    if code.and_then(|code| code.interface.method(&transform.method)) == Some(MethodKind::CompositeQuery) {
        let text = format!("Composite query {} cannot be used as transform", transform.method);
        return Err(RejectContext {
            code: RejectCode::CanisterError,
            message: text,
        });
    }
    let query = QueryCall {
        source: CanisterId::MANAGEMENT.0,
        receiver: caller,
        method: transform.method.clone(),
        argument: argument.into(),
        caller_info: None,
    };
    match query::execute_query(&snapshot.state, &*world.engine, query, None) {
        Ok(WasmResult::Reply(reply)) => Ok(reply.to_vec()),
        Ok(WasmResult::Reject(message)) => Err(RejectContext {
            code: RejectCode::CanisterReject,
            message,
        }),
        Err(error) => Err(reject_of(&error)),
    }
}

/// Names and values of the headers and the body together may have `bytes_max` bytes.
fn read_response(response: Response<Body>, bytes_max: u64) -> Result<HttpResponse, RejectContext> {
    let (parts, mut body) = response.into_parts();
    let mut headers = Vec::with_capacity(parts.headers.len());
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.push((name.as_str().to_owned(), value));
    }
    check_headers(&headers)?;
    let header_bytes = headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum::<usize>() as u64;
    let Some(body_bytes_max) = bytes_max.checked_sub(header_bytes) else {
        return Err(fatal(format!(
            "Header size exceeds specified response size limit {bytes_max}"
        )));
    };
    let mut bytes = Vec::new();
    let read = body.as_reader().take(body_bytes_max + 1).read_to_end(&mut bytes);
    if let Err(error) = read {
        return Err(fatal(match error.kind() {
            io::ErrorKind::TimedOut => "Timeout expired".into(),
            _ => format!("Failed to read the http body: {error}"),
        }));
    }
    if bytes.len() as u64 > body_bytes_max {
        return Err(fatal(format!("Http body exceeds size limit of {bytes_max} bytes.")));
    }
    Ok(HttpResponse {
        status: parts.status.as_u16(),
        headers,
        body: bytes,
    })
}

fn check_headers(headers: &[(String, String)]) -> Result<(), RejectContext> {
    let is_long = |(name, value): &(String, String)| name.len().max(value.len()) > HTTP_HEADER_BYTES_MAX;
    let total: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    match headers.len() > HTTP_HEADERS_MAX || headers.iter().any(is_long) || total > HTTP_HEADERS_BYTES_MAX {
        true => Err(fatal(
            "The headers of the response exceed the limits for headers".into(),
        )),
        false => Ok(()),
    }
}

fn connection_error(uri: &Uri, error: &Error) -> RejectContext {
    match error {
        Error::Timeout(_) => fatal("Timeout expired".into()),
        Error::Io(_) | Error::HostNotFound | Error::ConnectionFailed | Error::Tls(_) | Error::Rustls(_) => {
            RejectContext {
                code: RejectCode::SysTransient,
                message: format!("Connecting to {} failed: {error}", uri.host().unwrap_or_default()),
            }
        }
        _ => fatal(format!("Failed to make the request: {error}")),
    }
}

fn reject_of(error: &UserError) -> RejectContext {
    RejectContext {
        code: error.reject_code(),
        message: error.to_string(),
    }
}

fn fatal(message: String) -> RejectContext {
    RejectContext {
        code: RejectCode::SysFatal,
        message,
    }
}
