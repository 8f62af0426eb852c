use super::*;
use proptest::prelude::*;

const POST: &[u8] = b"POST /api/v2/canister/aaaaa-aa/query?x=1 HTTP/1.1\r\nHost: localhost\r\n\
    Content-Type: Application/CBOR\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &[u8] =
    b"POST /x HTTP/1.1\r\ncontent-type: application/cbor; charset=x\r\nTransfer-Encoding: chunked\r\n\r\n\
    5;name=value\r\nhello\r\n0006\r\n world\r\n0\r\nTrailer: x\r\n\r\n";

fn limits() -> NetLimits {
    NetLimits {
        header_bytes_max: 512,
        body_bytes_max: 1000,
        ..NetLimits::default()
    }
}

/// What a connection sees that gets `data` in pieces ending at `cuts`.
fn parse_in_pieces(data: &[u8], cuts: impl IntoIterator<Item = usize>) -> Result<(Vec<u8>, String, usize), Refusal> {
    let mut state = ParseState::default();
    for cut in cuts.into_iter().chain([data.len()]) {
        match parse(&data[..cut], &mut state, &limits()) {
            Parsed::Incomplete => {}
            Parsed::Request { request, consumed } => {
                return Ok((request.body.to_vec(), request.path.to_string(), consumed));
            }
            Parsed::Refused(refusal) => return Err(refusal),
        }
    }
    Err(Refusal {
        status: 0,
        text: "incomplete",
    })
}

fn refused(data: &[u8]) -> u16 {
    parse_in_pieces(data, []).expect_err("not refused").status
}

#[test]
fn a_request_is_the_same_however_it_is_split() {
    for cut in 0..POST.len() {
        let (body, path, consumed) = parse_in_pieces(POST, [cut]).unwrap();
        assert_eq!(
            (body.as_slice(), path.as_str(), consumed),
            (&b"hello"[..], "/api/v2/canister/aaaaa-aa/query", POST.len())
        );
    }
    assert_eq!(parse_in_pieces(POST, 0..POST.len()).unwrap().0, b"hello");
}

#[test]
fn a_chunked_body_is_the_same_however_it_is_split() {
    for cut in 0..CHUNKED.len() {
        let (body, path, consumed) = parse_in_pieces(CHUNKED, [cut]).unwrap();
        assert_eq!(
            (body.as_slice(), path.as_str(), consumed),
            (&b"hello world"[..], "/x", CHUNKED.len())
        );
    }
    assert_eq!(parse_in_pieces(CHUNKED, 0..CHUNKED.len()).unwrap().0, b"hello world");
}

#[test]
fn the_next_request_is_left_alone() {
    let two = [POST, CHUNKED, POST].concat();
    let (_, _, first) = parse_in_pieces(&two, []).unwrap();
    let (body, _, second) = parse_in_pieces(&two[first..], []).unwrap();
    assert_eq!(
        (first, body.as_slice(), second),
        (POST.len(), &b"hello world"[..], CHUNKED.len())
    );
}

#[test]
fn headers_are_understood() {
    let mut state = ParseState::default();
    let limits = limits();
    let mut request = |text: &'static str| match parse(text.as_bytes(), &mut state, &limits) {
        Parsed::Request { request, .. } => (
            request.method,
            request.path.to_string(),
            request.keep_alive,
            request.cbor,
        ),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        request("GET / HTTP/1.1\r\n\r\n"),
        (Method::Get, "/".into(), true, false)
    );
    assert_eq!(
        request("HEAD / HTTP/1.0\r\n\r\n"),
        (Method::Head, "/".into(), false, false)
    );
    assert!(request("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n").2);
    assert_eq!(
        request("OPTIONS /a#b HTTP/1.1\r\nConnection: x, Close\r\n\r\n"),
        (Method::Options, "/a".into(), false, false)
    );
    assert_eq!(
        request("PUT http://host:80/a/b?c HTTP/1.1\r\n\r\n"),
        (Method::Other, "/a/b".into(), true, false)
    );
    assert_eq!(request("GET http://host HTTP/1.1\r\n\r\n").1, "");
    assert_eq!(request("\r\n\r\nGET / HTTP/1.1\n\n").1, "/");
}

#[test]
fn a_client_that_asks_for_it_is_told_to_continue_once() {
    let data = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc";
    let mut state = ParseState::default();
    assert_eq!(
        parse(&data[..data.len() - 3], &mut state, &limits()),
        Parsed::Incomplete
    );
    assert!(state.in_body());
    assert_eq!(state.request_bytes(), Some(data.len()));
    assert!(state.take_expects_continue());
    assert!(!state.take_expects_continue());
    assert!(matches!(parse(data, &mut state, &limits()), Parsed::Request { .. }));
    // HTTP/1.0 has no interim responses.
    let old = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(parse(old, &mut state, &limits()), Parsed::Incomplete);
    assert!(state.in_body() && !state.take_expects_continue());
}

#[test]
fn what_is_not_a_request_is_refused() {
    assert_eq!(refused(b"\x16\x03\x01 tls\r\n\r\n"), 400);
    assert_eq!(refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
    assert_eq!(refused(b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n"), 400);
    assert_eq!(
        refused(b"GET / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n"),
        400
    );
    assert_eq!(refused(b"GET / HTTP/1.1\r\ncontent-length: 1001\r\n\r\n"), 413);
    assert_eq!(
        refused(b"GET / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n"),
        413
    );
    assert_eq!(
        refused(b"GET / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n"),
        501
    );
    assert_eq!(
        refused(b"GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n"),
        400
    );
    assert_eq!(
        refused(b"POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        400
    );
    let chunked =
        |body: &str| refused(format!("GET / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{body}").as_bytes());
    assert_eq!(chunked("x\r\n"), 400);
    assert_eq!(chunked("-1\r\n"), 400);
    assert_eq!(chunked("fffffffff\r\n"), 400);
    assert_eq!(chunked("3e9\r\n"), 413);
    assert_eq!(chunked("1\r\nab\r\n"), 400);
    assert_eq!(chunked(&"1;".repeat(200)), 400);
    assert_eq!(
        refused(format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(600)).as_bytes()),
        431
    );
    assert_eq!(
        refused(format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65)).as_bytes()),
        431
    );
    assert_eq!(refused(format!("GET /{}", "b".repeat(600)).as_bytes()), 431);
}

#[test]
fn endless_chunks_end() {
    let mut data = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..200_000 {
        data.extend_from_slice(b"0001;pad\r\nx\r\n");
    }
    assert_eq!(refused(&data), 413);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(data in proptest::collection::vec(any::<u8>(), 0..300), cuts in proptest::collection::vec(0usize..300, 0..5)) {
        let mut cuts: Vec<_> = cuts.into_iter().filter(|&cut| cut <= data.len()).collect();
        cuts.sort_unstable();
        let _ = parse_in_pieces(&data, cuts);
    }

    #[test]
    fn no_spoilt_request_makes_it_panic(
        chunked in any::<bool>(), at in 0usize..200, with in any::<u8>(), cuts in proptest::collection::vec(0usize..200, 0..4)
    ) {
        let mut data = if chunked { CHUNKED.to_vec() } else { POST.to_vec() };
        let at = at % data.len();
        data[at] = with;
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % data.len()).collect();
        cuts.sort_unstable();
        // Headers that come in pieces are parsed once their end is there; until then even spoilt ones count as incomplete.
        let (pieces, whole) = (parse_in_pieces(&data, cuts), parse_in_pieces(&data, []));
        let waits = pieces == Err(Refusal { status: 0, text: "incomplete" });
        prop_assert!(pieces == whole || (waits && whole.is_err()), "{pieces:?} {whole:?}");
    }
}
