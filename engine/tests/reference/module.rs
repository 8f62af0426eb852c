//! A module in a form that can be walked.

use super::published_costs::{cost, ends_line};
use std::collections::BTreeMap;
use wasmparser::{
    ConstExpr, DataKind, ElementItems, ElementKind, ExternalKind, FuncType, FunctionBody, Operator, Parser, Payload,
    TypeRef, ValType,
};

/// A parsed module. It must be valid.
#[derive(Default)]
pub struct Module<'a> {
    pub types: Vec<FuncType>,
    /// Names of the imported functions.
    pub imports: Vec<&'a str>,
    /// Type of every function, imported ones first.
    pub function_types: Vec<u32>,
    pub functions: Vec<Function<'a>>,
    pub table: Vec<Option<u32>>,
    pub memory: Option<Memory>,
    /// Type, mutability and initial value.
    pub globals: Vec<(ValType, bool, u64)>,
    pub exports: BTreeMap<&'a str, u32>,
    pub data: Vec<Data<'a>>,
    pub start: Option<u32>,
}

/// Sizes in Wasm pages.
#[derive(Clone, Copy)]
pub struct Memory {
    pub initial: u64,
    pub maximum: u64,
    pub memory64: bool,
}

/// A data segment; active ones have an offset.
pub struct Data<'a> {
    pub offset: Option<u64>,
    pub bytes: &'a [u8],
}

/// A defined function.
pub struct Function<'a> {
    /// Locals besides the parameters.
    pub locals: usize,
    pub code: Vec<Operator<'a>>,
    pub costs: Vec<u64>,
    /// For every operator that opens a block: the position of its `else`, if there is one, and of its `end`.
    pub blocks: BTreeMap<usize, (Option<usize>, usize)>,
}

impl<'a> Module<'a> {
    /// Parses a valid module.
    pub fn parse(wasm: &'a [u8]) -> wasmparser::Result<Self> {
        let mut module = Self::default();
        let mut bodies = Vec::new();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::TypeSection(section) => {
                    for ty in section.into_iter_err_on_gc_types() {
                        module.types.push(ty?);
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        if let TypeRef::Func(ty) = import.ty {
                            module.imports.push(import.name);
                            module.function_types.push(ty);
                        }
                    }
                }
                Payload::FunctionSection(section) => {
                    for ty in section {
                        module.function_types.push(ty?);
                    }
                }
                Payload::TableSection(section) => {
                    for table in section {
                        module.table = vec![None; table?.ty.initial as usize];
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        let memory = memory?;
                        module.memory = Some(Memory {
                            initial: memory.initial,
                            maximum: memory.maximum.unwrap_or(65_536).min(65_536),
                            memory64: memory.memory64,
                        });
                    }
                }
                Payload::GlobalSection(section) => {
                    for global in section {
                        let global = global?;
                        let value = constant(&global.init_expr)?;
                        module.globals.push((global.ty.content_type, global.ty.mutable, value));
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        if export.kind == ExternalKind::Func {
                            module.exports.insert(export.name, export.index);
                        }
                    }
                }
                Payload::StartSection { func, .. } => module.start = Some(func),
                Payload::ElementSection(section) => {
                    for element in section {
                        let element = element?;
                        if let ElementKind::Active { offset_expr, .. } = element.kind {
                            module.place(constant(&offset_expr)?, element.items)?;
                        }
                    }
                }
                Payload::DataSection(section) => {
                    for data in section {
                        let data = data?;
                        let offset = match data.kind {
                            DataKind::Active { offset_expr, .. } => Some(constant(&offset_expr)?),
                            DataKind::Passive => None,
                        };
                        let bytes = data.data;
                        module.data.push(Data { offset, bytes });
                    }
                }
                Payload::CodeSectionEntry(body) => bodies.push(body),
                _ => {}
            }
        }
        let memory64 = module.memory.is_some_and(|memory| memory.memory64);
        module.functions = bodies
            .iter()
            .map(|body| Function::parse(body, memory64))
            .collect::<wasmparser::Result<_>>()?;
        Ok(module)
    }

    fn place(&mut self, offset: u64, items: ElementItems<'a>) -> wasmparser::Result<()> {
        let mut functions = Vec::new();
        match items {
            ElementItems::Functions(reader) => {
                for function in reader {
                    functions.push(Some(function?));
                }
            }
            ElementItems::Expressions(_, reader) => {
                for expression in reader {
                    functions.push(match expression?.get_operators_reader().read()? {
                        Operator::RefFunc { function_index } => Some(function_index),
                        _ => None,
                    });
                }
            }
        }
        for (position, function) in functions.into_iter().enumerate() {
            self.table[offset as usize + position] = function;
        }
        Ok(())
    }

    /// The type of a function, imported or defined.
    pub fn function_type(&self, function: u32) -> &FuncType {
        &self.types[self.function_types[function as usize] as usize]
    }
}

fn constant(expression: &ConstExpr<'_>) -> wasmparser::Result<u64> {
    Ok(match expression.get_operators_reader().read()? {
        Operator::I32Const { value } => u64::from(value as u32),
        Operator::I64Const { value } => value as u64,
        Operator::F32Const { value } => u64::from(value.bits()),
        Operator::F64Const { value } => value.bits(),
        other => panic!("an initial value that the generator does not make: {other:?}"),
    })
}

impl<'a> Function<'a> {
    fn parse(body: &FunctionBody<'a>, memory64: bool) -> wasmparser::Result<Self> {
        let mut locals = 0;
        for declaration in body.get_locals_reader()? {
            locals += declaration?.0 as usize;
        }
        let code = body
            .get_operators_reader()?
            .into_iter()
            .collect::<wasmparser::Result<Vec<_>>>()?;
        let (mut blocks, mut open) = (BTreeMap::new(), Vec::new());
        for (position, operator) in code.iter().enumerate() {
            match operator {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => open.push((position, None)),
                Operator::Else => open.last_mut().expect("`else` stands in a block").1 = Some(position),
                Operator::End => {
                    if let Some((start, middle)) = open.pop() {
                        blocks.insert(start, (middle, position));
                    }
                }
                _ => {}
            }
        }
        Ok(Self {
            locals,
            costs: code.iter().map(|operator| cost(operator, memory64)).collect(),
            code,
            blocks,
        })
    }

    /// What the straight line through `position` still costs from there on.
    pub fn rest_of_line(&self, position: usize) -> u64 {
        let mut rest = 0;
        for (operator, cost) in self.code.iter().zip(&self.costs).skip(position) {
            rest += cost;
            if ends_line(operator) {
                break;
            }
        }
        rest
    }
}
