//! Which paths a `read_state` request may ask for (interface specification, "Request: Read state").

use crate::certified_state::hash_tree::PathSet;
use crate::state::ReplicatedState;
use replicore_engine::CustomSectionVisibility;
use replicore_types::{CanisterId, MessageId, PrincipalId, SubnetId};

/// Most paths in one request.
pub const READ_STATE_PATHS_MAX: usize = 1_000;
/// Most labels in one path.
pub const READ_STATE_LABELS_MAX: usize = 127;

/// Where a `read_state` request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStateTarget {
    /// `/canister/<effective canister id>/`
    Canister(CanisterId),
    /// `/subnet/<effective subnet id>/`
    Subnet(SubnetId),
}

/// A `read_state` request whose signature has been verified.
#[derive(Clone, Copy, Debug)]
pub struct ReadStateRequest<'a> {
    /// Where it was sent.
    pub target: ReadStateTarget,
    /// Who signed, or the anonymous principal.
    pub source: PrincipalId,
    /// The canisters that the sender's delegations are restricted to; `None` for no restriction.
    pub delegation_targets: Option<&'a [CanisterId]>,
    /// The paths.
    pub paths: &'a [Vec<Vec<u8>>],
}

/// Why a request is refused; each becomes an HTTP status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadStateRefused {
    /// 400: it makes no sense.
    Invalid(String),
    /// 403: the sender may not read this.
    Forbidden(String),
    /// 404: there is no such path or subnet.
    NotFound(String),
}

/// What the request may have, or why it gets nothing. One path that may not be read refuses the whole request.
pub fn check_read_state(state: &ReplicatedState, request: &ReadStateRequest<'_>) -> Result<PathSet, ReadStateRefused> {
    if request.paths.len() > READ_STATE_PATHS_MAX {
        return Err(ReadStateRefused::Invalid(format!(
            "more than {READ_STATE_PATHS_MAX} paths requested"
        )));
    }
    if request.paths.iter().any(|path| path.len() > READ_STATE_LABELS_MAX) {
        return Err(ReadStateRefused::Invalid(format!(
            "a path has more than {READ_STATE_LABELS_MAX} labels"
        )));
    }
    if let ReadStateTarget::Subnet(subnet) = request.target
        && subnet != state.metadata.subnet_id
    {
        return Err(ReadStateRefused::NotFound(format!(
            "subnet {subnet} is not served here"
        )));
    }
    let mut request_id = None;
    let mut ranges_subnet = None;
    let mut paths = PathSet::default();
    for path in request.paths {
        let labels: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
        check_path(state, request, &labels)?;
        match labels[..] {
            [b"request_status", id, ..] => one_only(&mut request_id, id, "request id")?,
            [b"canister_ranges", id, ..] => one_only(&mut ranges_subnet, id, "subnet id")?,
            _ => {}
        }
        paths.insert(labels);
    }
    Ok(paths)
}

/// All paths of one kind name the same thing.
fn one_only<'a>(seen: &mut Option<&'a [u8]>, id: &'a [u8], what: &str) -> Result<(), ReadStateRefused> {
    match seen.replace(id) {
        Some(other) if other != id => Err(ReadStateRefused::Invalid(format!("paths name more than one {what}"))),
        _ => Ok(()),
    }
}

fn check_path(state: &ReplicatedState, request: &ReadStateRequest<'_>, path: &[&[u8]]) -> Result<(), ReadStateRefused> {
    match path {
        [b"time"] | [b"api_boundary_nodes"] | [b"api_boundary_nodes", _] => Ok(()),
        [b"api_boundary_nodes", _, b"domain" | b"ipv4_address" | b"ipv6_address"] => Ok(()),
        [b"subnet"] | [b"subnet", _] | [b"subnet", _, b"public_key" | b"type" | b"canister_ranges" | b"node"] => Ok(()),
        [b"subnet", _, b"node", _] | [b"subnet", _, b"node", _, b"public_key"] => Ok(()),
        [b"canister_ranges", _] if matches!(request.target, ReadStateTarget::Subnet(_)) => Ok(()),
        [b"subnet", subnet, b"metrics"] => check_metrics(request, subnet),
        [b"request_status", id]
        | [
            b"request_status",
            id,
            b"status" | b"reply" | b"reject_code" | b"reject_message" | b"error_code",
        ] => check_request_status(state, request, id),
        [b"canister", id, b"controllers" | b"module_hash"] => check_effective_canister(request, id).map(drop),
        [
            b"canister",
            id,
            b"canister_creation_timestamp" | b"last_install_timestamp",
        ] => check_effective_canister(request, id).map(drop),
        [b"canister", id, b"metadata", name] => check_metadata(state, request, id, name),
        _ => Err(ReadStateRefused::NotFound("Invalid path requested.".to_owned())),
    }
}

fn check_metrics(request: &ReadStateRequest<'_>, subnet: &[u8]) -> Result<(), ReadStateRefused> {
    match request.target {
        ReadStateTarget::Subnet(target) if target.as_slice() == subnet => Ok(()),
        _ => Err(ReadStateRefused::NotFound(
            "metrics are read at the endpoint of their subnet".to_owned(),
        )),
    }
}

fn check_request_status(
    state: &ReplicatedState,
    request: &ReadStateRequest<'_>,
    id: &[u8],
) -> Result<(), ReadStateRefused> {
    let id = MessageId(
        id.try_into()
            .map_err(|_| ReadStateRefused::Invalid("a request id has 32 bytes".to_owned()))?,
    );
    // An unknown request tells nobody anything.
    let Some(status) = state.ingress_history.get(&id) else {
        return Ok(());
    };
    if status.source != request.source {
        return Err(ReadStateRefused::Forbidden(
            "the request was signed by another sender".to_owned(),
        ));
    }
    if request
        .delegation_targets
        .is_some_and(|targets| !targets.contains(&status.receiver))
    {
        let text = "the request went to a canister that is not among the targets of the sender's delegation";
        return Err(ReadStateRefused::Forbidden(text.to_owned()));
    }
    Ok(())
}

fn check_effective_canister(request: &ReadStateRequest<'_>, id: &[u8]) -> Result<CanisterId, ReadStateRefused> {
    let id = PrincipalId::try_from_slice(id)
        .map_err(|_| ReadStateRefused::Invalid("a path holds bytes that are no principal".to_owned()))?;
    match request.target {
        ReadStateTarget::Canister(target) if target.0 == id => Ok(target),
        ReadStateTarget::Canister(target) => Err(ReadStateRefused::Invalid(format!(
            "the effective canister id in the URL, {target}, is not the requested one, {id}"
        ))),
        ReadStateTarget::Subnet(_) => Err(ReadStateRefused::NotFound("Invalid path requested.".to_owned())),
    }
}

fn check_metadata(
    state: &ReplicatedState,
    request: &ReadStateRequest<'_>,
    id: &[u8],
    name: &[u8],
) -> Result<(), ReadStateRefused> {
    let name = std::str::from_utf8(name)
        .map_err(|error| ReadStateRefused::Invalid(format!("the name of a custom section is not UTF-8: {error}")))?;
    let id = check_effective_canister(request, id)?;
    let Some(canister) = state.canister(&id) else {
        return Ok(());
    };
    let Some(execution) = &canister.execution else {
        return Ok(());
    };
    match execution
        .interface
        .custom_sections
        .get(name)
        .map(|section| section.visibility)
    {
        Some(CustomSectionVisibility::Private) if !canister.system.is_controller(&request.source) => {
            Err(ReadStateRefused::Forbidden(format!(
                "custom section {name:.100} can only be read by the controllers of the canister"
            )))
        }
        _ => Ok(()),
    }
}
