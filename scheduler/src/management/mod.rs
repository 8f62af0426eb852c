//! Calls addressed to the management canister.
//!
//! A call goes through three steps: its name is looked up in one table, its argument is decoded into a
//! type, and the function of its family changes the state or refuses with a [`UserError`]. Either everything that a
//! method does is done or, beside charges, nothing.
//!
//! What other parties are owed because of a call (callers of an uninstalled canister, stops that a start cancels) comes
//! back as [`Answer`]s in the order in which they are to be delivered; the answer to the call itself is one of them,
//! unless it comes in a later round.

mod candid_types;
mod chunks;
mod create;
mod cycles;
pub(crate) mod error;
pub(crate) mod footprint;
mod hooks;
mod http_request;
mod info;
mod install;
mod install_attempt;
mod lifecycle;
mod logs;
mod methods;
mod query;
mod randomness;
mod settings;
mod snapshot_data;
mod snapshots;
mod status;
mod subnet_info;
mod threshold;
mod work;

pub use http_request::{http_reply, transform_argument};
pub(crate) use install_attempt::Attempt;
pub(crate) use lifecycle::{remove_code, stop_answer};
pub use methods::effective_canister_id;
pub use query::query;
pub use randomness::raw_rand_reply;
pub use threshold::threshold_reply;
pub(crate) use threshold::unroutable;

use crate::state::{CallOrigin, ReplicatedState, SubnetMessage};
use candid_types as types;
use methods::{IngressRule, Method};
use replicore_engine::Execute;
use replicore_types::{CanisterId, Cycles, Ingress, NumInstructions, Payload, UserError};
use work::{Reply, Work};

/// An answer to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Who answers: the management canister, or the canister whose calls it ends.
    pub respondent: CanisterId,
    /// Who waits for it.
    pub origin: CallOrigin,
    /// What is answered.
    pub result: Result<Payload, UserError>,
    /// Attached cycles that go back.
    pub refund: Cycles,
}

/// What a call did beside changing the state.
#[derive(Debug, Default)]
pub struct ManagementWork {
    /// Answers in the order of their delivery. None is for the caller where its answer comes in a later round.
    pub answers: Vec<Answer>,
    /// Instructions that count against the round.
    pub instructions: NumInstructions,
}

/// Executes one call. `state.metadata.time` is the time of the batch.
pub fn execute<E: Execute>(message: &SubnetMessage, state: &mut ReplicatedState, engine: &E) -> ManagementWork {
    let (name, payload) = call_of(message);
    let mut work = Work::new(message, state, engine);
    let result = dispatch(name, payload, &mut work);
    settings::charge_delayed_ingress_fee(message, work.state);
    work.finish(result)
}

/// Executes the next slice of the code install that is under way; `None` where there is none.
pub fn resume_install<E: Execute>(state: &mut ReplicatedState, engine: &E) -> Option<ManagementWork> {
    let paused = state.subnet.long_install.take()?;
    let message = paused.message.clone();
    let mut work = Work::new(&message, state, engine);
    let result = install::resume(&mut work, paused);
    Some(work.finish(result))
}

/// The name and the argument of a call.
fn call_of(message: &SubnetMessage) -> (&str, &Payload) {
    match message {
        SubnetMessage::Ingress(ingress) => (&ingress.method_name, &ingress.method_payload),
        SubnetMessage::Request(request) => (&request.method_name, &request.payload),
    }
}

/// The canister that a call is about.
pub(crate) fn about(message: &SubnetMessage) -> Option<CanisterId> {
    let (name, payload) = call_of(message);
    effective_canister_id(name, payload).ok().flatten()
}

/// True for calls that install code: one of them waits while another one is between slices.
pub(crate) fn is_install(message: &SubnetMessage) -> bool {
    let rule = methods::rule_of(call_of(message).0);
    rule.is_ok_and(|rule| matches!(rule.method, Method::InstallCode | Method::InstallChunkedCode))
}

/// True for calls that may take long and change nothing but the canister that they are about, the modules that the
/// subnet knows and, installs, the install under way. What they read of other canisters [`canisters_read`] says.
pub(crate) fn keeps_to_its_canister(message: &SubnetMessage) -> bool {
    let rule = methods::rule_of(call_of(message).0);
    rule.is_ok_and(|rule| {
        matches!(
            rule.method,
            Method::InstallCode
                | Method::InstallChunkedCode
                | Method::LoadCanisterSnapshot
                | Method::TakeCanisterSnapshot
                | Method::UploadCanisterSnapshotData
                | Method::UploadCanisterSnapshotMetadata
                | Method::UploadChunk
        )
    })
}

/// The canisters that a call of [`keeps_to_its_canister`] looks at.
pub(crate) fn canisters_read(message: &SubnetMessage) -> Vec<CanisterId> {
    let (name, payload) = call_of(message);
    let other = match methods::rule_of(name).map(|rule| rule.method) {
        Ok(Method::InstallChunkedCode) => types::decode::<types::InstallChunkedCodeArgs>(payload)
            .ok()
            .and_then(|args| args.store_canister.map(CanisterId)),
        Ok(Method::LoadCanisterSnapshot) => types::decode::<types::LoadSnapshotArgs>(payload)
            .ok()
            .and_then(|args| snapshots::owner(&args.snapshot_id)),
        _ => None,
    };
    about(message).into_iter().chain(other).collect()
}

fn dispatch<E: Execute>(name: &str, payload: &Payload, work: &mut Work<'_, E>) -> Result<Reply, UserError> {
    let rule = methods::rule_of(name)?;
    if work.caller.canister.is_none() && rule.refuses_ingress(work.state.metadata.subnet.subnet_type) {
        return Err(error::only_canisters(name));
    }
    match rule.method {
        Method::CanisterInfo => info::canister_info(work.state, &types::decode(payload)?).map(Reply::Now),
        Method::CanisterMetadata => info::canister_metadata(work, &types::decode(payload)?).map(Reply::Now),
        Method::CanisterMetrics => status::canister_metrics(work, &types::decode(payload)?).map(Reply::Now),
        Method::CanisterStatus => status::canister_status(work, &types::decode(payload)?).map(Reply::Now),
        Method::ClearChunkStore => chunks::clear(work, &types::decode(payload)?),
        Method::CreateCanister => create::create(work, decode_or_default(payload)?),
        Method::DeleteCanister => lifecycle::delete(work, &types::decode(payload)?),
        Method::DeleteCanisterSnapshot => snapshots::delete(work, &types::decode(payload)?),
        Method::DepositCycles => cycles::deposit(work, &types::decode(payload)?),
        Method::EcdsaPublicKey => threshold::ecdsa_public_key(work, &types::decode(payload)?).map(Reply::Now),
        Method::FetchCanisterLogs => logs::fetch_replicated(work, &types::decode(payload)?),
        Method::HttpRequest => http_request::http_request(work, types::decode(payload)?),
        Method::InstallChunkedCode => install::install_chunked(work, types::decode(payload)?),
        Method::InstallCode => install::install(work, types::decode(payload)?),
        Method::ListCanisterSnapshots => snapshots::list(work, &types::decode(payload)?),
        Method::ListCanisters => subnet_info::list_canisters(work.state).map(Reply::Now),
        Method::LoadCanisterSnapshot => snapshots::load(work, &types::decode(payload)?),
        Method::NodeMetricsHistory => subnet_info::node_metrics_history(work, &types::decode(payload)?),
        Method::ProvisionalCreateCanisterWithCycles => create::create_with_cycles(work, types::decode(payload)?),
        Method::ProvisionalTopUpCanister => cycles::top_up(work, &types::decode(payload)?),
        Method::RawRand => randomness::raw_rand(work, payload),
        Method::ReadCanisterSnapshotData => snapshot_data::read(work, &types::decode(payload)?),
        Method::ReadCanisterSnapshotMetadata => snapshot_data::read_metadata(work, &types::decode(payload)?),
        Method::SchnorrPublicKey => threshold::schnorr_public_key(work, &types::decode(payload)?).map(Reply::Now),
        Method::SignWithEcdsa => threshold::sign_with_ecdsa(work, types::decode(payload)?),
        Method::SignWithSchnorr => threshold::sign_with_schnorr(work, types::decode(payload)?),
        Method::StartCanister => lifecycle::start(work, &types::decode(payload)?),
        Method::StopCanister => lifecycle::stop(work, &types::decode(payload)?),
        Method::StoredChunks => chunks::stored(work, &types::decode(payload)?),
        Method::SubnetInfo => subnet_info::subnet_info(work, &types::decode(payload)?),
        Method::SubnetMetrics => subnet_info::subnet_metrics(work, &types::decode(payload)?),
        Method::TakeCanisterSnapshot => snapshots::take(work, &types::decode(payload)?),
        Method::UninstallCode => lifecycle::uninstall(work, &types::decode(payload)?),
        Method::UpdateSettings => settings::update(work, types::decode(payload)?),
        Method::UploadCanisterSnapshotData => snapshot_data::upload(work, &types::decode(payload)?),
        Method::UploadCanisterSnapshotMetadata => snapshot_data::upload_metadata(work, types::decode(payload)?),
        Method::UploadChunk => chunks::upload(work, &types::decode(payload)?),
        Method::VetKdDeriveKey => threshold::vetkd_derive_key(work, types::decode(payload)?),
        Method::VetKdPublicKey => threshold::vetkd_public_key(work, &types::decode(payload)?).map(Reply::Now),
    }
}

/// `create_canister` may be called without argument.
fn decode_or_default(payload: &[u8]) -> Result<types::CreateCanisterArgs, UserError> {
    if payload.is_empty() || payload == types::EMPTY_REPLY {
        return Ok(types::CreateCanisterArgs::default());
    }
    types::decode(payload)
}

/// The canister that pays for inducting a call from outside: the one that the call is about. `None` for calls about no
/// canister, for gifts of cycles, and for small changes of settings, which pay after their execution.
///
/// # Errors
/// As [`effective_canister_id`].
pub fn ingress_payer(method: &str, payload: &[u8]) -> Result<Option<CanisterId>, UserError> {
    let is_gift = methods::rule_of(method)?.method == Method::ProvisionalTopUpCanister;
    if is_gift || settings::ingress_fee_is_delayed(method, payload) {
        return Ok(None);
    }
    effective_canister_id(method, payload)
}

/// Decides whether an ingress message for the management canister may enter a batch, cycles aside.
///
/// # Errors
/// `CanisterMethodNotFound` for unknown methods, `CanisterRejectedMessage` for methods that only canisters call,
/// `CanisterNotFound`, `CanisterInvalidController`, `InvalidManagementPayload`.
pub fn check_ingress(state: &ReplicatedState, ingress: &Ingress) -> Result<(), UserError> {
    let name = ingress.method_name.as_str();
    let rule = methods::rule_of(name)?;
    if rule.refuses_ingress(state.metadata.subnet.subnet_type) {
        return Err(error::only_canisters(name));
    }
    let Some(id) = effective_canister_id(name, &ingress.method_payload)? else {
        return Ok(());
    };
    let canister = state.canister(&id).ok_or_else(|| error::canister_not_found(id))?;
    let allowed = match rule.ingress {
        IngressRule::Controllers => canister.system.is_controller(&ingress.source),
        IngressRule::SnapshotViewers => status::may_view(
            &canister.system,
            &canister.system.settings.snapshot_visibility,
            &ingress.source,
        ),
        IngressRule::StatusViewers => status::may_view_status(&canister.system, &ingress.source),
        IngressRule::Anyone | IngressRule::SubnetUsers => true,
        IngressRule::CanistersOnly => false,
    };
    if allowed {
        Ok(())
    } else {
        Err(error::filter_not_controller(id, name))
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::outcall_for_test;
