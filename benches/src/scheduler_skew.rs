//! Rounds in which some canisters take far longer than the others.

use crate::BenchError;
use crate::measure::{Effort, Figure, seconds};
use crate::scheduler::Subnet;
use replicore_types::Ingress;

/// `work` counts to the number in its argument and replies.
const MODULE: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
    (memory 1)
    (func (export "canister_update noop") (call $reply))
    (func (export "canister_update work") (local $left i32)
        (call $arg_copy (i32.const 0) (i32.const 0) (i32.const 4))
        (local.set $left (i32.load (i32.const 0)))
        (loop $more
            (local.set $left (i32.sub (local.get $left) (i32.const 1)))
            (br_if $more (i32.gt_s (local.get $left) (i32.const 0))))
        (call $reply)))"#;

const CANISTERS: u64 = 100;
/// What a light message counts to: some tens of microseconds.
const LIGHT: u64 = 20_000;
/// Every tenth canister counts to so many times as much.
const HEAVY_FACTOR: u64 = 20;

/// `scheduler.skewed_speedup`: a message for each of 100 canisters, of which every tenth, in no order that the scheduler
/// knows, takes twenty times as long: one core against two, interleaved.
pub fn speedup(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let subnet = |cores| Subnet::of_module(MODULE, CANISTERS as usize, cores);
    let (mut one, mut two) = (subnet(1)?, subnet(2)?);
    let light = effort.scale(LIGHT);
    let mut round = 0;
    let samples = effort.samples(|| {
        round += 1;
        Ok(skewed_round(&mut one, light, round) / skewed_round(&mut two, light, round))
    })?;
    one.check_all_replied()?;
    one.check_same_root(&two)?;
    Ok(vec![Figure::of("scheduler.skewed_speedup", "x", samples, one.root())])
}

/// Seconds of a round.
fn skewed_round(subnet: &mut Subnet, light: u64, round: u64) -> f64 {
    let messages: Vec<Ingress> = (0..CANISTERS)
        .map(|canister| {
            // Heavy ones lie elsewhere in every round.
            let is_heavy = (canister * 37 + round * 11) % CANISTERS < CANISTERS / 10;
            let count = if is_heavy { light * HEAVY_FACTOR } else { light };
            subnet.message(canister as usize, "work", &(count as u32).to_le_bytes())
        })
        .collect();
    seconds(|| subnet.round(messages)).0
}
