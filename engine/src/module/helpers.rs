//! Functions that every instrumented module carries.

use super::rewrite::{Layout, MARK, MARKS_MEMORY, OS_PAGE_BITS};
use wasm_encoder::{BlockType, Function, Instruction, ValType};

/// `if counter < 0: refill()`
pub(super) fn counter_test(layout: Layout) -> [Instruction<'static>; 6] {
    [
        Instruction::GlobalGet(layout.counter),
        Instruction::I64Const(0),
        Instruction::I64LtS,
        Instruction::If(BlockType::Empty),
        Instruction::Call(layout.refill()),
        Instruction::End,
    ]
}

/// The helpers in the order of their indices: refill, charge, mark.
pub(super) fn helper_bodies(layout: Layout) -> [Function; 3] {
    [refill_body(layout), charge_body(layout), mark_body()]
}

/// `counter = out_of_instructions(counter)`
fn refill_body(layout: Layout) -> Function {
    let mut function = Function::new([]);
    function
        .instructions()
        .global_get(layout.counter)
        .call(layout.out_of_instructions)
        .global_set(layout.counter)
        .end();
    function
}

/// `charge(size)`: takes `size`, read as unsigned, from the counter. A counter that would wrap stops at the minimum.
fn charge_body(layout: Layout) -> Function {
    const SIZE: u32 = 0;
    const LEFT: u32 = 1;
    let mut function = Function::new([(1, ValType::I64)]);
    function
        .instructions()
        .global_get(layout.counter)
        .local_get(SIZE)
        .i64_sub()
        .local_tee(LEFT)
        .global_get(layout.counter)
        .i64_gt_s()
        .if_(BlockType::Empty)
        .i64_const(i64::MIN)
        .local_set(LEFT)
        .end()
        .local_get(LEFT)
        .global_set(layout.counter);
    for instruction in counter_test(layout) {
        function.instruction(&instruction);
    }
    function.instructions().end();
    function
}

/// `mark(start, size)`: marks the pages of a range that was just written. Most ranges are short, so the ends are
/// marked one by one and only what lies between is filled.
fn mark_body() -> Function {
    const START: u32 = 0;
    const SIZE: u32 = 1;
    const FIRST: u32 = 2;
    const BETWEEN: u32 = 3;
    let mut function = Function::new([(2, ValType::I32)]);
    function
        .instructions()
        .local_get(SIZE)
        .i64_eqz()
        .if_(BlockType::Empty)
        .return_()
        .end()
        // first = start >> 12; marks[first] = 1
        .local_get(START)
        .i64_const(OS_PAGE_BITS.into())
        .i64_shr_u()
        .i32_wrap_i64()
        .local_tee(FIRST)
        .i32_const(1)
        .i32_store8(MARK)
        // last = (start + size - 1) >> 12; marks[last] = 1; between = last - first
        .local_get(START)
        .local_get(SIZE)
        .i64_add()
        .i64_const(1)
        .i64_sub()
        .i64_const(OS_PAGE_BITS.into())
        .i64_shr_u()
        .i32_wrap_i64()
        .local_tee(BETWEEN)
        .i32_const(1)
        .i32_store8(MARK)
        .local_get(BETWEEN)
        .local_get(FIRST)
        .i32_sub()
        .local_tee(BETWEEN)
        .i32_const(1)
        .i32_gt_u()
        .if_(BlockType::Empty)
        .local_get(FIRST)
        .i32_const(1)
        .local_get(BETWEEN)
        .memory_fill(MARKS_MEMORY)
        .end()
        .end();
    function
}
