//! The last certified state, as everybody reads it.

use crate::certification::{CertifiedRoot, RootKey, data_certificate_paths, request_status_paths};
use parking_lot::{Mutex, RwLock};
use replicore_engine::DataCertificates;
use replicore_netstack::{ReadState, ReadStateError, Target};
use replicore_scheduler::ReplicatedState;
use replicore_scheduler::certified_state::{
    ReadStateRefused, ReadStateRequest, ReadStateTarget, StatusFrame, check_read_state,
};
use replicore_types::{CanisterId, MessageId, Payload};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// A state whose root is signed and whose batch is durable.
pub struct CertifiedSnapshot {
    /// The state.
    pub state: ReplicatedState,
    root: CertifiedRoot,
    /// What the certificates of calls have in common, once there was one.
    status_frame: OnceLock<StatusFrame>,
    /// The data certificates that queries have read so far.
    data_certificates: Mutex<HashMap<CanisterId, Payload>>,
}

/// Data certificates that one state keeps: some kilobytes each, and a state lives for one round.
const DATA_CERTIFICATES_MAX: usize = 1_024;

impl CertifiedSnapshot {
    /// Signs a state. The caller has made its batch durable.
    pub fn certify(state: ReplicatedState, key: &RootKey) -> Self {
        let root = CertifiedRoot::new(&state.certified, key);
        Self::with_root(state, root)
    }

    /// A state and its signed root.
    pub(crate) fn with_root(state: ReplicatedState, root: CertifiedRoot) -> Self {
        Self {
            state,
            root,
            status_frame: OnceLock::new(),
            data_certificates: Mutex::default(),
        }
    }

    /// The root that is signed.
    pub fn root_hash(&self) -> &[u8; 32] {
        self.root.root_hash()
    }

    /// The root and its signature.
    pub(crate) fn root(&self) -> &CertifiedRoot {
        &self.root
    }

    /// True once a message has its final status.
    pub fn is_finished(&self, id: &MessageId) -> bool {
        self.state
            .ingress_history
            .get(id)
            .is_some_and(|status| status.state.is_terminal())
    }

    /// The certificate that a v3/v4 call is answered with.
    pub fn request_status_certificate(&self, id: &MessageId) -> Payload {
        let (tree, state) = (&self.state.certified, &self.state);
        let frame = self.status_frame.get_or_init(|| tree.status_frame());
        let certificate = self.root.status_certificate(tree, state, frame, id);
        Payload::from(certificate.unwrap_or_else(|| self.root.certificate(tree, state, request_status_paths(id))))
    }

    /// Answers a `read_state` request.
    ///
    /// # Errors
    /// A path that does not exist for this sender.
    pub fn read_state(&self, read: &ReadState) -> Result<Payload, ReadStateError> {
        let request = ReadStateRequest {
            target: match read.target {
                Target::Canister(canister) => ReadStateTarget::Canister(canister),
                Target::Subnet(subnet) => ReadStateTarget::Subnet(subnet),
            },
            source: read.source,
            delegation_targets: read.delegation_targets.as_deref(),
            paths: &read.paths,
        };
        let paths = check_read_state(&self.state, &request).map_err(|refused| match refused {
            ReadStateRefused::Invalid(text) => ReadStateError::InvalidPath(text),
            ReadStateRefused::Forbidden(text) => ReadStateError::Forbidden(text),
            ReadStateRefused::NotFound(text) => ReadStateError::NotFound(text),
        })?;
        Ok(Payload::from(self.root.certificate(
            &self.state.certified,
            &self.state,
            paths,
        )))
    }
}

/// What `ic0.data_certificate_copy` gives a canister in a query: made once for each state and canister.
impl DataCertificates for CertifiedSnapshot {
    fn data_certificate(&self, canister: CanisterId) -> Payload {
        if let Some(known) = self.data_certificates.lock().get(&canister) {
            return known.clone();
        }
        let paths = data_certificate_paths(&canister);
        let certificate = Payload::from(self.root.certificate(&self.state.certified, &self.state, paths));
        let mut kept = self.data_certificates.lock();
        if kept.len() < DATA_CERTIFICATES_MAX {
            kept.insert(canister, certificate.clone());
        }
        certificate
    }
}

/// The place where the commit thread publishes and readers look.
#[derive(Default)]
pub struct Published {
    snapshot: RwLock<Option<Arc<CertifiedSnapshot>>>,
}

impl Published {
    /// The last certified state, once there is one.
    pub fn load(&self) -> Option<Arc<CertifiedSnapshot>> {
        self.snapshot.read().clone()
    }

    /// Publishes a newer one, and returns it.
    pub fn store(&self, snapshot: CertifiedSnapshot) -> Arc<CertifiedSnapshot> {
        let snapshot = Arc::new(snapshot);
        let old = self.snapshot.write().replace(Arc::clone(&snapshot));
        // Outside the lock: the last reader of a state may have much to drop.
        drop(old);
        snapshot
    }
}
