//! Twice as many signed updates as the replica can certify, for a minute.

use super::deploy::Deployed;
use super::ladder::{open_files_max, resident_bytes};
use super::sessions::Session;
use super::signed::{Load, SESSIONS, drive_with};
use crate::BenchError;
use crate::measure::{Effort, Figure};
use replicore::config::Config;
use replicore_netstack::load::LoadReport;
use std::time::Duration;

/// How long the overload lasts at full effort.
const MILLISECONDS: u64 = 60_000;
/// Requests that are signed before the clock starts, at most: half a kilobyte each. At a rate that needs more of them the
/// overload is shorter.
const REQUESTS_MAX: f64 = 5_000_000.0;
/// Connections, with 64 unanswered requests each: more than twice as many as the replica takes for one canister, so that it
/// is the replica that says no and not the client that waits.
const CONNECTIONS: usize = 1_024;
/// What a call that was certified may leave in memory: its status with its reply, which is kept for minutes, in the state
/// and in the certified tree, of which two versions are there at a time.
const BYTES_PER_ACCEPTED: u64 = 2 * 1024;
/// What everything else may grow by: queues and buffers, which are full now and were not before.
const BYTES_OF_QUEUES: u64 = 256 * 1024 * 1024;

/// One overload.
struct Sample {
    /// Certified answers per second of the closed loops around it.
    peak: f64,
    report: LoadReport,
    /// Bytes that the process grew by.
    grown: f64,
}

impl Sample {
    fn goodput(&self) -> f64 {
        self.report.accepted_per_second() / self.peak
    }

    fn offered(&self) -> f64 {
        (self.report.accepted + self.report.refused) as f64 / self.report.elapsed.as_secs_f64() / self.peak
    }
}

/// `netstack.overload_goodput_ratio`: no-op updates in an open loop at twice the rate that a closed loop reached just
/// before, for 60 seconds at full effort; certified answers per second in it by those of the closed loops before and after
/// it (their mean, because the statuses of all these calls are kept meanwhile, which weighs on either). In both, requests
/// that are due together share a connection, 16 at most, so that it is the same load but for its rate; what is refused is
/// not sent again. Beside it what was sent in a second, to the peak (`offered`: less than 2 where the client, which shares
/// the cores, is late), the latency of the accepted ones from when they were due and from when the client came to sending
/// them, how many were refused, and the memory that the process grew by (`grown_mib`, client included, signed requests not)
/// with the part of it for each accepted call.
pub fn overload(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let deployed = Deployed::start_with(remember_all)?;
    let own: Vec<_> = (0..SESSIONS).map(Session::own).collect();
    let mut load = Load::new(&deployed, effort.scale(20_000));
    load.closed_with_refusals(&own)?;
    // Less than proportionally in shorter efforts, which have seconds for each measurement.
    let duration = Duration::from_millis(effort.scale(effort.scale(effort.scale(MILLISECONDS))).max(100));
    let samples = effort.samples(|| sample(&mut load, &own, duration))?;
    let root = deployed.root()?;
    deployed.stop()?;
    let of = |value: &dyn Fn(&Sample) -> f64| samples.iter().map(value).collect::<Vec<_>>();
    let millis = |nanos: u64| nanos as f64 / 1e6;
    Ok(vec![
        Figure::of("netstack.overload_goodput_ratio", "x", of(&Sample::goodput), root)
            .against("offered", of(&Sample::offered))
            .against("p99_ms", of(&|sample| millis(sample.report.latency_at(0.99))))
            .against(
                "p50_from_sending_ms",
                of(&|sample| millis(sample.report.latency_from_sending_at(0.5))),
            )
            .against(
                "p99_from_sending_ms",
                of(&|sample| millis(sample.report.latency_from_sending_at(0.99))),
            )
            .against("refused", of(&|sample| sample.report.refused as f64))
            .against("seconds", of(&|sample| sample.report.elapsed.as_secs_f64()))
            .against("grown_mib", of(&|sample| sample.grown / 1_048_576.0))
            .against(
                "grown_kib_per_accepted",
                of(&|sample| sample.grown / 1024.0 / sample.report.accepted.max(1) as f64),
            ),
    ])
}

/// Has the history hold the statuses of all calls of all overloads: its bound is about memory, and what is measured here
/// is about the rest.
fn remember_all(config: &mut Config) {
    config.pool.statuses_max = 10_000_000;
}

fn sample(load: &mut Load<'_>, own: &[Session], duration: Duration) -> Result<Sample, BenchError> {
    let before = load.closed_with_refusals(own)?.accepted_per_second();
    let rate = 2.0 * before;
    let requests = load.sign(own, (rate * duration.as_secs_f64()).clamp(1.0, REQUESTS_MAX) as u64);
    // Both ends are in this process.
    let plan = load.plan_in_bursts(rate, CONNECTIONS.min(open_files_max()? / 4));
    let resident = resident_bytes()?;
    let report = drive_with(&requests, &plan)?;
    let grown = resident_bytes()?.saturating_sub(resident);
    check_memory(&report, grown)?;
    let after = load.closed_with_refusals(own)?.accepted_per_second();
    Ok(Sample {
        peak: f64::midpoint(before, after),
        report,
        grown: grown as f64,
    })
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
