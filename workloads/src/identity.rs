//! Who signs.

use crate::request::{hash, hash_of_map, leb128};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use candid::Principal;
use std::sync::Arc;

/// DER prefix of an Ed25519 public key (RFC 8410).
const ED25519_DER_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A user: anonymous, with an Ed25519 key, or with a session key to which such a key or a canister has delegated.
#[derive(Clone)]
pub struct Identity {
    /// What signs; the anonymous user has nothing.
    key: Option<Arc<Ed25519KeyPair>>,
    public_key_der: Vec<u8>,
    principal: Principal,
    delegation: Option<Delegation>,
}

/// "This session key may sign for me", as envelopes carry it.
#[derive(Clone)]
pub struct Delegation {
    /// The session key.
    pub public_key_der: Vec<u8>,
    /// Nanoseconds since 1970 after which it is void.
    pub expiration: u64,
    /// By the user's own key, or by who vouches for the user.
    pub signature: Vec<u8>,
}

impl Identity {
    /// The identity of a 32-byte secret: the same secret is the same user.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&secret).expect("a seed of 32 bytes is a key");
        let public_key_der = [&ED25519_DER_PREFIX[..], key.public_key().as_ref()].concat();
        let principal = Principal::self_authenticating(&public_key_der);
        Self {
            key: Some(Arc::new(key)),
            public_key_der,
            principal,
            delegation: None,
        }
    }

    /// The anonymous user, who signs nothing.
    pub fn anonymous() -> Self {
        Self {
            key: None,
            public_key_der: Vec::new(),
            principal: Principal::anonymous(),
            delegation: None,
        }
    }

    /// The same user signing with a session key made from `secret`, as a browser does after a login.
    #[must_use]
    pub fn with_session(&self, secret: [u8; 32], expiration: u64) -> Self {
        let session = Self::from_secret(secret);
        let signature = self.sign(&delegation_bytes(&session.public_key_der, expiration));
        session.for_user(self.public_key_der.clone(), expiration, signature.to_vec())
    }

    /// The user with this public key, for whom this one's key signs: who vouches for that has signed the delegation.
    #[must_use]
    pub fn for_user(self, public_key_der: Vec<u8>, expiration: u64, signature: Vec<u8>) -> Self {
        Self {
            key: self.key,
            principal: Principal::self_authenticating(&public_key_der),
            public_key_der,
            delegation: Some(Delegation {
                public_key_der: self.public_key_der,
                expiration,
                signature,
            }),
        }
    }

    /// Whether requests carry no signature.
    pub fn is_anonymous(&self) -> bool {
        self.key.is_none()
    }

    /// What lets the signing key sign for the user, where it is not the user's own.
    pub fn delegation(&self) -> Option<&Delegation> {
        self.delegation.as_ref()
    }

    /// The identity with this number, for models that want many of them.
    pub fn numbered(number: u64) -> Self {
        let mut secret = [0x5a; 32];
        secret[..8].copy_from_slice(&number.to_le_bytes());
        Self::from_secret(secret)
    }

    /// The user's principal.
    pub fn principal(&self) -> Principal {
        self.principal
    }

    /// The public key as envelopes carry it.
    pub fn public_key_der(&self) -> &[u8] {
        &self.public_key_der
    }

    /// Signs bytes; the signature of the anonymous user is zeros, and is not sent.
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        if let Some(key) = &self.key {
            signature.copy_from_slice(key.sign(bytes).as_ref());
        }
        signature
    }
}

/// What is signed to let a session key sign for a user.
pub(crate) fn delegation_bytes(session_key_der: &[u8], expiration: u64) -> Vec<u8> {
    let hash = hash_of_map(&mut [
        ("pubkey", hash(session_key_der)),
        ("expiration", hash(&leb128(expiration))),
    ]);
    [b"\x1Aic-request-auth-delegation", &hash[..]].concat()
}
