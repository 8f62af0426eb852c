//! What the examples feed to their machines: batches drawn from a seed, as a sequencer would order real messages.

#[path = "../messages/mod.rs"]
mod messages;

use messages::{START, call, create, install};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use replicore_types::{Batch, CanisterId, Height, Ingress, Randomness, SubnetConfig};
use sha2::{Digest, Sha256};
use std::error::Error;
use std::time::Duration;

/// Counts in `inc`; `relay` calls `inc` of the canister in its argument and replies when that has, or traps when the
/// last byte of the counter is 7.
const MODULE: &str = r#"
(module
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ic0" "call_perform" (func $call_perform (result i32)))
  (memory 1)
  (table funcref (elem $answered))
  (data (i32.const 64) "inc")
  (func $count (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
  (func $answer (call $append (i32.const 0) (i32.const 4)) (call $reply))
  (func $answered (param i32) (call $count) (call $answer))
  (func (export "canister_update inc") (call $count) (call $answer))
  (func (export "canister_update relay")
    (call $count)
    (if (i32.eq (i32.load8_u (i32.const 0)) (i32.const 7)) (then unreachable))
    (call $arg_copy (i32.const 128) (i32.const 0) (call $arg_size))
    (call $call_new (i32.const 128) (call $arg_size) (i32.const 64) (i32.const 3)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (if (call $call_perform) (then (call $answer)))))
"#;

const CANISTERS: u64 = 6;
const MESSAGES_PER_BATCH: u64 = 40;

/// The subnet that the batches are for.
pub fn subnet() -> SubnetConfig {
    SubnetConfig::default()
}

/// The first `count` batches of a seed: canisters are made and installed, then called.
pub fn batches(seed: u64, count: u64) -> Result<Vec<Batch>, Box<dyn Error>> {
    let mut source = Source {
        choices: ChaCha8Rng::seed_from_u64(seed),
        messages: 0,
    };
    let heights = 1..=count;
    heights
        .map(|height| {
            let messages = match height {
                1 => (0..CANISTERS)
                    .map(|_| create(source.next()))
                    .collect::<Result<_, _>>()?,
                2 => (0..CANISTERS)
                    .map(|index| install(source.next(), CanisterId::from_index(index), MODULE))
                    .collect::<Result<_, _>>()?,
                _ => (0..MESSAGES_PER_BATCH).map(|_| source.any_call()).collect(),
            };
            Ok(Batch {
                height: Height(height),
                time: START.plus(Duration::from_millis(height)),
                randomness: Randomness(Sha256::digest(height.to_be_bytes()).into()),
                messages,
                consensus_responses: Vec::new(),
                stream_slices: Vec::new(),
                requires_checkpoint: false,
            })
        })
        .collect()
}

struct Source {
    choices: ChaCha8Rng,
    messages: u64,
}

impl Source {
    fn next(&mut self) -> u64 {
        self.messages += 1;
        self.messages
    }

    fn any_call(&mut self) -> Ingress {
        let mut canister = || CanisterId::from_index(self.choices.random_range(0..CANISTERS));
        let (receiver, other) = (canister(), canister());
        match self.choices.random_bool(0.5) {
            true => call(self.next(), receiver, "inc", Vec::new()),
            false => call(self.next(), receiver, "relay", other.as_slice().to_vec()),
        }
    }
}
