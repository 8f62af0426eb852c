//! What an event loop does with whole requests.

use crate::api::{Answer, Work};
use crate::http::parse::Request;
use crate::mailbox::ReplyAddress;
use crate::server::NetStats;
use crate::verify::Batch;
use std::time::Duration;

/// The turn of an event loop that a request is handled in.
pub(crate) struct Turn<'t> {
    /// Requests of the turn that are verified together.
    pub batch: &'t mut Batch<Work>,
    /// How long ago the turn began: all that is handled in it was there by then.
    pub age: Duration,
}

/// Shared by all event loops of a server.
pub(crate) trait Handler: Send + Sync {
    /// Handles one request: its answer, or `None` if that will come to `address`, perhaps not before
    /// [`Handler::end_turn`] has dealt with what was put into its batch.
    fn handle(&self, request: &Request<'_>, address: ReplyAddress, turn: &mut Turn<'_>) -> Option<Answer>;

    /// All requests of a turn have been handled, or as many as are dealt with together.
    fn end_turn(&self, batch: &mut Batch<Work>);

    /// Adds what it has counted.
    fn add_stats(&self, stats: &mut NetStats);
}
