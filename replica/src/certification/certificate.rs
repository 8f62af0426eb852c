//! Certificates (interface specification, "Certification").

use crate::certification::{BLS_SIGNATURE_BYTES, RootKey};
use minicbor::Encoder;
use replicore_scheduler::ReplicatedState;
use replicore_scheduler::certified_state::{CertifiedState, PathSet, SELF_DESCRIBED_CBOR, StatusFrame};
use replicore_types::{CanisterId, MessageId};
use std::convert::Infallible;

/// The signed root of one state's tree. Made once per round; every certificate of the round carries this signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertifiedRoot {
    root_hash: [u8; 32],
    signature: [u8; BLS_SIGNATURE_BYTES],
}

impl CertifiedRoot {
    /// Signs the root of a tree.
    pub fn new(tree: &CertifiedState, key: &RootKey) -> Self {
        let root_hash = tree.root_hash();
        Self {
            root_hash,
            signature: key.sign_root(&root_hash),
        }
    }

    /// A root that somebody else has signed; the caller has verified that.
    pub(crate) fn signed(root_hash: [u8; 32], signature: [u8; BLS_SIGNATURE_BYTES]) -> Self {
        Self { root_hash, signature }
    }

    /// The root that is signed.
    pub fn root_hash(&self) -> &[u8; 32] {
        &self.root_hash
    }

    /// The signature.
    pub fn signature(&self) -> &[u8; BLS_SIGNATURE_BYTES] {
        &self.signature
    }

    /// The certificate (self-described CBOR) that shows `paths` and the time. `tree` is the one that was signed and
    /// `state` the one that it was computed from.
    pub fn certificate(&self, tree: &CertifiedState, state: &ReplicatedState, paths: PathSet) -> Vec<u8> {
        assert_eq!(
            self.root_hash,
            tree.root_hash(),
            "a certificate must show the tree that was signed"
        );
        let tree = tree.witness(state, paths).encode();
        let mut out = Vec::with_capacity(tree.len() + 128);
        self.encode(&tree, &mut out)
            .expect("writing CBOR to memory cannot fail");
        out
    }

    /// [`CertifiedRoot::certificate`] of [`request_status_paths`], with far less work: `frame` is what all of them have in
    /// common, from the same tree. `None` where there is no such status, of which only the other one shows the absence.
    pub fn status_certificate(
        &self,
        tree: &CertifiedState,
        state: &ReplicatedState,
        frame: &StatusFrame,
        id: &MessageId,
    ) -> Option<Vec<u8>> {
        assert_eq!(
            self.root_hash,
            tree.root_hash(),
            "a certificate must show the tree that was signed"
        );
        let mut out = Vec::with_capacity(STATUS_CERTIFICATE_BYTES);
        let outcome = self.encode_with(&mut out, |out| tree.encode_status(frame, state, id, out));
        outcome.expect("writing CBOR to memory cannot fail").then_some(out)
    }

    fn encode(&self, tree: &[u8], out: &mut Vec<u8>) -> Result<(), minicbor::encode::Error<Infallible>> {
        self.encode_with(out, |out| out.extend_from_slice(tree))
    }

    /// Appends the certificate whose tree `append` appends, and returns what that does.
    fn encode_with<T>(
        &self,
        out: &mut Vec<u8>,
        append: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> Result<T, minicbor::encode::Error<Infallible>> {
        Encoder::new(&mut *out).tag(SELF_DESCRIBED_CBOR)?.map(2)?.str("tree")?;
        let appended = append(out);
        Encoder::new(out).str("signature")?.bytes(&self.signature)?;
        Ok(appended)
    }
}

/// Room for the certificate of a short reply among a million statuses.
const STATUS_CERTIFICATE_BYTES: usize = 1_536;

/// What a certificate shows for a call: the whole status of the request.
pub fn request_status_paths(id: &MessageId) -> PathSet {
    PathSet::new([[&b"request_status"[..], id.as_bytes()]])
}

/// What the certificate of `ic0.data_certificate` shows for a canister: its certified data.
pub fn data_certificate_paths(canister: &CanisterId) -> PathSet {
    PathSet::new([[&b"canister"[..], canister.as_slice(), b"certified_data"]])
}
