//! What an event loop does with whole requests.

use crate::api::Answer;
use crate::http::parse::Request;
use crate::mailbox::ReplyAddress;
use crate::server::NetStats;

/// Shared by all event loops of a server.
pub(crate) trait Handler: Send + Sync {
    /// Handles one request: its answer, or `None` if that will come to `address`.
    fn handle(&self, request: &Request<'_>, address: ReplyAddress) -> Option<Answer>;

    /// Adds what it has counted.
    fn add_stats(&self, stats: &mut NetStats);
}
