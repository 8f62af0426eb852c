//! Stable memory: growth, bounds, the 32-bit functions, and what survives a message.

mod common;

use common::{Canister, error, minor_faults, reply};
use replicore_types::{Cycles, NumBytes};

const STABLE: &str = r#"(module
    (import "ic0" "msg_reply" (func $msg_reply))
    (import "ic0" "msg_arg_data_copy" (func $argument (param i32 i32 i32)))
    (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
    (import "ic0" "stable64_size" (func $size (result i64)))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (import "ic0" "stable64_read" (func $read (param i64 i64 i64)))
    (import "ic0" "stable_size" (func $size32 (result i32)))
    (import "ic0" "stable_grow" (func $grow32 (param i32) (result i32)))
    (memory 1)
    (func $arguments (call $argument (i32.const 0) (i32.const 0) (i32.const 24)))
    (func $answer (param i64) (i64.store (i32.const 0) (local.get 0)) (call $append (i32.const 0) (i32.const 8))
        (call $msg_reply))
    (func (export "canister_update grow") (call $arguments) (call $answer (call $grow (i64.load (i32.const 0)))))
    (func (export "canister_update grow32") (call $arguments)
        (call $answer (i64.extend_i32_u (call $grow32 (i32.load (i32.const 0))))))
    (func (export "canister_update size32") (call $answer (i64.extend_i32_u (call $size32))))
    (func (export "canister_query size") (call $answer (call $size)))
    (func (export "canister_update write") (call $arguments)
        (call $write (i64.load (i32.const 0)) (i64.load (i32.const 8)) (i64.load (i32.const 16))) (call $msg_reply))
    (func $each (local $left i64) (call $arguments) (local.set $left (i64.load (i32.const 0)))
        (loop $again
            (local.set $left (i64.sub (local.get $left) (i64.const 1)))
            (call $read (i64.const 1024) (i64.mul (local.get $left) (i64.load (i32.const 8))) (i64.const 1))
            (br_if $again (i64.ne (local.get $left) (i64.const 0))))
        (call $msg_reply))
    (export "canister_query read_each" (func $each))
    (func (export "canister_update write_each") (local $left i64) (call $arguments)
        (local.set $left (i64.load (i32.const 0)))
        (loop $again
            (local.set $left (i64.sub (local.get $left) (i64.const 1)))
            (call $write (i64.mul (local.get $left) (i64.load (i32.const 8))) (i64.const 16) (i64.const 8))
            (br_if $again (i64.ne (local.get $left) (i64.const 0))))
        (call $msg_reply))
    (func (export "canister_query read") (call $arguments)
        (call $read (i64.const 1024) (i64.load (i32.const 0)) (i64.load (i32.const 8)))
        (call $append (i32.const 1024) (i32.load (i32.const 8))) (call $msg_reply)))"#;

fn words(words: [u64; 3]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

#[track_caller]
fn number(canister: &mut Canister, method: &str, argument: u64) -> u64 {
    let done = canister.update(method, &words([argument, 0, 0]));
    u64::from_le_bytes(reply(&done).try_into().expect("eight bytes"))
}

#[test]
fn growth_answers_the_old_size_or_minus_one() {
    let mut canister = Canister::new(STABLE);
    assert_eq!(number(&mut canister, "grow", 2), 0);
    assert_eq!(number(&mut canister, "grow32", 1), 2);
    assert_eq!(number(&mut canister, "grow", u64::MAX), u64::MAX);
    assert_eq!(number(&mut canister, "grow", 500 * 16_384), u64::MAX);
    assert_eq!(number(&mut canister, "grow32", 65_536), u64::from(u32::MAX));
    assert_eq!(number(&mut canister, "size32", 0), 3);
    assert_eq!(canister.state.stable.size_wasm_pages, 3);
    assert_eq!(
        canister.update("grow", &words([1, 0, 0])).changes.memory_growth,
        NumBytes(65_536)
    );
}

#[test]
fn the_32_bit_functions_trap_above_4_gib() {
    let mut canister = Canister::new(STABLE);
    assert_eq!(number(&mut canister, "grow", 65_536), 0);
    assert_eq!(number(&mut canister, "size32", 0), 65_536);
    assert_eq!(number(&mut canister, "grow", 1), 65_536);
    let (code, text) = error(&canister.update("size32", b""));
    assert_eq!(code, "IC0502");
    assert!(
        text.starts_with(
            "Canister trapped: 32 bit stable memory api used on a memory larger than 4GB\nCanister Backtrace:\nsize32\n"
        ),
        "{text}"
    );
}

#[test]
fn what_was_written_is_read_later_and_sparsely() {
    let mut canister = Canister::new(STABLE);
    number(&mut canister, "grow", 1_000_000);
    let far = 999_999 * 65_536 + 65_000;
    reply(&canister.update("write", &words([far, 0, 24])));
    assert_eq!(
        reply(&canister.query("read", &words([far, 24, 0]))),
        words([far, 0, 24])
    );
    assert_eq!(reply(&canister.query("read", &words([far - 8, 8, 0]))), [0; 8]);
    assert!(canister.state.stable.pages.len() <= 1, "untouched pages take no room");
}

#[test]
fn bounds_are_checked_stable_memory_first() {
    let mut canister = Canister::new(STABLE);
    number(&mut canister, "grow", 1);
    let cases = [
        ([65_530, 0, 10], "stable memory out of bounds"),
        ([u64::MAX, 0, 10], "stable memory out of bounds"),
        ([0, 65_530, 10], "heap out of bounds"),
        ([65_530, 65_530, 10], "stable memory out of bounds"),
    ];
    for (arguments, text) in cases {
        let description = error(&canister.update("write", &words(arguments))).1;
        assert!(
            description.starts_with(&format!("Canister trapped: {text}\n")),
            "{description}"
        );
    }
    reply(&canister.update("write", &words([65_536, 0, 0])));
}

#[test]
fn growth_is_bounded_by_the_subnet_and_by_the_freezing_threshold() {
    let mut canister = Canister::new(STABLE);
    canister.view.memory.subnet_available_memory = NumBytes(3 * 65_536);
    assert_eq!(number(&mut canister, "grow", 4), u64::MAX);
    assert_eq!(number(&mut canister, "grow", 3), 0);

    let mut poor = Canister::new(STABLE);
    poor.view.balance = Cycles(1_000_000);
    let (code, text) = error(&poor.update("grow", &words([16_384, 0, 0])));
    assert_eq!(code, "IC0532");
    assert!(text.contains("due to insufficient cycles. At least "), "{text}");
}

#[test]
fn what_a_message_accesses_is_bounded() {
    const QUERY_PAGES: u64 = 262_144;
    let mut canister = Canister::new(STABLE);
    number(&mut canister, "grow", 2 * 16_384);
    reply(&canister.query("read_each", &words([QUERY_PAGES, 4_096, 0])));
    // Half of them are the same again.
    reply(&canister.query("read_each", &words([2 * QUERY_PAGES, 2_048, 0])));
    let (code, text) = error(&canister.query("read_each", &words([QUERY_PAGES + 1, 4_096, 0])));
    assert_eq!(code, "IC0524");
    assert!(
        text.starts_with(
            "Canister exceeded memory access limits: Exceeded the limit for the number of accessed pages in the stable \
             memory in a single message execution: limit 2097152 KB for regular messages and 1048576 KB for queries."
        ),
        "{text}"
    );
}

#[test]
fn sparse_stable_memory_costs_the_pages_touched() {
    const SPOTS: u64 = 500;
    let mut canister = Canister::new(STABLE);
    number(&mut canister, "grow", 10 * 16_384);
    let stride = (10 << 30) / SPOTS;
    let before = minor_faults();
    let done = canister.update("write_each", &words([SPOTS, stride, 0x0102_0304_0506_0708]));
    reply(&done);
    reply(&canister.query("read_each", &words([SPOTS, stride, 0])));
    let faults = minor_faults() - before;
    assert_eq!(done.stats.stable_pages_dirtied, SPOTS);
    assert_eq!(canister.state.stable.pages.len(), SPOTS);
    assert!(faults < 8 * SPOTS, "{faults} page faults for {SPOTS} pages");
    let expected = 0x0102_0304_0506_0708_u64.to_le_bytes();
    assert_eq!(reply(&canister.query("read", &words([stride * 7, 8, 0]))), expected);
}

/// Writes and grows stable memory without a change of the heap.
const STABLE_ALONE: &str = r#"(module
    (import "ic0" "msg_reply" (func $msg_reply))
    (import "ic0" "stable64_grow" (func $grow (param i64) (result i64)))
    (import "ic0" "stable64_write" (func $write (param i64 i64 i64)))
    (memory 1)
    (data (i32.const 0) "content")
    (func (export "canister_update grow") (drop (call $grow (i64.const 1))) (call $msg_reply))
    (func (export "canister_update write") (call $write (i64.const 0) (i64.const 0) (i64.const 7)) (call $msg_reply))
    (func (export "canister_update nothing") (call $msg_reply)))"#;

#[test]
fn a_version_names_stable_memory_as_well() {
    let mut canister = Canister::new(STABLE_ALONE);
    reply(&canister.update("nothing", b""));
    let mut version = canister.state.warm_version;
    for (method, changes) in [("nothing", false), ("grow", true), ("nothing", false), ("write", true)] {
        let done = canister.update(method, b"");
        assert!(done.stats.warm && reply(&done).is_empty());
        assert_eq!(canister.state.warm_version != version, changes, "{method}");
        version = canister.state.warm_version;
    }
    let page = canister.state.stable.pages.get(replicore_persistence::PageIndex(0));
    assert_eq!(page.map(|page| page[..7].to_vec()), Some(b"content".to_vec()));
}
