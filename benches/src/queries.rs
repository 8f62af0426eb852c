//! Anonymous queries over loopback: HTTP in, signed answer out, on a whole replica.
//!
//! The client is one thread that keeps a small pipeline full on each of its connections and only frames what comes
//! back, so that it takes as little as possible of the machine that it shares with the replica.

use crate::measure::{Effort, Figure};
use crate::{BenchError, replicas};
use candid::{CandidType, Decode, Encode, Principal};
use replicore::Replica;
use replicore_workloads::agent::fetch_root_key;
use replicore_workloads::certificate::Verifier;
use replicore_workloads::request::anonymous_query;
use replicore_workloads::{Agent, CallOutcome, Identity};
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// Connections of the client, and requests in flight on each.
const CONNECTIONS: usize = 64;
const PIPELINE: usize = 4;
/// Different requests of one run. Each has its own nonce, hence its own request id and its own signature.
const DISTINCT_REQUESTS: usize = 1_024;
/// Expiry of the prepared requests, from now.
const EXPIRY: Duration = Duration::from_secs(240);

/// `count` replies with a number from its heap; nothing that changes from round to round is read.
const MODULE: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (memory 1)
    (data (i32.const 0) "\2a\00\00\00\00\00\00\00")
    (func (export "canister_query count")
        (call $append (i32.const 0) (i32.const 8))
        (call $reply)))"#;

#[derive(CandidType)]
struct Create {
    amount: Option<candid::Nat>,
}

#[derive(CandidType, candid::Deserialize)]
struct Created {
    canister_id: Principal,
}

#[derive(CandidType)]
enum InstallMode {
    #[expect(non_camel_case_types, reason = "the name of the variant on the wire")]
    install,
}

#[derive(CandidType)]
struct Install {
    mode: InstallMode,
    canister_id: Principal,
    wasm_module: serde_bytes::ByteBuf,
    arg: serde_bytes::ByteBuf,
}

/// `netstack.query_rps`: anonymous queries of a canister with a trivial method, the result cache off: parsing,
/// execution and node signature for each.
pub fn uncached(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    measure("netstack.query_rps", 0, effort)
}

/// `netstack.query_cached_rps`: the same requests with the result cache on. Request ids differ, so that every answer
/// still is signed.
pub fn cached(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    measure("netstack.query_cached_rps", 64 * 1024 * 1024, effort)
}

fn measure(id: &'static str, cache_bytes_max: usize, effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let running = Running::start(cache_bytes_max)?;
    let mut client = Client::connect(running.replica.local_addr(), running.canister)?;
    let requests = effort.scale(100_000);
    // Not measured: code and instances become warm.
    client.run(requests / 10)?;
    let mut samples = Vec::new();
    for _ in 0..effort.runs {
        let start = Instant::now();
        let answered = client.run(requests)?;
        samples.push(answered as f64 / start.elapsed().as_secs_f64());
    }
    let root = client.digest_of_reply()?;
    running.replica.stop().map_err(BenchError::new)?;
    Ok(vec![Figure::of(id, "1/s", samples, root)])
}

struct Running {
    replica: Replica,
    canister: Principal,
    _directory: TempDir,
}

impl Running {
    fn start(cache_bytes_max: usize) -> Result<Self, BenchError> {
        let directory = tempfile::tempdir().map_err(BenchError::new)?;
        let mut config = replicas::config(&directory.path().join("state"));
        config.queries.cache_bytes_max = cache_bytes_max;
        let replica = Replica::start(&config).map_err(BenchError::new)?;
        let canister = deploy(replica.local_addr())?;
        Ok(Self {
            replica,
            canister,
            _directory: directory,
        })
    }
}

/// A canister with [`MODULE`].
fn deploy(address: SocketAddr) -> Result<Principal, BenchError> {
    let root_key = fetch_root_key(address).map_err(BenchError::new)?;
    let verifier = Arc::new(Verifier::new(&root_key).map_err(BenchError::new)?);
    let mut agent = Agent::new(address, Identity::numbered(0), verifier);
    let management = Principal::management_canister();
    let create = Create {
        amount: Some(1_000_000_000_000_000u64.into()),
    };
    let argument = Encode!(&create).map_err(BenchError::new)?;
    let reply = replied(agent.update(management, "provisional_create_canister_with_cycles", &argument))?;
    let canister_id = Decode!(&reply, Created).map_err(BenchError::new)?.canister_id;
    let install = Install {
        mode: InstallMode::install,
        canister_id,
        wasm_module: wat::parse_str(MODULE).map_err(BenchError::new)?.into(),
        arg: Vec::new().into(),
    };
    let argument = Encode!(&install).map_err(BenchError::new)?;
    replied(agent.update_effective(management, canister_id, "install_code", &argument))?;
    Ok(canister_id)
}

fn replied(outcome: Result<CallOutcome, replicore_workloads::AgentError>) -> Result<Vec<u8>, BenchError> {
    match outcome.map_err(BenchError::new)? {
        CallOutcome::Replied(reply) => Ok(reply),
        other => Err(BenchError::new(format!("unexpected answer: {other:?}"))),
    }
}

/// A client that sends prepared requests and counts answers.
struct Client {
    requests: Vec<Vec<u8>>,
    connections: Vec<Answers>,
    next: usize,
}

impl Client {
    fn connect(address: SocketAddr, canister: Principal) -> Result<Self, BenchError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(BenchError::new)?;
        let expiry = (now + EXPIRY).as_nanos() as u64;
        let requests = (0..DISTINCT_REQUESTS as u64).map(|number| {
            let body = anonymous_query(canister, "count", &[], expiry, number);
            let head = format!(
                "POST /api/v3/canister/{canister}/query HTTP/1.1\r\nhost: {address}\r\n\
                 content-type: application/cbor\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            [head.as_bytes(), &body].concat()
        });
        let connections = (0..CONNECTIONS).map(|_| Answers::connect(address));
        Ok(Self {
            requests: requests.collect(),
            connections: connections.collect::<Result<_, _>>()?,
            next: 0,
        })
    }

    /// Sends at least `requests` requests; how many were answered.
    fn run(&mut self, requests: u64) -> Result<u64, BenchError> {
        let mut answered = 0;
        let mut burst = Vec::new();
        for connection in 0..CONNECTIONS {
            self.send(connection, PIPELINE, &mut burst)?;
        }
        let mut sent = (CONNECTIONS * PIPELINE) as u64;
        while answered < sent {
            for connection in 0..CONNECTIONS {
                let arrived = self.connections[connection].read_some()?;
                answered += arrived as u64;
                // As many as were answered: the pipeline stays full until the end.
                let more = arrived.min(requests.saturating_sub(sent) as usize);
                self.send(connection, more, &mut burst)?;
                sent += more as u64;
            }
        }
        Ok(answered)
    }

    fn send(&mut self, connection: usize, count: usize, burst: &mut Vec<u8>) -> Result<(), BenchError> {
        burst.clear();
        for _ in 0..count {
            burst.extend_from_slice(&self.requests[self.next]);
            self.next = (self.next + 1) % self.requests.len();
        }
        let connection = &mut self.connections[connection];
        connection.outstanding += count;
        connection.stream.write_all(burst).map_err(BenchError::new)
    }

    /// Hash of one reply's payload: what was computed, without signature and time.
    fn digest_of_reply(&mut self) -> Result<String, BenchError> {
        self.send(0, 1, &mut Vec::new())?;
        self.connections[0].read_some()?;
        let body = &self.connections[0].last_body;
        let payload = replicore_workloads::request::reply_of_query(body).map_err(BenchError::new)?;
        Ok(hex::encode(Sha256::digest(payload)))
    }
}

/// One connection and the framing of what comes back on it.
struct Answers {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    outstanding: usize,
    last_body: Vec<u8>,
}

impl Answers {
    fn connect(address: SocketAddr) -> Result<Self, BenchError> {
        let stream = TcpStream::connect(address).map_err(BenchError::new)?;
        stream.set_nodelay(true).map_err(BenchError::new)?;
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .map_err(BenchError::new)?;
        Ok(Self {
            stream,
            buffer: vec![0; 64 * 1024],
            filled: 0,
            outstanding: 0,
            last_body: Vec::new(),
        })
    }

    /// Waits for at least one answer, unless none is outstanding; how many came.
    fn read_some(&mut self) -> Result<usize, BenchError> {
        let mut arrived = 0;
        while self.outstanding > 0 && arrived == 0 {
            let read = self
                .stream
                .read(&mut self.buffer[self.filled..])
                .map_err(BenchError::new)?;
            if read == 0 {
                return Err(BenchError::new("the replica closed a connection"));
            }
            self.filled += read;
            let mut start = 0;
            while let Some((body, length)) = frame(&self.buffer[start..self.filled])? {
                let body = start + body..start + length;
                start += length;
                arrived += 1;
                if self.outstanding == arrived {
                    self.last_body.clear();
                    self.last_body.extend_from_slice(&self.buffer[body]);
                }
            }
            self.buffer.copy_within(start..self.filled, 0);
            self.filled -= start;
        }
        self.outstanding -= arrived;
        Ok(arrived)
    }
}

/// Where the body of the first whole answer begins and where it ends; `None` while it is incomplete.
fn frame(bytes: &[u8]) -> Result<Option<(usize, usize)>, BenchError> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes).map_err(BenchError::new)? else {
        return Ok(None);
    };
    if response.code != Some(200) {
        let text = String::from_utf8_lossy(&bytes[head..]);
        return Err(BenchError::new(format!("status {:?}: {text}", response.code)));
    }
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok())
        .ok_or_else(|| BenchError::new("an answer without content-length"))?;
    Ok((bytes.len() >= head + length).then_some((head, head + length)))
}
