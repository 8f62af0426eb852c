//! What things cost, in cycles, on a subnet of any size.
//!
//! The table is published for 13 nodes. On `n` nodes a fee is `fee * n / 13`, rounded down. *Where* that rounding
//! happens is part of the protocol: a fee per byte is scaled first for ingress, but scaled as one product for calls.

use crate::limits::{
    STORAGE_RESERVATION_THRESHOLD_BYTES, SUBNET_MEMORY_BYTES_MAX, SUBNET_MEMORY_RESERVED_BYTES, SUBNET_MEMORY_SHARES,
};
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
const NANOS_PER_SECOND: u128 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// Storage is reserved for at most this long.
pub const STORAGE_RESERVATION_PERIOD_MAX: Duration = Duration::from_secs(300_000_000);

/// Cycles for instructions on the reference subnet.
fn cycles_of_instructions(instructions: NumInstructions, width: WasmWidth) -> u128 {
    let ten = match width {
        WasmWidth::Wasm32 => TEN_INSTRUCTIONS_WASM32,
        WasmWidth::Wasm64 => TEN_INSTRUCTIONS_WASM64,
    };
    ten * u128::from(instructions.0) / 10
}

/// 2^30 times the cycles for holding bytes on the reference subnet.
fn gib_cycles(bytes: NumBytes, duration: Duration) -> u128 {
    STORAGE_PER_GIB_SECOND
        .saturating_mul(u128::from(bytes.0))
        .saturating_mul(duration.as_nanos())
        / NANOS_PER_SECOND
}

/// Whether memory is addressed with 32 or 64 bits: a wasm64 instruction costs twice the cycles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum WasmWidth {
    /// `i32` addresses.
    #[default]
    Wasm32,
    /// `i64` addresses.
    Wasm64,
}

/// A fee as it is taken and as it is counted. The free schedule takes nothing but counts what the normal one would take,
/// so that consumption is comparable between subnets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fee {
    /// Cycles that leave the balance.
    pub taken: Cycles,
    /// Cycles that count as consumed.
    pub counted: Cycles,
}

impl From<Cycles> for Fee {
    /// An amount that is taken whatever the schedule says.
    fn from(amount: Cycles) -> Self {
        Self {
            taken: amount,
            counted: amount,
        }
    }
}

impl Fee {
    /// At most `bound` cycles of the fee; what is cut off is not counted either.
    pub fn at_most(self, bound: Cycles) -> Self {
        let excess = self.taken - bound;
        Self {
            taken: self.taken - excess,
            counted: self.counted - excess,
        }
    }
}

impl SubnetConfig {
    fn is_free(&self) -> bool {
        self.cost_schedule == CostSchedule::Free
    }

    /// What `cost` comes to on this subnet.
    pub fn fee(&self, cost: impl Fn(&Self) -> Cycles) -> Fee {
        let normal = Self {
            cost_schedule: CostSchedule::Normal,
            ..*self
        };
        Fee {
            taken: cost(self),
            counted: cost(&normal),
        }
    }

    fn execution_is_free(&self) -> bool {
        self.is_free() || self.subnet_type == SubnetType::System
    }

    /// `fee * size / 13` rounded down: zero under the free schedule.
    fn scale(&self, fee: u128) -> Cycles {
        if self.is_free() {
            Cycles::ZERO
        } else {
            Cycles(fee.saturating_mul(u128::from(self.size)) / REFERENCE_SUBNET_SIZE)
        }
    }

    /// [`Self::scale`] for what system subnets do not charge for.
    fn scale_execution(&self, fee: u128) -> Cycles {
        if self.execution_is_free() {
            Cycles::ZERO
        } else {
            self.scale(fee)
        }
    }

    /// Creating a canister.
    pub fn canister_creation_fee(&self) -> Cycles {
        self.scale_execution(CANISTER_CREATION)
    }

    /// Executing a message of `instructions`: base fee and instructions together, scaled and rounded once.
    ///
    /// A message is prepaid with this for its largest instruction count and gets [`Self::instructions_cost`] of the
    /// unused ones back. The charge is the difference of the two, which may be one cycle above this cost.
    pub fn execution_cost(&self, instructions: NumInstructions, width: WasmWidth) -> Cycles {
        self.scale_execution(UPDATE_MESSAGE_EXECUTION + cycles_of_instructions(instructions, width))
    }

    /// Executing `used` of at most `limit` instructions: the prepayment for all of them less the refund of the rest, each
    /// rounded by itself.
    pub fn settled_execution_cost(&self, limit: NumInstructions, used: NumInstructions, width: WasmWidth) -> Cycles {
        self.execution_cost(limit, width) - self.instructions_cost(limit - used, width)
    }

    /// The instructions alone.
    pub fn instructions_cost(&self, instructions: NumInstructions, width: WasmWidth) -> Cycles {
        self.scale_execution(cycles_of_instructions(instructions, width))
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

    /// Holding `bytes` bytes for `duration`, as it is foreseen: for thresholds and reservations. Rounded before it is
    /// scaled.
    pub fn storage_cost(&self, bytes: NumBytes, duration: Duration) -> Cycles {
        self.scale_execution(gib_cycles(bytes, duration) / GIB)
    }

    /// Having held `bytes` bytes for `duration`, as it is charged. Rounded after it is scaled.
    pub fn storage_charge(&self, bytes: NumBytes, duration: Duration) -> Cycles {
        Cycles(self.scale_execution(gib_cycles(bytes, duration)).0 / GIB)
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

    /// An HTTP outcall by the work that it makes, in the newer pricing that canisters can ask for already.
    pub fn http_request_fee_v2(&self, work: HttpOutcallWork) -> Cycles {
        if self.execution_is_free() {
            return Cycles::ZERO;
        }
        let nodes = u128::from(self.size);
        // The share of the transform is rounded before it is multiplied.
        let per_node = 1_000_000
            + 50 * u128::from(work.request.0)
            + 140_000 * nodes
            + 800 * nodes * nodes
            + 50 * u128::from(work.raw_response.0)
            + 300 * work.roundtrip.as_millis()
            + u128::from(work.transform.0) / 13
            + (10 * nodes + 650) * u128::from(work.transformed_response.0);
        Cycles(per_node.saturating_mul(nodes))
    }

    /// A replicated `fetch_canister_logs` whose answer may have `bytes` bytes.
    pub fn fetch_canister_logs_fee(&self, bytes: NumBytes) -> Cycles {
        self.scale_execution(FETCH_LOGS + FETCH_LOGS_PER_BYTE * u128::from(bytes.0))
    }
}

/// What an HTTP outcall makes a subnet do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpOutcallWork {
    /// Bytes of the request.
    pub request: NumBytes,
    /// How long the answer takes.
    pub roundtrip: Duration,
    /// Bytes of the answer as it comes.
    pub raw_response: NumBytes,
    /// Bytes of the answer as the canister gets it.
    pub transformed_response: NumBytes,
    /// Instructions of the transform function.
    pub transform: NumInstructions,
}

/// What the freezing threshold of a canister depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreezingThreshold {
    /// `freezing_threshold` setting, in seconds.
    pub seconds: u64,
    /// `memory_allocation` setting; zero for best effort.
    pub memory_allocation: NumBytes,
    /// Memory that storage is charged for.
    pub memory_usage: NumBytes,
    /// Memory of messages in queues and of responses awaited.
    pub message_memory_usage: NumBytes,
    /// `compute_allocation` setting, in percent.
    pub compute_allocation_percent: u64,
    /// Cycles already set aside for storage; they count towards the threshold.
    pub reserved_balance: Cycles,
}

/// Subnet memory that one execution may take while `subnet_usage` bytes are in use.
pub fn available_share(subnet_usage: NumBytes) -> NumBytes {
    let usable = NumBytes(SUBNET_MEMORY_BYTES_MAX - SUBNET_MEMORY_RESERVED_BYTES);
    NumBytes((usable - subnet_usage).0 / SUBNET_MEMORY_SHARES)
}

/// Memory that is being allocated on a subnet that may be filling up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryReservation {
    /// Bytes newly taken from the subnet.
    pub allocated: NumBytes,
    /// Bytes that the same execution took before.
    pub taken_before: NumBytes,
    /// Subnet memory in use when the execution began.
    pub subnet_usage: NumBytes,
}

impl SubnetConfig {
    /// Cycles that a canister with these settings burns in a day while it does nothing.
    pub fn idle_cycles_burned_per_day(&self, canister: FreezingThreshold) -> Cycles {
        let day = Duration::from_secs(SECONDS_PER_DAY);
        self.storage_cost(canister.memory_usage.max(canister.memory_allocation), day)
            + self.storage_cost(canister.message_memory_usage, day)
            + self.compute_allocation_cost(canister.compute_allocation_percent, day)
    }

    /// The balance below which the canister is frozen: what it burns idle over `seconds`, less its reserved balance.
    pub fn freezing_threshold(&self, canister: FreezingThreshold) -> Cycles {
        let per_day = self.idle_cycles_burned_per_day(canister).0;
        let threshold = per_day.saturating_mul(u128::from(canister.seconds)) / u128::from(SECONDS_PER_DAY);
        Cycles(threshold) - canister.reserved_balance
    }

    /// Cycles to set aside for an allocation: nothing up to the threshold of subnet memory; above it every byte is
    /// reserved for, for a time that rises linearly to [`STORAGE_RESERVATION_PERIOD_MAX`] for the last one.
    ///
    /// An execution has a share of the subnet for itself, so usage, threshold and capacity are shares as well.
    pub fn storage_reservation(&self, memory: MemoryReservation) -> Cycles {
        let available = available_share(memory.subnet_usage);
        let usage = SUBNET_MEMORY_BYTES_MAX / SUBNET_MEMORY_SHARES - available.0 + memory.taken_before.0;
        self.reservation_up_to(usage.saturating_add(memory.allocated.0)) - self.reservation_up_to(usage)
    }

    /// What all allocations up to a share's `usage` have reserved together: bytes above the threshold by half the time
    /// of the last one.
    fn reservation_up_to(&self, usage: u64) -> Cycles {
        let threshold = STORAGE_RESERVATION_THRESHOLD_BYTES / SUBNET_MEMORY_SHARES;
        let range = SUBNET_MEMORY_BYTES_MAX / SUBNET_MEMORY_SHARES - threshold;
        let above = usage.saturating_sub(threshold).min(range);
        let half = u128::from(STORAGE_RESERVATION_PERIOD_MAX.as_secs() / 2);
        let seconds = half * u128::from(above) / u128::from(range);
        self.storage_cost(NumBytes(above), Duration::from_secs(seconds as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(size: u32) -> SubnetConfig {
        SubnetConfig {
            subnet_type: SubnetType::Application,
            size,
            ..SubnetConfig::default()
        }
    }

    #[test]
    fn published_fees_for_one_and_thirteen_nodes() {
        assert_eq!(subnet(13).canister_creation_fee(), Cycles(500_000_000_000));
        assert_eq!(subnet(1).canister_creation_fee(), Cycles(38_461_538_461));
        assert_eq!(
            subnet(1).execution_cost(NumInstructions(0), WasmWidth::Wasm32),
            Cycles(384_615)
        );
        let (max, used) = (NumInstructions(40_000_000_000), NumInstructions(513));
        let prepaid = subnet(1).execution_cost(max, WasmWidth::Wasm32);
        let refund = subnet(1).instructions_cost(NumInstructions(max.0 - used.0), WasmWidth::Wasm32);
        assert_eq!(prepaid - refund, Cycles(384_655));
        assert_eq!(
            subnet(1).settled_execution_cost(max, used, WasmWidth::Wasm32),
            Cycles(384_655)
        );
        assert_eq!(subnet(1).ingress_induction_cost(NumBytes(0)), Cycles(92_307));
        assert_eq!(subnet(1).ingress_induction_cost(NumBytes(10)), Cycles(92_307 + 1_530));
        assert_eq!(
            subnet(13).http_request_fee(NumBytes(0), NumBytes(0)),
            Cycles(49_140_000)
        );
    }

    #[test]
    fn outcalls_by_their_work() {
        let work = HttpOutcallWork {
            request: NumBytes(100),
            roundtrip: Duration::from_millis(20),
            raw_response: NumBytes(1_000),
            transformed_response: NumBytes(10),
            transform: NumInstructions(25),
        };
        let per_node = 1_000_000 + 5_000 + 140_000 * 34 + 800 * 34 * 34 + 50_000 + 6_000 + 1 + (340 + 650) * 10;
        assert_eq!(subnet(34).http_request_fee_v2(work), Cycles(per_node * 34));
    }

    #[test]
    fn the_freezing_threshold_counts_allocation_or_usage_and_reserved_cycles() {
        let canister = FreezingThreshold {
            seconds: 30 * SECONDS_PER_DAY,
            memory_usage: NumBytes(1 << 30),
            ..FreezingThreshold::default()
        };
        let month = Cycles(317_500 * 30 * u128::from(SECONDS_PER_DAY));
        assert_eq!(subnet(13).freezing_threshold(canister), month);
        let smaller = FreezingThreshold {
            memory_allocation: NumBytes(1 << 20),
            ..canister
        };
        assert_eq!(subnet(13).freezing_threshold(smaller), month);
        let reserved = FreezingThreshold {
            reserved_balance: Cycles(1_000),
            ..canister
        };
        assert_eq!(subnet(13).freezing_threshold(reserved), month - Cycles(1_000));
    }

    #[test]
    fn small_storage_charges_are_rounded_once_and_foreseen_ones_twice() {
        let held = |size| subnet(size).storage_charge(NumBytes(1_182), Duration::from_secs(100));
        assert_eq!((held(13), held(34)), (Cycles(34), Cycles(91)));
        let day = Duration::from_secs(SECONDS_PER_DAY);
        let foreseen = |size| subnet(size).storage_cost(NumBytes(66_253), day);
        assert_eq!((foreseen(13), foreseen(34)), (Cycles(1_692_634), Cycles(4_426_888)));
    }

    #[test]
    fn the_free_schedule_counts_what_it_does_not_take() {
        let free = SubnetConfig {
            cost_schedule: CostSchedule::Free,
            ..subnet(13)
        };
        let fee = free.fee(|subnet| subnet.ingress_induction_cost(NumBytes(60)));
        assert_eq!((fee.taken, fee.counted), (Cycles::ZERO, Cycles(1_320_000)));
        let fee = subnet(13).fee(|subnet| subnet.ingress_induction_cost(NumBytes(60)));
        assert_eq!(fee, Fee::from(Cycles(1_320_000)));
        assert_eq!(fee.at_most(Cycles(1_000)), Fee::from(Cycles(1_000)));
    }

    #[test]
    fn storage_is_reserved_above_the_threshold_only() {
        let grow = |usage: u64, bytes: u64| MemoryReservation {
            allocated: NumBytes(bytes),
            taken_before: NumBytes::ZERO,
            subnet_usage: NumBytes(usage),
        };
        let reservation = |memory| subnet(13).storage_reservation(memory);
        assert_eq!(reservation(grow(0, 1 << 30)), Cycles::ZERO);
        // From a byte above 4 GiB to 500 GiB on an otherwise empty subnet.
        let far = grow(4_295_099_603, 8_126_463 * 65_536);
        assert_eq!(reservation(far), Cycles(14_286_616_562_664_117));
        let first = MemoryReservation {
            allocated: NumBytes(300 << 30),
            ..far
        };
        let second = MemoryReservation {
            allocated: far.allocated - first.allocated,
            taken_before: first.allocated,
            ..far
        };
        assert_eq!(reservation(first) + reservation(second), reservation(far));
    }
}
