//! Clients' side of the schemes: keys and signatures as agents, authenticators and canisters make them.

use super::canister;
use ed25519_zebra::SigningKey;
use minicbor::Encoder;
use minicbor::data::Tag;
use replicore_types::CanisterId;
use ring::rand::SystemRandom;
use ring::signature::{EcdsaKeyPair, KeyPair, RsaKeyPair};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Someone who signs, in any of the schemes.
pub(super) enum Signer {
    Ed25519(SigningKey),
    P256(EcdsaKeyPair),
    /// With the higher of the two possible values of `s`.
    Secp256k1 {
        key: secp256k1::SecretKey,
        high_s: bool,
    },
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
    EdDsa(SigningKey),
    Canister(Canister),
}

fn p256_pair(algorithm: &'static ring::signature::EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap()
}

impl Signer {
    pub(super) fn ed25519(seed: u8) -> Self {
        Self::Ed25519(SigningKey::from([seed; 32]))
    }

    /// One of each scheme.
    pub(super) fn all() -> Vec<(&'static str, Self)> {
        let secret = |seed| secp256k1::SecretKey::from_secret_bytes([seed; 32]).unwrap();
        vec![
            ("ed25519", Self::ed25519(1)),
            (
                "p256",
                Self::P256(p256_pair(&ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING)),
            ),
            (
                "secp256k1",
                Self::Secp256k1 {
                    key: secret(2),
                    high_s: false,
                },
            ),
            (
                "secp256k1 high s",
                Self::Secp256k1 {
                    key: secret(3),
                    high_s: true,
                },
            ),
            (
                "webauthn es256",
                Self::Es256(p256_pair(&ring::signature::ECDSA_P256_SHA256_ASN1_SIGNING)),
            ),
            (
                "webauthn rs256",
                Self::Rs256(RsaKeyPair::from_pkcs8(include_bytes!("rsa.pk8")).unwrap()),
            ),
            ("webauthn eddsa", Self::EdDsa(SigningKey::from([4; 32]))),
            (
                "canister",
                Self::Canister(Canister {
                    id: canister(7),
                    seed: b"seed".to_vec(),
                    subnet: None,
                }),
            ),
            (
                "canister of a subnet",
                Self::Canister(Canister {
                    id: canister(8),
                    seed: vec![],
                    subnet: Some("application"),
                }),
            ),
        ]
    }

    pub(super) fn public_key(&self) -> Vec<u8> {
        let spki = |algorithm: &[&[u8]], key: &[u8]| {
            let identifiers: Vec<u8> = algorithm.iter().flat_map(|oid| der(0x06, oid)).collect();
            der(
                0x30,
                &[der(0x30, &identifiers), der(0x03, &[&[0], key].concat())].concat(),
            )
        };
        let ec = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
        let dfinity = |last| [0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xb8, 0x43, 0x01, last];
        let mut cose = Encoder::new(Vec::new());
        match self {
            Self::Ed25519(key) => return spki(&[&[0x2b, 0x65, 0x70]], key.verification_key().as_ref()),
            Self::P256(pair) => {
                return spki(
                    &[&ec, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]],
                    pair.public_key().as_ref(),
                );
            }
            Self::Secp256k1 { key, .. } => {
                let point = secp256k1::PublicKey::from_secret_key(key).serialize_uncompressed();
                return spki(&[&ec, &[0x2b, 0x81, 0x04, 0x00, 0x0a]], &point);
            }
            Self::Canister(Canister { id, seed, .. }) => {
                return spki(
                    &[&dfinity(2)],
                    &[&[id.as_slice().len() as u8], id.as_slice(), seed].concat(),
                );
            }
            Self::Es256(pair) => {
                let point = pair.public_key().as_ref();
                cose.map(5)
                    .unwrap()
                    .i8(1)
                    .unwrap()
                    .i8(2)
                    .unwrap()
                    .i8(3)
                    .unwrap()
                    .i8(-7)
                    .unwrap();
                cose.i8(-1).unwrap().i8(1).unwrap();
                cose.i8(-2)
                    .unwrap()
                    .bytes(&point[1..33])
                    .unwrap()
                    .i8(-3)
                    .unwrap()
                    .bytes(&point[33..])
                    .unwrap();
            }
            Self::Rs256(pair) => {
                let ring::signature::RsaPublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
                cose.map(4)
                    .unwrap()
                    .i8(1)
                    .unwrap()
                    .i8(3)
                    .unwrap()
                    .i8(3)
                    .unwrap()
                    .i16(-257)
                    .unwrap();
                cose.i8(-1)
                    .unwrap()
                    .bytes(&n)
                    .unwrap()
                    .i8(-2)
                    .unwrap()
                    .bytes(&e)
                    .unwrap();
            }
            Self::EdDsa(key) => {
                cose.map(4)
                    .unwrap()
                    .i8(1)
                    .unwrap()
                    .i8(1)
                    .unwrap()
                    .i8(3)
                    .unwrap()
                    .i8(-8)
                    .unwrap();
                cose.i8(-1)
                    .unwrap()
                    .i8(6)
                    .unwrap()
                    .i8(-2)
                    .unwrap()
                    .bytes(key.verification_key().as_ref())
                    .unwrap();
            }
        }
        spki(&[&dfinity(1)], &cose.into_writer())
    }

    pub(super) fn sign(&self, payload: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ed25519(key) => key.sign(payload).to_bytes().to_vec(),
            Self::P256(pair) => pair.sign(&random, payload).unwrap().as_ref().to_vec(),
            Self::Secp256k1 { key, high_s } => {
                let message = secp256k1::Message::from_digest(Sha256::digest(payload).into());
                let mut signature = secp256k1::ecdsa::sign(message, key).serialize_compact();
                if *high_s {
                    negate_s(&mut signature);
                }
                signature.to_vec()
            }
            Self::Es256(pair) => assertion(payload, |signed| pair.sign(&random, signed).unwrap().as_ref().to_vec()),
            Self::EdDsa(key) => assertion(payload, |signed| key.sign(signed).to_bytes().to_vec()),
            Self::Rs256(pair) => assertion(payload, |signed| {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&ring::signature::RSA_PKCS1_SHA256, &random, signed, &mut signature)
                    .unwrap();
                signature
            }),
            Self::Canister(canister) => canister.sign(payload),
        }
    }
}

/// A DER element of up to 65,535 bytes.
fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let header = match length {
        0..0x80 => vec![tag, length as u8],
        0x80..0x100 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [header, contents.to_vec()].concat()
}

/// Replaces `s` by the group order minus `s`, which verifies as well.
fn negate_s(signature: &mut [u8; 64]) {
    let order = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
    let mut borrow = 0;
    for index in (0..32).rev() {
        let difference = i16::from(order[index]) - i16::from(signature[32 + index]) - borrow;
        borrow = i16::from(difference < 0);
        signature[32 + index] = difference.rem_euclid(256) as u8;
    }
}

/// What an authenticator makes of a challenge.
fn assertion(payload: &[u8], sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let challenge: String = base64url(payload);
    let client_data = format!(r#"{{"type":"webauthn.get","challenge":"{challenge}","origin":"https://example.org"}}"#);
    let authenticator_data = [5; 37];
    let signed = [authenticator_data.as_slice(), &Sha256::digest(&client_data)].concat();
    let mut writer = Encoder::new(Vec::new());
    writer.tag(Tag::new(55799)).unwrap().map(3).unwrap();
    writer
        .str("authenticator_data")
        .unwrap()
        .bytes(&authenticator_data)
        .unwrap();
    writer.str("client_data_json").unwrap();
    // The specification says text, browsers' clients send bytes: payloads that end evenly stand for the former.
    if payload[payload.len() - 1].is_multiple_of(2) {
        writer.str(&client_data).unwrap();
    } else {
        writer.bytes(client_data.as_bytes()).unwrap();
    }
    writer.str("signature").unwrap().bytes(&sign(&signed)).unwrap();
    writer.into_writer()
}

fn base64url(bytes: &[u8]) -> String {
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let digit = |group: &[u8]| {
        let index = u8::from_str_radix(&format!("{:0<6}", std::str::from_utf8(group).unwrap()), 2).unwrap();
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[usize::from(index)] as char
    };
    bits.as_bytes().chunks(6).map(digit).collect()
}

/// A canister that signs, on the root subnet or on one that it vouches for.
pub(super) struct Canister {
    pub(super) id: CanisterId,
    pub(super) seed: Vec<u8>,
    pub(super) subnet: Option<&'static str>,
}

pub(super) fn root_secret() -> blst::min_sig::SecretKey {
    blst::min_sig::SecretKey::key_gen(&[1; 32], &[]).unwrap()
}

fn subnet_secret() -> blst::min_sig::SecretKey {
    blst::min_sig::SecretKey::key_gen(&[2; 32], &[]).unwrap()
}

pub(super) fn bls_der(secret: &blst::min_sig::SecretKey) -> Arc<[u8]> {
    let prefix = hex::decode("308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100").unwrap();
    [prefix, secret.sk_to_pk().compress().to_vec()].concat().into()
}

/// The encoding of a tree of nested labels down to one value, and its root hash.
fn chain(labels: &[&[u8]], value: &[u8]) -> (Vec<u8>, [u8; 32]) {
    let hash = |domain: &str, parts: &[&[u8]]| -> [u8; 32] {
        let domain = [&[domain.len() as u8], domain.as_bytes()].concat();
        Sha256::digest([domain, parts.concat()].concat()).into()
    };
    let mut writer = Encoder::new(Vec::new());
    for label in labels {
        writer.array(3).unwrap().u8(2).unwrap().bytes(label).unwrap();
    }
    writer.array(2).unwrap().u8(3).unwrap().bytes(value).unwrap();
    let leaf = hash("ic-hashtree-leaf", &[value]);
    let digest = labels
        .iter()
        .rev()
        .fold(leaf, |digest, label| hash("ic-hashtree-labeled", &[label, &digest]));
    (writer.into_writer(), digest)
}

fn fork(left: (Vec<u8>, [u8; 32]), right: (Vec<u8>, [u8; 32])) -> (Vec<u8>, [u8; 32]) {
    let digest = Sha256::digest([b"\x10ic-hashtree-fork".as_slice(), &left.1, &right.1].concat()).into();
    ([vec![0x83, 1], left.0, right.0].concat(), digest)
}

fn certificate(tree: (Vec<u8>, [u8; 32]), secret: &blst::min_sig::SecretKey, delegation: Option<Vec<u8>>) -> Vec<u8> {
    let message = [b"\x0Dic-state-root".as_slice(), &tree.1].concat();
    let signature = secret.sign(&message, b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_", &[]);
    let mut writer = Encoder::new(Vec::new());
    writer
        .tag(Tag::new(55799))
        .unwrap()
        .map(2 + u64::from(delegation.is_some()))
        .unwrap();
    writer.str("signature").unwrap().bytes(&signature.compress()).unwrap();
    if let Some(delegation) = delegation {
        writer.str("delegation").unwrap().map(2).unwrap();
        writer.str("subnet_id").unwrap().bytes(b"subnet").unwrap();
        writer.str("certificate").unwrap().bytes(&delegation).unwrap();
    }
    writer.str("tree").unwrap();
    [writer.into_writer(), tree.0].concat()
}

impl Canister {
    pub(super) fn sign(&self, payload: &[u8]) -> Vec<u8> {
        let (tree, digest) = chain(&[b"sig", &Sha256::digest(&self.seed), &Sha256::digest(payload)], b"");
        let data = chain(&[b"canister", self.id.as_slice(), b"certified_data"], &digest);
        let certificate = match self.subnet {
            None => certificate(data, &root_secret(), None),
            Some(kind) => {
                let mut ranges = Encoder::new(Vec::new());
                ranges.array(1).unwrap().array(2).unwrap();
                ranges
                    .bytes(canister(8).as_slice())
                    .unwrap()
                    .bytes(canister(9).as_slice())
                    .unwrap();
                let ranges = chain(
                    &[b"canister_ranges", b"subnet", canister(8).as_slice()],
                    &ranges.into_writer(),
                );
                let key = chain(&[b"public_key"], &bls_der(&subnet_secret()));
                let (inner, inner_digest) = fork(key, chain(&[b"type"], kind.as_bytes()));
                let subnet = wrap(b"subnet", wrap(b"subnet", (inner, inner_digest)));
                let delegation = certificate(fork(ranges, subnet), &root_secret(), None);
                certificate(data, &subnet_secret(), Some(delegation))
            }
        };
        let mut writer = Encoder::new(Vec::new());
        writer.tag(Tag::new(55799)).unwrap().map(2).unwrap();
        writer
            .str("certificate")
            .unwrap()
            .bytes(&certificate)
            .unwrap()
            .str("tree")
            .unwrap();
        [writer.into_writer(), tree].concat()
    }
}

fn wrap(label: &[u8], tree: (Vec<u8>, [u8; 32])) -> (Vec<u8>, [u8; 32]) {
    let mut writer = Encoder::new(Vec::new());
    writer.array(3).unwrap().u8(2).unwrap().bytes(label).unwrap();
    let digest = Sha256::digest([b"\x13ic-hashtree-labeled".as_slice(), label, &tree.1].concat()).into();
    ([writer.into_writer(), tree.0].concat(), digest)
}
