//! Operations that can make a NaN, and the code that makes it the canonical one: `x == x ? x : NaN`.
//!
//! Moves, `neg`, `abs` and `copysign` work on bits and are left alone, `pmin` and `pmax` select one of their operands.
//! Both compiler tiers get the same code; where it stands, `nans` decides.

use wasm_encoder::{Encode, Instruction, ValType};
use wasmparser::Operator;

/// What a float operation gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FloatResult {
    F32,
    F64,
    F32x4,
    F64x2,
}

const NAN_32: u32 = 0x7fc0_0000;
const NAN_64: u64 = 0x7ff8_0000_0000_0000;

impl FloatResult {
    /// The result of an operation that can make a NaN; `None` for all others.
    pub fn of(operator: &Operator<'_>) -> Option<Self> {
        use Operator::*;
        match operator {
            F32Add | F32Sub | F32Mul | F32Div | F32Min | F32Max => Some(Self::F32),
            F32Ceil | F32Floor | F32Trunc | F32Nearest | F32Sqrt | F32DemoteF64 => Some(Self::F32),
            F64Add | F64Sub | F64Mul | F64Div | F64Min | F64Max => Some(Self::F64),
            F64Ceil | F64Floor | F64Trunc | F64Nearest | F64Sqrt | F64PromoteF32 => Some(Self::F64),
            F32x4Add | F32x4Sub | F32x4Mul | F32x4Div | F32x4Min | F32x4Max => Some(Self::F32x4),
            F32x4Ceil | F32x4Floor | F32x4Trunc | F32x4Nearest | F32x4Sqrt => Some(Self::F32x4),
            F32x4DemoteF64x2Zero => Some(Self::F32x4),
            F64x2Add | F64x2Sub | F64x2Mul | F64x2Div | F64x2Min | F64x2Max => Some(Self::F64x2),
            F64x2Ceil | F64x2Floor | F64x2Trunc | F64x2Nearest | F64x2Sqrt => Some(Self::F64x2),
            F64x2PromoteLowF32x4 => Some(Self::F64x2),
            _ => None,
        }
    }

    /// Type of the local that holds the result.
    pub fn ty(self) -> ValType {
        match self {
            Self::F32 => ValType::F32,
            Self::F64 => ValType::F64,
            Self::F32x4 | Self::F64x2 => ValType::V128,
        }
    }

    /// Replaces the NaN on top of the stack. `local` is free to use.
    pub fn canonicalise(self, local: u32, code: &mut Vec<u8>) {
        let both = i128::from(NAN_64) | i128::from(NAN_64) << 64;
        let four = (0..4).fold(0, |lanes, lane| lanes | i128::from(NAN_32) << (32 * lane));
        let (nan, equal, select) = match self {
            Self::F32 => (
                Instruction::F32Const(f32::from_bits(NAN_32).into()),
                Instruction::F32Eq,
                Instruction::Select,
            ),
            Self::F64 => (
                Instruction::F64Const(f64::from_bits(NAN_64).into()),
                Instruction::F64Eq,
                Instruction::Select,
            ),
            Self::F32x4 => (
                Instruction::V128Const(four),
                Instruction::F32x4Eq,
                Instruction::V128Bitselect,
            ),
            Self::F64x2 => (
                Instruction::V128Const(both),
                Instruction::F64x2Eq,
                Instruction::V128Bitselect,
            ),
        };
        let get = Instruction::LocalGet(local);
        for instruction in [Instruction::LocalTee(local), nan, get.clone(), get, equal, select] {
            instruction.encode(code);
        }
    }
}
