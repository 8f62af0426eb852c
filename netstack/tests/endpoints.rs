//! The public endpoints over real sockets, on both backends.

mod common;

use common::*;
use replicore_netstack::*;
use replicore_types::*;

const V3_QUERY: &str = "/api/v3/canister/rrkah-fqaaa-aaaaa-aaaaq-cai/query";

#[test]
fn status_is_answered_to_get_and_head() {
    on_each_backend(
        Mode::AtOnce,
        |_| {},
        |server, _| {
            let mut client = Client::connect(server.local_addr());
            let response = client.get("/api/v2/status");
            assert_eq!(response.status, 200);
            assert!(response.head.contains("access-control-allow-origin: *\r\n"));
            assert!(response.head.contains("content-type: application/cbor\r\n"));
            let mut decoder = minicbor::Decoder::new(&response.body);
            assert_eq!(decoder.tag().unwrap().as_u64(), 55799);
            let fields: Vec<_> = decoder
                .map_iter::<&str, minicbor::data::Token<'_>>()
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert!(fields.contains(&("root_key", minicbor::data::Token::Bytes(&[1; 133]))));
            assert!(fields.contains(&("replica_health_status", minicbor::data::Token::String("healthy"))));
            client.send(b"HEAD /api/v2/status HTTP/1.1\r\n\r\n");
            assert!(
                client
                    .head()
                    .contains(&format!("content-length: {}\r\n", response.body.len()))
            );
            assert_eq!(
                client.get("/api/v2/status"),
                response,
                "a body was sent with the answer to HEAD"
            );
        },
    );
}

#[test]
fn calls_are_answered_in_the_form_of_their_version() {
    for mode in [Mode::AtOnce, Mode::Later] {
        on_each_backend(
            mode,
            |_| {},
            |server, stub| {
                let mut client = Client::connect(server.local_addr());
                for version in ["v3", "v4"] {
                    let response = client.post(&path(version, "call"), &call(b"argument"));
                    assert_eq!(response.status, 200, "{}", response.text());
                    assert!(response.contains(b"\x66status\x67replied\x6bcertificate\x48argument"));
                }
                let response = client.post(&path("v2", "call"), &call(b"x"));
                assert_eq!((response.status, response.body.len()), (202, 0));
                let calls = stub.calls.lock();
                let message = &calls[0];
                assert_eq!(message.receiver, canister());
                assert_eq!(message.effective_canister_id, Some(canister()));
                assert_eq!(message.source, PrincipalId::anonymous());
                assert_eq!(
                    (message.method_name.as_str(), message.method_payload.as_slice()),
                    ("greet", &b"argument"[..])
                );
                assert_eq!(message.expiry, Time(EXPIRY));
                assert_eq!(message.envelope_bytes as usize, call(b"argument").len());
            },
        );
    }
}

#[test]
fn rejections_and_overload_have_their_forms() {
    on_each_backend(
        Mode::Reject,
        |_| {},
        |server, stub| {
            let mut client = Client::connect(server.local_addr());
            let waited = client.post(&path("v4", "call"), &call(b""));
            assert_eq!(waited.status, 200);
            assert!(waited.contains(b"\x77non_replicated_rejection".strip_prefix(b"\x77").unwrap()));
            assert!(waited.contains(b"\x6breject_code\x05") && waited.contains(b"\x6aerror_code\x66IC0502"));
            let direct = client.post(&path("v2", "call"), &call(b""));
            assert_eq!(direct.status, 200);
            assert!(direct.contains(b"it trapped") && !direct.contains(b"status"));
            let query = client.post(&path("v2", "query"), &query(b""));
            assert_eq!(query.status, 200);
            assert!(query.contains(b"\x66status\x68rejected") && query.contains(b"signatures"));
            assert_eq!(client.post(&path("v3", "read_state"), &read_state(&[])).status, 403);

            *stub.mode.lock() = Mode::Busy;
            for (endpoint, body) in [
                ("call", call(b"")),
                ("query", common::query(b"")),
                ("read_state", read_state(&[])),
            ] {
                let response = client.post(&path("v3", endpoint), &body);
                assert_eq!(response.status, 503);
                assert!(response.head.contains("retry-after: 1\r\n"));
            }
            *stub.mode.lock() = Mode::Drop;
            assert_eq!(client.post(&path("v3", "query"), &common::query(b"")).status, 500);
        },
    );
}

#[test]
fn queries_carry_the_signature() {
    on_each_backend(
        Mode::AtOnce,
        |_| {},
        |server, stub| {
            let mut client = Client::connect(server.local_addr());
            let response = client.post(V3_QUERY, &query(b"hello"));
            assert_eq!(response.status, 200);
            assert!(response.contains(b"\x65reply\xa1\x63arg\x45hello"));
            assert!(response.contains(&[b"\x69signature\x58\x40".as_slice(), &[9; 64]].concat()));
            assert!(response.contains(b"\x68identity\x41\x08"));
            assert_eq!(stub.queries.lock()[0].target, Target::Canister(canister()));
        },
    );
}

#[test]
fn read_state_passes_paths_on() {
    on_each_backend(
        Mode::AtOnce,
        |_| {},
        |server, stub| {
            let mut client = Client::connect(server.local_addr());
            let response = client.post(
                &path("v2", "read_state"),
                &read_state(&[&[b"time"], &[b"subnet", b"\xff"]]),
            );
            assert!(response.contains(b"\x6bcertificate\x4bcertificate"));
            let subnet = "/api/v3/subnet/rrkah-fqaaa-aaaaa-aaaaq-cai/read_state";
            assert_eq!(client.post(subnet, &read_state(&[])).status, 200);
            let reads = stub.reads.lock();
            assert_eq!(
                reads[0].paths,
                [vec![b"time".to_vec()], vec![b"subnet".to_vec(), vec![255]]]
            );
            assert_eq!(reads[1].target, Target::Subnet(SubnetId(canister().principal())));
        },
    );
}

#[test]
fn subnet_calls_are_for_the_management_canister() {
    on_each_backend(
        Mode::AtOnce,
        |_| {},
        |server, stub| {
            let mut client = Client::connect(server.local_addr());
            let subnet = "/api/v4/subnet/rrkah-fqaaa-aaaaa-aaaaq-cai/call";
            let management = anonymous("call", 3, |writer| call_fields(writer, CanisterId::MANAGEMENT, b""));
            assert_eq!(client.post(subnet, &management).status, 200);
            assert_eq!(stub.calls.lock()[0].effective_canister_id, None);
            let response = client.post(subnet, &call(b""));
            assert!(response.text().contains("does not match effective canister id"));
            assert_eq!(client.post(&path("v3", "call"), &management).status, 200);
        },
    );
}

#[test]
fn bad_requests_say_what_is_wrong() {
    on_each_backend(
        Mode::AtOnce,
        |limits| limits.ingress_bytes_max = 1000,
        |server, stub| {
            let mut client = Client::connect(server.local_addr());
            assert_eq!(client.get("/").status, 404);
            let response = client.get(V3_QUERY);
            assert_eq!(response.status, 405);
            assert!(response.head.contains("allow: POST,OPTIONS\r\n"), "{}", response.head);
            let response = client.post("/api/v2/status", b"");
            assert_eq!(response.status, 405);
            assert!(
                response.head.contains("allow: GET,HEAD,OPTIONS\r\n"),
                "{}",
                response.head
            );
            assert_eq!(client.post("/api/v2/canister/nonsense/call", b"").status, 400);
            client.send(format!("POST {V3_QUERY} HTTP/1.1\r\ncontent-length: 0\r\n\r\n").as_bytes());
            let response = client.response();
            assert_eq!(response.status, 400);
            assert!(response.text().contains("expected application/cbor"));
            let response = client.post(V3_QUERY, b"\xff");
            assert_eq!(response.status, 400);
            assert!(response.text().contains("Failed to deserialize cbor request"));
            let other = anonymous("query", 3, |writer| call_fields(writer, CanisterId::from_index(2), b""));
            assert_eq!(client.post(V3_QUERY, &other).status, 400);
            assert_eq!(client.post(&path("v4", "call"), &call(&[0; 1000])).status, 413);
            let expired = anonymous("call", 3, |writer| call_fields(writer, canister(), b""));
            let at = expired
                .windows(8)
                .position(|window| window == EXPIRY.to_be_bytes())
                .unwrap();
            let mut expired = expired;
            expired[at..at + 8].copy_from_slice(&(NOW.0 - 1).to_be_bytes());
            let response = client.post(&path("v4", "call"), &expired);
            assert_eq!(response.status, 400);
            assert!(response.text().starts_with("Invalid request expiry: Specified ingress_expiry not within expected range: Minimum allowed expiry: 2023-11-14 22:13:20 UTC"), "{}", response.text());
            assert!(stub.calls.lock().is_empty() && stub.queries.lock().is_empty());
            assert_eq!(client.get("/api/v2/status").status, 200, "the connection is unharmed");
        },
    );
}

#[test]
fn browsers_are_let_in() {
    on_each_backend(
        Mode::AtOnce,
        |_| {},
        |server, _| {
            let mut client = Client::connect(server.local_addr());
            client.send(format!("OPTIONS {V3_QUERY} HTTP/1.1\r\norigin: http://x\r\n\r\n").as_bytes());
            let response = client.response();
            assert_eq!(response.status, 200);
            for header in [
                "allow-origin: *",
                "allow-methods: GET,POST",
                "allow-headers: authorization,accept,content-type",
            ] {
                assert!(
                    response.head.contains(&format!("access-control-{header}\r\n")),
                    "{}",
                    response.head
                );
            }
            assert!(client.get("/nowhere").head.contains("access-control-allow-origin: *"));
        },
    );
}
