//! The management canister, as far as workloads need it: create, install, upgrade.

use crate::agent::{Agent, CallOutcome};
use crate::error::{WorkloadError, decode, encode, replied};
use candid::{CandidType, Decode, Deserialize, Encode, Principal};
use serde_bytes::ByteBuf;

/// Cycles given to each canister.
const CYCLES: u128 = 1_000_000_000_000_000;

#[derive(CandidType)]
struct CreateArgument {
    amount: Option<candid::Nat>,
    specified_id: Option<Principal>,
}

#[derive(CandidType, Deserialize)]
struct CreateReply {
    canister_id: Principal,
}

/// What happens to a canister that may hold a module already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, CandidType, Deserialize)]
pub enum InstallMode {
    /// It must hold none.
    #[serde(rename = "install")]
    Install,
    /// Its memory is emptied.
    #[serde(rename = "reinstall")]
    Reinstall,
    /// Its stable memory is kept.
    #[serde(rename = "upgrade")]
    Upgrade,
}

#[derive(CandidType)]
struct InstallArgument {
    mode: InstallMode,
    canister_id: Principal,
    wasm_module: ByteBuf,
    arg: ByteBuf,
}

/// The argument of `provisional_create_canister_with_cycles`, in Candid: the next canister, with these cycles.
///
/// # Errors
/// None that is known of: the types encode.
pub fn create_argument(cycles: u128) -> Result<Vec<u8>, WorkloadError> {
    encode(Encode!(&CreateArgument {
        amount: Some(cycles.into()),
        specified_id: None
    }))
}

/// The argument of `install_code`, in Candid.
///
/// # Errors
/// None that is known of: the types encode.
pub fn install_argument(
    mode: InstallMode,
    canister: Principal,
    module: &[u8],
    argument: &[u8],
) -> Result<Vec<u8>, WorkloadError> {
    encode(Encode!(&InstallArgument {
        mode,
        canister_id: canister,
        wasm_module: ByteBuf::from(module),
        arg: ByteBuf::from(argument),
    }))
}

/// Creates a canister that holds cycles for a long load, or takes one of those that the agent was given.
///
/// # Errors
/// The endpoint refuses, or those given are used up; the text says what to do.
pub fn create(agent: &mut Agent) -> Result<Principal, WorkloadError> {
    if let Some(ready) = agent.next_ready() {
        return ready.ok_or_else(|| WorkloadError::unexpected("the workload needs more canisters than were named"));
    }
    let argument = create_argument(CYCLES)?;
    let management = Principal::management_canister();
    let reply = match agent.update(management, "provisional_create_canister_with_cycles", &argument) {
        Ok(CallOutcome::Replied(reply)) => reply,
        refused => {
            let why = match refused {
                Ok(outcome) => format!("{outcome:?}"),
                Err(error) => error.to_string(),
            };
            return Err(WorkloadError::unexpected(format!(
                "the endpoint creates no canisters for free ({why}). Create them with a tool of yours, make {} a controller \
                 of each, and name them: --canister ID, once for each",
                agent.identity().principal()
            )));
        }
    };
    Ok(decode(Decode!(&reply, CreateReply))?.canister_id)
}

/// Installs a module with its argument.
///
/// # Errors
/// The endpoint refuses.
pub fn install(
    agent: &mut Agent,
    canister: Principal,
    mode: InstallMode,
    module: &[u8],
    argument: &[u8],
) -> Result<(), WorkloadError> {
    let argument = install_argument(mode, canister, module, argument)?;
    let management = Principal::management_canister();
    let reply = agent.update_effective(management, canister, "install_code", &argument)?;
    replied("install", reply).map(drop)
}

/// Creates a canister and installs a module.
///
/// # Errors
/// The endpoint refuses.
pub fn deploy(agent: &mut Agent, module: &[u8], argument: &[u8]) -> Result<Principal, WorkloadError> {
    let mode = match agent.has_ready() {
        true => InstallMode::Reinstall,
        false => InstallMode::Install,
    };
    let canister = create(agent)?;
    install(agent, canister, mode, module, argument)?;
    Ok(canister)
}
