//! Spans to a collector: OTLP over HTTP in its JSON form (OpenTelemetry protocol 1.x, `ExportTraceServiceRequest`).
//!
//! One request holds what came within a second, or as many spans as one may hold. It is tried once: a collector that is
//! down costs its spans, and never memory or the replica's time.

use super::{Clock, Span, Value};
use crossbeam::channel::{Receiver, RecvTimeoutError};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tracing::warn;
use ureq::Agent;

/// Spans of one request.
const SPANS_MAX: usize = 512;
/// How long a span waits for others.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How long a collector may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often the log says that spans are lost.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// `SPAN_KIND_INTERNAL` and `SPAN_KIND_SERVER` of the protocol.
const KIND_INTERNAL: u8 = 1;
const KIND_SERVER: u8 = 2;
/// `STATUS_CODE_ERROR` of the protocol.
const STATUS_ERROR: u8 = 2;

/// The address that traces are posted to: `/v1/traces` of a collector, unless a path is named.
///
/// # Errors
/// It is no HTTP address.
pub fn traces_url(url: &str) -> Result<String, String> {
    let rule = || format!("`{url}` must be like http://127.0.0.1:4318 or https://collector.example/v1/traces");
    let (scheme, rest) = url.split_once("://").ok_or_else(rule)?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !matches!(scheme, "http" | "https") || host.is_empty() || url.contains(char::is_whitespace) {
        return Err(rule());
    }
    Ok(match path {
        "" => format!("{scheme}://{host}/v1/traces"),
        _ => url.to_owned(),
    })
}

/// Sends spans.
pub(super) struct Exporter {
    url: String,
    agent: Agent,
    resource: Resource,
    clock: Clock,
    lost: Arc<AtomicU64>,
}

impl Exporter {
    pub fn new(url: &str, subnet: &str, lost: Arc<AtomicU64>) -> Self {
        let agent = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .build()
            .new_agent();
        let text = |key, value: &str| Attribute::new(key, &Value::Text(value.to_owned()));
        Self {
            // Checked with the configuration.
            url: traces_url(url).unwrap_or_else(|_| url.to_owned()),
            agent,
            resource: Resource {
                attributes: vec![
                    text("service.name", "replicore"),
                    text("service.version", env!("CARGO_PKG_VERSION")),
                    text("replicore.subnet", subnet),
                ],
            },
            clock: Clock::new(),
            lost,
        }
    }

    /// Sends what comes until nobody can send any more.
    pub fn run(self, spans: &Receiver<Span>) {
        let (mut complained, mut told) = (None::<Instant>, 0);
        loop {
            let (group, is_over) = collect(spans);
            if !group.is_empty()
                && let Err(error) = self.send(&group)
            {
                self.lost.fetch_add(group.len() as u64, Ordering::Relaxed);
                let is_due = complained.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL);
                if is_due {
                    complained = Some(Instant::now());
                    warn!(%error, url = self.url, "the collector does not take spans");
                }
            }
            let lost = self.lost.load(Ordering::Relaxed);
            if is_over && lost > told {
                warn!(lost, "spans were lost");
            }
            told = lost;
            if is_over {
                return;
            }
        }
    }

    fn send(&self, group: &[Span]) -> Result<(), String> {
        let body = serde_json::to_vec(&self.request(group)).map_err(|error| error.to_string())?;
        let request = self.agent.post(&self.url).header("content-type", "application/json");
        request.send(&body[..]).map(drop).map_err(|error| error.to_string())
    }

    fn request(&self, group: &[Span]) -> Request<'_> {
        Request {
            resource_spans: [ResourceSpans {
                resource: &self.resource,
                scope_spans: [ScopeSpans {
                    scope: Scope { name: "replicore" },
                    spans: group.iter().map(|span| JsonSpan::new(span, &self.clock)).collect(),
                }],
            }],
        }
    }
}

/// What came within [`WAIT_MAX`] of the first span, or [`SPANS_MAX`]; and whether nothing more will come.
fn collect(spans: &Receiver<Span>) -> (Vec<Span>, bool) {
    let Ok(first) = spans.recv() else {
        return (Vec::new(), true);
    };
    let deadline = Instant::now() + WAIT_MAX;
    let mut group = vec![first];
    while group.len() < SPANS_MAX {
        match spans.recv_deadline(deadline) {
            Ok(span) => group.push(span),
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return (group, true),
        }
    }
    (group, false)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: &'a Resource,
    scope_spans: [ScopeSpans; 1],
}

#[derive(Serialize)]
struct Resource {
    attributes: Vec<Attribute>,
}

#[derive(Serialize)]
struct ScopeSpans {
    scope: Scope,
    spans: Vec<JsonSpan>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonSpan {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    parent_span_id: String,
    name: &'static str,
    kind: u8,
    /// 64-bit numbers are texts in the JSON form.
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
}

#[derive(Serialize)]
struct Status {
    code: u8,
    message: String,
}

#[derive(Serialize)]
struct Attribute {
    key: &'static str,
    value: AnyValue,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum AnyValue {
    StringValue(String),
    IntValue(String),
}

impl Attribute {
    fn new(key: &'static str, value: &Value) -> Self {
        let value = match value {
            Value::Text(text) => AnyValue::StringValue(text.clone()),
            Value::Number(number) => AnyValue::IntValue(number.to_string()),
        };
        Self { key, value }
    }
}

impl JsonSpan {
    fn new(span: &Span, clock: &Clock) -> Self {
        Self {
            trace_id: span.trace_id(),
            span_id: span.span_id(),
            parent_span_id: span.parent_id(),
            name: span.stage.name(),
            kind: match span.stage.is_whole() {
                true => KIND_SERVER,
                false => KIND_INTERNAL,
            },
            start_time_unix_nano: clock.nanos(span.begin).to_string(),
            end_time_unix_nano: clock.nanos(span.end).to_string(),
            attributes: span
                .attributes
                .iter()
                .map(|(key, value)| Attribute::new(key, value))
                .collect(),
            status: span.error.clone().map(|message| Status {
                code: STATUS_ERROR,
                message,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_path_is_added_where_none_is_named() {
        for (given, expected) in [
            ("http://127.0.0.1:4318", Ok("http://127.0.0.1:4318/v1/traces")),
            ("http://127.0.0.1:4318/", Ok("http://127.0.0.1:4318/v1/traces")),
            ("https://a.example/v1/traces", Ok("https://a.example/v1/traces")),
            ("localhost:4318", Err(())),
            ("ftp://a.example", Err(())),
            ("http://", Err(())),
            ("http://a b", Err(())),
        ] {
            let url = traces_url(given);
            assert_eq!(url.as_deref().map_err(|_| ()), expected, "{given}");
        }
    }
}
