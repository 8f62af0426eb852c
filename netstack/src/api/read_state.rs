//! `POST /api/{v2,v3}/{canister,subnet}/<id>/read_state`

use super::work::Question;
use super::{Api, Handled, Work};
use crate::envelope::Endpoint;
use crate::handler::Turn;
use crate::http::parse::Request;
use crate::mailbox::{PendingReply, ReplyAddress};
use crate::service::{ReadState, Target};
use crate::verify::VerifiedEnvelope;
use std::borrow::Cow;

impl Api {
    pub(super) fn read_state(
        &self,
        request: &Request<'_>,
        target: Target,
        address: ReplyAddress,
        turn: &mut Turn<'_>,
    ) -> Handled {
        let permit = self.enter(&self.read_states, "read_state requests", address.peer)?;
        let examined = self.examine(&request.body, (Endpoint::ReadState, target), turn.age)?;
        let unproven = examined.map(|verified| Work {
            question: Question::ReadState(question(verified, target)),
            pending: PendingReply::new(address, permit),
            received: None,
        });
        self.take_up(unproven, turn.batch);
        Ok(())
    }
}

fn question(verified: VerifiedEnvelope<'_>, target: Target) -> ReadState {
    let delegation_targets = verified.targets().map(<[_]>::to_vec);
    let content = verified.into_content();
    ReadState {
        target,
        source: content.sender,
        delegation_targets,
        paths: content
            .paths
            .into_iter()
            .map(|path| path.into_iter().map(Cow::into_owned).collect())
            .collect(),
    }
}
