//! Changed pages in memory stay within their bound, however much is written. One test, hence a process of its own: page
//! frames are counted for the process.

mod support;

use replicore::Replica;
use replicore_netstack::NetBackend;
use replicore_persistence::frames_in_use;
use support::{Client, config, replied};

/// Writes a word to each of 64 pages, and to others with every call; after 256 calls it begins again.
const WRITER: &str = r#"
(module
  (import "ic0" "msg_reply" (func $reply))
  (memory 1025)
  (func (export "canister_update write") (local $page i32) (local $end i32)
    (local.set $page (i32.shl (i32.load (i32.const 0)) (i32.const 18)))
    (local.set $page (i32.add (local.get $page) (i32.const 65536)))
    (local.set $end (i32.add (local.get $page) (i32.const 262144)))
    (loop $next
      (i32.store (local.get $page) (i32.const 7))
      (local.set $page (i32.add (local.get $page) (i32.const 4096)))
      (br_if $next (i32.lt_u (local.get $page) (local.get $end))))
    (i32.store (i32.const 0) (i32.rem_u (i32.add (i32.load (i32.const 0)) (i32.const 1)) (i32.const 256)))
    (call $reply))
  (func (export "canister_query written") (call $reply)))"#;

const BOUND_BYTES: u64 = 16 << 20;
const PAGES_PER_CALL: u64 = 64;
const CALLS: u64 = 200;
const _: () = assert!(
    CALLS * PAGES_PER_CALL * 4096 > 3 * BOUND_BYTES,
    "much more is written than may wait"
);

#[test]
fn changed_pages_in_memory_stay_within_their_bound() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), NetBackend::Epoll);
    config.checkpoints.dirty_bytes_max = BOUND_BYTES;
    config.subnet.rate_limits = false;
    let replica = Replica::start(&config).unwrap();
    let client = Client::new(&replica, 0);
    let canister = client.install(&wat::parse_str(WRITER).unwrap());
    let (mut agent, mut most) = (client.agent(), 0);
    for _ in 0..CALLS {
        replied(agent.update(canister, "write", &[]).unwrap());
        most = most.max(frames_in_use() * 4096);
    }
    // A round may go on over the bound with what it writes.
    assert!(most > BOUND_BYTES / 2 && most < BOUND_BYTES * 5 / 4, "{most} bytes");
    let metrics = replica.metrics_text();
    let height = metrics
        .lines()
        .find_map(|line| line.strip_prefix("replicore_checkpoint_height "));
    assert!(height.unwrap().parse::<u64>().unwrap() > 10, "{metrics}");
    replica.stop().unwrap();
}
