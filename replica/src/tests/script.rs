//! Batches drawn from a seed: small canisters that count, call each other, trap, set timers and beat.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use replicore_types::{Batch, CanisterId, Height, Ingress, MessageId, Payload, PrincipalId, Randomness, Time};
use replicore_workloads::management::{InstallMode, create_argument, install_argument};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Canisters of every script.
pub const CANISTERS: u64 = 5;
/// Batches of every script.
pub const BATCHES: u64 = 14;
const MESSAGES_PER_BATCH: usize = 25;
const START: Time = Time(1_700_000_000_000_000_000);
const CYCLES: u128 = 100_000_000_000_000;

/// Counts calls (heap 0), heartbeats (8), timers (16) and answers (24); writes a page of heap and of stable memory with
/// every count.
const MODULE: &str = r#"
(module
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "stable64_grow" (func $stable_grow (param i64) (result i64)))
  (import "ic0" "stable64_write" (func $stable_write (param i64 i64 i64)))
  (import "ic0" "time" (func $time (result i64)))
  (import "ic0" "global_timer_set" (func $timer_set (param i64) (result i64)))
  (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ic0" "call_data_append" (func $call_data (param i32 i32)))
  (import "ic0" "call_perform" (func $call_perform (result i32)))
  (import "ic0" "canister_cycle_balance128" (func $balance (param i32)))
  (import "ic0" "data_certificate_size" (func $certificate_size (result i32)))
  (import "ic0" "data_certificate_copy" (func $certificate_copy (param i32 i32 i32)))
  (import "ic0" "msg_caller_size" (func $caller_size (result i32)))
  (import "ic0" "msg_caller_copy" (func $caller_copy (param i32 i32 i32)))
  (memory 2)
  (table funcref (elem $answered $relayed))
  (data (i32.const 64) "inctrapread")
  (func $count (param $at i32) (local $n i64)
    (local.set $n (i64.add (i64.load (local.get $at)) (i64.const 1)))
    (i64.store (local.get $at) (local.get $n))
    (i32.store
      (i32.add (i32.const 65536) (i32.shl (i32.and (i32.wrap_i64 (local.get $n)) (i32.const 15)) (i32.const 12)))
      (i32.wrap_i64 (local.get $n)))
    (call $stable_write
      (i64.shl (i64.and (local.get $n) (i64.const 7)) (i64.const 13)) (i64.const 0) (i64.const 32)))
  (func $answer (call $append (i32.const 0) (i32.const 32)) (call $reply))
  (func $answered (param i32) (call $count (i32.const 24)) (call $answer))
  (func (export "canister_init") (drop (call $stable_grow (i64.const 2))))
  (func (export "canister_update inc") (call $count (i32.const 0)) (call $answer))
  (func (export "canister_update trap") (call $count (i32.const 0)) unreachable)
  (func (export "canister_query read") (call $answer))
  ;; Queries for everything else that an answer can depend on.
  (func $relay (param $size i32) (call $append (i32.const 256) (local.get $size)) (call $reply))
  (func (export "canister_query clock") (i64.store (i32.const 256) (call $time)) (call $relay (i32.const 8)))
  (func (export "canister_query balance") (call $balance (i32.const 256)) (call $relay (i32.const 16)))
  (func (export "canister_query caller")
    (call $caller_copy (i32.const 256) (i32.const 0) (call $caller_size)) (call $relay (call $caller_size)))
  (func (export "canister_query certificate")
    (call $certificate_copy (i32.const 256) (i32.const 0) (call $certificate_size))
    (call $relay (call $certificate_size)))
  (func (export "canister_query writes") (call $count (i32.const 0)) (call $answer))
  (func (export "canister_query traps") (call $count (i32.const 0)) unreachable)
  (func $relayed (param i32)
    (call $arg_copy (i32.const 256) (i32.const 0) (call $arg_size)) (call $relay (call $arg_size)))
  ;; The argument is the id of the canister whose `read` is relayed.
  (func (export "canister_composite_query relay")
    (call $arg_copy (i32.const 128) (i32.const 0) (call $arg_size))
    (call $call_new (i32.const 128) (call $arg_size) (i32.const 71) (i32.const 4)
      (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 0))
    (drop (call $call_perform)))
  (func (export "canister_update arm")
    (drop (call $timer_set (i64.add (call $time) (i64.const 1500000000)))) (call $answer))
  (func (export "canister_global_timer") (call $count (i32.const 16)))
  (func (export "canister_heartbeat") (call $count (i32.const 8)))
  ;; The argument is the callee's id and one byte: 0 calls `inc`, 1 calls `trap`.
  (func (export "canister_update call") (local $size i32) (local $traps i32)
    (local.set $size (i32.sub (call $arg_size) (i32.const 1)))
    (call $arg_copy (i32.const 128) (i32.const 0) (call $arg_size))
    (local.set $traps (i32.load8_u (i32.add (i32.const 128) (local.get $size))))
    (call $count (i32.const 0))
    (call $call_new (i32.const 128) (local.get $size)
      (select (i32.const 67) (i32.const 64) (local.get $traps))
      (select (i32.const 4) (i32.const 3) (local.get $traps))
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))
    (if (call $call_perform) (then (call $answer))))
)"#;

/// The batches of a seed, heights 1 to [`BATCHES`].
pub fn batches(seed: u64) -> Vec<Batch> {
    let mut script = Script {
        choices: ChaCha8Rng::seed_from_u64(seed),
        messages_made: 0,
    };
    (1..=BATCHES).map(|height| script.batch(height)).collect()
}

struct Script {
    choices: ChaCha8Rng,
    messages_made: u64,
}

impl Script {
    fn batch(&mut self, height: u64) -> Batch {
        let messages = match height {
            1 => (0..CANISTERS).map(|_| self.create()).collect(),
            2 => (0..CANISTERS).map(|number| self.install(number)).collect(),
            height if height % 5 == 0 => Vec::new(),
            _ => (0..MESSAGES_PER_BATCH).map(|_| self.any()).collect(),
        };
        Batch {
            height: Height(height),
            time: time_of(height),
            randomness: Randomness([height as u8; 32]),
            messages,
            ..Batch::default()
        }
    }

    fn create(&mut self) -> Ingress {
        self.message(
            CanisterId::MANAGEMENT,
            "provisional_create_canister_with_cycles",
            create_argument(CYCLES).unwrap(),
        )
    }

    fn install(&mut self, number: u64) -> Ingress {
        let canister = CanisterId::from_index(number);
        let module = wat::parse_str(MODULE).unwrap();
        let argument = install_argument(InstallMode::Install, canister.0, &module, &[]);
        let message = self.message(CanisterId::MANAGEMENT, "install_code", argument.unwrap());
        Ingress {
            effective_canister_id: Some(canister),
            ..message
        }
    }

    fn any(&mut self) -> Ingress {
        // One of ten goes to a canister that does not exist.
        let receiver = CanisterId::from_index(self.choices.random_range(0..CANISTERS * 11 / 10 + 1));
        let method = ["inc", "call", "call", "trap", "read", "arm", "missing"][self.choices.random_range(0..7)];
        let mut argument = Vec::new();
        if method == "call" {
            argument.extend_from_slice(CanisterId::from_index(self.choices.random_range(0..CANISTERS)).as_slice());
            argument.push(self.choices.random_range(0..2));
        }
        self.message(receiver, method, argument)
    }

    fn message(&mut self, receiver: CanisterId, method: &str, argument: Vec<u8>) -> Ingress {
        self.messages_made += 1;
        Ingress {
            message_id: MessageId(Sha256::digest(self.messages_made.to_be_bytes()).into()),
            source: PrincipalId::self_authenticating([1; 44]),
            receiver,
            effective_canister_id: (receiver != CanisterId::MANAGEMENT).then_some(receiver),
            method_name: method.into(),
            envelope_bytes: argument.len() as u32 + 300,
            method_payload: Payload::from(argument),
            expiry: time_of(BATCHES).plus(Duration::from_secs(1)),
            sender_info: None,
        }
    }
}

/// A second from batch to batch: less than a timer of the canisters, so that it fires two batches later.
fn time_of(height: u64) -> Time {
    START.plus(Duration::from_secs(height))
}
