//! One client on an idle replica.

use super::Running;
use super::sessions::now_nanos;
use crate::BenchError;
use crate::measure::{Effort, Figure};
use candid::Encode;
use ed25519_zebra::{Signature, VerificationKey, VerificationKeyBytes};
use hdrhistogram::Histogram;
use replicore_netstack::NetBackend;
use replicore_netstack::floor::Floor;
use replicore_workloads::Identity;
use replicore_workloads::http::Connection;
use replicore_workloads::request::{Content, Kind};
use std::hint::black_box;
use std::time::{Duration, Instant};

const FOUR_MINUTES: u64 = 4 * 60 * 1_000_000_000;

/// `netstack.update_roundtrip_us` and `netstack.query_roundtrip_us`: one client on an idle replica, from sending the
/// signed request to the answer, the client's own signing included; it checks the BLS signature of one root in 16.
///
/// Beside the query what no replica can go below here, taken in turn with the queries: `echo`, the same client and bytes
/// with a server on the same ring that does not look at them; `sign`, the client's signature; `verify`, the server's check of
/// it with the key's point known; and `floor`, one after the other the client's signature, its bytes, such a server that
/// checks one signature and makes another, as a node does, and the answer's bytes. That is more than the sum: a processor
/// that has had nothing to do for as long as a signature takes has to be woken, which costs virtual machines some ten
/// microseconds, twice.
pub fn roundtrips(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    const TURNS: u32 = 5;
    let running = Running::start()?;
    let (updates, root) = running.load(1, Duration::from_millis(effort.scale(5_000).max(300)), 0)?;
    let mut floor = QueryFloor::start(&running)?;
    let turn = Duration::from_millis(effort.scale(2_000).max(200)) / TURNS;
    let mut queries = updates.query_latency.clone();
    for _ in 0..TURNS {
        let (of_turn, _) = running.load(1, turn, 100)?;
        queries.add(&of_turn.query_latency).map_err(BenchError::new)?;
        floor.measure(turn / 4)?;
    }
    running.stop()?;
    let mut query = figure("netstack.query_roundtrip_us", &queries, &root);
    query.against.extend(floor.medians());
    Ok(vec![
        figure("netstack.update_roundtrip_us", &updates.transfer_latency, &root),
        query,
    ])
}

fn figure(id: &'static str, histogram: &Histogram<u64>, root: &str) -> Figure {
    Figure {
        id,
        value: histogram.value_at_quantile(0.5) as f64,
        unit: "us",
        low: histogram.value_at_quantile(0.25) as f64,
        high: histogram.value_at_quantile(0.75) as f64,
        runs: histogram.len() as usize,
        root: root.to_owned(),
        against: [("p99", histogram.value_at_quantile(0.99) as f64)].into(),
    }
}

/// The parts of a query that are not the replica's: moving the bytes, and the signature of the client.
struct QueryFloor {
    connection: Connection,
    path: String,
    canister: candid::Principal,
    user: Identity,
    argument: Vec<u8>,
    /// To a server that does what no replica can leave out.
    signing: Connection,
    /// Keep the other ends up.
    _servers: [Floor; 2],
    /// Nanoseconds.
    floor: Vec<u64>,
    echo: Vec<u64>,
    sign: Vec<u64>,
    verify: Vec<u64>,
}

impl QueryFloor {
    fn start(running: &Running) -> Result<Self, BenchError> {
        let (canister, user) = (running.canister(), Identity::numbered(0));
        let argument = Encode!(&user.principal()).map_err(BenchError::new)?;
        let path = format!("/api/v3/canister/{canister}/query");
        let envelope = query(canister, &argument).sign(&user).envelope;
        let address = running.replica.local_addr();
        let answered = Connection::new(address).request("POST", &path, &envelope);
        let body = answered.map_err(BenchError::new)?.body;
        // As long as those to another port of as many digits; the head is what this client sends.
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/cbor\r\ncontent-length: {}\r\n\r\n",
            envelope.len()
        );
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/cbor\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = [head.as_bytes(), &body].concat();
        let bytes = request.len() + envelope.len();
        let server = Floor::start(NetBackend::Auto, bytes, answer.clone()).map_err(BenchError::new)?;
        let work = node_work(&user)?;
        let signing = Floor::start_with(NetBackend::Auto, bytes, answer, work).map_err(BenchError::new)?;
        Ok(Self {
            connection: Connection::new(server.local_addr()),
            path,
            canister,
            user,
            argument,
            signing: Connection::new(signing.local_addr()),
            _servers: [server, signing],
            floor: Vec::new(),
            echo: Vec::new(),
            sign: Vec::new(),
            verify: Vec::new(),
        })
    }

    fn measure(&mut self, duration: Duration) -> Result<(), BenchError> {
        let key = key_of(&self.user)?;
        let until = Instant::now() + duration;
        while Instant::now() < until {
            let start = Instant::now();
            let signed = query(self.canister, &self.argument).sign(&self.user);
            self.sign.push(start.elapsed().as_nanos() as u64);
            let start = Instant::now();
            let answer = self.connection.request("POST", &self.path, &signed.envelope);
            self.echo.push(start.elapsed().as_nanos() as u64);
            answer.map_err(BenchError::new)?;
            let start = Instant::now();
            let signed = query(self.canister, &self.argument).sign(&self.user);
            let answer = self.signing.request("POST", &self.path, &signed.envelope);
            self.floor.push(start.elapsed().as_nanos() as u64);
            answer.map_err(BenchError::new)?;
            let signature = Signature::from(self.user.sign(&signed.request_id));
            let start = Instant::now();
            let outcome = key.verify(&signature, &signed.request_id);
            self.verify.push(start.elapsed().as_nanos() as u64);
            outcome.map_err(BenchError::new)?;
        }
        Ok(())
    }

    fn medians(mut self) -> [(&'static str, f64); 4] {
        let median = |nanos: &mut Vec<u64>| {
            nanos.sort_unstable();
            nanos.get(nanos.len() / 2).map_or(0.0, |nanos| *nanos as f64 / 1e3)
        };
        let [echo, sign, verify, floor] =
            [&mut self.echo, &mut self.sign, &mut self.verify, &mut self.floor].map(median);
        [("echo", echo), ("sign", sign), ("verify", verify), ("floor", floor)]
    }
}

/// What a node does about signatures for one query, by the libraries alone: it checks that of the user, whose key it knows,
/// and makes one of its own.
fn node_work(user: &Identity) -> Result<impl FnMut(usize) + Send + 'static, BenchError> {
    let (key, node, bytes) = (key_of(user)?, Identity::numbered(1), [7; 32]);
    let signature = Signature::from(user.sign(&bytes));
    key.verify(&signature, &bytes).map_err(BenchError::new)?;
    Ok(move |requests: usize| {
        for _ in 0..requests {
            // It has been verified before, so that the outcome is known; the work is what counts.
            let _ = black_box(key.verify(black_box(&signature), &bytes));
            black_box(node.sign(black_box(&bytes)));
        }
    })
}

fn key_of(user: &Identity) -> Result<VerificationKey, BenchError> {
    let key = user.public_key_der().last_chunk::<32>().copied();
    let key = key.ok_or_else(|| BenchError::new("a user without a key"))?;
    VerificationKey::try_from(VerificationKeyBytes::from(key)).map_err(BenchError::new)
}

fn query(canister: candid::Principal, argument: &[u8]) -> Content<'_> {
    Content {
        kind: Kind::Query,
        canister,
        method: "balance_of",
        argument,
        ingress_expiry: now_nanos() + FOUR_MINUTES,
        nonce: [1; 16],
    }
}
