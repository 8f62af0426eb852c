//! Queries over the sockets of a whole replica: what is cached, what is fair.

mod support;

use candid::Principal;
use replicore::Replica;
use replicore_netstack::NetBackend;
use replicore_workloads::CallOutcome;
use std::time::Instant;
use support::{Client, config, replied, wait_until};

/// One query for each thing that an answer can depend on. None looks at its argument, so that two queries of one method
/// that differ in it have the same answer and different places in the cache.
const OBSERVER: &str = r#"
(module
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_reject" (func $reject (param i32 i32)))
  (import "ic0" "msg_caller_copy" (func $caller (param i32 i32 i32)))
  (import "ic0" "msg_caller_size" (func $caller_size (result i32)))
  (import "ic0" "time" (func $time (result i64)))
  (import "ic0" "canister_cycle_balance128" (func $balance (param i32)))
  (import "ic0" "canister_version" (func $version (result i64)))
  (import "ic0" "certified_data_set" (func $certify (param i32 i32)))
  (import "ic0" "data_certificate_size" (func $certificate_size (result i32)))
  (import "ic0" "data_certificate_copy" (func $certificate (param i32 i32 i32)))
  (memory 2)
  (func $answer (param $size i32) (call $append (i32.const 16) (local.get $size)) (call $reply))
  (func (export "canister_update inc")
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
    (call $certify (i32.const 0) (i32.const 4))
    (call $answer (i32.const 0)))
  (func (export "canister_query count") (i32.store (i32.const 16) (i32.load (i32.const 0))) (call $answer (i32.const 4)))
  (func (export "canister_query rejects") (call $reject (i32.const 0) (i32.const 4)))
  (func (export "canister_query caller")
    (call $caller (i32.const 16) (i32.const 0) (call $caller_size)) (call $answer (call $caller_size)))
  (func (export "canister_query time") (i64.store (i32.const 16) (call $time)) (call $answer (i32.const 8)))
  (func (export "canister_query balance") (call $balance (i32.const 16)) (call $answer (i32.const 16)))
  (func (export "canister_query version") (i64.store (i32.const 16) (call $version)) (call $answer (i32.const 8)))
  (func (export "canister_query certificate")
    (call $certificate (i32.const 16) (i32.const 0) (call $certificate_size))
    (call $answer (call $certificate_size)))
  (func (export "canister_query grows")
    (i32.store (i32.const 16) (memory.grow (i32.const 1))) (call $answer (i32.const 4)))
  (func (export "canister_query traps") unreachable)
  (func (export "canister_query spins") (local $left i32)
    (local.set $left (i32.const 250000000))
    (loop $again
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $again (local.get $left)))
    (call $answer (i32.const 4)))
)"#;

/// Methods whose answers are kept.
const CACHEABLE: [&str; 7] = [
    "count",
    "rejects",
    "caller",
    "time",
    "balance",
    "version",
    "certificate",
];
/// Methods whose answers are not.
const UNCACHEABLE: [&str; 2] = ["grows", "traps"];

fn start(cache_bytes_max: usize) -> (Replica, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), NetBackend::Auto);
    config.queries.cache_bytes_max = cache_bytes_max;
    config.queries.threads = 1;
    // No round between two queries unless the test makes one.
    config.rounds.freshness_ms = 600_000;
    (Replica::start(&config).unwrap(), directory)
}

fn observer(client: &Client) -> Principal {
    client.install(&wat::parse_str(OBSERVER).unwrap())
}

/// Asks everything after every update, twice with the same argument and once with one that was never used. With the
/// cache on, the second answer comes from it and the third cannot. Returns what was answered.
fn ask_everything(replica: &Replica) -> Vec<CallOutcome> {
    let client = Client::new(replica, 1);
    let (mut agent, canister) = (client.agent(), observer(&client));
    let mut answers = Vec::new();
    for step in 0..4u8 {
        for method in CACHEABLE.into_iter().chain(UNCACHEABLE) {
            let first = agent.query(canister, method, b"same").unwrap();
            let repeated = agent.query(canister, method, b"same").unwrap();
            let other = agent.query(canister, method, &[step]).unwrap();
            assert_eq!(first, repeated, "{method} after {step} updates");
            assert_eq!(first, other, "{method} after {step} updates");
            if !["time", "certificate"].contains(&method) {
                answers.push(first);
            }
        }
        replied(agent.update(canister, "inc", &[]).unwrap());
    }
    answers
}

#[test]
fn the_cache_changes_no_answer() {
    let (cached, _directory) = start(1 << 20);
    let with = ask_everything(&cached);
    let stats = cached.query_stats();
    assert!(stats.cache.hits >= 4 * CACHEABLE.len() as u64, "{stats:?}");
    assert!(stats.cache.stale > 0 && stats.cache.uncacheable > 0, "{stats:?}");
    cached.stop().unwrap();
    let (uncached, _directory) = start(0);
    let without = ask_everything(&uncached);
    let stats = uncached.query_stats();
    assert_eq!((stats.cache.hits, stats.cache.entries), (0, 0));
    assert_eq!(with, without);
    uncached.stop().unwrap();
}

#[test]
fn the_cache_stays_within_its_bytes() {
    let bytes_max = 256 * 1024;
    let (replica, _directory) = start(bytes_max);
    let client = Client::new(&replica, 1);
    let (mut agent, canister) = (client.agent(), observer(&client));
    for number in 0..400u32 {
        let mut argument = vec![0; 1_000];
        argument[..4].copy_from_slice(&number.to_be_bytes());
        replied(agent.query(canister, "count", &argument).unwrap());
    }
    let cache = replica.query_stats().cache;
    assert!(cache.bytes <= bytes_max as u64 && cache.entries > 50, "{cache:?}");
    replica.stop().unwrap();
}

#[test]
fn long_queries_do_not_hold_up_short_ones() {
    let (replica, _directory) = start(0);
    let client = Client::new(&replica, 1);
    let (busy, quiet) = (observer(&client), observer(&client));
    // Warm from here on.
    for canister in [busy, quiet] {
        replied(client.agent().query(canister, "count", &[]).unwrap());
    }
    std::thread::scope(|scope| {
        let spinning: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    replied(client.agent().query(busy, "spins", &[]).unwrap());
                    Instant::now()
                })
            })
            .collect();
        // All three have used up their first slice, and two of them wait for the one query thread.
        wait_until("the long queries are at the query thread", || {
            replica.query_stats().waiting + replica.query_stats().paused >= 2
        });
        let mut agent = client.agent();
        for canister in [busy, quiet, busy, quiet] {
            replied(agent.query(canister, "count", &[]).unwrap());
        }
        let answered = Instant::now();
        let last = spinning.into_iter().map(|thread| thread.join().unwrap()).max();
        assert!(last > Some(answered), "short queries waited for the long ones");
    });
    assert!(replica.query_stats().answered_by_thread >= 3);
    let metrics = replica.metrics_text();
    for sample in [
        "replicore_queries_total{answer=\"by_thread\"} ",
        "replicore_calls_total{answer=\"certified\"} 4\n",
        "replicore_query_seconds_bucket{le=\"+Inf\"} 9\n",
        "replicore_query_seconds_count 9\n",
    ] {
        assert!(metrics.contains(sample), "{sample} is missing in\n{metrics}");
    }
    replica.stop().unwrap();
}
