//! What kind of subnet the replica plays. Fees and limits follow from it.

use crate::ThresholdKeys;
use serde::{Deserialize, Serialize};

/// The subnet type, as certified under `/subnet/<id>/type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubnetType {
    /// The usual subnet.
    Application,
    /// Application limits for verified developers.
    VerifiedApplication,
    /// Higher limits, no execution fees.
    System,
    /// A rented engine: clients create canisters through the subnet endpoint.
    #[default]
    CloudEngine,
}

impl SubnetType {
    /// The text certified under `/subnet/<id>/type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::VerifiedApplication => "verified_application",
            Self::System => "system",
            Self::CloudEngine => "cloud_engine",
        }
    }
}

/// Whether cycles are charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CostSchedule {
    /// Every fee by the table.
    #[default]
    Normal,
    /// Every fee is zero.
    Free,
}

/// Which published version of the management interface canisters and agents see. Versions differ in fields of records:
/// a canister that decodes strictly must be able to keep the one that it was written for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum InterfaceVersion {
    /// May 2026: what the reference transcripts were recorded with.
    #[serde(rename = "2026-05")]
    May2026,
    /// August 2026: `canister_status` shows `status_visibility` and `minimum_incoming_canister_call_cycles`.
    #[default]
    #[serde(rename = "2026-08")]
    August2026,
}

/// The facts of the subnet that fees and limits depend on. Part of the replicated state; fixed at its creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubnetConfig {
    /// Kind of subnet.
    pub subnet_type: SubnetType,
    /// Number of nodes that fees are scaled to; one replica runs whatever this says.
    pub size: u32,
    /// Whether cycles are charged.
    pub cost_schedule: CostSchedule,
    /// Rate limits on heap delta and install_code; off for benchmarks.
    pub rate_limits: bool,
    /// The management interface in force.
    pub interface: InterfaceVersion,
    /// Least time between two heartbeats of a canister, in milliseconds of batch time; zero means every round. Rounds
    /// follow the load, and a heartbeat is charged for: without a least time load would multiply it.
    pub heartbeat_interval_ms: u32,
    /// Threshold keys that it holds.
    pub threshold_keys: ThresholdKeys,
}

impl Default for SubnetConfig {
    fn default() -> Self {
        Self {
            subnet_type: SubnetType::default(),
            size: 13,
            cost_schedule: CostSchedule::Normal,
            rate_limits: true,
            interface: InterfaceVersion::default(),
            heartbeat_interval_ms: 1_000,
            threshold_keys: ThresholdKeys::default(),
        }
    }
}
