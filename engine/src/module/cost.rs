//! What an instruction costs: the published table.
//!
//! Instructions that are not listed cost 1. The sizes of bulk operations are charged on top, at run time.

use super::accesses::accesses_memory;
use replicore_types::fees::WasmWidth;
use wasmparser::Operator;

/// The fixed cost of an instruction.
pub(super) fn cost(operator: &Operator<'_>, width: WasmWidth) -> u64 {
    use Operator::*;
    match operator {
        // Structure
        Block { .. } | Loop { .. } | Else | End => 0,
        If { .. } | Br { .. } | BrIf { .. } | BrTable { .. } => 2,

        // Calls
        ReturnCall { .. } => 3,
        Call { .. } => 5,
        ReturnCallIndirect { .. } => 6,
        CallIndirect { .. } => 10,

        // State outside the function
        GlobalGet { .. } | GlobalSet { .. } => 2,
        TableGet { .. } | TableSet { .. } => 5,
        TableSize { .. } => 100,
        TableGrow { .. } | MemoryGrow { .. } => 300,
        MemorySize { .. } => 20,
        MemoryCopy { .. } | MemoryFill { .. } | MemoryInit { .. } => 100,
        TableCopy { .. } | TableFill { .. } | TableInit { .. } => 100,
        DataDrop { .. } | ElemDrop { .. } => 300,
        RefIsNull => 5,
        RefFunc { .. } => 130,

        // Integers
        I32DivS | I32DivU | I32RemS | I32RemU | I64DivS | I64DivU | I64RemS | I64RemU => 10,

        // Floats
        F32Add | F32Sub | F32Mul | F32Ceil | F32Floor | F32Trunc | F32Nearest | F32Copysign => 2,
        F64Add | F64Sub | F64Mul | F64Ceil | F64Floor | F64Trunc | F64Nearest => 2,
        F32Eq | F32Ne | F32Lt | F32Gt | F32Le | F32Ge | F32Div => 3,
        F64Eq | F64Ne | F64Lt | F64Gt | F64Le | F64Ge | F64Copysign => 3,
        F32Sqrt | F64Div => 5,
        F64Sqrt => 8,
        F32Min | F32Max | F64Min | F64Max => 18,

        // Between integers and floats
        F32ConvertI32S | F32ConvertI64S | F64ConvertI32S | F64ConvertI64S => 3,
        F32ConvertI32U | F32ConvertI64U | F64ConvertI32U | F64ConvertI64U => 16,
        I32TruncF32S | I32TruncF32U | I32TruncF64S | I32TruncF64U => 20,
        I64TruncF32S | I64TruncF32U | I64TruncF64S | I64TruncF64U => 20,
        I32TruncSatF32S | I32TruncSatF32U | I32TruncSatF64S | I32TruncSatF64U => 20,
        I64TruncSatF32S | I64TruncSatF32U | I64TruncSatF64S | I64TruncSatF64U => 20,

        // Vectors of integers
        I8x16LtU | I8x16GtU | I16x8LtU | I16x8GtU | I32x4LtU | I32x4GtU => 2,
        I8x16ShrU | I16x8Shl | I16x8ShrS | I16x8ShrU | I32x4Shl | I32x4ShrS | I32x4ShrU | I64x2Shl | I64x2ShrU => 2,
        I16x8ExtMulHighI8x16S | I16x8ExtMulHighI8x16U | I32x4ExtMulLowI16x8S | I32x4ExtMulHighI16x8S => 2,
        I32x4ExtMulLowI16x8U | I32x4ExtMulHighI16x8U | I32x4Mul | I16x8ExtAddPairwiseI8x16U => 2,
        I8x16Shuffle { .. } | I8x16Popcnt | I8x16Shl | I8x16ShrS | I64x2ShrS | I32x4ExtAddPairwiseI16x8U => 3,
        I64x2Mul => 4,

        // Vectors of floats
        F32x4Ceil | F32x4Floor | F32x4Trunc | F32x4Nearest | F32x4Abs | F32x4Neg => 2,
        F64x2Ceil | F64x2Floor | F64x2Trunc | F64x2Nearest | F64x2Abs | F64x2Neg => 2,
        F32x4Add | F32x4Sub | F32x4Mul | F64x2Add | F64x2Sub | F64x2Mul => 2,
        I32x4TruncSatF32x4S | I32x4TruncSatF64x2SZero => 2,
        I32x4TruncSatF64x2UZero => 3,
        F32x4Min | F32x4Max | F64x2Min | I32x4TruncSatF32x4U | F32x4ConvertI32x4U => 4,
        F32x4Sqrt | F64x2Max => 5,
        F32x4Div => 10,
        F64x2Div => 12,
        F64x2Sqrt => 14,

        _ if accesses_memory(operator) => match width {
            WasmWidth::Wasm32 => 1,
            WasmWidth::Wasm64 => 2,
        },
        _ => 1,
    }
}
