//! `POST /api/{v2,v3}/canister/<id>/query` and `/api/v3/subnet/<id>/query`

use super::{Answer, Api, Handled, enter, sender_info};
use crate::envelope::Endpoint;
use crate::http::parse::Request;
use crate::mailbox::{PendingReply, ReplyAddress};
use crate::service::{Query, Target};
use replicore_types::Payload;

impl Api {
    pub(super) fn query(&self, request: &Request<'_>, target: Target, address: ReplyAddress) -> Handled {
        let permit = enter(&self.queries, "queries")?;
        let verified = self.verify(&request.body, Endpoint::Query, target)?;
        let message_id = verified.message_id();
        let content = verified.into_content();
        let query = Query {
            target,
            message_id,
            source: content.sender,
            receiver: content.canister_id,
            sender_info: sender_info(&content),
            method_payload: Payload::from(content.arg.as_ref()),
            method_name: content.method_name.into_owned(),
        };
        let pending = PendingReply::new(address, permit);
        self.service
            .query(query, Box::new(move |reply| pending.fulfil(Answer::Query(reply))));
        Ok(())
    }
}
