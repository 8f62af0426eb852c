//! Signed updates from HTTP to certificate on a whole replica, every batch durable first, the client beside it.

use super::deploy::Deployed;
use super::disk_floor::DiskFloor;
use super::processor::{is_network, is_rounds, own_nanos, threads_nanos};
use super::sessions::Session;
use crate::BenchError;
use crate::measure::{Effort, Figure};
use rayon::prelude::*;
use replicore::config::Config;
use replicore_netstack::NetBackend;
use replicore_netstack::load::{LoadPlan, LoadReport, drive};
use std::time::Duration;

/// Connections and sessions of every load.
pub(super) const SESSIONS: u64 = 256;
/// Unanswered requests of each connection in a closed loop.
const PIPELINE: usize = 16;
/// 70 % of the rate that is asked for.
const ASKED_RATE: f64 = 21_000.0;
/// How long an open loop lasts at full effort.
const OPEN_MILLISECONDS: u64 = 4_000;

/// `netstack.signed_update_rps`, `netstack.delegated_update_ratio` and `netstack.canister_signature_ratio`: no-op
/// updates of 256 users who sign with Ed25519 keys of their own, through one delegation each, and through one that a
/// canister has signed; closed loop, 16 unanswered requests on each of 256 connections, signed before the clock starts.
pub fn signed_updates(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut deployed = Deployed::start_with(take_all)?;
    let own: Vec<_> = (0..SESSIONS).map(Session::own).collect();
    let delegated: Vec<_> = (0..SESSIONS).map(Session::delegated).collect();
    let of_canister = Session::of_canister(&mut deployed, SESSIONS)?;
    let mut load = Load::new(&deployed, effort.scale(20_000));
    // The delegations of all sessions are verified once before the clock starts, as those of returning users are.
    load.closed(&delegated)?;
    load.closed(&of_canister)?;
    let samples = effort.samples(|| Ok([load.closed(&own)?, load.closed(&delegated)?, load.closed(&of_canister)?]))?;
    let root = deployed.root()?;
    deployed.stop()?;
    let rates = samples.iter().map(|[own, ..]| own.accepted_per_second()).collect();
    let ratio = |which: usize| {
        let to_own =
            |reports: &[LoadReport; 3]| reports[which].accepted_per_second() / reports[0].accepted_per_second();
        samples.iter().map(to_own).collect()
    };
    Ok(vec![
        Figure::of("netstack.signed_update_rps", "1/s", rates, root.clone()),
        Figure::of("netstack.delegated_update_ratio", "x", ratio(1), root.clone()),
        Figure::of("netstack.canister_signature_ratio", "x", ratio(2), root),
    ])
}

/// `netstack.signed_update_p99_ms`: the same updates in an open loop for four seconds at full effort, at 70 % of the rate
/// that the closed loop reached just before (`rate`); latency counts from when a request was due. Beside it the same from
/// when the client, which needs the same cores, came to sending it, and `at_21000_p99_ms`, at 70 % of the 30,000 calls a second
/// that are asked for, whatever the closed loop reached. `disk_p99_ms` is what the disk alone leaves: from when a message of
/// `rate` is due until a plain file on it, synced again and again right after each open loop, would have it. What a call at
/// 21,000 a second costs the processors stands in `at_21000_network_us`, `at_21000_rounds_us` (rounds, log, certificates and
/// answers) and `at_21000_client_us`.
pub fn signed_update_latency(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let deployed = Deployed::start_with(take_all)?;
    let own: Vec<_> = (0..SESSIONS).map(Session::own).collect();
    let mut load = Load::new(&deployed, effort.scale(20_000));
    load.closed(&own)?;
    let mut disk = DiskFloor::new()?;
    let samples = effort.samples(|| {
        let rate = load.closed(&own)?.accepted_per_second();
        let mut open = |rate: f64| {
            let count = rate * effort.scale(OPEN_MILLISECONDS) as f64 / 1e3;
            let requests = load.sign(&own, count as u64 + 1);
            let before = processor_nanos()?;
            let report = load.open(&requests, rate, SESSIONS as usize)?;
            let (after, calls) = (processor_nanos()?, report.accepted.max(1) as f64);
            let costs = std::array::from_fn(|group| (after[group] - before[group]) as f64 / calls / 1e3);
            Ok::<_, BenchError>((report, costs))
        };
        let (own, (asked, costs)) = (open(0.7 * rate)?.0, open(ASKED_RATE)?);
        let duration = Duration::from_millis(effort.scale(OPEN_MILLISECONDS));
        let disk = disk.latency_at(0.99, 0.7 * rate, duration)?;
        Ok(LatencySample {
            own,
            asked,
            costs,
            disk,
        })
    })?;
    let root = deployed.root()?;
    deployed.stop()?;
    let of = |value: &dyn Fn(&LatencySample) -> f64| samples.iter().map(value).collect::<Vec<_>>();
    let millis = |nanos: u64| nanos as f64 / 1e6;
    let p99 = of(&|sample| millis(sample.own.latency_at(0.99)));
    Ok(vec![
        Figure::of("netstack.signed_update_p99_ms", "ms", p99, root)
            .against("p50_ms", of(&|sample| millis(sample.own.latency_at(0.5))))
            .against(
                "p99_from_sending_ms",
                of(&|sample| millis(sample.own.latency_from_sending_at(0.99))),
            )
            .against("at_21000_p99_ms", of(&|sample| millis(sample.asked.latency_at(0.99))))
            .against("at_21000_p50_ms", of(&|sample| millis(sample.asked.latency_at(0.5))))
            .against("at_21000_network_us", of(&|sample| sample.costs[0]))
            .against("at_21000_rounds_us", of(&|sample| sample.costs[1]))
            .against("at_21000_client_us", of(&|sample| sample.costs[2]))
            .against("disk_p99_ms", of(&|sample| millis(sample.disk)))
            .against("rate", of(&|sample| sample.own.accepted_per_second())),
    ])
}

/// What one turn of [`signed_update_latency`] gave.
struct LatencySample {
    /// At 70 % of what the closed loop reached.
    own: LoadReport,
    /// At [`ASKED_RATE`].
    asked: LoadReport,
    /// Microseconds on the processor for each call of the latter: network, rounds, client.
    costs: [f64; 3],
    /// Nanoseconds of the disk alone.
    disk: u64,
}

/// Nanoseconds on the processor of network threads, of those that make rounds, and of the client, which is this one.
fn processor_nanos() -> Result<[u64; 3], BenchError> {
    Ok([threads_nanos(is_network)?, threads_nanos(is_rounds)?, own_nanos()?])
}

/// Has calls wait as long as the machine makes them: where it is busy with other things, rates are lower and nothing is
/// refused.
fn take_all(config: &mut Config) {
    config.pool.waiting_ms_max = 0;
}

/// A replica, and what is sent to it.
pub(super) struct Load<'d> {
    deployed: &'d Deployed,
    nonce: u64,
    /// Requests of one closed loop.
    requests: u64,
}

impl<'d> Load<'d> {
    pub(super) fn new(deployed: &'d Deployed, requests: u64) -> Self {
        Self {
            deployed,
            nonce: 0,
            requests,
        }
    }

    /// So many requests, from every session in turn, unlike all before.
    pub(super) fn sign(&mut self, sessions: &[Session], count: u64) -> Vec<Vec<u8>> {
        let nonces: Vec<u64> = (self.nonce..self.nonce + count).collect();
        self.nonce += count;
        let (canister, mut requests) = (self.deployed.canister, Vec::new());
        let turn = |nonce: &u64| sessions[*nonce as usize % sessions.len()].call(canister, *nonce);
        nonces.par_iter().map(turn).collect_into_vec(&mut requests);
        requests
    }

    /// As fast as the server answers; every request must be accepted.
    pub(super) fn closed(&mut self, sessions: &[Session]) -> Result<LoadReport, BenchError> {
        let report = self.closed_with_refusals(sessions)?;
        match &report.last_refusal {
            Some((status, body)) => Err(BenchError::new(format!(
                "{} updates were refused, the last with {status}: {}",
                report.refused,
                String::from_utf8_lossy(body)
            ))),
            None => Ok(report),
        }
    }

    /// The same where some may be refused.
    pub(super) fn closed_with_refusals(&mut self, sessions: &[Session]) -> Result<LoadReport, BenchError> {
        let requests = self.sign(sessions, self.requests);
        let plan = LoadPlan {
            pipeline: PIPELINE,
            ..self.plan(SESSIONS as usize)
        };
        drive_with(&requests, &plan)
    }

    /// At `rate` per second, whatever the server does, on so many connections.
    pub(super) fn open(&self, requests: &[Vec<u8>], rate: f64, connections: usize) -> Result<LoadReport, BenchError> {
        let plan = LoadPlan {
            rate: Some(rate),
            ..self.plan(connections)
        };
        drive_with(requests, &plan)
    }

    /// A plan for the same where as many requests as a connection has unanswered in a closed loop may leave on it together.
    pub(super) fn plan_in_bursts(&self, rate: f64, connections: usize) -> LoadPlan {
        LoadPlan {
            rate: Some(rate),
            burst: PIPELINE,
            ..self.plan(connections)
        }
    }

    fn plan(&self, connections: usize) -> LoadPlan {
        LoadPlan {
            address: self.deployed.address(),
            backend: NetBackend::Auto,
            connections,
            pipeline: 64,
            rate: None,
            burst: 1,
            duration: Duration::from_secs(90),
        }
    }
}

/// Sends these requests as `plan` says.
pub(super) fn drive_with(requests: &[Vec<u8>], plan: &LoadPlan) -> Result<LoadReport, BenchError> {
    let mut requests = requests.iter();
    let mut next = |bytes: &mut Vec<u8>| match requests.next() {
        Some(request) => {
            bytes.extend_from_slice(request);
            true
        }
        None => false,
    };
    drive(plan, &mut next).map_err(BenchError::new)
}
