//! Paths whose cost is counted rather than timed: allocations, bytes allocated, page faults, reads and writes and their
//! bytes, instructions and system calls.
//!
//! Counts hardly depend on what else the machine does, so that they can gate a change where times can only inform.
//! `benches/benches/counts.rs` takes them and compares them with those that are committed (`benches/counts.json`).

use crate::BenchError;
use crate::engine_canister::{Canister, HOST_CALLS};
use crate::persistence::counted as persistence;
use crate::scheduler::Subnet;
use candid::Principal;
use replicore_netstack::SignatureCacheConfig;
use replicore_netstack::envelope::{Endpoint, Envelope};
use replicore_netstack::verify::{Circumstances, Verifier};
use replicore_types::Time;
use replicore_workloads::Identity;
use replicore_workloads::request::{Content, Kind};
use std::sync::Arc;

/// Something whose cost is counted, ready to be done again and again on the calling thread.
pub type Step = Box<dyn FnMut() -> Result<(), BenchError>>;

/// One path through the replica.
pub struct Path {
    /// Its name in the committed counts.
    pub name: &'static str,
    /// What one operation is.
    pub about: &'static str,
    /// Operations of one step.
    pub operations: u64,
    /// Steps that are counted, after as many that warm up.
    pub steps: u64,
    /// Makes it ready.
    pub prepare: fn() -> Result<Step, BenchError>,
}

/// Messages of the round that is counted.
const ROUND_MESSAGES: u64 = 500;
/// Wasm pages of the canister's heap.
const HEAP_WASM_PAGES: u64 = 64;
/// Batch time of the envelope that is verified.
const NOW: Time = Time(1_700_000_000_000_000_000);

/// Every path.
pub static PATHS: [Path; 11] = [
    Path {
        name: "engine.noop",
        about: "an update that does nothing, on a warm instance",
        operations: 1,
        steps: 1_000,
        prepare: || message("noop"),
    },
    Path {
        name: "engine.write_5_pages",
        about: "an update that writes into five pages of a 4 MiB heap",
        operations: 1,
        steps: 500,
        prepare: || message("write5"),
    },
    Path {
        name: "engine.trap_64_pages",
        about: "an update that writes into 64 pages and traps",
        operations: 1,
        steps: 100,
        prepare: || message("touch_and_trap"),
    },
    Path {
        name: "engine.host_call",
        about: "a call of the System API",
        operations: HOST_CALLS,
        steps: 2,
        prepare: || message("host_calls"),
    },
    Path {
        name: "engine.stable_write",
        about: "an update that writes into stable memory",
        operations: 1,
        steps: 500,
        prepare: stable_write,
    },
    Path {
        name: "scheduler.empty_round",
        about: "a round without messages",
        operations: 1,
        steps: 200,
        prepare: || round(0),
    },
    Path {
        name: "scheduler.noop_update",
        about: "an update among 500 of a round, from batch to certified root, on one core",
        operations: ROUND_MESSAGES,
        steps: 10,
        prepare: || round(ROUND_MESSAGES),
    },
    Path {
        name: "persistence.log_batch",
        about: "a batch of 1 KiB appended to the log and synced",
        operations: 1,
        steps: 50,
        prepare: persistence::log_batch,
    },
    Path {
        name: "persistence.checkpoint_page",
        about: "a page among 256 changed ones of a checkpoint, made durable",
        operations: persistence::CHECKPOINT_PAGES,
        steps: 4,
        prepare: persistence::checkpoint,
    },
    Path {
        name: "netstack.verify_new",
        about: "a call's envelope, decoded and verified with its Ed25519 signature",
        operations: 1,
        steps: 200,
        prepare: || verify(false),
    },
    Path {
        name: "netstack.verify_known",
        about: "the same with the signature in the cache",
        operations: 1,
        steps: 500,
        prepare: || verify(true),
    },
];

fn message(method: &'static str) -> Result<Step, BenchError> {
    let mut canister = Canister::new(HEAP_WASM_PAGES)?;
    canister.update("fill")?;
    Ok(Box::new(move || {
        std::hint::black_box(canister.execute(method));
        Ok(())
    }))
}

fn stable_write() -> Result<Step, BenchError> {
    let mut canister = Canister::new(1)?;
    canister.update("stable_grow")?;
    Ok(Box::new(move || canister.update("stable_write").map(drop)))
}

fn round(messages: u64) -> Result<Step, BenchError> {
    let mut subnet = Subnet::of_copies(10, 1)?;
    Ok(Box::new(move || {
        let messages = (0..messages).map(|number| subnet.noop((number % 10) as usize));
        let messages = messages.collect();
        subnet.round(messages);
        Ok(())
    }))
}

fn verify(is_cached: bool) -> Result<Step, BenchError> {
    let config = SignatureCacheConfig {
        enabled: is_cached,
        ..SignatureCacheConfig::default()
    };
    let verifier = Verifier::new(&config).map_err(BenchError::new)?;
    let content = Content {
        kind: Kind::Call,
        canister: Principal::management_canister(),
        method: "noop",
        argument: &[0; 64],
        ingress_expiry: NOW.0 + 60_000_000_000,
        nonce: [1; 16],
    };
    let envelope = content.sign(&Identity::numbered(1)).envelope;
    let root_key: Arc<[u8]> = Arc::from(&[][..]);
    Ok(Box::new(move || {
        let circumstances = Circumstances {
            now: NOW,
            root_key: &|| Arc::clone(&root_key),
        };
        let envelope = Envelope::decode(&envelope, Endpoint::Call).map_err(BenchError::new)?;
        let verified = verifier.verify(envelope, &circumstances).map_err(BenchError::new)?;
        std::hint::black_box(verified);
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_can_be_taken_twice() {
        for path in &PATHS {
            let mut step = (path.prepare)().unwrap_or_else(|error| panic!("{}: {error}", path.name));
            for _ in 0..2 {
                step().unwrap_or_else(|error| panic!("{}: {error}", path.name));
            }
        }
    }
}
