//! The errors of the management canister: protocol codes and the sentences that clients match on.
//!
//! The first line of each text is part of the protocol (reference transcripts compare it). Some have a second one with an
//! advice: canisters read the whole text.

use replicore_types::{CanisterId, Cycles, ErrorCode, NumBytes, PrincipalId, UserError};

/// `number` with `_` between groups of three digits.
pub(crate) fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

/// `bytes` in the largest binary unit that leaves a number of at least one, with two decimals.
pub(crate) fn binary_unit(bytes: NumBytes) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes.0 < 1024 {
        return format!("{} B", bytes.0);
    }
    let exponent = ((63 - bytes.0.leading_zeros()) / 10).min(UNITS.len() as u32);
    let unit = 1u128 << (10 * exponent);
    let hundredths = (u128::from(bytes.0) * 100 + unit / 2) / unit;
    format!(
        "{}.{:02} {}",
        hundredths / 100,
        hundredths % 100,
        UNITS[exponent as usize - 1]
    )
}

fn error(code: ErrorCode, text: String) -> UserError {
    UserError::new(code, text)
}

const DOCUMENTATION: &str = "https://internetcomputer.org/docs/current/references/execution-errors#";
const TOP_UP: &str = "Top up the canister with more cycles.";
const RAISE_RESERVED_LIMIT: &str =
    "Try increasing this canister's reserved cycles limit or moving it to a subnet with lower memory usage.";

/// An error with a second line: what to do, and where that is explained.
fn advised(code: ErrorCode, text: String, advice: &str, anchor: &str) -> UserError {
    error(
        code,
        format!("{text}\n{advice} See documentation: {DOCUMENTATION}{anchor}"),
    )
}

/// [`advised`] with a link that leads nowhere, as the protocol has it.
fn advised_nowhere(code: ErrorCode, text: String, advice: &str, link: &str) -> UserError {
    error(code, format!("{text}\n{advice} See documentation: {link}"))
}

pub(crate) fn canister_not_found(id: CanisterId) -> UserError {
    error(ErrorCode::CanisterNotFound, format!("Canister {id} not found"))
}

/// What calls of the management canister find out in execution.
pub(crate) fn target_not_found(id: CanisterId) -> UserError {
    error(ErrorCode::CanisterNotFound, format!("Canister {id} not found."))
}

pub(crate) fn not_stopped(id: CanisterId) -> UserError {
    advised(
        ErrorCode::CanisterNotStopped,
        format!("Canister {id} must be stopped before it is deleted."),
        "Stop the canister before deleting it.",
        "delete-canister-not-stopped",
    )
}

pub(crate) fn deletes_itself(id: CanisterId) -> UserError {
    advised(
        ErrorCode::CanisterInvalidController,
        format!("Canister {id} cannot delete itself."),
        "Delete the canister from one of its other controllers.",
        "delete-canister-self",
    )
}

pub(crate) fn queues_not_empty(id: CanisterId) -> UserError {
    advised(
        ErrorCode::CanisterQueueNotEmpty,
        format!("Canister {id} has messages in its queues and cannot be deleted now. Please retry after some time."),
        "Wait until the queues have been cleared to delete the canister and in the meantime stop the canister.",
        "delete-canister-queue-not-empty",
    )
}

pub(crate) fn too_many_snapshots(id: CanisterId, limit: usize) -> UserError {
    advised_nowhere(
        ErrorCode::CanisterRejectedMessage,
        format!("Canister {id} has reached the maximum number of snapshots allowed: {limit}."),
        "Consider deleting an unnecessary snapshot of the specified canister before creating a new one.",
        "canister-snapshot-limit-exceeded",
    )
}

pub(crate) fn snapshot_of_another(snapshot: &str, id: CanisterId) -> UserError {
    advised(
        ErrorCode::CanisterRejectedMessage,
        format!("The snapshot {snapshot} does not belong to canister {id}."),
        "Use the `list_canister_snapshot` API to see which snapshots are present.",
        "canister-snapshot-invalid-ownership",
    )
}

pub(crate) fn snapshot_not_controlled(snapshot: &str, id: CanisterId, sender: PrincipalId) -> UserError {
    advised_nowhere(
        ErrorCode::CanisterRejectedMessage,
        format!(
            "Only a controller of the canister that snapshot {snapshot} belongs to can load it on canister {id}. \
             Sender: {sender}."
        ),
        "Make sure you are a controller of the canister that the snapshot belongs to.",
        "canister-snapshot-not-controller",
    )
}

/// A call brought fewer cycles than the canister asks of other canisters.
pub(crate) fn too_few_cycles_attached(id: CanisterId, minimum: Cycles, attached: Cycles) -> UserError {
    error(
        ErrorCode::InsufficientCyclesInCall,
        format!("Canister {id} requires at least {minimum} transferred cycles, but the call came with {attached}"),
    )
}

pub(crate) fn unknown_method(name: &str) -> UserError {
    error(
        ErrorCode::CanisterMethodNotFound,
        format!("Management canister has no method '{name}'"),
    )
}

pub(crate) fn only_canisters(method: &str) -> UserError {
    error(
        ErrorCode::CanisterRejectedMessage,
        format!("Only canisters can call ic00 method {method}"),
    )
}

pub(crate) fn only_subnet_admins(method: &str) -> UserError {
    error(
        ErrorCode::CanisterRejectedMessage,
        format!("Only subnet admins can call ic00 method {method}"),
    )
}

/// What the ingress filter answers a sender who is no controller.
pub(crate) fn filter_not_controller(id: CanisterId, method: &str) -> UserError {
    error(
        ErrorCode::CanisterInvalidController,
        format!("Only controllers of canister {id} can call ic00 method {method}"),
    )
}

/// What execution answers a caller who is no controller.
pub(crate) fn not_controller<'a>(
    id: CanisterId,
    controllers: impl Iterator<Item = &'a PrincipalId>,
    caller: PrincipalId,
) -> UserError {
    let expected = controllers.map(ToString::to_string).collect::<Vec<_>>().join(" ");
    advised(
        ErrorCode::CanisterInvalidController,
        format!(
            "Only the controllers of the canister {id} can control it.\n\
             Canister's controllers: {expected}\n\
             Sender's ID: {caller}"
        ),
        "Execute this call from a controller of the target canister or add the current caller as a controller.",
        "invalid-controller",
    )
}

/// `missing` cycles would have made it possible.
pub(crate) fn out_of_cycles(id: CanisterId, missing: Cycles) -> UserError {
    error(ErrorCode::CanisterOutOfCycles, out_of_cycles_text(id, missing))
}

pub(crate) fn out_of_cycles_text(id: CanisterId, missing: Cycles) -> String {
    let missing = grouped(missing.0);
    format!("Canister {id} is out of cycles: please top up the canister with at least {missing} additional cycles")
}

pub(crate) fn install_out_of_cycles(id: CanisterId, missing: Cycles) -> UserError {
    advised(
        ErrorCode::CanisterOutOfCycles,
        format!(
            "Canister installation failed with `{}`.",
            out_of_cycles_text(id, missing)
        ),
        TOP_UP,
        "install-code-not-enough-cycles",
    )
}

pub(crate) fn install_rate_limited(id: CanisterId) -> UserError {
    advised(
        ErrorCode::CanisterInstallCodeRateLimited,
        format!(
            "Canister {id} is rate limited because it executed too many instructions in the previous install_code \
             messages. Please retry installation after several minutes."
        ),
        "Retry the installation at a later time.",
        "install-code-rate-limited",
    )
}

pub(crate) fn canister_not_empty(id: CanisterId) -> UserError {
    advised(
        ErrorCode::CanisterNonEmpty,
        format!(
            "Canister {id} cannot be installed because the canister is not empty. \
             Try installing with mode='reinstall' instead."
        ),
        "Check that you want to overwrite the canister and, if so, use mode='reinstall'.",
        "canister-not-empty",
    )
}

pub(crate) fn no_module(id: CanisterId) -> UserError {
    error(
        ErrorCode::CanisterWasmModuleNotFound,
        format!(
            "Error from Canister {id}: Attempted to execute a message, but the canister contains no Wasm module..\n\
             Please install code to this canister before calling it. See documentation: \
             https://internetcomputer.org/docs/current/references/execution-errors#wasm-module-not-found"
        ),
    )
}

/// `cause` as an error of the canister's own code.
pub(crate) fn from_canister(id: CanisterId, cause: &UserError) -> UserError {
    error(cause.code, format!("Error from Canister {id}: {}", cause.description))
}

pub(crate) fn wasm_memory_limit(id: CanisterId, used: NumBytes, limit: NumBytes) -> UserError {
    advised(
        ErrorCode::CanisterWasmMemoryLimitExceeded,
        format!(
            "Error from Canister {id}: Canister exceeded its current Wasm memory limit of {limit} bytes. The peak \
             Wasm memory usage was {used} bytes. If the canister reaches 4GiB, then it may stop functioning and may \
             become unrecoverable. Please reach out to the canister owner to investigate the reason for the increased \
             memory usage. It might be necessary to move data from the Wasm memory to the stable memory. If such high \
             Wasm memory usage is expected and safe, then the developer can increase the Wasm memory limit in the \
             canister settings.."
        ),
        "Try checking the canister for a possible memory leak or modifying it to use more stable memory instead of Wasm \
         memory.",
        "wasm-memory-limit-exceeded",
    )
}

pub(crate) fn persistence_option_missing() -> UserError {
    error(
        ErrorCode::CanisterContractViolation,
        "Missing upgrade option: Enhanced orthogonal persistence requires the `wasm_memory_persistence` upgrade option."
            .into(),
    )
}

pub(crate) fn persistence_not_supported() -> UserError {
    error(
        ErrorCode::CanisterContractViolation,
        "Invalid upgrade option: The `wasm_memory_persistence: opt Keep` upgrade option requires that the new \
         canister module supports enhanced orthogonal persistence."
            .into(),
    )
}

/// A setting has a value outside its range.
pub(crate) fn setting_out_of_range(text: String) -> UserError {
    error(ErrorCode::CanisterContractViolation, text)
}

pub(crate) fn subnet_memory_exceeded(requested: NumBytes, available: NumBytes) -> UserError {
    advised(
        ErrorCode::SubnetOversubscribed,
        format!(
            "Canister requested {} of memory but only {} are available in the subnet.",
            binary_unit(requested),
            binary_unit(available)
        ),
        "Try moving to another subnet.",
        "subnet-memory-capacity-oversubscribed",
    )
}

pub(crate) fn subnet_compute_exceeded(requested: u64, available: u64) -> UserError {
    advised(
        ErrorCode::SubnetOversubscribed,
        format!(
            "Canister requested a compute allocation of {requested}% which cannot be satisfied because the Subnet's \
             remaining compute capacity is {available}%."
        ),
        "Try moving to another subnet.",
        "subnet-compute-capacity-oversubscribed",
    )
}

pub(crate) fn compute_allocation_unpaid(percent: u64, missing: Cycles) -> UserError {
    advised(
        ErrorCode::InsufficientCyclesInComputeAllocation,
        format!(
            "Cannot increase compute allocation to {percent}% due to insufficient cycles. \
             At least {} additional cycles are required.",
            grouped(missing.0)
        ),
        TOP_UP,
        "insufficient-cycles-in-compute-allocation",
    )
}

pub(crate) fn memory_allocation_unpaid(bytes: NumBytes, missing: Cycles) -> UserError {
    advised(
        ErrorCode::InsufficientCyclesInMemoryAllocation,
        format!(
            "Cannot increase memory allocation to {} due to insufficient cycles. \
             At least {} additional cycles are required.",
            binary_unit(bytes),
            grouped(missing.0)
        ),
        TOP_UP,
        "insufficient-cycles-in-memory-allocation",
    )
}

pub(crate) fn reserved_limit_exceeded_by_allocation(bytes: NumBytes, requested: Cycles, limit: Cycles) -> UserError {
    advised(
        ErrorCode::ReservedCyclesLimitExceededInMemoryAllocation,
        format!(
            "Cannot increase memory allocation to {} due to its reserved cycles limit. \
             The current limit ({}) would be exceeded by {}.",
            binary_unit(bytes),
            grouped(limit.0),
            grouped((requested - limit).0)
        ),
        RAISE_RESERVED_LIMIT,
        "reserved-cycles-limit-exceeded-in-memory-allocation",
    )
}

pub(crate) fn memory_growth_unpaid(bytes: NumBytes, missing: Cycles) -> UserError {
    advised(
        ErrorCode::InsufficientCyclesInMemoryGrow,
        format!(
            "Canister cannot grow memory by {bytes} bytes due to insufficient cycles. \
             At least {} additional cycles are required.",
            grouped(missing.0)
        ),
        TOP_UP,
        "insufficient-cycles-in-memory-grow-1",
    )
}

pub(crate) fn reserved_limit_too_low(limit: Cycles, reserved: Cycles) -> UserError {
    advised_nowhere(
        ErrorCode::ReservedCyclesLimitIsTooLow,
        format!(
            "Cannot set the reserved cycles limit {} below the reserved cycles balance of the canister {}.",
            grouped(limit.0),
            grouped(reserved.0)
        ),
        "Set the reserved cycles limit in the canister settings to a value that is at least the current reserved cycles \
         balance.",
        "reserved-cycles-limit-is-too-low",
    )
}

pub(crate) fn reserved_limit_exceeded(bytes: NumBytes, requested: Cycles, limit: Cycles) -> UserError {
    advised(
        ErrorCode::ReservedCyclesLimitExceededInMemoryGrow,
        format!(
            "Canister cannot grow memory by {bytes} bytes due to its reserved cycles limit. \
             The current limit ({}) would be exceeded by {}.",
            grouped(limit.0),
            grouped((requested - limit).0)
        ),
        RAISE_RESERVED_LIMIT,
        "reserved-cycles-limit-exceeded-in-memory-grow",
    )
}

pub(crate) fn creation_fee_missing(sent: Cycles, required: Cycles) -> UserError {
    advised(
        ErrorCode::InsufficientCyclesForCreateCanister,
        format!(
            "Creating a canister requires a fee of {} that is deducted from the canister's initial balance but only \
             {} cycles were received with the create_canister request.",
            grouped(required.0),
            grouped(sent.0)
        ),
        "Try sending more cycles with the request.",
        "create-canister-not-enough-cycles",
    )
}

/// Fewer cycles came with a call than its service costs.
pub(crate) fn request_underpaid(method: &str, sent: Cycles, required: Cycles) -> UserError {
    rejected(format!(
        "{method} request sent with {} cycles, but {} cycles are required.",
        grouped(sent.0),
        grouped(required.0)
    ))
}

pub(crate) fn chunk_store(message: impl std::fmt::Display) -> UserError {
    advised(
        ErrorCode::CanisterContractViolation,
        format!("Error from Wasm chunk store: {message}."),
        "Use the `stored_chunks` API to check which hashes are present or top up the canister if it is low on cycles.",
        "wasm-chunk-store-error",
    )
}

pub(crate) fn snapshot_not_found(canister: CanisterId, snapshot: &str) -> UserError {
    advised(
        ErrorCode::CanisterSnapshotNotFound,
        format!("Could not find the snapshot ID {snapshot} for canister {canister}."),
        "Use the `list_canister_snapshot` API to see which snapshots are present.",
        "canister-snapshot-not-found",
    )
}

pub(crate) fn invalid_payload(text: impl Into<String>) -> UserError {
    UserError::new(ErrorCode::InvalidManagementPayload, text)
}

pub(crate) fn rejected(text: impl Into<String>) -> UserError {
    UserError::new(ErrorCode::CanisterRejectedMessage, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_stands_in_a_second_line() {
        let id = CanisterId::from_index(0);
        assert_eq!(
            canister_not_empty(id).description,
            format!(
                "Canister {id} cannot be installed because the canister is not empty. Try installing with \
                 mode='reinstall' instead.\nCheck that you want to overwrite the canister and, if so, use \
                 mode='reinstall'. See documentation: \
                 https://internetcomputer.org/docs/current/references/execution-errors#canister-not-empty"
            )
        );
    }

    #[test]
    fn numbers_are_grouped_and_sizes_have_units() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_196_000_078_157_590), "1_196_000_078_157_590");
        assert_eq!(binary_unit(NumBytes(13 << 40)), "13.00 TiB");
        assert_eq!(binary_unit(NumBytes((509 << 30) + (1 << 29))), "509.50 GiB");
        assert_eq!(binary_unit(NumBytes(1000)), "1000 B");
    }
}
