//! A replica and one that follows it, over their sockets.

mod support;

use candid::Principal;
use replicore::follow::{FollowError, Follower, FollowerOptions};
use replicore::{Replica, config::Config};
use replicore_netstack::NetBackend;
use replicore_workloads::agent::fetch_state_root;
use replicore_workloads::{Agent, CallOutcome};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Client, config, replied};

/// Counts, and writes a page with every count.
const COUNTER: &str = r#"
(module
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (memory 40)
  (func $answer (call $append (i32.const 0) (i32.const 4)) (call $reply))
  (func (export "canister_update inc") (local $n i32)
    (local.set $n (i32.add (i32.load (i32.const 0)) (i32.const 1)))
    (i32.store (i32.const 0) (local.get $n))
    (i32.store (i32.add (i32.const 65536) (i32.shl (local.get $n) (i32.const 12))) (i32.const 7))
    (call $answer))
  (func (export "canister_query read") (call $answer)))"#;

fn leader_config(state_dir: &Path) -> Config {
    let mut config = config(state_dir, NetBackend::Epoll);
    config.sync.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    // Rounds by themselves, so that a follower learns of a state that it was told about before.
    config.rounds.freshness_ms = 100;
    config
}

fn options(leader: &Replica) -> FollowerOptions {
    FollowerOptions {
        peer: leader.sync_addr().unwrap(),
        root_key_der: Some(leader.root_key_der().to_vec()),
    }
}

/// Waits for a condition.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn count(agent: &mut Agent, canister: Principal) -> u32 {
    let reply = replied(agent.query(canister, "read", &[]).unwrap());
    u32::from_le_bytes(reply.try_into().unwrap())
}

fn increment(agent: &mut Agent, canister: Principal, times: u32) {
    (0..times).for_each(|_| drop(replied(agent.update(canister, "inc", &[]).unwrap())));
}

/// Waits until the follower shows so many counts.
fn wait_for_count(follower: &Follower, client: &Client, canister: Principal, expected: u32) {
    wait_until("the follower catches up", || {
        assert_eq!(follower.failure(), None);
        follower.height().is_some()
            && {
                let mut agent = Agent::new(
                    follower.local_addr(),
                    client.identity.clone(),
                    Arc::clone(&client.verifier),
                );
                matches!(agent.query(canister, "read", &[]), Ok(CallOutcome::Replied(reply)) if reply == expected.to_le_bytes())
            }
    });
}

#[test]
fn a_follower_fetches_follows_and_comes_back() {
    let (home, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let leader = Replica::start(&leader_config(home.path())).unwrap();
    let client = Client::new(&leader, 0);
    let canister = client.install(&wat::parse_str(COUNTER).unwrap());
    let mut agent = client.agent();
    increment(&mut agent, canister, 20);
    let follower_config = config(away.path(), NetBackend::Epoll);

    let follower = Follower::start(&follower_config, &options(&leader)).unwrap();
    wait_for_count(&follower, &client, canister, 20);
    increment(&mut agent, canister, 15);
    wait_for_count(&follower, &client, canister, 35);
    // Certificates are the subnet's, checked with its key.
    fetch_state_root(follower.local_addr(), canister, &client.verifier).unwrap();
    let mut there = Agent::new(
        follower.local_addr(),
        client.identity.clone(),
        Arc::clone(&client.verifier),
    );
    let refused = format!("{:?}", there.update(canister, "inc", &[]));
    assert!(refused.contains("only follows another one"), "{refused}");
    follower.stop().unwrap();

    // What happened meanwhile it gets when it is back.
    increment(&mut agent, canister, 5);
    let follower = Follower::start(&follower_config, &options(&leader)).unwrap();
    wait_for_count(&follower, &client, canister, 40);

    // The leader goes and comes; what it had only in memory for followers is a checkpoint now.
    let sync_address = leader.sync_addr().unwrap();
    leader.stop().unwrap();
    let mut again = leader_config(home.path());
    again.sync.listen = Some(sync_address);
    let leader = Replica::start(&again).unwrap();
    let client = Client::new(&leader, 0);
    let mut agent = client.agent();
    increment(&mut agent, canister, 2);
    wait_for_count(&follower, &client, canister, 42);
    assert_eq!(count(&mut agent, canister), 42);
    drop(follower);

    // A crash of the follower: it starts from what it has.
    let follower = Follower::start(&follower_config, &options(&leader)).unwrap();
    increment(&mut agent, canister, 1);
    wait_for_count(&follower, &client, canister, 43);
    follower.stop().unwrap();
    leader.stop().unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn a_follower_without_the_batches_it_needs_fetches_the_state_again() {
    let (home, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let leader_dir = home.path().join("leader");
    let leader = Replica::start(&leader_config(&leader_dir)).unwrap();
    let client = Client::new(&leader, 0);
    let canister = client.install(&wat::parse_str(COUNTER).unwrap());
    increment(&mut client.agent(), canister, 4);
    let follower_config = config(away.path(), NetBackend::Epoll);
    let follower = Follower::start(&follower_config, &options(&leader)).unwrap();
    wait_for_count(&follower, &client, canister, 4);
    follower.stop().unwrap();

    // The leader goes on and starts again: what happened meanwhile is no longer in its memory.
    increment(&mut client.agent(), canister, 3);
    leader.stop().unwrap();
    copy(&leader_dir, &home.path().join("older"));
    let leader = Replica::start(&leader_config(&leader_dir)).unwrap();
    let client = Client::new(&leader, 0);
    let follower = Follower::start(&follower_config, &options(&leader)).unwrap();
    wait_for_count(&follower, &client, canister, 7);
    increment(&mut client.agent(), canister, 1);
    wait_for_count(&follower, &client, canister, 8);
    // Killed, so to speak: its newest checkpoint is the one that it fetched, and its log has a gap before that.
    let killed = away.path().join("killed");
    copy(away.path().join("log").as_path(), &killed.join("log"));
    copy(away.path().join("checkpoints").as_path(), &killed.join("checkpoints"));
    for file in ["format", "followed_key", "node_key"] {
        std::fs::copy(away.path().join(file), killed.join(file)).unwrap();
    }
    follower.stop().unwrap();

    // That checkpoint is damaged: the one before is there, and the batches behind it are not.
    let superblocks = killed.join("checkpoints/superblocks");
    let mut bytes = std::fs::read(&superblocks).unwrap();
    let sequence = |bytes: &[u8]| u64::from_le_bytes(bytes[16..24].try_into().unwrap());
    let newest = if sequence(&bytes) > sequence(&bytes[4096..]) {
        0
    } else {
        4096
    };
    bytes[newest + 20] ^= 1;
    std::fs::write(&superblocks, bytes).unwrap();
    let mut killed_config = follower_config.clone();
    killed_config.state_dir = killed;
    let again = Follower::start(&killed_config, &options(&leader)).unwrap();
    increment(&mut client.agent(), canister, 1);
    wait_for_count(&again, &client, canister, 9);
    again.stop().unwrap();
    leader.stop().unwrap();

    // A leader that was put back to an older copy has nothing for who knows what came after.
    let mut older = leader_config(&home.path().join("older"));
    older.rounds.freshness_ms = 60_000;
    let leader = Replica::start(&older).unwrap();
    let follower = Follower::start(&killed_config, &options(&leader)).unwrap();
    wait_until("the follower sees that it is ahead", || follower.failure().is_some());
    let said = follower.failure().unwrap();
    assert!(said.contains("restored from an older copy"), "{said}");
    leader.stop().unwrap();
}

/// Each side has a key of its own, or none: what is sent is the state, not its files.
#[test]
fn a_follower_may_encrypt_with_a_key_of_its_own() {
    let (home, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let keyed = |folder: &Path, digit: &str, mut config: Config| {
        let key = folder.join("key");
        std::fs::write(&key, digit.repeat(64)).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        config.state_dir = folder.join("state");
        config.encryption_key = Some(key);
        config
    };
    let leader = Replica::start(&keyed(home.path(), "1", leader_config(home.path()))).unwrap();
    let client = Client::new(&leader, 0);
    let canister = client.install(&wat::parse_str(COUNTER).unwrap());
    let mut agent = client.agent();
    increment(&mut agent, canister, 20);
    let follower_config = keyed(away.path(), "2", config(away.path(), NetBackend::Epoll));
    let follower = Follower::start(&follower_config, &options(&leader)).unwrap();
    wait_for_count(&follower, &client, canister, 20);
    increment(&mut agent, canister, 3);
    wait_for_count(&follower, &client, canister, 23);
    follower.stop().unwrap();
    let refused = Follower::start(
        &config(&away.path().join("state"), NetBackend::Epoll),
        &options(&leader),
    );
    let refused = refused.err().unwrap().to_string();
    assert!(refused.contains("is encrypted"), "{refused}");
    let follower = Follower::start(&follower_config, &options(&leader)).unwrap();
    increment(&mut agent, canister, 1);
    wait_for_count(&follower, &client, canister, 24);
    follower.stop().unwrap();
    leader.stop().unwrap();
}

#[test]
fn directories_and_keys_that_do_not_belong_are_refused() {
    let (home, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let leader = Replica::start(&leader_config(home.path())).unwrap();
    let mut wrong = options(&leader);
    wrong.root_key_der.as_mut().unwrap()[60] ^= 1;
    let follower_config = config(away.path(), NetBackend::Epoll);
    let refused = Follower::start(&follower_config, &wrong).err().unwrap();
    assert!(matches!(refused, FollowError::OtherSubnet), "{refused}");

    let follower = Follower::start(&follower_config, &options(&leader)).unwrap();
    follower.stop().unwrap();
    let damage = || replicore::offline::verify(away.path()).unwrap().damage;
    assert!(damage().is_empty(), "{:?}", damage());
    let followed = away.path().join("followed_key");
    let key = std::fs::read(&followed).unwrap();
    let mut other = key.clone();
    other[60] ^= 1;
    std::fs::write(&followed, other).unwrap();
    assert!(damage()[0].contains("followed_key"), "{:?}", damage());
    std::fs::write(&followed, key).unwrap();
    let refused = Replica::start(&follower_config).err().unwrap().to_string();
    assert!(refused.contains("--join"), "{refused}");

    let options = options(&leader);
    leader.stop().unwrap();
    let refused = Follower::start(&config(home.path(), NetBackend::Epoll), &options)
        .err()
        .unwrap();
    assert!(matches!(refused, FollowError::NotAFollower), "{refused}");
    let refused = Follower::start(&follower_config, &options).err().unwrap();
    assert!(matches!(refused, FollowError::Io(..)), "{refused}");
}
