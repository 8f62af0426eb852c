//! What things cost, in cycles, on a subnet of any size.
//!
//! The table is published for 13 nodes. On `n` nodes a fee is `fee * n / 13`, rounded down. *Where* that rounding
//! happens is part of the protocol: a fee per byte is scaled first for ingress, but scaled as one product for calls.

use crate::{CostSchedule, Cycles, NumBytes, NumInstructions, SubnetConfig, SubnetType};
use std::time::Duration;

/// Nodes that the table is written for.
const REFERENCE_SUBNET_SIZE: u128 = 13;
const GIB: u128 = 1 << 30;

const CANISTER_CREATION: u128 = 500_000_000_000;
const UPDATE_MESSAGE_EXECUTION: u128 = 5_000_000;
const TEN_INSTRUCTIONS_WASM32: u128 = 10;
const TEN_INSTRUCTIONS_WASM64: u128 = 20;
const CALL: u128 = 260_000;
const CALL_PER_BYTE: u128 = 1_000;
const INGRESS_RECEPTION: u128 = 1_200_000;
const INGRESS_PER_BYTE: u128 = 2_000;
const STORAGE_PER_GIB_SECOND: u128 = 317_500;
const COMPUTE_PER_PERCENT_SECOND: u128 = 10_000_000;
const THRESHOLD_SIGNATURE: u128 = 10_000_000_000;
const FETCH_LOGS: u128 = 5_000_000;
const FETCH_LOGS_PER_BYTE: u128 = 80;

/// Whether memory is addressed with 32 or 64 bits: a wasm64 instruction costs twice the cycles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum WasmWidth {
    /// `i32` addresses.
    #[default]
    Wasm32,
    /// `i64` addresses.
    Wasm64,
}

impl SubnetConfig {
    fn is_free(&self) -> bool {
        self.cost_schedule == CostSchedule::Free
    }

    fn execution_is_free(&self) -> bool {
        self.is_free() || self.subnet_type == SubnetType::System
    }

    /// `fee * size / 13` rounded down: zero under the free schedule.
    fn scale(&self, fee: u128) -> Cycles {
        if self.is_free() { Cycles::ZERO } else { Cycles(fee.saturating_mul(u128::from(self.size)) / REFERENCE_SUBNET_SIZE) }
    }

    /// [`Self::scale`] for what system subnets do not charge for.
    fn scale_execution(&self, fee: u128) -> Cycles {
        if self.execution_is_free() { Cycles::ZERO } else { self.scale(fee) }
    }

    /// Creating a canister.
    pub fn canister_creation_fee(&self) -> Cycles {
        self.scale_execution(CANISTER_CREATION)
    }

    /// Executing a message of `instructions`: the base fee and the instructions, each scaled and rounded by itself.
    pub fn execution_cost(&self, instructions: NumInstructions, width: WasmWidth) -> Cycles {
        self.scale_execution(UPDATE_MESSAGE_EXECUTION) + self.instructions_cost(instructions, width)
    }

    /// The instructions alone.
    pub fn instructions_cost(&self, instructions: NumInstructions, width: WasmWidth) -> Cycles {
        let ten = match width {
            WasmWidth::Wasm32 => TEN_INSTRUCTIONS_WASM32,
            WasmWidth::Wasm64 => TEN_INSTRUCTIONS_WASM64,
        };
        self.scale_execution(ten * u128::from(instructions.0) / 10)
    }

    /// Inducting an ingress message whose envelope has `bytes` bytes.
    pub fn ingress_induction_cost(&self, bytes: NumBytes) -> Cycles {
        let per_byte = self.scale_execution(INGRESS_PER_BYTE);
        self.scale_execution(INGRESS_RECEPTION) + Cycles(per_byte.0.saturating_mul(u128::from(bytes.0)))
    }

    /// The fixed fee of an inter-canister call.
    pub fn call_fee(&self) -> Cycles {
        self.scale_execution(CALL)
    }

    /// Transmitting `bytes` bytes of request or response.
    pub fn transmission_cost(&self, bytes: NumBytes) -> Cycles {
        self.scale_execution(CALL_PER_BYTE * u128::from(bytes.0))
    }

    /// Holding `bytes` bytes for `duration`.
    pub fn storage_cost(&self, bytes: NumBytes, duration: Duration) -> Cycles {
        let fee = STORAGE_PER_GIB_SECOND * u128::from(bytes.0) * duration.as_nanos() / 1_000_000_000 / GIB;
        self.scale_execution(fee)
    }

    /// Holding a compute allocation of `percent` for `duration`.
    pub fn compute_allocation_cost(&self, percent: u64, duration: Duration) -> Cycles {
        self.scale_execution(COMPUTE_PER_PERCENT_SECOND * u128::from(percent) * duration.as_nanos() / 1_000_000_000)
    }

    /// A threshold signature (ECDSA, Schnorr, vetKD); charged on system subnets too.
    pub fn threshold_signature_fee(&self) -> Cycles {
        self.scale(THRESHOLD_SIGNATURE)
    }

    /// An HTTP outcall with this request size and response bound.
    pub fn http_request_fee(&self, request: NumBytes, response_max: NumBytes) -> Cycles {
        if self.execution_is_free() {
            return Cycles::ZERO;
        }
        let nodes = u128::from(self.size);
        let per_node = 3_000_000 + 60_000 * nodes + 400 * u128::from(request.0) + 800 * u128::from(response_max.0);
        Cycles(per_node.saturating_mul(nodes))
    }

    /// A replicated `fetch_canister_logs` whose answer may have `bytes` bytes.
    pub fn fetch_canister_logs_fee(&self, bytes: NumBytes) -> Cycles {
        self.scale_execution(FETCH_LOGS + FETCH_LOGS_PER_BYTE * u128::from(bytes.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(size: u32) -> SubnetConfig {
        SubnetConfig { subnet_type: SubnetType::Application, size, ..SubnetConfig::default() }
    }

    #[test]
    fn published_fees_for_one_and_thirteen_nodes() {
        assert_eq!(subnet(13).canister_creation_fee(), Cycles(500_000_000_000));
        assert_eq!(subnet(1).canister_creation_fee(), Cycles(38_461_538_461));
        assert_eq!(subnet(1).execution_cost(NumInstructions(0), WasmWidth::Wasm32), Cycles(384_615));
        assert_eq!(subnet(1).ingress_induction_cost(NumBytes(0)), Cycles(92_307));
        assert_eq!(subnet(1).ingress_induction_cost(NumBytes(10)), Cycles(92_307 + 1_530));
        assert_eq!(subnet(13).http_request_fee(NumBytes(0), NumBytes(0)), Cycles(49_140_000));
    }
}
