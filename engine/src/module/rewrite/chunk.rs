//! The code of loops whose turns are paid together, see [`super::super::chunks`].

use super::{Rewriter, Role};
use crate::module::chunks::{ChunkedLoop, Moving, Sum, TURNS_MAX};
use replicore_types::{OS_PAGE_BYTES, WASM_PAGE_BYTES};
use wasm_encoder::{BlockType, Instruction, ValType};

/// Turns from which on it is worth the preparation to pay them together.
const TURNS_MIN: i64 = 4;

impl Rewriter<'_> {
    /// Stands for the branch that goes back, with its condition on the stack. `cost` is that of a turn.
    pub(super) fn repeat(&mut self, chunked: &ChunkedLoop, cost: u64) {
        let counter = self.local(Role::Counter, ValType::I64);
        let turns = self.local(Role::Turns, ValType::I64);
        self.emit(&[Instruction::If(BlockType::Empty)]);
        self.count_turns(chunked, cost);
        self.emit(&[
            Instruction::LocalGet(turns),
            Instruction::I64Const(TURNS_MIN),
            Instruction::I64GeS,
            Instruction::If(BlockType::Empty),
        ]);
        self.pay(Instruction::I64Sub, cost);
        match chunked.clock {
            Some((clock, step)) => self.turns_by_clock(chunked, clock, step),
            None => self.turns_counted(chunked),
        }
        self.pay(Instruction::I64Add, cost);
        self.emit(&[
            Instruction::LocalGet(counter),
            Instruction::GlobalSet(self.layout.counter),
            Instruction::Else,
            Instruction::Br(2),
            Instruction::End,
            Instruction::End,
        ]);
    }

    /// Makes the turns; leaves by the branch where they were all made, or behind the code with `turns` left.
    fn turns_counted(&mut self, chunked: &ChunkedLoop) {
        let turns = self.local(Role::Turns, ValType::I64);
        self.emit(&[
            Instruction::Block(BlockType::Empty),
            Instruction::Loop(BlockType::Empty),
        ]);
        self.copy_line(chunked);
        self.emit(&[
            Instruction::LocalGet(turns),
            Instruction::I64Const(1),
            Instruction::I64Sub,
            Instruction::LocalSet(turns),
            Instruction::I32Eqz,
            Instruction::BrIf(1),
            Instruction::LocalGet(turns),
            Instruction::I64Const(0),
            Instruction::I64Ne,
            Instruction::BrIf(0),
            Instruction::End,
            // All turns were made: the next one is careful again.
            Instruction::Br(3),
            Instruction::End,
        ]);
    }

    /// The same with a local of the loop to tell when they were made, so that nothing is counted beside it.
    fn turns_by_clock(&mut self, chunked: &ChunkedLoop, clock: u32, step: i64) {
        let turns = self.local(Role::Turns, ValType::I64);
        let ty = self.layout.address();
        let stop = self.local(Role::Stop, ty);
        self.emit(&[
            Instruction::LocalGet(turns),
            Instruction::I64Const(step),
            Instruction::I64Mul,
        ]);
        let (add, differ) = match ty {
            ValType::I64 => (Instruction::I64Add, Instruction::I64Ne),
            _ => {
                self.emit(&[Instruction::I32WrapI64]);
                (Instruction::I32Add, Instruction::I32Ne)
            }
        };
        self.emit(&[
            Instruction::LocalGet(clock),
            add,
            Instruction::LocalSet(stop),
            Instruction::Block(BlockType::Empty),
            Instruction::Loop(BlockType::Empty),
        ]);
        self.copy_line(chunked);
        self.emit(&[
            Instruction::I32Eqz,
            Instruction::BrIf(1),
            Instruction::LocalGet(clock),
            Instruction::LocalGet(stop),
            differ,
            Instruction::BrIf(0),
            Instruction::End,
            // All turns were made: the next one is careful again.
            Instruction::Br(3),
            Instruction::End,
            Instruction::LocalGet(stop),
            Instruction::LocalGet(clock),
        ]);
        match ty {
            ValType::I64 => self.emit(&[Instruction::I64Sub]),
            _ => self.emit(&[Instruction::I32Sub, Instruction::I64ExtendI32S]),
        }
        self.emit(&[
            Instruction::I64Const(step),
            Instruction::I64DivS,
            Instruction::LocalSet(turns),
        ]);
    }

    /// `turns = ` those that can be paid together; what is not positive stands for none.
    ///
    /// Divisions are by the next power of two: too few turns are soon followed by more.
    fn count_turns(&mut self, chunked: &ChunkedLoop, cost: u64) {
        let counter = self.local(Role::Counter, ValType::I64);
        let turns = self.local(Role::Turns, ValType::I64);
        self.emit(&[
            Instruction::LocalGet(counter),
            Instruction::I64Const(logarithm(cost)),
            Instruction::I64ShrS,
            Instruction::LocalSet(turns),
            Instruction::I64Const(TURNS_MAX),
        ]);
        self.at_most(turns);
        for moving in &chunked.moving {
            let room = self.local(Role::Room, ValType::I64);
            if moving.is_store {
                self.turns_in_page(moving, room);
            } else {
                self.turns_in_memory(moving, room);
            }
            self.at_most(turns);
        }
    }

    /// `turns = min(turns, what is on the stack)`
    fn at_most(&mut self, turns: u32) {
        let room = self.local(Role::Room, ValType::I64);
        self.emit(&[
            Instruction::LocalTee(room),
            Instruction::LocalGet(turns),
            Instruction::LocalGet(room),
            Instruction::LocalGet(turns),
            Instruction::I64LtS,
            Instruction::Select,
            Instruction::LocalSet(turns),
        ]);
    }

    /// Turns in which loads stay inside the memory. The last address was inside, so that this one is at most a step
    /// outside and nothing overflows.
    fn turns_in_memory(&mut self, moving: &Moving, room: u32) {
        self.emit(&[Instruction::MemorySize(0)]);
        self.extend_to_i64(self.layout.address());
        self.emit(&[
            Instruction::I64Const(logarithm(WASM_PAGE_BYTES as u64)),
            Instruction::I64Shl,
            Instruction::I64Const(moving.end as i64),
            Instruction::I64Sub,
        ]);
        self.address(&moving.address);
        self.emit(&[Instruction::I64Sub, Instruction::LocalSet(room)]);
        self.steps(moving, room);
    }

    /// Turns in which stores stay inside the page that the last turn marked: none where they have come to another.
    fn turns_in_page(&mut self, moving: &Moving, room: u32) {
        let page_bytes = OS_PAGE_BYTES as i64;
        let in_page = self.local(Role::InPage, ValType::I64);
        self.address(&moving.address);
        self.emit(&[
            Instruction::I64Const(moving.offset as i64),
            Instruction::I64Add,
            Instruction::I64Const(page_bytes - 1),
            Instruction::I64And,
            Instruction::LocalSet(in_page),
            Instruction::I64Const(page_bytes - (moving.end - moving.offset) as i64),
            Instruction::LocalGet(in_page),
            Instruction::I64Sub,
            Instruction::LocalSet(room),
        ]);
        self.steps(moving, room);
        self.emit(&[
            Instruction::I64Const(0),
            Instruction::LocalGet(in_page),
            Instruction::I64Const(moving.step as i64),
            Instruction::I64GeU,
            Instruction::Select,
        ]);
    }

    /// Accesses with at most so many bytes between the first and the last.
    fn steps(&mut self, moving: &Moving, room: u32) {
        self.emit(&[
            Instruction::LocalGet(room),
            Instruction::I64Const(logarithm(moving.step)),
            Instruction::I64ShrS,
            Instruction::I64Const(1),
            Instruction::I64Add,
        ]);
    }

    /// The value of a sum now, unsigned. What moves has a local.
    fn address(&mut self, sum: &Sum) {
        let ty = self.layout.address();
        let constant = |number: u64| match ty {
            ValType::I64 => Instruction::I64Const(number as i64),
            _ => Instruction::I32Const(number as u32 as i32),
        };
        let (add, multiply) = match ty {
            ValType::I64 => (Instruction::I64Add, Instruction::I64Mul),
            _ => (Instruction::I32Add, Instruction::I32Mul),
        };
        for (number, (local, factor)) in sum.terms().enumerate() {
            self.emit(&[Instruction::LocalGet(local)]);
            if factor != 1 {
                self.emit(&[constant(factor), multiply.clone()]);
            }
            if number > 0 {
                self.emit(std::slice::from_ref(&add));
            }
        }
        if sum.constant != 0 {
            self.emit(&[constant(sum.constant), add]);
        }
        self.extend_to_i64(ty);
    }

    /// Takes the price of `turns` off the counter, or gives it back.
    fn pay(&mut self, direction: Instruction<'static>, cost: u64) {
        let counter = self.local(Role::Counter, ValType::I64);
        let turns = self.local(Role::Turns, ValType::I64);
        self.emit(&[
            Instruction::LocalGet(counter),
            Instruction::LocalGet(turns),
            Instruction::I64Const(cost as i64),
            Instruction::I64Mul,
            direction,
            Instruction::LocalSet(counter),
        ]);
    }

    /// The line as it was written, but for NaNs.
    fn copy_line(&mut self, chunked: &ChunkedLoop) {
        let mut start = chunked.start;
        for (index, end) in (chunked.head..).zip(&chunked.ends) {
            self.copy(start, *end);
            start = *end;
            if let Some(result) = self.source.canonicalised.get(&index).copied() {
                let local = self.local(Role::Float, result.ty());
                result.canonicalise(local, &mut self.code);
            }
        }
    }
}

/// The logarithm of the power of two that is not less.
fn logarithm(number: u64) -> i64 {
    i64::from(number.next_power_of_two().trailing_zeros())
}
