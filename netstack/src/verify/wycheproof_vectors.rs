//! Project Wycheproof: signatures that were made to be taken for something else.
//!
//! What it calls invalid is refused and what it calls valid counts, on every way; where the interface differs from what a
//! set asks for, the test says so.

use super::batch::Check;
use super::*;
use ed25519_keys::Ed25519Keys;
use keys::CoseKey;
use wycheproof::{TestResult, ecdsa, eddsa, rsa_pkcs1_verify as rsa};

/// Compares what was found with what a test expects. `Acceptable` says nothing.
fn compare(set: &str, number: usize, comment: &str, expected: TestResult, counts: bool) {
    match expected {
        TestResult::Valid => assert!(counts, "{set} {number}: refused: {comment}"),
        TestResult::Invalid => assert!(!counts, "{set} {number}: counts: {comment}"),
        TestResult::Acceptable => {}
    }
}

fn counts(key: &PublicKey<'_>, payload: &[u8], signature: &[u8]) -> bool {
    let circumstances = Circumstances {
        now: Time(0),
        root_key: &|| unreachable!("no certificate is involved"),
    };
    let certificates = Certificates {
        verifier: &tests::verifier(false),
        circumstances: &circumstances,
    };
    schemes::verify(key, payload, signature, &certificates).is_ok()
}

/// A commitment in an encoding that is not canonical: RFC 8032 refuses it, ZIP 215 takes it for what it denotes.
const COUNTS_BY_ZIP_215: usize = 151;

#[test]
fn ed25519() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let keys = Ed25519Keys::new(true);
    let mut seen = 0;
    for group in &set.test_groups {
        let key = PublicKey::from_der(&group.der).unwrap();
        for test in &group.tests {
            let alone = counts(&key, &test.msg, &test.sig);
            let expected = match test.tc_id {
                COUNTS_BY_ZIP_215 => TestResult::Valid,
                _ => test.result,
            };
            compare("Ed25519", test.tc_id, &test.comment, expected, alone);
            if let (PublicKey::Ed25519(key), Ok(signature)) = (&key, test.sig.as_slice().try_into()) {
                let check = || Check {
                    key: *key,
                    payload: test.msg.to_vec(),
                    signature,
                    failure: VerifyError::Signature,
                    remember: None,
                };
                let mut batch = Batch::default();
                (0..3).for_each(|number| batch.push(Unproven::new(number, vec![check()], Vec::new())));
                let mut outcomes = Vec::new();
                batch.prove(&keys, |_| {}, |_, outcome| outcomes.push(outcome.is_ok()));
                assert_eq!(outcomes, [alone; 3], "Ed25519 {}, in a batch", test.tc_id);
            }
            seen += 1;
        }
    }
    assert!(seen > 100);
}

/// Both curves in the encoding of requests: two numbers of 32 bytes.
#[test]
fn ecdsa_of_requests() {
    for name in [
        ecdsa::TestName::EcdsaSecp256r1Sha256P1363,
        ecdsa::TestName::EcdsaSecp256k1Sha256P1363,
    ] {
        let set = ecdsa::TestSet::load(name).unwrap();
        let mut seen = 0;
        for group in &set.test_groups {
            let key = PublicKey::from_der(&group.der).unwrap();
            for test in &group.tests {
                let outcome = counts(&key, &test.msg, &test.sig);
                compare(&format!("{name:?}"), test.tc_id, &test.comment, test.result, outcome);
                seen += 1;
            }
        }
        assert!(seen > 100);
    }
}

/// P-256 as authenticators sign: in DER.
#[test]
fn ecdsa_of_authenticators() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256).unwrap();
    let mut seen = 0;
    for group in &set.test_groups {
        let key = CoseKey::Es256(group.key.key.as_slice().try_into().unwrap());
        for test in &group.tests {
            let outcome = schemes::cose(&key, &test.msg, &test.sig).is_ok();
            compare("ES256", test.tc_id, &test.comment, test.result, outcome);
            seen += 1;
        }
    }
    assert!(seen > 100);
}

#[test]
fn rsa_of_authenticators() {
    for name in [
        rsa::TestName::Rsa2048Sha256,
        rsa::TestName::Rsa3072Sha256,
        rsa::TestName::Rsa4096Sha256,
        rsa::TestName::Rsa8192Sha256,
    ] {
        let set = rsa::TestSet::load(name).unwrap();
        let mut seen = 0;
        for group in &set.test_groups {
            let key = CoseKey::Rs256 {
                modulus: group.key.n.as_slice().into(),
                exponent: group.key.e.as_slice().into(),
            };
            for test in &group.tests {
                let outcome = schemes::cose(&key, &test.msg, &test.sig).is_ok();
                compare(&format!("{name:?}"), test.tc_id, &test.comment, test.result, outcome);
                seen += 1;
            }
        }
        assert!(seen > 50);
    }
}
