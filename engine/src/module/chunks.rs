//! Loops whose turns can be paid many at a time.
//!
//! A loop that goes back behind one straight line of code costs the same in every turn. Charging, testing and marking in
//! each of them is most of the work of a short loop. So where nothing can be observed for a number of turns, they are
//! paid together and run as they were written:
//! ```text
//! loop
//!   line, charged and marked as everywhere       the careful turn
//!   if the condition holds
//!     n = turns that the counter pays for, and in which no access can trap and no store reaches a page that the
//!         careful turn did not mark
//!     if n is worth it
//!       counter -= n * cost
//!       repeat n times: line as it was written; where its condition fails: counter += cost of the turns left, leave
//!     back to the careful turn
//! ```
//! What makes `n` known is that addresses move in steps: an address is a sum of locals that the loop leaves alone or moves
//! by constants. The careful turn has just made every access without a trap, and the memory does not shrink: an address
//! that stays is safe, one that moves is as long as it stays inside the memory (loads) or the page (stores). Whatever else
//! may trap, call or branch makes the loop an ordinary one.

use super::accesses::{accessed, is_store};
use super::arity::Arity;
use super::metering::may_trap;
use super::parsed::Parsed;
use super::rewrite::changes;
use replicore_types::OS_PAGE_BYTES;
use replicore_types::fees::WasmWidth;
use std::collections::BTreeMap;
use wasmparser::{FunctionBody, MemArg, Operator};

/// Operators of a line at least: what is prepared is several times longer than a line of a few, and modules may be made of
/// such loops.
const LINE_MIN: usize = 8;
/// Operators of a line at most: it is there twice.
const LINE_MAX: usize = 200;
/// Address expressions of one loop that move, at most: each takes time before the turns that are paid together.
const MOVING_MAX: usize = 4;
/// The longest step of a load in bytes.
const LOAD_STEP_MAX: u64 = 64 * 1024;
/// The longest step of a store: a page then has turns enough.
const STORE_STEP_MAX: u64 = 256;
/// Bytes that the stores of one expression may lie apart.
const STORES_APART_MAX: u64 = 256;
/// The longest step of a local that counts turns, forward or back.
const CLOCK_STEP_MAX: i64 = 1 << 10;
/// Turns that are paid together at most, so that no local that counts them comes around.
pub(super) const TURNS_MAX: i64 = 1 << 20;
/// Offsets from which on an access is left alone: far more than any memory, far less than would overflow.
const OFFSET_MAX: u64 = 1 << 40;

/// A loop whose turns are paid together where possible, by the index of the branch that goes back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ChunkedLoop {
    /// Index of the first operator of the line.
    pub head: usize,
    /// Where the line begins in the module, and where each of its operators ends, the condition's included.
    pub start: u64,
    pub ends: Vec<u64>,
    /// Accesses whose address moves.
    pub moving: Vec<Moving>,
    /// A local with the type of addresses that tells how many turns were made: it moves by this, which is not zero.
    pub clock: Option<(u32, i64)>,
}

/// Accesses at one address that moves by a step from turn to turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moving {
    /// The address, in terms of what locals hold when a turn begins.
    pub address: Sum,
    /// Bytes, more than zero.
    pub step: u64,
    /// The accesses lie between these offsets from the address.
    pub offset: u64,
    pub end: u64,
    pub is_store: bool,
}

/// A sum of up to two locals, with factors, and a constant, in the arithmetic of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    terms: [Option<(u32, u64)>; 2],
    pub constant: u64,
}

impl Sum {
    fn constant(constant: u64) -> Self {
        Self {
            constant,
            ..Self::default()
        }
    }

    fn local(local: u32) -> Self {
        Self {
            terms: [Some((local, 1)), None],
            constant: 0,
        }
    }

    /// Locals with the factors that they are taken with.
    pub fn terms(&self) -> impl Iterator<Item = (u32, u64)> {
        self.terms.into_iter().flatten()
    }

    fn as_constant(&self) -> Option<u64> {
        self.terms().next().is_none().then_some(self.constant)
    }

    /// `self + factor * other`; `None` where that has too many locals.
    fn plus(mut self, other: Self, factor: u64, width: WasmWidth) -> Option<Self> {
        for (local, times) in other.terms() {
            let times = times.wrapping_mul(factor);
            let known = self
                .terms
                .iter()
                .position(|term| term.is_some_and(|(known, _)| known == local));
            let place = known.or_else(|| self.terms.iter().position(Option::is_none))?;
            let before = self.terms[place].map_or(0, |(_, times)| times);
            let times = wrapped(before.wrapping_add(times), width);
            self.terms[place] = (times != 0).then_some((local, times));
        }
        self.constant = wrapped(self.constant.wrapping_add(other.constant.wrapping_mul(factor)), width);
        Some(self)
    }
}

/// A number in the arithmetic of addresses.
fn wrapped(number: u64, width: WasmWidth) -> u64 {
    match width {
        WasmWidth::Wasm32 => number & u64::from(u32::MAX),
        WasmWidth::Wasm64 => number,
    }
}

/// The same as a number with a sign.
fn signed(number: u64, width: WasmWidth) -> i64 {
    match width {
        WasmWidth::Wasm32 => i64::from(number as u32 as i32),
        WasmWidth::Wasm64 => number as i64,
    }
}

/// The loops of a function whose turns can be paid together, by the index of the branch that goes back.
pub(super) fn chunked_loops(
    parsed: &Parsed<'_>,
    body: &FunctionBody<'_>,
) -> wasmparser::Result<BTreeMap<usize, ChunkedLoop>> {
    let (arity, width) = (Arity(parsed), parsed.width());
    let mut found = BTreeMap::new();
    let mut line: Option<Line> = None;
    let mut reader = body.get_operators_reader()?;
    let mut index = 0;
    while !reader.eof() {
        let operator = reader.read()?;
        let end = reader.original_position();
        match operator {
            Operator::Loop { blockty } => {
                line = (arity.of_block(blockty).0 == 0).then(|| Line::new(index + 1, end, width));
            }
            Operator::BrIf { relative_depth: 0 } => {
                if let Some(chunked) = line.take().and_then(Line::finish) {
                    found.insert(index, chunked);
                }
            }
            _ => line = line.and_then(|line| line.with(&operator, end, arity)),
        }
        index += 1;
    }
    Ok(found)
}

/// A line that begins with a loop, as far as it was read.
struct Line {
    width: WasmWidth,
    head: usize,
    start: u64,
    ends: Vec<u64>,
    /// Operands: what is known of their value, in terms of what locals hold when the turn begins.
    operands: Vec<Option<Sum>>,
    /// The same for locals that were set.
    locals: BTreeMap<u32, Option<Sum>>,
    accesses: Vec<Access>,
}

struct Access {
    address: Sum,
    offset: u64,
    end: u64,
    is_store: bool,
}

impl Line {
    fn new(head: usize, start: u64, width: WasmWidth) -> Self {
        Self {
            width,
            head,
            start,
            ends: Vec::new(),
            operands: Vec::new(),
            locals: BTreeMap::new(),
            accesses: Vec::new(),
        }
    }

    /// The line with one more operator, which ends at `end`; `None` where the line cannot be paid together with others.
    fn with(mut self, operator: &Operator<'_>, end: u64, arity: Arity<'_, '_>) -> Option<Self> {
        use Operator::*;
        self.ends.push(end);
        if self.ends.len() > LINE_MAX || is_control(operator) || (changes(operator) && !is_store(operator)) {
            return None;
        }
        match operator {
            LocalGet { local_index } => {
                let value = self.local(*local_index);
                self.operands.push(value);
            }
            LocalSet { local_index } => {
                let value = self.pop();
                self.locals.insert(*local_index, value);
            }
            LocalTee { local_index } => {
                let value = self.operands.last().copied().flatten();
                self.locals.insert(*local_index, value);
            }
            I32Const { value } => self.operands.push(Some(Sum::constant(u64::from(*value as u32)))),
            I64Const { value } => self.operands.push(Some(Sum::constant(*value as u64))),
            _ if self.computes_addresses(operator) => self.compute(operator),
            _ => {
                let (taken, results) = arity.of(operator);
                let operands: Vec<_> = (0..taken).map(|_| self.pop()).collect();
                if let Some(memarg) = accessed(operator) {
                    // The address lies below a value to be stored.
                    self.access(operands.last().copied().flatten()?, memarg, is_store(operator))?;
                } else if may_trap(operator) && !divides_safely(operator, operands.first().copied().flatten()) {
                    return None;
                }
                let height = self.operands.len() + results as usize;
                self.operands.resize(height, None);
            }
        }
        Some(self)
    }

    fn local(&self, local: u32) -> Option<Sum> {
        self.locals.get(&local).copied().unwrap_or(Some(Sum::local(local)))
    }

    fn pop(&mut self) -> Option<Sum> {
        self.operands.pop().flatten()
    }

    /// True for the operators in the arithmetic of addresses that keep sums.
    fn computes_addresses(&self, operator: &Operator<'_>) -> bool {
        use Operator::*;
        match self.width {
            WasmWidth::Wasm32 => matches!(operator, I32Add | I32Sub | I32Mul | I32Shl),
            WasmWidth::Wasm64 => matches!(operator, I64Add | I64Sub | I64Mul | I64Shl),
        }
    }

    fn compute(&mut self, operator: &Operator<'_>) {
        use Operator::*;
        let (second, first) = (self.pop(), self.pop());
        let width = self.width;
        let result = first.zip(second).and_then(|(first, second)| match operator {
            I32Add | I64Add => first.plus(second, 1, width),
            I32Sub | I64Sub => first.plus(second, u64::MAX, width),
            I32Mul | I64Mul => match (first.as_constant(), second.as_constant()) {
                (_, Some(factor)) => Sum::default().plus(first, factor, width),
                (Some(factor), None) => Sum::default().plus(second, factor, width),
                (None, None) => None,
            },
            _ => {
                let bits = match width {
                    WasmWidth::Wasm32 => 32,
                    WasmWidth::Wasm64 => 64,
                };
                let factor = second.as_constant().map(|by| 1 << (by % bits));
                factor.and_then(|factor| Sum::default().plus(first, factor, width))
            }
        });
        self.operands.push(result);
    }

    fn access(&mut self, address: Sum, memarg: MemArg, is_store: bool) -> Option<()> {
        if memarg.offset >= OFFSET_MAX {
            return None;
        }
        self.accesses.push(Access {
            address,
            offset: memarg.offset,
            end: memarg.offset + (1 << memarg.max_align),
            is_store,
        });
        Some(())
    }

    /// The line ends with the branch that goes back, whose condition is the one operand.
    fn finish(mut self) -> Option<ChunkedLoop> {
        if self.operands.len() != 1 || self.ends.len() < LINE_MIN {
            return None;
        }
        let mut moving: Vec<Moving> = Vec::new();
        for access in std::mem::take(&mut self.accesses) {
            let step = self.step(&access.address)?;
            if step != 0 {
                add(&mut moving, access, step)?;
            }
        }
        let clock = self.locals.keys().find_map(|local| {
            let step = signed(self.step(&Sum::local(*local))?, self.width);
            (step != 0 && step.abs() <= CLOCK_STEP_MAX).then_some((*local, step))
        });
        Some(ChunkedLoop {
            clock,
            head: self.head,
            start: self.start,
            ends: self.ends,
            moving,
        })
    }

    /// By how much a sum of what locals hold when a turn begins moves from turn to turn.
    fn step(&self, sum: &Sum) -> Option<u64> {
        let mut step = 0_u64;
        for (local, factor) in sum.terms() {
            let after = self.local(local)?;
            // What the local holds behind the turn, less what it held before.
            let moved = after.plus(Sum::local(local), u64::MAX, self.width)?.as_constant()?;
            step = step.wrapping_add(moved.wrapping_mul(factor));
        }
        Some(wrapped(step, self.width))
    }
}

/// Adds an access to those at the same address.
fn add(moving: &mut Vec<Moving>, access: Access, step: u64) -> Option<()> {
    let step_max = if access.is_store { STORE_STEP_MAX } else { LOAD_STEP_MAX };
    if step > step_max {
        return None;
    }
    let is_near = |known: &Moving| {
        let apart = known.end.max(access.end) - known.offset.min(access.offset);
        !access.is_store || apart <= STORES_APART_MAX
    };
    let same = moving
        .iter()
        .position(|known| known.address == access.address && known.is_store == access.is_store && is_near(known));
    match same {
        Some(known) => {
            let known = &mut moving[known];
            known.offset = known.offset.min(access.offset);
            known.end = known.end.max(access.end);
        }
        None if moving.len() == MOVING_MAX => return None,
        None => moving.push(Moving {
            address: access.address,
            step,
            offset: access.offset,
            end: access.end,
            is_store: access.is_store,
        }),
    }
    Some(())
}

const _: () = assert!(TURNS_MAX * CLOCK_STEP_MAX < 1 << 31);
const _: () = assert!(STORES_APART_MAX + STORE_STEP_MAX < OS_PAGE_BYTES as u64);

fn is_control(operator: &Operator<'_>) -> bool {
    use Operator::*;
    matches!(
        operator,
        Block { .. }
            | If { .. }
            | Else
            | End
            | Br { .. }
            | BrIf { .. }
            | BrTable { .. }
            | Return
            | Unreachable
            | Call { .. }
            | CallIndirect { .. }
            | ReturnCall { .. }
            | ReturnCallIndirect { .. }
    )
}

/// True for divisions by a constant that never trap.
fn divides_safely(operator: &Operator<'_>, divisor: Option<Sum>) -> bool {
    use Operator::*;
    let Some(divisor) = divisor.and_then(|divisor| divisor.as_constant()) else {
        return false;
    };
    match operator {
        I32DivU | I32RemU | I64DivU | I64RemU => divisor != 0,
        I32DivS | I32RemS => divisor != 0 && divisor != u64::from(u32::MAX),
        I64DivS | I64RemS => divisor != 0 && divisor != u64::MAX,
        _ => false,
    }
}
