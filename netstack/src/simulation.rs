//! The whole stack on a simulated network: every seed is another history of partial reads and writes, delays, reordered
//! events, resets and slow clients, and the same things must hold in all of them.
//!
//! `REPLICORE_SIMULATION_SEEDS=100000` runs more of them, `REPLICORE_SIMULATION_SEED=123` a particular one.

use crate::api::Api;
use crate::config::{NetLimits, ServerConfig};
use crate::crowd::Crowd;
use crate::envelope::{Content, Endpoint};
use crate::event_loop::EventLoop;
use crate::handler::Handler;
use crate::mailbox::{Gauge, Mailbox};
use crate::ring::sim::{Random, SimulatedRing, World};
use crate::ring::sys::WakeFd;
use crate::server::NetStats;
use crate::service::*;
use crate::verify::VerifiedIngress;
use ed25519_zebra::SigningKey;
use minicbor::Encoder;
use parking_lot::Mutex;
use replicore_types::{CanisterId, NodeId, Payload, PrincipalId, Time};
use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

const NOW: Time = Time(1_700_000_000_000_000_000);
const CLIENTS: usize = 12;
const SEEDS: u64 = 60;
/// Turns after which a history that is not over counts as stuck.
const TURNS_MAX: usize = 200_000;

/// Answers when the simulation says so.
#[derive(Default)]
struct Held(Mutex<Vec<Box<dyn FnOnce() + Send>>>);

impl ReplicaService for Held {
    fn status(&self) -> StatusReport {
        StatusReport {
            root_key: Arc::from([1; 133]),
            healthy: true,
            certified_height: 7,
            implementation: "simulation".into(),
        }
    }

    fn now(&self) -> Time {
        NOW
    }

    fn call(&self, message: VerifiedIngress, _: Target, _: bool, respond: Responder<CallReply>) {
        let reply = CallReply::Certificate(message.method_payload.clone());
        self.0.lock().push(Box::new(move || respond(reply)));
    }

    fn query(&self, query: Query, respond: Responder<Result<QueryReply, ServiceBusy>>) {
        let reply = QueryReply {
            response: QueryResponse::Replied(query.method_payload),
            timestamp: NOW,
            signature: [9; 64],
            node: NodeId(PrincipalId::from_slice(&[8])),
        };
        self.0.lock().push(Box::new(move || respond(Ok(reply))));
    }

    fn read_state(&self, _: ReadState, respond: Responder<Result<Payload, ReadStateError>>) {
        respond(Err(ReadStateError::Unavailable));
    }
}

/// What a client asks, and how the answer is told from others.
struct Exchange {
    request: Vec<u8>,
    status: u16,
    /// Bytes that the answer has in it.
    mark: Vec<u8>,
}

impl Exchange {
    fn of(random: &mut Random, number: u32) -> Self {
        let mark = [b"mark".as_slice(), &number.to_be_bytes()].concat();
        match random.below(5) {
            0 => Self {
                request: b"GET /api/v2/status HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
                status: 200,
                mark: b"simulation".to_vec(),
            },
            1 => Self {
                request: post("query", &envelope(Endpoint::Query, &mark, None), random.one_in(2)),
                status: 200,
                mark,
            },
            2 | 3 => Self {
                request: post("call", &envelope(Endpoint::Call, &mark, Some(true)), random.one_in(2)),
                status: 200,
                mark,
            },
            _ => Self {
                request: post("call", &envelope(Endpoint::Call, &mark, Some(false)), false),
                status: 400,
                mark: b"Invalid signature".to_vec(),
            },
        }
    }
}

pub(crate) fn post(endpoint: &str, body: &[u8], chunked: bool) -> Vec<u8> {
    let canister = CanisterId::from_index(1);
    let head = format!(
        "POST /api/v3/canister/{canister}/{endpoint} HTTP/1.1\r\nhost: x\r\ncontent-type: application/cbor\r\n"
    );
    if !chunked {
        return [format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat();
    }
    let (first, second) = body.split_at(body.len() / 3);
    let mut request = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for chunk in [first, second] {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

/// A request with `argument`, anonymous or with a good or a bad signature.
pub(crate) fn envelope(endpoint: Endpoint, argument: &[u8], signed: Option<bool>) -> Vec<u8> {
    let key = SigningKey::from([argument[7]; 32]);
    let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let der = [&prefix[..], key.verification_key().as_ref()].concat();
    let sender = signed.map_or(PrincipalId::anonymous(), |_| PrincipalId::self_authenticating(&der));
    let content = Content {
        endpoint,
        sender,
        nonce: None,
        ingress_expiry: NOW.0 + 60_000_000_000,
        canister_id: CanisterId::from_index(1),
        method_name: Cow::Borrowed("m"),
        arg: Cow::Borrowed(argument),
        sender_info: None,
        paths: Vec::new(),
    };
    let payload = [b"\x0Aic-request".as_slice(), content.request_id().as_bytes()].concat();
    let mut signature = key.sign(&payload).to_bytes();
    signature[0] ^= u8::from(signed == Some(false));
    let mut writer = Encoder::new(Vec::new());
    let mut write = || -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
        writer
            .map(1 + 2 * u64::from(signed.is_some()))?
            .str("content")?
            .map(6)?;
        writer.str("request_type")?.str(endpoint.request_type())?;
        writer.str("sender")?.bytes(sender.as_slice())?;
        writer.str("ingress_expiry")?.u64(content.ingress_expiry)?;
        writer.str("canister_id")?.bytes(content.canister_id.as_slice())?;
        writer.str("method_name")?.str("m")?;
        writer.str("arg")?.bytes(argument)?;
        if signed.is_some() {
            writer.str("sender_pubkey")?.bytes(&der)?;
            writer.str("sender_sig")?.bytes(&signature)?;
        }
        Ok(())
    };
    write().unwrap();
    writer.into_writer()
}

/// A client with what it asks and has not sent yet.
struct Client {
    pipe: usize,
    exchanges: Vec<Exchange>,
    unsent: Vec<u8>,
    /// The connection breaks on it at some time.
    breaks: bool,
}

struct Simulation {
    seed: u64,
    random: Random,
    world: Rc<RefCell<World>>,
    service: Arc<Held>,
    api: Arc<Api>,
    open: Arc<Gauge>,
    mailbox: Arc<Mailbox>,
    event_loop: EventLoop,
    clients: Vec<Client>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed ^ 0xabcd);
        let world = World::new(seed);
        let limits = NetLimits {
            pipeline_max: 1 + random.below(8),
            output_bytes_max: 1 + random.below(4096),
            // Bounds on time are tested where time is real; here a slow history must not end a connection.
            idle_timeout_ms: u64::MAX,
            header_timeout_ms: u64::MAX,
            body_timeout_ms: u64::MAX,
            answer_timeout_ms: u64::MAX,
            write_timeout_ms: u64::MAX,
            ..NetLimits::default()
        };
        let config = ServerConfig {
            limits: limits.clone(),
            ..ServerConfig::default()
        };
        let service = Arc::new(Held::default());
        let api = Arc::new(Api::new(&config, service.clone()).unwrap());
        let open = Gauge::new(CLIENTS);
        let mailbox = Arc::new(Mailbox::new(Arc::new(WakeFd::new().unwrap())));
        let ring = Box::new(SimulatedRing::new(world.clone()));
        let clock = world.clone();
        let event_loop = EventLoop::new(
            ring,
            api.clone(),
            limits,
            mailbox.clone(),
            open.clone(),
            Crowd::new(CLIENTS),
        )
        .with_clock(Box::new(move || clock.borrow().now));
        let mut simulation = Self {
            seed,
            random,
            world,
            service,
            api,
            open,
            mailbox,
            event_loop,
            clients: Vec::new(),
        };
        simulation.connect_clients();
        simulation
    }

    fn connect_clients(&mut self) {
        let world = &mut *self.world.borrow_mut();
        for number in 0..CLIENTS as u32 {
            let count = 1 + self.random.below(12) as u32;
            let exchanges: Vec<_> = (0..count)
                .map(|request| Exchange::of(&mut self.random, number << 16 | request))
                .collect();
            let pipe = world.connect();
            if self.random.one_in(3) {
                world.pipes[pipe].window = Some(0);
            }
            self.clients.push(Client {
                pipe,
                unsent: exchanges.iter().flat_map(|exchange| exchange.request.clone()).collect(),
                exchanges,
                breaks: self.random.one_in(6),
            });
        }
    }

    /// Lets clients and the service do something.
    fn act(&mut self) {
        let world = &mut *self.world.borrow_mut();
        let client = &mut self.clients[self.random.below(CLIENTS)];
        let pipe = &mut world.pipes[client.pipe];
        let count = self.random.below(600).min(client.unsent.len());
        pipe.to_server.extend(client.unsent.drain(..count));
        if let Some(window) = &mut pipe.window {
            *window += self.random.below(200);
        }
        if client.unsent.is_empty() && self.random.one_in(2) {
            pipe.ended = true;
        }
        if client.breaks && self.random.one_in(40) {
            pipe.broken = true;
        }
        let mut held = self.service.0.lock();
        while !held.is_empty() && self.random.one_in(2) {
            let which = self.random.below(held.len());
            held.swap_remove(which)();
        }
    }

    /// Runs until all connections are closed.
    fn run(mut self, stop_after: Option<usize>) {
        for turn in 0..TURNS_MAX {
            if stop_after == Some(turn) {
                self.mailbox.stop(Instant::now() + Duration::from_secs(600));
            }
            self.act();
            let over = self.event_loop.turn().unwrap();
            let all_closed = self.world.borrow().pipes.iter().all(|pipe| pipe.closed);
            if over || all_closed {
                assert_eq!(
                    over,
                    stop_after.is_some() && over,
                    "seed {}: ended by itself",
                    self.seed
                );
                return self.check(stop_after.is_some());
            }
        }
        panic!("seed {}: some connections were never closed", self.seed);
    }

    /// What must hold when it is over.
    fn check(self, stopped: bool) {
        for client in &self.clients {
            let world = self.world.borrow();
            let pipe = &world.pipes[client.pipe];
            let answered = check_answers(self.seed, &pipe.from_server, &client.exchanges, pipe.broken);
            if !pipe.broken && !stopped {
                assert_eq!(
                    answered,
                    client.exchanges.len(),
                    "seed {}: answers are missing",
                    self.seed
                );
            }
        }
        if !stopped {
            assert_eq!(
                self.open.count(),
                0,
                "seed {}: connections are still counted",
                self.seed
            );
            assert_eq!(
                self.event_loop.held(),
                crate::connection::Held::default(),
                "seed {}: bytes are still counted",
                self.seed
            );
        }
        // Requests of broken connections are answered into the void, and then nothing is in flight.
        self.service.0.lock().drain(..).for_each(|answer| answer());
        let mut stats = NetStats::default();
        self.api.add_stats(&mut stats);
        let in_flight = (
            stats.calls_in_flight,
            stats.queries_in_flight,
            stats.read_states_in_flight,
        );
        assert_eq!(in_flight, (0, 0, 0), "seed {}: requests are still counted", self.seed);
    }
}

/// Checks that the whole answers in `bytes` are those to the first exchanges, in order, and counts them.
fn check_answers(seed: u64, mut bytes: &[u8], exchanges: &[Exchange], broken: bool) -> usize {
    let mut answered = 0;
    while !bytes.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = response.parse(bytes) else {
            assert!(broken, "seed {seed}: part of an answer");
            break;
        };
        let length = response.headers.iter().find(|header| header.name == "content-length");
        let length: usize = std::str::from_utf8(length.unwrap().value).unwrap().parse().unwrap();
        let Some(body) = bytes.get(head..head + length) else {
            assert!(broken, "seed {seed}: part of an answer");
            break;
        };
        let exchange = &exchanges[answered];
        assert_eq!(
            response.code,
            Some(exchange.status),
            "seed {seed}: status of answer {answered}"
        );
        assert!(
            body.windows(exchange.mark.len()).any(|window| window == exchange.mark),
            "seed {seed}: answer {answered} is another's"
        );
        bytes = &bytes[head + length..];
        answered += 1;
    }
    answered
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    match number("REPLICORE_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("REPLICORE_SIMULATION_SEEDS").unwrap_or(SEEDS),
    }
}

#[test]
fn every_client_gets_its_answers_in_order_whatever_the_network_does() {
    for seed in seeds() {
        Simulation::new(seed).run(None);
    }
}

#[test]
fn a_server_that_stops_finishes_what_it_has_begun() {
    for seed in seeds() {
        Simulation::new(seed).run(Some(Random(seed).below(300)));
    }
}
