//! What each part of the transport is worth, in processor time of the server: unlike a rate, it hardly depends on what
//! else the machine does.

use super::http::{Load, Peer};
use super::processor::{is_network, threads_nanos};
use crate::BenchError;
use crate::measure::{Effort, Figure};
use replicore_netstack::{NetBackend, RingFeatures};
use std::fs;
use std::net::TcpStream;
use std::time::Duration;

/// The least that serves: a request to the kernel for each piece that is received, worked off whenever it completes.
const NAIVE: RingFeatures = RingFeatures {
    multishot: false,
    deferred: false,
    incremental_buffers: false,
    registered_files: false,
};
const MULTISHOT: RingFeatures = RingFeatures {
    multishot: true,
    ..NAIVE
};
const DEFERRED: RingFeatures = RingFeatures {
    deferred: true,
    ..MULTISHOT
};
const INCREMENTAL: RingFeatures = RingFeatures {
    incremental_buffers: true,
    ..DEFERRED
};
const REGISTERED: RingFeatures = RingFeatures {
    registered_files: true,
    ..DEFERRED
};
const EVERYTHING: RingFeatures = RingFeatures {
    incremental_buffers: true,
    ..REGISTERED
};

const STEPS: [(&str, RingFeatures); 6] = [
    ("naive", NAIVE),
    ("multishot", MULTISHOT),
    ("deferred", DEFERRED),
    ("incremental", INCREMENTAL),
    ("registered", REGISTERED),
    ("everything", EVERYTHING),
];

/// `netstack.server_ns` and `netstack.server_pipelined_ns`: processor time that the server spends for a request of 400
/// bytes answered with 300, on 256 connections with one request and on 64 with 16; beside it each step from the least
/// that io_uring can do to all of it, epoll, and `floor`: the same bytes moved without looking at them.
pub fn ladder(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let ours = Peer::replicore(NetBackend::Auto, RingFeatures::default())?;
    if ours.backend() != Some("io_uring") {
        return Err(BenchError::left_out("io_uring is not available here"));
    }
    let epoll = Peer::replicore(NetBackend::Epoll, RingFeatures::default())?;
    let floor = Peer::floor()?;
    let steps = STEPS
        .iter()
        .map(|(_, features)| Peer::replicore(NetBackend::Uring, *features))
        .collect::<Result<Vec<_>, _>>()?;
    let peers: Vec<_> = [&ours, &epoll, &floor].into_iter().chain(&steps).collect();
    let mut figures = Vec::new();
    for (id, connections, pipeline) in [("netstack.server_ns", 256, 1), ("netstack.server_pipelined_ns", 64, 16)] {
        let load = Load {
            connections,
            pipeline,
            duration: Duration::from_millis(effort.scale(1_000)),
        };
        let samples = effort.samples(|| {
            peers
                .iter()
                .map(|peer| server_nanos(&load, peer))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let of = |peer: usize| samples.iter().map(|sample| sample[peer]).collect::<Vec<_>>();
        let figure = Figure::of(id, "ns", of(0), String::new())
            .against("epoll", of(1))
            .against("floor", of(2));
        let with_steps = STEPS
            .iter()
            .enumerate()
            .fold(figure, |figure, (step, (name, _))| figure.against(name, of(3 + step)));
        figures.push(with_steps);
    }
    Ok(figures)
}

/// Nanoseconds on the processor that the server used for each request of the load.
pub(super) fn server_nanos(load: &Load, peer: &Peer) -> Result<f64, BenchError> {
    let before = threads_nanos(is_network)?;
    let report = load.drive(peer)?;
    Ok((threads_nanos(is_network)? - before) as f64 / report.accepted.max(1) as f64)
}

/// `netstack.idle_connections_ratio` and `netstack.idle_connection_kib`: the rate beside 10,000 connections that are kept
/// open without a request (or as many as this process may have) to the rate without them, and the memory that each takes
/// of this process.
pub fn idle_connections(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let load = Load {
        connections: 256,
        pipeline: 1,
        duration: Duration::from_millis(effort.scale(1_000)),
    };
    let quiet = Peer::replicore(NetBackend::Auto, RingFeatures::default())?;
    let crowded = Peer::replicore(NetBackend::Auto, RingFeatures::default())?;
    // Warm buffers of a load are not what an idle connection costs.
    load.drive(&crowded)?;
    let count = (effort.scale(10_000) as usize).min((open_files_max()? / 2).saturating_sub(1_000));
    let before = resident_bytes()?;
    let mut idle = Vec::with_capacity(count);
    for _ in 0..count {
        idle.push(TcpStream::connect(crowded.address).map_err(BenchError::new)?);
    }
    crowded.wait_for_connections(count)?;
    let grown = resident_bytes()?.saturating_sub(before);
    let samples = effort.samples(|| {
        let (crowded, quiet) = (load.drive(&crowded)?, load.drive(&quiet)?);
        Ok(crowded.accepted_per_second() / quiet.accepted_per_second())
    })?;
    drop(idle);
    let kib = grown as f64 / 1024.0 / count as f64;
    Ok(vec![
        Figure::of("netstack.idle_connections_ratio", "x", samples, String::new())
            .against("idle_connections", vec![count as f64]),
        Figure::of("netstack.idle_connection_kib", "KiB", vec![kib], String::new()),
    ])
}

/// How many files this process may have open.
pub(super) fn open_files_max() -> Result<usize, BenchError> {
    let limits = fs::read_to_string("/proc/self/limits").map_err(BenchError::new)?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| BenchError::left_out("the number of open files is not limited by a number"))
}

/// Memory of this process that is in use.
pub(super) fn resident_bytes() -> Result<u64, BenchError> {
    let statm = fs::read_to_string("/proc/self/statm").map_err(BenchError::new)?;
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    Ok(pages.ok_or_else(|| BenchError::new("the memory of this process is not known"))? * 4096)
}
