//! Followers: replicas that fetch a state from another one, execute the batches that it logs, and answer queries.
//!
//! ```text
//! the replica that is followed                       the follower
//!   checkpoint ── manifest, signed ───────────────►    what lacks is fetched, every piece checked (persistence::sync)
//!   commit     ── batch, root, signature, ... ────►    logged, executed, compared, published
//! ```
//!
//! The subnet's key signs the state hash of the checkpoint and the root after every batch, so that a follower believes
//! nobody but the subnet. It holds none of the subnet's secrets: it takes no calls and makes no certificates of its own,
//! it shows those of the replica that it follows.

mod client;
mod error;
mod feed;
mod fetched_state;
mod follower;
mod following;
mod serve;
mod service;
#[cfg(test)]
mod tests;
mod wire;

pub use error::FollowError;
pub use feed::{Entry, Feed};
pub(crate) use follower::FOLLOWED_KEY_FILE;
pub use follower::{Follower, FollowerOptions};
pub use serve::{SyncServer, SyncState};
