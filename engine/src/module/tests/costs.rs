//! The cost table, operator by operator.

use crate::module::metering::Meter;
use crate::module::parsed::Parsed;

/// `operator: operands cost`. Operands are `i` i32, `l` i64, `f` f32, `d` f64, `v` v128, `p` an address, `r` a
/// function reference. A cost `1/2` is that of wasm32 and wasm64.
const TABLE: &str = "
    i32.const 1: 1, i64.const 1: 1, f32.const 1: 1, f64.const 1: 1, i32.add: ii 1, i32.mul: ii 1, i32.div_s: ii 10,
    i32.rem_u: ii 10, i64.sub: ll 1, i64.rotr: ll 1, i64.div_u: ll 10, i64.rem_s: ll 10, i32.eqz: i 1,
    i32.lt_u: ii 1, i64.ge_s: ll 1, i64.popcnt: l 1, i32.wrap_i64: l 1, i64.extend_i32_u: i 1, i64.extend32_s: l 1,
    i32.reinterpret_f32: f 1, f32.abs: f 1, f32.neg: f 1, f32.ceil: f 2, f32.floor: f 2, f32.trunc: f 2,
    f32.nearest: f 2, f32.sqrt: f 5, f32.add: ff 2, f32.sub: ff 2, f32.mul: ff 2, f32.div: ff 3, f32.min: ff 18,
    f32.max: ff 18, f32.copysign: ff 2, f32.eq: ff 3, f32.ge: ff 3, f64.abs: d 1, f64.nearest: d 2, f64.sqrt: d 8,
    f64.add: dd 2, f64.div: dd 5, f64.min: dd 18, f64.copysign: dd 3, f64.lt: dd 3, f32.convert_i32_s: i 3,
    f32.convert_i32_u: i 16, f64.convert_i64_s: l 3, f64.convert_i64_u: l 16, i32.trunc_f32_s: f 20,
    i64.trunc_f64_u: d 20, i32.trunc_sat_f64_s: d 20, i64.trunc_sat_f32_u: f 20, f32.demote_f64: d 1,
    f64.promote_f32: f 1, ref.func $f: 130, ref.null func: 1, ref.is_null: r 5, global.get $g: 2, memory.size: 20,
    memory.grow: p 300, table.size: 100, table.get: i 5, i32.load: p 1/2, i64.load16_s: p 1/2, f64.load: p 1/2,
    v128.load: p 1/2, v128.load32_splat: p 1/2, v128.load64_zero: p 1/2, v128.load8x8_s: p 1/2,
    v128.const i64x2 1 1: 1, i8x16.swizzle: vv 1, i8x16.eq: vv 1, i8x16.lt_s: vv 1, i8x16.lt_u: vv 2,
    i8x16.gt_u: vv 2, i8x16.le_u: vv 1, i16x8.lt_u: vv 2, i32x4.gt_u: vv 2, v128.not: v 1, v128.bitselect: vvv 1,
    v128.any_true: v 1, i8x16.popcnt: v 3, i8x16.shl: vi 3, i8x16.shr_s: vi 3, i8x16.shr_u: vi 2, i16x8.shl: vi 2,
    i16x8.shr_s: vi 2, i16x8.shr_u: vi 2, i32x4.shl: vi 2, i32x4.shr_s: vi 2, i32x4.shr_u: vi 2, i64x2.shl: vi 2,
    i64x2.shr_s: vi 3, i64x2.shr_u: vi 2, i16x8.mul: vv 1, i32x4.mul: vv 2, i64x2.mul: vv 4,
    i16x8.extmul_low_i8x16_s: vv 1, i16x8.extmul_high_i8x16_s: vv 2, i16x8.extmul_high_i8x16_u: vv 2,
    i32x4.extmul_low_i16x8_u: vv 2, i64x2.extmul_high_i32x4_s: vv 1, i32x4.dot_i16x8_s: vv 1,
    i16x8.extadd_pairwise_i8x16_s: v 1, i16x8.extadd_pairwise_i8x16_u: v 2, i32x4.extadd_pairwise_i16x8_u: v 3,
    i16x8.narrow_i32x4_s: vv 1, f32x4.abs: v 2, f32x4.ceil: v 2, f32x4.sqrt: v 5, f32x4.add: vv 2, f32x4.div: vv 10,
    f32x4.min: vv 4, f32x4.max: vv 4, f32x4.pmin: vv 1, f64x2.neg: v 2, f64x2.nearest: v 2, f64x2.sqrt: v 14,
    f64x2.mul: vv 2, f64x2.div: vv 12, f64x2.min: vv 4, f64x2.max: vv 5, f64x2.pmax: vv 1, f64x2.eq: vv 1,
    f32x4.lt: vv 1, i32x4.trunc_sat_f32x4_s: v 2, i32x4.trunc_sat_f32x4_u: v 4, f32x4.convert_i32x4_s: v 1,
    f32x4.convert_i32x4_u: v 4, i32x4.trunc_sat_f64x2_s_zero: v 2, i32x4.trunc_sat_f64x2_u_zero: v 3,
    f64x2.convert_low_i32x4_u: v 1, f32x4.demote_f64x2_zero: v 1, f64x2.promote_low_f32x4: v 1,
";

/// The same for operators without a result.
const WITHOUT_RESULT: &str = "
    drop: i 1, global.set $g: i 2, local.set 0: i 1, nop: 1, i32.store: pi 1/2, i64.store32: pl 1/2,
    f32.store: pf 1/2, v128.store: pv 1/2, v128.store16_lane 3: pv 1/2, memory.fill: pip 100, memory.copy: ppp 100,
    memory.init 0: pii 100, data.drop 0: 300, elem.drop 0: 300, call $f: 5, call_indirect (type $t): i 10,
    br_if 0: i 2, br 0: 2, return: 1, unreachable: 1, return_call $f: 3, return_call_indirect (type $t): i 6,
";

/// Operator, operands, cost in wasm32 and in wasm64.
fn cases(table: &str) -> impl Iterator<Item = (&str, &str, [u64; 2])> {
    table
        .split(',')
        .map(str::trim)
        .filter(|case| !case.is_empty())
        .map(|case| {
            let (operator, rest) = case.split_once(':').unwrap();
            let (operands, costs) = rest.trim().rsplit_once(' ').unwrap_or(("", rest.trim()));
            let (narrow, wide) = costs.split_once('/').unwrap_or((costs, costs));
            (operator, operands, [narrow.parse().unwrap(), wide.parse().unwrap()])
        })
}

/// The charge of the first line of a function with this body.
fn first_line(body: &str, address: &str) -> u64 {
    let wasm = wat::parse_str(format!(
        "(module (type $t (func)) (func (local i32) {body}) (func $f) (memory {address} 1) (table 1 funcref)
           (global $g (mut i32) (i32.const 0)) (data \"abc\") (elem func $f))"
    ))
    .unwrap();
    let parsed = Parsed::new(&wasm).unwrap();
    let mut meter = Meter::new(parsed.width());
    for operator in parsed.bodies[0].get_operators_reader().unwrap() {
        meter.add(&operator.unwrap());
    }
    meter.finish().0[0].cost
}

fn check(table: &str, dropped: bool) {
    for (operator, operands, costs) in cases(table) {
        for (address, expected) in ["i32", "i64"].into_iter().zip(costs) {
            let mut body: String = operands.chars().map(|operand| constant(operand, address)).collect();
            body += operator;
            if dropped {
                body += " drop";
            }
            // Entering the function, every operand and the drop cost 1 each.
            let around = 1 + operands.len() as u64 + u64::from(dropped);
            assert_eq!(
                first_line(&body, address),
                around + expected,
                "{body} with {address} addresses"
            );
        }
    }
}

fn constant(operand: char, address: &str) -> &str {
    match operand {
        'i' => "i32.const 1 ",
        'l' => "i64.const 1 ",
        'f' => "f32.const 1 ",
        'd' => "f64.const 1 ",
        'v' => "v128.const i64x2 1 1 ",
        'r' => "ref.null func ",
        _ if address == "i32" => "i32.const 1 ",
        _ => "i64.const 1 ",
    }
}

#[test]
fn operators_with_a_result() {
    check(TABLE, true);
}

#[test]
fn operators_without_a_result() {
    check(WITHOUT_RESULT, false);
}
