use super::*;
use crate::verify::cache::{CacheKind, SignatureCache};
use ed25519_zebra::{SigningKey, VerificationKey};

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
                let alone = edge.prove(&Ed25519Keys::new(true)).is_ok();
                let mut batch = Batch::default();
                for (number, check) in [check(1, 1, true), edge, check(2, 2, true)].into_iter().enumerate() {
                    batch.push(Unproven::new(number, vec![check], Vec::new()));
                }
                let (outcomes, stats) = prove(&mut batch);
                assert_eq!(outcomes, [(0, true), (1, alone), (2, true)]);
                assert_eq!(stats.batches == 1, alone, "the batch equation itself agrees");
                *(if alone { &mut accepted } else { &mut refused }) += 1;
            }
        }
    }
    // Every pair of the thirteen points with s = 0; nothing with s = the group order, nothing with what is no point.
    assert_eq!((accepted, refused), (13 * 13, 2 * 14 * 14 - 13 * 13));
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
