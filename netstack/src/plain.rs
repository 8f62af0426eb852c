//! Plain HTTP on the same event loops: no envelopes, no signatures, the answer at once.
//!
//! For what is not the public interface but has to share its transport: measurements of the transport itself, pages
//! and probes beside it. Pages of other origins may not read the answers: these are for who runs the server.

use crate::api::{Answer, Work};
use crate::handler::{Handler, Turn};
use crate::http::parse::{Method, Request};
use crate::mailbox::ReplyAddress;
use crate::server::NetStats;
use crate::verify::Batch;
use replicore_types::Payload;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A whole request, borrowed from the connection's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpRequest<'a> {
    /// `GET`, `HEAD` or `POST`; other methods are answered 405 before this.
    pub method: &'static str,
    /// The path, without scheme, host and query.
    pub path: &'a str,
    /// The body, chunks joined.
    pub body: &'a [u8],
}

/// An answer.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// Status code. One that the server has no words for is sent as 500.
    pub status: u16,
    /// Value of `content-type`.
    pub content_type: &'static str,
    /// The body; left out in an answer to HEAD.
    pub body: Payload,
}

/// Answers plain requests. Called on network threads, so it returns promptly.
pub trait HttpService: Send + Sync + 'static {
    /// The answer to one request.
    fn respond(&self, request: HttpRequest<'_>) -> HttpResponse;
}

/// An [`HttpService`] as event loops see it.
pub(crate) struct Plain {
    service: Arc<dyn HttpService>,
    requests: AtomicU64,
}

impl Plain {
    pub(crate) fn new(service: Arc<dyn HttpService>) -> Self {
        Self {
            service,
            requests: AtomicU64::new(0),
        }
    }
}

impl Handler for Plain {
    fn handle(&self, request: &Request<'_>, _: ReplyAddress, _: &mut Turn<'_>) -> Option<Answer> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let method = match request.method {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Options | Method::Other => return Some(Answer::WrongMethod("GET,HEAD,POST")),
        };
        Some(Answer::Plain(self.service.respond(HttpRequest {
            method,
            path: request.path,
            body: &request.body,
        })))
    }

    fn end_turn(&self, _: &mut Batch<Work>) {}

    fn add_stats(&self, stats: &mut NetStats) {
        stats.requests += self.requests.load(Ordering::Relaxed);
    }
}
