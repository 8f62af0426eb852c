//! Rules about function bodies, and what else one walk over them finds out.

use crate::module::compile_charge::{EMPTY_MODULE_INSTRUCTIONS, INSTRUCTIONS_PER_GLOBAL, replaced_imports};
use crate::module::decode::undecodable;
use crate::module::error::{Advice, WasmError};
use crate::module::metering::Meter;
use crate::module::parallel::map;
use crate::module::parsed::Parsed;
use replicore_types::fees::WasmWidth;
use replicore_types::limits::WASM_FUNCTION_COMPLEXITY_MAX;
use wasmparser::{FunctionBody, Operator};

/// What the walk found out, of a module or of one function.
pub(super) struct Code {
    /// Instructions of the module as the production replica instruments it.
    pub instrumented_instructions: u64,
    /// True where `data.drop` occurs: then an instance differs from a fresh one after a message.
    pub drops_data_segments: bool,
}

pub(super) fn check(parsed: &Parsed<'_>) -> Result<Code, WasmError> {
    let width = parsed.width();
    let mut code = Code {
        instrumented_instructions: EMPTY_MODULE_INSTRUCTIONS
            + INSTRUCTIONS_PER_GLOBAL * parsed.globals.len() as u64
            + replaced_imports(parsed),
        drops_data_segments: false,
    };
    let bodies = parsed.bodies.iter().enumerate().collect();
    // The first function that breaks a rule is the one that the user reads of.
    for function in map(bodies, |(index, body)| check_body(index, body, width)) {
        let function = function?;
        code.instrumented_instructions += function.instrumented_instructions;
        code.drops_data_segments |= function.drops_data_segments;
    }
    Ok(code)
}

fn check_body(index: usize, body: &FunctionBody<'_>, width: WasmWidth) -> Result<Code, WasmError> {
    let mut meter = Meter::new(width);
    let (mut complexity, mut size, mut drops_data_segments) = (0, 0, false);
    let mut operators = body.get_operators_reader().map_err(undecodable)?;
    while !operators.eof() {
        let operator = operators.read().map_err(undecodable)?;
        if let Some(name) = unsupported(&operator) {
            return Err(WasmError::invalid(format_args!(
                "Wasm module contains a function at index {index} with unsupported instruction {name}."
            )));
        }
        drops_data_segments |= matches!(operator, Operator::DataDrop { .. });
        complexity += weight(&operator);
        size += 1;
        meter.add(&operator);
    }
    check_function(index, complexity, size)?;
    Ok(Code {
        instrumented_instructions: meter.finish().1,
        drops_data_segments,
    })
}

fn check_function(index: usize, complexity: usize, size: usize) -> Result<(), WasmError> {
    const ADVICE: &str = "Try breaking large functions up into multiple smaller functions.";
    const MAX: usize = WASM_FUNCTION_COMPLEXITY_MAX;
    if complexity > MAX {
        return Err(WasmError::invalid_with(
            format_args!(
                "Wasm module contains a function at index {index} with complexity {complexity} which exceeds the \
                 maximum complexity allowed {MAX}."
            ),
            Advice::User(ADVICE.to_owned(), "wasm-module-function-complexity-too-high"),
        ));
    }
    if size > MAX {
        return Err(WasmError::invalid_with(
            format_args!(
                "Wasm module contains a function at index {index} of size {size} that exceeds the maximum allowed \
                 size of {MAX}."
            ),
            Advice::User(ADVICE.to_owned(), "wasm-module-function-too-large"),
        ));
    }
    Ok(())
}

/// Tables are not part of the state, so nothing may change them.
fn unsupported(operator: &Operator<'_>) -> Option<&'static str> {
    match operator {
        Operator::TableSet { .. } => Some("table.set"),
        Operator::TableGrow { .. } => Some("table.grow"),
        Operator::TableFill { .. } => Some("table.fill"),
        Operator::TableCopy { .. } => Some("table.copy"),
        Operator::TableInit { .. } => Some("table.init"),
        _ => None,
    }
}

/// How much an operator adds to the complexity of its function: roughly what it costs to compile.
fn weight(operator: &Operator<'_>) -> usize {
    use Operator::*;
    match operator {
        Block { .. } | Loop { .. } | If { .. } | Br { .. } | BrIf { .. } | BrTable { .. } => 50,
        Call { .. } | CallIndirect { .. } | MemoryGrow { .. } => 50,
        TableGet { .. } => 14,
        RefFunc { .. } => 8,
        RefIsNull => 6,

        I32TruncF32S | I32TruncF32U | I32TruncF64S | I32TruncF64U | I64TruncF32S | I64TruncF32U | I64TruncF64S => 5,
        I64TruncF64U | I64ExtendI32S | I64ExtendI32U | F32ConvertI32S | F32ConvertI32U | F32ConvertI64S => 5,
        F32ConvertI64U | F32DemoteF64 | F64ConvertI32S | F64ConvertI32U | F64ConvertI64S | F64ConvertI64U => 5,

        F32Neg | F32Abs | F64Neg | F64Abs | MemoryCopy { .. } => 4,

        F32Copysign | F64Copysign | F64Eq | MemoryFill { .. } => 3,
        I32RemU | I32RemS | I64RemU | I64RemS | I32DivU | I32DivS | I64DivU | I64DivS => 3,
        I32Load { .. } | I32Load8S { .. } | I32Load8U { .. } | I32Load16S { .. } | I32Load16U { .. } => 3,
        I64Load { .. } | I64Load8S { .. } | I64Load8U { .. } | I64Load16S { .. } | I64Load16U { .. } => 3,
        I64Load32S { .. } | I64Load32U { .. } | F32Load { .. } | F64Load { .. } => 3,
        I32TruncSatF32S | I32TruncSatF32U | I32TruncSatF64S | I32TruncSatF64U => 3,
        I64TruncSatF32S | I64TruncSatF32U | I64TruncSatF64S | I64TruncSatF64U => 3,

        GlobalGet { .. } | I32Popcnt | I64Popcnt | Select | MemorySize { .. } => 2,
        I32Store { .. } | I32Store8 { .. } | I32Store16 { .. } | F32Store { .. } | F64Store { .. } => 2,
        I64Store { .. } | I64Store8 { .. } | I64Store16 { .. } | I64Store32 { .. } => 2,
        I32Eqz | I32Eq | I32Ne | I32LtS | I32LtU | I32GtS | I32GtU | I32LeS | I32LeU | I32GeS | I32GeU => 2,
        I64Eqz | I64Eq | I64Ne | I64LtS | I64LtU | I64GtS | I64GtU | I64LeS | I64LeU | I64GeS | I64GeU => 2,
        F32Eq | F32Ne | F32Lt | F32Gt | F32Le | F32Ge | F64Ne | F64Lt | F64Gt | F64Le | F64Ge => 2,
        F32Ceil | F64Ceil | F32Floor | F64Floor | F32Sqrt | F64Sqrt | F32Trunc | F64Trunc => 2,
        I32ReinterpretF32 | I64ReinterpretF64 | F32ReinterpretI32 | F64ReinterpretI64 | I32WrapI64 => 2,
        I32Extend8S | I32Extend16S | I64Extend8S | I64Extend16S | I64Extend32S | F64PromoteF32 => 2,

        _ => 1,
    }
}
