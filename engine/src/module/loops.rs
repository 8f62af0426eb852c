//! What is worth doing for tight loops: innermost ones without calls of their own.
//!
//! **Locals survive the refill.** Where a loop's head finds the counter used up it calls a function, and compilers keep
//! nothing in registers that a call may change: the call that almost never happens costs every turn of the loop loads and
//! stores. So the rare path puts the locals that the loop names into memory and takes them back afterwards.
//!
//! **Stores in steps mark a page once.** Where the address of a store is a local that the loop moves by small constants
//! only, most turns write the page that the turn before wrote: the code remembers the page that it marked last and
//! compares. For other stores that would be wrong as often as not, and a wrong guess costs more than a mark.

use super::arity::Arity;
use super::parsed::Parsed;
use std::collections::{BTreeMap, BTreeSet};
use wasmparser::{FunctionBody, Operator};

/// Locals that one loop's head saves at most; those with the lowest indices.
const SAVED_MAX: usize = 16;
/// Stores in steps of one loop that remember their page at most; the first ones.
const STEPPED_MAX: usize = 4;
/// The longest step in bytes.
const STEP_MAX: u32 = 256;

/// A tight loop.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TightLoop {
    /// Locals that it names.
    pub locals: Vec<u32>,
    /// Indices of its stores in steps.
    pub stepped_stores: Vec<usize>,
}

/// The tight loops of a function, by the index of their first operator, which stands behind `loop`.
pub(super) fn tight_loops(
    parsed: &Parsed<'_>,
    body: &FunctionBody<'_>,
) -> wasmparser::Result<BTreeMap<usize, TightLoop>> {
    let mut walk = Walk {
        arity: Arity(parsed),
        next: 0,
        operands: Vec::new(),
        open: Vec::new(),
        found: BTreeMap::new(),
    };
    for operator in body.get_operators_reader()? {
        walk.add(&operator?);
    }
    Ok(walk.found)
}

/// What is known of an operand since the last operator of control.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operand {
    Local(u32),
    /// A constant of 32 bits.
    Constant(i32),
    /// The local, moved by a step.
    Stepped(u32),
    Other,
}

/// An open block.
enum Open {
    Block,
    Loop(Candidate),
}

struct Candidate {
    /// Index of its first operator.
    head: usize,
    locals: BTreeSet<u32>,
    /// Locals that change otherwise than in steps.
    irregular: BTreeSet<u32>,
    /// Stores whose address is a local: index and local.
    stores: Vec<(usize, u32)>,
    tight: bool,
}

struct Walk<'m, 'a> {
    arity: Arity<'m, 'a>,
    /// Index of the next operator.
    next: usize,
    operands: Vec<Operand>,
    open: Vec<Open>,
    found: BTreeMap<usize, TightLoop>,
}

impl Walk<'_, '_> {
    fn add(&mut self, operator: &Operator<'_>) {
        use Operator::*;
        let index = self.next;
        self.next += 1;
        match operator {
            Loop { .. } => {
                self.loosen();
                self.open.push(Open::Loop(Candidate {
                    head: self.next,
                    locals: BTreeSet::new(),
                    irregular: BTreeSet::new(),
                    stores: Vec::new(),
                    tight: true,
                }));
                self.operands.clear();
            }
            Block { .. } | If { .. } => {
                self.open.push(Open::Block);
                self.operands.clear();
            }
            End => {
                self.close();
                self.operands.clear();
            }
            Else | Br { .. } | BrIf { .. } | BrTable { .. } | Return | Unreachable => self.operands.clear(),
            Call { .. } | CallIndirect { .. } | ReturnCall { .. } | ReturnCallIndirect { .. } => {
                self.loosen();
                self.operands.clear();
            }
            MemoryGrow { .. } | MemoryFill { .. } | MemoryCopy { .. } | MemoryInit { .. } => {
                self.loosen();
                self.operands.clear();
            }
            _ => self.plain(index, operator),
        }
    }

    fn plain(&mut self, index: usize, operator: &Operator<'_>) {
        use Operator::*;
        match operator {
            LocalGet { local_index } => {
                self.name(*local_index);
                self.operands.push(Operand::Local(*local_index));
            }
            LocalSet { local_index } => self.set(*local_index),
            LocalTee { local_index } => {
                self.set(*local_index);
                self.operands.push(Operand::Other);
            }
            I32Const { value } => self.operands.push(Operand::Constant(*value)),
            I32Add | I32Sub => {
                let (second, first) = (self.pop(), self.pop());
                self.operands.push(match (first, second) {
                    (Operand::Local(local), Operand::Constant(step)) if step.unsigned_abs() <= STEP_MAX => {
                        Operand::Stepped(local)
                    }
                    _ => Operand::Other,
                });
            }
            _ => {
                let (taken, results) = self.arity.of(operator);
                let address = (0..taken).map(|_| self.pop()).last();
                if let (true, Some(Operand::Local(local))) = (super::accesses::is_store(operator), address)
                    && let Some(candidate) = self.innermost()
                {
                    candidate.stores.push((index, local));
                }
                let height = self.operands.len() + results as usize;
                self.operands.resize(height, Operand::Other);
            }
        }
    }

    fn pop(&mut self) -> Operand {
        self.operands.pop().unwrap_or(Operand::Other)
    }

    fn innermost(&mut self) -> Option<&mut Candidate> {
        self.open.iter_mut().rev().find_map(|open| match open {
            Open::Loop(candidate) => Some(candidate),
            Open::Block => None,
        })
    }

    fn name(&mut self, local: u32) {
        if let Some(candidate) = self.innermost() {
            candidate.locals.insert(local);
        }
    }

    fn set(&mut self, local: u32) {
        let value = self.pop();
        self.name(local);
        // What was read before is not what the local holds now.
        for operand in &mut self.operands {
            if matches!(operand, Operand::Local(read) | Operand::Stepped(read) if *read == local) {
                *operand = Operand::Other;
            }
        }
        if value != Operand::Stepped(local)
            && let Some(candidate) = self.innermost()
        {
            candidate.irregular.insert(local);
        }
    }

    /// The open loops have calls, or loops of their own.
    fn loosen(&mut self) {
        for open in &mut self.open {
            if let Open::Loop(candidate) = open {
                candidate.tight = false;
            }
        }
    }

    fn close(&mut self) {
        if let Some(Open::Loop(candidate)) = self.open.pop()
            && candidate.tight
        {
            let stores = candidate.stores.into_iter();
            let stepped = stores.filter(|(_, local)| !candidate.irregular.contains(local));
            let tight = TightLoop {
                locals: candidate.locals.into_iter().take(SAVED_MAX).collect(),
                stepped_stores: stepped.map(|(index, _)| index).take(STEPPED_MAX).collect(),
            };
            self.found.insert(candidate.head, tight);
        }
    }
}
