//! Rules about everything but code.

use crate::module::error::{Advice, WasmError};
use crate::module::imports::signature;
use crate::module::instrument::DataSegment;
use crate::module::parsed::Parsed;
use crate::{CustomSection, CustomSectionVisibility, MethodKind};
use replicore_types::WASM_PAGE_BYTES;
use replicore_types::fees::WasmWidth;
use replicore_types::limits::{
    WASM_CUSTOM_SECTIONS_BYTES_MAX, WASM_CUSTOM_SECTIONS_MAX, WASM_EXPORTED_METHODS_MAX, WASM_EXPORTED_NAMES_BYTES_MAX,
    WASM_FUNCTIONS_MAX, WASM_GLOBALS_MAX, WASM64_HEAP_BYTES_MAX,
};
use std::collections::{BTreeMap, BTreeSet};
use wasmparser::{DataKind, ExternalKind, FuncType, Operator, TypeRef, ValType};

/// Names that the production replica exports from the instrumented module.
const RESERVED_EXPORTS: &[&str] = &[
    "canister counter_instructions",
    "canister_start",
    "canister counter_dirty_pages",
    "canister counter_accessed_pages",
    "stable_memory",
    "stable_memory_bytemap",
];

/// What the system may call besides methods.
const SYSTEM_ENTRY_POINTS: &[&str] = &[
    "canister_init",
    "canister_pre_upgrade",
    "canister_post_upgrade",
    "canister_inspect_message",
    "canister_heartbeat",
    "canister_global_timer",
    "canister_on_low_wasm_memory",
];

const METHOD_PREFIXES: &[(&str, MethodKind)] = &[
    ("canister_update ", MethodKind::Update),
    ("canister_query ", MethodKind::Query),
    ("canister_composite_query ", MethodKind::CompositeQuery),
];

/// Functions from `ic0` with exact types; other kinds of imports are refused here or when the engine links.
pub(super) fn check_imports(parsed: &Parsed<'_>) -> Result<(), WasmError> {
    let width = parsed.width();
    for import in &parsed.imports {
        let refusal = match import.ty {
            TypeRef::Func(type_index) | TypeRef::FuncExact(type_index) => {
                check_imported_function(parsed, import.module, import.name, type_index, width)?;
                continue;
            }
            TypeRef::Table(_) if import.name == "table" && import.module != "env" => {
                "Only tables imported from env.table are allowed."
            }
            TypeRef::Memory(_) if import.name == "memory" && import.module != "env" => {
                "Only memory imported from env.memory is allowed."
            }
            TypeRef::Global(_) => "Importing globals is not allowed.",
            TypeRef::Tag(_) => "Importing tags is not allowed.",
            TypeRef::Table(_) | TypeRef::Memory(_) => continue,
        };
        return Err(invalid_import(refusal));
    }
    Ok(())
}

fn check_imported_function(
    parsed: &Parsed<'_>,
    module: &str,
    name: &str,
    type_index: u32,
    width: WasmWidth,
) -> Result<(), WasmError> {
    let Some((parameters, results)) = signature(name, width).filter(|_| module == "ic0") else {
        return Err(invalid_import(format_args!(
            "Module imports function '{name}' from '{module}' that is not exported by the runtime."
        )));
    };
    match parsed.function_type(type_index) {
        Some(function) => check_signature(name, function, &parameters, &results),
        None => Err(invalid_import("Function import doesn't have a function type.")),
    }
}

fn invalid_import(reason: impl std::fmt::Display) -> WasmError {
    WasmError::invalid(format_args!("Wasm module has an invalid import section. {reason}"))
}

fn check_signature(
    name: &str,
    function: &FuncType,
    parameters: &[ValType],
    results: &[ValType],
) -> Result<(), WasmError> {
    let (what, expected, got) = if function.params() != parameters {
        ("input params", parameters, function.params())
    } else if function.results() != results {
        ("return type", results, function.results())
    } else {
        return Ok(());
    };
    Err(WasmError::invalid(format_args!(
        "Wasm module has an invalid function signature. Expected {what} {expected:?} for '{name}', got {got:?}."
    )))
}

/// Methods and system entry points: known names, right types, no method in two kinds, bounded in number and length.
pub(super) fn check_exports(
    parsed: &Parsed<'_>,
) -> Result<(BTreeMap<String, MethodKind>, BTreeSet<String>), WasmError> {
    let (mut methods, mut system) = (BTreeMap::new(), BTreeSet::new());
    for export in &parsed.exports {
        let name = export.name;
        if RESERVED_EXPORTS.contains(&name) {
            return Err(invalid_export(format_args!(
                "Exporting reserved symbol {name} not allowed."
            )));
        }
        if export.kind != ExternalKind::Func {
            continue;
        }
        if let Some((method, kind)) = method_of(name) {
            if methods.insert(method.to_owned(), kind).is_some() {
                return Err(duplicate_method(method));
            }
        } else if SYSTEM_ENTRY_POINTS.contains(&name) {
            system.insert(name.to_owned());
        } else if name.starts_with("canister_") {
            return Err(invalid_export(format_args!(
                "Exporting reserved function '{name}' with \"canister_\" prefix"
            )));
        } else {
            continue;
        }
        match parsed.type_of_function(export.index) {
            Some(function) => check_signature(name, function, &[], &[])?,
            None => return Err(invalid_export("Function export doesn't have a function type.")),
        }
    }
    check_method_counts(&methods)?;
    Ok((methods, system))
}

fn method_of(export: &str) -> Option<(&str, MethodKind)> {
    METHOD_PREFIXES
        .iter()
        .find_map(|(prefix, kind)| Some((export.strip_prefix(prefix)?, *kind)))
}

fn invalid_export(reason: impl std::fmt::Display) -> WasmError {
    WasmError::invalid(format_args!("Wasm module has an invalid export section. {reason}"))
}

fn duplicate_method(name: &str) -> WasmError {
    WasmError::invalid_with(
        format_args!(
            "Duplicate function '{name}' exported multiple times with different call types: update, query, or \
             composite_query."
        ),
        Advice::User(
            format!(
                "Try defining different versions of the function for each call type, e.g. `{name}_update`, \
                 `{name}_query`, etc."
            ),
            "wasm-module-duplicate-exports",
        ),
    )
}

fn check_method_counts(methods: &BTreeMap<String, MethodKind>) -> Result<(), WasmError> {
    const KINDS: &str = "exported functions called `canister_update <name>`, `canister_query <name>`, or `canister_composite_query <name>`";
    let count = methods.len();
    if count > WASM_EXPORTED_METHODS_MAX {
        return Err(WasmError::invalid_with(
            format_args!("The number of {KINDS} is {count} which exceeds {WASM_EXPORTED_METHODS_MAX}."),
            Advice::User(
                "Try combining multiple endpoints into a single endpoint.".to_owned(),
                "wasm-module-exports-too-many-methods",
            ),
        ));
    }
    let bytes: usize = methods.keys().map(String::len).sum();
    if bytes > WASM_EXPORTED_NAMES_BYTES_MAX {
        return Err(WasmError::invalid_with(
            format_args!(
                "The sum of `<name>` lengths in {KINDS} is {bytes} which exceeds the allowed limit of \
                 {WASM_EXPORTED_NAMES_BYTES_MAX}."
            ),
            Advice::User(
                "Try using shorter method names.".to_owned(),
                "wasm-module-sum-of-exported-name-lengths-too-large",
            ),
        ));
    }
    Ok(())
}

/// Tables hold functions only.
pub(super) fn check_tables(parsed: &Parsed<'_>) -> Result<(), WasmError> {
    match parsed.tables.iter().find(|table| !table.ty.element_type.is_func_ref()) {
        None => Ok(()),
        Some(table) => Err(WasmError::invalid(format_args!(
            "Wasm module has an invalid table section. Table element type must be funcref, got {}",
            table.ty.element_type
        ))),
    }
}

/// Offsets of active data segments are one constant of the memory's width.
pub(super) fn check_data(parsed: &Parsed<'_>) -> Result<(), WasmError> {
    let bits = match parsed.width() {
        WasmWidth::Wasm32 => 32,
        WasmWidth::Wasm64 => 64,
    };
    for segment in &parsed.data {
        let DataKind::Active { offset_expr, .. } = &segment.kind else {
            continue;
        };
        let first = offset_expr.get_operators_reader().read();
        match (first, bits) {
            (Ok(Operator::I32Const { .. }), 32) | (Ok(Operator::I64Const { .. }), 64) => {}
            (first, _) => {
                return Err(WasmError::invalid(format_args!(
                    "Wasm module has an invalid data section. Invalid offset expression in data segment for {bits}bit \
                     memory: {first:?}"
                )));
            }
        }
    }
    Ok(())
}

/// Globals hold numbers or vectors, and are few: every one is saved and restored.
pub(super) fn check_globals(parsed: &Parsed<'_>) -> Result<(), WasmError> {
    let count = parsed.globals.len();
    if count > WASM_GLOBALS_MAX {
        return Err(WasmError::invalid_with(
            format_args!(
                "Wasm module defined {count} globals which exceeds the maximum number allowed {WASM_GLOBALS_MAX}."
            ),
            Advice::User(
                "Try collecting multiple globals into a single structured which can be stored on the heap.".to_owned(),
                "wasm-module-too-many-globals",
            ),
        ));
    }
    match parsed
        .globals
        .iter()
        .map(|global| global.ty.content_type)
        .find(|ty| matches!(ty, ValType::Ref(_)))
    {
        None => Ok(()),
        Some(ty) => Err(WasmError::invalid(format_args!(
            "Wasm module has an invalid global section. Unsupported global type: {ty:?}"
        ))),
    }
}

pub(super) fn check_function_count(parsed: &Parsed<'_>) -> Result<(), WasmError> {
    let count = parsed.functions.len();
    if count <= WASM_FUNCTIONS_MAX {
        return Ok(());
    }
    Err(WasmError::invalid_with(
        format_args!(
            "Wasm module defined {count} functions which exceeds the maximum number allowed {WASM_FUNCTIONS_MAX}."
        ),
        Advice::User(
            "Try spliting this canister into multiple canisters.".to_owned(),
            "wasm-module-too-many-functions",
        ),
    ))
}

/// The Wasm validator bounds 32-bit memories; the bound of 64-bit ones is ours.
pub(super) fn check_memory_size(parsed: &Parsed<'_>) -> Result<(), WasmError> {
    let pages_max = WASM64_HEAP_BYTES_MAX / WASM_PAGE_BYTES as u64;
    match parsed.memories.first() {
        Some(memory) if memory.memory64 && memory.initial > pages_max => Err(WasmError::invalid_with(
            format_args!(
                "Wasm module declares an initial Wasm64 heap memory size of {} pages which exceeds the maximum \
                 allowed size of {pages_max} pages.",
                memory.initial
            ),
            Advice::User(
                "Try reducing the initial Wasm64 heap memory size.".to_owned(),
                "wasm-module-initial-wasm64-memory-too-large",
            ),
        )),
        _ => Ok(()),
    }
}

/// The `icp:` custom sections: each name once, bounded in number and total size.
pub(super) fn custom_sections(parsed: &Parsed<'_>) -> Result<BTreeMap<String, CustomSection>, WasmError> {
    let mut sections = BTreeMap::new();
    let mut bytes = 0;
    for (section_name, content) in &parsed.custom_sections {
        let Some((name, visibility)) = icp_section(section_name)? else {
            continue;
        };
        if sections.contains_key(name) {
            return Err(invalid_custom(format_args!(
                "Invalid custom section: name {name} already exists"
            )));
        }
        bytes += name.len() + content.len();
        if bytes > WASM_CUSTOM_SECTIONS_BYTES_MAX {
            return Err(invalid_custom(format_args!(
                "Invalid custom sections: total size of the custom sections exceeds the maximum allowed: size {bytes} \
                 bytes, allowed {WASM_CUSTOM_SECTIONS_BYTES_MAX} bytes"
            )));
        }
        sections.insert(
            name.to_owned(),
            CustomSection {
                visibility,
                content: (*content).into(),
            },
        );
        let count = sections.len();
        if count > WASM_CUSTOM_SECTIONS_MAX {
            return Err(WasmError::invalid(format_args!(
                "Wasm module defined {count} custom sections which exceeds the maximum number allowed \
                 {WASM_CUSTOM_SECTIONS_MAX}."
            )));
        }
    }
    Ok(sections)
}

fn icp_section(section_name: &str) -> Result<Option<(&str, CustomSectionVisibility)>, WasmError> {
    if !section_name.starts_with("icp:") {
        Ok(None)
    } else if let Some(name) = section_name.strip_prefix("icp:public ") {
        Ok(Some((name, CustomSectionVisibility::Public)))
    } else if let Some(name) = section_name.strip_prefix("icp:private ") {
        Ok(Some((name, CustomSectionVisibility::Private)))
    } else if section_name == "icp:public" || section_name == "icp:private" {
        Err(invalid_custom(
            "'icp:' section names must have a space after the public/private scope",
        ))
    } else {
        Err(invalid_custom(format_args!(
            "Invalid custom section: Custom section '{section_name}' has no public/private scope defined."
        )))
    }
}

fn invalid_custom(reason: impl std::fmt::Display) -> WasmError {
    WasmError::invalid(format_args!("Wasm module has an invalid custom section. {reason}"))
}

/// The active data segments, which must lie within the initial memory.
pub(super) fn data_segments<'a>(parsed: &Parsed<'a>) -> Result<Vec<DataSegment<'a>>, WasmError> {
    let memory_bytes = parsed
        .memories
        .first()
        .map_or(0, |memory| memory.initial.saturating_mul(WASM_PAGE_BYTES as u64));
    let mut segments = Vec::new();
    for segment in &parsed.data {
        let DataKind::Active { offset_expr, .. } = &segment.kind else {
            continue;
        };
        // A 32-bit offset counts as negative from 2 GiB on, as in production.
        let offset = match offset_expr.get_operators_reader().read() {
            Ok(Operator::I32Const { value }) => i64::from(value) as u64,
            Ok(Operator::I64Const { value }) => value as u64,
            _ => u64::MAX,
        };
        let bytes = segment.data;
        if offset
            .checked_add(bytes.len() as u64)
            .is_none_or(|end| end > memory_bytes)
        {
            return Err(WasmError::not_instrumentable(format_args!(
                "Wasm module has invalid data segment of {} bytes at {offset}",
                bytes.len()
            )));
        }
        segments.push(DataSegment { offset, bytes });
    }
    Ok(segments)
}
