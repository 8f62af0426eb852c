//! Everything that `scheduler/src/workers.rs` offers, again and again, on more threads than there are cores. Each item is
//! plain memory that one thread after the other writes: should the hand-over between them not order the writes,
//! ThreadSanitizer says so and the exit code is 66.
//!
//! It needs a nightly toolchain with the component `rust-src`, because the standard library must be compiled with it:
//!
//! ```text
//! cd scheduler/races
//! RUSTFLAGS=-Zsanitizer=thread cargo +nightly run -Zbuild-std --target x86_64-unknown-linux-gnu
//! ```
//! `cargo run` on any toolchain is the same without the detector: only wrong sums are found.

#[path = "../../src/placement.rs"]
mod placement;
#[path = "../../src/workers.rs"]
mod workers;

use workers::SchedulerCores;

const ROUNDS: u64 = 300;

fn main() {
    for cores in [1, 2, 3, 4, 8] {
        let ahead: usize = (1..=ROUNDS)
            .map(|round| {
                let cores = SchedulerCores(cores);
                // Large rounds are on a thread of the pool themselves.
                cores.inside(round % 3 == 0, || one_round(cores, round))
            })
            .sum();
        println!("{cores} cores: {ROUNDS} rounds, {ahead} turns ahead of their wave");
    }
}

/// What a round hands over: waves with turns ahead, small things side by side, and two large ones. Returns how many turns
/// went ahead.
fn one_round(cores: SchedulerCores, round: u64) -> usize {
    let mut wave: Vec<Vec<u64>> = (0..round % 13).map(|number| vec![number]).collect();
    let mut later: Vec<Vec<u64>> = (0..round % 7).map(|number| vec![number]).collect();
    let turn = |canister: &mut Vec<u64>| {
        let first = canister[0];
        // Some turns take far longer, so that others go ahead.
        let messages = if first % 5 == 0 { 20_000 } else { 10 };
        canister.extend((0..messages).map(|message| first + message));
    };
    cores.for_each_and_ahead(&mut wave, &mut later, turn, turn);
    assert!(wave.iter().all(|canister| canister.len() > 1));
    // Those that went ahead are a beginning of the rest.
    let ahead = later.iter().take_while(|canister| canister.len() > 1).count();
    assert!(later[ahead..].iter().all(|canister| canister.len() == 1));
    cores.for_each(&mut later, turn);
    cores.for_each_if(cores.are_worth_it(wave.len() * 10), &mut wave, |canister| {
        canister.reverse()
    });
    let (mut left, mut right) = (0, 0);
    cores.join(round % 2 == 0, || left = wave.len(), || right = later.len());
    assert_eq!((left as u64, right as u64), (round % 13, round % 7));
    let statuses = (0..round * 7)
        .map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .collect();
    let mut statuses = cores.map(round % 2 == 1, statuses, |id: u64| (id, vec![id]));
    cores.sort_by(round % 2 == 1, &mut statuses, |(left, _), (right, _)| left.cmp(right));
    assert!(statuses.is_sorted() && statuses.iter().all(|(id, content)| content == &[*id]));
    ahead
}
