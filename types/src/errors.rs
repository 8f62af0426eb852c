//! What can go wrong for a user, in the protocol's numbers.
//!
//! An error code has three digits; the first is the reject code that canisters and agents see, so that the two can
//! never disagree. Replies print it as `IC0nnn`.

use crate::limits::ERROR_DESCRIPTION_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The class of a rejection (interface specification, "Reject codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum RejectCode {
    /// Fatal system error, retrying is unlikely to help.
    SysFatal = 1,
    /// Transient system error, retrying might help.
    SysTransient = 2,
    /// The destination does not exist.
    DestinationInvalid = 3,
    /// The canister rejected explicitly.
    CanisterReject = 4,
    /// The canister failed: trapped, did not reply, broke a rule.
    CanisterError = 5,
    /// It is not known what became of a best-effort call.
    SysUnknown = 6,
}

impl RejectCode {
    /// The reject code with this number, if there is one.
    pub const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::SysFatal,
            2 => Self::SysTransient,
            3 => Self::DestinationInvalid,
            4 => Self::CanisterReject,
            5 => Self::CanisterError,
            6 => Self::SysUnknown,
            _ => return None,
        })
    }
}

/// A protocol error code; the constants of this type are all there are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ErrorCode(u16);

macro_rules! error_codes {
    ($($number:literal $name:ident $meaning:literal)*) => {
        #[expect(non_upper_case_globals, reason = "they read as the variants of the protocol's enumeration")]
        impl ErrorCode {
            $(#[doc = $meaning] pub const $name: Self = Self($number);)*

            /// Every code, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The protocol's name of the code.
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => stringify!($name),)*
                    _ => "Unknown",
                }
            }
        }
    };
}

error_codes! {
    101 SubnetOversubscribed "The subnet has no memory or compute left to promise."
    102 MaxNumberOfCanistersReached "The subnet hosts as many canisters as it may."
    199 CallNotAdmitted "The operator's admission policy denies the call. Ours: no state ever holds it."
    201 CanisterQueueFull "The queue to the canister is full."
    202 IngressMessageTimeout "The message expired before it was executed."
    203 CanisterQueueNotEmpty "The canister's queues must be empty for this."
    204 IngressHistoryFull "The ingress history is full."
    205 CanisterIdAlreadyExists "The requested canister id is taken."
    206 StopCanisterRequestTimeout "The canister did not stop within five minutes."
    207 CanisterOutOfCycles "The canister cannot pay and keep its freezing threshold."
    208 CertifiedStateUnavailable "No certified state exists yet."
    209 CanisterInstallCodeRateLimited "The canister installed too much code of late."
    210 CanisterHeapDeltaRateLimited "The canister wrote too much memory of late."
    301 CanisterNotFound "No such canister."
    305 CanisterSnapshotNotFound "No such snapshot of the canister."
    402 InsufficientMemoryAllocation "The memory allocation is below what the canister uses."
    403 InsufficientCyclesForCreateCanister "The creation fee is not covered."
    404 SubnetNotFound "No such subnet."
    405 CanisterNotHostedBySubnet "The canister lives on another subnet."
    406 CanisterRejectedMessage "The canister rejected the message."
    407 UnknownManagementMessage "The management canister has no such method."
    408 InvalidManagementPayload "The argument of a management method does not decode or breaks a rule."
    409 CanisterSnapshotImmutable "The snapshot cannot be changed."
    410 CanisterSnapshotMutable "The snapshot is not in a state that allows this."
    502 CanisterTrapped "The Wasm code trapped."
    503 CanisterCalledTrap "The canister called `ic0.trap`."
    504 CanisterContractViolation "The canister broke a rule of the System API."
    505 CanisterInvalidWasm "The module breaks a rule for canister modules."
    506 CanisterDidNotReply "The call ended without a reply."
    507 CanisterOutOfMemory "The canister grew beyond what it or the subnet may use."
    508 CanisterStopped "The canister is stopped."
    509 CanisterStopping "The canister is stopping."
    510 CanisterNotStopped "The canister must be stopped for this."
    511 CanisterStoppingCancelled "A start cancelled the stop."
    512 CanisterInvalidController "Only controllers may do this."
    513 CanisterFunctionNotFound "A callback names a function that the table does not hold."
    514 CanisterNonEmpty "The canister already has code."
    517 QueryCallGraphLoopDetected "A composite query called itself."
    520 InsufficientCyclesInCall "The call carried too few cycles."
    521 CanisterWasmEngineError "The Wasm engine refused the module."
    522 CanisterInstructionLimitExceeded "The message used more instructions than it may."
    524 CanisterMemoryAccessLimitExceeded "The message touched more memory than it may."
    525 QueryCallGraphTooDeep "The composite query's calls nest too deep."
    526 QueryCallGraphTotalInstructionLimitExceeded "The composite query used more instructions in all than it may."
    527 CompositeQueryCalledInReplicatedMode "A composite query cannot be called as an update."
    528 QueryTimeLimitExceeded "The composite query took too long."
    529 QueryCallGraphInternal "The composite query could not be evaluated."
    530 InsufficientCyclesInComputeAllocation "The compute allocation cannot be paid for."
    531 InsufficientCyclesInMemoryAllocation "The memory allocation cannot be paid for."
    532 InsufficientCyclesInMemoryGrow "Growing memory would freeze the canister."
    533 ReservedCyclesLimitExceededInMemoryAllocation "The reservation for the allocation exceeds its limit."
    534 ReservedCyclesLimitExceededInMemoryGrow "The reservation for the growth exceeds its limit."
    535 InsufficientCyclesInMessageMemoryGrow "The memory of the message would freeze the canister."
    536 CanisterMethodNotFound "The canister has no such method."
    537 CanisterWasmModuleNotFound "The canister has no code."
    538 CanisterAlreadyInstalled "The canister already has code."
    539 CanisterWasmMemoryLimitExceeded "The Wasm heap would exceed `wasm_memory_limit`."
    540 ReservedCyclesLimitIsTooLow "The reserved cycles limit is below what is reserved."
    541 CanisterSnapshotTransformFailed "The snapshot could not be converted."
    601 DeadlineExpired "The deadline of a best-effort call passed."
    602 ResponseDropped "The response of a best-effort call was dropped."
}

impl ErrorCode {
    /// The number: 502 for `IC0502`.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The code with this number, if there is one.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.0 == number)
    }

    /// The reject code that goes with the error: its hundreds digit.
    pub const fn reject_code(self) -> RejectCode {
        match RejectCode::from_number((self.0 / 100) as u64) {
            Some(code) => code,
            None => RejectCode::SysFatal,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IC{:04}", self.0)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}({})", self.name())
    }
}

/// An error that a user caused and a user reads: a protocol code and a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UserError {
    /// The protocol's code.
    pub code: ErrorCode,
    /// The text, at most [`ERROR_DESCRIPTION_BYTES_MAX`] bytes.
    pub description: String,
}

impl UserError {
    /// An error with this text; a longer one is cut in the middle.
    pub fn new(code: ErrorCode, description: impl Into<String>) -> Self {
        Self {
            code,
            description: ellipsize(description.into(), ERROR_DESCRIPTION_BYTES_MAX),
        }
    }

    /// The reject code that goes with the error.
    pub const fn reject_code(&self) -> RejectCode {
        self.code.reject_code()
    }
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.description)
    }
}

impl std::error::Error for UserError {}

/// `text` in at most `bytes_max` bytes: the first and the last half are kept, `...` stands for the rest.
pub(crate) fn ellipsize(text: String, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text;
    }
    let kept = bytes_max.saturating_sub(3);
    let mut head = kept / 2;
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    let mut tail = text.len() - (kept - kept / 2);
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    format!("{}...{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_ascending_and_map_to_their_class() {
        assert!(ErrorCode::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(ErrorCode::CanisterTrapped.to_string(), "IC0502");
        assert_eq!(ErrorCode::CanisterTrapped.reject_code(), RejectCode::CanisterError);
        assert_eq!(ErrorCode::from_number(601), Some(ErrorCode::DeadlineExpired));
        assert_eq!(ErrorCode::from_number(999), None);
    }

    #[test]
    fn long_descriptions_are_cut_in_the_middle_at_character_boundaries() {
        let cut = ellipsize("ä".repeat(100), 21);
        assert_eq!(cut.len(), 3 + 8 + 8);
        assert!(cut.contains("..."));
    }
}
