//! `POST /api/{v2,v3}/{canister,subnet}/<id>/read_state`

use super::{Answer, Api, Handled, enter};
use crate::envelope::Endpoint;
use crate::http::parse::Request;
use crate::http::route::Version;
use crate::mailbox::{PendingReply, ReplyAddress};
use crate::service::{ReadState, Target};
use std::borrow::Cow;

impl Api {
    pub(super) fn read_state(
        &self,
        request: &Request<'_>,
        version: Version,
        target: Target,
        address: ReplyAddress,
    ) -> Handled {
        let permit = enter(&self.read_states, "read_state requests")?;
        let verified = self.verify(&request.body, Endpoint::ReadState, target)?;
        let delegation_targets = verified.targets().map(<[_]>::to_vec);
        let content = verified.into_content();
        let read = ReadState {
            target,
            source: content.sender,
            delegation_targets,
            paths: content
                .paths
                .into_iter()
                .map(|path| path.into_iter().map(Cow::into_owned).collect())
                .collect(),
            v2: version == Version::V2,
        };
        let pending = PendingReply::new(address, permit);
        self.service
            .read_state(read, Box::new(move |reply| pending.fulfil(Answer::ReadState(reply))));
        Ok(())
    }
}
