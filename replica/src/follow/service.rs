//! What a follower answers: queries and parts of the certified state, no calls.

use crate::failure::Failure;
use crate::queries::Queries;
use crate::rounds::wall_clock;
use crate::snapshot::Published;
use replicore_netstack::{
    CallReply, Query, QueryReply, ReadState, ReadStateError, ReplicaService, Responder, ServiceBusy, StatusReport,
    Target, VerifiedIngress,
};
use replicore_types::{ErrorCode, Payload, Time, UserError};
use std::net::SocketAddr;
use std::sync::Arc;

/// What the network stack asks of a follower.
pub(super) struct FollowerService {
    pub(super) peer: SocketAddr,
    pub(super) published: Arc<Published>,
    pub(super) queries: Queries,
    pub(super) root_key_der: Arc<[u8]>,
    pub(super) failure: Arc<Failure>,
}

impl ReplicaService for FollowerService {
    fn status(&self) -> StatusReport {
        let snapshot = self.published.load();
        StatusReport {
            root_key: Arc::clone(&self.root_key_der),
            healthy: snapshot.is_some() && self.failure.get().is_none(),
            certified_height: snapshot.map_or(0, |snapshot| snapshot.state.metadata.height.0),
            implementation: concat!("replicore-", env!("CARGO_PKG_VERSION"), " (follower)").to_owned(),
        }
    }

    fn now(&self) -> Time {
        wall_clock()
    }

    fn call(&self, _message: VerifiedIngress, _target: Target, _wait: bool, respond: Responder<CallReply>) {
        let text = format!(
            "This replica only follows another one and takes no calls: send them to the replica that it follows ({})",
            self.peer
        );
        respond(CallReply::Rejected(UserError::new(ErrorCode::SubnetNotFound, text)));
    }

    fn query(&self, query: Query, respond: Responder<Result<QueryReply, ServiceBusy>>) {
        self.queries.ask(query, respond);
    }

    fn read_state(&self, read: ReadState, respond: Responder<Result<Payload, ReadStateError>>) {
        let _watch = self.failure.watch("network");
        respond(match self.published.load() {
            Some(snapshot) => snapshot.read_state(&read),
            None => Err(ReadStateError::Unavailable),
        });
    }
}
