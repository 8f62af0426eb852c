//! A replica in this process and a client that looks at every byte of the answers.

#![allow(dead_code, reason = "every test binary that includes this file uses a part of it")]

use candid::Principal;
use minicbor::{Decoder, Encoder};
use replicore::Replica;
use replicore::config::Config;
use replicore_netstack::NetBackend;
use replicore_workloads::certificate::{RequestStatus, Verifier};
use replicore_workloads::http::{Connection, HttpResponse};
use replicore_workloads::request::{Content, Kind, Signed, hash, hash_of_map, leb128};
use replicore_workloads::{Agent, Identity, management};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A small replica on a port of its own.
pub fn config(state_dir: &Path, net: NetBackend) -> Config {
    let mut config = Config {
        state_dir: state_dir.to_owned(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        cores: 2,
        net,
        net_threads: 1,
        ..Config::default()
    };
    config.queries.threads = 2;
    config
}

/// A user with a connection.
pub struct Client {
    pub address: SocketAddr,
    pub identity: Identity,
    pub verifier: Arc<Verifier>,
    connection: Connection,
}

impl Client {
    pub fn new(replica: &Replica, number: u64) -> Self {
        Self {
            address: replica.local_addr(),
            identity: Identity::numbered(number),
            verifier: Arc::new(Verifier::new(replica.root_key_der()).unwrap()),
            connection: Connection::new(replica.local_addr()),
        }
    }

    pub fn agent(&self) -> Agent {
        Agent::new(self.address, self.identity.clone(), Arc::clone(&self.verifier))
    }

    /// A signed call that no other equals.
    pub fn sign(&self, canister: Principal, method: &str, argument: &[u8]) -> Signed {
        self.sign_as(Kind::Call, canister, method, argument)
    }

    /// A signed call or query that no other equals.
    pub fn sign_as(&self, kind: Kind, canister: Principal, method: &str, argument: &[u8]) -> Signed {
        static NONCE: AtomicU64 = AtomicU64::new(1);
        let content = Content {
            kind,
            canister,
            method,
            argument,
            ingress_expiry: expiry(),
            nonce: u128::from(NONCE.fetch_add(1, Ordering::Relaxed)).to_be_bytes(),
        };
        content.sign(&self.identity)
    }

    pub fn send(&mut self, version: &str, canister: Principal, signed: &Signed) -> HttpResponse {
        let path = format!("/api/{version}/canister/{canister}/call");
        self.connection.request("POST", &path, &signed.envelope).unwrap()
    }

    pub fn post(&mut self, path: &str, signed: &Signed) -> HttpResponse {
        self.connection.request("POST", path, &signed.envelope).unwrap()
    }

    /// The status that the certificate of an answered call shows.
    pub fn status_in(&self, response: &HttpResponse, signed: &Signed) -> RequestStatus {
        assert_eq!(response.status, 200, "{}", String::from_utf8_lossy(&response.body));
        let certificate = bytes_field(&response.body, "certificate").expect("a certificate");
        self.verifier.request_status(&certificate, &signed.request_id).unwrap()
    }

    /// Polls `read_state` as an agent does, once.
    pub fn poll(&mut self, canister: Principal, signed: &Signed) -> RequestStatus {
        let envelope = read_status_envelope(&self.identity, &signed.request_id);
        let path = format!("/api/v3/canister/{canister}/read_state");
        let response = self.connection.request("POST", &path, &envelope).unwrap();
        self.status_in(&response, signed)
    }

    /// Polls until the call has its final status.
    pub fn wait_for(&mut self, canister: Principal, signed: &Signed) -> Vec<u8> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            match self.poll(canister, signed) {
                RequestStatus::Replied(reply) => return reply,
                RequestStatus::Rejected(code, text, _) => panic!("rejected with {code}: {text}"),
                RequestStatus::Pending(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        panic!("no final status within a minute");
    }

    /// Installs a module in a new canister.
    pub fn install(&self, wasm: &[u8]) -> Principal {
        management::deploy(&mut self.agent(), wasm, b"").unwrap()
    }
}

/// Waits until something holds, for as long as a machine that is busy with something else may need.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn replied(outcome: replicore_workloads::CallOutcome) -> Vec<u8> {
    match outcome {
        replicore_workloads::CallOutcome::Replied(reply) => reply,
        other => panic!("expected a reply, got {other:?}"),
    }
}

/// Nanoseconds since 1970, four minutes from now.
fn expiry() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    (now + Duration::from_secs(240)).as_nanos() as u64
}

/// A byte string of a CBOR map.
fn bytes_field(body: &[u8], name: &str) -> Option<Vec<u8>> {
    let mut decoder = Decoder::new(body);
    if decoder.datatype().ok()? == minicbor::data::Type::Tag {
        decoder.tag().ok()?;
    }
    for _ in 0..decoder.map().ok()?? {
        if decoder.str().ok()? == name {
            return Some(decoder.bytes().ok()?.to_vec());
        }
        decoder.skip().ok()?;
    }
    None
}

/// A signed `read_state` for the status of a request.
fn read_status_envelope(identity: &Identity, request_id: &[u8; 32]) -> Vec<u8> {
    let (sender, expiry) = (identity.principal(), expiry());
    let path = hash(&[hash(b"request_status"), hash(request_id)].concat());
    let content_id = hash_of_map(&mut [
        ("request_type", hash(b"read_state")),
        ("sender", hash(sender.as_slice())),
        ("paths", hash(&path)),
        ("ingress_expiry", hash(&leb128(expiry))),
    ]);
    let signature = identity.sign(&[b"\x0Aic-request", &content_id[..]].concat());
    let mut encoder = Encoder::new(Vec::new());
    let mut write = || -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        encoder.map(3)?.str("content")?.map(4)?;
        encoder.str("request_type")?.str("read_state")?;
        encoder.str("sender")?.bytes(sender.as_slice())?;
        encoder.str("paths")?.array(1)?.array(2)?;
        encoder.bytes(b"request_status")?.bytes(request_id)?;
        encoder.str("ingress_expiry")?.u64(expiry)?;
        encoder.str("sender_pubkey")?.bytes(identity.public_key_der())?;
        encoder.str("sender_sig")?.bytes(&signature)?;
        Ok(())
    };
    write().unwrap();
    encoder.into_writer()
}
