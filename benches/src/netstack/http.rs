//! The transport by itself: plain requests, no envelopes, beside axum on the same two cores.

use crate::BenchError;
use crate::measure::{Effort, Figure};
use replicore_netstack::floor::Floor;
use replicore_netstack::load::{LoadPlan, LoadReport, drive};
use replicore_netstack::{
    HttpRequest, HttpResponse, HttpService, NetBackend, NetLimits, RingFeatures, Server, ServerConfig, ServerHandle,
    ServerObserver,
};
use replicore_types::Payload;
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const REQUEST_BODY_BYTES: usize = 400;
const ANSWER_BODY_BYTES: usize = 300;

/// `netstack.http_rps` and `netstack.http_vs_axum`: POST of 400 bytes, answered with 300, on 256 connections; the
/// server on one core, the client on the other, axum (single-threaded runtime, HTTP/1 only) in the same run. Beside it
/// `floor`: a server on the same ring that moves the same bytes without looking at them, which is what the kernel of this
/// machine leaves to any server with this client.
pub fn plain(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let ours = Peer::replicore(NetBackend::Auto, RingFeatures::default())?;
    let epoll = Peer::replicore(NetBackend::Epoll, RingFeatures::default())?;
    let axum = Peer::axum()?;
    let floor = Peer::floor()?;
    let load = Load {
        connections: 256,
        pipeline: 1,
        duration: Duration::from_millis(effort.scale(1_000)),
    };
    let peers = [&ours, &epoll, &axum, &floor];
    let samples = effort.samples(|| peers.iter().map(|peer| load.drive(peer)).collect::<Result<Vec<_>, _>>())?;
    let rate = |peer: usize| {
        samples
            .iter()
            .map(|reports| reports[peer].accepted_per_second())
            .collect::<Vec<_>>()
    };
    let tail = |peer: usize| {
        let micros = |report: &LoadReport| report.latency_at(0.99) as f64 / 1e3;
        samples.iter().map(|reports| micros(&reports[peer])).collect::<Vec<_>>()
    };
    let ratio = samples
        .iter()
        .map(|reports| reports[0].accepted_per_second() / reports[2].accepted_per_second())
        .collect();
    let root = root_of(&samples[0][0]);
    Ok(vec![
        Figure::of("netstack.http_rps", "1/s", rate(0), root.clone())
            .against("epoll", rate(1))
            .against("axum", rate(2))
            .against("floor", rate(3))
            .against("p99_us", tail(0))
            .against("epoll_p99_us", tail(1))
            .against("axum_p99_us", tail(2)),
        Figure::of("netstack.http_vs_axum", "x", ratio, root),
    ])
}

/// `netstack.http_pipelined_rps`: the same on 64 connections that each have 16 requests unanswered; beside it axum and the
/// floor.
pub fn pipelined(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let ours = Peer::replicore(NetBackend::Auto, RingFeatures::default())?;
    let axum = Peer::axum()?;
    let floor = Peer::floor()?;
    let load = Load {
        connections: 64,
        pipeline: 16,
        duration: Duration::from_millis(effort.scale(1_000)),
    };
    let samples = effort.samples(|| Ok([load.drive(&ours)?, load.drive(&axum)?, load.drive(&floor)?]))?;
    let rate = |peer: usize| {
        samples
            .iter()
            .map(|reports| reports[peer].accepted_per_second())
            .collect::<Vec<_>>()
    };
    let root = root_of(&samples[0][0]);
    Ok(vec![
        Figure::of("netstack.http_pipelined_rps", "1/s", rate(0), root)
            .against("axum", rate(1))
            .against("floor", rate(2)),
    ])
}

fn root_of(report: &LoadReport) -> String {
    hex::encode(Sha256::digest(&report.last_body))
}

pub(super) struct Load {
    pub(super) connections: usize,
    pub(super) pipeline: usize,
    pub(super) duration: Duration,
}

impl Load {
    pub(super) fn drive(&self, peer: &Peer) -> Result<LoadReport, BenchError> {
        let plan = LoadPlan {
            address: peer.address,
            backend: NetBackend::Auto,
            connections: self.connections,
            pipeline: self.pipeline,
            rate: None,
            burst: 1,
            duration: self.duration,
        };
        let request = request();
        // The client has the last core to itself, if there is more than one.
        let driver = thread::spawn(move || {
            pin(usize::MAX);
            drive(&plan, &mut |bytes| {
                bytes.extend_from_slice(&request);
                true
            })
        });
        let report = driver.join().map_err(|_| BenchError::new("the client panicked"))?;
        let report = report.map_err(|error| BenchError::new(format!("{}: {error}", peer.name)))?;
        if report.refused > 0 || report.last_body != [9; ANSWER_BODY_BYTES] {
            return Err(BenchError::new(format!(
                "{}: wrong answers: {:?}",
                peer.name, report.last_refusal
            )));
        }
        Ok(report)
    }
}

/// The request that is sent.
fn request() -> Vec<u8> {
    let head = format!(
        "POST /api/v2/canister/rrkah-fqaaa-aaaaa-aaaaq-cai/call HTTP/1.1\r\nhost: localhost\r\n\
         content-type: application/cbor\r\ncontent-length: {REQUEST_BODY_BYTES}\r\n\r\n"
    );
    [head.as_bytes(), &[7; REQUEST_BODY_BYTES]].concat()
}

/// Keeps the calling thread, and those that it starts, on one core: the one with this index, or the last one.
fn pin(core: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(core) = cores.get(core).or(cores.last()) {
        // Where this is not allowed the figures are noisier, nothing else.
        core_affinity::set_for_current(*core);
    }
}

/// Where a server listens and what keeps it up, or why it did not start.
type Started = Result<(SocketAddr, Box<dyn Send>), String>;

/// A server on the first core.
pub(super) struct Peer {
    name: &'static str,
    pub(super) address: SocketAddr,
    /// What moves its bytes, and its statistics, if it is ours.
    ours: Option<(&'static str, ServerObserver)>,
    /// Dropping it ends the server.
    stop: Option<Box<dyn Send>>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    fn start(
        name: &'static str,
        serve: impl FnOnce(mpsc::Sender<Started>) + Send + 'static,
    ) -> Result<Self, BenchError> {
        let (ready, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            pin(0);
            serve(ready);
        });
        let (address, stop) = started
            .recv()
            .map_err(|_| BenchError::new(format!("{name} ended at its start")))?
            .map_err(|error| BenchError::new(format!("{name}: {error}")))?;
        Ok(Self {
            name,
            address,
            ours: None,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(super) fn replicore(backend: NetBackend, ring: RingFeatures) -> Result<Self, BenchError> {
        let (tell, told) = mpsc::channel();
        let mut peer = Self::start("replicore", move |ready| {
            let config = ServerConfig {
                backend,
                ring,
                threads: 1,
                // All connections of a measurement come from one address.
                limits: NetLimits {
                    connections_per_peer_max: NetLimits::default().connections_max,
                    ..NetLimits::default()
                },
                ..ServerConfig::default()
            };
            let answer = HttpResponse {
                status: 200,
                content_type: "application/cbor",
                body: Payload::from(vec![9; ANSWER_BODY_BYTES]),
            };
            let server = Server::start_plain(config, Arc::new(Same(answer)));
            if let Ok(server) = &server {
                let _ = tell.send((server.backend(), server.observer()));
            }
            let started = server.map(|server: ServerHandle| (server.local_addr(), Box::new(server) as Box<dyn Send>));
            let _ = ready.send(started.map_err(|error| error.to_string()));
        })?;
        peer.ours = told.recv().ok();
        Ok(peer)
    }

    /// What moves its bytes, if it is ours.
    pub(super) fn backend(&self) -> Option<&'static str> {
        self.ours.as_ref().map(|(backend, _)| *backend)
    }

    /// Waits until so many connections are open.
    pub(super) fn wait_for_connections(&self, count: usize) -> Result<(), BenchError> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let open = || {
            self.ours
                .as_ref()
                .map_or(count, |(_, observer)| observer.stats().connections)
        };
        while open() < count {
            if Instant::now() > deadline {
                return Err(BenchError::new(format!("{} of {count} connections are open", open())));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// A server that moves the same bytes and does nothing else.
    pub(super) fn floor() -> Result<Self, BenchError> {
        Self::start("floor", |ready| {
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/cbor\r\ncontent-length: {ANSWER_BODY_BYTES}\r\n\r\n"
            );
            let answer = [head.as_bytes(), &[9; ANSWER_BODY_BYTES]].concat();
            let started = Floor::start(NetBackend::Auto, request().len(), answer);
            let started = started.map(|floor| (floor.local_addr(), Box::new(floor) as Box<dyn Send>));
            let _ = ready.send(started.map_err(|error| error.to_string()));
        })
    }

    fn axum() -> Result<Self, BenchError> {
        Self::start("axum", |ready| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            let served = runtime.and_then(|runtime| runtime.block_on(serve_axum(&ready)));
            if let Err(error) = served {
                let _ = ready.send(Err(error.to_string()));
            }
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve_axum(ready: &mpsc::Sender<Started>) -> std::io::Result<()> {
    use axum::body::Bytes;
    use axum::extract::Path;
    use axum::http::header::CONTENT_TYPE;
    use axum::routing::post;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let answer = Bytes::from(vec![9; ANSWER_BODY_BYTES]);
    let handler = move |Path(_): Path<String>, _: Bytes| {
        let answer = answer.clone();
        async move { ([(CONTENT_TYPE, "application/cbor")], answer) }
    };
    let app = axum::Router::new().route("/api/v2/canister/{canister}/call", post(handler));
    let (stop, mut stopped) = tokio::sync::mpsc::channel::<()>(1);
    let _ = ready.send(Ok((address, Box::new(stop))));
    let serve = axum::serve(
        axum::serve::ListenerExt::tap_io(listener, |socket| {
            let _ = socket.set_nodelay(true);
        }),
        app,
    );
    // Ends when the other side of the channel is dropped; nothing is ever sent.
    tokio::select! {
        result = serve => result,
        _ = stopped.recv() => Ok(()),
    }
}

/// Answers everything with the same.
struct Same(HttpResponse);

impl HttpService for Same {
    fn respond(&self, _: HttpRequest<'_>) -> HttpResponse {
        self.0.clone()
    }
}
