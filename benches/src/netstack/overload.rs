//! Twice as many signed updates as the replica can certify, for a minute.

use super::deploy::Deployed;
use super::ladder::{open_files_max, resident_bytes};
use super::sessions::Session;
use super::signed::{Load, SESSIONS};
use crate::BenchError;
use crate::measure::{Effort, Figure};
use replicore_netstack::load::LoadReport;
use std::time::Duration;

/// How long the overload lasts at full effort.
const MILLISECONDS: u64 = 60_000;
/// Requests that are signed before the clock starts, at most: half a kilobyte each. At a rate that needs more of them the
/// overload is shorter.
const REQUESTS_MAX: f64 = 2_500_000.0;
/// Connections, with 64 unanswered requests each: more than twice as many as the replica takes for one canister, so that it
/// is the replica that says no and not the client that waits.
const CONNECTIONS: usize = 1_024;
/// What a call that was certified may leave in memory: its status with its reply, which is kept for minutes, in the state
/// and in the certified tree, of which two versions are there at a time.
const BYTES_PER_ACCEPTED: u64 = 2 * 1024;
/// What everything else may grow by: queues and buffers, which are full now and were not before.
const BYTES_OF_QUEUES: u64 = 256 * 1024 * 1024;

/// `netstack.overload_goodput_ratio`: no-op updates in an open loop at twice the rate that a closed loop reached just
/// before, for 60 seconds at full effort; certified answers per second in it by those of the closed loops before and after
/// it (their mean, because the statuses of all these calls are kept meanwhile, which weighs on either). In both, requests
/// that are due together share a connection, 16 at most, so that it is the same load but for its rate. Beside it the
/// latency of the accepted ones from when they were due and from when the client, which needs the same cores, came to
/// sending them, how many were refused, and the memory that the process grew by
/// (`grown_mib`, client included, signed requests not) with the part of it for each accepted call.
pub fn overload(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let deployed = Deployed::start()?;
    let own: Vec<_> = (0..SESSIONS).map(Session::own).collect();
    let mut load = Load::new(&deployed, effort.scale(20_000));
    load.closed_with_refusals(&own)?;
    // Less than proportionally in shorter efforts, which have seconds for each measurement.
    let duration = Duration::from_millis(effort.scale(effort.scale(effort.scale(MILLISECONDS))).max(100));
    // Both ends are in this process.
    let connections = CONNECTIONS.min(open_files_max()? / 4);
    let samples = effort.samples(|| {
        let peak = load.closed_with_refusals(&own)?.accepted_per_second();
        let count = (2.0 * peak * duration.as_secs_f64()).clamp(1.0, REQUESTS_MAX);
        let requests = load.sign(&own, count as u64);
        let before = resident_bytes()?;
        let report = load.open_in_bursts(&requests, 2.0 * peak, connections)?;
        let grown = resident_bytes()?.saturating_sub(before);
        check_memory(&report, grown)?;
        let after = load.closed_with_refusals(&own)?.accepted_per_second();
        Ok((f64::midpoint(peak, after), report, grown as f64))
    })?;
    let root = deployed.root()?;
    deployed.stop()?;
    type Sample = (f64, LoadReport, f64);
    let of = |value: &dyn Fn(&Sample) -> f64| samples.iter().map(value).collect::<Vec<_>>();
    let goodput = of(&|(peak, report, _)| report.accepted_per_second() / peak);
    let accepted = |report: &LoadReport| report.accepted.max(1) as f64;
    Ok(vec![
        Figure::of("netstack.overload_goodput_ratio", "x", goodput, root)
            .against("p99_ms", of(&|(_, report, _)| report.latency_at(0.99) as f64 / 1e6))
            .against(
                "p99_from_sending_ms",
                of(&|(_, report, _)| report.latency_from_sending_at(0.99) as f64 / 1e6),
            )
            .against("refused", of(&|(_, report, _)| report.refused as f64))
            .against("seconds", of(&|(_, report, _)| report.elapsed.as_secs_f64()))
            .against("grown_mib", of(&|(.., grown)| grown / 1_048_576.0))
            .against(
                "grown_kib_per_accepted",
                of(&|(_, report, grown)| grown / 1024.0 / accepted(report)),
            ),
    ])
}

/// Refused requests leave nothing behind, however many there are.
fn check_memory(report: &LoadReport, grown: u64) -> Result<(), BenchError> {
    let allowed = BYTES_OF_QUEUES + report.accepted * BYTES_PER_ACCEPTED;
    if grown > allowed {
        return Err(BenchError::new(format!(
            "memory grew by {grown} bytes while {} calls were accepted and {} refused",
            report.accepted, report.refused
        )));
    }
    Ok(())
}
