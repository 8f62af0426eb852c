//! Pages for who runs the replica: metrics, and a dashboard that draws them.
//!
//! They are served by an event loop of their own on a listener of their own, so that a flood on the public interface
//! does not hide what it does, and so that the public interface shows nothing of this.

use crate::config::ObservationConfig;
use crate::exposition::Observed;
use replicore_netstack::{
    HttpRequest, HttpResponse, HttpService, NetBackend, NetLimits, Server, ServerConfig, ServerHandle,
};
use std::io;
use std::sync::Arc;

/// The dashboard: one page without anything from elsewhere, which reads `/metrics` once a second.
const DASHBOARD: &[u8] = include_bytes!("dashboard.html");

/// Starts serving, if the configuration wants it.
///
/// # Errors
/// The address cannot be listened on.
pub fn start(config: &ObservationConfig, observed: &Observed) -> io::Result<Option<ServerHandle>> {
    if !config.enabled {
        return Ok(None);
    }
    let server = ServerConfig {
        listen: config.listen,
        threads: 1,
        // A few requests a second: nothing is gained by rings, and this works wherever the replica does.
        backend: NetBackend::Epoll,
        limits: limits(),
        ..ServerConfig::default()
    };
    Server::start_plain(server, Arc::new(Pages(observed.clone()))).map(Some)
}

/// Bounds for a handful of readers.
fn limits() -> NetLimits {
    NetLimits {
        connections_max: 64,
        connections_per_peer_max: 64,
        body_bytes_max: 1024,
        buffered_bytes_max: 2 * 1024 * 1024,
        pipeline_max: 4,
        receive_buffers: 8,
        receive_buffer_bytes: 4 * 1024,
        ..NetLimits::default()
    }
}

struct Pages(Observed);

impl HttpService for Pages {
    fn respond(&self, request: HttpRequest<'_>) -> HttpResponse {
        let page = |content_type, body: &[u8]| HttpResponse {
            status: 200,
            content_type,
            body: body.into(),
        };
        match (request.method, request.path) {
            ("GET" | "HEAD", "/metrics") => {
                page("text/plain; version=0.0.4; charset=utf-8", self.0.to_text().as_bytes())
            }
            ("GET" | "HEAD", "/" | "/_/dashboard") => page("text/html; charset=utf-8", DASHBOARD),
            ("GET" | "HEAD", _) => HttpResponse {
                status: 404,
                content_type: "text/plain; charset=utf-8",
                body: b"There are /metrics and /_/dashboard."[..].into(),
            },
            _ => HttpResponse {
                status: 405,
                content_type: "text/plain; charset=utf-8",
                body: b"Use GET."[..].into(),
            },
        }
    }
}
