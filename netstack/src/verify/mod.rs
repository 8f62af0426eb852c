//! From an envelope that claims something to one that has been found true.
//!
//! ```text
//! Envelope -> expiry -> sender = key -> delegations -> signature -> targets, permissions -> VerifiedEnvelope
//! ```
//! A [`VerifiedEnvelope`] is made nowhere but here, so that holding one proves that all of this was checked, once.

mod batch;
mod bls_keys;
mod cache;
mod canister_signature;
mod ed25519_keys;
mod equation;
mod hash_tree;
mod ingress;
mod keys;
mod schemes;
mod time;
mod webauthn;

pub use batch::{Batch, BatchStats, Unproven};
pub use cache::{CacheKey, CacheKind, CacheStats, KeyStats, KindStats, SignatureCache};
pub use ingress::VerifiedIngress;
pub(crate) use ingress::sender_info;

use crate::config::SignatureCacheConfig;
use crate::envelope::{Content, Endpoint, Envelope, Permissions, SenderInfo, SignedDelegation};
use batch::{Check, prove_each};
use bls_keys::BlsKeys;
use ed25519_keys::Ed25519Keys;
use keys::PublicKey;
use replicore_types::limits::{INGRESS_TTL, PERMITTED_DRIFT};
use replicore_types::{CanisterId, MessageId, PrincipalId, Time};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use time::Utc;

/// Domain of request signatures.
const REQUEST_DOMAIN: &[u8] = b"\x0Aic-request";
/// Domain of delegation signatures.
const DELEGATION_DOMAIN: &[u8] = b"\x1Aic-request-auth-delegation";
/// Domain of the signature over a sender's attributes.
const SENDER_INFO_DOMAIN: &[u8] = b"\x0Eic-sender-info";

/// Why a request is not believed. The texts are those that clients look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VerifyError {
    /// The request is too old, or lives longer than requests may.
    RequestExpiry {
        /// The replica's time: the earliest expiry allowed.
        earliest: Time,
        /// The latest expiry allowed.
        latest: Time,
        /// The expiry of the request.
        provided: Time,
    },
    /// A delegation is too old.
    DelegationExpiry {
        /// Its expiration.
        provided: Time,
        /// The replica's time.
        now: Time,
    },
    /// The sender is not the principal of the key.
    SenderIsNotKey(PrincipalId, Vec<u8>),
    /// The request's own signature does not count.
    Signature(String),
    /// A link of the delegation chain does not count.
    Delegation(String),
    /// A sender other than the anonymous one, and no signature or no key.
    MissingSignature(PrincipalId),
    /// The anonymous sender with a signature, key or delegation.
    AnonymousSignature,
    /// The delegation chain does not allow this canister.
    NotATarget(CanisterId),
    /// The delegation chain allows queries only.
    UpdateNotPermitted,
    /// The attributes of the sender are not vouched for.
    SenderInfo(String),
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestExpiry {
                earliest,
                latest,
                provided,
            } => write!(
                f,
                "Invalid request expiry: Specified ingress_expiry not within expected range: \
                 Minimum allowed expiry: {}, Maximum allowed expiry: {}, Provided expiry: {}",
                Utc(*earliest),
                Utc(*latest),
                Utc(*provided)
            ),
            Self::DelegationExpiry { provided, now } => write!(
                f,
                "Invalid delegation expiry: Specified sender delegation has expired: \
                 Provided expiry: {}, Local replica time: {}",
                Utc(*provided),
                Utc(*now)
            ),
            Self::SenderIsNotKey(sender, key) => {
                write!(f, "The user id {sender} does not match the public key ")?;
                key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Signature(reason) => write!(f, "Invalid signature: {reason}"),
            Self::Delegation(reason) => write!(f, "Invalid delegation: {reason}"),
            Self::MissingSignature(sender) => write!(f, "Missing signature from user: {sender}"),
            Self::AnonymousSignature => f.write_str("Signature is not allowed for the anonymous user"),
            Self::NotATarget(canister) => write!(f, "Canister {canister} is not one of the delegation targets"),
            Self::UpdateNotPermitted => f.write_str("Update calls are not permitted by the sender delegation"),
            Self::SenderInfo(reason) => write!(f, "Invalid sender info: {reason}"),
        }
    }
}

impl std::error::Error for VerifyError {}

/// An envelope that has been verified: its expiry, that its sender signed it, and that the signing key may do this.
/// There is no other way to make one than [`Verifier::verify`].
#[derive(Debug)]
pub struct VerifiedEnvelope<'a> {
    content: Content<'a>,
    message_id: MessageId,
    targets: Option<Vec<CanisterId>>,
}

impl<'a> VerifiedEnvelope<'a> {
    /// What is asked for.
    pub fn content(&self) -> &Content<'a> {
        &self.content
    }

    /// The content itself.
    pub fn into_content(self) -> Content<'a> {
        self.content
    }

    /// The request id that the signature covers.
    pub fn message_id(&self) -> MessageId {
        self.message_id
    }

    /// The canisters that the delegation chain is restricted to, ascending; `None` if it is not.
    pub fn targets(&self) -> Option<&[CanisterId]> {
        self.targets.as_deref()
    }
}

/// Against what a request is judged.
pub struct Circumstances<'a> {
    /// The time.
    pub now: Time,
    /// Gives the DER encoding of the root key; asked only where a certificate is to be verified.
    pub root_key: &'a dyn Fn() -> Arc<[u8]>,
}

/// Verifies envelopes. One serves all threads.
#[derive(Debug)]
pub struct Verifier {
    cache: Option<SignatureCache>,
    bls_keys: BlsKeys,
    ed25519_keys: Ed25519Keys,
    /// False where every Ed25519 signature is verified by itself.
    batches: bool,
}

/// What is left to do before an envelope counts as verified.
#[derive(Default)]
struct Remainder {
    checks: Vec<Check>,
    remember: Vec<(CacheKey, Time)>,
}

/// One signature, and what it is for.
struct Claim<'s> {
    kind: CacheKind,
    key: &'s [u8],
    payload: Vec<u8>,
    signature: &'s [u8],
    /// Until when it is of use.
    expiry: Time,
    /// False where something larger that it is part of is remembered instead.
    remembered: bool,
    failure: fn(String) -> VerifyError,
}

/// What a key may be used for: narrowed by each link of a chain.
struct Authority<'a> {
    key: &'a [u8],
    targets: Option<BTreeSet<CanisterId>>,
    queries_only: bool,
}

impl Verifier {
    /// A verifier with an empty cache. Fails only if the system has no randomness for the cache's salt.
    pub fn new(config: &SignatureCacheConfig) -> std::io::Result<Self> {
        Ok(Self {
            cache: SignatureCache::new(config)?,
            bls_keys: BlsKeys::default(),
            ed25519_keys: Ed25519Keys::new(config.enabled),
            batches: true,
        })
    }

    /// The same verifier, which verifies Ed25519 signatures together where `batches`. The outcome is the same.
    #[must_use]
    pub fn with_batches(self, batches: bool) -> Self {
        Self { batches, ..self }
    }

    /// How the signature cache has fared; `None` if it is switched off.
    pub fn cache_stats(&self) -> Option<CacheStats> {
        self.cache.as_ref().map(SignatureCache::stats)
    }

    /// How often the curve points of keys were known: those of Ed25519 keys, and the BLS keys of subnets.
    pub fn key_stats(&self) -> [(&'static str, KeyStats); 2] {
        [("ed25519", self.ed25519_keys.stats()), ("bls", self.bls_keys.stats())]
    }

    /// Verifies `envelope` by itself.
    pub fn verify<'a>(
        &self,
        envelope: Envelope<'a>,
        circumstances: &Circumstances<'_>,
    ) -> Result<VerifiedEnvelope<'a>, VerifyError> {
        self.examine(envelope, circumstances)?
            .prove(&self.ed25519_keys, |entry| self.remember(entry, circumstances.now))
    }

    /// Checks all of `envelope` but its Ed25519 signatures, which can be verified together with those of others. The
    /// outcome is always that of [`Verifier::verify`].
    pub fn examine<'a>(
        &self,
        envelope: Envelope<'a>,
        circumstances: &Circumstances<'_>,
    ) -> Result<Unproven<VerifiedEnvelope<'a>>, VerifyError> {
        check_expiry(&envelope.content, circumstances.now)?;
        let message_id = envelope.content.request_id();
        let mut remainder = Remainder::default();
        let targets = match self.authenticate(&envelope, message_id, circumstances, &mut remainder) {
            Ok(targets) => targets,
            Err(error) => {
                // Of several faults the first one is told: a signature that was set aside comes before this error.
                prove_each(&remainder.checks, &self.ed25519_keys, |_| {})?;
                return Err(error);
            }
        };
        let verified = VerifiedEnvelope {
            content: envelope.content,
            message_id,
            targets,
        };
        Ok(Unproven::new(verified, remainder.checks, remainder.remember))
    }

    /// Verifies all that waits in `batch` and hands each request to `done` with its outcome.
    pub fn prove<T>(&self, batch: &mut Batch<T>, now: Time, done: impl FnMut(T, Result<(), VerifyError>)) {
        if !self.batches {
            batch.verify_singly();
        }
        batch.prove(&self.ed25519_keys, |entry| self.remember(entry, now), done);
    }

    fn remember(&self, (key, expiry): (CacheKey, Time), now: Time) {
        if let Some(cache) = &self.cache {
            cache.insert(&key, expiry, now);
        }
    }

    /// The name of `parts` in the cache, and whether it knows them; `None` without a cache.
    fn look_up<'p>(
        &self,
        kind: CacheKind,
        parts: impl IntoIterator<Item = &'p [u8]>,
        now: Time,
    ) -> Option<(CacheKey, bool)> {
        let cache = self.cache.as_ref()?;
        let key = cache.key(kind, parts);
        Some((key, cache.contains(&key, now)))
    }

    fn authenticate(
        &self,
        envelope: &Envelope<'_>,
        message_id: MessageId,
        circumstances: &Circumstances<'_>,
        remainder: &mut Remainder,
    ) -> Result<Option<Vec<CanisterId>>, VerifyError> {
        let content = &envelope.content;
        let chain = &envelope.sender_delegation;
        if content.sender == PrincipalId::anonymous() {
            let signed = envelope.sender_sig.is_some() || envelope.sender_pubkey.is_some() || !chain.is_empty();
            return match &content.sender_info {
                _ if signed => Err(VerifyError::AnonymousSignature),
                Some(_) => Err(VerifyError::SenderInfo("the anonymous user has no attributes".into())),
                None => Ok(None),
            };
        }
        let (Some(key), Some(signature)) = (&envelope.sender_pubkey, &envelope.sender_sig) else {
            return Err(VerifyError::MissingSignature(content.sender));
        };
        if PrincipalId::self_authenticating(key) != content.sender {
            return Err(VerifyError::SenderIsNotKey(content.sender, key.to_vec()));
        }
        check_delegation_expiry(chain, circumstances.now)?;
        let authority = self.follow(chain, key, circumstances, remainder)?;
        let claim = Claim {
            kind: CacheKind::Request,
            key: authority.key,
            payload: signed_bytes(REQUEST_DOMAIN, message_id.as_bytes()),
            signature,
            // Of use until the request expires; no client sends a request more than a few times.
            expiry: Time(content.ingress_expiry),
            remembered: true,
            failure: VerifyError::Signature,
        };
        self.verify_signature(claim, circumstances, remainder)?;
        if let Some(info) = &content.sender_info {
            self.check_sender_info(info, key, circumstances, remainder)?;
        }
        authority.check(content)?;
        Ok(authority.targets.map(|targets| targets.into_iter().collect()))
    }

    /// Verifies the delegations from `key` on and gives what the last key may do.
    fn follow<'k>(
        &self,
        chain: &'k [SignedDelegation<'_>],
        key: &'k [u8],
        circumstances: &Circumstances<'_>,
        remainder: &mut Remainder,
    ) -> Result<Authority<'k>, VerifyError> {
        let now = circumstances.now;
        let known = (!chain.is_empty())
            .then(|| self.look_up_chain(chain, key, now))
            .flatten();
        let checks_before = remainder.checks.len();
        let mut authority = Authority {
            key,
            targets: None,
            queries_only: false,
        };
        let mut seen = BTreeSet::from([key]);
        for link in chain {
            let delegation = &link.delegation;
            if !seen.insert(&delegation.pubkey) {
                return Err(VerifyError::Delegation(
                    "Chain of delegations contains at least one cycle".into(),
                ));
            }
            if !known.is_some_and(|(_, hit)| hit) {
                let claim = Claim {
                    kind: CacheKind::Delegation,
                    key: authority.key,
                    payload: signed_bytes(DELEGATION_DOMAIN, &delegation.hash()),
                    signature: &link.signature,
                    expiry: Time(delegation.expiration),
                    // Links of long chains are shared between chains; a single one is the chain.
                    remembered: chain.len() > 1,
                    failure: VerifyError::Delegation,
                };
                self.verify_signature(claim, circumstances, remainder)?;
            }
            authority.narrow(delegation.targets.as_deref(), delegation.permissions);
            authority.key = &delegation.pubkey;
        }
        if let Some((chain_key, false)) = known {
            let expiry = chain.iter().map(|link| link.delegation.expiration).min();
            let entry = (chain_key, Time(expiry.unwrap_or(0)));
            if remainder.checks.len() == checks_before {
                self.remember(entry, now);
            } else {
                remainder.remember.push(entry);
            }
        }
        Ok(authority)
    }

    /// Looks for the chain as a whole: all that its links say and are signed with.
    fn look_up_chain(&self, chain: &[SignedDelegation<'_>], key: &[u8], now: Time) -> Option<(CacheKey, bool)> {
        let cache = self.cache.as_ref()?;
        // Numbers and targets in one row, each list after its length, so that no two chains have the same parts.
        let mut numbers = Vec::with_capacity(32);
        for SignedDelegation { delegation, .. } in chain {
            numbers.extend_from_slice(&delegation.expiration.to_le_bytes());
            numbers.push(match delegation.permissions {
                None => 0,
                Some(Permissions::All) => 1,
                Some(Permissions::Queries) => 2,
            });
            let targets = delegation.targets.as_deref();
            let count = targets.map_or(0, |targets| targets.len() as u64 + 1);
            numbers.extend_from_slice(&count.to_le_bytes());
            for target in targets.unwrap_or_default() {
                numbers.push(target.as_slice().len() as u8);
                numbers.extend_from_slice(target.as_slice());
            }
        }
        let links = chain
            .iter()
            .flat_map(|link| [link.delegation.pubkey.as_ref(), link.signature.as_ref()]);
        let chain_key = cache.key(CacheKind::Chain, [key, &numbers].into_iter().chain(links));
        Some((chain_key, cache.contains(&chain_key, now)))
    }

    fn check_sender_info(
        &self,
        info: &SenderInfo<'_>,
        key: &[u8],
        circumstances: &Circumstances<'_>,
        remainder: &mut Remainder,
    ) -> Result<(), VerifyError> {
        let refused = |reason: String| Err(VerifyError::SenderInfo(reason));
        let Ok(PublicKey::Canister(canister_key)) = PublicKey::from_der(key) else {
            return refused("the sender's key is not that of a canister".into());
        };
        if canister_key.canister != info.signer {
            return refused(format!(
                "signer {} is not the canister of the sender's key",
                info.signer
            ));
        }
        let claim = Claim {
            kind: CacheKind::SenderInfo,
            key,
            payload: signed_bytes(SENDER_INFO_DOMAIN, &info.info),
            signature: &info.sig,
            // Attributes do not expire; the cache drops them by its own rule.
            expiry: Time(u64::MAX),
            remembered: true,
            failure: VerifyError::SenderInfo,
        };
        self.verify_signature(claim, circumstances, remainder)
    }

    /// Verifies one signature, or finds that it has been verified, or leaves it to `remainder`. A failure is never
    /// remembered.
    fn verify_signature(
        &self,
        claim: Claim<'_>,
        circumstances: &Circumstances<'_>,
        remainder: &mut Remainder,
    ) -> Result<(), VerifyError> {
        let now = circumstances.now;
        let known = claim
            .remembered
            .then(|| self.look_up(claim.kind, [claim.key, &claim.payload, claim.signature], now))
            .flatten();
        if known.is_some_and(|(_, hit)| hit) {
            return Ok(());
        }
        let entry = known.map(|(key, _)| (key, claim.expiry));
        let public_key = PublicKey::from_der(claim.key)
            .map_err(|reason| (claim.failure)(format!("Invalid public key: {reason}")))?;
        if let PublicKey::Ed25519(key) = public_key
            && let Ok(signature) = claim.signature.try_into()
        {
            remainder.checks.push(Check {
                key,
                payload: claim.payload,
                signature,
                failure: claim.failure,
                remember: entry,
            });
            return Ok(());
        }
        let certificates = Certificates {
            verifier: self,
            circumstances,
        };
        schemes::verify(&public_key, &claim.payload, claim.signature, &certificates).map_err(claim.failure)?;
        entry.into_iter().for_each(|entry| self.remember(entry, now));
        Ok(())
    }
}

/// What canister signatures need: the root key, and what is known of certificates and their keys.
struct Certificates<'v> {
    verifier: &'v Verifier,
    circumstances: &'v Circumstances<'v>,
}

impl Certificates<'_> {
    fn root_key(&self) -> Arc<[u8]> {
        (self.circumstances.root_key)()
    }

    /// Verifies the BLS signature of a state root by the DER-encoded `key`, or finds that it has been verified.
    fn verify_root(&self, key: &[u8], root: &[u8; 32], signature: &[u8]) -> Result<(), &'static str> {
        let now = self.circumstances.now;
        let known = self
            .verifier
            .look_up(CacheKind::Certificate, [key, root.as_slice(), signature], now);
        if known.is_some_and(|(_, hit)| hit) {
            return Ok(());
        }
        self.verifier.bls_keys.verify(key, root, signature)?;
        if let Some((cache_key, _)) = known {
            // A certificate does not expire by itself; the cache drops it by its own rule.
            self.verifier.remember((cache_key, Time(u64::MAX)), now);
        }
        Ok(())
    }
}

impl Authority<'_> {
    fn narrow(&mut self, targets: Option<&[CanisterId]>, permissions: Option<Permissions>) {
        self.queries_only |= permissions == Some(Permissions::Queries);
        if let Some(targets) = targets {
            let targets: BTreeSet<_> = targets.iter().copied().collect();
            self.targets = Some(match self.targets.take() {
                None => targets,
                Some(earlier) => earlier.intersection(&targets).copied().collect(),
            });
        }
    }

    fn check(&self, content: &Content<'_>) -> Result<(), VerifyError> {
        if content.endpoint == Endpoint::Call && self.queries_only {
            return Err(VerifyError::UpdateNotPermitted);
        }
        // What a read_state may read of which canister is decided with the state at hand.
        match &self.targets {
            Some(targets) if content.endpoint != Endpoint::ReadState && !targets.contains(&content.canister_id) => {
                Err(VerifyError::NotATarget(content.canister_id))
            }
            _ => Ok(()),
        }
    }
}

fn signed_bytes(domain: &[u8], message: &[u8]) -> Vec<u8> {
    [domain, message].concat()
}

fn check_expiry(content: &Content<'_>, now: Time) -> Result<(), VerifyError> {
    // Nothing is gained by repeating an anonymous read.
    if content.endpoint != Endpoint::Call && content.sender == PrincipalId::anonymous() {
        return Ok(());
    }
    let latest = now.plus(INGRESS_TTL).plus(PERMITTED_DRIFT);
    let provided = Time(content.ingress_expiry);
    if provided < now || provided > latest {
        return Err(VerifyError::RequestExpiry {
            earliest: now,
            latest,
            provided,
        });
    }
    Ok(())
}

fn check_delegation_expiry(chain: &[SignedDelegation<'_>], now: Time) -> Result<(), VerifyError> {
    match chain.iter().find(|link| link.delegation.expiration < now.0) {
        Some(link) => Err(VerifyError::DelegationExpiry {
            provided: Time(link.delegation.expiration),
            now,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod vectors;
#[cfg(test)]
mod wycheproof_vectors;
