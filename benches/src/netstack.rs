//! A whole replica over loopback: signed requests in, certificates out, every batch durable first.

mod cache;
mod deploy;
mod http;
mod sessions;
mod signed;

pub use cache::cache_hit;
pub use http::{pipelined, plain};
pub use signed::{signed_update_load, signed_updates};

use crate::BenchError;
use crate::measure::{Effort, Figure};
use replicore::Replica;
use replicore::config::Config;
use replicore_workloads::agent::{fetch_root_key, fetch_state_root};
use replicore_workloads::certificate::Verifier;
use replicore_workloads::ledger::{self, LoadOptions, Progress};
use replicore_workloads::{Agent, Identity};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

struct Running {
    replica: Replica,
    verifier: Arc<Verifier>,
    canister: candid::Principal,
    _directory: TempDir,
}

/// `netstack.update_roundtrip_us` and `netstack.query_roundtrip_us`: one client on an idle replica, from sending the
/// signed request to the answer, the client's own signing included; it checks the BLS signature of one root in 16.
pub fn roundtrips(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let running = Running::start()?;
    let (updates, root) = running.load(1, Duration::from_millis(effort.scale(5_000).max(300)), 0)?;
    let (queries, _) = running.load(1, Duration::from_millis(effort.scale(2_000).max(200)), 100)?;
    let figure = |id, histogram: &hdrhistogram::Histogram<u64>, root: &str| Figure {
        id,
        value: histogram.value_at_quantile(0.5) as f64,
        unit: "us",
        low: histogram.value_at_quantile(0.25) as f64,
        high: histogram.value_at_quantile(0.75) as f64,
        runs: histogram.len() as usize,
        root: root.to_owned(),
        against: [("p99", histogram.value_at_quantile(0.99) as f64)].into(),
    };
    running.stop()?;
    Ok(vec![
        figure("netstack.update_roundtrip_us", &updates.transfer_latency, &root),
        figure("netstack.query_roundtrip_us", &queries.query_latency, &root),
    ])
}

/// `ledger.transfers_rps`: signed transfers of 64 users in a closed loop, replica and clients on the same machine.
pub fn ledger(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let running = Running::start()?;
    let mut samples = Vec::new();
    let mut last_root = String::new();
    for _ in 0..effort.runs.min(5) {
        let (report, root) = running.load(64, Duration::from_millis(effort.scale(5_000).max(300)), 0)?;
        samples.push(report.transfers as f64 / report.elapsed.as_secs_f64());
        last_root = root;
    }
    running.stop()?;
    Ok(vec![Figure::of("ledger.transfers_rps", "1/s", samples, last_root)])
}

impl Running {
    fn start() -> Result<Self, BenchError> {
        let directory = tempfile::tempdir().map_err(BenchError::new)?;
        let config = Config {
            state_dir: directory.path().join("state"),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..Config::default()
        };
        let replica = Replica::start(&config).map_err(BenchError::new)?;
        let address = replica.local_addr();
        let verifier = Verifier::new(&fetch_root_key(address).map_err(BenchError::new)?).map_err(BenchError::new)?;
        // Clients share the machine with the replica: one root in 16 has its BLS signature checked by them.
        let verifier = Arc::new(verifier.sampling(16));
        let mut agent = Agent::new(address, Identity::numbered(0), Arc::clone(&verifier));
        let canister = ledger::deploy(&mut agent).map_err(BenchError::new)?;
        Ok(Self {
            replica,
            verifier,
            canister,
            _directory: directory,
        })
    }

    fn load(
        &self,
        users: u64,
        duration: Duration,
        query_percent: u32,
    ) -> Result<(ledger::LoadReport, String), BenchError> {
        let address = self.replica.local_addr();
        let options = LoadOptions {
            address,
            ledger: self.canister,
            users,
            duration,
            query_percent,
            seed: 1,
        };
        let report = ledger::run(&options, &self.verifier, &Arc::new(Progress::default())).map_err(BenchError::new)?;
        let root = fetch_state_root(address, self.canister, &self.verifier).map_err(BenchError::new)?;
        Ok((report, hex::encode(root)))
    }

    fn stop(self) -> Result<(), BenchError> {
        self.replica.stop().map_err(BenchError::new)
    }
}
