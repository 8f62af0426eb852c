//! Where lines are cut, and what each is charged.

use crate::module::metering::{Charge, Meter};
use crate::module::parsed::Parsed;
use std::fmt::Write;

/// `expected` lists the charges as `operator index: cost`, with `!` where the counter is also tested.
fn check(body: &str, expected: &str) {
    let wasm = wat::parse_str(format!(
        "(module (type $t (func)) (func (param i32) (local i32) {body}) (func $f) (memory 1) (table 1 funcref))"
    ))
    .unwrap();
    let parsed = Parsed::new(&wasm).unwrap();
    let mut meter = Meter::new(parsed.width());
    for operator in parsed.bodies[0].get_operators_reader().unwrap() {
        meter.add(&operator.unwrap());
    }
    let mut charges = String::new();
    let charges_something = |charge: &Charge| charge.cost > 0 || charge.reentrant;
    for charge in meter.finish().0.into_iter().filter(charges_something) {
        let test = if charge.reentrant { "!" } else { "" };
        write!(charges, "{}: {}{test}  ", charge.before, charge.cost).unwrap();
    }
    assert_eq!(charges.trim_end(), expected, "{body}");
}

#[test]
fn an_empty_function_costs_one() {
    check("", "0: 1!");
}

#[test]
fn a_straight_line_is_one_charge_and_calls_do_not_cut_it() {
    check("nop nop call $f nop", "0: 9!");
    check("(call_indirect (type $t) (i32.const 0)) nop", "0: 13!");
}

#[test]
fn blocks_are_cut_at_their_end_only() {
    check("(block nop nop) nop", "0: 3!  4: 1");
    check("(block (block nop) nop) nop", "0: 2!  4: 1  6: 1");
    check("nop (block) nop", "0: 2!  3: 1");
}

#[test]
fn loops_are_tested_at_their_head_even_where_they_are_free() {
    check("(loop) nop", "0: 1!  1: 0!  2: 1");
    check("(loop nop) nop", "0: 1!  1: 1!  3: 1");
    check("(loop (br_if 0 (local.get 0)) nop)", "0: 1!  1: 3!  3: 1");
}

#[test]
fn branches_of_an_if_are_charged_apart() {
    check(
        "(if (local.get 0) (then nop) (else nop nop)) nop",
        "0: 4!  2: 1  4: 2  7: 1",
    );
    check("(if (local.get 0) (then nop)) nop nop", "0: 4!  2: 1  4: 2");
}

#[test]
fn every_branch_ends_a_line() {
    check("(block (br_if 0 (local.get 0)) nop) nop", "0: 4!  3: 1  5: 1");
    check("(block (br 0) nop) nop", "0: 3!  2: 1  4: 1");
    check("(block (br_table 0 0 (local.get 0)) nop) nop", "0: 4!  3: 1  5: 1");
    check("(return) nop", "0: 2!  1: 1");
    check("unreachable nop", "0: 2!  1: 1");
    check("(return_call $f) nop", "0: 4!  1: 1");
    check("(return_call_indirect (type $t) (i32.const 0)) nop", "0: 8!  2: 1");
}

#[test]
fn bulk_operations_do_not_cut() {
    check("(memory.fill (i32.const 0) (i32.const 0) (i32.const 9)) nop", "0: 105!");
}
