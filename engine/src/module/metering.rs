//! Where a function is charged, and how much.
//!
//! A body is cut into straight lines: behind every `loop`, `if`, `else`, `end` and branch, and behind whatever leaves
//! the function. A line is paid as a whole when it is entered, hence before a trap in its middle. `block` and calls do
//! not cut. Only where execution can come back to - function entry and loop heads - is the counter also tested.

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
}

/// Finds the charges of one function body, fed operator by operator.
pub(super) struct Meter {
    width: WasmWidth,
    current: Charge,
    charges: Vec<Charge>,
    next: usize,
    instrumented: u64,
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
        };
        Self {
            width,
            current: entry,
            charges: Vec::new(),
            next: 0,
            instrumented: 0,
        }
    }

    /// Takes the next operator of the body.
    pub fn add(&mut self, operator: &Operator<'_>) {
        use Operator::*;
        self.next += 1;
        self.instrumented += 1;
        self.current.cost += cost(operator, self.width);
        match operator {
            Loop { .. } => self.cut(true),
            If { .. } | Else | End | Br { .. } | BrIf { .. } | BrTable { .. } => self.cut(false),
            Return | Unreachable | ReturnCall { .. } | ReturnCallIndirect { .. } => self.cut(false),
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

    /// Ends the current line behind the operator just taken.
    fn cut(&mut self, reentrant: bool) {
        let line = std::mem::replace(
            &mut self.current,
            Charge {
                before: self.next,
                cost: 0,
                reentrant,
            },
        );
        if line.cost > 0 || line.reentrant {
            self.instrumented += STATIC_CHARGE + if line.reentrant { COUNTER_TEST } else { 0 };
            self.charges.push(line);
        }
    }

    /// The charges by position, and the number of instructions that the body has after the production replica's
    /// instrumentation. Every body ends with `end`, so no line is left open.
    pub fn finish(self) -> (Vec<Charge>, u64) {
        (self.charges, self.instrumented)
    }
}
