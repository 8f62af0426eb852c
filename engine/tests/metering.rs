//! Instruction counts of simple methods, as published.

mod common;

use common::{Canister, reply};

#[test]
fn an_empty_update_costs_506() {
    let mut canister = Canister::new(
        r#"(module (import "ic0" "msg_reply" (func $msg_reply)) (memory (export "memory") 1)
            (func (export "canister_update empty") (call $msg_reply)))"#,
    );
    let done = canister.update("empty", b"");
    assert_eq!(reply(&done), b"");
    assert_eq!(done.instructions.get(), 506);
    let again = canister.update("empty", b"");
    assert_eq!(again.instructions.get(), 506);
    assert!(again.stats.warm);
}
