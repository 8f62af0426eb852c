//! A whole replica in this process, driven over its sockets.

mod support;

use candid::{Decode, Encode, Principal};
use replicore::{Replica, ReplicaError};
use replicore_netstack::NetBackend;
use replicore_workloads::CallOutcome;
use replicore_workloads::agent::{AgentError, fetch_state_root};
use replicore_workloads::certificate::RequestStatus;
use replicore_workloads::http::Connection;
use replicore_workloads::ledger::{self, LoadOptions, Progress};
use replicore_workloads::request::Kind;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use support::{Client, config, replied, wait_until};

/// Longer than anything here takes on a machine that is busy with something else, shorter than what must not be waited
/// for.
const MINUTE: Duration = Duration::from_secs(60);

/// Counts updates; `forever` runs into the instruction limit, but not soon.
const COUNTER: &str = r#"
(module
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (memory 1)
  (func $answer (call $append (i32.const 0) (i32.const 4)) (call $reply))
  (func (export "canister_update inc")
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))) (call $answer))
  (func (export "canister_query read") (call $answer))
  (func (export "canister_update forever") (loop $again (br $again)))
  (func (export "canister_heartbeat")
    (i32.store (i32.const 4) (i32.add (i32.load (i32.const 4)) (i32.const 1))))
  (func (export "canister_query beats") (call $append (i32.const 4) (i32.const 4)) (call $reply))
)"#;

#[derive(candid::CandidType)]
struct About {
    canister_id: Principal,
}

fn counter() -> Vec<u8> {
    wat::parse_str(COUNTER).unwrap()
}

fn count(reply: &[u8]) -> u32 {
    u32::from_le_bytes(reply.try_into().unwrap())
}

/// Deploys the ledger, loads it, reads state, stops, starts again: balances and root are there.
fn ledger_survives_a_restart(net: NetBackend) {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), net);
    // Nothing but messages moves the state, so that the roots before and after can be compared.
    config.rounds.freshness_ms = 600_000;
    let replica = Replica::start(&config).unwrap();
    let client = Client::new(&replica, 0);
    let canister = ledger::deploy(&mut client.agent()).unwrap();
    let options = LoadOptions {
        address: client.address,
        ledger: canister,
        users: 8,
        duration: Duration::from_millis(700),
        query_percent: 30,
        seed: 5,
    };
    let report = ledger::run(&options, &client.verifier, &Arc::new(Progress::default())).unwrap();
    assert!(report.transfers > 10 && report.queries > 5, "{report:?}");
    ledger::check(client.address, canister, &client.verifier, &report.balances).unwrap();
    let root = fetch_state_root(client.address, canister, &client.verifier).unwrap();
    replica.stop().unwrap();

    let replica = Replica::start(&config).unwrap();
    let address = replica.local_addr();
    assert_eq!(fetch_state_root(address, canister, &client.verifier).unwrap(), root);
    ledger::check(address, canister, &client.verifier, &report.balances).unwrap();
    replica.stop().unwrap();
}

#[test]
fn a_ledger_survives_a_restart_over_epoll() {
    ledger_survives_a_restart(NetBackend::Epoll);
}

#[test]
fn a_ledger_survives_a_restart_over_io_uring() {
    let directory = tempfile::tempdir().unwrap();
    match Replica::start(&config(directory.path(), NetBackend::Uring)) {
        Ok(replica) => replica.stop().unwrap(),
        // Hosts may forbid io_uring; the error then says so.
        Err(ReplicaError::Io(_, error)) => return eprintln!("skipped, no io_uring here: {error}"),
        Err(error) => panic!("{error}"),
    }
    ledger_survives_a_restart(NetBackend::Uring);
}

#[test]
fn a_call_is_executed_once_however_often_it_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let replica = Replica::start(&config(directory.path(), NetBackend::Auto)).unwrap();
    let mut client = Client::new(&replica, 1);
    let canister = client.install(&counter());

    let signed = client.sign(canister, "inc", b"");
    let first = client.send("v3", canister, &signed);
    assert_eq!(
        client.status_in(&first, &signed),
        RequestStatus::Replied(1_u32.to_le_bytes().into())
    );
    for version in ["v3", "v4"] {
        let again = client.send(version, canister, &signed);
        assert_eq!(
            client.status_in(&again, &signed),
            RequestStatus::Replied(1_u32.to_le_bytes().into())
        );
    }

    // The older way: accepted, then polled. Sent thrice, by two users' connections at once.
    let signed = client.sign(canister, "inc", b"");
    assert_eq!(client.send("v2", canister, &signed).status, 202);
    assert_eq!(client.send("v2", canister, &signed).status, 202);
    assert_eq!(count(&client.wait_for(canister, &signed)), 2);
    let together: Vec<_> = std::thread::scope(|scope| {
        let signed = client.sign(canister, "inc", b"");
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (mut client, signed) = (Client::new(&replica, 1), signed.clone());
                scope.spawn(move || {
                    let response = client.send("v3", canister, &signed);
                    client.status_in(&response, &signed)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(
        together
            .iter()
            .all(|status| *status == RequestStatus::Replied(3_u32.to_le_bytes().into())),
        "{together:?}"
    );
    assert_eq!(count(&replied(client.agent().query(canister, "read", b"").unwrap())), 3);
    replica.stop().unwrap();
}

#[test]
fn a_caller_whose_canister_does_not_answer_gets_202_and_stopping_does_not_wait() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), NetBackend::Auto);
    config.pool.call_wait_ms = 200;
    let replica = Replica::start(&config).unwrap();
    let mut client = Client::new(&replica, 2);
    let canister = client.install(&counter());
    let signed = client.sign(canister, "forever", b"");
    let start = Instant::now();
    assert_eq!(client.send("v3", canister, &signed).status, 202);
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    let start = Instant::now();
    replica.stop().unwrap();
    assert!(start.elapsed() < MINUTE, "{:?}", start.elapsed());
}

#[test]
fn stopping_answers_everybody_and_does_not_wait_for_idle_connections() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), NetBackend::Auto);
    config.http.drain_timeout_ms = 10 * MINUTE.as_millis() as u64;
    config.pool.call_wait_ms = 4 * MINUTE.as_millis() as u64;
    let replica = Replica::start(&config).unwrap();
    let client = Client::new(&replica, 3);
    let canister = client.install(&counter());
    // An open connection without a request, and one that is kept alive after one.
    let idle = TcpStream::connect(client.address).unwrap();
    let mut kept = Connection::new(client.address);
    assert_eq!(kept.request("GET", "/api/v2/status", b"").unwrap().status, 200);

    let acknowledged = AtomicU32::new(0);
    let stop_took = std::thread::scope(|scope| {
        for number in 10..18 {
            let client = Client::new(&replica, number);
            let acknowledged = &acknowledged;
            scope.spawn(move || {
                let mut agent = client.agent();
                loop {
                    match agent.update(canister, "inc", b"") {
                        Ok(CallOutcome::Replied(_)) => acknowledged.fetch_add(1, Ordering::Relaxed),
                        // Not in a batch: to be sent again. Or the closed socket.
                        Err(AgentError::Http(503, _) | AgentError::Io(_)) => return,
                        // In particular no 202: what was executed is certified, all else is refused.
                        other => panic!("{other:?}"),
                    };
                }
            });
        }
        wait_until("calls are acknowledged", || acknowledged.load(Ordering::Relaxed) > 16);
        let start = Instant::now();
        replica.stop().unwrap();
        start.elapsed()
    });
    drop((idle, kept));
    assert!(stop_took < MINUTE, "{stop_took:?}");

    let replica = Replica::start(&config).unwrap();
    let counted = count(&replied(
        Client::new(&replica, 3).agent().query(canister, "read", b"").unwrap(),
    ));
    // A user may have lost the answer to one call each.
    let acknowledged = acknowledged.into_inner();
    assert!(
        (acknowledged..=acknowledged + 8).contains(&counted),
        "{acknowledged} acknowledged, {counted} counted"
    );
    replica.stop().unwrap();
}

#[test]
fn stopping_answers_by_whether_the_message_is_in_a_batch() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), NetBackend::Auto);
    config.pool.call_wait_ms = 4 * MINUTE.as_millis() as u64;
    let replica = Replica::start(&config).unwrap();
    let client = Client::new(&replica, 6);
    let canister = client.install(&counter());
    let signed = client.sign(canister, "forever", b"");
    let statuses = std::thread::scope(|scope| {
        let users: Vec<_> = (0..2)
            .map(|_| {
                let (mut client, signed) = (Client::new(&replica, 6), signed.clone());
                scope.spawn(move || client.send("v3", canister, &signed).status)
            })
            .collect();
        wait_until("both wait for a message that is in a batch", || {
            let metrics = replica.metrics_text();
            metrics.contains("replicore_http_in_flight{kind=\"call\"} 2\n")
                && metrics.contains("replicore_pool_messages 0\n")
                && metrics.contains("replicore_ingress_inducted_total 3\n")
        });
        replica.stop().unwrap();
        users.into_iter().map(|user| user.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(statuses, [202, 202], "it goes on after the next start");
}

#[test]
fn heartbeats_come_at_the_configured_interval_and_idle_time_stays_fresh() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), NetBackend::Auto);
    config.rounds.idle_interval_ms = 100;
    config.rounds.freshness_ms = 50;
    config.subnet.heartbeat_interval_ms = 0;
    let replica = Replica::start(&config).unwrap();
    let client = Client::new(&replica, 4);
    // Nothing is installed: only freshness moves the certified time, hence the root.
    let nobody = Principal::management_canister();
    let root = || fetch_state_root(client.address, nobody, &client.verifier).unwrap();
    let before = root();
    wait_until("the root is a newer one", || root() != before);
    replica.stop().unwrap();

    config.rounds.freshness_ms = 600_000;
    let replica = Replica::start(&config).unwrap();
    let client = Client::new(&replica, 4);
    let canister = client.install(&counter());
    let beats = || count(&replied(client.agent().query(canister, "beats", b"").unwrap()));
    let (start, before) = (Instant::now(), beats());
    wait_until("the heart has beaten", || beats() > before + 4);
    let (after, took) = (beats(), start.elapsed());
    let bound = took.as_millis() as u32 / 100 + 1;
    assert!(after - before <= bound, "{before} to {after} in {took:?}");
    replica.stop().unwrap();
}

#[test]
fn a_replica_that_is_dropped_or_does_not_start_gives_its_directory_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), NetBackend::Auto);
    config.port_file = Some(directory.path().join("port"));
    config.state_dir = directory.path().join("state");
    std::fs::write(config.port_file.as_ref().unwrap(), "1\n").unwrap();
    let replica = Replica::start(&config).unwrap();
    let port: u16 = std::fs::read_to_string(config.port_file.as_ref().unwrap())
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert_eq!(port, replica.local_addr().port());
    let error = Replica::start(&config).map(drop).unwrap_err().to_string();
    assert!(error.contains("in use"), "{error}");
    assert!(
        config.port_file.as_ref().unwrap().exists(),
        "the refused start leaves the port file alone"
    );

    let client = Client::new(&replica, 5);
    let canister = client.install(&counter());
    replied(client.agent().update(canister, "inc", b"").unwrap());
    drop(replica);
    assert!(!config.port_file.as_ref().unwrap().exists());

    // The port is taken: the start fails after all threads were there.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut refused = config.clone();
    refused.listen = taken.local_addr().unwrap();
    let error = Replica::start(&refused).map(drop).unwrap_err().to_string();
    assert!(error.contains(&refused.listen.to_string()), "{error}");

    let replica = Replica::start(&config).unwrap();
    let client = Client::new(&replica, 5);
    assert_eq!(count(&replied(client.agent().query(canister, "read", b"").unwrap())), 1);
    replica.stop().unwrap();
    assert!(!config.port_file.as_ref().unwrap().exists());
}

#[test]
fn a_half_sent_request_does_not_hold_up_stopping_for_long() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), NetBackend::Auto);
    config.http.drain_timeout_ms = 300;
    let replica = Replica::start(&config).unwrap();
    let mut half = TcpStream::connect(replica.local_addr()).unwrap();
    half.write_all(b"POST /api/v2/canister/aaaaa-aa/call HTTP/1.1\r\ncontent-length: 100\r\n\r\nabc")
        .unwrap();
    wait_until("it is let in", || {
        replica.metrics_text().contains("replicore_http_connections 1\n")
    });
    let start = Instant::now();
    replica.stop().unwrap();
    assert!(start.elapsed() < MINUTE, "{:?}", start.elapsed());
}

/// Accepts calls without an argument.
const GUARDED: &str = r#"
(module
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "accept_message" (func $accept))
  (import "ic0" "msg_reply" (func $reply))
  (func (export "canister_inspect_message") (if (i32.eqz (call $arg_size)) (then (call $accept))))
  (func (export "canister_update open") (call $reply))
)"#;

#[test]
fn a_canister_filters_its_calls_before_they_enter_a_batch() {
    let directory = tempfile::tempdir().unwrap();
    let replica = Replica::start(&config(directory.path(), NetBackend::Auto)).unwrap();
    let client = Client::new(&replica, 7);
    let canister = client.install(&wat::parse_str(GUARDED).unwrap());
    let mut agent = client.agent();
    replied(agent.update(canister, "open", b"").unwrap());
    let refused = agent.update(canister, "open", b"argument").unwrap();
    assert!(matches!(refused, CallOutcome::Rejected(4, ..)), "{refused:?}");
    replica.stop().unwrap();
}

#[test]
fn the_root_of_trust_is_the_one_that_status_reports() {
    let directory = tempfile::tempdir().unwrap();
    let replica = Replica::start(&config(directory.path(), NetBackend::Auto)).unwrap();
    let reported = replicore_workloads::agent::fetch_root_key(replica.local_addr()).unwrap();
    assert_eq!(reported, replica.root_key_der());
    // Decoding a reply of the ledger's kind ties the Candid of this test to the canister's.
    let client = Client::new(&replica, 0);
    let canister = ledger::deploy(&mut client.agent()).unwrap();
    let owner = Encode!(&client.identity.principal()).unwrap();
    let balance = replied(client.agent().query(canister, "balance_of", &owner).unwrap());
    assert!(Decode!(&balance, u64).unwrap() > 0);
    replica.stop().unwrap();
}

#[test]
fn the_operator_says_which_calls_come_in() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), NetBackend::Auto);
    config.admission = toml::from_str(
        r#"
        [[rules]]
        name = "closed"
        decision = "deny"
        methods = ["clo*"]
        [[rules]]
        name = "once"
        methods = ["beats"]
        per_second = 1
        burst = 1
        "#,
    )
    .unwrap();
    let replica = Replica::start(&config).unwrap();
    let client = Client::new(&replica, 1);
    let canister = client.install(&counter());
    let mut agent = client.agent();
    match agent.update(canister, "closed", b"").unwrap() {
        CallOutcome::Rejected(1, text, code) => {
            assert!(text.contains("`closed`") && code == "IC0199", "{code}: {text}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(count(&replied(agent.update(canister, "inc", b"").unwrap())), 1);
    // Of two at once the second is beyond the rate, however long the first takes.
    let answers: Vec<_> = std::thread::scope(|scope| {
        let ask = || client.agent().update(canister, "beats", b"");
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(
        answers
            .iter()
            .any(|answer| matches!(answer, Ok(CallOutcome::Replied(_))))
    );
    assert!(
        answers
            .iter()
            .any(|answer| matches!(answer, Err(AgentError::Http(503, _))))
    );
    let metrics = replica.metrics_text();
    assert!(metrics.contains("replicore_admission_total{rule=\"closed\",decision=\"denied\"} 1"));
    replica.stop().unwrap();
}

#[test]
fn calls_are_turned_away_before_the_ingress_history_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), NetBackend::Auto);
    config.rounds.batch_messages_max = 1;
    // Six messages may be in batches whose rounds nobody has seen.
    config.pool.statuses_max = 20;
    config.validate().unwrap();
    let replica = Replica::start(&config).unwrap();
    let mut client = Client::new(&replica, 8);
    let canister = client.install(&counter());
    let mut acknowledged: Vec<_> = (0..12)
        .map(|_| {
            let signed = client.sign(canister, "inc", b"");
            let response = client.send("v3", canister, &signed);
            assert!(matches!(
                client.status_in(&response, &signed),
                RequestStatus::Replied(_)
            ));
            signed
        })
        .collect();
    // Two calls made and installed the canister.
    let refused = client.sign(canister, "inc", b"");
    for version in ["v2", "v3", "v4"] {
        let response = client.send(version, canister, &refused);
        let text = String::from_utf8_lossy(&response.body).into_owned();
        assert_eq!(response.status, 503, "{text}");
        assert!(text.contains("pool.statuses_max"), "{text}");
    }
    // What is known already is answered all the same, and nothing of it counts twice.
    let known = acknowledged.pop().unwrap();
    let response = client.send("v3", canister, &known);
    assert!(matches!(client.status_in(&response, &known), RequestStatus::Replied(_)));
    assert_eq!(
        count(&replied(client.agent().query(canister, "read", b"").unwrap())),
        12
    );
    replica.stop().unwrap();
}

#[test]
fn the_subnet_endpoints_list_and_create_canisters() {
    let directory = tempfile::tempdir().unwrap();
    let replica = Replica::start(&config(directory.path(), NetBackend::Auto)).unwrap();
    let mut client = Client::new(&replica, 9);
    let other = Principal::self_authenticating(b"the key of another subnet");
    let signed = client.sign_as(
        Kind::Query,
        Principal::management_canister(),
        "list_canisters",
        b"DIDL\0\0",
    );
    let response = client.post(&format!("/api/v3/subnet/{other}/query"), &signed);
    assert_eq!(response.status, 200);
    let text = String::from_utf8_lossy(&response.body).into_owned();
    assert!(text.contains("rejected") && text.contains("hosts no subnet"), "{text}");
    let own = format!("/api/v3/subnet/{}/query", replica.subnet_id());
    let text = String::from_utf8_lossy(&client.post(&own, &signed).body).into_owned();
    assert!(
        !text.contains("hosts no subnet") && !text.contains("subnet endpoint"),
        "{text}"
    );
    let canister = client.install(&counter());
    let about = Encode!(&About { canister_id: canister }).unwrap();
    let management = Principal::management_canister();
    let signed = client.sign_as(Kind::Query, management, "canister_status", &about);
    let text = String::from_utf8_lossy(&client.post(&own, &signed).body).into_owned();
    assert!(text.contains("takes queries of list_canisters"), "{text}");
    let own = format!("/api/v4/subnet/{}/call", replica.subnet_id());
    let signed = client.sign(management, "start_canister", &about);
    let text = String::from_utf8_lossy(&client.post(&own, &signed).body).into_owned();
    assert!(
        text.contains("non_replicated_rejection") && text.contains("create canisters"),
        "{text}"
    );
    let signed = client.sign(
        management,
        "provisional_create_canister_with_cycles",
        b"DIDL\x01\x6c\0\x01\0",
    );
    let response = client.post(&own, &signed);
    assert!(matches!(
        client.status_in(&response, &signed),
        RequestStatus::Replied(_)
    ));
    replica.stop().unwrap();
}
