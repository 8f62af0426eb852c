//! Methods of the management canister as queries: they read one state and change nothing.

use super::methods::{Method, rule_of};
use super::types;
use super::{error, info, logs, status, subnet_info};
use crate::state::{CanisterState, ReplicatedState};
use replicore_types::{CanisterId, ErrorCode, Payload, PrincipalId, UserError};

/// Answers a query to the management canister.
///
/// # Errors
/// `CanisterMethodNotFound` (IC0536) for methods that are no queries, `InvalidManagementPayload` (IC0408),
/// `CanisterNotFound` (IC0301), `CanisterInvalidController` (IC0512) and `CanisterRejectedMessage` (IC0406) for callers
/// without the right to see what they ask for.
pub fn query(state: &ReplicatedState, caller: PrincipalId, method: &str, payload: &[u8]) -> Result<Payload, UserError> {
    let rule = rule_of(method)?;
    if !rule.query {
        return Err(UserError::new(
            ErrorCode::CanisterMethodNotFound,
            format!("Query method {method} not found."),
        ));
    }
    let reply = match rule.method {
        Method::CanisterInfo => {
            let args: types::CanisterInfoArgs = types::decode(payload)?;
            existing(state, args.canister_id)?;
            info::canister_info(state, &args)
        }
        Method::CanisterMetrics => {
            let args: types::CanisterIdArgs = types::decode(payload)?;
            types::encode(status::metrics_of(controlled(state, args.canister_id, caller)?))
        }
        Method::CanisterStatus => {
            let args: types::CanisterIdArgs = types::decode(payload)?;
            let canister = match existing(state, args.canister_id)? {
                canister if status::may_view_status(&canister.system, &caller) => canister,
                _ => controlled(state, args.canister_id, caller)?,
            };
            status::status_reply(canister, &state.metadata.subnet)
        }
        Method::FetchCanisterLogs => {
            let args: types::FetchCanisterLogsArgs = types::decode(payload)?;
            logs::fetch(existing(state, args.canister_id)?, &caller, &args)
        }
        Method::ListCanisters => subnet_info::list_canisters(state),
        _ => Err(error::unknown_method(method)),
    };
    reply.map(Payload::from)
}

fn existing(state: &ReplicatedState, id: PrincipalId) -> Result<&CanisterState, UserError> {
    let id = CanisterId(id);
    state.canister(&id).ok_or_else(|| error::canister_not_found(id))
}

fn controlled(state: &ReplicatedState, id: PrincipalId, caller: PrincipalId) -> Result<&CanisterState, UserError> {
    let canister = existing(state, id)?;
    let settings = &canister.system.settings;
    if settings.controllers.contains(&caller) || caller == id {
        return Ok(canister);
    }
    Err(error::not_controller(
        CanisterId(id),
        settings.controllers.iter(),
        caller,
    ))
}
