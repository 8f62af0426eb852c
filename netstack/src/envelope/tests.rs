use super::request_id::hash_of_nat;
use super::*;
use minicbor::Encoder;
use proptest::prelude::*;

type Writer = Encoder<Vec<u8>>;

/// A call as the specification's example has it, written by `more` with extra fields and `count` fields in all.
fn call(count: u64, more: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Encoder::new(Vec::new());
    writer
        .tag(minicbor::data::Tag::new(55799))
        .unwrap()
        .map(1)
        .unwrap()
        .str("content")
        .unwrap();
    writer.map(count).unwrap();
    writer.str("request_type").unwrap().str("call").unwrap();
    writer.str("sender").unwrap().bytes(&[4]).unwrap();
    writer
        .str("ingress_expiry")
        .unwrap()
        .u64(1_685_570_400_000_000_000)
        .unwrap();
    writer
        .str("canister_id")
        .unwrap()
        .bytes(&[0, 0, 0, 0, 0, 0, 4, 0xd2])
        .unwrap();
    writer.str("method_name").unwrap().str("hello").unwrap();
    writer.str("arg").unwrap().bytes(b"DIDL\x00\xFD*").unwrap();
    more(&mut writer);
    writer.into_writer()
}

fn error(body: &[u8], endpoint: Endpoint) -> String {
    Envelope::decode(body, endpoint).expect_err("decoded").to_string()
}

#[test]
fn the_request_id_is_that_of_the_specification() {
    let body = call(6, |_| {});
    let envelope = Envelope::decode(&body, Endpoint::Call).unwrap();
    let expected = "1d1091364d6bb8a6c16b203ee75467d59ead468f523eb058880ae8ec80e2b101";
    assert_eq!(envelope.content.request_id().to_string(), expected);
    let expiry = "db8e57abc8cda1525d45fdd2637af091bc1f28b35819a40df71517d1501f2c76";
    assert_eq!(hex::encode(hash_of_nat(1_685_570_400_000_000_000)), expiry);
}

#[test]
fn the_request_id_does_not_depend_on_the_encoding() {
    let plain = call(6, |_| {});
    let mut indefinite = Encoder::new(Vec::new());
    indefinite
        .begin_map()
        .unwrap()
        .str("content")
        .unwrap()
        .begin_map()
        .unwrap();
    indefinite
        .str("arg")
        .unwrap()
        .begin_bytes()
        .unwrap()
        .bytes(b"DIDL")
        .unwrap()
        .bytes(b"\x00\xFD*")
        .unwrap()
        .end()
        .unwrap();
    indefinite
        .str("method_name")
        .unwrap()
        .begin_str()
        .unwrap()
        .str("hel")
        .unwrap()
        .str("lo")
        .unwrap()
        .end()
        .unwrap();
    indefinite
        .str("canister_id")
        .unwrap()
        .bytes(&[0, 0, 0, 0, 0, 0, 4, 0xd2])
        .unwrap();
    indefinite
        .str("ingress_expiry")
        .unwrap()
        .u64(1_685_570_400_000_000_000)
        .unwrap();
    indefinite.str("nonce").unwrap().null().unwrap();
    indefinite.str("request_type").unwrap().str("call").unwrap();
    indefinite
        .str("sender")
        .unwrap()
        .bytes(&[4])
        .unwrap()
        .end()
        .unwrap()
        .end()
        .unwrap();
    let indefinite = indefinite.into_writer();
    let plain = Envelope::decode(&plain, Endpoint::Call).unwrap();
    let indefinite = Envelope::decode(&indefinite, Endpoint::Call).unwrap();
    assert_eq!(plain, indefinite);
    assert_eq!(plain.content.request_id(), indefinite.content.request_id());
}

#[test]
fn optional_fields_are_part_of_the_request_id() {
    let id = |body: &[u8]| Envelope::decode(body, Endpoint::Call).unwrap().content.request_id();
    let nonce = call(7, |writer| {
        writer.str("nonce").unwrap().bytes(b"n").unwrap();
    });
    let info = call(7, |writer| {
        writer.str("sender_info").unwrap().map(3).unwrap();
        writer.str("info").unwrap().bytes(b"i").unwrap();
        writer.str("signer").unwrap().bytes(&[1]).unwrap();
        writer.str("sig").unwrap().bytes(b"s").unwrap();
    });
    let unknown = call(7, |writer| {
        writer.str("future").unwrap().array(1).unwrap().str("x").unwrap();
    });
    let plain = id(&call(6, |_| {}));
    assert_ne!(plain, id(&nonce));
    assert_ne!(plain, id(&info));
    assert_ne!(id(&nonce), id(&info));
    assert_eq!(
        plain,
        id(&unknown),
        "fields that are not understood are not hashed, so that no signature covers them"
    );
}

#[test]
fn malformed_envelopes_say_what_is_wrong() {
    let body = call(6, |_| {});
    assert!(error(&body, Endpoint::Query).contains("request_type is \"call\", expected \"query\""));
    assert!(error(&body[..body.len() - 1], Endpoint::Call).contains("arg"));
    assert!(error(&[body.as_slice(), &[0]].concat(), Endpoint::Call).contains("trailing bytes"));
    assert!(error(b"", Endpoint::Call).contains("end of input"));
    assert!(error(&[0xa0], Endpoint::Call).contains("missing field `content`"));
    assert!(error(&[0x80], Endpoint::Call).contains("expected a map, found array"));
    let extra = |more: fn(&mut Writer)| error(&call(7, more), Endpoint::Call);
    assert!(
        extra(|writer| {
            writer.str("arg").unwrap().bytes(b"").unwrap();
        })
        .contains("duplicate field `arg`")
    );
    assert!(
        extra(|writer| {
            writer.str("nonce").unwrap().bytes(&[0; 33]).unwrap();
        })
        .contains("nonce is longer")
    );
    assert!(
        extra(|writer| {
            writer.str("nonce").unwrap().str("").unwrap();
        })
        .contains("nonce: expected a byte string")
    );
    let deep = call(7, |writer| {
        writer.str("x").unwrap();
        (0..100).for_each(|_| {
            writer.array(1).unwrap();
        });
    });
    assert!(error(&deep, Endpoint::Call).contains("nested too deep"));
}

#[test]
fn read_state_paths_are_bounded() {
    let request = |paths: usize, labels: usize| {
        let mut writer = Encoder::new(Vec::new());
        writer.map(1).unwrap().str("content").unwrap().map(4).unwrap();
        writer.str("request_type").unwrap().str("read_state").unwrap();
        writer.str("sender").unwrap().bytes(&[4]).unwrap();
        writer.str("ingress_expiry").unwrap().u64(1).unwrap();
        writer.str("paths").unwrap().array(paths as u64).unwrap();
        for _ in 0..paths {
            writer.array(labels as u64).unwrap();
            (0..labels).for_each(|_| {
                writer.bytes(b"l").unwrap();
            });
        }
        writer.into_writer()
    };
    let body = request(1000, 127);
    assert_eq!(
        Envelope::decode(&body, Endpoint::ReadState)
            .unwrap()
            .content
            .paths
            .len(),
        1000
    );
    assert!(error(&request(1001, 1), Endpoint::ReadState).contains("too many paths"));
    assert!(error(&request(1, 128), Endpoint::ReadState).contains("too many labels"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for endpoint in [Endpoint::Call, Endpoint::Query, Endpoint::ReadState] {
            let _ = Envelope::decode(&bytes, endpoint);
        }
    }

    #[test]
    fn no_spoilt_envelope_makes_it_panic(at in 0usize..200, with in any::<u8>(), length in 0usize..300) {
        let mut body = call(7, |writer| { writer.str("nonce").unwrap().bytes(b"n").unwrap(); });
        let at = at % body.len();
        body[at] = with;
        body.truncate(length);
        if let Ok(envelope) = Envelope::decode(&body, Endpoint::Call) {
            envelope.content.request_id();
        }
    }
}
