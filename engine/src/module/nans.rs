//! Where a NaN has to be made canonical.
//!
//! Wasm leaves the bits of a NaN that arithmetic makes to the machine; the protocol prescribes the canonical one. Doing
//! that behind every operation makes a chain of additions several times slower. But arithmetic, comparisons and
//! conversions to integers see only *that* an operand is a NaN, not which one. So a result may stay *raw* until
//! something looks at its bits:
//! ```text
//! raw      the result of arithmetic: a NaN of any bits stands for the canonical one
//! exact    the bits are the prescribed ones: loads, parameters, results of calls, ...
//! number   not a NaN: constants, integers converted
//!
//! arithmetic, comparison, conversion, drop     take anything
//! everything else                              takes exact values: a raw one is made canonical where it was made
//! ```
//! A local that is given raw values and numbers only holds raw ones, and what reads it gives them; one that is also
//! given exact values holds exact ones, for whoever reads it cannot tell which it got. That is why values are tracked
//! at all: making canonical what is stored would change the bits of a NaN that was only moved from one place to another,
//! which must survive.
//!
//! The result of the walk is a list of operators behind which the value on top of the stack is made canonical.

use super::arity::Arity;
use super::floats::FloatResult;
use super::parsed::Parsed;
use std::collections::BTreeMap;
use wasmparser::{BlockType, FuncType, FunctionBody, Operator, ValType};

/// Walks after which locals that still change are taken for exact; in practice two or three suffice.
const WALKS_MAX: usize = 8;

/// The operators of a body, by index, behind which the value on top of the stack is to be made canonical.
pub(super) fn canonicalised(
    parsed: &Parsed<'_>,
    function_type: &FuncType,
    body: &FunctionBody<'_>,
) -> wasmparser::Result<BTreeMap<usize, FloatResult>> {
    if !computes(body)? {
        return Ok(BTreeMap::new());
    }
    let operators = body.get_operators_reader()?.into_iter();
    let operators = operators.collect::<wasmparser::Result<Vec<_>>>()?;
    let mut locals = initial_locals(function_type, body)?;
    for walks in 1.. {
        let mut walk = Walk::new(parsed, function_type, locals);
        for (index, operator) in operators.iter().enumerate() {
            walk.add(index, operator);
        }
        if !walk.changed {
            return Ok(walk.canonicalised);
        }
        locals = walk.locals;
        if walks == WALKS_MAX {
            locals.fill(Held::Exact);
        }
    }
    unreachable!("where every local is exact, no walk changes one")
}

/// True where the body makes floats; most bodies do not.
fn computes(body: &FunctionBody<'_>) -> wasmparser::Result<bool> {
    for operator in body.get_operators_reader()? {
        if FloatResult::of(&operator?).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a local holds, from the least that is known to the most careful assumption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// So far nothing but numbers, the initial zero among them.
    Numbers,
    Raw(FloatResult),
    Exact,
}

impl Held {
    /// The same after a value was put in.
    fn with(self, value: Value) -> Self {
        match (self, value) {
            (Self::Exact, _) | (_, Value::Exact) => Self::Exact,
            (held, Value::Number) => held,
            (Self::Numbers, Value::Raw { shape, .. }) => Self::Raw(shape),
            (Self::Raw(before), Value::Raw { shape, .. }) if before == shape => self,
            (Self::Raw(_), Value::Raw { .. }) => Self::Exact,
        }
    }
}

/// Parameters are exact: callers give prescribed bits.
fn initial_locals(function_type: &FuncType, body: &FunctionBody<'_>) -> wasmparser::Result<Vec<Held>> {
    let mut locals = vec![Held::Exact; function_type.params().len()];
    for declaration in body.get_locals_reader()? {
        let (count, ty) = declaration?;
        let held = match ty {
            ValType::F32 | ValType::F64 | ValType::V128 => Held::Numbers,
            _ => Held::Exact,
        };
        locals.resize(locals.len() + count as usize, held);
    }
    Ok(locals)
}

/// What is known of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Number,
    /// Made by the operator with this index.
    Raw {
        producer: usize,
        shape: FloatResult,
    },
    Exact,
}

/// An open block.
struct Block {
    /// Height of the operand stack below its operands.
    height: usize,
    parameters: usize,
    results: usize,
    is_loop: bool,
}

/// One walk over a body.
struct Walk<'m, 'a> {
    parsed: &'m Parsed<'a>,
    stack: Vec<Value>,
    blocks: Vec<Block>,
    locals: Vec<Held>,
    /// A local holds more than this walk assumed before.
    changed: bool,
    canonicalised: BTreeMap<usize, FloatResult>,
}

impl<'m, 'a> Walk<'m, 'a> {
    fn new(parsed: &'m Parsed<'a>, function_type: &FuncType, locals: Vec<Held>) -> Self {
        Self {
            parsed,
            stack: Vec::new(),
            blocks: vec![Block {
                height: 0,
                parameters: 0,
                results: function_type.results().len(),
                is_loop: false,
            }],
            locals,
            changed: false,
            canonicalised: BTreeMap::new(),
        }
    }

    fn add(&mut self, index: usize, operator: &Operator<'_>) {
        use Operator::*;
        match operator {
            Block { blockty } | Loop { blockty } => self.open(*blockty, matches!(operator, Loop { .. })),
            If { blockty } => {
                self.pop();
                self.open(*blockty, false);
            }
            Else => {
                self.empty_block();
                let parameters = self.blocks.last().map_or(0, |block| block.parameters);
                self.push_exact(parameters);
            }
            End => {
                self.empty_block();
                let results = self.blocks.pop().map_or(0, |block| block.results);
                self.push_exact(results);
            }
            BrIf { relative_depth } => {
                self.pop();
                let carried = self.carried(*relative_depth);
                self.take_exact(carried);
                self.push_exact(carried);
            }
            Br { .. } | BrTable { .. } | Return | Unreachable | ReturnCall { .. } | ReturnCallIndirect { .. } => {
                self.empty_block();
            }
            LocalGet { local_index } => self.get(index, *local_index),
            LocalSet { local_index } => self.set(*local_index),
            LocalTee { local_index } => {
                self.set(*local_index);
                self.get(index, *local_index);
            }
            Drop => drop(self.pop()),
            Select => self.select(index),
            F32Const { value } => self.constant(f32::from_bits(value.bits()).is_nan()),
            F64Const { value } => self.constant(f64::from_bits(value.bits()).is_nan()),
            V128Const { value } => self.constant(value.i128() != 0),
            _ => self.compute(index, operator),
        }
    }

    fn compute(&mut self, index: usize, operator: &Operator<'_>) {
        let (operands, results) = Arity(self.parsed).of(operator);
        let taken = operand_shape(operator);
        for _ in 0..operands {
            let value = self.pop();
            if !matches!(value, Value::Raw { shape, .. } if Some(shape) == taken) {
                self.make_exact(value);
            }
        }
        match FloatResult::of(operator) {
            Some(shape) => self.stack.push(Value::Raw { producer: index, shape }),
            None if is_number(operator) => self.stack.push(Value::Number),
            None => self.push_exact(results as usize),
        }
    }

    fn constant(&mut self, may_be_nan: bool) {
        self.stack.push(if may_be_nan { Value::Exact } else { Value::Number });
    }

    fn get(&mut self, index: usize, local: u32) {
        self.stack.push(match self.locals[local as usize] {
            Held::Numbers => Value::Number,
            Held::Raw(shape) => Value::Raw { producer: index, shape },
            Held::Exact => Value::Exact,
        });
    }

    fn set(&mut self, local: u32) {
        let value = self.pop();
        let local = &mut self.locals[local as usize];
        let held = local.with(value);
        self.changed |= held != *local;
        *local = held;
        if held == Held::Exact {
            self.make_exact(value);
        }
    }

    /// The result is raw where none of the two is exact.
    fn select(&mut self, index: usize) {
        self.pop();
        let (other, one) = (self.pop(), self.pop());
        let result = match Held::Numbers.with(one).with(other) {
            Held::Numbers => Value::Number,
            Held::Raw(shape) => Value::Raw { producer: index, shape },
            Held::Exact => {
                self.make_exact(one);
                self.make_exact(other);
                Value::Exact
            }
        };
        self.stack.push(result);
    }

    fn open(&mut self, ty: BlockType, is_loop: bool) {
        let (parameters, results) = Arity(self.parsed).of_block(ty);
        self.take_exact(parameters as usize);
        self.blocks.push(Block {
            height: self.stack.len(),
            parameters: parameters as usize,
            results: results as usize,
            is_loop,
        });
        self.push_exact(parameters as usize);
    }

    /// Values that a branch to this label carries.
    fn carried(&self, depth: u32) -> usize {
        let position = self.blocks.len().checked_sub(depth as usize + 1);
        position.map_or(0, |position| {
            let block = &self.blocks[position];
            if block.is_loop { block.parameters } else { block.results }
        })
    }

    /// Takes everything that the innermost block has on the stack: some of it goes elsewhere.
    fn empty_block(&mut self) {
        let height = self.blocks.last().map_or(0, |block| block.height);
        self.take_exact(self.stack.len() - height);
    }

    fn take_exact(&mut self, count: usize) {
        for _ in 0..count {
            let value = self.pop();
            self.make_exact(value);
        }
    }

    fn push_exact(&mut self, count: usize) {
        self.stack.resize(self.stack.len() + count, Value::Exact);
    }

    /// Code that is never reached may take from an empty block.
    fn pop(&mut self) -> Value {
        let height = self.blocks.last().map_or(0, |block| block.height);
        if self.stack.len() == height {
            return Value::Exact;
        }
        self.stack.pop().unwrap_or(Value::Exact)
    }

    fn make_exact(&mut self, value: Value) {
        if let Value::Raw { producer, shape } = value {
            self.canonicalised.insert(producer, shape);
        }
    }
}

/// The raw operands that an operator may take, because it does not see the bits of a NaN.
fn operand_shape(operator: &Operator<'_>) -> Option<FloatResult> {
    use Operator::*;
    match operator {
        F32DemoteF64 => Some(FloatResult::F64),
        F64PromoteF32 => Some(FloatResult::F32),
        F32x4DemoteF64x2Zero => Some(FloatResult::F64x2),
        F64x2PromoteLowF32x4 => Some(FloatResult::F32x4),
        F32Eq | F32Ne | F32Lt | F32Gt | F32Le | F32Ge => Some(FloatResult::F32),
        F64Eq | F64Ne | F64Lt | F64Gt | F64Le | F64Ge => Some(FloatResult::F64),
        I32TruncF32S | I32TruncF32U | I64TruncF32S | I64TruncF32U => Some(FloatResult::F32),
        I32TruncF64S | I32TruncF64U | I64TruncF64S | I64TruncF64U => Some(FloatResult::F64),
        I32TruncSatF32S | I32TruncSatF32U | I64TruncSatF32S | I64TruncSatF32U => Some(FloatResult::F32),
        I32TruncSatF64S | I32TruncSatF64U | I64TruncSatF64S | I64TruncSatF64U => Some(FloatResult::F64),
        _ => FloatResult::of(operator),
    }
}

/// True where the result is a float and never a NaN.
fn is_number(operator: &Operator<'_>) -> bool {
    use Operator::*;
    matches!(
        operator,
        F32ConvertI32S
            | F32ConvertI32U
            | F32ConvertI64S
            | F32ConvertI64U
            | F64ConvertI32S
            | F64ConvertI32U
            | F64ConvertI64S
            | F64ConvertI64U
    )
}
