use super::*;
use crate::verify::cache::{CacheKind, SignatureCache};
use curve25519_dalek::constants::{ED25519_BASEPOINT_POINT, EIGHT_TORSION};
use curve25519_dalek::traits::Identity;
use curve25519_dalek::{EdwardsPoint, Scalar};
use ed25519_zebra::{SigningKey, VerificationKey};
use sha2::{Digest, Sha512};

/// A check of a message that `seed` signed; `good` or spoilt.
fn check(seed: u8, message: u8, good: bool) -> Check {
    let signer = SigningKey::from([seed; 32]);
    let mut signature = signer.sign(&[message]).to_bytes();
    if !good {
        signature[40] ^= 1;
    }
    Check {
        key: VerificationKey::from(&signer).into(),
        payload: vec![message],
        signature,
        failure: VerifyError::Signature,
        remember: None,
    }
}

fn prove<T: Copy>(batch: &mut Batch<T>) -> (Vec<(T, bool)>, BatchStats) {
    let mut outcomes = Vec::new();
    batch.prove(
        &Ed25519Keys::new(true),
        |_| {},
        |value, outcome| outcomes.push((value, outcome.is_ok())),
    );
    (outcomes, batch.take_stats())
}

#[test]
fn good_signatures_hold_together_and_one_alone_is_not_a_batch() {
    let mut batch = Batch::default();
    batch.push(Unproven::new(0, vec![check(1, 0, true)], Vec::new()));
    let (outcomes, stats) = prove(&mut batch);
    assert_eq!((outcomes, stats.single, stats.batches), (vec![(0, true)], 1, 0));
    for number in 0..100 {
        let checks = (0..number % 4).map(|link| check(link, number, true)).collect();
        batch.push(Unproven::new(number, checks, Vec::new()));
    }
    let (outcomes, stats) = prove(&mut batch);
    assert_eq!(outcomes, (0..100).map(|number| (number, true)).collect::<Vec<_>>());
    assert_eq!((stats.batches, stats.batched, stats.single), (1, 150, 0));
    assert!(batch.is_empty());
}

#[test]
fn where_batches_are_switched_off_each_is_verified_by_itself() {
    let mut batch = Batch::default();
    for _ in 0..2 {
        for number in 0..10 {
            batch.push(Unproven::new(number, vec![check(1, number, number != 4)], Vec::new()));
        }
        batch.verify_singly();
        let (outcomes, stats) = prove(&mut batch);
        assert_eq!(
            outcomes,
            (0..10).map(|number| (number, number != 4)).collect::<Vec<_>>()
        );
        assert_eq!((stats.batches, stats.taken_apart, stats.single), (0, 0, 10));
    }
}

#[test]
fn larger_loads_are_split() {
    let mut batch = Batch::default();
    for number in 0..=255 {
        batch.push(Unproven::new(
            number,
            vec![check(1, number, true), check(2, number, true)],
            Vec::new(),
        ));
    }
    let (outcomes, stats) = prove(&mut batch);
    assert!(outcomes.len() == 256 && outcomes.iter().all(|(_, good)| *good));
    assert_eq!((stats.batches, stats.batched), (2, 512));
}

#[test]
fn the_bad_one_is_found_and_the_others_do_not_suffer() {
    let mut batch = Batch::default();
    for number in 0..50 {
        batch.push(Unproven::new(
            number,
            vec![check(number, number, number != 17)],
            Vec::new(),
        ));
    }
    let (outcomes, stats) = prove(&mut batch);
    assert_eq!(
        outcomes,
        (0..50).map(|number| (number, number != 17)).collect::<Vec<_>>()
    );
    assert_eq!((stats.taken_apart, stats.batches), (1, 0));
    // For a while nothing is tried together, then it is again.
    let mut tries = 0;
    loop {
        for number in 0..50 {
            batch.push(Unproven::new(number, vec![check(number, number, true)], Vec::new()));
        }
        let (outcomes, stats) = prove(&mut batch);
        assert!(outcomes.iter().all(|(_, good)| *good));
        if stats.batches == 1 {
            break;
        }
        tries += 1;
        assert!(tries <= SUSPICION.div_ceil(50));
    }
    assert!(tries > 5);
}

/// The rule of ZIP 215 on both ways: for keys and commitments of small order, in every encoding, a signature is accepted
/// in a batch exactly if it is accepted by itself.
#[test]
fn batches_accept_what_single_verification_accepts() {
    // Encodings of the eight points of small order, canonical or not, and one that is no point.
    let encodings = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "0200000000000000000000000000000000000000000000000000000000000000",
    ];
    let decode = |text: &str| <[u8; 32]>::try_from(hex::decode(text).unwrap()).unwrap();
    let order = decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let (mut accepted, mut refused) = (0, 0);
    for key in encodings.map(decode) {
        for commitment in encodings.map(decode) {
            for response in [[0; 32], order] {
                let mut signature = [0; 64];
                signature[..32].copy_from_slice(&commitment);
                signature[32..].copy_from_slice(&response);
                let edge = Check {
                    key,
                    payload: b"Zcash".to_vec(),
                    signature,
                    failure: VerifyError::Signature,
                    remember: None,
                };
                let alone = accepted_on_both_ways(edge);
                *(if alone { &mut accepted } else { &mut refused }) += 1;
            }
        }
    }
    // Every pair of the fourteen encodings with s = 0; nothing with s = the group order, nothing with what is no point.
    assert_eq!((accepted, refused), (14 * 14, 2 * 15 * 15 - 14 * 14));
}

/// Whether a signature is accepted: alone, and by the batch equation together with two good ones, which must agree.
fn accepted_on_both_ways(edge: Check) -> bool {
    let alone = edge.prove(&Ed25519Keys::new(true)).is_ok();
    let mut batch = Batch::default();
    for (number, check) in [check(1, 1, true), edge, check(2, 2, true)].into_iter().enumerate() {
        batch.push(Unproven::new(number, vec![check], Vec::new()));
    }
    let (outcomes, stats) = prove(&mut batch);
    assert_eq!(outcomes, [(0, true), (1, alone), (2, true)]);
    assert_eq!(stats.batches == 1, alone, "the batch equation itself agrees");
    alone
}

/// A signature of `message` by the key `secret`, to which points of small order are added: to the key, to the commitment.
/// Its response is larger by `error` than it should be.
fn mixed(secret: u64, message: u8, [to_key, to_commitment]: [EdwardsPoint; 2], error: Scalar) -> Check {
    let (secret, nonce) = (Scalar::from(secret), Scalar::from(1_000 + u64::from(message)));
    let key = (ED25519_BASEPOINT_POINT * secret + to_key).compress().to_bytes();
    let commitment = (ED25519_BASEPOINT_POINT * nonce + to_commitment).compress().to_bytes();
    let challenge = Sha512::new()
        .chain_update(commitment)
        .chain_update(key)
        .chain_update([message])
        .finalize();
    let challenge = Scalar::from_bytes_mod_order_wide(&challenge.into());
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&commitment);
    signature[32..].copy_from_slice((nonce + challenge * secret + error).as_bytes());
    Check {
        key,
        payload: vec![message],
        signature,
        failure: VerifyError::Signature,
        remember: None,
    }
}

/// Keys and commitments that are those of a real key but for a point of small order: the equation is multiplied by the
/// cofactor, which takes that away, so that all are accepted; without the cofactor only some would be, and alone others
/// than in a batch. A response that is too large by one is refused with each of them, and so is one that is too large by
/// the group order.
#[test]
fn parts_of_small_order_change_nothing() {
    for to_key in EIGHT_TORSION {
        for to_commitment in EIGHT_TORSION {
            let parts = [to_key, to_commitment];
            let good = mixed(77, 3, parts, Scalar::ZERO);
            assert!(accepted_on_both_ways(good.clone()));
            assert!(!accepted_on_both_ways(mixed(77, 3, parts, Scalar::ONE)));
            let mut not_reduced = good;
            add_order(&mut not_reduced.signature);
            assert!(!accepted_on_both_ways(not_reduced));
        }
    }
}

/// Adds the group order to the response, which stays below 2^256.
fn add_order(signature: &mut [u8; 64]) {
    let minus_one = (-Scalar::ONE).to_bytes();
    let mut carry = 1;
    for (byte, of_order) in signature[32..].iter_mut().zip(minus_one) {
        let sum = u16::from(*byte) + u16::from(of_order) + carry;
        (*byte, carry) = (sum as u8, sum >> 8);
    }
    assert_eq!(carry, 0);
}

/// Two bad signatures whose errors cancel: each has a random factor of its own in the sum, so that they do not.
#[test]
fn errors_that_cancel_are_found() {
    let none = [EdwardsPoint::identity(); 2];
    for key in [5, 6] {
        let mut batch = Batch::default();
        let checks = [
            mixed(5, 1, none, Scalar::ONE),
            mixed(key, 2, none, -Scalar::ONE),
            mixed(key, 3, none, Scalar::ZERO),
        ];
        for (number, check) in checks.into_iter().enumerate() {
            batch.push(Unproven::new(number, vec![check], Vec::new()));
        }
        let (outcomes, stats) = prove(&mut batch);
        assert_eq!(outcomes, [(0, false), (1, false), (2, true)], "of one key or of two");
        assert_eq!((stats.batches, stats.taken_apart), (0, 1));
    }
}

#[test]
fn only_what_was_verified_is_remembered() {
    let cache = SignatureCache::new(&crate::SignatureCacheConfig::default())
        .unwrap()
        .unwrap();
    let key = |number: u8| cache.key(CacheKind::Request, [[number].as_slice()]);
    let mut batch = Batch::default();
    for number in 0..20 {
        let mut check = check(number, number, number != 3);
        check.remember = Some((key(number), Time(9)));
        batch.push(Unproven::new(number, vec![check], vec![(key(100 + number), Time(9))]));
    }
    let keys = Ed25519Keys::new(true);
    batch.prove(&keys, |(key, expiry)| cache.insert(&key, expiry, Time(1)), |_, _| {});
    for number in 0..20 {
        assert_eq!(cache.contains(&key(number), Time(1)), number != 3);
        assert_eq!(cache.contains(&key(100 + number), Time(1)), number != 3);
    }
}
