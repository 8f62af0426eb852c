//! Who signs.

use candid::Principal;
use ring::signature::{Ed25519KeyPair, KeyPair};
use std::sync::Arc;

/// DER prefix of an Ed25519 public key (RFC 8410).
const ED25519_DER_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// An Ed25519 user.
#[derive(Clone)]
pub struct Identity {
    key: Arc<Ed25519KeyPair>,
    public_key_der: Vec<u8>,
    principal: Principal,
}

impl Identity {
    /// The identity of a 32-byte secret: the same secret is the same user.
    pub fn from_secret(secret: [u8; 32]) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&secret).expect("a seed of 32 bytes is a key");
        let public_key_der = [&ED25519_DER_PREFIX[..], key.public_key().as_ref()].concat();
        let principal = Principal::self_authenticating(&public_key_der);
        Self {
            key: Arc::new(key),
            public_key_der,
            principal,
        }
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

    /// Signs bytes.
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.key.sign(bytes).as_ref());
        signature
    }
}
