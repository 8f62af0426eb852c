//! `POST /api/{v2,v3}/canister/<id>/query` and `/api/v3/subnet/<id>/query`

use super::work::Question;
use super::{Api, Handled, Work};
use crate::envelope::Endpoint;
use crate::handler::Turn;
use crate::http::parse::Request;
use crate::mailbox::{PendingReply, ReplyAddress};
use crate::service::{Query, Target};
use crate::verify::{VerifiedEnvelope, sender_info};
use replicore_types::Payload;
use std::time::Instant;

impl Api {
    pub(super) fn query(
        &self,
        request: &Request<'_>,
        target: Target,
        address: ReplyAddress,
        turn: &mut Turn<'_>,
    ) -> Handled {
        let received = self.service.wants_arrivals().then(Instant::now);
        let permit = self.enter(&self.queries, "queries", address.peer)?;
        let examined = self.examine(&request.body, (Endpoint::Query, target), turn.age)?;
        let unproven = examined.map(|verified| Work {
            question: Question::Query(question(verified, target)),
            pending: PendingReply::new(address, permit),
            received,
        });
        self.take_up(unproven, turn.batch);
        Ok(())
    }
}

fn question(verified: VerifiedEnvelope<'_>, target: Target) -> Query {
    let message_id = verified.message_id();
    let content = verified.into_content();
    Query {
        target,
        message_id,
        source: content.sender,
        receiver: content.canister_id,
        sender_info: sender_info(&content),
        method_payload: Payload::from(content.arg.as_ref()),
        method_name: content.method_name.into_owned(),
    }
}
