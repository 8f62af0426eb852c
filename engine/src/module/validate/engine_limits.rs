//! Modules that keep the published rules and yet fail in the production replica, when its Wasm engine compiles, links
//! or instantiates them. Found here without an engine, so that the outcome does not depend on one.

use crate::module::error::WasmError;
use crate::module::parsed::Parsed;
use replicore_types::limits::WASM_TABLE_ELEMENTS_MAX;
use std::collections::BTreeSet;
use wasmparser::{ConstExpr, ElementItems, ElementKind, ExternalKind, Operator, TypeRef};

/// In the order in which an engine finds them: compile, link, allocate, initialise.
pub(super) fn check(parsed: &Parsed<'_>) -> Result<(), WasmError> {
    check_export_names(parsed)?;
    check_links(parsed)?;
    check_tables(parsed)?;
    check_elements(parsed)
}

/// The production replica renames the exports of memory and table and adds one for every mutable global that has none:
/// two of the same name do not compile.
fn check_export_names(parsed: &Parsed<'_>) -> Result<(), WasmError> {
    let mut names = BTreeSet::new();
    let mut unique = true;
    let mut exported_globals = BTreeSet::new();
    let (mut table, mut memory) = (false, false);
    for export in &parsed.exports {
        unique &= match export.kind {
            ExternalKind::Table => {
                table = true;
                names.insert("table".to_owned())
            }
            ExternalKind::Memory => {
                memory = true;
                names.insert("memory".to_owned())
            }
            kind => {
                if kind == ExternalKind::Global {
                    exported_globals.insert(export.index);
                }
                names.insert(export.name.to_owned())
            }
        };
    }
    unique &= table || parsed.tables.is_empty() || names.insert("table".to_owned());
    unique &= memory || parsed.memories.is_empty() || names.insert("memory".to_owned());
    for (index, global) in (0..).zip(&parsed.globals) {
        if global.ty.mutable && !exported_globals.contains(&index) {
            unique &= names.insert(format!("__persistent_mutable_global_{index}"));
        }
    }
    if unique {
        Ok(())
    } else {
        Err(WasmError::engine("Error in Wasm compilation"))
    }
}

/// Memories and tables may be imported by the published rules, but nothing provides them.
fn check_links(parsed: &Parsed<'_>) -> Result<(), WasmError> {
    let unknown = parsed
        .imports
        .iter()
        .find(|import| !matches!(import.ty, TypeRef::Func(_) | TypeRef::FuncExact(_)));
    match unknown {
        None => Ok(()),
        Some(import) => Err(WasmError::engine(format_args!(
            "unknown import: `{}::{}` has not been defined",
            import.module, import.name
        ))),
    }
}

fn check_tables(parsed: &Parsed<'_>) -> Result<(), WasmError> {
    let count = parsed.tables.len();
    if count > 1 {
        return Err(WasmError::engine(format_args!(
            "resource limit exceeded: table count too high at {count}"
        )));
    }
    match parsed.tables.first() {
        Some(table) if table.ty.initial > WASM_TABLE_ELEMENTS_MAX => Err(WasmError::engine(format_args!(
            "table minimum size of {} elements exceeds table limits",
            table.ty.initial
        ))),
        _ => Ok(()),
    }
}

fn check_elements(parsed: &Parsed<'_>) -> Result<(), WasmError> {
    let size = parsed.tables.first().map_or(0, |table| table.ty.initial);
    for element in &parsed.elements {
        let ElementKind::Active { offset_expr, .. } = &element.kind else {
            continue;
        };
        let count = match &element.items {
            ElementItems::Functions(functions) => functions.count(),
            ElementItems::Expressions(_, expressions) => expressions.count(),
        };
        let end = offset(offset_expr).and_then(|offset| offset.checked_add(u64::from(count)));
        if end.is_none_or(|end| end > size) {
            return Err(WasmError::engine(
                "wasm trap: undefined element: out of bounds table access",
            ));
        }
    }
    Ok(())
}

fn offset(expression: &ConstExpr<'_>) -> Option<u64> {
    match expression.get_operators_reader().read() {
        Ok(Operator::I32Const { value }) => Some(u64::from(value as u32)),
        Ok(Operator::I64Const { value }) => Some(value as u64),
        _ => None,
    }
}
