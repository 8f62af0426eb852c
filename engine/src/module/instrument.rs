//! The module as it is compiled.
//!
//! ```text
//! types     original, then ours
//! imports   original, then four host functions       -> defined functions move up by four
//! memories  heap (capped), marks and behind them a page of scratch
//! globals   original, then the instruction counter, then what is left of the stack
//! exports   methods, entry points, start; heap, marks, table, counter, stack, mutable globals
//! functions original with charges and marks, helpers, imports with their price
//! data      active segments emptied: they are the initial heap
//! ```
//! There is no start section, and the only custom section tells the compiler which branches are rare.

use super::chunks::chunked_loops;
use super::compile_charge::CompileCharge;
use super::decode::undecodable;
use super::error::WasmError;
use super::frames::Frame;
use super::helpers::helper_bodies;
use super::loops::tight_loops;
use super::names::FunctionNames;
use super::nans::canonicalised;
use super::parallel::map;
use super::parsed::Parsed;
use super::rewrite::{Layout, Rewriter, Rewritten, Source, TooManyLocals};
use super::system_calls::PricedImport;
use super::{CodeStyle, ValidatedModule, WriteTracking, symbols};
use crate::GlobalValue;
use replicore_types::fees::WasmWidth;
use replicore_types::limits::{WASM32_HEAP_BYTES_MAX, WASM64_HEAP_BYTES_MAX};
use replicore_types::{OS_PAGE_BYTES, WASM_PAGE_BYTES};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wasm_encoder::reencode::{Error, Reencode, utils};
use wasm_encoder::{
    BranchHint, BranchHints, CodeSection, ConstExpr, DataCountSection, DataSection, ElementSection, EntityType,
    ExportKind, ExportSection, FunctionSection, GlobalSection, GlobalType, ImportSection, MemorySection, MemoryType,
    Module, TableSection, TypeSection, ValType,
};
use wasmparser::{DataKind, ExternalKind, FunctionBody, Operator, TypeRef};

/// Host functions that instrumentation adds to the imports.
pub(super) const HOST_FUNCTIONS: u32 = 4;

/// An active data segment: bytes of the initial heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataSegment<'a> {
    /// Address of the first byte.
    pub offset: u64,
    /// Content; lies within the initial memory.
    pub bytes: &'a [u8],
}

/// The heap of an instrumented module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeapLayout {
    /// Wasm pages at installation.
    pub initial_pages: u64,
    /// Wasm pages that it never exceeds: what the module declares or the protocol's bound.
    pub maximum_pages: u64,
    /// Bytes of the memory of marks: one for every OS page of the largest heap of this width.
    pub marks_bytes: u64,
}

/// A module ready to be compiled by an engine with bulk memory, reference types, SIMD, tail calls, multi-memory and
/// (for wasm64) memory64.
#[derive(Clone, Debug)]
pub struct Instrumented<'a> {
    /// The module.
    pub wasm: Vec<u8>,
    /// What preparing it costs.
    pub compile_charge: CompileCharge,
    /// The heap, if the module has one.
    pub heap: Option<HeapLayout>,
    /// Initial content of the heap, in the order in which it is to be written: later segments overwrite earlier ones.
    pub data_segments: Vec<DataSegment<'a>>,
    /// Initial values of the mutable globals, in the order of definition.
    pub globals: Vec<GlobalValue>,
    /// Exports of the mutable globals, in the same order.
    pub global_exports: Vec<String>,
    /// True where [`symbols::TABLE`] is exported.
    pub has_table: bool,
    /// True where [`symbols::START`] is exported.
    pub has_start: bool,
    /// True where the module contains `data.drop`: an instance that ran such a module must not serve another message,
    /// since dropped segments come back with the next one. Tables never change, and `elem.drop` has no effect that a
    /// canister could observe.
    pub drops_data_segments: bool,
    /// How backtraces name functions.
    pub function_names: FunctionNames,
}

/// Rewrites a module.
///
/// # Errors
/// IC0521 where a function has so many locals that there is no room for those that instrumentation adds.
pub fn instrument<'a>(
    module: &ValidatedModule<'a>,
    tracking: WriteTracking,
    style: CodeStyle,
) -> Result<Instrumented<'a>, WasmError> {
    let parsed = &module.parsed;
    let heap = heap_layout(parsed, module.width());
    let globals = mutable_globals(parsed)?;
    Ok(Instrumented {
        wasm: Assembly::new(module, heap, tracking, style)
            .assemble()
            .map_err(refusal)?,
        compile_charge: module.compile_charge(),
        heap,
        data_segments: module.data_segments.clone(),
        global_exports: globals.iter().map(|(index, _)| symbols::global(*index)).collect(),
        globals: globals.into_iter().map(|(_, value)| value).collect(),
        has_table: !parsed.tables.is_empty(),
        has_start: parsed.start.is_some(),
        drops_data_segments: module.drops_data_segments,
        function_names: module.function_names(),
    })
}

/// The production replica has the same limit, though not for the same functions.
fn refusal(error: Error<TooManyLocals>) -> WasmError {
    match error {
        Error::UserError(TooManyLocals) => WasmError::engine("Error in Wasm compilation"),
        error => undecodable(error),
    }
}

fn heap_layout(parsed: &Parsed<'_>, width: WasmWidth) -> Option<HeapLayout> {
    let memory = parsed.memories.first()?;
    let bytes_max = match width {
        WasmWidth::Wasm32 => WASM32_HEAP_BYTES_MAX,
        WasmWidth::Wasm64 => WASM64_HEAP_BYTES_MAX,
    };
    let pages_max = bytes_max / WASM_PAGE_BYTES as u64;
    Some(HeapLayout {
        initial_pages: memory.initial,
        maximum_pages: memory.maximum.map_or(pages_max, |declared| declared.min(pages_max)),
        marks_bytes: bytes_max / OS_PAGE_BYTES as u64,
    })
}

/// Index and initial value of every mutable global.
fn mutable_globals(parsed: &Parsed<'_>) -> Result<Vec<(u32, GlobalValue)>, WasmError> {
    let mutable = (0..).zip(&parsed.globals).filter(|(_, global)| global.ty.mutable);
    mutable
        .map(|(index, global)| {
            let value = match global.init_expr.get_operators_reader().read().map_err(undecodable)? {
                Operator::I32Const { value } => GlobalValue::I32(value),
                Operator::I64Const { value } => GlobalValue::I64(value),
                Operator::F32Const { value } => GlobalValue::F32(value.bits()),
                Operator::F64Const { value } => GlobalValue::F64(value.bits()),
                Operator::V128Const { value } => GlobalValue::V128(value.i128() as u128),
                other => {
                    return Err(undecodable(format_args!(
                        "unexpected initial value of a global: {other:?}"
                    )));
                }
            };
            Ok((index, value))
        })
        .collect()
}

type Result_<T> = Result<T, Error<TooManyLocals>>;

/// Moves references to defined functions behind the added imports and those to imported ones to the functions that
/// charge for them, and makes `externref` a `funcref`, see [`super::rewrite`]; all else is encoded as it was.
struct Shift {
    layout: Layout,
}

impl Reencode for Shift {
    type Error = TooManyLocals;

    fn function_index(&mut self, function: u32) -> Result_<u32> {
        Ok(self.layout.function(function))
    }

    fn abstract_heap_type(&mut self, ty: wasmparser::AbstractHeapType) -> Result_<wasm_encoder::AbstractHeapType> {
        Ok(match ty {
            wasmparser::AbstractHeapType::Extern => wasm_encoder::AbstractHeapType::Func,
            other => utils::abstract_heap_type(self, other),
        })
    }
}

/// Puts the sections together.
struct Assembly<'m, 'a> {
    module: &'m ValidatedModule<'a>,
    parsed: &'m Parsed<'a>,
    heap: Option<HeapLayout>,
    layout: Layout,
    shift: Shift,
}

impl<'m, 'a> Assembly<'m, 'a> {
    fn new(
        module: &'m ValidatedModule<'a>,
        heap: Option<HeapLayout>,
        tracking: WriteTracking,
        style: CodeStyle,
    ) -> Self {
        let parsed = &module.parsed;
        let imported = parsed.imported_functions().count() as u32;
        let defined = parsed.functions.len() as u32;
        let layout = Layout {
            width: module.width(),
            imported_functions: imported,
            out_of_instructions: imported,
            try_grow_memory: imported + 1,
            stack_overflow: imported + 2,
            charge_system_call: imported + 3,
            first_helper: imported + HOST_FUNCTIONS + defined,
            first_system_call: imported + HOST_FUNCTIONS + defined + helper_count(heap.is_some()) as u32,
            counter: parsed.globals.len() as u32,
            stack: parsed.globals.len() as u32 + 1,
            scratch: heap.map(|heap| heap.marks_bytes),
            marks: tracking == WriteTracking::Barrier,
            style,
        };
        Self {
            module,
            parsed,
            heap,
            layout,
            shift: Shift { layout },
        }
    }

    fn assemble(mut self) -> Result_<Vec<u8>> {
        let mut module = Module::new();
        module.section(&self.types()?);
        module.section(&self.imports()?);
        module.section(&self.functions());
        if !self.parsed.tables.is_empty() {
            module.section(&self.tables()?);
        }
        if let Some(heap) = self.heap {
            module.section(&self.memories(heap));
        }
        module.section(&self.globals()?);
        module.section(&self.exports()?);
        if !self.parsed.elements.is_empty() {
            module.section(&self.elements()?);
        }
        if self.parsed.data_count.is_some() {
            module.section(&DataCountSection {
                count: self.parsed.data.len() as u32,
            });
        }
        let (code, hints) = self.code()?;
        module.section(&hints);
        module.section(&code);
        if self.parsed.data_count.is_some() || self.has_passive_data() {
            module.section(&self.data());
        }
        Ok(module.finish())
    }

    fn types(&mut self) -> Result_<TypeSection> {
        let mut types = TypeSection::new();
        if let Some(section) = self.parsed.type_section.clone() {
            utils::parse_type_section(&mut self.shift, &mut types, section)?;
        }
        for (parameters, results) in OUR_TYPES {
            types.ty().function(parameters.iter().copied(), results.iter().copied());
        }
        Ok(types)
    }

    /// Index of one of [`OUR_TYPES`].
    fn our_type(&self, which: usize) -> u32 {
        (self.parsed.types.len() + which) as u32
    }

    fn imports(&mut self) -> Result_<ImportSection> {
        let mut imports = ImportSection::new();
        for import in &self.parsed.imports {
            imports.import(import.module, import.name, self.shift.entity_type(import.ty)?);
        }
        for (name, which) in [
            (symbols::OUT_OF_INSTRUCTIONS, LONG_TO_LONG),
            (symbols::TRY_GROW_MEMORY, LONGS_TO_INT),
            (symbols::STACK_OVERFLOW, NOTHING),
            (symbols::CHARGE_SYSTEM_CALL, FOUR_LONGS),
        ] {
            imports.import(symbols::HOST_MODULE, name, EntityType::Function(self.our_type(which)));
        }
        Ok(imports)
    }

    fn functions(&self) -> FunctionSection {
        let mut functions = FunctionSection::new();
        for type_index in &self.parsed.functions {
            functions.function(*type_index);
        }
        for which in HELPER_TYPES.iter().take(helper_count(self.heap.is_some())) {
            functions.function(self.our_type(*which));
        }
        for type_index in self.parsed.imported_functions() {
            functions.function(type_index);
        }
        functions
    }

    /// The functions of the System API that the module imports, with what they cost.
    fn priced_imports(&self) -> impl Iterator<Item = PricedImport> {
        let names = self
            .parsed
            .imports
            .iter()
            .filter(|import| matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)))
            .map(|import| import.name);
        (0..)
            .zip(self.parsed.imported_functions().zip(names))
            .map(|(import, (type_index, name))| {
                let parameters = self
                    .parsed
                    .function_type(type_index)
                    .map_or(&[][..], |function| function.params());
                PricedImport::new(import, name, parameters)
            })
    }

    fn tables(&mut self) -> Result_<TableSection> {
        let mut tables = TableSection::new();
        for table in &self.parsed.tables {
            utils::parse_table(&mut self.shift, &mut tables, table.clone())?;
        }
        Ok(tables)
    }

    fn memories(&self, heap: HeapLayout) -> MemorySection {
        let mut memories = MemorySection::new();
        // One more for the locals that loops save.
        let marks_pages = heap.marks_bytes / WASM_PAGE_BYTES as u64 + 1;
        let memory = |memory64, minimum, maximum| MemoryType {
            minimum,
            maximum: Some(maximum),
            memory64,
            shared: false,
            page_size_log2: None,
        };
        memories.memory(memory(
            self.layout.width == WasmWidth::Wasm64,
            heap.initial_pages,
            heap.maximum_pages,
        ));
        memories.memory(memory(false, marks_pages, marks_pages));
        memories
    }

    fn globals(&mut self) -> Result_<GlobalSection> {
        let mut globals = GlobalSection::new();
        for global in &self.parsed.globals {
            utils::parse_global(&mut self.shift, &mut globals, global.clone())?;
        }
        let mutable = |val_type| GlobalType {
            val_type,
            mutable: true,
            shared: false,
        };
        globals.global(mutable(ValType::I64), &ConstExpr::i64_const(0));
        globals.global(mutable(ValType::I32), &ConstExpr::i32_const(0));
        Ok(globals)
    }

    fn exports(&mut self) -> Result_<ExportSection> {
        let mut exports = ExportSection::new();
        for export in &self.parsed.exports {
            if export.kind == ExternalKind::Func && export.name.starts_with("canister_") {
                exports.export(export.name, ExportKind::Func, self.shift.function_index(export.index)?);
            }
        }
        if let Some(start) = self.parsed.start {
            exports.export(symbols::START, ExportKind::Func, self.shift.function_index(start)?);
        }
        if self.heap.is_some() {
            exports.export(symbols::HEAP, ExportKind::Memory, 0);
            exports.export(symbols::MARKS, ExportKind::Memory, super::rewrite::MARKS_MEMORY);
        }
        if !self.parsed.tables.is_empty() {
            exports.export(symbols::TABLE, ExportKind::Table, 0);
        }
        exports.export(symbols::COUNTER, ExportKind::Global, self.layout.counter);
        exports.export(symbols::STACK, ExportKind::Global, self.layout.stack);
        for (index, global) in (0..).zip(&self.parsed.globals) {
            if global.ty.mutable {
                exports.export(&symbols::global(index), ExportKind::Global, index);
            }
        }
        Ok(exports)
    }

    fn elements(&mut self) -> Result_<ElementSection> {
        let mut elements = ElementSection::new();
        for element in &self.parsed.elements {
            utils::parse_element(&mut self.shift, &mut elements, element.clone())?;
        }
        Ok(elements)
    }

    fn code(&self) -> Result_<(CodeSection, BranchHints)> {
        let (mut code, mut hints) = (CodeSection::new(), BranchHints::new());
        let first = self.layout.imported_functions + HOST_FUNCTIONS;
        let bodies = self.parsed.functions.iter().zip(&self.parsed.bodies);
        let bodies = bodies.zip(&self.module.frames).collect();
        let rewritten = map(bodies, |((type_index, body), frame)| {
            self.rewrite(*type_index, body, *frame)
        });
        for (function, rewritten) in (first..).zip(rewritten) {
            let rewritten = rewritten?;
            code.function(&rewritten.function);
            hints.function_hints(function, rewritten.rare.into_iter().map(not_taken));
        }
        for helper in helper_bodies(self.layout)
            .iter()
            .take(helper_count(self.heap.is_some()))
        {
            code.function(helper);
        }
        for import in self.priced_imports() {
            code.function(&import.body(self.layout));
        }
        Ok((code, hints))
    }

    fn rewrite(&self, type_index: u32, body: &FunctionBody<'_>, frame: Frame) -> Result_<Rewritten> {
        let Some(ty) = self.parsed.function_type(type_index) else {
            return Err(Error::CanonicalizedHeapTypeReference);
        };
        let (mut tight_loops, chunked_loops) = match self.layout.style {
            CodeStyle::Short => (BTreeMap::new(), BTreeMap::new()),
            CodeStyle::Fast => (tight_loops(self.parsed, body)?, chunked_loops(self.parsed, body)?),
        };
        for chunked in chunked_loops.values() {
            // Their careful turns are rare.
            if let Some(tight) = tight_loops.get_mut(&chunked.head) {
                tight.stepped_stores.clear();
            }
        }
        let source = Source {
            parameter_types: ty.params(),
            frame,
            frames: &self.module.frames,
            canonicalised: canonicalised(self.parsed, ty, body)?,
            tight_loops,
            chunked_loops,
        };
        let mut types = Shift { layout: self.layout };
        Rewriter::new(self.layout, self.module.wasm, source).rewrite(body, &mut types)
    }

    fn has_passive_data(&self) -> bool {
        self.parsed
            .data
            .iter()
            .any(|segment| matches!(segment.kind, DataKind::Passive))
    }

    /// Active segments keep their index: as after instantiation, they are empty.
    fn data(&self) -> DataSection {
        let mut data = DataSection::new();
        for segment in &self.parsed.data {
            let bytes: &[u8] = match segment.kind {
                DataKind::Passive => segment.data,
                DataKind::Active { .. } => &[],
            };
            data.passive(bytes.iter().copied());
        }
        data
    }
}

fn not_taken(branch_func_offset: u32) -> BranchHint {
    BranchHint {
        branch_func_offset,
        branch_hint_value: 0,
    }
}

/// Function types of host functions and helpers.
const OUR_TYPES: [(&[ValType], &[ValType]); 6] = [
    (&[ValType::I64], &[ValType::I64]),
    (&[ValType::I64, ValType::I64], &[ValType::I32]),
    (&[], &[]),
    (&[ValType::I64], &[]),
    (&[ValType::I64, ValType::I64], &[]),
    (&[ValType::I64, ValType::I64, ValType::I64, ValType::I64], &[]),
];
const LONG_TO_LONG: usize = 0;
const LONGS_TO_INT: usize = 1;
const NOTHING: usize = 2;
const FOUR_LONGS: usize = 5;
/// Types of the helpers: refill, charge, mark.
const HELPER_TYPES: [usize; 3] = [2, 3, 4];

/// Without a heap nothing is marked.
pub(super) fn helper_count(has_heap: bool) -> usize {
    if has_heap {
        HELPER_TYPES.len()
    } else {
        HELPER_TYPES.len() - 1
    }
}
