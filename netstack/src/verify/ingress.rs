//! A call on its way to the pool.

use super::VerifiedEnvelope;
use crate::envelope::Content;
use crate::service::Target;
use replicore_types::{CanisterId, Ingress, Payload, PrincipalId, Time};
use std::ops::Deref;

/// A call whose expiry, sender and signatures were verified. It is made of a [`VerifiedEnvelope`] and of nothing else, so
/// that who takes one need not, and cannot, be given a call that nobody has checked.
#[derive(Clone, Debug)]
pub struct VerifiedIngress(Ingress);

impl VerifiedIngress {
    /// What is asked for, sent to `target` in an envelope of `bytes` bytes.
    pub(crate) fn new(verified: VerifiedEnvelope<'_>, target: Target, bytes: usize) -> Self {
        let message_id = verified.message_id();
        let content = verified.into_content();
        Self(Ingress {
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
        })
    }

    /// The same call, known to be about `canister`: the path of a request says something, the argument decides.
    #[must_use]
    pub fn about(self, canister: Option<CanisterId>) -> Self {
        Self(Ingress {
            effective_canister_id: canister,
            ..self.0
        })
    }

    /// The message, for a batch.
    pub fn into_message(self) -> Ingress {
        self.0
    }
}

impl Deref for VerifiedIngress {
    type Target = Ingress;

    fn deref(&self) -> &Ingress {
        &self.0
    }
}

/// The sender's attributes in the form that travels on.
pub(crate) fn sender_info(content: &Content<'_>) -> Option<(Payload, PrincipalId)> {
    content
        .sender_info
        .as_ref()
        .map(|info| (Payload::from(info.info.as_ref()), info.signer))
}
