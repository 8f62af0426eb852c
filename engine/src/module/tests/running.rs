//! Instrumented modules at work in the Wasm engine: what is counted, what is marked, what the host is asked.

use super::prepare;
use crate::module::{STACK_BYTES, symbols};
use wasmtime::{Config, Engine, Instance, Linker, Module, Store, Val};

/// Enough that nothing runs out.
const PLENTY: i64 = 1 << 50;

#[derive(Default)]
struct Host {
    /// Counter values with which `out_of_instructions` was called.
    refills: Vec<i64>,
    /// What a refill gives; without it, execution ends.
    refill: Option<i64>,
    /// Growths asked for.
    growths: Vec<(i64, i64)>,
}

struct Running {
    store: Store<Host>,
    instance: Instance,
}

impl Running {
    fn new(wasm: &[u8]) -> Self {
        let mut config = Config::new();
        config.wasm_multi_memory(true).wasm_memory64(true).wasm_tail_call(true);
        let engine = Engine::new(&config).unwrap();
        let module = Module::new(&engine, prepare(wasm).wasm).unwrap();
        let mut store = Store::new(&engine, Host::default());
        let mut linker = Linker::new(&engine);
        linker
            .func_wrap(
                symbols::HOST_MODULE,
                symbols::OUT_OF_INSTRUCTIONS,
                |mut caller: wasmtime::Caller<'_, Host>, counter: i64| {
                    let host = caller.data_mut();
                    host.refills.push(counter);
                    host.refill.ok_or_else(|| wasmtime::Error::msg("out of instructions"))
                },
            )
            .unwrap();
        linker
            .func_wrap(
                symbols::HOST_MODULE,
                symbols::TRY_GROW_MEMORY,
                |mut caller: wasmtime::Caller<'_, Host>, current: i64, additional: i64| -> i32 {
                    caller.data_mut().growths.push((current, additional));
                    i32::from(current + additional <= 4)
                },
            )
            .unwrap();
        linker
            .func_wrap(
                symbols::HOST_MODULE,
                symbols::STACK_OVERFLOW,
                || -> wasmtime::Result<()> { Err(wasmtime::Error::msg("the stack is used up")) },
            )
            .unwrap();
        linker
            .define_unknown_imports_as_default_values(&mut store, &module)
            .unwrap();
        let instance = linker.instantiate(&mut store, &module).unwrap();
        Self { store, instance }
    }

    fn set_counter(&mut self, value: i64) {
        let counter = self.instance.get_global(&mut self.store, symbols::COUNTER).unwrap();
        counter.set(&mut self.store, Val::I64(value)).unwrap();
        let stack = self.instance.get_global(&mut self.store, symbols::STACK).unwrap();
        stack.set(&mut self.store, Val::I32(STACK_BYTES as i32)).unwrap();
    }

    fn counter(&mut self) -> i64 {
        let counter = self.instance.get_global(&mut self.store, symbols::COUNTER).unwrap();
        counter.get(&mut self.store).unwrap_i64()
    }

    fn of(text: &str) -> Self {
        Self::new(&wat::parse_str(text).unwrap())
    }

    fn call(&mut self, method: &str) -> wasmtime::Result<()> {
        self.instance
            .get_typed_func::<(), ()>(&mut self.store, method)?
            .call(&mut self.store, ())
    }

    /// Pages that are marked.
    fn marks(&mut self) -> Vec<usize> {
        let marks = self.instance.get_memory(&mut self.store, symbols::MARKS).unwrap();
        let bytes = marks.data(&self.store);
        (0..bytes.len()).filter(|page| bytes[*page] != 0).collect()
    }

    /// Instructions that a call of this method uses, whether it traps or not.
    fn cost(&mut self, method: &str) -> (i64, bool) {
        self.set_counter(PLENTY);
        let trapped = self.call(method).is_err();
        (PLENTY - self.counter(), trapped)
    }
}

/// Instructions that a call of a fresh instance's method uses, and whether it traps.
pub(super) fn cost_of(wasm: &[u8], method: &str) -> (i64, bool) {
    Running::new(wasm).cost(method)
}

/// Runs `body` as an update of a module with 3 pages of `address` memory; gives its cost, whether it trapped, and the
/// pages marked.
fn run(address: &str, body: &str) -> (i64, bool, Vec<usize>) {
    let mut running = Running::of(&format!(
        "(module (memory {address} 3) (data \"passive\") (func (export \"canister_update u\") {body}))"
    ));
    let (cost, trapped) = running.cost("canister_update u");
    (cost, trapped, running.marks())
}

#[test]
fn a_trap_has_paid_its_whole_line_and_nothing_behind_it() {
    assert_eq!(run("i32", "nop unreachable"), (3, true, vec![]));
    assert_eq!(
        run("i32", "(drop (i32.div_u (i32.const 1) (i32.const 0))) nop nop"),
        (16, true, vec![])
    );
    assert_eq!(run("i32", "(block (br 0) nop nop)"), (3, false, vec![]));
}

#[test]
fn loops_pay_every_turn() {
    let body = "(local $i i32) (loop (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1)))
                                                          (i32.const 10))))";
    assert_eq!(run("i32", body).0, 1 + 10 * 8);
}

#[test]
fn stores_mark_the_page_they_start_in() {
    assert_eq!(
        run("i32", "(i32.store8 (i32.const 4095) (i32.const 1))"),
        (4, false, vec![0])
    );
    assert_eq!(
        run("i32", "(i32.store8 offset=1 (i32.const 4095) (i32.const 1))"),
        (4, false, vec![1])
    );
    assert_eq!(
        run("i64", "(f64.store offset=8192 (i64.const 4096) (f64.const 1))"),
        (5, false, vec![3])
    );
    assert_eq!(
        run("i32", "(i64.store (i32.const 196600) (i64.const 1))"),
        (4, false, vec![47])
    );
    // Behind the end, by the address and by the offset.
    assert_eq!(
        run("i32", "(i32.store (i32.const 196605) (i32.const 1))"),
        (4, true, vec![])
    );
    assert_eq!(
        run("i32", "(i32.store offset=4294967295 (i32.const 8) (i32.const 1))"),
        (4, true, vec![])
    );
    assert_eq!(
        run("i64", "(i32.store (i64.const -1) (i32.const 1))"),
        (5, true, vec![])
    );
}

#[test]
fn stores_write_what_they_wrote_before() {
    let mut running = Running::of(
        "(module (memory 1) (func (export \"canister_update u\")
           (i32.store offset=4 (i32.const 0) (i32.const 0x01020304)) (i64.store16 (i32.const 1) (i64.const 0xabcd))
           (f32.store (i32.const 8) (f32.const 1)) (v128.store8_lane 2 (i32.const 12) (v128.const i32x4 0x00770000 0 0 0))))",
    );
    running.cost("canister_update u");
    let heap = running.instance.get_memory(&mut running.store, symbols::HEAP).unwrap();
    assert_eq!(
        heap.data(&running.store)[..13],
        [0, 0xcd, 0xab, 0, 4, 3, 2, 1, 0, 0, 0x80, 0x3f, 0x77]
    );
}

#[test]
fn bulk_operations_pay_their_size_and_mark_their_range() {
    let fill = |to: u32, size: u32| format!("(memory.fill (i32.const {to}) (i32.const 1) (i32.const {size}))");
    assert_eq!(run("i32", &fill(4000, 10)), (114, false, vec![0]));
    assert_eq!(run("i32", &fill(4000, 97)), (201, false, vec![0, 1]));
    assert_eq!(run("i32", &fill(4095, 8194)), (104 + 8194, false, vec![0, 1, 2, 3]));
    assert_eq!(run("i32", &fill(196_608, 0)), (104, false, vec![]));
    assert_eq!(run("i32", &fill(196_607, 2)), (106, true, vec![]));
    let copy = "(memory.copy (i64.const 8192) (i64.const 0) (i64.const 5000))";
    assert_eq!(run("i64", copy), (104 + 5000, false, vec![2, 3]));
    let init = "(memory.init 0 (i64.const 4094) (i32.const 0) (i32.const 7))";
    assert_eq!(run("i64", init), (104 + 7, false, vec![0, 1]));
    assert_eq!(
        run(
            "i32",
            "data.drop 0 (memory.init 0 (i32.const 0) (i32.const 0) (i32.const 1))"
        ),
        (405, true, vec![])
    );
}

#[test]
fn external_references_are_null() {
    let mut running = Running::of(
        "(module (type $t (func (param externref) (result i32))) (table 1 funcref) (elem (i32.const 0) $null)
           (elem externref (ref.null extern))
           (func $null (type $t) (local externref)
             (local.set 1 (if (result externref) (ref.is_null (local.get 0))
               (then (block (result externref) (local.get 0))) (else unreachable)))
             (ref.is_null (select (result externref) (local.get 1) (ref.null extern) (i32.const 0))))
           (func (export \"canister_update u\")
             (if (i32.eqz (call_indirect (type $t) (loop (result externref) (ref.null extern)) (i32.const 0)))
               (then unreachable))))",
    );
    // u: 1 + 1 + 1 + 10 + 1 + 2; the callee: 1 + 1 + 5 + 2, then 1, behind the if 1 + 1 + 1 + 1 + 1 + 5.
    assert_eq!(running.cost("canister_update u"), (16 + 9 + 1 + 10, false));
}

#[test]
fn growth_asks_the_host_first() {
    let mut running = Running::of(
        "(module (memory 1) (global $g (export \"g\") (mut i32) (i32.const 0)) (func (export \"canister_update u\")
           (global.set $g (memory.grow (i32.const 3))) (if (i32.ne (global.get $g) (i32.const 1)) (then unreachable))
           (global.set $g (memory.grow (i32.const -1)))
           (if (i32.ne (global.get $g) (i32.const -1)) (then unreachable))
           (if (i32.ne (memory.size) (i32.const 4)) (then unreachable))))",
    );
    assert!(!running.cost("canister_update u").1);
    assert_eq!(running.store.data().growths, [(1, 3), (4, 0xffff_ffff)]);
}

#[test]
fn a_spent_counter_stops_at_the_next_loop_head_or_function_entry() {
    let text = "(module (func $f) (func (export \"canister_update u\") nop nop call $f nop)
                  (func (export \"canister_update forever\") (loop nop (br 0))))";
    let mut running = Running::of(text);
    // The entry costs 9, the callee 1.
    for (given, stopped_with) in [(8, Some(-1)), (9, Some(-1)), (10, None)] {
        running.set_counter(given);
        running.store.data_mut().refills.clear();
        assert_eq!(running.call("canister_update u").is_err(), stopped_with.is_some());
        assert_eq!(running.store.data().refills.first().copied(), stopped_with);
    }
    running.set_counter(100);
    assert!(running.call("canister_update forever").is_err());
    assert_eq!(running.counter(), -3);
}

#[test]
fn a_refilled_counter_goes_on() {
    let mut running = Running::of(
        "(module (func (export \"canister_update u\") (local $i i32)
           (loop (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 10))))))",
    );
    running.store.data_mut().refill = Some(20);
    running.set_counter(20);
    running.call("canister_update u").unwrap();
    assert_eq!(running.store.data().refills, [-5, -4, -4]);
    assert_eq!(running.counter(), 12);
}

#[test]
fn a_size_larger_than_the_counter_stops_before_the_operation() {
    let text = |size: &str| {
        format!(
            "(module (memory i64 1) (func (export \"canister_update u\")
               (memory.fill (i64.const 0) (i32.const 1) (i64.const {size}))))"
        )
    };
    let mut running = Running::of(&text("1000"));
    running.set_counter(500);
    assert!(running.call("canister_update u").is_err());
    assert_eq!(running.store.data().refills, [500 - 104 - 1000]);
    assert!(running.marks().is_empty());

    let mut running = Running::of(&text("-1"));
    running.set_counter(500);
    assert!(running.call("canister_update u").is_err());
    assert_eq!(
        running.store.data().refills,
        [i64::MIN],
        "sizes are unsigned, and the counter does not wrap"
    );
}
