//! How much stack a call takes: a number for every function that follows from its code alone.
//!
//! Canisters can observe where their recursion ends. If the machine's stack decided it, the answer would change with
//! the compiler tier, its version, the host and the build. So instrumented code counts in bytes of a made-up frame:
//! ```text
//! frame = return address and frame pointer + what must survive the calls that the function makes
//! ```
//! which is what an unoptimised build needs, hence near to what the production replica's stack of 5 MiB holds. What
//! must survive is found in one walk: operands below the arguments of a call, locals that are read after a call
//! without being written in between, the instance where later code uses it. A frame counts for at least
//! a [`MACHINE_FACTOR`]th of what any compiler tier can need for it, so that the machine's stack never ends first.
//!
//! Functions that call no other function of the module cannot recurse: they are not counted.

use super::error::WasmError;
use super::parallel::map_with;
use std::collections::BTreeSet;
use wasmparser::{
    FuncValidator, FuncValidatorAllocations, FunctionBody, Operator, Parser, Payload, TypeRef, ValType, ValidPayload,
    Validator, WasmFeatures, WasmModuleResources,
};

/// The stack of Wasm code in bytes, as the rule counts: 5 MiB less what the way from the host into the code takes.
pub const STACK_BYTES: u32 = 5 * 1024 * 1024 - 320;
/// Bytes of machine stack that the Wasm engine must give for every byte of [`STACK_BYTES`].
pub const MACHINE_FACTOR: usize = 16;
/// Machine stack for the one function on top that is not counted: all its locals, twice.
pub const MACHINE_RESERVE_BYTES: usize = 4 * 1024 * 1024;

/// Return address and frame pointer; also the alignment of a frame.
const FRAME_BASE: u32 = 16;
const SLOT: u32 = 8;
const VECTOR_SLOT: u32 = 16;

/// The stack that one function takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Bytes for every call of the function.
    pub bytes: u32,
    /// False where the function calls no other: then it is not counted.
    pub counted: bool,
}

/// Validates `wasm` and finds the frame of every function that it defines.
pub(super) fn validate(wasm: &[u8], features: WasmFeatures) -> Result<Vec<Frame>, WasmError> {
    frames(wasm, features).map_err(|error| {
        WasmError::invalid(format_args!(
            "Wasmtime failed to validate wasm module wasmtime::Module::validate() failed with {error}"
        ))
    })
}

fn frames(wasm: &[u8], features: WasmFeatures) -> wasmparser::Result<Vec<Frame>> {
    let mut validator = Validator::new_with_features(features);
    let mut parser = Parser::new(0);
    parser.set_features(features);
    let (mut functions, mut imported) = (Vec::new(), 0);
    for payload in parser.parse_all(wasm) {
        let payload = payload?;
        if let ValidPayload::Func(function, body) = validator.payload(&payload)? {
            functions.push((function, body));
        }
        if let Payload::ImportSection(section) = payload {
            for import in section.into_imports() {
                imported += u32::from(matches!(import?.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)));
            }
        }
    }
    // The error that comes first in the module is the one that is reported.
    let frames = map_with(
        functions,
        FuncValidatorAllocations::default,
        |allocations, (function, body)| {
            let mut validator = function.into_validator(std::mem::take(allocations));
            let frame = frame(&mut validator, &body, imported);
            *allocations = validator.into_allocations();
            frame
        },
    );
    frames.into_iter().collect()
}

/// Validates one function on the way.
fn frame(
    validator: &mut FuncValidator<impl WasmModuleResources>,
    body: &FunctionBody<'_>,
    imported: u32,
) -> wasmparser::Result<Frame> {
    let mut reader = body.get_binary_reader();
    validator.read_locals(&mut reader)?;
    let mut walk = Walk::new(validator.len_locals(), imported);
    while !reader.eof() {
        let position = reader.original_position();
        let operator = reader.peek_operator(&validator.visitor(position))?;
        reader.visit_operator(&mut validator.visitor(position))??;
        walk.add(&operator, validator.operand_stack_height());
        if let Operator::Call { .. } | Operator::CallIndirect { .. } = operator {
            let results = operator.operator_arity(validator).map_or(0, |(_, results)| results);
            walk.call(validator.operand_stack_height().saturating_sub(results));
        }
    }
    reader.finish_expression(&validator.visitor(reader.original_position()))?;
    let locals = (0..validator.len_locals()).filter_map(|local| validator.get_local_type(local));
    Ok(walk.finish(&locals.collect::<Vec<_>>()))
}

/// Loops within loops that are looked at one by one; deeper ones count as part of the innermost of these.
const LOOPS_MAX: usize = 16;

/// An open loop.
struct OpenLoop {
    start: u32,
    /// Locals that it reads before it writes them.
    exposed: BTreeSet<u32>,
}

/// The walk over one body. Positions are numbers of operators, from 1.
struct Walk {
    imported: u32,
    position: u32,
    last_call: u32,
    /// Where each local was last written; 0 for its initial value.
    written: Vec<u32>,
    /// Locals that must survive a call.
    survive: BTreeSet<u32>,
    /// For every open block: is it one of `loops`?
    blocks: Vec<bool>,
    loops: Vec<OpenLoop>,
    operands_below_max: u32,
    height_max: u32,
    instance_survives: bool,
    counted: bool,
}

impl Walk {
    fn new(locals: u32, imported: u32) -> Self {
        Self {
            imported,
            position: 0,
            last_call: 0,
            written: vec![0; locals as usize],
            survive: BTreeSet::new(),
            blocks: Vec::new(),
            loops: Vec::new(),
            operands_below_max: 0,
            height_max: 0,
            instance_survives: false,
            counted: false,
        }
    }

    /// Takes the next operator, with the height of the operand stack behind it.
    fn add(&mut self, operator: &Operator<'_>, height: u32) {
        use Operator::*;
        self.position += 1;
        self.height_max = self.height_max.max(height);
        self.instance_survives |= self.last_call > 0 && uses_instance(operator);
        match operator {
            Call { function_index } => self.counted |= *function_index >= self.imported,
            CallIndirect { .. } => self.counted = true,
            LocalSet { local_index } | LocalTee { local_index } => self.written[*local_index as usize] = self.position,
            LocalGet { local_index } => self.read(*local_index),
            Loop { .. } if self.loops.len() < LOOPS_MAX => {
                self.blocks.push(true);
                self.loops.push(OpenLoop {
                    start: self.position,
                    exposed: BTreeSet::new(),
                });
            }
            Loop { .. } | Block { .. } | If { .. } => self.blocks.push(false),
            End => self.close(),
            _ => {}
        }
    }

    /// The operator just taken is a call, made with so many operands below its arguments.
    fn call(&mut self, operands_below: u32) {
        self.last_call = self.position;
        self.operands_below_max = self.operands_below_max.max(operands_below);
    }

    fn read(&mut self, local: u32) {
        let written = self.written[local as usize];
        if self.last_call > written {
            self.survive.insert(local);
        }
        for open in self.loops.iter_mut().filter(|open| open.start > written) {
            open.exposed.insert(local);
        }
    }

    /// What a loop reads from its last turn must survive the calls of this one.
    fn close(&mut self) {
        if self.blocks.pop() == Some(true)
            && let Some(closed) = self.loops.pop()
            && self.last_call > closed.start
        {
            self.survive.extend(closed.exposed);
        }
    }

    fn finish(self, locals: &[ValType]) -> Frame {
        let surviving = self.survive.iter().map(|local| slot(locals.get(*local as usize)));
        let instance = if self.instance_survives { SLOT } else { 0 };
        let survives = surviving.sum::<u32>() + self.operands_below_max * SLOT + instance;
        // No tier needs more than two words for a local or an operand, and some for the operators.
        let values = locals.len() as u32 + self.height_max;
        let floor = values + self.position / 4 + SLOT;
        Frame {
            bytes: (FRAME_BASE + survives).max(floor).next_multiple_of(FRAME_BASE),
            counted: self.counted,
        }
    }
}

fn slot(ty: Option<&ValType>) -> u32 {
    if ty == Some(&ValType::V128) { VECTOR_SLOT } else { SLOT }
}

/// True for what reaches beyond operands and locals: calls, memories, tables, globals, and branches, at whose targets
/// instructions are charged.
fn uses_instance(operator: &Operator<'_>) -> bool {
    use Operator::*;
    matches!(
        operator,
        Call { .. }
            | CallIndirect { .. }
            | ReturnCall { .. }
            | ReturnCallIndirect { .. }
            | GlobalGet { .. }
            | GlobalSet { .. }
            | If { .. }
            | Else
            | Loop { .. }
            | BrIf { .. }
            | BrTable { .. }
    ) || super::accesses::accesses_memory(operator)
}
