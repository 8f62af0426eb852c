//! `POST /api/{v2,v3,v4}/canister/<id>/call` and `/api/v4/subnet/<id>/call`

use super::work::Question;
use super::{Api, Handled, Work, refuse, sender_info};
use crate::envelope::Endpoint;
use crate::handler::Turn;
use crate::http::parse::Request;
use crate::http::route::Version;
use crate::mailbox::{PendingReply, ReplyAddress};
use crate::service::Target;
use crate::verify::VerifiedEnvelope;
use replicore_types::{Ingress, Payload, Time};
use std::time::Instant;

impl Api {
    pub(super) fn call(
        &self,
        request: &Request<'_>,
        version: Version,
        target: Target,
        address: ReplyAddress,
        turn: &mut Turn<'_>,
    ) -> Handled {
        let received = self.service.wants_arrivals().then(Instant::now);
        let permit = self.enter(&self.calls, "calls", address.peer)?;
        let bytes = request.body.len();
        if bytes > self.ingress_bytes_max {
            return Err(refuse(
                413,
                format!(
                    "Request is too large. Message byte size {bytes} is larger than the max allowed {}.",
                    self.ingress_bytes_max
                ),
            ));
        }
        let examined = self.examine(&request.body, (Endpoint::Call, target), turn.age)?;
        let wait = version != Version::V2;
        let unproven = examined.map(|verified| Work {
            question: Question::Call {
                message: ingress(verified, target, bytes),
                target,
                wait,
            },
            pending: PendingReply::new(address, permit),
            received,
        });
        self.take_up(unproven, turn.batch);
        Ok(())
    }
}

fn ingress(verified: VerifiedEnvelope<'_>, target: Target, bytes: usize) -> Ingress {
    let message_id = verified.message_id();
    let content = verified.into_content();
    Ingress {
        message_id,
        source: content.sender,
        receiver: content.canister_id,
        effective_canister_id: match target {
            Target::Canister(canister) => Some(canister),
            Target::Subnet(_) => None,
        },
        sender_info: sender_info(&content),
        // The one copy of the argument: from here on it is shared.
        method_payload: Payload::from(content.arg.as_ref()),
        method_name: content.method_name.into_owned(),
        expiry: Time(content.ingress_expiry),
        envelope_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
    }
}
