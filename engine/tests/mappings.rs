//! How many of the process's memory mappings warm instances take. Alone in its process: others would be counted.

mod common;

use common::{Canister, reply};
use replicore_types::CanisterId;

const MODULE: &str = r#"(module
    (import "ic0" "msg_reply" (func $msg_reply))
    (memory 1)
    (func (export "canister_update grow") (drop (memory.grow (i32.const 1))) (call $msg_reply)))"#;

const INSTANCES: usize = 64;

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

#[test]
fn an_instance_takes_four_mappings() {
    let mut canister = Canister::new(MODULE);
    canister.engine.finish_compiling();
    let initial = canister.state.clone();
    let before = mappings();
    for number in 0..INSTANCES {
        canister.state = initial.clone();
        canister.view.canister_id = CanisterId::from_index(number as u64);
        reply(&canister.update("grow", &[]));
    }
    assert_eq!(canister.engine.warm_instances().0, INSTANCES);
    let taken = mappings() - before;
    // The allocator may take a few more.
    assert!(
        taken <= 4 * INSTANCES + 16,
        "{taken} mappings for {INSTANCES} instances"
    );
}
