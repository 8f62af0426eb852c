//! Logs users in: signs for their session keys with canister signatures, as Internet Identity does. Interface: `issuer.did`.

use candid::Principal;
use ic_certified_map::{AsHashTree, HashTree, RbTree, labeled, labeled_hash};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::VecDeque;

const LABEL: &[u8] = b"sig";
/// Signatures that can be fetched; the oldest goes first.
const SIGNATURES_MAX: usize = 10_000;
/// The algorithm of canister signatures in DER (1.3.6.1.4.1.56387.1.2).
const OBJECT: [u8; 14] = [0x30, 0x0c, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xb8, 0x43, 0x01, 0x02];

type Hash = [u8; 32];

#[derive(Default)]
struct Issuer {
    /// By the hash of the seed, then by that of what is signed.
    signatures: RbTree<Hash, RbTree<Hash, Empty>>,
    order: VecDeque<(Hash, Hash)>,
    /// Mixed into seeds, so that one site's user is another one's stranger.
    salt: Vec<u8>,
}

/// What the tree holds below what is signed: a leaf without bytes.
#[derive(Default)]
struct Empty;

impl AsHashTree for Empty {
    fn root_hash(&self) -> Hash {
        self.as_hash_tree().reconstruct()
    }

    fn as_hash_tree(&self) -> HashTree<'_> {
        HashTree::Leaf(std::borrow::Cow::Borrowed(b""))
    }
}

thread_local! {
    static ISSUER: RefCell<Issuer> = RefCell::default();
}

#[ic_cdk::init]
fn init(salt: ByteBuf) {
    ISSUER.with_borrow_mut(|issuer| issuer.salt = salt.into_vec());
}

fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

fn seed(caller: Principal) -> Hash {
    ISSUER.with_borrow(|issuer| hash(&[&[issuer.salt.len() as u8], &issuer.salt[..], caller.as_slice()].concat()))
}

/// What is signed: the hash of the delegation's fields, after its domain.
fn signed(session_key: &[u8], expiration: u64) -> Hash {
    let mut leb = Vec::new();
    let mut rest = expiration;
    while rest >= 0x80 {
        leb.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    leb.push(rest as u8);
    let mut fields = [
        [hash(b"pubkey"), hash(session_key)].concat(),
        [hash(b"expiration"), hash(&leb)].concat(),
    ];
    fields.sort_unstable();
    hash(&[b"\x1Aic-request-auth-delegation", &hash(&fields.concat())[..]].concat())
}

/// Signs a delegation from the caller's name here to a session key, and answers the public key of that name.
#[ic_cdk::update]
fn prepare_delegation(session_key: ByteBuf, expiration: u64) -> ByteBuf {
    let seed = seed(ic_cdk::api::msg_caller());
    let key = (hash(&seed), signed(&session_key, expiration));
    ISSUER.with_borrow_mut(|issuer| {
        if issuer.signatures.get(&key.0).is_none() {
            issuer.signatures.insert(key.0, RbTree::new());
        }
        issuer.signatures.modify(&key.0, |by_message| by_message.insert(key.1, Empty));
        issuer.order.push_back(key);
        if issuer.order.len() > SIGNATURES_MAX && let Some((seed, message)) = issuer.order.pop_front() {
            issuer.signatures.modify(&seed, |by_message| by_message.delete(&message));
        }
        ic_cdk::api::certified_data_set(labeled_hash(LABEL, &issuer.signatures.root_hash()));
    });
    ByteBuf::from(public_key(&seed))
}

/// SubjectPublicKeyInfo: the algorithm, then a bit string of the canister's id after its length and the seed.
fn public_key(seed: &Hash) -> Vec<u8> {
    let canister = ic_cdk::api::canister_self();
    let raw = [&[canister.as_slice().len() as u8], canister.as_slice(), &seed[..]].concat();
    let bits = [&[0x03, raw.len() as u8 + 1, 0x00], &raw[..]].concat();
    [&[0x30, (OBJECT.len() + bits.len()) as u8], &OBJECT[..], &bits[..]].concat()
}

/// The signature on the delegation, once it is certified.
#[ic_cdk::query]
fn get_delegation(session_key: ByteBuf, expiration: u64) -> Option<ByteBuf> {
    let certificate = ic_cdk::api::data_certificate()?;
    let (seed, message) = (hash(&seed(ic_cdk::api::msg_caller())), signed(&session_key, expiration));
    ISSUER.with_borrow(|issuer| {
        issuer.signatures.get(&seed)?.get(&message)?;
        let witness = issuer.signatures.nested_witness(&seed, |by_message| by_message.witness(&message));
        let tree = labeled(LABEL, witness);
        let mut signature = vec![0xd9, 0xd9, 0xf7, 0xa2];
        write_head(3, b"certificate".len(), &mut signature);
        signature.extend(b"certificate");
        write_bytes(&certificate, &mut signature);
        write_head(3, b"tree".len(), &mut signature);
        signature.extend(b"tree");
        write_tree(&tree, &mut signature);
        Some(ByteBuf::from(signature))
    })
}

/// CBOR of a hash tree, as certificates carry it: arrays of a number and its parts.
fn write_tree(tree: &HashTree<'_>, out: &mut Vec<u8>) {
    match tree {
        HashTree::Empty => out.extend([0x81, 0]),
        HashTree::Fork(both) => {
            out.extend([0x83, 1]);
            write_tree(&both.0, out);
            write_tree(&both.1, out);
        }
        HashTree::Labeled(label, tree) => {
            out.extend([0x83, 2]);
            write_bytes(label, out);
            write_tree(tree, out);
        }
        HashTree::Leaf(bytes) => {
            out.extend([0x82, 3]);
            write_bytes(bytes, out);
        }
        HashTree::Pruned(hash) => {
            out.extend([0x82, 4]);
            write_bytes(hash, out);
        }
    }
}

fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_head(2, bytes.len(), out);
    out.extend(bytes);
}

/// The head of a CBOR item: its major type and a number, here always of four bytes.
fn write_head(major: u8, number: usize, out: &mut Vec<u8>) {
    let number = u32::try_from(number).expect("certificates are small");
    out.push(major << 5 | 26);
    out.extend(number.to_be_bytes());
}
