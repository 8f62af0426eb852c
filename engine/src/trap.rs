//! Why executions fail: one type, and the one place that gives a failure its protocol code and its text.
//!
//! The texts are part of what users see and tools match on, endings included: where the advice is empty the text has
//! neither a full stop of its own nor a second line.

use crate::module::FrameName;
use replicore_types::{CanisterId, Cycles, ErrorCode, NumBytes, UserError};

/// Frames that a backtrace shows.
pub(crate) const BACKTRACE_FRAMES_MAX: usize = 20;

const DOCUMENTATION: &str = "https://internetcomputer.org/docs/current/references/execution-errors#";
const TOOLCHAIN_ADVICE: &str = "If you are running this canister in a test environment (e.g., dfx), make sure the test \
    environment is up to date. Otherwise, this is likely an error with the compiler/CDK toolchain being used to build \
    the canister. Please report the error to IC devs on the forum: https://forum.dfinity.org and include which \
    language/CDK was used to create the canister.";

/// What the Wasm code itself did wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrapCode {
    StackOverflow,
    HeapOutOfBounds,
    StableMemoryOutOfBounds,
    StableMemoryTooBigFor32Bit,
    IntegerDivisionByZero,
    Unreachable,
    TableOutOfBounds,
    CyclesAmountTooBigFor64Bit,
    Other,
}

impl TrapCode {
    /// What error texts call it.
    fn text(self) -> &'static str {
        match self {
            Self::StackOverflow => "stack overflow",
            Self::HeapOutOfBounds => "heap out of bounds",
            Self::StableMemoryOutOfBounds => "stable memory out of bounds",
            Self::StableMemoryTooBigFor32Bit => "32 bit stable memory api used on a memory larger than 4GB",
            Self::IntegerDivisionByZero => "integer division by 0",
            Self::Unreachable => "unreachable",
            Self::TableOutOfBounds => "table out of bounds",
            Self::CyclesAmountTooBigFor64Bit => "cycles amount exceeds 64-bit representation",
            Self::Other => "unknown",
        }
    }
}

/// The second line of an error text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Nothing more is said, and no full stop is added.
    None,
    /// The compiler or the CDK is to blame.
    Toolchain,
    /// A sentence for the developer, and the anchor in the documentation.
    User(&'static str, &'static str),
    /// A sentence for the developer, and a link that leads nowhere.
    Undocumented(&'static str),
}

const TRAPPED_ADVICE: &str =
    "Consider gracefully handling failures from this canister or altering the canister to handle exceptions.";
const WRONG_MODE: Advice = Advice::User(
    "Check the ICP documentation to make sure APIs are being called in the correct message types.",
    "calling-a-system-api-from-the-wrong-mode",
);
const TRAPPED: Advice = Advice::User(TRAPPED_ADVICE, "trapped");
const TRAPPED_EXPLICITLY: Advice = Advice::User(TRAPPED_ADVICE, "trapped-explicitly");
const LIMIT_EXCEEDED: Advice = Advice::User(
    "Try optimizing this method to consume fewer instructions or split the work across multiple messages.",
    "instruction-limit-exceeded",
);
const SLICE_OVERRUN: Advice = Advice::User(
    "Try breaking up large copies within the canister code into smaller chunks.",
    "slice-overrun",
);
const WASM_MEMORY_LIMIT: Advice = Advice::User(
    "Try checking the canister for a possible memory leak or modifying it to use more stable memory instead of Wasm \
     memory.",
    "wasm-memory-limit-exceeded",
);
const METHOD_NOT_FOUND: Advice = Advice::User(
    "Check that the method being called is exported by the target canister.",
    "method-not-found",
);
const OUT_OF_MEMORY: Advice = Advice::User(
    "Check the canister's memory usage against its allocation and the system wide limits to determine why more memory \
     cannot be allocated.",
    "out-of-memory",
);
const MEMORY_ACCESS_LIMIT: Advice = Advice::User(
    "Try optimizing the use of stable memory so that individual messages don't need to access as much stable memory.",
    "memory-access-limit-exceeded",
);
const INSUFFICIENT_CYCLES_GROW: Advice =
    Advice::User("Try topping up the canister.", "insufficient-cycles-in-memory-grow");
const RESERVED_CYCLES_GROW: Advice = Advice::User(
    "Try increasing the canister's reserved cycles limit.",
    "reserved-cycles-limit-exceeded-in-memory-grow",
);
/// For payloads that are larger than a call may carry; the missing full stop is the protocol's.
pub(crate) const PAYLOAD_TOO_LARGE: Advice = Advice::User(
    "Check the canister for errors or redesign the target API to allow shorter messages",
    "canister-made-a-call-with-too-large-payload",
);
/// For method names that are longer than a call may carry.
pub(crate) const METHOD_NAME_TOO_LARGE: Advice = Advice::User(
    "Size of method_name {} exceeds the allowed limit of {}.",
    "canister-made-a-call-with-too-large-method-name",
);
/// For replies above their bound.
pub(crate) const REPLY_TOO_LARGE: Advice = Advice::User(
    "Consider checking the response size and returning an error if it is too long.",
    "msg_reply_data_append-payload-too-large",
);
/// For reject texts above their bound.
pub(crate) const REJECT_TOO_LARGE: Advice = Advice::User(
    "Try truncating the error messages that are too long.",
    "msg_reject-payload-too-large",
);
/// For names of environment variables that are no text; it points nowhere.
pub(crate) const VARIABLE_NAME_NOT_UTF8: Advice =
    Advice::Undocumented("Provide a valid UTF-8 string for the environment variable name.");
/// For certified data above its bound.
pub(crate) const CERTIFIED_DATA_TOO_LARGE: Advice = Advice::User(
    "Try certifying just the hash of your data instead of the full contents.",
    "certified_data_set-payload-too-large",
);

/// Every advice whose text may have to be taken off again, see [`cleanup_also_failed`].
const ALL_ADVICE: &[Advice] = &[
    Advice::Toolchain,
    WRONG_MODE,
    TRAPPED,
    TRAPPED_EXPLICITLY,
    LIMIT_EXCEEDED,
    SLICE_OVERRUN,
    WASM_MEMORY_LIMIT,
    METHOD_NOT_FOUND,
    OUT_OF_MEMORY,
    MEMORY_ACCESS_LIMIT,
    INSUFFICIENT_CYCLES_GROW,
    RESERVED_CYCLES_GROW,
    PAYLOAD_TOO_LARGE,
    METHOD_NAME_TOO_LARGE,
    REPLY_TOO_LARGE,
    REJECT_TOO_LARGE,
    VARIABLE_NAME_NOT_UTF8,
    CERTIFIED_DATA_TOO_LARGE,
];

impl Advice {
    /// What stands behind the text that the advice belongs to, in pieces.
    fn ending(self) -> [&'static str; 5] {
        match self {
            Self::None => [""; 5],
            Self::Toolchain => [".\n", TOOLCHAIN_ADVICE, "", "", ""],
            Self::User(sentence, anchor) => [".\n", sentence, " See documentation: ", DOCUMENTATION, anchor],
            Self::Undocumented(sentence) => [".\n", sentence, " See documentation: ", "", ""],
        }
    }
}

/// Why an execution failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The Wasm code trapped, or a System API function trapped for it.
    Trapped(TrapCode),
    /// `ic0.trap` with its text.
    CalledTrap(String),
    /// A rule of the System API was broken.
    Contract(String, Advice),
    /// A rule whose text names the canister or the subject itself.
    ContractInFull(String, Advice),
    /// A function that may not be called in this mode: its name as printed, and the mode.
    WrongMode(String, &'static str),
    /// All slices together are used up; the bound that is reported.
    InstructionLimit(u64),
    /// One operation used more than any slice can pay for.
    SliceOverrun { instructions: u64, limit: u64 },
    /// Closures name functions that the table does not hold.
    FunctionNotFound(u64),
    /// The kind and name of the method that does not exist.
    MethodNotFound(&'static str, String),
    /// More memory than the subnet or the allocation allows.
    OutOfMemory,
    /// The heap would exceed `wasm_memory_limit`.
    WasmMemoryLimit { bytes: NumBytes, limit: NumBytes },
    /// Growth would freeze the canister. `threshold` is told to controllers only.
    InsufficientCyclesInMemoryGrow { bytes: NumBytes, missing: Option<Cycles> },
    /// Growth would reserve more cycles than the limit.
    ReservedCyclesLimitInMemoryGrow {
        bytes: NumBytes,
        requested: Cycles,
        limit: Cycles,
    },
    /// More cycles attached than the balance can give.
    OutOfCycles(CanisterId),
    /// Stable memory: more pages touched than a message may.
    MemoryAccessLimit(String),
}

impl Failure {
    /// A broken rule of the System API that points at the toolchain.
    pub(crate) fn contract(text: impl Into<String>) -> Self {
        Self::Contract(text.into(), Advice::Toolchain)
    }

    /// True where the canister log gets a record of the failure.
    pub(crate) fn is_logged(&self) -> bool {
        matches!(self, Self::Trapped(_) | Self::CalledTrap(_))
    }

    /// The content of that record after `[TRAP]: `.
    pub(crate) fn log_text(&self, backtrace: &str) -> Option<String> {
        match self {
            Self::Trapped(code) => Some([code.text(), backtrace].concat()),
            Self::CalledTrap(text) if text.is_empty() => Some(["(no message)", backtrace].concat()),
            Self::CalledTrap(text) => Some([text, backtrace].concat()),
            _ => None,
        }
    }

    /// The error that the sender reads. `backtrace` is empty or starts with a line break.
    pub(crate) fn user_error(&self, backtrace: &str) -> UserError {
        let (code, mut text, advice) = self.parts(backtrace);
        let ending = advice.ending();
        text.reserve_exact(ending.iter().map(|piece| piece.len()).sum());
        ending.iter().for_each(|piece| text.push_str(piece));
        UserError::new(code, text)
    }

    fn parts(&self, backtrace: &str) -> (ErrorCode, String, Advice) {
        match self {
            Self::Trapped(code) => (
                ErrorCode::CanisterTrapped,
                ["Canister trapped: ", code.text(), backtrace].concat(),
                TRAPPED,
            ),
            Self::CalledTrap(text) => (
                ErrorCode::CanisterCalledTrap,
                ["Canister called `ic0.trap` with message: '", text, "'", backtrace].concat(),
                TRAPPED_EXPLICITLY,
            ),
            Self::Contract(text, advice) => (
                ErrorCode::CanisterContractViolation,
                format!("Canister violated contract: {text}"),
                *advice,
            ),
            Self::ContractInFull(text, advice) => (ErrorCode::CanisterContractViolation, text.clone(), *advice),
            Self::WrongMode(function, mode) => (
                ErrorCode::CanisterContractViolation,
                format!("Canister violated contract: \"{function}\" cannot be executed in {mode} mode"),
                WRONG_MODE,
            ),
            Self::InstructionLimit(limit) => (
                ErrorCode::CanisterInstructionLimitExceeded,
                [
                    "Canister exceeded the limit of ",
                    &limit.to_string(),
                    " instructions for single message execution.",
                ]
                .concat(),
                LIMIT_EXCEEDED,
            ),
            Self::SliceOverrun { instructions, limit } => (
                ErrorCode::CanisterInstructionLimitExceeded,
                format!(
                    "Canister attempted to perform a large memory operation that used {instructions} instructions and \
                     exceeded the slice limit {limit}."
                ),
                SLICE_OVERRUN,
            ),
            Self::FunctionNotFound(index) => (
                ErrorCode::CanisterFunctionNotFound,
                format!("Canister requested to invoke a non-existent Wasm function {index} from table 0"),
                Advice::Toolchain,
            ),
            Self::MethodNotFound(kind, name) => (
                ErrorCode::CanisterMethodNotFound,
                format!("Canister has no {kind} method '{name}'."),
                METHOD_NOT_FOUND,
            ),
            Self::OutOfCycles(canister) => (
                ErrorCode::CanisterContractViolation,
                format!("Canister {canister} is out of cycles"),
                Advice::None,
            ),
            Self::MemoryAccessLimit(text) => (
                ErrorCode::CanisterMemoryAccessLimitExceeded,
                format!("Canister exceeded memory access limits: {text}"),
                MEMORY_ACCESS_LIMIT,
            ),
            Self::OutOfMemory
            | Self::WasmMemoryLimit { .. }
            | Self::InsufficientCyclesInMemoryGrow { .. }
            | Self::ReservedCyclesLimitInMemoryGrow { .. } => self.memory_parts(),
        }
    }

    fn memory_parts(&self) -> (ErrorCode, String, Advice) {
        match self {
            Self::WasmMemoryLimit { bytes, limit } => (
                ErrorCode::CanisterWasmMemoryLimitExceeded,
                format!(
                    "Canister exceeded its current Wasm memory limit of {limit} bytes. The peak Wasm memory usage was \
                     {bytes} bytes. If the canister reaches 4GiB, then it may stop functioning and may become \
                     unrecoverable. Please reach out to the canister owner to investigate the reason for the \
                     increased memory usage. It might be necessary to move data from the Wasm memory to the stable \
                     memory. If such high Wasm memory usage is expected and safe, then the developer can increase the \
                     Wasm memory limit in the canister settings."
                ),
                WASM_MEMORY_LIMIT,
            ),
            Self::InsufficientCyclesInMemoryGrow { bytes, missing } => {
                let missing = missing
                    .map(|cycles| format!(" At least {} additional cycles are required.", grouped(cycles.get())))
                    .unwrap_or_default();
                (
                    ErrorCode::InsufficientCyclesInMemoryGrow,
                    format!("Canister cannot grow memory by {bytes} bytes due to insufficient cycles.{missing}"),
                    INSUFFICIENT_CYCLES_GROW,
                )
            }
            Self::ReservedCyclesLimitInMemoryGrow {
                bytes,
                requested,
                limit,
            } => (
                ErrorCode::ReservedCyclesLimitExceededInMemoryGrow,
                format!(
                    "Canister cannot grow memory by {bytes} bytes due to its reserved cycles limit. The current limit \
                     ({}) would be exceeded by {}.",
                    grouped(limit.get()),
                    grouped((*requested - *limit).get()),
                ),
                RESERVED_CYCLES_GROW,
            ),
            _ => (
                ErrorCode::CanisterOutOfMemory,
                "Canister cannot grow its memory usage.".to_string(),
                OUT_OF_MEMORY,
            ),
        }
    }
}

/// A number with underscores between thousands, as amounts of cycles are printed.
fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

/// The error of a callback whose cleanup failed too: the callback's code, both texts without their advice.
pub fn cleanup_also_failed(callback: &UserError, cleanup: &UserError) -> UserError {
    UserError::new(
        callback.code,
        format!(
            "{}\n\ncall_on_cleanup also failed:\n\n{}",
            without_advice(&callback.description),
            without_advice(&cleanup.description)
        ),
    )
}

fn without_advice(description: &str) -> &str {
    ALL_ADVICE
        .iter()
        .find_map(|advice| description.strip_suffix(advice.ending().concat().as_str()))
        .unwrap_or(description)
}

/// The text of a backtrace: `\nCanister Backtrace:\n` and one line a frame, innermost first; empty unless at least one
/// frame has a name. Texts are made for that case alone: it is the only one in which anybody reads them.
pub(crate) fn backtrace_text<'a>(frames: impl Iterator<Item = FrameName<'a>> + Clone) -> String {
    let mut text = String::new();
    if frames.clone().all(|frame| matches!(frame, FrameName::Unnamed(_))) {
        return text;
    }
    text.push_str("\nCanister Backtrace:\n");
    for frame in frames.take(BACKTRACE_FRAMES_MAX) {
        match frame {
            FrameName::Named(name) => text.push_str(name),
            FrameName::Unnamed(index) => {
                text.push_str("unknown function at index ");
                text.push_str(&index.to_string());
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_end_as_published() {
        let trapped = Failure::Trapped(TrapCode::Unreachable).user_error("");
        assert_eq!(
            trapped.description,
            "Canister trapped: unreachable.\nConsider gracefully handling failures from this canister or altering the \
             canister to handle exceptions. See documentation: \
             https://internetcomputer.org/docs/current/references/execution-errors#trapped"
        );
        let counter = Failure::Contract("Error getting performance counter type 2".into(), Advice::None);
        assert_eq!(
            counter.user_error("").description,
            "Canister violated contract: Error getting performance counter type 2"
        );
    }

    #[test]
    fn nested_errors_lose_their_advice() {
        let frames = [FrameName::Named("on_reply")].into_iter();
        let callback = Failure::Trapped(TrapCode::Unreachable).user_error(&backtrace_text(frames));
        let cleanup = Failure::WrongMode("ic0_call_new".into(), "cleanup").user_error("");
        assert_eq!(
            cleanup_also_failed(&callback, &cleanup).description,
            "Canister trapped: unreachable\nCanister Backtrace:\non_reply\n\n\ncall_on_cleanup also failed:\n\n\
             Canister violated contract: \"ic0_call_new\" cannot be executed in cleanup mode"
        );
    }

    #[test]
    fn backtraces_need_one_name() {
        let unnamed = FrameName::Unnamed;
        assert_eq!(backtrace_text([unnamed(7), unnamed(8)].into_iter()), "");
        assert_eq!(
            backtrace_text([FrameName::Named("f"), unnamed(19)].into_iter()),
            "\nCanister Backtrace:\nf\nunknown function at index 19\n"
        );
    }

    #[test]
    fn cycles_are_grouped() {
        assert_eq!(grouped(6_469_838), "6_469_838");
        assert_eq!(grouped(100), "100");
    }
}
