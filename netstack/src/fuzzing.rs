//! What must hold for any bytes that a stranger sends: called by the targets in `netstack/fuzz` and, with fewer cases, by
//! the tests here.

use crate::api::Answer;
use crate::config::{NetLimits, SignatureCacheConfig};
use crate::connection::{Connection, Phase};
use crate::envelope::{Endpoint, Envelope};
use crate::verify::{Batch, Circumstances, Verifier};
use replicore_types::Time;
use std::sync::Arc;

/// A time at which the seeds of the corpus have not expired.
const NOW: Time = Time(1_700_000_000_000_000_000);

/// Bytes of a connection give the same requests in one piece and in pieces.
pub fn http(bytes: &[u8]) {
    let whole = requests(&[bytes]);
    // The bytes themselves say where they are cut.
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while let Some(&first) = rest.first() {
        let (piece, after) = rest.split_at(rest.len().min(1 + usize::from(first) % 17));
        pieces.push(piece);
        rest = after;
    }
    assert_eq!(requests(&pieces), whole);
}

/// The requests that a connection makes of `pieces`.
fn requests(pieces: &[&[u8]]) -> Vec<String> {
    let limits = NetLimits {
        header_bytes_max: 2_000,
        body_bytes_max: 2_000,
        pipeline_max: 2,
        ..NetLimits::default()
    };
    let mut seen = Vec::new();
    let mut handle = |request: &crate::http::parse::Request<'_>, _| {
        seen.push(format!("{request:?}"));
        Some(Answer::text(200, "yes"))
    };
    let mut connection = Connection::new(0, 0);
    let mut scratch = Vec::new();
    for piece in pieces {
        connection.receive(piece, &limits, &mut handle);
        loop {
            let before = connection.input_bytes();
            connection.encode(&mut scratch, &limits);
            connection.output.clear();
            connection.proceed(&limits, &mut handle);
            if connection.input_bytes() == before && !connection.answer_ready(&limits) {
                break;
            }
        }
        assert!(
            connection.phase != Phase::Open || connection.input_bytes() <= 8 * limits.body_bytes_max + 64 * 1024,
            "unparsed bytes pile up"
        );
    }
    seen
}

/// A body to any endpoint has one outcome: alone, in a batch, with an empty cache and with a full one.
pub fn envelope(body: &[u8]) {
    let root_key = || Arc::from([1; 133]);
    let circumstances = Circumstances {
        now: NOW,
        root_key: &root_key,
    };
    for endpoint in [Endpoint::Call, Endpoint::Query, Endpoint::ReadState] {
        let Ok(envelope) = Envelope::decode(body, endpoint) else {
            continue;
        };
        let verifier = |enabled| {
            Verifier::new(&SignatureCacheConfig {
                enabled,
                entries: 64,
                ..SignatureCacheConfig::default()
            })
            .expect("the system has randomness")
        };
        let alone = |verifier: &Verifier| {
            let verified = verifier.verify(envelope.clone(), &circumstances);
            verified.map(|verified| verified.message_id())
        };
        let expected = alone(&verifier(false));
        let cached = verifier(true);
        assert_eq!(alone(&cached), expected, "with an empty cache");
        assert_eq!(alone(&cached), expected, "with a filled cache");
        let uncached = verifier(false);
        let mut batch = Batch::default();
        let mut outcomes = Vec::new();
        for _ in 0..3 {
            match uncached.examine(envelope.clone(), &circumstances) {
                Ok(unproven) => batch.push(unproven),
                Err(error) => outcomes.push(Err(error)),
            }
        }
        uncached.prove(&mut batch, NOW, |verified, outcome| {
            outcomes.push(outcome.map(|()| verified.message_id()));
        });
        assert!(
            outcomes.len() == 3 && outcomes.iter().all(|outcome| *outcome == expected),
            "in a batch: {outcomes:?}, alone: {expected:?}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEEDS: [&str; 5] = [
        "GET /api/v2/status HTTP/1.1\r\nhost: x\r\n\r\n",
        "POST /x HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello",
        "POST /x HTTP/1.1\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n3;a=b\r\nabc\r\n0\r\nt: u\r\n\r\n",
        "HEAD / HTTP/1.0\nconnection: keep-alive\n\n",
        "\r\nOPTIONS * HTTP/1.1\r\nconnection: close\r\n\r\n",
    ];

    proptest! {
        #[test]
        fn any_bytes_give_the_same_requests_in_pieces(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            http(&bytes);
        }

        /// Requests one after the other, with some bytes replaced, dropped or doubled.
        #[test]
        fn spoilt_requests_give_the_same_requests_in_pieces(
            order in proptest::collection::vec(0usize..5, 1..6),
            changes in proptest::collection::vec((any::<usize>(), any::<u8>(), 0u8..3), 0..4),
        ) {
            let mut bytes: Vec<u8> = order.iter().flat_map(|&seed| SEEDS[seed].bytes()).collect();
            for (at, with, how) in changes {
                let at = at % bytes.len();
                match how {
                    0 => bytes[at] = with,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, bytes[at]),
                }
                if bytes.is_empty() {
                    break;
                }
            }
            http(&bytes);
        }

        #[test]
        fn any_body_has_one_outcome(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            envelope(&bytes);
        }
    }
}
