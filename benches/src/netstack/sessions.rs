//! Clients whose requests are signed before the clock starts: with their own key, by a session key that it has
//! delegated to, or by one that a canister has delegated to.

use super::deploy::Deployed;
use crate::BenchError;
use minicbor::Encoder;
use minicbor::data::Tag;
use replicore_netstack::envelope::{Content, Delegation, Endpoint};
use replicore_types::{CanisterId, PrincipalId};
use replicore_workloads::Identity;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

/// DER of a canister signature key up to the length of its contents: OID 1.3.6.1.4.1.56387.1.2.
const CANISTER_ALGORITHM: [u8; 14] = [
    0x30, 0x0c, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xb8, 0x43, 0x01, 0x02,
];
const MINUTE: u64 = 60_000_000_000;

/// One who sends requests: who they are from, what vouches for the signing key, and that key.
pub(super) struct Session {
    sender: PrincipalId,
    sender_key: Vec<u8>,
    delegation: Option<(Delegation<'static>, Vec<u8>)>,
    signer: Identity,
}

/// Nanoseconds since 1970.
pub(super) fn now_nanos() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

impl Session {
    /// A user who signs with their own key.
    pub(super) fn own(number: u64) -> Self {
        let signer = Identity::numbered(number);
        Self {
            sender: PrincipalId::self_authenticating(signer.public_key_der()),
            sender_key: signer.public_key_der().to_vec(),
            delegation: None,
            signer,
        }
    }

    /// A user whose key has delegated to a session key.
    pub(super) fn delegated(number: u64) -> Self {
        let user = Identity::numbered(number);
        let (delegation, signer) = delegation(number);
        let signature = user.sign(&signed_delegation(&delegation)).to_vec();
        Self {
            sender: PrincipalId::self_authenticating(user.public_key_der()),
            sender_key: user.public_key_der().to_vec(),
            delegation: Some((delegation, signature)),
            signer,
        }
    }

    /// Users of a canister that has delegated to a session key of each, as Internet Identity does.
    pub(super) fn of_canister(deployed: &mut Deployed, count: u64) -> Result<Vec<Self>, BenchError> {
        let users: Vec<_> = (0..count).map(|number| User::new(deployed.canister, number)).collect();
        let mut leaves: Vec<_> = users.iter().map(User::leaf).collect();
        leaves.sort_by_key(|(label, _)| *label);
        let tree = Tree::of(&leaves);
        let certificate = deployed.certify(&tree.labeled(b"sig").digest)?;
        Ok(users
            .into_iter()
            .map(|user| {
                let (label, _) = user.leaf();
                let witness = Tree::witness(&leaves, &label).labeled(b"sig");
                user.session(&certificate, &witness)
            })
            .collect())
    }

    /// A whole HTTP request: a call of `noop`.
    pub(super) fn call(&self, canister: CanisterId, nonce: u64) -> Vec<u8> {
        let body = self.body(canister, nonce);
        let head = format!(
            "POST /api/v3/canister/{canister}/call HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/cbor\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), &body].concat()
    }

    /// The signed envelope of a call of `noop`.
    pub(super) fn body(&self, canister: CanisterId, nonce: u64) -> Vec<u8> {
        let content = Content {
            endpoint: Endpoint::Call,
            sender: self.sender,
            nonce: Some(Cow::Owned(nonce.to_le_bytes().to_vec())),
            ingress_expiry: now_nanos() + 4 * MINUTE,
            canister_id: canister,
            method_name: Cow::Borrowed("noop"),
            arg: Cow::Borrowed(b""),
            sender_info: None,
            paths: Vec::new(),
        };
        let payload = [b"\x0Aic-request".as_slice(), content.request_id().as_bytes()].concat();
        self.envelope(&content, &self.signer.sign(&payload))
    }

    fn envelope(&self, content: &Content<'_>, signature: &[u8]) -> Vec<u8> {
        encode(|writer| {
            writer
                .tag(Tag::new(55_799))?
                .map(3 + u64::from(self.delegation.is_some()))?;
            writer.str("content")?.map(7)?;
            writer.str("request_type")?.str("call")?;
            writer.str("sender")?.bytes(content.sender.as_slice())?;
            writer
                .str("nonce")?
                .bytes(content.nonce.as_deref().unwrap_or_default())?;
            writer.str("ingress_expiry")?.u64(content.ingress_expiry)?;
            writer.str("canister_id")?.bytes(content.canister_id.as_slice())?;
            writer.str("method_name")?.str(&content.method_name)?;
            writer.str("arg")?.bytes(&content.arg)?;
            writer.str("sender_pubkey")?.bytes(&self.sender_key)?;
            writer.str("sender_sig")?.bytes(signature)?;
            if let Some((delegation, signature)) = &self.delegation {
                writer.str("sender_delegation")?.array(1)?.map(2)?;
                writer.str("delegation")?.map(2)?;
                writer.str("pubkey")?.bytes(&delegation.pubkey)?;
                writer.str("expiration")?.u64(delegation.expiration)?;
                writer.str("signature")?.bytes(signature)?;
            }
            Ok(())
        })
    }
}

/// A delegation to the session key with this number, and that key.
fn delegation(number: u64) -> (Delegation<'static>, Identity) {
    let signer = Identity::numbered(1_000_000 + number);
    let delegation = Delegation {
        pubkey: Cow::Owned(signer.public_key_der().to_vec()),
        expiration: now_nanos() + 60 * MINUTE,
        targets: None,
        permissions: None,
    };
    (delegation, signer)
}

fn signed_delegation(delegation: &Delegation<'_>) -> Vec<u8> {
    [b"\x1Aic-request-auth-delegation".as_slice(), &delegation.hash()].concat()
}

/// A user whose key is a seed at a canister.
struct User {
    canister: CanisterId,
    seed: Vec<u8>,
    delegation: Delegation<'static>,
    signer: Identity,
}

impl User {
    fn new(canister: CanisterId, number: u64) -> Self {
        let (delegation, signer) = delegation(2_000_000 + number);
        Self {
            canister,
            seed: number.to_be_bytes().to_vec(),
            delegation,
            signer,
        }
    }

    /// Where the canister's tree says that it has signed the delegation: label of the seed, and of the payload.
    fn leaf(&self) -> ([u8; 32], [u8; 32]) {
        (sha256(&self.seed), sha256(&signed_delegation(&self.delegation)))
    }

    fn session(self, certificate: &[u8], witness: &Tree) -> Session {
        let signature = encode(|writer| {
            writer.tag(Tag::new(55_799))?.map(2)?;
            writer.str("certificate")?.bytes(certificate)?.str("tree")?;
            writer.writer_mut().extend_from_slice(&witness.encoded);
            Ok(())
        });
        let canister = self.canister.as_slice();
        let bits = [&[0, canister.len() as u8], canister, &self.seed].concat();
        let contents = [&CANISTER_ALGORITHM[..], &[0x03, bits.len() as u8], &bits].concat();
        let sender_key = [&[0x30, contents.len() as u8], &contents[..]].concat();
        Session {
            sender: PrincipalId::self_authenticating(&sender_key),
            sender_key,
            delegation: Some((self.delegation, signature)),
            signer: self.signer,
        }
    }
}

/// A hash tree of the interface specification, encoded, with its root hash.
struct Tree {
    encoded: Vec<u8>,
    digest: [u8; 32],
}

impl Tree {
    /// The tree over all of `leaves`, whose labels ascend.
    fn of(leaves: &[([u8; 32], [u8; 32])]) -> Self {
        match leaves {
            [] => Self {
                encoded: vec![0x81, 0],
                digest: domain_hash("ic-hashtree-empty", &[]),
            },
            [(seed, payload)] => Self::leaf().labeled(payload).labeled(seed),
            _ => {
                let (left, right) = leaves.split_at(leaves.len() / 2);
                Self::of(left).fork(Self::of(right))
            }
        }
    }

    /// The same tree with all that does not lead to `label` replaced by its hash.
    fn witness(leaves: &[([u8; 32], [u8; 32])], label: &[u8; 32]) -> Self {
        if !leaves.iter().any(|(seed, _)| seed == label) {
            return Self::of(leaves).pruned();
        }
        match leaves {
            [] | [_] => Self::of(leaves),
            _ => {
                let (left, right) = leaves.split_at(leaves.len() / 2);
                Self::witness(left, label).fork(Self::witness(right, label))
            }
        }
    }

    fn leaf() -> Self {
        Self {
            encoded: vec![0x82, 3, 0x40],
            digest: domain_hash("ic-hashtree-leaf", &[]),
        }
    }

    fn labeled(&self, label: &[u8]) -> Self {
        let head = encode(|writer| writer.array(3)?.u8(2)?.bytes(label).map(drop));
        Self {
            encoded: [head, self.encoded.clone()].concat(),
            digest: domain_hash("ic-hashtree-labeled", &[label, &self.digest]),
        }
    }

    fn fork(self, right: Self) -> Self {
        Self {
            encoded: [vec![0x83, 1], self.encoded, right.encoded].concat(),
            digest: domain_hash("ic-hashtree-fork", &[&self.digest, &right.digest]),
        }
    }

    fn pruned(self) -> Self {
        Self {
            encoded: encode(|writer| writer.array(2)?.u8(4)?.bytes(&self.digest).map(drop)),
            digest: self.digest,
        }
    }
}

fn domain_hash(domain: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update([domain.len() as u8]);
    hasher.update(domain);
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

type Encoded = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

/// CBOR in memory.
fn encode(write: impl FnOnce(&mut Encoder<Vec<u8>>) -> Encoded) -> Vec<u8> {
    let mut writer = Encoder::new(Vec::new());
    let written = write(&mut writer);
    debug_assert!(written.is_ok(), "writing to memory does not fail");
    writer.into_writer()
}
