//! What happens on connections, on both backends: order, limits, time-outs, ends.

mod common;

use common::*;
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

fn queries(from: u32, to: u32) -> Vec<u8> {
    (from..to)
        .flat_map(|n| post(&path("v3", "query"), &query(&n.to_be_bytes())))
        .collect()
}

fn expect_queries(client: &mut Client, from: u32, to: u32) {
    for n in from..to {
        let response = client.response();
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(
            response.contains(&[b"\x44".as_slice(), &n.to_be_bytes()].concat()),
            "answer {n} is out of order"
        );
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    for mode in [Mode::AtOnce, Mode::Later, Mode::Hold] {
        on_each_backend(
            mode,
            |limits| limits.pipeline_max = 16,
            |server, stub| {
                let mut client = Client::connect(server.local_addr());
                client.send(&queries(0, 200));
                if mode == Mode::Hold {
                    // Answered in reverse order, sixteen at a time: more are not read.
                    let mut seen = 0;
                    while seen < 200 {
                        let batch = 16.min(200 - seen);
                        wait_until("a batch is held", || stub.held.lock().len() == batch as usize);
                        sleep(Duration::from_millis(2));
                        assert_eq!(stub.held.lock().len(), batch as usize);
                        stub.release();
                        seen += batch;
                    }
                }
                expect_queries(&mut client, 0, 200);
            },
        );
    }
}

#[test]
fn requests_in_any_pieces_are_understood() {
    on_each_backend(
        Mode::AtOnce,
        |_| {},
        |server, _| {
            let mut client = Client::connect(server.local_addr());
            let data = queries(0, 3);
            for (index, piece) in data.chunks(7).enumerate() {
                client.send(piece);
                if index % 8 == 0 {
                    sleep(Duration::from_millis(1));
                }
            }
            expect_queries(&mut client, 0, 3);
            let body = query(b"chunked");
            let mut data = format!(
                "POST {} HTTP/1.1\r\ncontent-type: application/cbor\r\ntransfer-encoding: chunked\r\n\r\n",
                path("v3", "query")
            )
            .into_bytes();
            for chunk in body.chunks(10) {
                data.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                data.extend(chunk);
                data.extend(b"\r\n");
            }
            data.extend(b"0\r\n\r\n");
            for piece in data.chunks(3) {
                client.send(piece);
            }
            assert!(client.response().contains(b"chunked"));
        },
    );
}

#[test]
fn large_bodies_go_in_and_out() {
    on_each_backend(
        Mode::AtOnce,
        |_| {},
        |server, stub| {
            let mut client = Client::connect(server.local_addr());
            let argument = vec![3; 5 * 1024 * 1024 - 1000];
            let response = client.post(&path("v3", "query"), &query(&argument));
            assert_eq!(response.status, 200, "{}", response.text());
            assert!(response.body.len() > argument.len());
            assert_eq!(stub.queries.lock()[0].method_payload.as_slice(), argument);
            stub.reply_bytes.store(3_000_000, Ordering::Relaxed);
            let mut requests = queries(0, 8);
            requests.extend(post("/nowhere", b""));
            client.send(&requests);
            sleep(Duration::from_millis(50));
            for _ in 0..8 {
                assert!(client.response().body.len() > 3_000_000);
            }
            assert_eq!(client.response().status, 404);
        },
    );
}

#[test]
fn too_large_bodies_and_headers_are_refused_and_end_the_connection() {
    on_each_backend(
        Mode::AtOnce,
        |_| {},
        |server, _| {
            let big = vec![0; 5 * 1024 * 1024 + 1];
            let mut client = Client::connect(server.local_addr());
            let mut writer = client.socket.try_clone().unwrap();
            let sender = std::thread::spawn(move || {
                let _ = std::io::Write::write_all(&mut writer, &post("/api/v2/canister/aaaaa-aa/query", &big));
                let _ = writer.shutdown(Shutdown::Write);
            });
            let response = client.response();
            assert_eq!(response.status, 413);
            assert!(response.head.contains("connection: close\r\n"));
            sender.join().unwrap();
            assert!(client.at_end());

            let mut client = Client::connect(server.local_addr());
            client.send(format!("GET / HTTP/1.1\r\nx: {}\r\n", "y".repeat(20_000)).as_bytes());
            assert_eq!(client.response().status, 431);
            assert!(client.at_end());

            let mut client = Client::connect(server.local_addr());
            client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello tls\r\n\r\n");
            assert_eq!(client.response().status, 400);
            assert!(client.at_end());
        },
    );
}

#[test]
fn the_client_may_ask_before_it_sends_its_body() {
    on_each_backend(
        Mode::AtOnce,
        |_| {},
        |server, _| {
            let mut client = Client::connect(server.local_addr());
            let body = query(b"patient");
            let head = format!(
                "POST {} HTTP/1.1\r\nexpect: 100-continue\r\ncontent-type: application/cbor\r\ncontent-length: {}\r\n\r\n",
                path("v3", "query"),
                body.len()
            );
            client.send(head.as_bytes());
            assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
            client.send(&body);
            assert!(client.response().contains(b"patient"));
            // One that does not wait needs no permission.
            client.send(&[head.as_bytes(), &body].concat());
            assert_eq!(client.response().status, 200);
            client.send(&[head.replace(&format!(" {}", body.len()), " 9999999").as_bytes()].concat());
            assert_eq!(client.response().status, 413);
        },
    );
}

#[test]
fn a_half_closed_client_gets_its_answers() {
    for mode in [Mode::AtOnce, Mode::Later] {
        on_each_backend(
            mode,
            |limits| limits.pipeline_max = 4,
            |server, _| {
                let mut client = Client::connect(server.local_addr());
                client.send(&queries(0, 20));
                client.socket.shutdown(Shutdown::Write).unwrap();
                expect_queries(&mut client, 0, 20);
                assert!(client.at_end());
                wait_until("the connection is gone", || server.stats().connections == 0);
            },
        );
    }
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    on_each_backend(
        Mode::Hold,
        |_| {},
        |server, stub| {
            for _ in 0..20 {
                let mut client = Client::connect(server.local_addr());
                client.send(&queries(0, 2));
            }
            wait_until("all requests are held", || stub.held.lock().len() == 40);
            let data = queries(0, 1);
            for cut in [1, data.len() / 2, data.len() - 1] {
                Client::connect(server.local_addr()).send(&data[..cut]);
            }
            assert_eq!(server.stats().queries_in_flight, 40);
            stub.release();
            wait_until("nothing is left", || {
                let stats = server.stats();
                (stats.connections, stats.queries_in_flight) == (0, 0)
            });
            let mut client = Client::connect(server.local_addr());
            assert_eq!(client.get("/api/v2/status").status, 200);
        },
    );
}

#[test]
fn connection_close_is_honoured() {
    on_each_backend(
        Mode::AtOnce,
        |_| {},
        |server, _| {
            let mut client = Client::connect(server.local_addr());
            client.send(b"GET /api/v2/status HTTP/1.1\r\nconnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n");
            assert!(client.response().head.contains("connection: close"));
            assert!(client.at_end());
            let mut client = Client::connect(server.local_addr());
            client.send(b"GET /api/v2/status HTTP/1.0\r\n\r\n");
            assert_eq!(client.response().status, 200);
            assert!(client.at_end());
        },
    );
}

#[test]
fn slow_clients_are_shown_out() {
    // Each time-out is short only where nothing else of the same connection depends on it.
    let limits = |limits: &mut replicore_netstack::NetLimits| {
        limits.header_timeout_ms = 300;
        limits.body_timeout_ms = 300;
        limits.answer_timeout_ms = 300;
    };
    on_each_backend(Mode::Hold, limits, |server, stub| {
        let mut in_head = Client::connect(server.local_addr());
        let mut in_body = Client::connect(server.local_addr());
        let mut waiting = Client::connect(server.local_addr());
        let request = queries(0, 1);
        in_body.send(&request[..request.len() - 10]);
        waiting.send(&request);
        // Drop by drop does not help: it goes on until the server has had enough.
        in_head.send(b"GET / HTTP/1.1\r\nx: ");
        let mut dripping = in_head.socket.try_clone().unwrap();
        let drops = std::thread::spawn(move || {
            let mut sent = 0;
            while sent < 10_000 && std::io::Write::write_all(&mut dripping, b"y").is_ok() {
                sent += 1;
                sleep(Duration::from_millis(20));
            }
            sent
        });
        assert_eq!(in_head.response().status, 408);
        assert_eq!(in_body.response().status, 408);
        assert_eq!(waiting.response().status, 504);
        assert!(in_head.at_end() && in_body.at_end() && waiting.at_end());
        drop((in_head, in_body, waiting));
        assert!(drops.join().unwrap() < 10_000);
        stub.release();
        wait_until("nothing is left", || {
            server.stats().connections == 0 && server.stats().queries_in_flight == 0
        });
    });
}

#[test]
fn idle_clients_are_shown_out() {
    on_each_backend(
        Mode::AtOnce,
        |limits| limits.idle_timeout_ms = 300,
        |server, _| {
            let mut idle = Client::connect(server.local_addr());
            assert!(idle.at_end());
            wait_until("nothing is left", || server.stats().connections == 0);
        },
    );
}

#[test]
fn over_a_limit_there_is_an_answer() {
    let limits = |limits: &mut replicore_netstack::NetLimits| {
        limits.connections_max = 3;
        limits.queries_in_flight_max = 2;
    };
    on_each_backend(Mode::Hold, limits, |server, stub| {
        let mut first = Client::connect(server.local_addr());
        first.send(&queries(0, 2));
        wait_until("two queries are held", || stub.held.lock().len() == 2);
        let mut second = Client::connect(server.local_addr());
        let refused = second.post(&path("v3", "query"), &query(b""));
        assert_eq!(refused.status, 429);
        assert!(refused.head.contains("retry-after: 1"));
        assert_eq!(second.get("/api/v2/status").status, 200, "other kinds are served");
        let mut third = Client::connect(server.local_addr());
        assert_eq!(third.get("/api/v2/status").status, 200);
        let mut fourth = Client::connect(server.local_addr());
        assert_eq!(fourth.response().status, 503);
        assert!(fourth.at_end());
        stub.release();
        expect_queries(&mut first, 0, 2);
        drop(third);
        wait_until("there is room", || server.stats().connections == 2);
        assert_eq!(Client::connect(server.local_addr()).get("/api/v2/status").status, 200);
    });
}

#[test]
fn incomplete_requests_hold_bounded_memory() {
    let limits = |limits: &mut replicore_netstack::NetLimits| {
        limits.body_bytes_max = 70_000;
        limits.buffered_bytes_max = 100_000;
    };
    on_each_backend(Mode::AtOnce, limits, |server, _| {
        let data = post(&path("v3", "query"), &query(&[0; 60_000]));
        let mut first = Client::connect(server.local_addr());
        first.send(&data[..60_000]);
        sleep(Duration::from_millis(50));
        let mut second = Client::connect(server.local_addr());
        second.send(&data[..60_000]);
        assert_eq!(second.response().status, 503);
        first.send(&data[60_000..]);
        assert_eq!(first.response().status, 200);
        let mut third = Client::connect(server.local_addr());
        third.send(&data);
        assert_eq!(third.response().status, 200);
    });
}

#[test]
fn many_connections_are_served_at_once() {
    on_each_backend(
        Mode::AtOnce,
        |_| {},
        |server, _| {
            let mut clients: Vec<_> = (0..300).map(|_| Client::connect(server.local_addr())).collect();
            for round in 0..3 {
                clients
                    .iter_mut()
                    .for_each(|client| client.send(&queries(round, round + 2)));
                clients
                    .iter_mut()
                    .for_each(|client| expect_queries(client, round, round + 2));
            }
            assert_eq!(server.stats().connections, 300);
            drop(clients);
            wait_until("all are gone", || server.stats().connections == 0);
        },
    );
}

#[test]
fn few_receive_buffers_suffice() {
    let limits = |limits: &mut replicore_netstack::NetLimits| {
        limits.receive_buffers = 2;
        limits.receive_buffer_bytes = 64;
    };
    on_each_backend(Mode::AtOnce, limits, |server, _| {
        let mut clients: Vec<_> = (0..20).map(|_| Client::connect(server.local_addr())).collect();
        clients.iter_mut().for_each(|client| client.send(&queries(0, 10)));
        clients.iter_mut().for_each(|client| expect_queries(client, 0, 10));
    });
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    on_each_backend(
        Mode::AtOnce,
        |limits| limits.output_bytes_max = 10_000,
        |server, stub| {
            stub.reply_bytes.store(100_000, Ordering::Relaxed);
            let mut client = Client::connect(server.local_addr());
            let mut writer = client.socket.try_clone().unwrap();
            let data = queries(0, 400);
            let sender = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &data).unwrap());
            wait_until("some are handled", || stub.queries.lock().len() > 5);
            sleep(Duration::from_millis(100));
            assert!(
                stub.queries.lock().len() < 300,
                "answers pile up: {}",
                stub.queries.lock().len()
            );
            for _ in 0..400 {
                assert!(client.response().body.len() > 100_000);
            }
            sender.join().unwrap();
        },
    );
}

#[test]
fn shutting_down_lets_requests_finish() {
    on_each_backend(Mode::Hold, |_| {}, |_, _| {});
    for backend in [
        replicore_netstack::NetBackend::Epoll,
        replicore_netstack::NetBackend::Auto,
    ] {
        let stub = Stub::new(Mode::Hold);
        let config = replicore_netstack::ServerConfig {
            backend,
            threads: 2,
            ..Default::default()
        };
        let server = replicore_netstack::Server::start(config, stub.clone()).unwrap();
        let address = server.local_addr();
        let mut idle = Client::connect(address);
        assert_eq!(idle.get("/api/v2/status").status, 200);
        let mut busy = Client::connect(address);
        busy.send(&queries(0, 2));
        wait_until("both are held", || stub.held.lock().len() == 2);
        let stopper = std::thread::spawn(move || server.shutdown(Duration::from_secs(600)));
        assert!(idle.at_end());
        wait_until("nobody is let in", || std::net::TcpStream::connect(address).is_err());
        let start = Instant::now();
        stub.release();
        expect_queries(&mut busy, 0, 1);
        let last = busy.response();
        assert!(last.head.contains("connection: close"), "{}", last.head);
        assert!(busy.at_end());
        stopper.join().unwrap().unwrap();
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}

#[test]
fn shutting_down_does_not_wait_for_ever() {
    on_each_backend(
        Mode::Hold,
        |_| {},
        |server, stub| {
            let mut client = Client::connect(server.local_addr());
            client.send(&queries(0, 1));
            wait_until("it is held", || stub.held.lock().len() == 1);
            // The handle is dropped while the request is in flight, and answered after that.
        },
    );
}

#[test]
fn the_port_is_not_shared_with_another_server() {
    let server = |listen| {
        let config = replicore_netstack::ServerConfig {
            listen,
            threads: 2,
            ..Default::default()
        };
        replicore_netstack::Server::start(config, Stub::new(Mode::AtOnce))
    };
    let first = server("127.0.0.1:0".parse().unwrap()).unwrap();
    let error = server(first.local_addr())
        .err()
        .expect("a second server listens on the same port");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    let v6 = server("[::1]:0".parse().unwrap());
    if let Ok(v6) = v6 {
        assert_eq!(Client::connect(v6.local_addr()).get("/api/v2/status").status, 200);
    }
}

/// Whatever is used of io_uring, the answers are the same; small buffers make pieces of everything.
#[test]
fn the_features_of_the_ring_change_no_answer() {
    let combinations = (0..8).map(|bits| replicore_netstack::RingFeatures {
        multishot: bits & 1 != 0,
        incremental_buffers: bits & 2 != 0,
        registered_files: bits & 4 != 0,
        deferred: bits % 3 == 0,
    });
    for ring in combinations {
        let stub = Stub::new(Mode::AtOnce);
        let mut config = replicore_netstack::ServerConfig {
            backend: replicore_netstack::NetBackend::Uring,
            ring,
            threads: 1,
            ..Default::default()
        };
        config.limits.receive_buffers = 4;
        config.limits.receive_buffer_bytes = 1000;
        let server = match replicore_netstack::Server::start(config, stub) {
            Ok(server) => server,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        // Slots are used again and again, with bytes unread on some.
        for round in 0..3 {
            let mut clients: Vec<_> = (0..12).map(|_| Client::connect(server.local_addr())).collect();
            clients
                .iter_mut()
                .for_each(|client| client.send(&queries(round, round + 20)));
            clients
                .iter_mut()
                .skip(3)
                .for_each(|client| expect_queries(client, round, round + 20));
            drop(clients);
            wait_until("all are gone", || server.stats().connections == 0);
        }
        let mut client = Client::connect(server.local_addr());
        let argument: Vec<u8> = (0..300_000u32).map(|number| number as u8).collect();
        let response = client.post(&path("v3", "query"), &query(&argument));
        assert!(response.contains(&argument), "{ring:?}");
        // The client learns of the end.
        client.send(b"GET /api/v2/status HTTP/1.1\r\nconnection: close\r\n\r\n");
        assert_eq!(client.response().status, 200);
        assert!(client.at_end(), "{ring:?}");
    }
}
