//! Certificates, checked as agents check them: the tree's root signed with the root key, the status found in the tree.

use candid::Principal;
use ic_certification::LookupResult;
use ic_certification::certificate::Certificate;
use ic_certification::hash_tree::HashTree;
use std::collections::HashSet;
use std::fmt;
use std::sync::Mutex;

/// DER prefix of a BLS12-381 public key in G2.
const BLS_DER_PREFIX_BYTES: usize = 37;
const DOMAIN: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";

/// The tag that says "this is CBOR" (RFC 8949, 3.4.6).
const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];

/// What a certificate says of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestStatus {
    /// The reply.
    Replied(Vec<u8>),
    /// Reject code, text and error code.
    Rejected(u64, String, String),
    /// Known and not finished, or not known.
    Pending(String),
}

/// Why a certificate is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untrusted(pub String);

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "untrusted certificate: {}", self.0)
    }
}

impl std::error::Error for Untrusted {}

/// Verifies certificates of one root key. Roots whose signature was verified are remembered, since all requests that
/// finish in one round share one.
pub struct Verifier {
    public_key: blst::min_sig::PublicKey,
    /// Of this many roots one has its signature checked.
    one_in: u8,
    verified: Mutex<HashSet<[u8; 32]>>,
}

/// Verified roots remembered before the memory is cleared.
const VERIFIED_MAX: usize = 10_000;

impl Verifier {
    /// A verifier for a DER root key.
    ///
    /// # Errors
    /// The key is not a BLS12-381 key in the published form.
    pub fn new(root_key_der: &[u8]) -> Result<Self, Untrusted> {
        let key = root_key_der.get(BLS_DER_PREFIX_BYTES..).unwrap_or_default();
        let public_key = blst::min_sig::PublicKey::key_validate(key)
            .map_err(|error| Untrusted(format!("the root key is malformed: {error:?}")))?;
        Ok(Self {
            public_key,
            one_in: 1,
            verified: Mutex::default(),
        })
    }

    /// Checks the signature of one root in `one_in`, chosen by the root itself, for load that would otherwise spend more
    /// time on pairings (1 ms each) than the server on everything. What the tree says of a request is always checked.
    #[must_use]
    pub fn sampling(self, one_in: u8) -> Self {
        Self {
            one_in: one_in.max(1),
            ..self
        }
    }

    /// Checks the certificate and reads the status of a request from it.
    ///
    /// # Errors
    /// The certificate does not decode, its signature does not verify, or its tree lacks what it should hold.
    pub fn request_status(&self, certificate: &[u8], request_id: &[u8; 32]) -> Result<RequestStatus, Untrusted> {
        let certificate = decode(certificate)?;
        self.verify_signature(&certificate)?;
        let status = |label: &str| lookup(&certificate.tree, request_id, label);
        let text = |bytes: Option<Vec<u8>>| String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        Ok(match status("status").as_deref() {
            Some(b"replied") => {
                RequestStatus::Replied(status("reply").ok_or_else(|| Untrusted("replied without a reply".into()))?)
            }
            Some(b"rejected") => {
                let code = status("reject_code").unwrap_or_default();
                let code = leb128::read::unsigned(&mut &code[..]).unwrap_or_default();
                RequestStatus::Rejected(code, text(status("reject_message")), text(status("error_code")))
            }
            other => RequestStatus::Pending(text(other.map(<[u8]>::to_vec))),
        })
    }

    /// Checks the certificate and returns the root that it signs.
    ///
    /// # Errors
    /// The certificate does not decode or its signature does not verify.
    pub fn root(&self, certificate: &[u8]) -> Result<[u8; 32], Untrusted> {
        let certificate = decode(certificate)?;
        self.verify_signature(&certificate)?;
        Ok(certificate.tree.digest())
    }

    fn verify_signature(&self, certificate: &Certificate<&[u8]>) -> Result<(), Untrusted> {
        let root = certificate.tree.digest();
        let verified = || self.verified.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !root[0].is_multiple_of(self.one_in) || verified().contains(&root) {
            return Ok(());
        }
        let signature = blst::min_sig::Signature::from_bytes(certificate.signature)
            .map_err(|error| Untrusted(format!("the signature is malformed: {error:?}")))?;
        let message = [b"\x0Dic-state-root", &root[..]].concat();
        let result = signature.verify(true, &message, DOMAIN, &[], &self.public_key, false);
        if result != blst::BLST_ERROR::BLST_SUCCESS {
            return Err(Untrusted(format!("the signature does not verify: {result:?}")));
        }
        let mut verified = verified();
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        verified.insert(root);
        Ok(())
    }
}

/// The certified data of a canister, as the certificate says; who wants to believe it has its root checked.
///
/// # Errors
/// The certificate does not decode or does not speak of the canister.
pub fn certified_data(certificate: &[u8], canister: Principal) -> Result<[u8; 32], Untrusted> {
    let certificate = decode(certificate)?;
    let path = [&b"canister"[..], canister.as_slice(), b"certified_data"];
    match certificate.tree.lookup_path(path) {
        LookupResult::Found(data) => data
            .try_into()
            .map_err(|_| Untrusted("certified data that is no hash".into())),
        _ => Err(Untrusted(format!("no certified data of {canister}"))),
    }
}

/// A hash tree from CBOR.
///
/// # Errors
/// It does not decode.
pub fn decode_tree(tree: &[u8]) -> Result<HashTree<&[u8]>, Untrusted> {
    let untagged = tree.strip_prefix(&SELF_DESCRIBED).unwrap_or(tree);
    minicbor_serde::from_slice(untagged).map_err(|error| Untrusted(error.to_string()))
}

fn decode(certificate: &[u8]) -> Result<Certificate<&[u8]>, Untrusted> {
    let untagged = certificate.strip_prefix(&SELF_DESCRIBED).unwrap_or(certificate);
    minicbor_serde::from_slice(untagged).map_err(|error| Untrusted(error.to_string()))
}

fn lookup(tree: &HashTree<&[u8]>, request_id: &[u8; 32], label: &str) -> Option<Vec<u8>> {
    match tree.lookup_path([&b"request_status"[..], &request_id[..], label.as_bytes()]) {
        LookupResult::Found(value) => Some(value.to_vec()),
        _ => None,
    }
}
