//! Logins: users whose session keys a canister vouches for, as Internet Identity does for most users of real sites.

use crate::Identity;
use crate::agent::Agent;
use crate::canisters;
use crate::error::{WorkloadError, arguments_of, ask, tell};
use crate::management::deploy;
use candid::Principal;
use serde_bytes::ByteBuf;
use std::time::Duration;

/// The signature is fetched by a query, which an endpoint of many replicas may answer from a state before the update.
const FETCHES_MAX: u32 = 50;
const FETCH_AGAIN: Duration = Duration::from_millis(100);

/// A canister that vouches for session keys with canister signatures.
#[derive(Clone, Copy, Debug)]
pub struct Issuer {
    canister: Principal,
}

impl Issuer {
    /// Creates and installs one.
    ///
    /// # Errors
    /// The endpoint refuses.
    pub fn deploy(agent: &mut Agent) -> Result<Self, WorkloadError> {
        let salt = ByteBuf::from(*b"workload");
        let canister = deploy(agent, canisters::ISSUER, &arguments_of((salt,))?)?;
        Ok(Self { canister })
    }

    /// Logs a user in: from then on a session key made from `secret` signs for the name that the user has here, until
    /// `expiration` in nanoseconds since 1970. The name is one per user and issuer, and not the user's own.
    ///
    /// # Errors
    /// The endpoint refuses, or has no signature after all.
    pub fn log_in(
        &self,
        agent: &mut Agent,
        user: &Identity,
        secret: [u8; 32],
        expiration: u64,
    ) -> Result<Identity, WorkloadError> {
        let session = Identity::from_secret(secret);
        let session_key = ByteBuf::from(session.public_key_der());
        agent.set_identity(user.clone());
        let argument = (&session_key, expiration);
        let (public_key,) = tell::<_, (ByteBuf,)>(agent, self.canister, "prepare_delegation", argument)?;
        for _ in 0..FETCHES_MAX {
            let (signature,) = ask::<_, (Option<ByteBuf>,)>(agent, self.canister, "get_delegation", argument)?;
            if let Some(signature) = signature {
                let (public_key, signature) = (public_key.into_vec(), signature.into_vec());
                return Ok(session.for_user(public_key, expiration, signature));
            }
            std::thread::sleep(FETCH_AGAIN);
        }
        Err(WorkloadError::unexpected("the issuer has no signature for a session"))
    }
}
