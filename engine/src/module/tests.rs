//! The chain as a whole: what is refused, what comes out, what is charged where.

use super::*;

fn prepare(text: &str) -> (Vec<u8>, String) {
    let wasm = wat::parse_str(text).unwrap();
    let validated = validate(&wasm).unwrap();
    let instrumented = instrument(&validated).unwrap();
    let mut features = wasmparser::WasmFeatures::default();
    features.insert(wasmparser::WasmFeatures::MULTI_MEMORY);
    wasmparser::Validator::new_with_features(features)
        .validate_all(&instrumented.wasm)
        .unwrap();
    (instrumented.wasm, String::new())
}

#[test]
fn basic() {
    prepare(
        "(module (memory 1) (func $f (export \"canister_update u\") (i32.store (i32.const 0) (i32.const 1)) call $f (drop (memory.grow (i32.const 1)))))",
    );
}
