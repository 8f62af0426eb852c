//! A module that says what it does, for profiles.
//!
//! Works on the instrumented module, so that charges, marks and the stack rule are exactly those of an ordinary run; what
//! is added here charges nothing and can be seen by no canister:
//! ```text
//! function   enter(id); block body end; leave()        return: leaves the block; a tail call: leave() first
//! load       address -> local; load; reads[(address + offset) >> 12] = 1
//! copy       read(source, size); memory.copy
//! ```
//! Functions of the module have their index as id, System API functions that of their import, through the function that
//! charges for them. Helpers of the instrumentation are not events: what they charge belongs to the function that calls.

use super::accesses;
use super::decode::undecodable;
use super::error::WasmError;
use super::instrument::HOST_FUNCTIONS;
use super::parsed::Parsed;
use super::rewrite::OS_PAGE_BITS;
use super::{Instrumented, symbols};
use replicore_types::fees::WasmWidth;
use replicore_types::limits::{WASM32_HEAP_BYTES_MAX, WASM64_HEAP_BYTES_MAX};
use replicore_types::{OS_PAGE_BYTES, WASM_PAGE_BYTES};
use std::convert::Infallible;
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    BlockType, CodeSection, EntityType, ExportKind, ExportSection, Function, ImportSection, Instruction, MemArg,
    MemArgTarget, MemorySection, MemoryType, Module, TypeSection, ValType,
};
use wasmparser::{FunctionBody, Operator};

/// Host functions that are imported behind those of the instrumentation: enter, leave, read.
const EVENTS: u32 = 3;

/// Index of the heap.
const HEAP_MEMORY: u32 = 0;
/// Index of the memory that says which pages were read.
const READS_MEMORY: u32 = 2;

/// Adds the events.
///
/// # Errors
/// The module cannot be read, which is a disagreement with what instrumented it.
pub(crate) fn add_events(instrumented: &mut Instrumented<'_>, width: WasmWidth) -> Result<(), WasmError> {
    let wasm = std::mem::take(&mut instrumented.wasm);
    let parsed = Parsed::new(&wasm)?;
    let mut events = Events::new(&parsed, width);
    let mut module = Module::new();
    utils::parse_core_module(&mut events, &mut module, wasmparser::Parser::new(0), &wasm).map_err(undecodable)?;
    instrumented.wasm = module.finish();
    instrumented.function_names = instrumented.function_names.clone().behind_imports(EVENTS);
    Ok(())
}

struct Events<'m, 'a> {
    parsed: &'m Parsed<'a>,
    width: WasmWidth,
    /// Imported functions before and after.
    imports: u32,
    /// Functions of the module before the helpers.
    plain: std::ops::Range<u32>,
    /// Functions that charge for the System API.
    system_calls: std::ops::Range<u32>,
    /// The function whose body comes next, by its index before.
    next_function: u32,
}

impl<'m, 'a> Events<'m, 'a> {
    fn new(parsed: &'m Parsed<'a>, width: WasmWidth) -> Self {
        let imports = parsed.imported_functions().count() as u32;
        let system_calls = imports - HOST_FUNCTIONS;
        let all = imports + parsed.functions.len() as u32;
        let helpers = super::instrument::helper_count(!parsed.memories.is_empty()) as u32;
        Self {
            parsed,
            width,
            imports,
            plain: imports..all - system_calls - helpers,
            system_calls: all - system_calls..all,
            next_function: imports,
        }
    }

    fn address(&self) -> ValType {
        match self.width {
            WasmWidth::Wasm32 => ValType::I32,
            WasmWidth::Wasm64 => ValType::I64,
        }
    }

    fn has_heap(&self) -> bool {
        !self.parsed.memories.is_empty()
    }

    /// What enter says of a function, by its index before.
    fn id(&self, function: u32) -> Option<u32> {
        if self.plain.contains(&function) {
            Some(function + EVENTS)
        } else if self.system_calls.contains(&function) {
            Some(function - self.system_calls.start)
        } else {
            None
        }
    }

    fn enter(&self) -> u32 {
        self.imports
    }

    fn leave(&self) -> u32 {
        self.imports + 1
    }

    fn read(&self) -> u32 {
        self.imports + 2
    }

    /// Index of the type of `enter`; those of `leave` and `read` follow, then the results of functions with several.
    fn first_type(&self) -> u32 {
        self.parsed.types.len() as u32
    }

    /// The block that holds the body of a function of this type.
    fn body_block(&self, type_index: u32, reencoder: &mut impl Reencode<Error = Infallible>) -> Encoded<BlockType> {
        let results = self.parsed.function_type(type_index).map_or(&[][..], |ty| ty.results());
        Ok(match results {
            [] => BlockType::Empty,
            [one] => BlockType::Result(reencoder.val_type(*one)?),
            // Every function type of the module has one without parameters behind ours.
            _ => BlockType::FunctionType(self.first_type() + EVENTS + type_index),
        })
    }

    fn body(&mut self, id: u32, type_index: u32, body: &FunctionBody<'_>) -> Encoded<Function> {
        let mut plain = Shift::behind(self.imports);
        let mut locals = Vec::new();
        let mut count = self
            .parsed
            .function_type(type_index)
            .map_or(0, |ty| ty.params().len() as u32);
        for declaration in body.get_locals_reader()? {
            let (number, ty) = declaration?;
            count += number;
            locals.push((number, plain.val_type(ty)?));
        }
        let ours = Locals {
            address: count,
            length: count + 1,
            vector: count + 2,
        };
        locals.extend([(2, self.address()), (1, ValType::V128)]);
        let mut function = Function::new(locals);
        function.instruction(&Instruction::I32Const(id as i32));
        function.instruction(&Instruction::Call(self.enter()));
        function.instruction(&Instruction::Block(self.body_block(type_index, &mut plain)?));
        let mut reader = body.get_operators_reader()?;
        // Blocks that are open, the one around the body included.
        let mut depth = 1_u32;
        while !reader.eof() {
            let operator = reader.read()?;
            match operator {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => depth += 1,
                Operator::End => depth -= 1,
                _ => {}
            }
            self.before(&operator, ours, &mut function);
            if matches!(operator, Operator::Return) {
                function.instruction(&Instruction::Br(depth - 1));
            } else {
                function.instruction(&plain.instruction(operator.clone())?);
            }
            if let Some(offset) = loaded(&operator) {
                self.mark_read(offset, ours, &mut function);
            }
        }
        function.instruction(&Instruction::Call(self.leave()));
        function.instruction(&Instruction::End);
        Ok(function)
    }

    /// What comes before an operator.
    fn before(&self, operator: &Operator<'_>, ours: Locals, function: &mut Function) {
        match operator {
            Operator::ReturnCall { .. } | Operator::ReturnCallIndirect { .. } => {
                function.instruction(&Instruction::Call(self.leave()));
            }
            Operator::MemoryCopy { .. } => {
                // Both sizes are those of the one heap.
                function.instruction(&Instruction::LocalSet(ours.length));
                function.instruction(&Instruction::LocalTee(ours.address));
                for local in [ours.address, ours.length] {
                    function.instruction(&Instruction::LocalGet(local));
                    if self.width == WasmWidth::Wasm32 {
                        function.instruction(&Instruction::I64ExtendI32U);
                    }
                }
                function.instruction(&Instruction::Call(self.read()));
                function.instruction(&Instruction::LocalGet(ours.length));
            }
            Operator::V128Load8Lane { .. }
            | Operator::V128Load16Lane { .. }
            | Operator::V128Load32Lane { .. }
            | Operator::V128Load64Lane { .. } => {
                function.instruction(&Instruction::LocalSet(ours.vector));
                function.instruction(&Instruction::LocalTee(ours.address));
                function.instruction(&Instruction::LocalGet(ours.vector));
            }
            _ if loaded(operator).is_some() => {
                function.instruction(&Instruction::LocalTee(ours.address));
            }
            _ => {}
        }
    }

    /// The load has succeeded, so the sum does not wrap.
    fn mark_read(&self, offset: u64, ours: Locals, function: &mut Function) {
        function.instruction(&Instruction::LocalGet(ours.address));
        match self.width {
            WasmWidth::Wasm32 => {
                function.instruction(&Instruction::I32Const(offset as u32 as i32));
                function.instruction(&Instruction::I32Add);
                function.instruction(&Instruction::I32Const(OS_PAGE_BITS));
                function.instruction(&Instruction::I32ShrU);
            }
            WasmWidth::Wasm64 => {
                function.instruction(&Instruction::I64Const(offset as i64));
                function.instruction(&Instruction::I64Add);
                function.instruction(&Instruction::I64Const(OS_PAGE_BITS.into()));
                function.instruction(&Instruction::I64ShrU);
                function.instruction(&Instruction::I32WrapI64);
            }
        }
        function.instruction(&Instruction::I32Const(1));
        function.instruction(&Instruction::I32Store8(MemArg {
            offset: 0,
            align: 0,
            target: MemArgTarget::Memory(READS_MEMORY),
            ordering: None,
        }));
    }
}

/// Our locals in one function.
#[derive(Clone, Copy)]
struct Locals {
    address: u32,
    length: u32,
    vector: u32,
}

type Encoded<T> = Result<T, Error<Infallible>>;

/// Moves references to functions behind the added imports.
struct Shift {
    imports: u32,
}

impl Shift {
    fn behind(imports: u32) -> Self {
        Self { imports }
    }
}

impl Reencode for Shift {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Encoded<u32> {
        Ok(if function < self.imports {
            function
        } else {
            function + EVENTS
        })
    }
}

impl Reencode for Events<'_, '_> {
    type Error = Infallible;

    fn function_index(&mut self, function: u32) -> Encoded<u32> {
        Shift::behind(self.imports).function_index(function)
    }

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: wasmparser::TypeSectionReader<'_>,
    ) -> Encoded<()> {
        utils::parse_type_section(self, types, section)?;
        types.ty().function([ValType::I32], []);
        types.ty().function([], []);
        types.ty().function([ValType::I64, ValType::I64], []);
        for index in 0..self.parsed.types.len() as u32 {
            let results = self.parsed.function_type(index).map_or(&[][..], |ty| ty.results());
            let results = results
                .iter()
                .map(|ty| self.val_type(*ty))
                .collect::<Result<Vec<_>, _>>()?;
            types.ty().function([], results);
        }
        Ok(())
    }

    fn parse_import_section(
        &mut self,
        imports: &mut ImportSection,
        section: wasmparser::ImportSectionReader<'_>,
    ) -> Encoded<()> {
        utils::parse_import_section(self, imports, section)?;
        for (number, name) in [symbols::ENTER, symbols::LEAVE, symbols::READ].into_iter().enumerate() {
            let ty = EntityType::Function(self.first_type() + number as u32);
            imports.import(symbols::HOST_MODULE, name, ty);
        }
        Ok(())
    }

    fn parse_memory_section(
        &mut self,
        memories: &mut MemorySection,
        section: wasmparser::MemorySectionReader<'_>,
    ) -> Encoded<()> {
        utils::parse_memory_section(self, memories, section)?;
        let bytes_max = match self.width {
            WasmWidth::Wasm32 => WASM32_HEAP_BYTES_MAX,
            WasmWidth::Wasm64 => WASM64_HEAP_BYTES_MAX,
        };
        let pages = bytes_max / OS_PAGE_BYTES as u64 / WASM_PAGE_BYTES as u64;
        memories.memory(MemoryType {
            minimum: pages,
            maximum: Some(pages),
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Encoded<()> {
        utils::parse_export_section(self, exports, section)?;
        if self.has_heap() {
            exports.export(symbols::READS, ExportKind::Memory, READS_MEMORY);
        }
        Ok(())
    }

    /// Hints for branches name places that are elsewhere now.
    fn parse_custom_section(&mut self, _: &mut Module, _: wasmparser::CustomSectionReader<'_>) -> Encoded<()> {
        Ok(())
    }

    fn parse_function_body(&mut self, code: &mut CodeSection, body: FunctionBody<'_>) -> Encoded<()> {
        let function = self.next_function;
        self.next_function += 1;
        let Some(id) = self.id(function) else {
            return utils::parse_function_body(self, code, body);
        };
        let type_index = self.parsed.functions[(function - self.imports) as usize];
        let body = self.body(id, type_index, &body)?;
        code.function(&body);
        Ok(())
    }
}

/// The static offset of a load from the heap.
fn loaded(operator: &Operator<'_>) -> Option<u64> {
    let memarg = accesses::loaded(operator)?;
    // Loops of the instrumented code save locals behind the marks.
    matches!(memarg.target, wasmparser::MemArgTarget::Memory(HEAP_MEMORY)).then_some(memarg.offset)
}
