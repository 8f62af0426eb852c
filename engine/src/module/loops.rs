//! What tight loops work on.
//!
//! Where a loop's head finds the counter used up it calls a function, and compilers keep nothing in registers that a
//! call may change: the call that almost never happens costs every turn of the loop loads and stores. So that locals need
//! not survive it, the rare path puts them into memory and takes them back afterwards. Only innermost loops without
//! calls of their own are worth it, and only the locals that they name.

use std::collections::{BTreeMap, BTreeSet};
use wasmparser::Operator;

/// Locals that one loop's head saves at most; those with the lowest indices.
pub(super) const SAVED_MAX: usize = 16;

/// An open block.
enum Open {
    Block,
    Loop(Candidate),
}

struct Candidate {
    /// Index of its first operator.
    head: usize,
    locals: BTreeSet<u32>,
    tight: bool,
}

/// Finds the tight loops of one function body, fed operator by operator.
#[derive(Default)]
pub(super) struct Loops {
    next: usize,
    open: Vec<Open>,
    found: BTreeMap<usize, Vec<u32>>,
}

impl Loops {
    /// Takes the next operator of the body.
    pub fn add(&mut self, operator: &Operator<'_>) {
        use Operator::*;
        self.next += 1;
        match operator {
            Loop { .. } => {
                self.loosen();
                self.open.push(Open::Loop(Candidate {
                    head: self.next,
                    locals: BTreeSet::new(),
                    tight: true,
                }));
            }
            Block { .. } | If { .. } => self.open.push(Open::Block),
            End => self.close(),
            LocalGet { local_index } | LocalSet { local_index } | LocalTee { local_index } => {
                let innermost = self.open.iter_mut().rev().find_map(|open| match open {
                    Open::Loop(candidate) => Some(candidate),
                    Open::Block => None,
                });
                if let Some(candidate) = innermost {
                    candidate.locals.insert(*local_index);
                }
            }
            Call { .. } | CallIndirect { .. } => self.loosen(),
            MemoryGrow { .. } | MemoryFill { .. } | MemoryCopy { .. } | MemoryInit { .. } => self.loosen(),
            _ => {}
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
            let locals = candidate.locals.into_iter().take(SAVED_MAX).collect();
            self.found.insert(candidate.head, locals);
        }
    }

    /// The locals of tight loops, by the index of the loop's first operator.
    pub fn finish(self) -> BTreeMap<usize, Vec<u32>> {
        self.found
    }
}
