//! Generated modules behave the same in both compiler tiers: results, instruction counts, memories, globals.
//!
//! `REPLICORE_CASES` sets the number of modules; `engine/fuzz` runs the same comparison without end.

#[path = "common/generated.rs"]
mod generated;

mod common;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

/// Modules compared in an ordinary test run.
const CASES: u64 = 40;

#[test]
fn both_tiers_agree_on_generated_modules() {
    let cases = std::env::var("REPLICORE_CASES").map_or(CASES, |cases| cases.parse().expect("a number"));
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let (mut accepted, mut finished, mut failed) = (0, 0, 0);
    for _ in 0..cases {
        let mut bytes = vec![0; 4096];
        random.fill_bytes(&mut bytes);
        let Some(wasm) = generated::generate(&bytes) else {
            continue;
        };
        let trace = generated::compare_tiers(&wasm);
        accepted += usize::from(trace.prepared.is_ok());
        for (result, instructions) in trace.messages {
            assert!(instructions > 0 || result.starts_with("Ok"), "{result}");
            finished += usize::from(result.starts_with("Ok"));
            failed += usize::from(result.starts_with("Err"));
        }
    }
    println!("{accepted} modules accepted; {finished} messages finished, {failed} failed");
    assert!(
        accepted * 4 > cases as usize,
        "the generator makes modules that are accepted"
    );
    assert!(finished > 0 && failed > 0, "both ends of a message occur");
}
