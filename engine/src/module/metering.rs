//! Where a function is charged, and how much.
//!
//! A body is cut into straight lines: behind every `loop`, `if`, `else`, `end` and branch, and behind whatever leaves
//! the function. A line is paid as a whole when it is entered, hence before a trap in its middle. `block` and calls do
//! not cut. Only where execution can come back to - function entry and loop heads - is the counter also tested.
//!
//! A function keeps the counter in a local. Others see it in the global only: callees and callers, the host, and whoever
//! reads it after a trap. A line in which that may happen stores it there at its start; all others leave it.

use super::cost::cost;
use replicore_types::fees::WasmWidth;
use wasmparser::Operator;

/// A charge, to be made right before the operator with this index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Charge {
    /// Index of the operator within the body.
    pub before: usize,
    /// Instructions of the line that starts here; zero only at a loop head.
    pub cost: u64,
    /// True where the counter is also tested.
    pub reentrant: bool,
    /// True where others may see the counter before the line ends.
    pub observed: bool,
    /// True where only the line before leads here, not a branch.
    pub continues: bool,
}

/// Finds the charges of one function body, fed operator by operator.
pub(super) struct Meter {
    width: WasmWidth,
    current: Charge,
    charges: Vec<Charge>,
    next: usize,
    instrumented: u64,
    /// Blocks that are open besides the function itself.
    open: u32,
}

// Instructions that the production replica adds, for the compile charge.
const STATIC_CHARGE: u64 = 4;
const COUNTER_TEST: u64 = 6;
const SIZE_CHARGE_64: u64 = 1;
const SIZE_CHARGE_32: u64 = 3;
const GROW_CHECK: u64 = 3;

impl Meter {
    /// Entering a function costs 1 on top of its first line.
    pub fn new(width: WasmWidth) -> Self {
        let entry = Charge {
            before: 0,
            cost: 1,
            reentrant: true,
            observed: false,
            continues: false,
        };
        Self {
            width,
            current: entry,
            charges: Vec::new(),
            next: 0,
            instrumented: 0,
            open: 0,
        }
    }

    /// Takes the next operator of the body.
    pub fn add(&mut self, operator: &Operator<'_>) {
        use Operator::*;
        self.next += 1;
        self.instrumented += 1;
        self.current.cost += cost(operator, self.width);
        self.current.observed |= may_trap(operator) || self.leaves_function(operator);
        match operator {
            Block { .. } => self.open += 1,
            Loop { .. } => {
                self.open += 1;
                self.cut(true, false);
            }
            If { .. } => {
                self.open += 1;
                self.cut(false, true);
            }
            BrIf { .. } => self.cut(false, true),
            End => {
                self.open = self.open.saturating_sub(1);
                self.cut(false, false);
            }
            Else | Br { .. } | BrTable { .. } => self.cut(false, false),
            Return | Unreachable | ReturnCall { .. } | ReturnCallIndirect { .. } => self.cut(false, false),
            MemoryFill { .. } | MemoryCopy { .. } => {
                self.instrumented += match self.width {
                    WasmWidth::Wasm32 => SIZE_CHARGE_32,
                    WasmWidth::Wasm64 => SIZE_CHARGE_64,
                }
            }
            MemoryInit { .. } => self.instrumented += SIZE_CHARGE_32,
            MemoryGrow { .. } => self.instrumented += GROW_CHECK,
            _ => {}
        }
    }

    /// True for calls, and for what may end the function.
    fn leaves_function(&self, operator: &Operator<'_>) -> bool {
        use Operator::*;
        match operator {
            Call { .. } | CallIndirect { .. } | Return | ReturnCall { .. } | ReturnCallIndirect { .. } => true,
            End => self.open == 0,
            Br { relative_depth } | BrIf { relative_depth } => *relative_depth == self.open,
            BrTable { targets } => {
                let mut depths = targets.targets().chain([Ok(targets.default())]);
                depths.any(|depth| depth.is_ok_and(|depth| depth == self.open))
            }
            _ => false,
        }
    }

    /// Ends the current line behind the operator just taken.
    fn cut(&mut self, reentrant: bool, continues: bool) {
        let line = std::mem::replace(
            &mut self.current,
            Charge {
                before: self.next,
                cost: 0,
                reentrant,
                observed: false,
                continues,
            },
        );
        if line.cost > 0 || line.reentrant {
            self.instrumented += STATIC_CHARGE + if line.reentrant { COUNTER_TEST } else { 0 };
        }
        self.charges.push(line);
    }

    /// The charges by position, those of nothing included where the counter is observed, and the number of instructions that the body has after the production replica's
    /// instrumentation. Every body ends with `end`, so no line is left open.
    pub fn finish(mut self) -> (Vec<Charge>, u64) {
        let does_something = |charge: &Charge| charge.cost > 0 || charge.reentrant || charge.observed;
        self.charges.retain(does_something);
        (self.charges, self.instrumented)
    }
}

/// True where execution may end with the operator.
pub(super) fn may_trap(operator: &Operator<'_>) -> bool {
    use Operator::*;
    super::accesses::accesses_memory(operator)
        || matches!(
            operator,
            Unreachable
                | I32DivS
                | I32DivU
                | I32RemS
                | I32RemU
                | I64DivS
                | I64DivU
                | I64RemS
                | I64RemU
                | I32TruncF32S
                | I32TruncF32U
                | I32TruncF64S
                | I32TruncF64U
                | I64TruncF32S
                | I64TruncF32U
                | I64TruncF64S
                | I64TruncF64U
                | MemoryGrow { .. }
                | MemoryFill { .. }
                | MemoryCopy { .. }
                | MemoryInit { .. }
                | TableGet { .. }
                | TableSet { .. }
                | TableGrow { .. }
                | TableFill { .. }
                | TableCopy { .. }
                | TableInit { .. }
        )
}
