//! Modules found in memory or on disk behave as the ones that were just compiled.

mod common;

use common::{Canister, module, reply};
use replicore_engine::{Engine, EngineConfig, Execute};
use replicore_types::SubnetType;
use std::sync::Arc;

const MODULE: &str = r#"(module (import "ic0" "msg_reply" (func $msg_reply)) (memory 1)
    (func (export "canister_update go") (i32.store (i32.const 0) (i32.const 7)) (call $msg_reply)))"#;

#[test]
fn machine_code_is_kept_on_disk() {
    let folder = std::env::temp_dir().join(format!("replicore-module-cache-{}", std::process::id()));
    let engine = || {
        let config = EngineConfig {
            cache_folder: Some(folder.clone()),
            ..EngineConfig::default()
        };
        Arc::new(Engine::new(config).expect("the engine starts"))
    };
    let wasm = wat::parse_str(MODULE).expect("the test's module parses");
    let mut instructions = Vec::new();
    for _ in 0..2 {
        let engine = engine();
        let mut canister = Canister::with_engine(Arc::clone(&engine), wasm.clone());
        let done = canister.update("go", b"");
        reply(&done);
        instructions.push(done.instructions);
        engine.finish_compiling();
        assert_eq!(std::fs::read_dir(&folder).expect("the folder exists").count(), 2);
    }
    assert_eq!(instructions[0], instructions[1]);
    std::fs::remove_dir_all(&folder).expect("the folder can be removed");
}

#[test]
fn refused_modules_say_why_and_are_charged() {
    let engine = common::engine();
    let (error, instructions) = engine
        .prepare(&module(b"not wasm".to_vec()), SubnetType::Application)
        .expect_err("this is no module");
    assert_eq!(error.code.to_string(), "IC0505");
    assert!(instructions.get() >= 20_000_000);
}
