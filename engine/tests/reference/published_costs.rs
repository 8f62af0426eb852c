//! The published cost of an operator, by its name in the text format's sense; what is not listed costs 1.

use wasmparser::Operator;

/// Names as `Operator` prints them, with their cost.
const COSTS: &[(u64, &str)] = &[
    (0, "Block Loop Else End"),
    (2, "If Br BrIf BrTable GlobalGet GlobalSet"),
    (5, "Call"),
    (10, "CallIndirect"),
    (20, "MemorySize"),
    (100, "MemoryCopy MemoryFill MemoryInit"),
    (300, "MemoryGrow DataDrop ElemDrop"),
    (10, "I32DivS I32DivU I32RemS I32RemU I64DivS I64DivU I64RemS I64RemU"),
    (
        2,
        "F32Add F32Sub F32Mul F32Ceil F32Floor F32Trunc F32Nearest F32Copysign",
    ),
    (2, "F64Add F64Sub F64Mul F64Ceil F64Floor F64Trunc F64Nearest"),
    (3, "F32Eq F32Ne F32Lt F32Gt F32Le F32Ge F32Div"),
    (3, "F64Eq F64Ne F64Lt F64Gt F64Le F64Ge F64Copysign"),
    (5, "F32Sqrt F64Div"),
    (8, "F64Sqrt"),
    (18, "F32Min F32Max F64Min F64Max"),
    (3, "F32ConvertI32S F32ConvertI64S F64ConvertI32S F64ConvertI64S"),
    (16, "F32ConvertI32U F32ConvertI64U F64ConvertI32U F64ConvertI64U"),
    (20, "I32TruncF32S I32TruncF32U I32TruncF64S I32TruncF64U"),
    (20, "I64TruncF32S I64TruncF32U I64TruncF64S I64TruncF64U"),
    (20, "I32TruncSatF32S I32TruncSatF32U I32TruncSatF64S I32TruncSatF64U"),
    (20, "I64TruncSatF32S I64TruncSatF32U I64TruncSatF64S I64TruncSatF64U"),
];

/// What a call of `performance_counter` costs besides the `call`.
pub const PERFORMANCE_COUNTER: u64 = 200;
/// What a call of `msg_reply` costs besides the `call`.
pub const MSG_REPLY: u64 = 500;
/// Entering a function.
pub const ENTRY: u64 = 1;

/// What a changed page of the heap costs at the end of a message.
pub fn changed_page(memory64: bool) -> u64 {
    if memory64 { 4_000 } else { 1_000 }
}

/// The cost of one operator; accesses of 64-bit memories cost 2.
pub fn cost(operator: &Operator<'_>, memory64: bool) -> u64 {
    let printed = format!("{operator:?}");
    let name = printed.split([' ', '{', '(']).next().unwrap_or_default();
    if memory64 && (name.contains("Load") || name.contains("Store")) {
        return 2;
    }
    let listed = COSTS
        .iter()
        .find(|(_, names)| names.split(' ').any(|listed| listed == name));
    listed.map_or(1, |(cost, _)| *cost)
}

/// True where a straight line ends behind the operator.
pub fn ends_line(operator: &Operator<'_>) -> bool {
    use Operator::*;
    matches!(
        operator,
        Loop { .. } | If { .. } | Else | End | Br { .. } | BrIf { .. } | BrTable { .. } | Return | Unreachable
    )
}
