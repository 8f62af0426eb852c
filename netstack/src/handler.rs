//! What an event loop does with whole requests.

use crate::api::{Answer, Work};
use crate::http::parse::Request;
use crate::mailbox::ReplyAddress;
use crate::server::NetStats;
use crate::verify::Batch;

/// Shared by all event loops of a server.
pub(crate) trait Handler: Send + Sync {
    /// Handles one request: its answer, or `None` if that will come to `address`, perhaps not before
    /// [`Handler::end_turn`] has dealt with what was put into `batch`.
    fn handle(&self, request: &Request<'_>, address: ReplyAddress, batch: &mut Batch<Work>) -> Option<Answer>;

    /// All requests of a turn have been handled, or as many as are dealt with together.
    fn end_turn(&self, batch: &mut Batch<Work>);

    /// Adds what it has counted.
    fn add_stats(&self, stats: &mut NetStats);
}
