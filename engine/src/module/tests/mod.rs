//! The chain as a whole: what is refused, what comes out, what is charged where.

use super::*;
use crate::{CustomSectionVisibility, GlobalValue, MethodKind};
use replicore_types::fees::WasmWidth;

mod costs;
mod frames;
#[cfg(feature = "wasm")]
mod golden;
mod lines;
mod random;
mod refusals;
#[cfg(feature = "wasm")]
mod running;

/// The instrumented form of a module, which is valid.
fn prepare(wasm: &[u8]) -> Instrumented<'_> {
    prepare_for(wasm, CodeStyle::Fast)
}

fn prepare_for(wasm: &[u8], style: CodeStyle) -> Instrumented<'_> {
    let instrumented = instrument(&validate(wasm).unwrap(), WriteTracking::Barrier, style).unwrap();
    let features = wasmparser::WasmFeatures::default() | wasmparser::WasmFeatures::MULTI_MEMORY;
    wasmparser::Validator::new_with_features(features)
        .validate_all(&instrumented.wasm)
        .unwrap();
    instrumented
}

#[test]
fn the_interface_lists_methods_entry_points_and_sections() {
    let wasm = wat::parse_str(
        "(module (memory i64 1) (func $s) (start $s) (func (export \"canister_init\"))
           (func (export \"canister_update a\")) (func (export \"canister_query b\"))
           (func (export \"canister_composite_query c d\")) (@custom \"icp:private candid\" \"xyz\"))",
    )
    .unwrap();
    let validated = validate(&wasm).unwrap();
    let interface = validated.interface();
    assert_eq!(interface.method("a"), Some(MethodKind::Update));
    assert_eq!(interface.method("b"), Some(MethodKind::Query));
    assert_eq!(interface.method("c d"), Some(MethodKind::CompositeQuery));
    assert_eq!(interface.methods.len(), 3);
    assert!(interface.system_entry_points.iter().eq(["canister_init", "start"]));
    let section = &interface.custom_sections["candid"];
    assert_eq!(
        (section.visibility, &*section.content),
        (CustomSectionVisibility::Private, &b"xyz"[..])
    );
    assert_eq!(interface.width, WasmWidth::Wasm64);
}

#[test]
fn what_instrumentation_tells_the_engine() {
    let wasm = wat::parse_str(
        "(module (memory 2 70) (table 3 funcref) (func $s data.drop 1) (start $s)
           (global i32 (i32.const 7)) (global (mut i64) (i64.const -1)) (global (mut f32) (f32.const 1.5))
           (data (i32.const 8) \"active\") (data \"passive\") (data (i32.const 9) \"later\"))",
    )
    .unwrap();
    let instrumented = prepare(&wasm);
    let heap = HeapLayout {
        initial_pages: 2,
        maximum_pages: 70,
        marks_bytes: 1 << 20,
    };
    assert_eq!(instrumented.heap, Some(heap));
    let segment = |offset, bytes| DataSegment { offset, bytes };
    assert_eq!(
        instrumented.data_segments,
        [segment(8, b"active".as_slice()), segment(9, b"later")]
    );
    assert_eq!(
        instrumented.globals,
        [GlobalValue::I64(-1), GlobalValue::F32(1.5_f32.to_bits())]
    );
    assert_eq!(
        instrumented.global_exports,
        ["__replicore.global.1", "__replicore.global.2"]
    );
    assert!(instrumented.has_table && instrumented.has_start && instrumented.drops_data_segments);
}

#[test]
fn heaps_are_capped_by_their_width() {
    let maximum = |memory: &str| {
        let wasm = wat::parse_str(format!("(module (memory {memory}))")).unwrap();
        prepare(&wasm).heap.unwrap().maximum_pages
    };
    assert_eq!(maximum("1"), 65_536);
    assert_eq!(maximum("i64 1"), 98_304);
    assert_eq!(maximum("i64 1 1000000"), 98_304);
    assert_eq!(maximum("i64 1 5"), 5);
}

#[test]
fn the_compile_charge_counts_the_production_form() {
    let charge = |text: &str| validate(&wat::parse_str(text).unwrap()).unwrap().compile_charge();
    for (text, instructions) in [
        ("(module)", 72),
        ("(module (memory 1) (data (i32.const 0) \"a\"))", 72),
        ("(module (global (mut i32) (i32.const 1)))", 74),
        ("(module (func nop))", 84),
        ("(module (func) (func))", 94),
        ("(module (func (loop nop)))", 96),
        ("(module (func (if (i32.const 0) (then nop))))", 91),
        ("(module (import \"ic0\" \"time\" (func (result i64))))", 72),
        (
            "(module (import \"ic0\" \"stable64_read\" (func (param i64 i64 i64))) (memory 1))",
            191,
        ),
        ("(module (memory 1) (func (drop (memory.grow (i32.const 1)))))", 89),
        (
            "(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))))",
            90,
        ),
        (
            "(module (memory i64 1) (func (memory.fill (i64.const 0) (i32.const 0) (i64.const 0))))",
            88,
        ),
    ] {
        assert_eq!(charge(text).instrumented_instructions, instructions, "{text}");
    }
    assert_eq!(charge("(module)").full().0, 20_432_000);
    assert_eq!(charge("(module)").known().0, 20_004_320);
}

#[test]
fn backtraces_use_names_or_production_indices() {
    let wasm = wat::parse_str(
        "(module (import \"ic0\" \"time\" (func $time (result i64))) (import \"ic0\" \"msg_reply\" (func $reply))
           (func $named) (func))",
    )
    .unwrap();
    let names = validate(&wasm).unwrap().function_names();
    assert_eq!(names.import(0), Some("time"));
    // Four imports of ours shift the functions; the production replica has five.
    assert_eq!(names.frame(2), None);
    assert_eq!(names.frame(6), Some(FrameName::Named("named")));
    assert_eq!(names.frame(7), Some(FrameName::Unnamed(8)));
    assert_eq!(names.frame(8), None, "a helper");
    assert!(!names.is_empty());
}

#[test]
fn functions_without_room_for_more_locals_are_refused() {
    let store = "(i32.store (i32.const 0) (i32.const 0))";
    let turns = "(loop (br_if 0 (i32.const 0)))";
    let with_locals = |count: usize, code: &str| {
        let locals = "i32 ".repeat(count);
        let wasm = wat::parse_str(format!("(module (memory 1) (func (local {locals}) {code}))")).unwrap();
        let validated = validate(&wasm).unwrap();
        let result = |style| {
            instrument(&validated, WriteTracking::Barrier, style)
                .map(|_| ())
                .map_err(|error| error.error.code)
        };
        assert_eq!(result(CodeStyle::Fast), result(CodeStyle::Short));
        result(CodeStyle::Fast)
    };
    assert_eq!(with_locals(49_998, store), Ok(()));
    assert_eq!(with_locals(50_000, turns), Ok(()));
    assert_eq!(
        with_locals(49_999, store),
        Err(replicore_types::ErrorCode::CanisterWasmEngineError)
    );
}
