//! A service that answers as it is told, a client that speaks raw HTTP, and the request bodies that clients make.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use minicbor::Encoder;
use parking_lot::Mutex;
use replicore_netstack::*;
use replicore_types::*;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub const NOW: Time = Time(1_700_000_000_000_000_000);
pub const EXPIRY: u64 = NOW.0 + 240_000_000_000;

/// What the stub does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Answers on the network thread.
    AtOnce,
    /// Answers from another thread, requests in reverse order of arrival where they come together.
    Later,
    /// Keeps the responder until [`Stub::release`].
    Hold,
    /// Drops the responder.
    Drop,
    /// Says that it is busy.
    Busy,
    /// Rejects.
    Reject,
}

pub struct Stub {
    pub mode: Mutex<Mode>,
    pub held: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    pub calls: Mutex<Vec<VerifiedIngress>>,
    pub queries: Mutex<Vec<Query>>,
    pub reads: Mutex<Vec<ReadState>>,
    pub reply_bytes: AtomicUsize,
    /// A canister whose calls would wait too long.
    pub slow: Mutex<Option<CanisterId>>,
}

impl Stub {
    pub fn new(mode: Mode) -> Arc<Self> {
        Arc::new(Self {
            mode: Mutex::new(mode),
            held: Mutex::default(),
            calls: Mutex::default(),
            queries: Mutex::default(),
            reads: Mutex::default(),
            reply_bytes: AtomicUsize::new(0),
            slow: Mutex::default(),
        })
    }

    pub fn release(&self) {
        for answer in self.held.lock().drain(..).rev() {
            answer();
        }
    }

    fn act<T: Send + 'static>(&self, respond: Responder<T>, good: T, rejected: T, busy: T) {
        match *self.mode.lock() {
            Mode::AtOnce => respond(good),
            Mode::Later => {
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(5));
                    respond(good);
                });
            }
            Mode::Hold => self.held.lock().push(Box::new(move || respond(good))),
            Mode::Drop => drop(respond),
            Mode::Busy => respond(busy),
            Mode::Reject => respond(rejected),
        }
    }

    fn reply(&self, argument: &[u8]) -> Payload {
        match self.reply_bytes.load(Ordering::Relaxed) {
            0 => Payload::from(argument),
            bytes => Payload::from(vec![7; bytes]),
        }
    }
}

pub fn rejection() -> UserError {
    UserError::new(ErrorCode::CanisterTrapped, "it trapped")
}

pub const BUSY: ServiceBusy = ServiceBusy("ingress pool");

impl ReplicaService for Stub {
    fn status(&self) -> StatusReport {
        StatusReport {
            root_key: Arc::from([1; 133]),
            healthy: true,
            certified_height: 7,
            implementation: "stub 1".into(),
        }
    }

    fn now(&self) -> Time {
        NOW
    }

    fn has_room(&self, canister: &CanisterId, _: Duration) -> Result<(), ServiceBusy> {
        match *self.slow.lock() {
            Some(slow) if slow == *canister => Err(BUSY),
            _ => Ok(()),
        }
    }

    fn call(&self, message: VerifiedIngress, _: Target, wait: bool, respond: Responder<CallReply>) {
        let good = if wait {
            CallReply::Certificate(self.reply(&message.method_payload))
        } else {
            CallReply::Accepted
        };
        self.calls.lock().push(message);
        self.act(respond, good, CallReply::Rejected(rejection()), CallReply::Busy(BUSY));
    }

    fn query(&self, query: Query, respond: Responder<Result<QueryReply, ServiceBusy>>) {
        let reply = |response| {
            Ok(QueryReply {
                response,
                timestamp: NOW,
                signature: [9; 64],
                node: NodeId(PrincipalId::from_slice(&[8])),
            })
        };
        let good = reply(QueryResponse::Replied(self.reply(&query.method_payload)));
        self.queries.lock().push(query);
        self.act(respond, good, reply(QueryResponse::Rejected(rejection())), Err(BUSY));
    }

    fn read_state(&self, read: ReadState, respond: Responder<Result<Payload, ReadStateError>>) {
        self.reads.lock().push(read);
        let rejected = Err(ReadStateError::Forbidden("not yours".into()));
        self.act(
            respond,
            Ok(Payload::from(&b"certificate"[..])),
            rejected,
            Err(ReadStateError::Unavailable),
        );
    }
}

/// An HTTP response.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn contains(&self, bytes: &[u8]) -> bool {
        self.body.windows(bytes.len()).any(|window| window == bytes)
    }
}

/// A client's end of a connection.
pub struct Client {
    pub socket: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            buffer: Vec::new(),
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub fn post(&mut self, path: &str, body: &[u8]) -> Response {
        self.send(&post(path, body));
        self.response()
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes());
        self.response()
    }

    fn fill(&mut self) -> usize {
        let mut chunk = [0; 64 * 1024];
        let count = self.socket.read(&mut chunk).unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..count]);
        count
    }

    /// Reads the head of a response: up to and including the empty line.
    pub fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = self.buffer.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            assert_ne!(
                self.fill(),
                0,
                "connection ended within a head: {:?}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    pub fn response(&mut self) -> Response {
        let head = self.head();
        let status = head[9..12].parse().unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |n| n.parse().unwrap());
        while self.buffer.len() < length {
            assert_ne!(self.fill(), 0, "connection ended within a body");
        }
        let body = self.buffer.drain(..length).collect();
        Response { status, head, body }
    }

    /// True if the server has ended the connection and nothing is unread.
    pub fn at_end(&mut self) -> bool {
        self.buffer.is_empty() && self.fill() == 0
    }
}

pub fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/cbor\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub type Writer = Encoder<Vec<u8>>;

/// An unsigned envelope with the content fields that `content` writes after the usual ones.
pub fn anonymous(request_type: &str, fields: u64, content: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Encoder::new(Vec::new());
    writer
        .tag(minicbor::data::Tag::new(55799))
        .unwrap()
        .map(1)
        .unwrap()
        .str("content")
        .unwrap();
    writer.map(3 + fields).unwrap();
    writer.str("request_type").unwrap().str(request_type).unwrap();
    writer.str("sender").unwrap().bytes(&[4]).unwrap();
    writer.str("ingress_expiry").unwrap().u64(EXPIRY).unwrap();
    content(&mut writer);
    writer.into_writer()
}

pub fn call_fields(writer: &mut Writer, canister: CanisterId, argument: &[u8]) {
    writer.str("canister_id").unwrap().bytes(canister.as_slice()).unwrap();
    writer.str("method_name").unwrap().str("greet").unwrap();
    writer.str("arg").unwrap().bytes(argument).unwrap();
}

pub fn canister() -> CanisterId {
    CanisterId::from_index(1)
}

pub fn call(argument: &[u8]) -> Vec<u8> {
    anonymous("call", 3, |writer| call_fields(writer, canister(), argument))
}

pub fn query(argument: &[u8]) -> Vec<u8> {
    anonymous("query", 3, |writer| call_fields(writer, canister(), argument))
}

pub fn read_state(paths: &[&[&[u8]]]) -> Vec<u8> {
    anonymous("read_state", 1, |writer| {
        writer.str("paths").unwrap().array(paths.len() as u64).unwrap();
        for path in paths {
            writer.array(path.len() as u64).unwrap();
            path.iter().for_each(|label| {
                writer.bytes(label).unwrap();
            });
        }
    })
}

pub fn path(version: &str, endpoint: &str) -> String {
    format!("/api/{version}/canister/{}/{endpoint}", canister())
}

/// Runs `test` on a server of each backend, with `limits` applied.
pub fn on_each_backend(mode: Mode, limits: impl Fn(&mut NetLimits), test: impl Fn(&ServerHandle, &Arc<Stub>)) {
    for backend in [NetBackend::Epoll, NetBackend::Uring] {
        let stub = Stub::new(mode);
        let mut config = ServerConfig {
            backend,
            threads: 1,
            ..ServerConfig::default()
        };
        limits(&mut config.limits);
        match Server::start(config, stub.clone()) {
            Ok(server) => test(&server, &stub),
            Err(error) if backend == NetBackend::Uring => eprintln!("skipped: {error}"),
            Err(error) => panic!("{error}"),
        }
    }
}
