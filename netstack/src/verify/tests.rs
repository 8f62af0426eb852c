mod signers;

use super::*;
use crate::envelope::Delegation;
use proptest::prelude::*;
use signers::{Canister, Signer, bls_der, root_secret};
use std::borrow::Cow;

const NOW: Time = Time(1_700_000_000_000_000_000);
const MINUTE: u64 = 60_000_000_000;

fn canister(index: u64) -> CanisterId {
    CanisterId::from_index(index)
}

fn content(sender: PrincipalId, endpoint: Endpoint) -> Content<'static> {
    Content {
        endpoint,
        sender,
        nonce: None,
        ingress_expiry: NOW.0 + MINUTE,
        canister_id: canister(1),
        method_name: Cow::Borrowed("m"),
        arg: Cow::Borrowed(b"arg"),
        sender_info: None,
        paths: Vec::new(),
    }
}

/// What a delegation says besides the key.
#[derive(Clone, Default)]
struct Terms {
    targets: Option<Vec<CanisterId>>,
    permissions: Option<Permissions>,
    expiration: Option<u64>,
}

/// An envelope signed by the last of `signers`, each of whom has delegated to the next.
fn envelope(signers: &[&Signer], terms: &[Terms], endpoint: Endpoint) -> Envelope<'static> {
    let sender = PrincipalId::self_authenticating(signers[0].public_key());
    sign(content(sender, endpoint), signers, terms)
}

fn sign(content: Content<'static>, signers: &[&Signer], terms: &[Terms]) -> Envelope<'static> {
    let delegations = signers.windows(2).enumerate().map(|(index, pair)| {
        let terms = terms.get(index).cloned().unwrap_or_default();
        let delegation = Delegation {
            pubkey: pair[1].public_key().into(),
            expiration: terms.expiration.unwrap_or(NOW.0 + MINUTE),
            targets: terms.targets,
            permissions: terms.permissions,
        };
        let payload = [b"\x1Aic-request-auth-delegation".as_slice(), &delegation.hash()].concat();
        SignedDelegation {
            signature: pair[0].sign(&payload).into(),
            delegation,
        }
    });
    let payload = [b"\x0Aic-request".as_slice(), content.request_id().as_bytes()].concat();
    Envelope {
        sender_pubkey: Some(signers[0].public_key().into()),
        sender_delegation: delegations.collect(),
        sender_sig: Some(signers[signers.len() - 1].sign(&payload).into()),
        content,
    }
}

pub(super) fn verifier(cached: bool) -> Verifier {
    Verifier::new(&SignatureCacheConfig {
        enabled: cached,
        entries: 1000,
        ..SignatureCacheConfig::default()
    })
    .unwrap()
}

/// The outcome, which has to be the same without a cache, with an empty one, and with one that knows the request.
fn outcome(envelope: &Envelope<'static>) -> Result<Option<Vec<CanisterId>>, String> {
    let root_key = || bls_der(&root_secret());
    let circumstances = Circumstances {
        now: NOW,
        root_key: &root_key,
    };
    let run = |verifier: &Verifier| {
        let verified = verifier.verify(envelope.clone(), &circumstances);
        verified
            .map(|verified| verified.targets().map(<[_]>::to_vec))
            .map_err(|error| error.to_string())
    };
    let plain = run(&verifier(false));
    let cached = verifier(true);
    assert_eq!(run(&cached), plain, "with an empty cache");
    assert_eq!(run(&cached), plain, "with a filled cache");
    plain
}

fn refused(envelope: &Envelope<'static>) -> String {
    outcome(envelope).expect_err("accepted")
}

#[test]
fn every_scheme_is_verified() {
    for (name, signer) in Signer::all() {
        let envelope = envelope(&[&signer], &[], Endpoint::Call);
        assert_eq!(outcome(&envelope), Ok(None), "{name}");
    }
}

#[test]
fn every_scheme_refuses_what_was_not_signed() {
    for (name, signer) in Signer::all() {
        let good = envelope(&[&signer], &[], Endpoint::Call);
        let mut other_content = good.clone();
        other_content.content.arg = Cow::Borrowed(b"other");
        assert!(refused(&other_content).starts_with("Invalid signature: "), "{name}");
        let mut shorter = good.clone();
        let signature = good.sender_sig.as_ref().unwrap();
        shorter.sender_sig = Some(signature[..signature.len() - 1].to_vec().into());
        assert!(refused(&shorter).starts_with("Invalid signature: "), "{name}");
        let mut spoilt = signature.to_vec();
        let last = spoilt.len() - 1;
        spoilt[last] ^= 1;
        let spoilt = Envelope {
            sender_sig: Some(spoilt.into()),
            ..good.clone()
        };
        assert!(refused(&spoilt).starts_with("Invalid signature: "), "{name}");
    }
}

#[test]
fn every_scheme_can_delegate_to_every_other() {
    let signers = Signer::all();
    for (from, first) in &signers {
        for (to, second) in &signers {
            if from != to {
                assert_eq!(
                    outcome(&envelope(&[first, second], &[], Endpoint::Query)),
                    Ok(None),
                    "{from} to {to}"
                );
            }
        }
    }
}

#[test]
fn the_sender_is_that_of_the_key() {
    let (alice, bob) = (Signer::ed25519(1), Signer::ed25519(2));
    let mut envelope = envelope(&[&alice], &[], Endpoint::Call);
    envelope.sender_pubkey = Some(bob.public_key().into());
    assert!(refused(&envelope).starts_with("The user id "));
    envelope.sender_pubkey = None;
    assert!(refused(&envelope).starts_with("Missing signature from user"));
    envelope.sender_pubkey = Some(alice.public_key().into());
    envelope.sender_sig = None;
    assert!(refused(&envelope).starts_with("Missing signature from user"));
}

#[test]
fn nobody_signs_for_the_anonymous_user() {
    let content = content(PrincipalId::anonymous(), Endpoint::Call);
    let plain = Envelope {
        content,
        sender_pubkey: None,
        sender_sig: None,
        sender_delegation: Vec::new(),
    };
    assert_eq!(outcome(&plain), Ok(None));
    let signed = Envelope {
        sender_sig: Some(Cow::Borrowed(b"")),
        ..plain.clone()
    };
    assert_eq!(refused(&signed), "Signature is not allowed for the anonymous user");
    let keyed = Envelope {
        sender_pubkey: Some(Cow::Borrowed(b"")),
        ..plain.clone()
    };
    assert_eq!(refused(&keyed), "Signature is not allowed for the anonymous user");
    let delegation = envelope(&[&Signer::ed25519(1), &Signer::ed25519(2)], &[], Endpoint::Call).sender_delegation;
    assert!(
        refused(&Envelope {
            sender_delegation: delegation,
            ..plain
        })
        .contains("not allowed")
    );
}

#[test]
fn requests_live_for_a_bounded_time() {
    let signer = Signer::ed25519(1);
    let sender = PrincipalId::self_authenticating(signer.public_key());
    let with_expiry = |sender, endpoint, ingress_expiry| {
        let content = Content {
            ingress_expiry,
            ..content(sender, endpoint)
        };
        if sender == PrincipalId::anonymous() {
            Envelope {
                content,
                sender_pubkey: None,
                sender_sig: None,
                sender_delegation: Vec::new(),
            }
        } else {
            sign(content, &[&signer], &[])
        }
    };
    for endpoint in [Endpoint::Call, Endpoint::Query, Endpoint::ReadState] {
        for (expiry, good) in [
            (0, true),
            (6 * MINUTE, true),
            (6 * MINUTE + 1, false),
            (u64::MAX - NOW.0, false),
        ] {
            assert_eq!(outcome(&with_expiry(sender, endpoint, NOW.0 + expiry)).is_ok(), good);
        }
        let expired = with_expiry(sender, endpoint, NOW.0 - 1);
        assert!(
            refused(&expired).starts_with("Invalid request expiry: Specified ingress_expiry not within expected range")
        );
        let anonymous = with_expiry(PrincipalId::anonymous(), endpoint, 5);
        assert_eq!(
            outcome(&anonymous).is_ok(),
            endpoint != Endpoint::Call,
            "anonymous reads do not expire"
        );
    }
}

#[test]
fn delegations_are_followed_to_the_key_that_signed() {
    let signers: Vec<_> = (0..21).map(Signer::ed25519).collect();
    let all: Vec<_> = signers.iter().collect();
    let good = envelope(&all, &[], Endpoint::Call);
    assert_eq!(outcome(&good), Ok(None));
    let mut reordered = good.clone();
    reordered.sender_delegation.swap(3, 4);
    assert!(refused(&reordered).starts_with("Invalid delegation: "));
    let mut cut = good.clone();
    cut.sender_delegation.pop();
    assert!(refused(&cut).starts_with("Invalid signature: "));
    let mut widened = good;
    widened.sender_delegation[7].delegation.expiration += 1;
    assert!(refused(&widened).starts_with("Invalid delegation: "));
}

#[test]
fn chains_do_not_return_to_a_key() {
    let (alice, bob) = (Signer::ed25519(1), Signer::ed25519(2));
    assert!(refused(&envelope(&[&alice, &alice], &[], Endpoint::Call)).contains("cycle"));
    assert!(refused(&envelope(&[&alice, &bob, &alice], &[], Endpoint::Call)).contains("cycle"));
}

#[test]
fn delegations_expire() {
    let (alice, bob) = (Signer::ed25519(1), Signer::ed25519(2));
    let until = |expiration| {
        envelope(
            &[&alice, &bob],
            &[Terms {
                expiration: Some(expiration),
                ..Terms::default()
            }],
            Endpoint::Call,
        )
    };
    assert_eq!(outcome(&until(NOW.0)), Ok(None));
    assert!(
        refused(&until(NOW.0 - 1)).starts_with("Invalid delegation expiry: Specified sender delegation has expired")
    );
}

#[test]
fn targets_narrow_along_the_chain() {
    let (alice, bob, carol) = (Signer::ed25519(1), Signer::ed25519(2), Signer::ed25519(3));
    let targets = |list: &[u64]| Terms {
        targets: Some(list.iter().map(|&n| canister(n)).collect()),
        ..Terms::default()
    };
    let run = |first, second, endpoint| outcome(&envelope(&[&alice, &bob, &carol], &[first, second], endpoint));
    assert_eq!(
        run(targets(&[2, 1]), Terms::default(), Endpoint::Call),
        Ok(Some(vec![canister(1), canister(2)]))
    );
    assert_eq!(
        run(targets(&[1, 2, 3]), targets(&[3, 1]), Endpoint::Query),
        Ok(Some(vec![canister(1), canister(3)]))
    );
    let error = run(targets(&[1, 2]), targets(&[2, 3]), Endpoint::Call).unwrap_err();
    assert!(error.ends_with("is not one of the delegation targets"));
    assert_eq!(
        run(targets(&[]), Terms::default(), Endpoint::ReadState),
        Ok(Some(vec![])),
        "decided with the state"
    );
}

#[test]
fn a_key_for_queries_makes_no_calls() {
    let (alice, bob) = (Signer::ed25519(1), Signer::ed25519(2));
    let run = |permissions, endpoint| {
        outcome(&envelope(
            &[&alice, &bob],
            &[Terms {
                permissions: Some(permissions),
                ..Terms::default()
            }],
            endpoint,
        ))
    };
    assert!(
        run(Permissions::Queries, Endpoint::Call)
            .unwrap_err()
            .contains("not permitted")
    );
    assert_eq!(run(Permissions::Queries, Endpoint::Query), Ok(None));
    assert_eq!(run(Permissions::Queries, Endpoint::ReadState), Ok(None));
    assert_eq!(run(Permissions::All, Endpoint::Call), Ok(None));
}

#[test]
fn attributes_are_vouched_for_by_the_canister_of_the_key() {
    let canister_signer = |id| {
        Signer::Canister(Canister {
            id,
            seed: b"s".to_vec(),
            subnet: None,
        })
    };
    let issuer = canister_signer(canister(7));
    let session = Signer::ed25519(5);
    let with_info = |signer: CanisterId, info: &'static [u8], signed: &[u8]| {
        let sig = issuer.sign(&[b"\x0Eic-sender-info", signed].concat());
        let info = SenderInfo {
            info: Cow::Borrowed(info),
            signer: signer.principal(),
            sig: sig.into(),
        };
        let sender = PrincipalId::self_authenticating(issuer.public_key());
        let content = Content {
            sender_info: Some(info),
            ..content(sender, Endpoint::Call)
        };
        outcome(&sign(content, &[&issuer, &session], &[]))
    };
    assert_eq!(with_info(canister(7), b"name", b"name"), Ok(None));
    assert!(
        with_info(canister(7), b"name", b"other")
            .unwrap_err()
            .starts_with("Invalid sender info: ")
    );
    assert!(
        with_info(canister(6), b"name", b"name")
            .unwrap_err()
            .contains("is not the canister")
    );
    let info = SenderInfo {
        info: Cow::Borrowed(b""),
        signer: canister(7).principal(),
        sig: Cow::Borrowed(b""),
    };
    let plain = Signer::ed25519(1);
    let sender = PrincipalId::self_authenticating(plain.public_key());
    let content = Content {
        sender_info: Some(info),
        ..content(sender, Endpoint::Call)
    };
    assert!(refused(&sign(content, &[&plain], &[])).contains("not that of a canister"));
}

#[test]
fn canister_signatures_count_only_from_where_the_canister_lives() {
    let sign_as = |id, subnet| {
        let signer = Signer::Canister(Canister {
            id,
            seed: vec![1],
            subnet,
        });
        outcome(&envelope(&[&signer], &[], Endpoint::Call))
    };
    assert_eq!(sign_as(canister(9), Some("system")), Ok(None));
    assert!(
        sign_as(canister(10), Some("system"))
            .unwrap_err()
            .contains("not in the ranges")
    );
    assert!(
        sign_as(canister(9), Some("cloud_engine"))
            .unwrap_err()
            .contains("cloud engine")
    );
}

#[test]
fn keys_that_do_not_parse_are_named() {
    let mut garbage = envelope(&[&Signer::ed25519(1)], &[], Endpoint::Call);
    garbage.sender_pubkey = Some(Cow::Borrowed(b"garbage"));
    garbage.content.sender = PrincipalId::self_authenticating(b"garbage");
    assert!(refused(&garbage).starts_with("Invalid signature: Invalid public key: "));
}

/// ZIP 215: keys and commitments of small order, and encodings that are not canonical, count as what they denote.
#[test]
fn ed25519_edge_cases_are_accepted_by_one_rule() {
    let identity = {
        let mut bytes = [0; 32];
        bytes[0] = 1;
        bytes
    };
    let zero = [identity, [0; 32]].concat();
    assert_eq!(schemes::ed25519(&identity, b"any", &zero), Ok(()));
    // y = 2^255 - 18 is 1 again.
    let mut not_canonical = [0xff; 32];
    not_canonical[0] = 0xee;
    not_canonical[31] = 0x7f;
    assert_eq!(schemes::ed25519(&not_canonical, b"any", &zero), Ok(()));
    // s must be below the group order.
    let order = hex::decode("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010").unwrap();
    assert!(schemes::ed25519(&identity, b"any", &[identity.to_vec(), order].concat()).is_err());
}

#[test]
fn the_cache_saves_the_work_and_a_failure_is_not_remembered() {
    let (alice, bob) = (Signer::ed25519(1), Signer::ed25519(2));
    let verifier = verifier(true);
    let root_key = || bls_der(&root_secret());
    let circumstances = Circumstances {
        now: NOW,
        root_key: &root_key,
    };
    let good = envelope(&[&alice, &bob], &[], Endpoint::Call);
    assert!(verifier.verify(good.clone(), &circumstances).is_ok());
    assert!(verifier.verify(good.clone(), &circumstances).is_ok());
    let stats = verifier.cache_stats().unwrap();
    assert_eq!((stats.hits, stats.misses), (2, 2));
    let bad = Envelope {
        sender_sig: Some(vec![0; 64].into()),
        ..good
    };
    assert!(verifier.verify(bad.clone(), &circumstances).is_err());
    assert!(verifier.verify(bad, &circumstances).is_err());
    let stats = verifier.cache_stats().unwrap();
    assert_eq!(
        (stats.hits, stats.misses),
        (4, 4),
        "delegation hit, signature missed, twice"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done to a signed envelope, cached or not, the outcome is the same, and it is refused unless it is
    /// the one that was signed.
    #[test]
    fn tampered_envelopes_are_refused_cached_or_not(field in 0usize..6, at in any::<usize>(), bit in 0u8..8) {
        let (alice, bob) = (Signer::ed25519(1), Signer::ed25519(2));
        let good = envelope(&[&alice, &bob], &[Terms { targets: Some(vec![canister(1)]), ..Terms::default() }], Endpoint::Call);
        let mut envelope = good.clone();
        let flip = |bytes: &mut Cow<'static, [u8]>| {
            let bytes = bytes.to_mut();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
        };
        match field {
            0 => flip(&mut envelope.content.arg),
            1 => envelope.sender_sig.iter_mut().for_each(flip),
            2 => envelope.sender_pubkey.iter_mut().for_each(flip),
            3 => flip(&mut envelope.sender_delegation[0].signature),
            4 => flip(&mut envelope.sender_delegation[0].delegation.pubkey),
            _ => envelope.content.ingress_expiry ^= 1 << bit,
        }
        prop_assert!(outcome(&envelope).is_err());
        prop_assert!(outcome(&good).is_ok());
    }
}
