//! Rules, one module each: what is refused, and how the user reads it.

use crate::module::{decode, refusal_charge, validate};
use replicore_types::ErrorCode;

const TOOLCHAIN: &str = "\nIf you are running this canister in a test environment";
const INVALID: &str = "Canister's Wasm module is not valid: ";
const ENGINE: &str = "Canister encountered a Wasm engine error: Failed to instantiate module: ";

fn refusal(wasm: &[u8]) -> Option<(ErrorCode, String)> {
    let error = decode(wasm).and_then(|wasm| validate(&wasm).map(|_| ())).err()?.error;
    Some((error.code, error.description))
}

fn refused(text: &str) -> (ErrorCode, String) {
    refusal(&wat::parse_str(text).unwrap()).unwrap_or_else(|| panic!("accepted: {text}"))
}

/// IC0505 with this text and the advice for toolchains.
fn check(text: &str, rule: &str) {
    let (code, description) = refused(text);
    assert_eq!(code, ErrorCode::CanisterInvalidWasm, "{text}");
    let shown = description.split_once(TOOLCHAIN).map(|(shown, _)| shown);
    assert_eq!(
        shown,
        Some(format!("{INVALID}{rule}").as_str()),
        "{text}\n{description}"
    );
}

/// IC0505 with this text and advice for the user.
fn check_advised(text: &str, rule: &str, anchor: &str) {
    let (code, description) = refused(text);
    assert_eq!(code, ErrorCode::CanisterInvalidWasm, "{text}");
    assert!(description.starts_with(&format!("{INVALID}{rule}.\n")), "{description}");
    assert!(
        description.ends_with(&format!("/execution-errors#{anchor}")),
        "{description}"
    );
}

fn check_engine(text: &str, reason: &str) {
    assert_eq!(
        refused(text),
        (ErrorCode::CanisterWasmEngineError, format!("{ENGINE}{reason}")),
        "{text}"
    );
}

fn accepted(text: &str) {
    assert_eq!(refusal(&wat::parse_str(text).unwrap()), None, "{text}");
}

#[test]
fn formats_other_than_wasm_and_gzip() {
    for (bytes, reason) in [
        (&b""[..], "unsupported canister module format."),
        (b"hello", "unsupported canister module format."),
        (
            b"\x1f\x8b\x08\0\0\0\0\0\0\0",
            "invalid Wasm module: gzip stream is too short.",
        ),
        (
            b"\0asm",
            "Error finding code section: unexpected end-of-file (at offset 0x4).",
        ),
    ] {
        let (code, description) = refusal(bytes).unwrap();
        assert_eq!(code, ErrorCode::CanisterInvalidWasm);
        let expected = format!("{INVALID}Failed to decode wasm module: {reason}{TOOLCHAIN}");
        assert!(description.starts_with(&expected), "{description}");
        assert_eq!(refusal_charge(bytes).0, 20_000_000 + 6_000 * bytes.len() as u64);
    }
}

#[test]
fn gzip_is_unpacked_up_to_the_size_it_claims() {
    use std::io::Write;
    let wasm = wat::parse_str("(module (memory 1))").unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&wasm).unwrap();
    let mut packed = encoder.finish().unwrap();
    assert_eq!(decode(&packed).unwrap(), wasm);

    let claimed = packed.len() - 4;
    packed[claimed] -= 1;
    assert!(decode(&packed).is_err(), "more content than claimed");
    packed[claimed..].copy_from_slice(&200_000_000_u32.to_le_bytes());
    let error = decode(&packed).unwrap_err().error;
    assert!(
        error
            .description
            .contains("Wasm module size of 200000000 exceeds the maximum allowed size of 104857600.")
    );
    assert_eq!(refusal_charge(&packed).0, 20_000_000 + 6_000 * 200_000_000);
}

#[test]
fn imports() {
    let section = "Wasm module has an invalid import section. ";
    let unknown = |name: &str, module: &str| {
        format!("{section}Module imports function '{name}' from '{module}' that is not exported by the runtime..")
    };
    check(
        "(module (import \"env\" \"time\" (func (result i64))))",
        &unknown("time", "env"),
    );
    check("(module (import \"ic0\" \"nope\" (func)))", &unknown("nope", "ic0"));
    check(
        "(module (import \"__replicore\" \"out_of_instructions\" (func)))",
        &unknown("out_of_instructions", "__replicore"),
    );
    check(
        "(module (import \"ic0\" \"stable_size\" (func (result i32))) (memory i64 1))",
        &unknown("stable_size", "ic0"),
    );
    check(
        "(module (import \"ic0\" \"g\" (global i32)))",
        &format!("{section}Importing globals is not allowed.."),
    );
    check(
        "(module (import \"ic0\" \"table\" (table 1 funcref)))",
        &format!("{section}Only tables imported from env.table are allowed.."),
    );
    check_engine(
        "(module (import \"env\" \"memory\" (memory 1)))",
        "unknown import: `env::memory` has not been defined",
    );

    let signature = "Wasm module has an invalid function signature. Expected";
    check(
        "(module (import \"ic0\" \"msg_reply\" (func (param i32))))",
        &format!("{signature} input params [] for 'msg_reply', got [I32].."),
    );
    check(
        "(module (import \"ic0\" \"time\" (func)))",
        &format!("{signature} return type [I64] for 'time', got [].."),
    );
    accepted("(module (import \"ic0\" \"trap\" (func (param i64 i64))) (memory i64 1))");
    accepted("(module (import \"ic0\" \"trap\" (func (param i32 i32))))");
}

#[test]
fn exports() {
    let section = "Wasm module has an invalid export section. Exporting reserved";
    check(
        "(module (func (export \"canister_foo\")))",
        &format!("{section} function 'canister_foo' with \"canister_\" prefix."),
    );
    check(
        "(module (func (export \"canister_start\")))",
        &format!("{section} symbol canister_start not allowed.."),
    );
    check(
        "(module (func (export \"canister_update u\") (param i32)))",
        "Wasm module has an invalid function signature. Expected input params [] for 'canister_update u', got [I32]..",
    );
    check_advised(
        "(module (func (export \"canister_update u\")) (func (export \"canister_composite_query u\")))",
        "Duplicate function 'u' exported multiple times with different call types: update, query, or composite_query.",
        "wasm-module-duplicate-exports",
    );
    check_engine(
        "(module (memory (export \"a\") (export \"b\") 1))",
        "Error in Wasm compilation",
    );
    accepted("(module (func (export \"canister_update \")) (func (export \"canister_query a b\")))");
    accepted("(module (func (export \"plain\") (param i32)) (global (export \"canister_x\") i32 (i32.const 0)))");
}

#[test]
fn tables_and_elements() {
    check(
        "(module (table 1 externref))",
        "Wasm module has an invalid table section. Table element type must be funcref, got externref.",
    );
    check_engine(
        "(module (table 1 funcref) (table 1 funcref))",
        "resource limit exceeded: table count too high at 2",
    );
    check_engine(
        "(module (table 1000001 funcref))",
        "table minimum size of 1000001 elements exceeds table limits",
    );
    check_engine(
        "(module (func $f) (table 1 funcref) (elem (i32.const 1) $f))",
        "wasm trap: undefined element: out of bounds table access",
    );
    accepted("(module (func $f) (table i64 1000000 funcref) (elem (table 0) (i64.const 999999) func $f))");
}

#[test]
fn data_segments_lie_within_the_initial_memory() {
    let outside = |text: &str, place: &str| {
        let (code, description) = refused(text);
        assert_eq!(code, ErrorCode::CanisterInvalidWasm);
        let expected =
            format!("Could not instrument wasm module of canister: Wasm module has invalid data segment of {place}.\n");
        assert!(description.starts_with(&expected), "{description}");
    };
    outside("(module (memory 1) (data (i32.const 65536) \"a\"))", "1 bytes at 65536");
    outside(
        "(module (memory 1) (data (i32.const -1) \"a\"))",
        "1 bytes at 18446744073709551615",
    );
    accepted("(module (memory 1) (data (i32.const 65535) \"a\"))");
    accepted("(module (memory i64 1) (data (i64.const 65536) \"\"))");
}

#[test]
fn memories_and_globals() {
    check_advised(
        "(module (memory i64 98305))",
        "Wasm module declares an initial Wasm64 heap memory size of 98305 pages which exceeds the maximum allowed size \
         of 98304 pages.",
        "wasm-module-initial-wasm64-memory-too-large",
    );
    accepted("(module (memory i64 1 1000000))");
    check(
        "(module (global (mut funcref) (ref.null func)))",
        "Wasm module has an invalid global section. Unsupported global type: Ref(funcref).",
    );
    let globals = "(global i32 (i32.const 0))".repeat(1_001);
    check_advised(
        &format!("(module {globals})"),
        "Wasm module defined 1001 globals which exceeds the maximum number allowed 1000.",
        "wasm-module-too-many-globals",
    );
}

#[test]
fn code() {
    for instruction in [
        "table.set (i32.const 0) (ref.null func)",
        "table.copy (i32.const 0) (i32.const 0) (i32.const 0)",
    ] {
        let name = instruction.split(' ').next().unwrap();
        check(
            &format!("(module (table 1 funcref) (func) (func ({instruction})))"),
            &format!("Wasm module contains a function at index 1 with unsupported instruction {name}.."),
        );
    }
    check_advised(
        &format!("(module (func {}))", "(block)".repeat(20_001)),
        "Wasm module contains a function at index 0 with complexity 1020052 which exceeds the maximum complexity allowed \
         1000000.",
        "wasm-module-function-complexity-too-high",
    );
    let relaxed = "(drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0)))";
    let (code, description) = refused(&format!("(module (func {relaxed}))"));
    assert_eq!(code, ErrorCode::CanisterInvalidWasm);
    assert!(description.contains("wasmtime::Module::validate() failed with relaxed SIMD support is not enabled"));
}

#[test]
fn custom_sections() {
    let section = "Wasm module has an invalid custom section. ";
    check(
        "(module (@custom \"icp:public a\" \"\") (@custom \"icp:private a\" \"\"))",
        &format!("{section}Invalid custom section: name a already exists."),
    );
    check(
        "(module (@custom \"icp:foo a\" \"\"))",
        &format!("{section}Invalid custom section: Custom section 'icp:foo a' has no public/private scope defined.."),
    );
    check(
        "(module (@custom \"icp:public\" \"\"))",
        &format!("{section}'icp:' section names must have a space after the public/private scope."),
    );
    let many: String = (0..17).map(|i| format!("(@custom \"icp:public {i}\" \"\")")).collect();
    check(
        &format!("(module {many})"),
        "Wasm module defined 17 custom sections which exceeds the maximum number allowed 16..",
    );
}
