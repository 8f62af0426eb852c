//! A module taken apart: one pass over its sections, nothing copied but the directories.

use super::decode::undecodable;
use super::error::WasmError;
use replicore_types::fees::WasmWidth;
use std::collections::BTreeMap;
use wasmparser::{
    CompositeInnerType, Data, Element, Export, FuncType, FunctionBody, Global, Import, KnownCustom, MemoryType, Name,
    NameSectionReader, Parser, Payload, SubType, Table, TypeRef, TypeSectionReader,
};

/// The sections of a module that the Wasm validator accepted.
#[derive(Default)]
pub(super) struct Parsed<'a> {
    /// The type section as it is, to encode it again.
    pub type_section: Option<TypeSectionReader<'a>>,
    /// Its types in index order.
    pub types: Vec<SubType>,
    pub imports: Vec<Import<'a>>,
    /// Type index of every function that the module defines.
    pub functions: Vec<u32>,
    pub tables: Vec<Table<'a>>,
    pub memories: Vec<MemoryType>,
    pub globals: Vec<Global<'a>>,
    pub exports: Vec<Export<'a>>,
    pub start: Option<u32>,
    pub elements: Vec<Element<'a>>,
    pub data_count: Option<u32>,
    pub bodies: Vec<FunctionBody<'a>>,
    pub data: Vec<Data<'a>>,
    pub custom_sections: Vec<(&'a str, &'a [u8])>,
    /// Names of functions by index, where the name section gives any.
    pub function_names: BTreeMap<u32, &'a str>,
}

impl<'a> Parsed<'a> {
    /// Takes `wasm` apart. It must have passed the Wasm validator; an error is a disagreement between the two.
    pub fn new(wasm: &'a [u8]) -> Result<Self, WasmError> {
        let mut parsed = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            payload.and_then(|payload| parsed.add(payload)).map_err(undecodable)?;
        }
        Ok(parsed)
    }

    fn add(&mut self, payload: Payload<'a>) -> wasmparser::Result<()> {
        match payload {
            Payload::TypeSection(section) => {
                for group in section.clone() {
                    self.types.extend(group?.into_types());
                }
                self.type_section = Some(section);
            }
            Payload::ImportSection(section) => self.imports = section.into_imports().collect::<Result<_, _>>()?,
            Payload::FunctionSection(section) => self.functions = collect(section)?,
            Payload::TableSection(section) => self.tables = collect(section)?,
            Payload::MemorySection(section) => self.memories = collect(section)?,
            Payload::GlobalSection(section) => self.globals = collect(section)?,
            Payload::ExportSection(section) => self.exports = collect(section)?,
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(section) => self.elements = collect(section)?,
            Payload::DataCountSection { count, .. } => self.data_count = Some(count),
            Payload::CodeSectionEntry(body) => self.bodies.push(body),
            Payload::DataSection(section) => self.data = collect(section)?,
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(names) = section.as_known() {
                    self.add_names(names);
                }
                self.custom_sections.push((section.name(), section.data()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Names are for the reader of a backtrace: what is damaged is left out.
    fn add_names(&mut self, names: NameSectionReader<'a>) {
        for subsection in names.into_iter().map_while(Result::ok) {
            if let Name::Function(functions) = subsection {
                let named = functions.into_iter().map_while(Result::ok);
                self.function_names
                    .extend(named.map(|naming| (naming.index, naming.name)));
            }
        }
    }

    /// Pointer width: that of the first memory; 32 bits where there is none.
    pub fn width(&self) -> WasmWidth {
        match self.memories.first() {
            Some(memory) if memory.memory64 => WasmWidth::Wasm64,
            _ => WasmWidth::Wasm32,
        }
    }

    /// The function type with this type index.
    pub fn function_type(&self, type_index: u32) -> Option<&FuncType> {
        match &self.types.get(type_index as usize)?.composite_type.inner {
            CompositeInnerType::Func(function) => Some(function),
            _ => None,
        }
    }

    /// The type indices of the imported functions, in index order.
    pub fn imported_functions(&self) -> impl Iterator<Item = u32> + '_ {
        self.imports.iter().filter_map(|import| match import.ty {
            TypeRef::Func(type_index) | TypeRef::FuncExact(type_index) => Some(type_index),
            _ => None,
        })
    }

    /// The type of the function with this index in the function index space.
    pub fn type_of_function(&self, function_index: u32) -> Option<&FuncType> {
        self.function_type(self.type_index_of_function(function_index)?)
    }

    /// The type index of the function with this index in the function index space.
    pub fn type_index_of_function(&self, function_index: u32) -> Option<u32> {
        let mut all = self.imported_functions().chain(self.functions.iter().copied());
        all.nth(function_index as usize)
    }
}

fn collect<'a, T: wasmparser::FromReader<'a>>(
    section: wasmparser::SectionLimited<'a, T>,
) -> wasmparser::Result<Vec<T>> {
    section.into_iter().collect()
}
