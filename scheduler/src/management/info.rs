//! What everybody may know of a canister: its history, and its metadata.

use super::error;
use super::types::{
    self, CanisterInfoArgs, CanisterInfoResult, CanisterMetadataArgs, CanisterMetadataResult, Change, DeployedMode,
    Details, Origin, SnapshotSource,
};
use super::work::Work;
use crate::state::{CanisterChange, ChangeDetails, ChangeOrigin, DeploymentMode, ReplicatedState};
use candid::Reserved;
use replicore_engine::CustomSectionVisibility;
use replicore_types::{CanisterId, PrincipalId, UserError};
use serde_bytes::ByteBuf;

/// `canister_info`
pub(crate) fn canister_info(state: &ReplicatedState, args: &CanisterInfoArgs) -> Result<Vec<u8>, UserError> {
    let id = CanisterId(args.canister_id);
    let canister = state.canister(&id).ok_or_else(|| error::target_not_found(id))?;
    let history = &canister.system.history;
    let requested = usize::try_from(args.num_requested_changes.unwrap_or(0)).unwrap_or(usize::MAX);
    let skipped = history.changes().len().saturating_sub(requested);
    types::encode(CanisterInfoResult {
        total_num_changes: history.total(),
        recent_changes: history
            .changes()
            .iter()
            .skip(skipped)
            .map(|change| change_result(change))
            .collect(),
        module_hash: canister
            .execution
            .as_ref()
            .map(|execution| ByteBuf::from(execution.module.hash)),
        controllers: canister.system.settings.controllers.iter().copied().collect(),
    })
}

/// `canister_metadata`
pub(crate) fn canister_metadata<E>(work: &Work<'_, E>, args: &CanisterMetadataArgs) -> Result<Vec<u8>, UserError> {
    let id = CanisterId(args.canister_id);
    let canister = work.canister(id)?;
    let execution = canister.execution.as_ref().ok_or_else(|| {
        error::rejected(format!(
            "The canister {id} has no Wasm module and hence no metadata is available."
        ))
    })?;
    let visible = |visibility| {
        visibility == CustomSectionVisibility::Public || canister.system.is_controller(&work.caller.principal)
    };
    match execution.interface.custom_sections.get(&args.name) {
        Some(section) if visible(section.visibility) => types::encode(CanisterMetadataResult {
            value: ByteBuf::from(section.content.to_vec()),
        }),
        // Whoever may not see a section does not learn that it exists.
        _ => Err(error::rejected(format!(
            "The canister {id} has no metadata section with the name {}.",
            args.name
        ))),
    }
}

fn change_result(change: &CanisterChange) -> Change {
    Change {
        timestamp_nanos: change.timestamp.as_nanos(),
        canister_version: change.canister_version,
        origin: match &change.origin {
            ChangeOrigin::User { user } => Origin::FromUser { user_id: *user },
            ChangeOrigin::Canister { canister, version } => Origin::FromCanister {
                canister_id: canister.0,
                canister_version: *version,
            },
        },
        details: details(&change.details),
    }
}

fn details(details: &ChangeDetails) -> Details {
    let list = |principals: &std::collections::BTreeSet<PrincipalId>| principals.iter().copied().collect();
    match details {
        ChangeDetails::Creation {
            controllers,
            environment_variables_hash,
        } => Details::Creation {
            controllers: list(controllers),
            environment_variables_hash: environment_variables_hash.map(ByteBuf::from),
        },
        ChangeDetails::CodeUninstall => Details::CodeUninstall,
        ChangeDetails::CodeDeployment { mode, module_hash } => Details::CodeDeployment {
            mode: match mode {
                DeploymentMode::Install => DeployedMode::Install,
                DeploymentMode::Reinstall => DeployedMode::Reinstall,
                DeploymentMode::Upgrade => DeployedMode::Upgrade,
            },
            module_hash: ByteBuf::from(*module_hash),
        },
        ChangeDetails::LoadSnapshot {
            from_canister,
            snapshot_id,
            canister_version,
            taken_at,
            taken_from_canister,
        } => Details::LoadSnapshot {
            from_canister_id: from_canister.map(|id| id.0),
            snapshot_id: ByteBuf::from(snapshot_id.to_bytes()),
            canister_version: *canister_version,
            taken_at_timestamp: taken_at.as_nanos(),
            source: snapshot_source(*taken_from_canister),
        },
        ChangeDetails::SettingsChange {
            controllers: Some(controllers),
            environment_variables_hash: None,
        } => Details::ControllersChange {
            controllers: list(controllers),
        },
        ChangeDetails::SettingsChange {
            controllers,
            environment_variables_hash,
        } => Details::SettingsChange {
            controllers: controllers.as_ref().map(list),
            environment_variables_hash: environment_variables_hash.map(ByteBuf::from),
        },
    }
}

/// Where a snapshot came from.
pub(crate) fn snapshot_source(taken_from_canister: bool) -> SnapshotSource {
    if taken_from_canister {
        SnapshotSource::TakenFromCanister(Reserved)
    } else {
        SnapshotSource::MetadataUpload(Reserved)
    }
}
