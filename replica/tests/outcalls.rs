//! A canister that reaches outside: signatures, vetKeys and HTTP requests, over a whole replica in this process.

mod support;

use candid::{CandidType, Decode, Deserialize, Encode, Nat, Principal};
use replicore::Replica;
use replicore::config::Config;
use replicore_netstack::NetBackend;
use replicore_workloads::agent::fetch_state_root;
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use support::{Client, config, replied};

/// Forwards a call to the management canister with 200 billion cycles: the argument is the length of the method's name,
/// the name and the payload. Replies with what comes back: 0 and the reply, or the reject code and the message. Its
/// transformation gives every response the same content.
fn proxy() -> Vec<u8> {
    let transformed = Encode!(&HttpResult {
        status: Nat::from(299_u16),
        headers: vec![],
        body: ByteBuf::from("transformed"),
    });
    let transformed = transformed.unwrap();
    let escaped: String = transformed.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let text = format!(
        r#"
(module
  (import "ic0" "msg_arg_data_size" (func $arg_size (result i32)))
  (import "ic0" "msg_arg_data_copy" (func $arg_copy (param i32 i32 i32)))
  (import "ic0" "msg_reply_data_append" (func $append (param i32 i32)))
  (import "ic0" "msg_reply" (func $reply))
  (import "ic0" "msg_reject_code" (func $code (result i32)))
  (import "ic0" "msg_reject_msg_size" (func $message_size (result i32)))
  (import "ic0" "msg_reject_msg_copy" (func $message_copy (param i32 i32 i32)))
  (import "ic0" "call_new" (func $call_new (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ic0" "call_data_append" (func $call_data (param i32 i32)))
  (import "ic0" "call_cycles_add128" (func $call_cycles (param i64 i64)))
  (import "ic0" "call_perform" (func $call_perform (result i32)))
  (memory 64)
  (table funcref (elem $replied $rejected))
  (data (i32.const 0) "{escaped}")
  (func (export "canister_update call") (local $name i32) (local $size i32)
    (local.set $size (call $arg_size))
    (call $arg_copy (i32.const 65536) (i32.const 0) (local.get $size))
    (local.set $name (i32.load8_u (i32.const 65536)))
    (call $call_new (i32.const 0) (i32.const 0) (i32.const 65537) (local.get $name)
      (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0))
    (call $call_data
      (i32.add (i32.const 65537) (local.get $name))
      (i32.sub (local.get $size) (i32.add (local.get $name) (i32.const 1))))
    (call $call_cycles (i64.const 0) (i64.const 200000000000))
    (if (call $call_perform) (then unreachable)))
  (func $replied (param i32)
    (i32.store8 (i32.const 65535) (i32.const 0))
    (call $arg_copy (i32.const 65536) (i32.const 0) (call $arg_size))
    (call $append (i32.const 65535) (i32.add (call $arg_size) (i32.const 1)))
    (call $reply))
  (func $rejected (param i32)
    (i32.store8 (i32.const 65535) (call $code))
    (call $message_copy (i32.const 65536) (i32.const 0) (call $message_size))
    (call $append (i32.const 65535) (i32.add (call $message_size) (i32.const 1)))
    (call $reply))
  (func (export "canister_query transform")
    (call $append (i32.const 0) (i32.const {length})) (call $reply))
)"#,
        length = transformed.len()
    );
    wat::parse_str(text).unwrap()
}

#[derive(CandidType, Deserialize, Debug, PartialEq)]
struct Header {
    name: String,
    value: String,
}

#[derive(CandidType, Deserialize, Debug, PartialEq)]
struct HttpResult {
    status: Nat,
    headers: Vec<Header>,
    body: ByteBuf,
}

#[derive(CandidType, Deserialize)]
struct TransformArgument {
    response: HttpResult,
    context: ByteBuf,
}

candid::define_function!(TransformFunction : (TransformArgument) -> (HttpResult) query);

#[derive(CandidType)]
struct Transform {
    function: TransformFunction,
    context: ByteBuf,
}

#[derive(CandidType)]
#[expect(non_camel_case_types, reason = "the Candid names")]
enum Method {
    get,
    post,
    put,
}

#[derive(CandidType)]
struct HttpArgument {
    url: String,
    max_response_bytes: Option<u64>,
    method: Method,
    headers: Vec<Header>,
    body: Option<ByteBuf>,
    transform: Option<Transform>,
}

#[derive(CandidType)]
#[expect(non_camel_case_types, reason = "the Candid names")]
enum Algorithm {
    secp256k1,
    bip340secp256k1,
    ed25519,
}

#[derive(CandidType)]
struct EcdsaKey {
    curve: Algorithm,
    name: &'static str,
}

#[derive(CandidType)]
struct SchnorrKey {
    algorithm: Algorithm,
    name: &'static str,
}

/// Argument of a method about a key: candid ignores what a method does not know.
#[derive(CandidType)]
struct KeyArgument<K> {
    canister_id: Option<Principal>,
    derivation_path: Vec<ByteBuf>,
    key_id: K,
    message_hash: ByteBuf,
    message: ByteBuf,
}

impl<K> KeyArgument<K> {
    fn of(key_id: K, message: &[u8]) -> Self {
        Self {
            canister_id: None,
            derivation_path: vec![ByteBuf::from("user"), ByteBuf::new()],
            key_id,
            message_hash: ByteBuf::from(Sha256::digest(message).to_vec()),
            message: ByteBuf::from(message),
        }
    }
}

#[derive(CandidType, Deserialize)]
struct PublicKey {
    public_key: ByteBuf,
    chain_code: ByteBuf,
}

#[derive(CandidType, Deserialize)]
struct Signature {
    signature: ByteBuf,
}

/// A replica, a client and the proxy canister.
struct World {
    replica: Replica,
    client: Client,
    canister: Principal,
}

impl World {
    fn start(config: &Config) -> Self {
        let replica = Replica::start(config).unwrap();
        let client = Client::new(&replica, 1);
        let canister = client.install(&proxy());
        Self {
            replica,
            client,
            canister,
        }
    }

    /// Calls the management canister through the proxy.
    ///
    /// # Errors
    /// The reject code and the message.
    fn call<T: CandidType>(&self, method: &str, argument: T) -> Result<Vec<u8>, (u8, String)> {
        let argument = Encode!(&argument).unwrap();
        let argument = [&[method.len() as u8], method.as_bytes(), &argument].concat();
        let reply = replied(self.client.agent().update(self.canister, "call", &argument).unwrap());
        match reply[0] {
            0 => Ok(reply[1..].to_vec()),
            code => Err((code, String::from_utf8(reply[1..].to_vec()).unwrap())),
        }
    }

    fn get(&self, url: String) -> HttpArgument {
        HttpArgument {
            url,
            max_response_bytes: Some(2_000),
            method: Method::get,
            headers: vec![],
            body: None,
            transform: None,
        }
    }
}

fn quiet(state_dir: &Path) -> Config {
    let mut config = config(state_dir, NetBackend::Auto);
    config.outcalls.allow_loopback = true;
    // Nothing but messages moves the state, so that the roots before and after can be compared.
    config.rounds.freshness_ms = 600_000;
    config
}

#[test]
fn canisters_sign_with_keys_that_verify() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::start(&quiet(directory.path()));
    let message = b"a message";

    let key = |name| EcdsaKey {
        curve: Algorithm::secp256k1,
        name,
    };
    let public = world
        .call("ecdsa_public_key", KeyArgument::of(key("key_1"), message))
        .unwrap();
    let public = Decode!(&public, PublicKey).unwrap();
    assert_eq!(public.chain_code.len(), 32);
    let public = secp256k1::PublicKey::from_slice(&public.public_key).unwrap();
    let signed = world
        .call("sign_with_ecdsa", KeyArgument::of(key("key_1"), message))
        .unwrap();
    let signed = Decode!(&signed, Signature).unwrap().signature;
    let signature = secp256k1::ecdsa::Signature::from_compact(&signed).unwrap();
    let digest = secp256k1::Message::from_digest(Sha256::digest(message).into());
    public.verify(digest, &signature).unwrap();

    let key = |algorithm| SchnorrKey {
        algorithm,
        name: "dfx_test_key",
    };
    let public = world
        .call("schnorr_public_key", KeyArgument::of(key(Algorithm::ed25519), message))
        .unwrap();
    let public: [u8; 32] = Decode!(&public, PublicKey)
        .unwrap()
        .public_key
        .into_vec()
        .try_into()
        .unwrap();
    let signed = world
        .call("sign_with_schnorr", KeyArgument::of(key(Algorithm::ed25519), message))
        .unwrap();
    let signed: [u8; 64] = Decode!(&signed, Signature)
        .unwrap()
        .signature
        .into_vec()
        .try_into()
        .unwrap();
    let public = ed25519_zebra::VerificationKey::try_from(public).unwrap();
    public.verify(&signed.into(), message).unwrap();

    let bip340 = || KeyArgument::of(key(Algorithm::bip340secp256k1), message);
    let public = world.call("schnorr_public_key", bip340()).unwrap();
    let public = secp256k1::PublicKey::from_slice(&Decode!(&public, PublicKey).unwrap().public_key).unwrap();
    let signed = world.call("sign_with_schnorr", bip340()).unwrap();
    let signed: [u8; 64] = Decode!(&signed, Signature)
        .unwrap()
        .signature
        .into_vec()
        .try_into()
        .unwrap();
    let signature = secp256k1::schnorr::Signature::from_byte_array(signed);
    public.x_only_public_key().0.verify(message, &signature).unwrap();

    let unknown = EcdsaKey {
        curve: Algorithm::secp256k1,
        name: "no_such_key",
    };
    let (code, text) = world
        .call("sign_with_ecdsa", KeyArgument::of(unknown, message))
        .unwrap_err();
    let start = "Unable to route management canister request sign_with_ecdsa: ChainKeyError(\"Requested unknown or \
                 disabled threshold key: ecdsa:Secp256k1:no_such_key, existing enabled keys: [ecdsa:Secp256k1:";
    assert!(code == 3 && text.starts_with(start), "{code} {text}");
    world.replica.stop().unwrap();
}

/// A server that answers every request with what it was asked: method and path, and the body in the second line.
fn echo_server() -> (SocketAddr, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            let head = loop {
                let read = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
                if let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") {
                    break end + 4;
                }
                assert_ne!(read, 0);
            };
            let text = String::from_utf8(request[..head].to_vec())
                .unwrap()
                .to_ascii_lowercase();
            if text.starts_with("get /stop") {
                return;
            }
            let length = text.split("content-length: ").nth(1);
            let length = length.map_or(0, |rest| rest.split("\r\n").next().unwrap().parse().unwrap());
            while request.len() < head + length {
                let read = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
            }
            let line = text.lines().next().unwrap();
            let agent = text.lines().find(|line| line.starts_with("user-agent")).unwrap();
            let body = format!("{line}\n{agent}\n{}", String::from_utf8_lossy(&request[head..]));
            let answer = format!(
                "HTTP/1.1 200 OK\r\nx-test: yes\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    };
    (address, std::thread::spawn(serve))
}

#[test]
fn answers_of_http_requests_are_replayed_without_the_network() {
    let directory = tempfile::tempdir().unwrap();
    let config = quiet(directory.path());
    let world = World::start(&config);
    let (server, thread) = echo_server();

    let reply = world
        .call("http_request", world.get(format!("http://{server}/path?query")))
        .unwrap();
    let reply = Decode!(&reply, HttpResult).unwrap();
    assert_eq!(reply.status, Nat::from(200_u16));
    assert!(reply.headers.contains(&Header {
        name: "x-test".into(),
        value: "yes".into()
    }));
    let body = String::from_utf8(reply.body.into_vec()).unwrap();
    assert_eq!(body, "get /path?query http/1.1\nuser-agent: ic/1.0\n");

    let post = HttpArgument {
        method: Method::post,
        headers: vec![Header {
            name: "User-Agent".into(),
            value: "mine".into(),
        }],
        body: Some(ByteBuf::from("sent along")),
        ..world.get(format!("http://{server}/post"))
    };
    let reply = Decode!(&world.call("http_request", post).unwrap(), HttpResult).unwrap();
    let body = String::from_utf8(reply.body.into_vec()).unwrap();
    assert_eq!(body, "post /post http/1.1\nuser-agent: mine\nsent along");

    let transformed = HttpArgument {
        transform: Some(Transform {
            function: TransformFunction::new(world.canister, "transform".into()),
            context: ByteBuf::from("context"),
        }),
        ..world.get(format!("http://{server}/"))
    };
    let reply = Decode!(&world.call("http_request", transformed).unwrap(), HttpResult).unwrap();
    assert_eq!(
        (reply.status, &reply.body[..]),
        (Nat::from(299_u16), &b"transformed"[..])
    );

    // Killed, and no server any more: the log alone leads to the same state.
    let root = fetch_state_root(world.client.address, world.canister, &world.client.verifier).unwrap();
    drop(world.replica);
    std::net::TcpStream::connect(server)
        .unwrap()
        .write_all(b"GET /stop\r\n\r\n")
        .unwrap();
    thread.join().unwrap();
    let replica = Replica::start(&config).unwrap();
    let verifier = &world.client.verifier;
    assert_eq!(
        fetch_state_root(replica.local_addr(), world.canister, verifier).unwrap(),
        root
    );
    replica.stop().unwrap();
}

#[test]
fn outcalls_that_break_a_rule_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = quiet(directory.path());
    config.outcalls.deny = vec!["denied.example".into()];
    let world = World::start(&config);
    let (server, thread) = echo_server();
    let refused = |argument: HttpArgument| world.call("http_request", argument).unwrap_err();

    let short = HttpArgument {
        max_response_bytes: Some(60),
        ..world.get(format!("http://{server}/a-rather-long-path-that-comes-back"))
    };
    assert_eq!(refused(short), (1, "Http body exceeds size limit of 60 bytes.".into()));
    let shorter = HttpArgument {
        max_response_bytes: Some(5),
        ..world.get(format!("http://{server}/"))
    };
    assert_eq!(
        refused(shorter),
        (1, "Header size exceeds specified response size limit 5".into())
    );
    let plain = world.get("http://example.com/".into());
    assert_eq!(refused(plain), (1, "Url need to specify https scheme".into()));
    let (code, text) = refused(world.get("https://denied.example/".into()));
    assert!(code == 1 && text.contains("denied.example is not allowed"), "{text}");
    let (code, text) = refused(world.get("https://127.0.0.1:1/".into()));
    assert!(
        code == 2 && text.starts_with("Connecting to 127.0.0.1 failed"),
        "{code} {text}"
    );
    let put = HttpArgument {
        method: Method::put,
        ..world.get(format!("http://{server}/"))
    };
    let text = "The requested HTTP method is only allowed for non-replicated requests.";
    assert_eq!(refused(put), (4, text.into()));
    let large = HttpArgument {
        max_response_bytes: Some(2_000_001),
        ..world.get(format!("http://{server}/"))
    };
    let text = "max_response_bytes expected to be in the range [0..2000000], got 2000001";
    assert_eq!(refused(large), (4, text.into()));
    let foreign = HttpArgument {
        transform: Some(Transform {
            function: TransformFunction::new(Principal::anonymous(), "transform".into()),
            context: ByteBuf::new(),
        }),
        ..world.get(format!("http://{server}/"))
    };
    let text = format!(
        "transform principal id expected to be {}, got 2vxsx-fae",
        world.canister
    );
    assert_eq!(refused(foreign), (4, text));

    world.replica.stop().unwrap();
    std::net::TcpStream::connect(server)
        .unwrap()
        .write_all(b"GET /stop\r\n\r\n")
        .unwrap();
    thread.join().unwrap();
}
