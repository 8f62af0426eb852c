//! Loops whose turns are paid together, as they are written at random: results, counts, memories and traps are those of the
//! reference, which takes one operator after another, on both compiler tiers, whatever the limits.
//!
//! `REPLICORE_CASES` sets the number of modules.

mod common;
mod reference;

use common::Canister;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use reference::against_engine::{ENGINES, compare_within};
use replicore_engine::Engine;
use replicore_types::NumInstructions;
use std::fmt::Write;
use std::sync::Arc;

/// Modules compared in an ordinary test run.
const CASES: u64 = 150;

#[test]
fn loops_count_and_compute_as_in_the_reference() {
    let cases = std::env::var("REPLICORE_CASES").map_or(CASES, |cases| cases.parse().expect("a number"));
    let mut random = Random(TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    for _ in 0..cases {
        let text = random.module();
        let message = random.below(20_000) + 10;
        let wasm = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert!(compare_within(&wasm, message), "the module is accepted\n{text}");
        // Slices shorter than a line have rules of their own.
        let slice = (message / (2 + random.below(9))).max(500);
        let [fast, short] = [&ENGINES[0], &ENGINES[1]].map(|engine| in_slices(engine, &wasm, message, slice));
        assert_eq!(fast, short, "{message} instructions in slices of {slice}\n{text}");
    }
}

/// How messages end in slices, their instructions and slices, and the heap behind them.
fn in_slices(engine: &Arc<Engine>, wasm: &[u8], message: u64, slice: u64) -> Vec<(String, u64, u32, [u8; 32])> {
    let mut canister = Canister::with_engine(Arc::clone(engine), wasm.to_vec());
    canister.limits.message = NumInstructions(message);
    canister.limits.slice = NumInstructions(slice);
    let messages = ["a", "b", "c"].map(|method| {
        let done = canister.update(method, b"");
        let end = format!("{:?}", done.result.map_err(|failed| failed.error));
        let heap = canister.state.heap.pages.digest();
        (end, done.instructions.get(), done.stats.slices, heap)
    });
    messages.into()
}

/// Makes loops. Locals: `$p`, `$q`, `$i` and `$t` are addresses, `$n` counts turns, `$sum` and `$f` are what is computed.
///
/// Most loops are tame: their addresses move forward in steps, towards the end of a page or of the memory.
struct Random(TestRng);

/// Where addresses begin: at ends of pages, of the memory of two Wasm pages and of the address space.
const PLACES: [u64; 9] = [0, 8, 4_080, 4_095, 65_530, 126_900, 131_000, 131_071, 0xffff_fff0];
const OFFSETS: [u64; 7] = [0, 0, 1, 4_090, 8_192, 65_536, 131_060];
const TAME_OFFSETS: [u64; 5] = [0, 0, 1, 16, 40];
const STEPS: [u64; 6] = [0, 1, 2, 4, 8, 768];
/// Ends of pages; the last one is that of the memory.
const ENDS: [u64; 4] = [4_096, 65_536, 131_072, 131_072];

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    fn module(&mut self) -> String {
        let (ty, index) = self.of(&[("i32", ""), ("i32", ""), ("i64", "i64")]);
        let mut text = format!("(module (memory {index} 2 3) (global $g (mut i64) (i64.const 0))\n");
        for name in ["a", "b", "c"] {
            let tame = self.below(4) > 0;
            let places: Vec<u64> = (0..3).map(|_| self.place(tame)).collect();
            let turns = self.of(&[1, 3, 5, 9, 40, 100, 600, 5_000]);
            let repeats = self.of(&[1, 1, 3]);
            let line = self.line(ty, tame);
            let condition = self.condition(ty);
            write!(
                text,
                "(func (export \"canister_update {name}\")
                   (local $p {ty}) (local $q {ty}) (local $i {ty}) (local $t {ty})
                   (local $n i32) (local $again i32) (local $sum i64) (local $f f64)
                   (local.set $again (i32.const {repeats}))
                   (loop $outer
                     (local.set $p ({ty}.const {})) (local.set $q ({ty}.const {})) (local.set $i ({ty}.const {}))
                     (local.set $n (i32.const {turns}))
                     (block $out (loop $turns\n{line}{condition}))
                     (br_if $outer (local.tee $again (i32.sub (local.get $again) (i32.const 1)))))
                   (global.set $g (i64.add (local.get $sum) (i64.trunc_sat_f64_s (local.get $f)))))\n",
                places[0],
                places[1],
                places[2] >> 3,
            )
            .unwrap();
        }
        text + ")"
    }

    fn place(&mut self, tame: bool) -> u64 {
        if tame {
            self.of(&ENDS) - self.below(1_500)
        } else {
            self.of(&PLACES)
        }
    }

    fn line(&mut self, ty: &str, tame: bool) -> String {
        let mut line: String = (0..1 + self.below(4)).map(|_| self.statement(ty, tame)).collect();
        for local in ["$p", "$i"] {
            let step = self.step(tame);
            writeln!(
                line,
                "(local.set {local} ({ty}.add (local.get {local}) ({ty}.const {step})))"
            )
            .unwrap();
        }
        line
    }

    fn step(&mut self, tame: bool) -> i64 {
        match self.below(4) {
            0 => self.below(300) as i64,
            1 if !tame => -8,
            _ => self.of(&STEPS) as i64,
        }
    }

    fn statement(&mut self, ty: &str, tame: bool) -> String {
        let offset = if tame {
            self.of(&TAME_OFFSETS)
        } else {
            self.of(&OFFSETS)
        };
        let address = self.address(ty, tame);
        match self.below(if tame { 9 } else { 16 }) {
            0..=3 => {
                let (store, value) = self.of(&[
                    ("i64.store", "(i64.const -1)"),
                    ("i64.store8", "(i64.const 77)"),
                    ("i32.store", "(local.get $n)"),
                    ("i32.store16", "(local.get $n)"),
                    ("f64.store", "(local.get $f)"),
                ]);
                format!("({store} offset={offset} {address} {value})\n")
            }
            4..=6 => {
                let load = self.of(&["i64.load", "i64.load8_u", "i64.load16_s", "i64.load32_u"]);
                format!("(local.set $sum (i64.add (local.get $sum) ({load} offset={offset} {address})))\n")
            }
            7 => format!(
                "(local.set $f (f64.div (f64.add (local.get $f) (f64.load offset={offset} {address})) (f64.const 3)))\n"
            ),
            8 => "(local.set $sum (i64.rem_u (local.get $sum) (i64.const 1000)))\n".to_owned(),
            9..=10 => {
                let (local, step) = (self.of(&["$p", "$q", "$i"]), self.step(tame));
                format!("(local.set {local} ({ty}.add (local.get {local}) ({ty}.const {step})))\n")
            }
            11 => format!("(local.set $t {address})\n"),
            12..=13 => {
                let divisor = self.of(&[0, 7, 7, -1]);
                format!("(local.set $sum (i64.div_s (local.get $sum) (i64.const {divisor})))\n")
            }
            14 => "(br_if $out (i32.eq (local.get $n) (i32.const 4)))\n".to_owned(),
            _ => "(global.set $g (i64.add (global.get $g) (local.get $sum)))\n".to_owned(),
        }
    }

    fn address(&mut self, ty: &str, tame: bool) -> String {
        match self.below(if tame { 6 } else { 10 }) {
            0..=2 => "(local.get $p)".to_owned(),
            3 => format!("({ty}.add (local.get $p) ({ty}.const 8))"),
            4 => format!("({ty}.shl (local.get $i) ({ty}.const 3))"),
            5 => "(local.get $q)".to_owned(),
            6 => format!("({ty}.add (local.get $p) (local.get $q))"),
            7 => format!("(local.tee $t ({ty}.sub (local.get $p) ({ty}.const 4)))"),
            8 => "(local.get $t)".to_owned(),
            _ => format!("({ty}.and (local.get $i) ({ty}.const 0xffff))"),
        }
    }

    fn condition(&mut self, ty: &str) -> String {
        match self.below(4) {
            0 => format!("(br_if $turns ({ty}.lt_u (local.get $p) ({ty}.const 131072)))\n"),
            _ => "(br_if $turns (local.tee $n (i32.sub (local.get $n) (i32.const 1))))\n".to_owned(),
        }
    }
}
