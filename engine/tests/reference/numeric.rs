//! Operators that only compute. Values are bits: 32-bit ones in the lower half, the rest zero.

use super::machine::Ending;
use wasmparser::Operator;

const NAN_32: u32 = 0x7fc0_0000;
const NAN_64: u64 = 0x7ff8_0000_0000_0000;

/// Arithmetic gives the canonical NaN, whatever the NaNs that it was given.
fn single(value: f32) -> u64 {
    u64::from(if value.is_nan() { NAN_32 } else { value.to_bits() })
}

fn double(value: f64) -> u64 {
    if value.is_nan() { NAN_64 } else { value.to_bits() }
}

fn as_f32(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn as_f64(bits: u64) -> f64 {
    f64::from_bits(bits)
}

fn min(a: f64, b: f64) -> f64 {
    match (a.is_nan() || b.is_nan(), a == b) {
        (true, _) => f64::NAN,
        // Zeros of either sign are equal.
        (_, true) if a.is_sign_negative() => a,
        (_, true) => b,
        _ if a < b => a,
        _ => b,
    }
}

fn max(a: f64, b: f64) -> f64 {
    -min(-a, -b)
}

/// The integer part of a float that is an open interval's: what a trapping conversion accepts.
fn truncated(value: f64, above: f64, below: f64) -> Result<f64, Ending> {
    if value.is_nan() {
        return Err(Ending::OtherTrap);
    }
    let value = value.trunc();
    if value > above && value < below {
        Ok(value)
    } else {
        Err(Ending::OtherTrap)
    }
}

const TWO_31: f64 = 2_147_483_648.0;
const TWO_32: f64 = 4_294_967_296.0;
const TWO_63: f64 = 9_223_372_036_854_775_808.0;
const TWO_64: f64 = 18_446_744_073_709_551_616.0;
/// The next double below -2^63.
const BELOW_MINUS_TWO_63: f64 = -9_223_372_036_854_777_856.0;

fn to_i32(value: f64) -> Result<u64, Ending> {
    Ok(u64::from(truncated(value, -TWO_31 - 1.0, TWO_31)? as i32 as u32))
}

fn to_u32(value: f64) -> Result<u64, Ending> {
    Ok(u64::from(truncated(value, -1.0, TWO_32)? as u32))
}

fn to_i64(value: f64) -> Result<u64, Ending> {
    Ok(truncated(value, BELOW_MINUS_TWO_63, TWO_63)? as i64 as u64)
}

fn to_u64(value: f64) -> Result<u64, Ending> {
    Ok(truncated(value, -1.0, TWO_64)? as u64)
}

/// An operator with one operand; `None` where it is none.
pub fn unary(operator: &Operator<'_>, a: u64) -> Option<Result<u64, Ending>> {
    use Operator::*;
    let narrow = a as u32;
    let wide = |value: u32| u64::from(value);
    let value = match operator {
        I32Eqz => u64::from(narrow == 0),
        I64Eqz => u64::from(a == 0),
        I32Clz => wide(narrow.leading_zeros()),
        I32Ctz => wide(narrow.trailing_zeros()),
        I32Popcnt => wide(narrow.count_ones()),
        I64Clz => wide(a.leading_zeros()),
        I64Ctz => wide(a.trailing_zeros()),
        I64Popcnt => wide(a.count_ones()),
        I32Extend8S => wide(narrow as i8 as i32 as u32),
        I32Extend16S => wide(narrow as i16 as i32 as u32),
        I64Extend8S => a as i8 as i64 as u64,
        I64Extend16S => a as i16 as i64 as u64,
        I64Extend32S | I64ExtendI32S => a as i32 as i64 as u64,
        I64ExtendI32U | I32WrapI64 => wide(narrow),
        I32ReinterpretF32 | F32ReinterpretI32 | I64ReinterpretF64 | F64ReinterpretI64 => a,
        F32Abs => wide(narrow & !(1 << 31)),
        F32Neg => wide(narrow ^ (1 << 31)),
        F64Abs => a & !(1 << 63),
        F64Neg => a ^ (1 << 63),
        F32Ceil => single(as_f32(a).ceil()),
        F32Floor => single(as_f32(a).floor()),
        F32Trunc => single(as_f32(a).trunc()),
        F32Nearest => single(as_f32(a).round_ties_even()),
        F32Sqrt => single(as_f32(a).sqrt()),
        F64Ceil => double(as_f64(a).ceil()),
        F64Floor => double(as_f64(a).floor()),
        F64Trunc => double(as_f64(a).trunc()),
        F64Nearest => double(as_f64(a).round_ties_even()),
        F64Sqrt => double(as_f64(a).sqrt()),
        F32DemoteF64 => single(as_f64(a) as f32),
        F64PromoteF32 => double(f64::from(as_f32(a))),
        F32ConvertI32S => single(narrow as i32 as f32),
        F32ConvertI32U => single(narrow as f32),
        F32ConvertI64S => single(a as i64 as f32),
        F32ConvertI64U => single(a as f32),
        F64ConvertI32S => double(f64::from(narrow as i32)),
        F64ConvertI32U => double(f64::from(narrow)),
        F64ConvertI64S => double(a as i64 as f64),
        F64ConvertI64U => double(a as f64),
        I32TruncF32S => return Some(to_i32(as_f32(a).into())),
        I32TruncF32U => return Some(to_u32(as_f32(a).into())),
        I32TruncF64S => return Some(to_i32(as_f64(a))),
        I32TruncF64U => return Some(to_u32(as_f64(a))),
        I64TruncF32S => return Some(to_i64(as_f32(a).into())),
        I64TruncF32U => return Some(to_u64(as_f32(a).into())),
        I64TruncF64S => return Some(to_i64(as_f64(a))),
        I64TruncF64U => return Some(to_u64(as_f64(a))),
        I32TruncSatF32S => wide(as_f32(a) as i32 as u32),
        I32TruncSatF32U => wide(as_f32(a) as u32),
        I32TruncSatF64S => wide(as_f64(a) as i32 as u32),
        I32TruncSatF64U => wide(as_f64(a) as u32),
        I64TruncSatF32S => as_f32(a) as i64 as u64,
        I64TruncSatF32U => as_f32(a) as u64,
        I64TruncSatF64S => as_f64(a) as i64 as u64,
        I64TruncSatF64U => as_f64(a) as u64,
        _ => return None,
    };
    Some(Ok(value))
}

/// An operator with two operands; `None` where it is none.
pub fn binary(operator: &Operator<'_>, a: u64, b: u64) -> Option<Result<u64, Ending>> {
    narrow_integers(operator, a as u32, b as u32)
        .or_else(|| wide_integers(operator, a, b))
        .or_else(|| floats(operator, a, b).map(Ok))
}

fn narrow_integers(operator: &Operator<'_>, a: u32, b: u32) -> Option<Result<u64, Ending>> {
    use Operator::*;
    let (signed_a, signed_b) = (a as i32, b as i32);
    let value = match operator {
        I32Add => a.wrapping_add(b),
        I32Sub => a.wrapping_sub(b),
        I32Mul => a.wrapping_mul(b),
        I32And => a & b,
        I32Or => a | b,
        I32Xor => a ^ b,
        I32Shl => a.wrapping_shl(b),
        I32ShrS => signed_a.wrapping_shr(b) as u32,
        I32ShrU => a.wrapping_shr(b),
        I32Rotl => a.rotate_left(b % 32),
        I32Rotr => a.rotate_right(b % 32),
        I32Eq => u32::from(a == b),
        I32Ne => u32::from(a != b),
        I32LtS => u32::from(signed_a < signed_b),
        I32LtU => u32::from(a < b),
        I32GtS => u32::from(signed_a > signed_b),
        I32GtU => u32::from(a > b),
        I32LeS => u32::from(signed_a <= signed_b),
        I32LeU => u32::from(a <= b),
        I32GeS => u32::from(signed_a >= signed_b),
        I32GeU => u32::from(a >= b),
        I32DivS | I32DivU | I32RemS | I32RemU if b == 0 => return Some(Err(Ending::DivisionByZero)),
        I32DivS => match signed_a.checked_div(signed_b) {
            Some(quotient) => quotient as u32,
            None => return Some(Err(Ending::OtherTrap)),
        },
        I32DivU => a / b,
        I32RemS => signed_a.wrapping_rem(signed_b) as u32,
        I32RemU => a % b,
        _ => return None,
    };
    Some(Ok(u64::from(value)))
}

fn wide_integers(operator: &Operator<'_>, a: u64, b: u64) -> Option<Result<u64, Ending>> {
    use Operator::*;
    let (signed_a, signed_b) = (a as i64, b as i64);
    let value = match operator {
        I64Add => a.wrapping_add(b),
        I64Sub => a.wrapping_sub(b),
        I64Mul => a.wrapping_mul(b),
        I64And => a & b,
        I64Or => a | b,
        I64Xor => a ^ b,
        I64Shl => a.wrapping_shl(b as u32),
        I64ShrS => signed_a.wrapping_shr(b as u32) as u64,
        I64ShrU => a.wrapping_shr(b as u32),
        I64Rotl => a.rotate_left((b % 64) as u32),
        I64Rotr => a.rotate_right((b % 64) as u32),
        I64Eq => u64::from(a == b),
        I64Ne => u64::from(a != b),
        I64LtS => u64::from(signed_a < signed_b),
        I64LtU => u64::from(a < b),
        I64GtS => u64::from(signed_a > signed_b),
        I64GtU => u64::from(a > b),
        I64LeS => u64::from(signed_a <= signed_b),
        I64LeU => u64::from(a <= b),
        I64GeS => u64::from(signed_a >= signed_b),
        I64GeU => u64::from(a >= b),
        I64DivS | I64DivU | I64RemS | I64RemU if b == 0 => return Some(Err(Ending::DivisionByZero)),
        I64DivS => match signed_a.checked_div(signed_b) {
            Some(quotient) => quotient as u64,
            None => return Some(Err(Ending::OtherTrap)),
        },
        I64DivU => a / b,
        I64RemS => signed_a.wrapping_rem(signed_b) as u64,
        I64RemU => a % b,
        _ => return None,
    };
    Some(Ok(value))
}

fn floats(operator: &Operator<'_>, a: u64, b: u64) -> Option<u64> {
    use Operator::*;
    let (s, t) = (as_f32(a), as_f32(b));
    let (x, y) = (as_f64(a), as_f64(b));
    Some(match operator {
        F32Add => single(s + t),
        F32Sub => single(s - t),
        F32Mul => single(s * t),
        F32Div => single(s / t),
        F32Min => single(min(s.into(), t.into()) as f32),
        F32Max => single(max(s.into(), t.into()) as f32),
        F32Copysign => u64::from(a as u32 & !(1 << 31) | b as u32 & 1 << 31),
        F32Eq => u64::from(s == t),
        F32Ne => u64::from(s != t),
        F32Lt => u64::from(s < t),
        F32Gt => u64::from(s > t),
        F32Le => u64::from(s <= t),
        F32Ge => u64::from(s >= t),
        F64Add => double(x + y),
        F64Sub => double(x - y),
        F64Mul => double(x * y),
        F64Div => double(x / y),
        F64Min => double(min(x, y)),
        F64Max => double(max(x, y)),
        F64Copysign => a & !(1 << 63) | b & 1 << 63,
        F64Eq => u64::from(x == y),
        F64Ne => u64::from(x != y),
        F64Lt => u64::from(x < y),
        F64Gt => u64::from(x > y),
        F64Le => u64::from(x <= y),
        F64Ge => u64::from(x >= y),
        _ => return None,
    })
}
