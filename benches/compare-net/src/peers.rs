//! The servers, each on one thread of the first core, for as long as the process lives; nginx is a process of its own.

use crate::nginx::{self, Nginx};
use axum::body::Bytes;
use replicore_netstack::{HttpRequest, HttpResponse, HttpService, NetBackend, NetLimits, Server, ServerConfig};
use replicore_types::Payload;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread;

pub const ANSWER_BODY_BYTES: usize = 300;

/// A running server.
pub struct Peer {
    pub name: &'static str,
    pub address: SocketAddr,
    /// The process that it is, where it is one of its own; it ends when this is dropped.
    pub _process: Option<Nginx>,
}

/// Keeps the calling thread, and those that it starts, on one core: the one with this index, or the last one.
pub fn pin(core: usize) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(core) = cores.get(core).or(cores.last()) {
        core_affinity::set_for_current(*core);
    }
}

impl Peer {
    pub fn all() -> Vec<Self> {
        let small_buffers = NetLimits {
            receive_buffer_bytes: 2048,
            ..NetLimits::default()
        };
        let nginx = nginx::start();
        if nginx.is_none() {
            println!("nginx is not installed and left out; `cargo xtask peers` installs it");
        }
        let mut peers = vec![
            replicore("replicore, io_uring", NetBackend::Uring, NetLimits::default()),
            replicore("replicore, io_uring, 2 KiB buffers", NetBackend::Uring, small_buffers),
            replicore("replicore, epoll", NetBackend::Epoll, NetLimits::default()),
            monoio(),
            hyper(),
            axum(),
        ];
        peers.extend(nginx);
        peers
    }

    fn start(name: &'static str, serve: impl FnOnce(mpsc::Sender<SocketAddr>) + Send + 'static) -> Self {
        let (ready, started) = mpsc::channel();
        thread::spawn(move || {
            pin(0);
            serve(ready);
        });
        let address = started.recv().expect(name);
        Self {
            name,
            address,
            _process: None,
        }
    }
}

/// A listener for the runtimes that take one from the standard library.
fn listen(ready: &mpsc::Sender<SocketAddr>) -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    listener.set_nonblocking(true).expect("a socket can be non-blocking");
    let address = listener.local_addr().expect("a listener has an address");
    ready.send(address).expect("somebody waits for it");
    listener
}

struct Same(HttpResponse);

impl HttpService for Same {
    fn respond(&self, _: HttpRequest<'_>) -> HttpResponse {
        self.0.clone()
    }
}

fn replicore(name: &'static str, backend: NetBackend, limits: NetLimits) -> Peer {
    Peer::start(name, move |ready| {
        let config = ServerConfig {
            backend,
            threads: 1,
            limits,
            ..ServerConfig::default()
        };
        let answer = HttpResponse {
            status: 200,
            content_type: "application/cbor",
            body: Payload::from(vec![9; ANSWER_BODY_BYTES]),
        };
        let server = Server::start_plain(config, Arc::new(Same(answer))).expect("it starts");
        ready.send(server.local_addr()).expect("somebody waits for it");
        loop {
            thread::park();
        }
    })
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_io().build().expect("a runtime can be built")
}

fn axum() -> Peer {
    use axum::extract::Path;
    use axum::http::header::CONTENT_TYPE;
    use axum::serve::ListenerExt;

    Peer::start("axum", |ready| {
        let answer = Bytes::from(vec![9; ANSWER_BODY_BYTES]);
        let handler = move |Path(_): Path<String>, _: Bytes| {
            let answer = answer.clone();
            async move { ([(CONTENT_TYPE, "application/cbor")], answer) }
        };
        let app = axum::Router::new().route("/api/v2/canister/{canister}/call", axum::routing::post(handler));
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listen(&ready)).expect("tokio takes the listener");
            let listener = listener.tap_io(|socket| socket.set_nodelay(true).expect("nodelay"));
            axum::serve(listener, app).await.expect("it serves");
        });
    })
}

fn hyper() -> Peer {
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::{Request, Response};

    async fn answer(request: Request<Incoming>, body: Bytes) -> Result<Response<Full<Bytes>>, Infallible> {
        let _ = request.into_body().collect().await;
        let response = Response::builder().header("content-type", "application/cbor");
        Ok(response.body(Full::new(body)).expect("a valid response"))
    }

    Peer::start("hyper", |ready| {
        let body = Bytes::from(vec![9; ANSWER_BODY_BYTES]);
        let tasks = tokio::task::LocalSet::new();
        tasks.block_on(&runtime(), async {
            let listener = tokio::net::TcpListener::from_std(listen(&ready)).expect("tokio takes the listener");
            loop {
                let (socket, _) = listener.accept().await.expect("a client");
                socket.set_nodelay(true).expect("nodelay");
                let body = body.clone();
                tokio::task::spawn_local(async move {
                    let service = hyper::service::service_fn(move |request| answer(request, body.clone()));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .pipeline_flush(true)
                        .serve_connection(hyper_util::rt::TokioIo::new(socket), service);
                    let _ = connection.await;
                });
            }
        });
    })
}

/// A hand-written loop with httparse on monoio's io_uring driver: what a careful engineer writes without this project.
fn monoio() -> Peer {
    use monoio::io::{AsyncReadRent, AsyncWriteRentExt};

    Peer::start("monoio and httparse", |ready| {
        let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
            .build()
            .expect("io_uring is available");
        runtime.block_on(async move {
            let listener = monoio::net::TcpListener::from_std(listen(&ready)).expect("monoio takes the listener");
            loop {
                let (mut socket, _) = listener.accept().await.expect("a client");
                socket.set_nodelay(true).expect("nodelay");
                monoio::spawn(async move {
                    let mut waiting = Vec::new();
                    let mut buffer = vec![0; 16 * 1024];
                    let mut output = Vec::new();
                    loop {
                        let (read, filled) = socket.read(buffer).await;
                        buffer = filled;
                        let Ok(count @ 1..) = read else { return };
                        waiting.extend_from_slice(&buffer[..count]);
                        output.clear();
                        let consumed = answer_all(&waiting, &mut output);
                        waiting.drain(..consumed);
                        if !output.is_empty() {
                            let (written, spare) = socket.write_all(output).await;
                            output = spare;
                            if written.is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
    })
}

/// Answers every whole request in `bytes`; the number of bytes that they were.
fn answer_all(bytes: &[u8], output: &mut Vec<u8>) -> usize {
    let mut consumed = 0;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = request.parse(&bytes[consumed..]) else {
            return consumed;
        };
        let length = request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok())
            .unwrap_or(0);
        if bytes.len() < consumed + head + length {
            return consumed;
        }
        consumed += head + length;
        output.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: application/cbor\r\ncontent-length: 300\r\n\r\n");
        output.extend_from_slice(&[9; ANSWER_BODY_BYTES]);
    }
}
