//! Clients that want too much: what they take is bounded, and the others are served.

mod common;

use common::*;
use ed25519_zebra::SigningKey;
use replicore_netstack::envelope::{Content, Endpoint};
use replicore_netstack::{NetLimits, ServerHandle};
use replicore_types::{CanisterId, PrincipalId};
use std::borrow::Cow;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A query of `canister` signed by the user with this number, with a good or a bad signature.
fn signed_query(user: u8, canister: CanisterId, argument: &[u8], good: bool) -> Vec<u8> {
    signed(Endpoint::Query, (user, canister), argument, good)
}

/// The same as a call.
fn signed_call(user: u8, canister: CanisterId, argument: &[u8], good: bool) -> Vec<u8> {
    signed(Endpoint::Call, (user, canister), argument, good)
}

fn signed(endpoint: Endpoint, (user, canister): (u8, CanisterId), argument: &[u8], good: bool) -> Vec<u8> {
    let kind = match endpoint {
        Endpoint::Call => "call",
        _ => "query",
    };
    let key = SigningKey::from([user; 32]);
    let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    let der = [&prefix[..], key.verification_key().as_ref()].concat();
    let content = Content {
        endpoint,
        sender: PrincipalId::self_authenticating(&der),
        nonce: None,
        ingress_expiry: EXPIRY,
        canister_id: canister,
        method_name: Cow::Borrowed("greet"),
        arg: Cow::Borrowed(argument),
        sender_info: None,
        paths: Vec::new(),
    };
    let payload = [b"\x0Aic-request".as_slice(), content.request_id().as_bytes()].concat();
    let mut signature = key.sign(&payload).to_bytes();
    signature[3] ^= u8::from(!good);
    let mut writer = Writer::new(Vec::new());
    writer.map(3).unwrap().str("content").unwrap().map(6).unwrap();
    writer.str("request_type").unwrap().str(kind).unwrap();
    writer.str("sender").unwrap().bytes(content.sender.as_slice()).unwrap();
    writer.str("ingress_expiry").unwrap().u64(EXPIRY).unwrap();
    call_fields(&mut writer, canister, argument);
    writer.str("sender_pubkey").unwrap().bytes(&der).unwrap();
    writer.str("sender_sig").unwrap().bytes(&signature).unwrap();
    let path = format!("/api/v3/canister/{canister}/{kind}");
    post(&path, &writer.into_writer())
}

fn status_of(server: &ServerHandle, request: &[u8]) -> u16 {
    let mut client = Client::connect(server.local_addr());
    client.send(request);
    client.response().status
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Bytes of memory that this process, server and clients together, has in use.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn one_sender_and_one_canister_take_a_part_only() {
    let limits = |limits: &mut NetLimits| {
        limits.in_flight_per_sender_max = 2;
        limits.in_flight_per_canister_max = 3;
    };
    on_each_backend(Mode::Hold, limits, |server, stub| {
        let (first, second) = (CanisterId::from_index(1), CanisterId::from_index(2));
        let mut greedy = Client::connect(server.local_addr());
        greedy.send(&[signed_query(1, first, b"a", true), signed_query(1, first, b"b", true)].concat());
        wait_until("both are held", || stub.held.lock().len() == 2);
        assert_eq!(
            status_of(server, &signed_query(1, second, b"c", true)),
            429,
            "same sender"
        );
        assert_eq!(
            status_of(server, &signed_query(1, second, b"c", false)),
            400,
            "nobody is counted for what is not theirs"
        );
        let mut other = Client::connect(server.local_addr());
        other.send(&signed_query(2, first, b"d", true));
        wait_until("another sender is served", || stub.held.lock().len() == 3);
        let refused = {
            let mut client = Client::connect(server.local_addr());
            client.send(&signed_query(3, first, b"e", true));
            client.response()
        };
        assert_eq!(refused.status, 429, "same canister");
        assert!(refused.head.contains("retry-after: 1"), "{}", refused.head);
        assert_eq!(
            status_of(server, &signed_query(3, first, b"e", false)),
            429,
            "and nothing is verified for it"
        );
        let mut elsewhere = Client::connect(server.local_addr());
        elsewhere.send(&signed_query(3, second, b"f", true));
        wait_until("another canister is served", || stub.held.lock().len() == 4);
        stub.release();
        assert_eq!(greedy.response().status, 200);
        assert_eq!(greedy.response().status, 200);
        assert_eq!(other.response().status, 200);
        assert_eq!(elsewhere.response().status, 200);
        // What is answered does not count any more.
        let mut again = Client::connect(server.local_addr());
        again.send(&signed_query(1, first, b"g", true));
        wait_until("it is served again", || stub.held.lock().len() == 1);
        stub.release();
        assert_eq!(again.response().status, 200);
    });
}

#[test]
fn calls_that_would_wait_too_long_are_refused_before_their_signatures_are_verified() {
    on_each_backend(
        Mode::AtOnce,
        |_| {},
        |server, stub| {
            let (slow, other) = (CanisterId::from_index(1), CanisterId::from_index(2));
            *stub.slow.lock() = Some(slow);
            let mut client = Client::connect(server.local_addr());
            client.send(&signed_call(1, slow, b"a", true));
            let refused = client.response();
            assert_eq!(refused.status, 503);
            assert!(refused.head.contains("retry-after: 1") && refused.contains(BUSY.0.as_bytes()));
            assert_eq!(
                status_of(server, &signed_call(1, slow, b"a", false)),
                503,
                "nothing is verified"
            );
            assert_eq!(status_of(server, &signed_call(1, other, b"a", true)), 200);
            assert_eq!(status_of(server, &signed_call(1, other, b"a", false)), 400);
            assert_eq!(
                status_of(server, &signed_query(1, slow, b"a", true)),
                200,
                "queries do not wait for rounds"
            );
            assert_eq!(stub.calls.lock().len(), 1);
            *stub.slow.lock() = None;
            assert_eq!(status_of(server, &signed_call(1, slow, b"a", true)), 200);
        },
    );
}

#[test]
fn one_peer_takes_a_part_only() {
    let limits = |limits: &mut NetLimits| {
        limits.in_flight_per_peer_max = 2;
        limits.connections_per_peer_max = 3;
    };
    on_each_backend(Mode::Hold, limits, |server, stub| {
        let mut client = Client::connect(server.local_addr());
        let request = post(&path("v3", "query"), &query(b""));
        client.send(&request.repeat(2));
        wait_until("both are held", || stub.held.lock().len() == 2);
        let mut second = Client::connect(server.local_addr());
        second.send(&request);
        assert_eq!(second.response().status, 429);
        assert_eq!(second.get("/api/v2/status").status, 200);
        let _third = Client::connect(server.local_addr());
        let mut fourth = Client::connect(server.local_addr());
        assert_eq!(fourth.response().status, 503);
        assert!(fourth.at_end());
        stub.release();
    });
}

#[test]
fn a_flood_of_bad_signatures_leaves_the_others_served() {
    on_each_backend(
        Mode::AtOnce,
        |_| {},
        |server, _| {
            let canister = CanisterId::from_index(1);
            let bad: Vec<u8> = (0..300u32)
                .flat_map(|number| signed_query(7, canister, &number.to_be_bytes(), false))
                .collect();
            let mut flood: Vec<_> = (0..4).map(|_| Client::connect(server.local_addr())).collect();
            flood.iter_mut().for_each(|client| client.send(&bad));
            let mut good = Client::connect(server.local_addr());
            for number in 0..20u32 {
                good.send(&signed_query(8, canister, &number.to_be_bytes(), true));
                assert_eq!(good.response().status, 200);
            }
            for client in &mut flood {
                (0..300).for_each(|_| assert_eq!(client.response().status, 400));
            }
            let stats = server.stats().signature_batches;
            assert!(
                stats.taken_apart * 20 < stats.single,
                "bad signatures are not tried together again and again: {stats:?}"
            );
        },
    );
}

#[test]
fn endless_bodies_end() {
    let limits = |limits: &mut NetLimits| {
        limits.body_bytes_max = 50_000;
        limits.buffered_bytes_max = 1_000_000;
    };
    on_each_backend(Mode::AtOnce, limits, |server, _| {
        for chunk in ["1\r\nx\r\n".repeat(1000), format!("3e8\r\n{}\r\n", "x".repeat(1000))] {
            let mut client = Client::connect(server.local_addr());
            let head = "POST /api/v2/canister/aaaaa-aa/call HTTP/1.1\r\nhost: x\r\n\
                        content-type: application/cbor\r\ntransfer-encoding: chunked\r\n\r\n";
            client.send(head.as_bytes());
            // Until the server has had enough and closes; a write may fail then.
            for _ in 0..2_000 {
                if client.socket.write_all(chunk.as_bytes()).is_err() {
                    break;
                }
            }
            // The answer may be lost if the client goes on sending after it; that there is an end is what counts.
            wait_until("the connection is given up", || server.stats().connections == 0);
        }
    });
}

#[test]
fn slow_heads_and_storms_of_connections_hold_flat_memory() {
    let limits = |limits: &mut NetLimits| {
        limits.connections_max = 200;
        limits.header_timeout_ms = 300;
    };
    on_each_backend(Mode::AtOnce, limits, |server, _| {
        let storm = || {
            let mut slow: Vec<_> = (0..150).map(|_| Client::connect(server.local_addr())).collect();
            slow.iter_mut().for_each(|client| client.send(b"POST /api/v2/"));
            let mut served = 0;
            for _ in 0..300 {
                let mut client = Client::connect(server.local_addr());
                client.send(b"GET /api/v2/status HTTP/1.1\r\nconnection: close\r\n\r\n");
                served += usize::from(client.response().status == 200);
            }
            assert!(served > 250, "only {served} of 300 were served beside the slow ones");
            for client in &mut slow {
                assert_eq!(client.response().status, 408);
            }
            drop(slow);
            wait_until("all are gone", || server.stats().connections == 0);
        };
        storm();
        let before = resident_bytes();
        (0..2).for_each(|_| storm());
        let growth = resident_bytes().saturating_sub(before);
        assert!(growth < 8 << 20, "memory grew by {growth} bytes");
    });
}

#[test]
fn answers_that_nobody_reads_take_bounded_memory() {
    // 64 MiB of answers may wait for one connection.
    on_each_backend(
        Mode::Hold,
        |_| {},
        |server, stub| {
            stub.reply_bytes.store(3_000_000, Ordering::Relaxed);
            let mut client = Client::connect(server.local_addr());
            let request = signed_query(1, CanisterId::from_index(1), b"a", true);
            client.send(&request.repeat(64));
            wait_until("all are held", || stub.held.lock().len() == 64);
            // The last is answered first, so that all the others have to wait for the first.
            stub.release();
            let statuses: Vec<u16> = (0..64).map(|_| client.response().status).collect();
            assert_eq!(
                statuses.iter().filter(|status| **status == 200).count(),
                22,
                "{statuses:?}"
            );
            assert!(statuses[42..].iter().all(|status| *status == 200), "{statuses:?}");
            assert!(statuses[..42].iter().all(|status| *status == 503), "{statuses:?}");
            // It goes on with what it asks next.
            client.send(&request);
            wait_until("it is held", || stub.held.lock().len() == 1);
            stub.release();
            assert_eq!(client.response().status, 200);
        },
    );
}

#[test]
fn all_answers_that_nobody_reads_take_bounded_memory() {
    let limits = |limits: &mut NetLimits| {
        limits.body_bytes_max = 50_000;
        limits.buffered_bytes_max = 100_000;
    };
    on_each_backend(Mode::Hold, limits, |server, stub| {
        stub.reply_bytes.store(40_000, Ordering::Relaxed);
        let request = signed_query(1, CanisterId::from_index(1), b"a", true);
        let mut first = Client::connect(server.local_addr());
        first.send(&request.repeat(3));
        wait_until("its requests are held", || stub.held.lock().len() == 3);
        // Two answers wait for the first one; a third has no room beside them.
        let mut waiting = std::mem::take(&mut *stub.held.lock());
        let front = waiting.remove(0);
        waiting.into_iter().for_each(|answer| answer());
        let mut second = Client::connect(server.local_addr());
        second.send(&request);
        wait_until("another request is held", || stub.held.lock().len() == 1);
        stub.release();
        assert_eq!(second.response().status, 200, "not at the cost of who reads");
        front();
        wait_until("who leaves the most unread is shown out", || {
            server.stats().connections == 1
        });
    });
}
