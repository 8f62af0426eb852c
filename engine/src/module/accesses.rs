//! Which operators read or write memory, those of vectors and lanes included.

use wasm_encoder::ValType;
use wasmparser::{MemArg, Operator};

/// True for loads and stores.
pub(super) fn accesses_memory(operator: &Operator<'_>) -> bool {
    accessed(operator).is_some()
}

/// True for stores.
pub(super) fn is_store(operator: &Operator<'_>) -> bool {
    stored(operator).is_some()
}

/// What a load or a store names besides its operands.
pub(super) fn accessed(operator: &Operator<'_>) -> Option<MemArg> {
    loaded(operator).or_else(|| stored(operator).map(|(_, memarg)| memarg))
}

/// What a load names besides its address.
pub(super) fn loaded(operator: &Operator<'_>) -> Option<MemArg> {
    use Operator::*;
    match operator {
        I32Load { memarg }
        | I64Load { memarg }
        | F32Load { memarg }
        | F64Load { memarg }
        | I32Load8S { memarg }
        | I32Load8U { memarg }
        | I32Load16S { memarg }
        | I32Load16U { memarg }
        | I64Load8S { memarg }
        | I64Load8U { memarg }
        | I64Load16S { memarg }
        | I64Load16U { memarg }
        | I64Load32S { memarg }
        | I64Load32U { memarg }
        | V128Load { memarg }
        | V128Load8x8S { memarg }
        | V128Load8x8U { memarg }
        | V128Load16x4S { memarg }
        | V128Load16x4U { memarg }
        | V128Load32x2S { memarg }
        | V128Load32x2U { memarg }
        | V128Load8Splat { memarg }
        | V128Load16Splat { memarg }
        | V128Load32Splat { memarg }
        | V128Load64Splat { memarg }
        | V128Load32Zero { memarg }
        | V128Load64Zero { memarg }
        | V128Load8Lane { memarg, .. }
        | V128Load16Lane { memarg, .. }
        | V128Load32Lane { memarg, .. }
        | V128Load64Lane { memarg, .. } => Some(*memarg),
        _ => None,
    }
}

/// Type of the value that a store takes, and what it names besides its operands.
pub(super) fn stored(operator: &Operator<'_>) -> Option<(ValType, MemArg)> {
    use Operator::*;
    let (ty, memarg) = match operator {
        I32Store { memarg } | I32Store8 { memarg } | I32Store16 { memarg } => (ValType::I32, memarg),
        I64Store { memarg } | I64Store8 { memarg } | I64Store16 { memarg } | I64Store32 { memarg } => {
            (ValType::I64, memarg)
        }
        F32Store { memarg } => (ValType::F32, memarg),
        F64Store { memarg } => (ValType::F64, memarg),
        V128Store { memarg }
        | V128Store8Lane { memarg, .. }
        | V128Store16Lane { memarg, .. }
        | V128Store32Lane { memarg, .. }
        | V128Store64Lane { memarg, .. } => (ValType::V128, memarg),
        _ => return None,
    };
    Some((ty, *memarg))
}
