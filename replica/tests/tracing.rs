//! Spans of messages, as a collector gets them.

mod support;

use replicore::Replica;
use replicore_netstack::NetBackend;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use support::{Client, config, wait_until};

/// `ExportTraceServiceRequest` in its JSON form; a field of another name is an error.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Export {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResourceSpans {
    resource: Resource,
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    attributes: Vec<Attribute>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeSpans {
    scope: Scope,
    spans: Vec<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scope {
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Span {
    trace_id: String,
    span_id: String,
    #[serde(default)]
    parent_span_id: String,
    name: String,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute>,
    status: Option<Status>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Status {
    code: u8,
    message: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Attribute {
    key: String,
    value: Value,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Value {
    StringValue(String),
    IntValue(String),
}

impl Span {
    fn times(&self) -> (u64, u64) {
        let [start, end] = [&self.start_time_unix_nano, &self.end_time_unix_nano].map(|text| text.parse().unwrap());
        (start, end)
    }

    fn attribute(&self, key: &str) -> &str {
        match self.attributes.iter().find(|attribute| attribute.key == key) {
            Some(attribute) => text(&attribute.value),
            None => panic!("no {key} in {self:?}"),
        }
    }
}

fn text(value: &Value) -> &str {
    let (Value::StringValue(text) | Value::IntValue(text)) = value;
    text
}

/// A collector on a port of its own.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector = Self {
            address: listener.local_addr().unwrap(),
            spans: Arc::default(),
        };
        let spans = Arc::clone(&collector.spans);
        // It ends with the process: the replica may keep its connection for as long as it lives.
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let spans = Arc::clone(&spans);
                std::thread::spawn(move || serve(socket, &spans));
            }
        });
        collector
    }

    /// Spans by trace and name.
    fn traces(&self) -> BTreeMap<String, BTreeMap<String, Span>> {
        let mut traces: BTreeMap<String, BTreeMap<String, Span>> = BTreeMap::new();
        for span in &*self.spans.lock().unwrap() {
            let trace = traces.entry(span.trace_id.clone()).or_default();
            let same = trace.insert(span.name.clone(), span.clone());
            assert!(same.is_none(), "two spans {} of one message", span.name);
        }
        traces
    }
}

/// Reads requests one after the other and answers them.
fn serve(mut socket: TcpStream, spans: &Mutex<Vec<Span>>) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            match socket.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(read) => bytes.extend(&buffer[..read]),
            }
        };
        let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap().to_lowercase();
        assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
        assert!(head.contains("content-type: application/json"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let end = head_end + length.expect("the length is told").parse::<usize>().unwrap();
        while bytes.len() < end {
            let read = socket.read(&mut buffer).unwrap();
            bytes.extend(&buffer[..read]);
        }
        let export: Export = serde_json::from_slice(&bytes[head_end..end]).unwrap();
        for resource in export.resource_spans {
            let attributes = resource.resource.attributes.iter();
            let names: BTreeMap<_, _> = attributes.map(|one| (one.key.as_str(), text(&one.value))).collect();
            assert_eq!(names["service.name"], "replicore");
            for scope in resource.scope_spans {
                assert_eq!(scope.scope.name, "replicore");
                spans.lock().unwrap().extend(scope.spans);
            }
        }
        bytes.drain(..end);
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            .unwrap();
    }
}

/// Replies to `go`, update and query, and traps in `trap`.
const MODULE: &str = r#"(module
    (import "ic0" "msg_reply" (func $reply))
    (func (export "canister_update go") (call $reply))
    (func (export "canister_query ask") (call $reply))
    (func (export "canister_query trap") unreachable))"#;

#[test]
fn every_message_leaves_a_trace_of_the_stages_it_passed() {
    let collector = Collector::start();
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), NetBackend::Auto);
    config.tracing.otlp_url = Some(format!("http://{}", collector.address));
    config.tracing.sample_one_in = 1;
    let replica = Replica::start(&config).unwrap();
    let mut client = Client::new(&replica, 1);
    let canister = client.install(&wat::parse_str(MODULE).unwrap());
    let signed = client.sign(canister, "go", b"");
    let response = client.send("v3", canister, &signed);
    assert_eq!(response.status, 200);
    client.agent().query(canister, "ask", b"").unwrap();
    client.agent().query(canister, "trap", b"").unwrap();
    replica.stop().unwrap();
    // Stopping has sent what waited.
    wait_until("five traces", || collector.traces().len() == 5);

    let traces = collector.traces();
    let of = |method: &str| {
        let mut traces = traces.values().filter(|trace| {
            let whole = trace.get("call").or(trace.get("query")).expect("a whole");
            whole.attribute("replicore.method") == method
        });
        traces
            .next()
            .unwrap_or_else(|| panic!("no trace of {method} in {traces:?}", traces = collector.traces()))
    };
    for trace in traces.values() {
        assert_parts_lie_in_the_whole(trace);
    }
    let call = of("go");
    let names: BTreeSet<&str> = call.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        BTreeSet::from(["call", "certify", "execute", "log", "pool", "round", "verify"])
    );
    assert_eq!(call["call"].trace_id, hex::encode(&signed.request_id[..16]));
    assert_eq!(call["call"].attribute("replicore.outcome"), "certified");
    assert_eq!(call["call"].attribute("replicore.canister"), canister.to_text());
    assert_eq!(call["round"].attribute("replicore.batch.messages"), "1");
    assert!(call["round"].attribute("replicore.height").parse::<u64>().unwrap() > 0);
    let (execute, round) = (&call["execute"], &call["round"]);
    assert!(execute.times().0 >= round.times().0 && execute.times().1 <= round.times().1);
    assert_eq!(execute.attribute("replicore.slice"), "0");
    assert!(execute.attribute("replicore.instructions").parse::<u64>().unwrap() > 0);
    let order = ["verify", "pool", "round"].map(|name| call[name].times());
    assert!(
        order.windows(2).all(|pair| pair[0].1 <= pair[1].0),
        "one after the other: {order:?}"
    );
    assert!(call["round"].times().1 <= call["certify"].times().1);

    let names: BTreeSet<&str> = of("ask").keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["answer", "query", "verify"]));
    let trapped = &of("trap")["query"];
    let status = trapped.status.as_ref().expect("a rejection is an error");
    assert!(status.code == 2 && status.message.contains("trapped"), "{status:?}");
}

fn assert_parts_lie_in_the_whole(trace: &BTreeMap<String, Span>) {
    let whole = trace.get("call").or(trace.get("query")).expect("a whole");
    assert_eq!((whole.parent_span_id.as_str(), whole.kind), ("", 2));
    let ids: BTreeSet<&str> = trace.values().map(|span| span.span_id.as_str()).collect();
    assert_eq!(ids.len(), trace.len());
    for span in trace.values() {
        assert!(span.trace_id.len() == 32 && span.span_id.len() == 16, "{span:?}");
        let (start, end) = span.times();
        assert!(start <= end && start >= whole.times().0, "{span:?} in {whole:?}");
        if span.name != whole.name {
            let parent = match span.name.as_str() {
                "execute" => &trace["round"],
                _ => whole,
            };
            assert_eq!((&span.parent_span_id, span.kind), (&parent.span_id, 1));
        }
    }
}

#[test]
fn a_collector_that_is_not_there_costs_nothing_but_its_spans() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), NetBackend::Auto);
    // A port that nobody listens on: it was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    config.tracing.otlp_url = Some(format!("http://{free}/v1/traces"));
    config.tracing.sample_one_in = 1;
    let replica = Replica::start(&config).unwrap();
    let client = Client::new(&replica, 1);
    let canister = client.install(&wat::parse_str(MODULE).unwrap());
    client.agent().update(canister, "go", b"").unwrap();
    replica.stop().unwrap();
}
