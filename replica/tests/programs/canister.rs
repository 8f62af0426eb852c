//! The scriptable canister: a small stack machine in Wasm whose operations are the functions of the System API.
//!
//! The argument of every call is a program for it, and so are the environments of its callbacks and what it keeps for
//! heartbeats, timers and upgrades. It is made from the engine's table of functions, so it can do whatever there is.
//!
//! ```text
//! 0x0_0000  counter, next free closure, accumulator     0x0_0400  operands        0x0_0800  hooks
//! 0x1_0000  the argument                                0x2_0000  closures        0x4_0000  scratch
//! ```
//! What an operation gives back is folded into the accumulator: whatever a program sees, the state shows.

use replicore_engine::system_api::{FUNCTIONS, Function};

/// Where programs find room to read and write.
pub const SCRATCH: u64 = 0x4_0000;
/// Bytes that a hook may have.
pub const HOOK_BYTES_MAX: usize = 500;
/// Bytes that an argument may have.
pub const ARGUMENT_BYTES_MAX: usize = 0xffff;

/// Operations beside the functions of the System API, in the order of their codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// Pushes the eight bytes that follow.
    Push,
    /// Pushes address and length of the bytes that follow.
    Data,
    /// Keeps the bytes that follow for a callback and pushes its environment.
    Closure,
    /// Keeps the bytes that follow for the entry point on top of the stack.
    Hook,
    /// Traps.
    Trap,
    /// Goes round a loop as often as the top of the stack says.
    Work,
    /// Counts up.
    Count,
    /// Grows the heap by as many pages.
    Grow,
    /// Fills scratch memory: address, value, length.
    Fill,
    /// Folds the top of the stack into the accumulator.
    Fold,
}

const OPERATIONS: [(Operation, &str, &str); 10] = [
    (
        Operation::Push,
        "push",
        "(call $put (i64.load (call $take (i32.const 8))))",
    ),
    (
        Operation::Data,
        "data",
        "(local $length i32)
         (local.set $length (i32.load16_u (call $take (i32.const 2))))
         (call $put (i64.extend_i32_u (call $take (local.get $length))))
         (call $put (i64.extend_i32_u (local.get $length)))",
    ),
    (
        Operation::Closure,
        "closure",
        "(local $length i32) (local $at i32)
         (local.set $length (i32.load16_u (call $take (i32.const 2))))
         (local.set $at (i32.load (i32.const 8)))
         (if (i32.eqz (local.get $at)) (then (local.set $at (i32.const 0x20000))))
         (if (i32.gt_u (i32.add (local.get $at) (local.get $length)) (i32.const 0x3fff0))
           (then (local.set $at (i32.const 0x20000))))
         (i32.store (local.get $at) (local.get $length))
         (memory.copy (i32.add (local.get $at) (i32.const 4)) (call $take (local.get $length)) (local.get $length))
         (i32.store (i32.const 8) (i32.add (local.get $at) (i32.add (local.get $length) (i32.const 4))))
         (call $put (i64.extend_i32_u (local.get $at)))",
    ),
    (
        Operation::Hook,
        "hook",
        "(local $length i32) (local $at i32)
         (local.set $length (i32.load16_u (call $take (i32.const 2))))
         (local.set $at (i32.add (i32.const 0x800) (i32.shl (i32.wrap_i64 (call $pop)) (i32.const 9))))
         (i32.store (local.get $at) (local.get $length))
         (memory.copy (i32.add (local.get $at) (i32.const 4)) (call $take (local.get $length)) (local.get $length))",
    ),
    (Operation::Trap, "trap", "unreachable"),
    (
        Operation::Work,
        "work",
        "(local $left i64)
         (local.set $left (call $pop))
         (loop $again
           (local.set $left (i64.sub (local.get $left) (i64.const 1)))
           (br_if $again (i64.gt_s (local.get $left) (i64.const 0))))",
    ),
    (
        Operation::Count,
        "count",
        "(i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1)))",
    ),
    (
        Operation::Grow,
        "grow",
        "(call $fold (i64.extend_i32_s (memory.grow (i32.wrap_i64 (call $pop)))))",
    ),
    (
        Operation::Fill,
        "fill",
        "(local $length i32) (local $value i32)
         (local.set $length (i32.wrap_i64 (call $pop)))
         (local.set $value (i32.wrap_i64 (call $pop)))
         (memory.fill (i32.wrap_i64 (call $pop)) (local.get $value) (local.get $length))",
    ),
    (Operation::Fold, "keep", "(call $fold (call $pop))"),
];

/// Entry points that run what a hook keeps, with the hook's number.
pub const HOOKS: [(&str, u64); 4] = [
    ("canister_heartbeat", 0),
    ("canister_global_timer", 1),
    ("canister_pre_upgrade", 2),
    ("canister_on_low_wasm_memory", 3),
];

/// Functions that the canister calls: all but the one that no canister of an application subnet has.
pub fn functions() -> impl Iterator<Item = &'static Function> {
    FUNCTIONS.iter().filter(|function| function.name != "mint_cycles128")
}

/// The code of a function of the System API.
pub fn code_of(name: &str) -> u8 {
    let place = functions().position(|function| function.name == name);
    (OPERATIONS.len() + place.expect("a function of the System API")) as u8
}

/// The module; with a heartbeat or without.
pub fn module(has_heartbeat: bool) -> Vec<u8> {
    let (mut imports, mut operations, mut table) = (String::new(), String::new(), String::new());
    for (code, name, body) in OPERATIONS {
        assert_eq!(
            table.matches('$').count(),
            code as usize,
            "codes are places in the table"
        );
        operations += &format!("(func ${name} {body})\n");
        table += &format!("${name} ");
    }
    for function in functions() {
        imports += &import(function);
        operations += &operation(function);
        table += &format!("$op_{} ", function.name);
    }
    let hooks: String = HOOKS
        .iter()
        .filter(|(name, _)| has_heartbeat || *name != "canister_heartbeat")
        .map(|(name, number)| {
            let at = 0x800 + (number << 9);
            format!(
                "(func (export \"{name}\") (call $run (i32.const {}) (i32.load (i32.const {at}))))\n",
                at + 4
            )
        })
        .collect();
    let text = format!(
        r#"(module
{imports}
(memory (export "memory") 5)
(global $ip (mut i32) (i32.const 0))
(global $end (mut i32) (i32.const 0))
(global $sp (mut i32) (i32.const 0x400))
(type $operation (func))
(table funcref (elem $callback $panics {table}))
(func $pop (result i64)
  (global.set $sp (i32.sub (global.get $sp) (i32.const 8)))
  (i64.load (global.get $sp)))
(func $put (param $word i64)
  (i64.store (global.get $sp) (local.get $word))
  (global.set $sp (i32.add (global.get $sp) (i32.const 8))))
(func $take (param $bytes i32) (result i32)
  (global.get $ip)
  (global.set $ip (i32.add (global.get $ip) (local.get $bytes))))
(func $fold (param $word i64)
  (i64.store (i32.const 16)
    (i64.add (i64.mul (i64.load (i32.const 16)) (i64.const 31)) (local.get $word))))
(func $run (param $from i32) (param $length i32)
  (global.set $ip (local.get $from))
  (global.set $end (i32.add (local.get $from) (local.get $length)))
  (global.set $sp (i32.const 0x400))
  (block $done (loop $next
    (br_if $done (i32.ge_u (global.get $ip) (global.get $end)))
    (call_indirect (type $operation) (i32.add (i32.load8_u (call $take (i32.const 1))) (i32.const 2)))
    (br $next))))
(func $callback (param $environment i32)
  (call $run (i32.add (local.get $environment) (i32.const 4)) (i32.load (local.get $environment))))
(func $panics (param i32) unreachable)
(func $argument
  (call $api_msg_arg_data_copy (i32.const 0x10000) (i32.const 0) (call $api_msg_arg_data_size))
  (call $run (i32.const 0x10000) (call $api_msg_arg_data_size)))
{operations}
(export "canister_init" (func $argument))
(export "canister_post_upgrade" (func $argument))
(export "canister_update u" (func $argument))
(export "canister_query q" (func $argument))
(export "canister_composite_query c" (func $argument))
{hooks})"#
    );
    wat::parse_str(&text).expect("the canister is well-formed")
}

fn wasm_type(name: &str) -> &'static str {
    match name {
        "u64" => "i64",
        _ => "i32",
    }
}

fn import(function: &Function) -> String {
    let parameters: String = function
        .parameters
        .iter()
        .map(|name| format!("(param {})", wasm_type(name)))
        .collect();
    let result = match function.result {
        "()" => String::new(),
        name => format!("(result {})", wasm_type(name)),
    };
    let name = function.name;
    format!("(import \"ic0\" \"{name}\" (func $api_{name} {parameters} {result}))\n")
}

/// Pops the arguments, calls, and folds in what comes back.
fn operation(function: &Function) -> String {
    let count = function.parameters.len();
    let locals: String = (0..count).map(|number| format!("(local $p{number} i64) ")).collect();
    let pops: String = (0..count)
        .rev()
        .map(|number| format!("(local.set $p{number} (call $pop)) "))
        .collect();
    let arguments: String = (function.parameters.iter().enumerate())
        .map(|(number, name)| match wasm_type(name) {
            "i64" => format!("(local.get $p{number}) "),
            _ => format!("(i32.wrap_i64 (local.get $p{number})) "),
        })
        .collect();
    let call = format!("(call $api_{} {arguments})", function.name);
    let call = match function.result {
        "()" => call,
        "u64" => format!("(call $fold {call})"),
        _ => format!("(call $fold (i64.extend_i32_u {call}))"),
    };
    format!("(func $op_{} {locals} {pops} {call})\n", function.name)
}
