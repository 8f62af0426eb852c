//! The replica: a process that serves canisters, and the library that embeds the same engine elsewhere.
//!
//! - [`Replica`] wires everything: network, ingress pool, rounds, batch log, checkpoints, certification, queries.
//! - [`StateMachine`] is the deterministic part alone, for embedders that order batches themselves: [`Batch`] in,
//!   [`RoundStats`] and a certified state out.
//!
//! Threads and what they own (all follow from [`Replica::start`]; the scheduler's and the compilers' belong to the engine):
//!
//! ```text
//! network  (n)  sockets; verification; read_state; short queries        -> pool, query queue
//! round    (1)  takes a batch from the pool, executes it               -> commit
//! log      (1)  makes batches durable, several with one sync           -> commit
//! commit   (1)  certifies what is executed and durable, answers callers -> published snapshot
//! signer   (1)  signatures and vetKeys that canisters asked for        -> pool
//! outcall  (n)  HTTP requests of canisters                             -> pool
//! query    (n)  longer queries and ingress filters on the published snapshot
//! checkpoint (1) writes snapshots in the background
//! observation (1) metrics and the dashboard, on a listener of its own
//! sync (1), follower (n)  serve replicas that follow, where `sync.listen` is set
//! recorder (1), spans (1) write down requests and send traces, where that is asked for
//! ```
//!
//! A failure or a panic in any of them closes the pool, answers who waits, and shows in [`Replica::failure`].
//!
//! `examples/embed.rs` shows the second use, `replicore start` is the first.
//!
//! [`Batch`]: replicore_types::Batch
//! [`RoundStats`]: replicore_scheduler::RoundStats

#![forbid(unsafe_code)]

pub mod admission;
pub mod certification;
pub mod checkpoints;
mod commit;
pub mod config;
pub mod conformance;
mod dirty_memory;
mod exposition;
mod failure;
pub mod follow;
mod log_writer;
mod machine;
pub mod mechanisms;
mod metrics;
mod observation;
pub mod offline;
mod open_files;
pub mod operator_key;
mod outside;
mod pool;
mod port_file;
mod process_stats;
mod queries;
mod query_cache;
mod query_queue;
mod recorder;
mod recovery;
mod replica;
mod rounds;
mod service;
mod snapshot;
pub mod spans;
#[cfg(test)]
mod tests;
mod waiters;

pub use machine::StateMachine;
pub use outside::ThresholdSecrets;
pub use queries::QueryStats;
pub use query_cache::QueryCacheStats;
pub use recovery::RecoveryError;
pub use replica::{Replica, ReplicaError};
