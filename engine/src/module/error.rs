//! Why a module is refused, in the words that users of the protocol know.

use replicore_types::{ErrorCode, UserError};
use std::fmt;

/// Where the published explanations of errors stand.
const DOCUMENTATION: &str = "https://internetcomputer.org/docs/current/references/execution-errors";

/// A refused module. The text of [`WasmError::error`] is what follows `Error from Canister <id>: ` in a reject.
///
/// What the attempt costs is [`super::refusal_charge`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WasmError {
    /// IC0505 or IC0521 and the full text.
    pub error: UserError,
}

/// What the last line of a refusal advises.
pub(super) enum Advice {
    /// The module was built wrongly: the toolchain is to blame.
    Toolchain,
    /// The user can do something: a sentence, and the anchor in the documentation.
    User(String, &'static str),
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Advice::Toolchain => f.write_str(
                "If you are running this canister in a test environment (e.g., dfx), make sure the test environment \
                 is up to date. Otherwise, this is likely an error with the compiler/CDK toolchain being used to \
                 build the canister. Please report the error to IC devs on the forum: https://forum.dfinity.org and \
                 include which language/CDK was used to create the canister.",
            ),
            Advice::User(sentence, anchor) => write!(f, "{sentence} See documentation: {DOCUMENTATION}#{anchor}"),
        }
    }
}

impl WasmError {
    /// A broken rule whose only cure is a better toolchain.
    pub(super) fn invalid(rule: impl fmt::Display) -> Self {
        Self::invalid_with(rule, Advice::Toolchain)
    }

    /// A broken rule. `rule` gets a full stop behind it even where it ends with one, as in production.
    pub(super) fn invalid_with(rule: impl fmt::Display, advice: Advice) -> Self {
        let text = format!("Canister's Wasm module is not valid: {rule}.\n{advice}");
        Self {
            error: UserError::new(ErrorCode::CanisterInvalidWasm, text),
        }
    }

    /// A module that is valid but cannot be prepared.
    pub(super) fn not_instrumentable(reason: impl fmt::Display) -> Self {
        let text = format!(
            "Could not instrument wasm module of canister: {reason}.\n{}",
            Advice::Toolchain
        );
        Self {
            error: UserError::new(ErrorCode::CanisterInvalidWasm, text),
        }
    }

    /// A module that the Wasm engine would refuse to compile or to instantiate.
    pub fn engine(reason: impl fmt::Display) -> Self {
        let text = format!("Canister encountered a Wasm engine error: Failed to instantiate module: {reason}");
        Self {
            error: UserError::new(ErrorCode::CanisterWasmEngineError, text),
        }
    }
}

impl fmt::Display for WasmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for WasmError {}
