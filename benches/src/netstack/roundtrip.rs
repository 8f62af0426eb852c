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
use std::time::{Duration, Instant};

const FOUR_MINUTES: u64 = 4 * 60 * 1_000_000_000;

/// `netstack.update_roundtrip_us` and `netstack.query_roundtrip_us`: one client on an idle replica, from sending the
/// signed request to the answer, the client's own signing included; it checks the BLS signature of one root in 16.
///
/// Beside the query what no replica can go below here, taken in turn with the queries: `echo`, the same client and bytes
/// with a server on the same ring that does not look at them; `sign`, the client's signature; `verify`, the server's check of
/// it with the key's point known; and `floor`, their sum.
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
    /// Keeps the other end up.
    _server: Floor,
    /// Nanoseconds.
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
        let server = Floor::start(NetBackend::Auto, request.len() + envelope.len(), answer).map_err(BenchError::new)?;
        Ok(Self {
            connection: Connection::new(server.local_addr()),
            path,
            canister,
            user,
            argument,
            _server: server,
            echo: Vec::new(),
            sign: Vec::new(),
            verify: Vec::new(),
        })
    }

    fn measure(&mut self, duration: Duration) -> Result<(), BenchError> {
        let key = self.user.public_key_der().last_chunk::<32>().copied();
        let key = key.ok_or_else(|| BenchError::new("a user without a key"))?;
        let key = VerificationKey::try_from(VerificationKeyBytes::from(key)).map_err(BenchError::new)?;
        let until = Instant::now() + duration;
        while Instant::now() < until {
            let start = Instant::now();
            let signed = query(self.canister, &self.argument).sign(&self.user);
            self.sign.push(start.elapsed().as_nanos() as u64);
            let start = Instant::now();
            let answer = self.connection.request("POST", &self.path, &signed.envelope);
            self.echo.push(start.elapsed().as_nanos() as u64);
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
        let [echo, sign, verify] = [&mut self.echo, &mut self.sign, &mut self.verify].map(median);
        [
            ("echo", echo),
            ("sign", sign),
            ("verify", verify),
            ("floor", echo + sign + verify),
        ]
    }
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
