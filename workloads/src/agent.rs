//! A small agent: signs, sends, verifies. Or asks a replica in the same process, where nothing is signed.

use crate::Identity;
use crate::certificate::{RequestStatus, Untrusted, Verifier};
use crate::http::{Connection, HttpResponse};
use crate::request::{Content, Kind, read_request_status};
use candid::Principal;
use minicbor::data::Type;
use minicbor::{Decoder, decode};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long after its making a request is void.
const EXPIRY_NANOS: u64 = 4 * 60 * 1_000_000_000;

/// How long an accepted call is asked after.
const WAIT_MAX: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What a call or query gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The reply bytes, certified for calls.
    Replied(Vec<u8>),
    /// Reject code, text and error code.
    Rejected(u64, String, String),
    /// Accepted; the answer was not there within a minute.
    Accepted,
}

/// Why there is no outcome.
#[derive(Debug)]
pub enum AgentError {
    /// The connection failed: what became of the request is unknown.
    Io(io::Error),
    /// The server answered with an HTTP error.
    Http(u16, String),
    /// The answer is not what the interface says.
    Malformed(String),
    /// The answer is not certified.
    Untrusted(Untrusted),
}

impl fmt::Display for AgentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "connection: {error}"),
            Self::Http(status, text) => write!(f, "HTTP {status}: {text}"),
            Self::Malformed(what) => write!(f, "malformed answer: {what}"),
            Self::Untrusted(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AgentError {}

impl From<io::Error> for AgentError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Untrusted> for AgentError {
    fn from(error: Untrusted) -> Self {
        Self::Untrusted(error)
    }
}

impl From<decode::Error> for AgentError {
    fn from(error: decode::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// What answers without a network: a replica in the same process, which takes the agent's word for the sender.
pub trait Embedded: Send {
    /// Executes a call until it is answered.
    ///
    /// # Errors
    /// As for [`Agent::update_effective`].
    fn update(
        &mut self,
        sender: Principal,
        canister: Principal,
        effective: Principal,
        method: &str,
        argument: &[u8],
    ) -> Result<CallOutcome, AgentError>;

    /// Answers a query.
    ///
    /// # Errors
    /// As for [`Agent::query`].
    fn query(
        &mut self,
        sender: Principal,
        canister: Principal,
        method: &str,
        argument: &[u8],
    ) -> Result<CallOutcome, AgentError>;

    /// The key that its certificates are signed with, in DER.
    fn root_key(&self) -> Vec<u8>;
}

/// One user on one connection.
pub struct Agent {
    identity: Identity,
    route: Route,
    ready: Option<Vec<Principal>>,
}

/// How requests reach the replica.
enum Route {
    Http(Http),
    Embedded(Box<dyn Embedded>),
}

/// A connection, and what requests on it need.
struct Http {
    connection: Connection,
    verifier: Arc<Verifier>,
    next_nonce: u64,
}

/// Fetches the root key of an endpoint.
///
/// # Errors
/// The endpoint cannot be reached or does not answer as the interface says.
pub fn fetch_root_key(address: SocketAddr) -> Result<Vec<u8>, AgentError> {
    let response = Connection::new(address).request("GET", "/api/v2/status", &[])?;
    let fields = Fields::decode(&expect_ok(response)?)?;
    fields
        .root_key
        .ok_or_else(|| AgentError::Malformed("the status holds no root_key".into()))
}

/// The root of the endpoint's certified state, read anonymously through `canister` and verified.
///
/// # Errors
/// [`AgentError`]; a root whose signature does not verify is one.
pub fn fetch_state_root(address: SocketAddr, canister: Principal, verifier: &Verifier) -> Result<[u8; 32], AgentError> {
    let envelope = crate::request::anonymous_read_time(now_nanos() + EXPIRY_NANOS);
    let path = format!("/api/v3/canister/{canister}/read_state");
    let response = Connection::new(address).request("POST", &path, &envelope)?;
    let fields = Fields::decode(&expect_ok(response)?)?;
    let certificate = fields
        .certificate
        .ok_or_else(|| AgentError::Malformed("no certificate".into()))?;
    Ok(verifier.root(&certificate)?)
}

impl Agent {
    /// A user on a connection of its own. `verifier` is shared by the agents of one endpoint.
    pub fn new(address: SocketAddr, identity: Identity, verifier: Arc<Verifier>) -> Self {
        let mut seed = [0; 8];
        // Without randomness the clock still makes nonces of different agents differ.
        if getrandom::fill(&mut seed).is_err() {
            seed = now_nanos().to_le_bytes();
        }
        Self {
            identity,
            route: Route::Http(Http {
                connection: Connection::new(address),
                verifier,
                next_nonce: u64::from_le_bytes(seed),
            }),
            ready: None,
        }
    }

    /// A user of a replica in the same process.
    pub fn embedded(replica: Box<dyn Embedded>, identity: Identity) -> Self {
        Self {
            identity,
            route: Route::Embedded(replica),
            ready: None,
        }
    }

    /// The user.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Calls a method and waits for the certified answer.
    ///
    /// # Errors
    /// [`AgentError`]; an answer that does not verify is one.
    pub fn update(&mut self, canister: Principal, method: &str, argument: &[u8]) -> Result<CallOutcome, AgentError> {
        self.update_effective(canister, canister, method, argument)
    }

    /// [`Agent::update`] with an effective canister id: for management calls, the canister that the call is about.
    ///
    /// # Errors
    /// As for [`Agent::update`].
    pub fn update_effective(
        &mut self,
        canister: Principal,
        effective: Principal,
        method: &str,
        argument: &[u8],
    ) -> Result<CallOutcome, AgentError> {
        let sender = self.identity.principal();
        match &mut self.route {
            Route::Http(http) => http.update(&self.identity, canister, effective, method, argument),
            Route::Embedded(replica) => replica.update(sender, canister, effective, method, argument),
        }
    }

    /// Uses these canisters, in this order, where others would be created: for endpoints that create none for free. The user
    /// must be a controller of them; what they hold is lost.
    pub fn use_canisters(&mut self, mut canisters: Vec<Principal>) {
        canisters.reverse();
        self.ready = Some(canisters);
    }

    /// The next of [`Agent::use_canisters`]: `Some(None)` when they are used up, none where canisters are to be created.
    pub(crate) fn next_ready(&mut self) -> Option<Option<Principal>> {
        self.ready.as_mut().map(Vec::pop)
    }

    /// Whether canisters were given.
    pub(crate) fn has_ready(&self) -> bool {
        self.ready.is_some()
    }

    /// Checks a certificate that came in a reply and returns the root that it signs.
    ///
    /// # Errors
    /// The certificate does not decode or its signature does not verify.
    pub fn verify_root(&self, certificate: &[u8]) -> Result<[u8; 32], AgentError> {
        Ok(match &self.route {
            Route::Http(http) => http.verifier.root(certificate)?,
            Route::Embedded(replica) => Verifier::new(&replica.root_key())?.root(certificate)?,
        })
    }

    /// Agents of the same user on connections of their own, to do many things at once. None where things happen one
    /// after the other anyway: the replica is in the same process, or canisters were given in an order.
    pub fn companions(&self, count: usize) -> Vec<Self> {
        let Route::Http(http) = &self.route else {
            return Vec::new();
        };
        if self.has_ready() {
            return Vec::new();
        }
        let (address, identity) = (http.connection.address(), &self.identity);
        let companion = |_| Self::new(address, identity.clone(), Arc::clone(&http.verifier));
        (0..count).map(companion).collect()
    }

    /// Whether the replica is in the same process: its time goes on with its rounds alone.
    pub fn is_embedded(&self) -> bool {
        matches!(self.route, Route::Embedded(_))
    }

    /// Signs what follows as another user, on the same connection.
    pub fn set_identity(&mut self, identity: Identity) {
        self.identity = identity;
    }

    /// Queries a method. The node signature is not checked here; agents of the ecosystem do.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn query(&mut self, canister: Principal, method: &str, argument: &[u8]) -> Result<CallOutcome, AgentError> {
        let sender = self.identity.principal();
        match &mut self.route {
            Route::Http(http) => http.query(&self.identity, canister, method, argument),
            Route::Embedded(replica) => replica.query(sender, canister, method, argument),
        }
    }
}

impl Http {
    fn update(
        &mut self,
        identity: &Identity,
        canister: Principal,
        effective: Principal,
        method: &str,
        argument: &[u8],
    ) -> Result<CallOutcome, AgentError> {
        let signed = self.content(Kind::Call, canister, method, argument).sign(identity);
        let path = format!("/api/v3/canister/{effective}/call");
        let response = self.connection.request("POST", &path, &signed.envelope)?;
        if response.status == 202 {
            return self.wait(identity, effective, &signed.request_id);
        }
        let fields = Fields::decode(&expect_ok(response)?)?;
        match fields.certificate {
            Some(certificate) => Ok(match self.verifier.request_status(&certificate, &signed.request_id)? {
                RequestStatus::Replied(reply) => CallOutcome::Replied(reply),
                RequestStatus::Rejected(code, message, error) => CallOutcome::Rejected(code, message, error),
                RequestStatus::Pending(status) => {
                    return Err(AgentError::Malformed(format!("the certificate says `{status}`")));
                }
            }),
            None => Ok(fields.rejection()),
        }
    }

    /// Asks for the status of an accepted call until it is final, at most for [`WAIT_MAX`].
    fn wait(
        &mut self,
        identity: &Identity,
        effective: Principal,
        request_id: &[u8; 32],
    ) -> Result<CallOutcome, AgentError> {
        let path = format!("/api/v3/canister/{effective}/read_state");
        let deadline = Instant::now() + WAIT_MAX;
        while Instant::now() < deadline {
            let envelope = read_request_status(identity, request_id, now_nanos() + EXPIRY_NANOS);
            let response = self.connection.request("POST", &path, &envelope)?;
            let fields = Fields::decode(&expect_ok(response)?)?;
            let certificate = fields
                .certificate
                .ok_or_else(|| AgentError::Malformed("no certificate".into()))?;
            match self.verifier.request_status(&certificate, request_id)? {
                RequestStatus::Replied(reply) => return Ok(CallOutcome::Replied(reply)),
                RequestStatus::Rejected(code, message, error) => {
                    return Ok(CallOutcome::Rejected(code, message, error));
                }
                RequestStatus::Pending(_) => std::thread::sleep(POLL_INTERVAL),
            }
        }
        Ok(CallOutcome::Accepted)
    }

    fn query(
        &mut self,
        identity: &Identity,
        canister: Principal,
        method: &str,
        argument: &[u8],
    ) -> Result<CallOutcome, AgentError> {
        let signed = self.content(Kind::Query, canister, method, argument).sign(identity);
        let path = format!("/api/v3/canister/{canister}/query");
        let response = self.connection.request("POST", &path, &signed.envelope)?;
        let fields = Fields::decode(&expect_ok(response)?)?;
        Ok(match fields.reply {
            Some(reply) => CallOutcome::Replied(reply),
            None => fields.rejection(),
        })
    }

    fn content<'a>(&mut self, kind: Kind, canister: Principal, method: &'a str, argument: &'a [u8]) -> Content<'a> {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&self.next_nonce.to_le_bytes());
        self.next_nonce = self.next_nonce.wrapping_add(1);
        Content {
            kind,
            canister,
            method,
            argument,
            ingress_expiry: now_nanos() + EXPIRY_NANOS,
            nonce,
        }
    }
}

fn now_nanos() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

fn expect_ok(response: HttpResponse) -> Result<Vec<u8>, AgentError> {
    match response.status {
        200 => Ok(response.body),
        status => Err(AgentError::Http(
            status,
            String::from_utf8_lossy(&response.body).into_owned(),
        )),
    }
}

/// The fields of answers that this agent reads; others are skipped.
#[derive(Default)]
struct Fields {
    root_key: Option<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    reply: Option<Vec<u8>>,
    reject_code: Option<u64>,
    reject_message: Option<String>,
    error_code: Option<String>,
}

impl Fields {
    fn decode(bytes: &[u8]) -> Result<Self, AgentError> {
        let mut decoder = Decoder::new(bytes);
        if decoder.datatype()? == Type::Tag {
            decoder.tag()?;
        }
        let mut fields = Self::default();
        let count = decoder
            .map()?
            .ok_or_else(|| AgentError::Malformed("a map of unknown length".into()))?;
        for _ in 0..count {
            match decoder.str()? {
                "root_key" => fields.root_key = Some(decoder.bytes()?.to_vec()),
                "certificate" => fields.certificate = Some(decoder.bytes()?.to_vec()),
                "reply" => fields.reply = Some(decode_reply(&mut decoder)?),
                "reject_code" => fields.reject_code = Some(decoder.u64()?),
                "reject_message" => fields.reject_message = Some(decoder.str()?.to_owned()),
                "error_code" => fields.error_code = Some(decoder.str()?.to_owned()),
                _ => decoder.skip()?,
            }
        }
        Ok(fields)
    }

    fn rejection(self) -> CallOutcome {
        CallOutcome::Rejected(
            self.reject_code.unwrap_or_default(),
            self.reject_message.unwrap_or_default(),
            self.error_code.unwrap_or_default(),
        )
    }
}

fn decode_reply(decoder: &mut Decoder<'_>) -> Result<Vec<u8>, AgentError> {
    let mut reply = Vec::new();
    let count = decoder
        .map()?
        .ok_or_else(|| AgentError::Malformed("a map of unknown length".into()))?;
    for _ in 0..count {
        if decoder.str()? == "arg" {
            reply = decoder.bytes()?.to_vec();
        } else {
            decoder.skip()?;
        }
    }
    Ok(reply)
}
