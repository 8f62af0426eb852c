//! What the replica shows to who runs it.

mod support;

use replicore::Replica;
use replicore_netstack::NetBackend;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use support::{Client, config};

/// Head and body of the answer to a GET.
fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(
        socket,
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Samples by name and labels. Checks that every one is a number, has its own head before it, and occurs once.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let (mut kinds, mut samples) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# TYPE ") {
            let (name, kind) = head.split_once(' ').unwrap();
            assert!(kinds.insert(name, kind).is_none(), "two heads of {name}");
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let metric = name.split('{').next().unwrap();
            let is_histogram = |suffix| {
                let base = metric.strip_suffix(suffix);
                base.is_some_and(|base| kinds.get(base) == Some(&"histogram"))
            };
            let has_head = kinds.contains_key(metric) || ["_bucket", "_sum", "_count"].into_iter().any(is_histogram);
            assert!(has_head, "no head before {line}");
            assert!(
                samples.insert(name.to_owned(), value.parse().unwrap()).is_none(),
                "{line}"
            );
        }
    }
    samples
}

#[test]
fn metrics_and_dashboard_have_a_listener_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let replica = Replica::start(&config(directory.path(), NetBackend::Auto)).unwrap();
    let address = replica.observation_addr().unwrap();
    assert!(address.ip().is_loopback() && address != replica.local_addr());
    let client = Client::new(&replica, 1);
    let canister = client.install(&wat::parse_str("(module)").unwrap());
    let query = client.agent().query(canister, "none", b"");
    assert!(query.is_ok(), "{query:?}");

    let (head, text) = get(address, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(
        !head.contains("access-control"),
        "pages of other origins can read it: {head}"
    );
    let samples = samples(&text);
    for (name, value) in [
        ("calls_total{answer=\"certified\"}", 2.0),
        ("queries_rejected_total", 1.0),
        ("signature_cache_misses_total{kind=\"request\"}", 3.0),
        ("signatures_total{how=\"single\"}", 3.0),
        ("http_in_flight{kind=\"call\"}", 0.0),
        ("pool_messages", 0.0),
    ] {
        assert_eq!(samples.get(&format!("replicore_{name}")), Some(&value), "{name}");
    }
    assert!(samples["replicore_http_requests_total"] >= 3.0);
    assert!(samples["replicore_certified_height"] >= 2.0);

    // The public interface shows nothing of this.
    assert!(get(replica.local_addr(), "/metrics").0.starts_with("HTTP/1.1 404"));
    assert!(get(address, "/api/v2/status").0.starts_with("HTTP/1.1 404"));
    replica.stop().unwrap();
    assert!(TcpStream::connect(address).is_err(), "it ends with the replica");
}

#[test]
fn the_dashboard_is_whole_and_draws_what_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let replica = Replica::start(&config(directory.path(), NetBackend::Auto)).unwrap();
    let address = replica.observation_addr().unwrap();
    let (head, page) = get(address, "/_/dashboard");
    assert!(head.contains("content-type: text/html"), "{head}");
    for outside in ["src=", "@import", "url(", "https://"] {
        assert!(!page.contains(outside), "the page loads something: {outside}");
    }
    let (_, text) = get(address, "/metrics");
    let known: BTreeSet<_> = samples(&text)
        .into_keys()
        .map(|name| {
            name.split('{')
                .next()
                .unwrap()
                .trim_start_matches("replicore_")
                .to_owned()
        })
        .collect();
    let mut read = 0;
    for reader in ["rate(\"", "gauge(\"", "of(\"", "values.get(\"", "quantile(\""] {
        for rest in page.split(reader).skip(1) {
            let name = rest.split('"').next().unwrap();
            let name = if reader.starts_with("quantile") {
                format!("{name}_bucket")
            } else {
                name.to_owned()
            };
            assert!(known.contains(&name), "the page reads {name}, which is not there");
            read += 1;
        }
    }
    assert!(read > 30, "only {read} readings were found in the page");
    replica.stop().unwrap();
}

#[test]
fn who_does_not_want_it_has_no_listener() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path(), NetBackend::Auto);
    config.observation.enabled = false;
    let replica = Replica::start(&config).unwrap();
    assert_eq!(replica.observation_addr(), None);
    replica.stop().unwrap();
    // An address that is taken is an error, not a replica that nobody can look at.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    config.observation.enabled = true;
    config.observation.listen = taken.local_addr().unwrap();
    let error = Replica::start(&config).map(drop).unwrap_err().to_string();
    assert!(error.contains("listener for metrics"), "{error}");
}
