//! Messages of the examples, as the network stack hands them over once they are verified. Here nothing is signed: who
//! embeds an engine vouches for them. `embed.rs` has its own, so that it can be read alone.

use replicore_types::{CanisterId, Ingress, MessageId, Payload, PrincipalId, Time};
use replicore_workloads::management::{InstallMode, create_argument, install_argument};
use sha2::{Digest, Sha256};
use std::error::Error;
use std::time::Duration;

/// Time before the first batch. A sequencer agrees on time and randomness; here they are made up.
pub const START: Time = Time(1_700_000_000_000_000_000);

/// The call with this number; equal numbers make equal ids, and those count once.
pub fn call(number: u64, receiver: CanisterId, method: &str, argument: Vec<u8>) -> Ingress {
    Ingress {
        message_id: MessageId(Sha256::digest(number.to_be_bytes()).into()),
        source: PrincipalId::self_authenticating(b"the public key of a user"),
        receiver,
        effective_canister_id: (receiver != CanisterId::MANAGEMENT).then_some(receiver),
        method_name: method.into(),
        envelope_bytes: argument.len() as u32,
        method_payload: Payload::from(argument),
        expiry: START.plus(Duration::from_secs(60)),
        sender_info: None,
    }
}

/// Makes a canister with cycles; ids are given in the order of these calls.
pub fn create(number: u64) -> Result<Ingress, Box<dyn Error>> {
    Ok(call(
        number,
        CanisterId::MANAGEMENT,
        "provisional_create_canister_with_cycles",
        create_argument(10_000_000_000_000)?,
    ))
}

/// Installs a module, given as text.
pub fn install(number: u64, canister: CanisterId, module: &str) -> Result<Ingress, Box<dyn Error>> {
    let argument = install_argument(InstallMode::Install, canister.0, &wat::parse_str(module)?, &[])?;
    Ok(Ingress {
        effective_canister_id: Some(canister),
        ..call(number, CanisterId::MANAGEMENT, "install_code", argument)
    })
}
