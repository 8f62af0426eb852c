//! The transport of replicore beside axum, hyper, monoio and nginx: POST of 400 bytes, answered with 300; each server alone on
//! the first core, the client on the last, all of them in every round, so that what else the machine does meets all.
//!
//! `compare-net [ROUNDS] [MILLISECONDS]` prints a table: median requests per second, the ratio to axum of the same
//! round, and the 99th percentile of latency.

mod nginx;
mod peers;

use peers::{ANSWER_BODY_BYTES, Peer};
use replicore_netstack::NetBackend;
use replicore_netstack::load::{LoadPlan, LoadReport, drive};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REQUEST_BODY_BYTES: usize = 400;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let rounds = arguments.next().unwrap_or(5);
    let duration = Duration::from_millis(arguments.next().unwrap_or(1_000));
    let peers = Peer::all();
    for (connections, pipeline) in [(256, 1), (64, 16)] {
        println!("\n{connections} connections, {pipeline} unanswered requests on each, {rounds} rounds of {duration:?}\n");
        println!("| server | requests/s | to axum | p99 µs |");
        println!("|---|---|---|---|");
        let mut reports: Vec<Vec<LoadReport>> = peers.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (peer, reports) in peers.iter().zip(&mut reports) {
                reports.push(load(peer, connections, pipeline, duration));
            }
        }
        let axum = peers.iter().position(|peer| peer.name == "axum").expect("axum is a peer");
        for (number, peer) in peers.iter().enumerate() {
            let rates = reports[number].iter().map(LoadReport::accepted_per_second);
            let ratios = reports[number]
                .iter()
                .zip(&reports[axum])
                .map(|(own, axum)| own.accepted_per_second() / axum.accepted_per_second());
            let tails = reports[number].iter().map(|report| report.latency_at(0.99) as f64 / 1e3);
            println!(
                "| {} | {:.0} | {:.2} | {:.0} |",
                peer.name,
                median(rates),
                median(ratios),
                median(tails)
            );
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn load(peer: &Peer, connections: usize, pipeline: usize, duration: Duration) -> LoadReport {
    let plan = LoadPlan {
        address: peer.address,
        backend: NetBackend::Auto,
        connections,
        pipeline,
        rate: None,
        burst: 1,
        duration,
    };
    let head = format!(
        "POST /api/v2/canister/rrkah-fqaaa-aaaaa-aaaaq-cai/call HTTP/1.1\r\nhost: localhost\r\n\
         content-type: application/cbor\r\ncontent-length: {REQUEST_BODY_BYTES}\r\n\r\n"
    );
    let request = [head.as_bytes(), &[7; REQUEST_BODY_BYTES]].concat();
    let driver = std::thread::spawn(move || {
        peers::pin(usize::MAX);
        drive(&plan, &mut |bytes| {
            bytes.extend_from_slice(&request);
            true
        })
    });
    let report = driver.join().expect("the client does not panic").expect(peer.name);
    assert_eq!(report.refused, 0, "{}: {:?}", peer.name, report.last_refusal);
    assert_eq!(report.last_body, [9; ANSWER_BODY_BYTES], "{}", peer.name);
    report
}
