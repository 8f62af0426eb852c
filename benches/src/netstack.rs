//! A whole replica over loopback: signed requests in, certificates out, every batch durable first.

mod cache;
mod deploy;
mod disk_floor;
mod http;
mod ladder;
mod overload;
mod processor;
mod roundtrip;
mod sessions;
mod signed;
mod stages;
mod validation;

pub use cache::cache_hit;
pub use http::{pipelined, plain};
pub use ladder::{idle_connections, ladder};
pub use overload::overload;
pub use roundtrip::roundtrips;
pub use signed::{signed_update_latency, signed_updates};
pub use stages::update_stages;
pub use validation::validation;

use crate::{BenchError, replicas};
use replicore::Replica;
use replicore::config::Config;
use replicore_workloads::agent::{fetch_root_key, fetch_state_root};
use replicore_workloads::certificate::Verifier;
use replicore_workloads::ledger::{self, LoadOptions, Progress};
use replicore_workloads::{Agent, Identity};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// A replica with a ledger on it, on the loopback interface.
pub(crate) struct Running {
    replica: Replica,
    verifier: Arc<Verifier>,
    canister: candid::Principal,
    _directory: TempDir,
}

impl Running {
    /// Starts a replica on a fresh directory and deploys the ledger.
    pub(crate) fn start() -> Result<Self, BenchError> {
        Self::start_with(|_| {})
    }

    /// The same with another configuration.
    pub(crate) fn start_with(change: impl FnOnce(&mut Config)) -> Result<Self, BenchError> {
        let directory = tempfile::tempdir().map_err(BenchError::new)?;
        let mut config = replicas::config(&directory.path().join("state"));
        change(&mut config);
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

    /// Load of so many users for so long, and the state root after it.
    pub(crate) fn load(
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

    /// The user of that number on a connection of its own.
    pub(crate) fn agent(&self, number: u64) -> Agent {
        let verifier = Arc::clone(&self.verifier);
        Agent::new(self.replica.local_addr(), Identity::numbered(number), verifier)
    }

    /// The ledger.
    pub(crate) fn canister(&self) -> candid::Principal {
        self.canister
    }

    /// Checks that no token was made or lost; the state root.
    pub(crate) fn check_supply(&self) -> Result<String, BenchError> {
        let mut agent = self.agent(0);
        let mut number = |method| ledger::read_number(&mut agent, self.canister, method).map_err(BenchError::new);
        let (supply, accounts, opening) = (number("total_supply")?, number("accounts")?, number("opening_balance")?);
        if supply != accounts * opening {
            return Err(BenchError::new(format!(
                "{accounts} accounts hold {supply} together, not {opening} each"
            )));
        }
        let root = fetch_state_root(self.replica.local_addr(), self.canister, &self.verifier);
        Ok(hex::encode(root.map_err(BenchError::new)?))
    }

    /// Stops the replica.
    pub(crate) fn stop(self) -> Result<(), BenchError> {
        self.replica.stop().map_err(BenchError::new)
    }
}
