//! Signed updates from HTTP to certificate on a whole replica, every batch durable first, the client beside it.

use super::deploy::Deployed;
use super::sessions::Session;
use crate::BenchError;
use crate::measure::{Effort, Figure};
use replicore::config::Config;
use replicore_netstack::NetBackend;
use replicore_netstack::load::{LoadPlan, LoadReport, drive};
use std::time::Duration;

/// Connections and sessions of every load.
pub(super) const SESSIONS: u64 = 256;
/// Unanswered requests of each connection in a closed loop.
const PIPELINE: usize = 16;

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

/// `netstack.signed_update_p99_ms`: the same updates in an open loop, at 70 % of the rate that the closed loop reached just
/// before; latency counts from when a request was due.
pub fn signed_update_latency(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let deployed = Deployed::start_with(take_all)?;
    let own: Vec<_> = (0..SESSIONS).map(Session::own).collect();
    let mut load = Load::new(&deployed, effort.scale(20_000));
    load.closed(&own)?;
    let samples = effort.samples(|| {
        let rate = load.closed(&own)?.accepted_per_second();
        let requests = load.sign(&own, load.requests);
        load.open(&requests, 0.7 * rate, SESSIONS as usize)
    })?;
    let root = deployed.root()?;
    deployed.stop()?;
    let millis = |quantile| {
        let of = |report: &LoadReport| report.latency_at(quantile) as f64 / 1e6;
        samples.iter().map(of).collect::<Vec<_>>()
    };
    let rates = samples.iter().map(LoadReport::accepted_per_second).collect();
    Ok(vec![
        Figure::of("netstack.signed_update_p99_ms", "ms", millis(0.99), root)
            .against("p50_ms", millis(0.5))
            .against("rate", rates),
    ])
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
        let first = self.nonce;
        self.nonce += count;
        let canister = self.deployed.canister;
        let turns = sessions.iter().cycle();
        turns
            .zip(first..self.nonce)
            .map(|(session, nonce)| session.call(canister, nonce))
            .collect()
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
        self.drive(
            &requests,
            LoadPlan {
                pipeline: PIPELINE,
                ..self.plan(SESSIONS as usize)
            },
        )
    }

    /// At `rate` per second, whatever the server does, on so many connections.
    pub(super) fn open(&self, requests: &[Vec<u8>], rate: f64, connections: usize) -> Result<LoadReport, BenchError> {
        self.drive(
            requests,
            LoadPlan {
                rate: Some(rate),
                ..self.plan(connections)
            },
        )
    }

    /// The same where as many requests as a connection has unanswered in a closed loop may leave on it together.
    pub(super) fn open_in_bursts(
        &self,
        requests: &[Vec<u8>],
        rate: f64,
        connections: usize,
    ) -> Result<LoadReport, BenchError> {
        self.drive(
            requests,
            LoadPlan {
                rate: Some(rate),
                burst: PIPELINE,
                ..self.plan(connections)
            },
        )
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

    fn drive(&self, requests: &[Vec<u8>], plan: LoadPlan) -> Result<LoadReport, BenchError> {
        let mut requests = requests.iter();
        drive(&plan, &mut |bytes| {
            requests
                .next()
                .map(|request| bytes.extend_from_slice(request))
                .is_some()
        })
        .map_err(BenchError::new)
    }
}
