//! Signed updates from HTTP to certificate on a whole replica, every batch durable first, the client beside it.

use super::deploy::Deployed;
use super::sessions::Session;
use crate::BenchError;
use crate::measure::{Effort, Figure};
use replicore_netstack::NetBackend;
use replicore_netstack::load::{LoadPlan, LoadReport, drive};
use std::time::Duration;

/// Connections and sessions of every load.
const SESSIONS: u64 = 256;
/// Unanswered requests of each connection in a closed loop.
const PIPELINE: usize = 16;

/// `netstack.signed_update_rps`, `netstack.delegated_update_ratio` and `netstack.canister_signature_ratio`: no-op
/// updates of 256 users who sign with Ed25519 keys of their own, through one delegation each, and through one that a
/// canister has signed; closed loop, 16 unanswered requests on each of 256 connections, signed before the clock starts.
pub fn signed_updates(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let mut deployed = Deployed::start()?;
    let own: Vec<_> = (0..SESSIONS).map(Session::own).collect();
    let delegated: Vec<_> = (0..SESSIONS).map(Session::delegated).collect();
    let of_canister = Session::of_canister(&mut deployed, SESSIONS)?;
    let mut load = Load {
        deployed: &deployed,
        nonce: 0,
        requests: effort.scale(20_000),
    };
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

/// `netstack.signed_update_p99_ms` and `netstack.overload_goodput_ratio`: the same updates in an open loop, at 70 % of
/// the rate that the closed loop reached just before (latency counts from when a request was due), and at twice it (the
/// rate of accepted answers divided by that of the closed loop).
pub fn signed_update_load(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let deployed = Deployed::start()?;
    let own: Vec<_> = (0..SESSIONS).map(Session::own).collect();
    let mut load = Load {
        deployed: &deployed,
        nonce: 0,
        requests: effort.scale(20_000),
    };
    load.closed(&own)?;
    let samples = effort.samples(|| {
        let peak = load.closed(&own)?;
        let rate = peak.accepted_per_second();
        Ok((peak, load.open(&own, 0.7 * rate)?, load.open(&own, 2.0 * rate)?))
    })?;
    let root = deployed.root()?;
    deployed.stop()?;
    let millis = |report: &LoadReport, quantile| report.latency_at(quantile) as f64 / 1e6;
    let goodput =
        |(peak, _, flooded): &(LoadReport, _, LoadReport)| flooded.accepted_per_second() / peak.accepted_per_second();
    Ok(vec![
        Figure::of(
            "netstack.signed_update_p99_ms",
            "ms",
            samples.iter().map(|(_, open, _)| millis(open, 0.99)).collect(),
            root.clone(),
        )
        .against("p50_ms", samples.iter().map(|(_, open, _)| millis(open, 0.5)).collect())
        .against(
            "rate",
            samples.iter().map(|(_, open, _)| open.accepted_per_second()).collect(),
        ),
        Figure::of(
            "netstack.overload_goodput_ratio",
            "x",
            samples.iter().map(goodput).collect(),
            root,
        )
        .against(
            "p99_ms",
            samples.iter().map(|(.., flooded)| millis(flooded, 0.99)).collect(),
        )
        .against(
            "refused",
            samples.iter().map(|(.., flooded)| flooded.refused as f64).collect(),
        ),
    ])
}

struct Load<'d> {
    deployed: &'d Deployed,
    nonce: u64,
    /// Requests of one run.
    requests: u64,
}

impl Load<'_> {
    /// Requests for one run, from every session in turn.
    fn sign(&mut self, sessions: &[Session]) -> Vec<Vec<u8>> {
        let first = self.nonce;
        self.nonce += self.requests;
        let canister = self.deployed.canister;
        let turns = sessions.iter().cycle();
        turns
            .zip(first..self.nonce)
            .map(|(session, nonce)| session.call(canister, nonce))
            .collect()
    }

    /// As fast as the server answers; every request must be accepted.
    fn closed(&mut self, sessions: &[Session]) -> Result<LoadReport, BenchError> {
        let report = self.drive(sessions, None, PIPELINE)?;
        match &report.last_refusal {
            Some((status, body)) => Err(BenchError::new(format!(
                "{} updates were refused, the last with {status}: {}",
                report.refused,
                String::from_utf8_lossy(body)
            ))),
            None => Ok(report),
        }
    }

    /// At `rate` per second, whatever the server does.
    fn open(&mut self, sessions: &[Session], rate: f64) -> Result<LoadReport, BenchError> {
        self.drive(sessions, Some(rate), 64)
    }

    fn drive(&mut self, sessions: &[Session], rate: Option<f64>, pipeline: usize) -> Result<LoadReport, BenchError> {
        let mut requests = self.sign(sessions).into_iter();
        let plan = LoadPlan {
            address: self.deployed.address(),
            backend: NetBackend::Auto,
            connections: SESSIONS as usize,
            pipeline,
            rate,
            duration: Duration::from_secs(60),
        };
        drive(&plan, &mut |bytes| {
            requests
                .next()
                .map(|request| bytes.extend_from_slice(&request))
                .is_some()
        })
        .map_err(BenchError::new)
    }
}
