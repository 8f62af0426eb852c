//! The table of methods: who may call them how, and which canister a call is about.

use super::candid_types::{self as types, AboutCanister};
use super::{error, settings};
use candid::{CandidType, Deserialize};
use replicore_types::{CanisterId, SubnetType, UserError};

/// A method of the management canister.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    CanisterInfo,
    CanisterMetadata,
    CanisterMetrics,
    CanisterStatus,
    ClearChunkStore,
    CreateCanister,
    DeleteCanister,
    DeleteCanisterSnapshot,
    DepositCycles,
    EcdsaPublicKey,
    FetchCanisterLogs,
    HttpRequest,
    InstallChunkedCode,
    InstallCode,
    ListCanisterSnapshots,
    ListCanisters,
    LoadCanisterSnapshot,
    NodeMetricsHistory,
    ProvisionalCreateCanisterWithCycles,
    ProvisionalTopUpCanister,
    RawRand,
    ReadCanisterSnapshotData,
    ReadCanisterSnapshotMetadata,
    SchnorrPublicKey,
    SignWithEcdsa,
    SignWithSchnorr,
    StartCanister,
    StopCanister,
    StoredChunks,
    SubnetInfo,
    SubnetMetrics,
    TakeCanisterSnapshot,
    UninstallCode,
    UpdateSettings,
    UploadCanisterSnapshotData,
    UploadCanisterSnapshotMetadata,
    UploadChunk,
    VetKdDeriveKey,
    VetKdPublicKey,
}

/// Who may call a method from outside the subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IngressRule {
    /// Everybody.
    Anyone,
    /// Controllers of the canister that the call is about.
    Controllers,
    /// Controllers and who may see the canister's snapshots.
    SnapshotViewers,
    /// Controllers and who may see the canister's status.
    StatusViewers,
    /// Nobody: only canisters call it.
    CanistersOnly,
    /// On rented subnets everybody, elsewhere nobody.
    SubnetUsers,
}

/// What holds for one method.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub name: &'static str,
    pub method: Method,
    pub ingress: IngressRule,
    /// True where the method may be called as a query.
    pub query: bool,
}

const fn rule(name: &'static str, method: Method, ingress: IngressRule) -> Rule {
    Rule {
        name,
        method,
        ingress,
        query: false,
    }
}

const fn query_too(name: &'static str, method: Method, ingress: IngressRule) -> Rule {
    Rule {
        name,
        method,
        ingress,
        query: true,
    }
}

use IngressRule::{Anyone, CanistersOnly, Controllers, SnapshotViewers, StatusViewers, SubnetUsers};

/// Every method, by name.
const RULES: &[Rule] = &[
    query_too("canister_info", Method::CanisterInfo, CanistersOnly),
    rule("canister_metadata", Method::CanisterMetadata, CanistersOnly),
    query_too("canister_metrics", Method::CanisterMetrics, Controllers),
    query_too("canister_status", Method::CanisterStatus, StatusViewers),
    rule("clear_chunk_store", Method::ClearChunkStore, Controllers),
    rule("create_canister", Method::CreateCanister, SubnetUsers),
    rule("delete_canister", Method::DeleteCanister, Controllers),
    rule("delete_canister_snapshot", Method::DeleteCanisterSnapshot, Controllers),
    rule("deposit_cycles", Method::DepositCycles, CanistersOnly),
    rule("ecdsa_public_key", Method::EcdsaPublicKey, CanistersOnly),
    query_too("fetch_canister_logs", Method::FetchCanisterLogs, CanistersOnly),
    rule("http_request", Method::HttpRequest, CanistersOnly),
    rule("install_chunked_code", Method::InstallChunkedCode, Controllers),
    rule("install_code", Method::InstallCode, Controllers),
    rule(
        "list_canister_snapshots",
        Method::ListCanisterSnapshots,
        SnapshotViewers,
    ),
    query_too("list_canisters", Method::ListCanisters, CanistersOnly),
    rule("load_canister_snapshot", Method::LoadCanisterSnapshot, Controllers),
    rule("node_metrics_history", Method::NodeMetricsHistory, CanistersOnly),
    rule(
        "provisional_create_canister_with_cycles",
        Method::ProvisionalCreateCanisterWithCycles,
        Anyone,
    ),
    rule("provisional_top_up_canister", Method::ProvisionalTopUpCanister, Anyone),
    rule("raw_rand", Method::RawRand, CanistersOnly),
    rule(
        "read_canister_snapshot_data",
        Method::ReadCanisterSnapshotData,
        SnapshotViewers,
    ),
    rule(
        "read_canister_snapshot_metadata",
        Method::ReadCanisterSnapshotMetadata,
        SnapshotViewers,
    ),
    rule("schnorr_public_key", Method::SchnorrPublicKey, CanistersOnly),
    rule("sign_with_ecdsa", Method::SignWithEcdsa, CanistersOnly),
    rule("sign_with_schnorr", Method::SignWithSchnorr, CanistersOnly),
    rule("start_canister", Method::StartCanister, Controllers),
    rule("stop_canister", Method::StopCanister, Controllers),
    rule("stored_chunks", Method::StoredChunks, Controllers),
    rule("subnet_info", Method::SubnetInfo, CanistersOnly),
    rule("subnet_metrics", Method::SubnetMetrics, CanistersOnly),
    rule("take_canister_snapshot", Method::TakeCanisterSnapshot, Controllers),
    rule("uninstall_code", Method::UninstallCode, Controllers),
    rule("update_settings", Method::UpdateSettings, Controllers),
    rule(
        "upload_canister_snapshot_data",
        Method::UploadCanisterSnapshotData,
        Controllers,
    ),
    rule(
        "upload_canister_snapshot_metadata",
        Method::UploadCanisterSnapshotMetadata,
        Controllers,
    ),
    rule("upload_chunk", Method::UploadChunk, Controllers),
    rule("vetkd_derive_key", Method::VetKdDeriveKey, CanistersOnly),
    rule("vetkd_public_key", Method::VetKdPublicKey, CanistersOnly),
];

/// The rule of the method called `name`.
///
/// # Errors
/// `CanisterMethodNotFound` (IC0536).
pub(crate) fn rule_of(name: &str) -> Result<&'static Rule, UserError> {
    RULES
        .binary_search_by(|rule| rule.name.cmp(name))
        .map(|position| &RULES[position])
        .map_err(|_| error::unknown_method(name))
}

impl Rule {
    /// True where nobody outside the subnet may call the method.
    pub fn refuses_ingress(&self, subnet_type: SubnetType) -> bool {
        match self.ingress {
            CanistersOnly => true,
            SubnetUsers => subnet_type != SubnetType::CloudEngine,
            Anyone | Controllers | SnapshotViewers | StatusViewers => false,
        }
    }
}

/// The canister that a call is about: for ingress the effective canister id that the request path must name. `None`
/// for methods that are about no existing canister.
///
/// # Errors
/// `CanisterMethodNotFound` (IC0536) for unknown methods, `InvalidManagementPayload` (IC0408) where the argument does
/// not decode or lists too many controllers.
pub fn effective_canister_id(method: &str, payload: &[u8]) -> Result<Option<CanisterId>, UserError> {
    fn about<T: AboutCanister + CandidType + for<'de> Deserialize<'de>>(
        payload: &[u8],
    ) -> Result<Option<CanisterId>, UserError> {
        Ok(Some(types::decode::<T>(payload)?.canister()))
    }
    match rule_of(method)?.method {
        Method::StartCanister
        | Method::StopCanister
        | Method::CanisterStatus
        | Method::CanisterMetrics
        | Method::DeleteCanister
        | Method::DepositCycles
        | Method::ClearChunkStore
        | Method::StoredChunks
        | Method::ListCanisterSnapshots => about::<types::CanisterIdArgs>(payload),
        Method::UninstallCode => about::<types::UninstallCodeArgs>(payload),
        Method::UpdateSettings => {
            let args = types::decode::<types::UpdateSettingsArgs>(payload)?;
            settings::check_controllers_bound(&args.settings)?;
            Ok(Some(args.canister()))
        }
        Method::InstallCode => about::<types::InstallCodeArgs>(payload),
        Method::InstallChunkedCode => about::<types::InstallChunkedCodeArgs>(payload),
        Method::UploadChunk => about::<types::UploadChunkArgs>(payload),
        Method::CanisterInfo => about::<types::CanisterInfoArgs>(payload),
        Method::CanisterMetadata => about::<types::CanisterMetadataArgs>(payload),
        Method::FetchCanisterLogs => about::<types::FetchCanisterLogsArgs>(payload),
        Method::ProvisionalTopUpCanister => about::<types::ProvisionalTopUpArgs>(payload),
        Method::TakeCanisterSnapshot => about::<types::TakeSnapshotArgs>(payload),
        Method::LoadCanisterSnapshot => about::<types::LoadSnapshotArgs>(payload),
        Method::DeleteCanisterSnapshot | Method::ReadCanisterSnapshotMetadata => about::<types::SnapshotArgs>(payload),
        Method::ReadCanisterSnapshotData => about::<types::ReadSnapshotDataArgs>(payload),
        Method::UploadCanisterSnapshotMetadata => about::<types::UploadSnapshotMetadataArgs>(payload),
        Method::UploadCanisterSnapshotData => about::<types::UploadSnapshotDataArgs>(payload),
        Method::CreateCanister
        | Method::ProvisionalCreateCanisterWithCycles
        | Method::ListCanisters
        | Method::NodeMetricsHistory
        | Method::RawRand
        | Method::SubnetInfo
        | Method::SubnetMetrics
        | Method::EcdsaPublicKey
        | Method::HttpRequest
        | Method::SchnorrPublicKey
        | Method::SignWithEcdsa
        | Method::SignWithSchnorr
        | Method::VetKdDeriveKey
        | Method::VetKdPublicKey => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_every_method_is_found() {
        assert!(RULES.windows(2).all(|pair| pair[0].name < pair[1].name));
        for rule in RULES {
            assert_eq!(rule_of(rule.name).unwrap().method, rule.method);
        }
        assert_eq!(
            rule_of("x").unwrap_err().description,
            "Management canister has no method 'x'"
        );
    }
}
