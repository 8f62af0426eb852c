//! Randomness that nobody could know when the call was made: that of the batch after it.

use super::error;
use super::types;
use super::work::{Reply, Work};
use crate::state::SubnetCallKind;
use replicore_types::{Payload, UserError};
use serde_bytes::ByteBuf;

/// `raw_rand`: waits for the next batch.
pub(crate) fn raw_rand<E>(work: &mut Work<'_, E>, payload: &[u8]) -> Result<Reply, UserError> {
    candid::decode_args::<()>(payload)
        .map_err(|error| error::invalid_payload(format!("Error decoding candid: {error}")))?;
    Ok(work.wait_for(SubnetCallKind::RawRand))
}

/// The reply to a `raw_rand` that waited.
///
/// # Errors
/// None in practice; see [`crate::management`].
pub fn raw_rand_reply(random: [u8; 32]) -> Result<Payload, UserError> {
    types::encode(ByteBuf::from(random)).map(Payload::from)
}
