//! `POST /api/{v2,v3,v4}/canister/<id>/call` and `/api/v4/subnet/<id>/call`

use super::work::Question;
use super::{Api, Handled, Work, refuse};
use crate::envelope::Endpoint;
use crate::handler::Turn;
use crate::http::parse::Request;
use crate::http::route::Version;
use crate::mailbox::{PendingReply, ReplyAddress};
use crate::service::Target;
use crate::verify::VerifiedIngress;
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
                message: VerifiedIngress::new(verified, target, bytes),
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
