//! What canisters may ask about the subnet.

use super::error;
use super::types::{
    self, CanisterIdRange, ListCanistersResult, NodeMetrics, NodeMetricsEntry, NodeMetricsHistoryArgs, SubnetInfoArgs,
    SubnetInfoResult, SubnetMetricsResult,
};
use super::work::{Reply, Work};
use crate::state::ReplicatedState;
use replicore_types::{CanisterId, ErrorCode, Height, PrincipalId, SubnetId, SubnetType, Time, UserError};

/// `list_canisters`: the canisters of the subnet as ranges of neighbouring ids. For the users of a rented subnet.
pub(crate) fn list_canisters(state: &ReplicatedState) -> Result<Vec<u8>, UserError> {
    if state.metadata.subnet.subnet_type != SubnetType::CloudEngine {
        return Err(error::only_subnet_admins("list_canisters"));
    }
    let mut canisters: Vec<CanisterIdRange> = Vec::new();
    let mut last_index: Option<u64> = None;
    for id in state.canisters.keys() {
        let index = id.index();
        let follows = matches!((last_index, index), (Some(last), Some(index)) if index == last + 1);
        last_index = index;
        match canisters.last_mut() {
            Some(range) if follows => range.end = id.0,
            _ => canisters.push(CanisterIdRange { start: id.0, end: id.0 }),
        }
    }
    types::encode(ListCanistersResult { canisters })
}

/// `subnet_info`
pub(crate) fn subnet_info<E>(work: &mut Work<'_, E>, args: &SubnetInfoArgs) -> Result<Reply, UserError> {
    check_subnet(work, args.subnet_id)?;
    types::encode(SubnetInfoResult {
        replica_version: format!("replicore-{}", env!("CARGO_PKG_VERSION")),
        registry_version: 1,
    })
    .map(Reply::Now)
}

/// `subnet_metrics`
pub(crate) fn subnet_metrics<E>(work: &mut Work<'_, E>, args: &SubnetInfoArgs) -> Result<Reply, UserError> {
    check_subnet(work, args.subnet_id)?;
    let metadata = &work.state.metadata;
    types::encode(SubnetMetricsResult {
        block_height: metadata.height.0.into(),
        num_canisters: metadata.metrics.canisters.into(),
        canister_state_bytes: metadata.metrics.canister_state_bytes.into(),
        consumed_cycles_total: metadata.metrics.consumed_cycles.0.into(),
        update_transactions_total: metadata.metrics.update_transactions.into(),
    })
    .map(Reply::Now)
}

/// `node_metrics_history`: the blocks of every node at the end of each of the last sixty days, and today so far. Blocks
/// are made by one sequencer, so every node counts every batch and none fails.
pub(crate) fn node_metrics_history<E>(
    work: &mut Work<'_, E>,
    args: &NodeMetricsHistoryArgs,
) -> Result<Reply, UserError> {
    check_subnet(work, args.subnet_id)?;
    let metadata = &work.state.metadata;
    let days = metadata.daily_blocks.since(Time(args.start_at_timestamp_nanos));
    let history: Vec<NodeMetricsEntry> = days
        .map(|(time, height)| NodeMetricsEntry {
            timestamp_nanos: time.as_nanos(),
            node_metrics: metadata.nodes.keys().map(|node| made(node.0, height)).collect(),
        })
        .collect();
    types::encode(history).map(Reply::Now)
}

fn made(node_id: PrincipalId, height: Height) -> NodeMetrics {
    NodeMetrics {
        node_id,
        num_blocks_proposed_total: height.0,
        num_block_failures_total: 0,
    }
}

fn check_subnet<E>(work: &Work<'_, E>, subnet: PrincipalId) -> Result<(), UserError> {
    if SubnetId(subnet) == work.state.metadata.subnet_id {
        return Ok(());
    }
    let id = CanisterId(subnet);
    Err(UserError::new(
        ErrorCode::SubnetNotFound,
        format!("No route to subnet {id}"),
    ))
}
