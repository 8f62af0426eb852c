//! The public endpoints: what is checked before the service hears of a request, and how its answers look.

mod answer;
mod call;
mod query;
mod read_state;
mod work;

pub(crate) use answer::{Answer, Framing};
pub(crate) use work::Work;

use crate::config::ServerConfig;
use crate::crowd::{Crowd, Place, peer_name};
use crate::envelope::{Content, Endpoint, Envelope};
use crate::handler::{Handler, Turn};
use crate::http::parse::{Method, Request};
use crate::http::route::{NoRoute, Route, route};
use crate::mailbox::{Gauge, Permit, ReplyAddress};
use crate::server::NetStats;
use crate::service::{CallReply, ReplicaService, Target};
use crate::verify::{Batch, BatchStats, Circumstances, Unproven, VerifiedEnvelope, Verifier};
use replicore_types::CanisterId;
use std::borrow::Cow;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What all event loops share.
pub(crate) struct Api {
    service: Arc<dyn ReplicaService>,
    verifier: Verifier,
    ingress_bytes_max: usize,
    calls: Arc<Gauge>,
    queries: Arc<Gauge>,
    read_states: Arc<Gauge>,
    peers: Arc<Crowd>,
    senders: Arc<Crowd>,
    canisters: Arc<Crowd>,
    requests: AtomicU64,
    batches: BatchCounters,
}

/// The answer now, or `Ok` if it will come by the mailbox. Boxed, because the usual way is the other.
type Handled = Result<(), Box<Answer>>;

impl Api {
    pub(crate) fn new(config: &ServerConfig, service: Arc<dyn ReplicaService>) -> io::Result<Self> {
        Ok(Self {
            service,
            verifier: Verifier::new(&config.signature_cache)?.with_batches(config.signature_batches),
            ingress_bytes_max: config.limits.ingress_bytes_max,
            calls: Gauge::new(config.limits.calls_in_flight_max),
            queries: Gauge::new(config.limits.queries_in_flight_max),
            read_states: Gauge::new(config.limits.read_states_in_flight_max),
            peers: Crowd::new(config.limits.in_flight_per_peer_max),
            senders: Crowd::new(config.limits.in_flight_per_sender_max),
            canisters: Crowd::new(config.limits.in_flight_per_canister_max),
            requests: AtomicU64::new(0),
            batches: BatchCounters::default(),
        })
    }

    fn dispatch(&self, request: &Request<'_>, address: ReplyAddress, turn: &mut Turn<'_>) -> Handled {
        if request.method == Method::Options {
            return Err(Box::new(Answer::Preflight));
        }
        let route = route(request.path).map_err(|no_route| match no_route {
            NoRoute::Unknown => refuse(404, "There is nothing at this path."),
            NoRoute::BadPrincipal => refuse(400, "Invalid URL: the identifier in the path is not a principal."),
        })?;
        let wants_get = route == Route::Status;
        let gets = matches!(request.method, Method::Get | Method::Head);
        if wants_get != gets || request.method == Method::Other {
            let methods = if wants_get { "GET,HEAD,OPTIONS" } else { "POST,OPTIONS" };
            return Err(Box::new(Answer::WrongMethod(methods)));
        }
        if !wants_get && !request.cbor {
            return Err(refuse(400, "Unexpected content-type, expected application/cbor."));
        }
        match route {
            Route::Status => Err(Box::new(Answer::Status(Box::new(self.service.status())))),
            Route::Call { version, target } => self.call(request, version, target, address, turn),
            Route::Query { target } => self.query(request, target, address, turn),
            Route::ReadState { target } => self.read_state(request, target, address, turn),
        }
    }

    /// Asks the service, unless the sender or the canister has too much in flight. Only for what has been verified:
    /// nobody is counted for what others claim to be theirs.
    fn start(&self, mut work: Work) {
        let (sender, canister) = work.question.parties();
        let sender = sender.map(|sender| self.senders.enter(&sender.as_slice()));
        let canister = canister.map(|canister| self.canisters.enter(&canister.as_slice()));
        match (sender, canister) {
            (Some(None), _) => work.pending.fulfil(too_many("requests of this sender")),
            (_, Some(None)) => work.pending.fulfil(too_many("requests of this canister")),
            (sender, canister) => {
                work.pending.hold([sender.flatten(), canister.flatten()]);
                work.start(&*self.service);
            }
        }
    }

    /// Counts a request in, or says that there are too many of its kind or of its peer.
    fn enter(
        &self,
        gauge: &Arc<Gauge>,
        what: &'static str,
        peer: Option<IpAddr>,
    ) -> Result<(Permit, Option<Place>), Box<Answer>> {
        let permit = gauge.enter().ok_or_else(|| Box::new(too_many(what)))?;
        let place = match peer {
            None => None,
            Some(address) => Some(
                self.peers
                    .enter(&peer_name(address))
                    .ok_or_else(|| Box::new(too_many("requests of this peer")))?,
            ),
        };
        Ok((permit, place))
    }

    /// Asks the service at once if there is nothing to verify any more, otherwise at the end of the turn.
    fn take_up(&self, unproven: Unproven<Work>, batch: &mut Batch<Work>) {
        match unproven.proven() {
            Ok(work) => self.start(work),
            Err(unproven) => batch.push(unproven),
        }
    }

    /// Refuses before its signature is verified what would be refused after it: whoever asks, a canister that has too much
    /// in flight takes no more, and neither does one whose calls wait too long. So what is over the bound costs a fraction
    /// of what is served.
    fn check_room(&self, content: &Content<'_>, age: Duration) -> Handled {
        if content.endpoint == Endpoint::ReadState || content.canister_id == CanisterId::MANAGEMENT {
            return Ok(());
        }
        if !self.canisters.has_room(&content.canister_id.as_slice()) {
            return Err(Box::new(too_many("requests of this canister")));
        }
        match content.endpoint {
            Endpoint::Call => self.service.has_room(&content.canister_id, age).map_err(|busy| {
                let reply = CallReply::Busy(busy);
                Box::new(Answer::Call { reply, wait: false })
            }),
            _ => Ok(()),
        }
    }

    /// Decodes the body of a request and checks all but what can be verified together with other requests.
    fn examine<'a>(
        &self,
        body: &'a [u8],
        (endpoint, target): (Endpoint, Target),
        age: Duration,
    ) -> Result<Unproven<VerifiedEnvelope<'a>>, Box<Answer>> {
        let envelope = Envelope::decode(body, endpoint)
            .map_err(|error| refuse(400, format!("Failed to deserialize cbor request: {error}")))?;
        check_target(&envelope.content, target)?;
        self.check_room(&envelope.content, age)?;
        let root_key = || self.service.status().root_key;
        let circumstances = Circumstances {
            now: self.service.now(),
            root_key: &root_key,
        };
        self.verifier
            .examine(envelope, &circumstances)
            .map_err(|error| refuse(400, error.to_string()))
    }
}

impl Handler for Api {
    fn handle(&self, request: &Request<'_>, address: ReplyAddress, turn: &mut Turn<'_>) -> Option<Answer> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.dispatch(request, address, turn).err().map(|answer| *answer)
    }

    fn end_turn(&self, batch: &mut Batch<Work>) {
        if batch.is_empty() {
            return;
        }
        self.verifier
            .prove(batch, self.service.now(), |work, outcome| match outcome {
                Ok(()) => self.start(work),
                Err(error) => work.refuse(&error),
            });
        self.batches.add(batch.take_stats());
    }

    fn add_stats(&self, stats: &mut NetStats) {
        stats.requests += self.requests.load(Ordering::Relaxed);
        stats.calls_in_flight += self.calls.count();
        stats.queries_in_flight += self.queries.count();
        stats.read_states_in_flight += self.read_states.count();
        stats.signature_cache = self.verifier.cache_stats();
        stats.keys = self.verifier.key_stats();
        stats.signature_batches = self.batches.get();
    }
}

/// The sum over all event loops.
#[derive(Default)]
struct BatchCounters([AtomicU64; 4]);

impl BatchCounters {
    fn add(&self, stats: BatchStats) {
        let counts = [stats.batches, stats.batched, stats.taken_apart, stats.single];
        for (counter, count) in self.0.iter().zip(counts).filter(|(_, count)| *count > 0) {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    fn get(&self) -> BatchStats {
        let [batches, batched, taken_apart, single] =
            [0, 1, 2, 3].map(|index: usize| self.0[index].load(Ordering::Relaxed));
        BatchStats {
            batches,
            batched,
            taken_apart,
            single,
        }
    }
}

fn too_many(what: &str) -> Answer {
    Answer::overloaded(429, format!("The service is overloaded: too many {what} in flight."))
}

fn refuse(status: u16, text: impl Into<Cow<'static, str>>) -> Box<Answer> {
    Box::new(Answer::text(status, text))
}

/// Access is granted and blocked by the canister in the path; a request may not be about another one. What calls of
/// the management canister are about is in their argument, which the service reads.
fn check_target(content: &Content<'_>, target: Target) -> Handled {
    if content.endpoint == Endpoint::ReadState || content.canister_id == CanisterId::MANAGEMENT {
        return Ok(());
    }
    let effective = match target {
        Target::Canister(canister) if canister == content.canister_id => return Ok(()),
        Target::Canister(canister) => canister.principal(),
        Target::Subnet(subnet) => subnet.principal(),
    };
    Err(refuse(
        400,
        format!(
            "Specified CanisterId {} does not match effective canister id in URL {effective}",
            content.canister_id
        ),
    ))
}
