//! What of the state is certified, and where: the tree whose root the subnet signs.
//!
//! ```text
//! /time                                   /subnet/<id>/{public_key,type,canister_ranges,metrics,node/<id>/public_key}
//! /request_status/<id>/{status,...}       /canister_ranges/<subnet>/<first canister>
//! /streams/<subnet>/{header,messages/<index>}
//! /canister/<id>/{certified_data,controllers,module_hash,metadata/<name>,...}
//! ```
//! The two large subtrees, request statuses and canisters, are persistent maps of digests ([`DigestMap`]): a round
//! costs what it changed. Their content stays in the replicated state, from which a witness takes it; a witness
//! therefore needs the very state that the tree was updated with. The rest is small and built anew every round.
//!
//! Everything here follows from the replicated state: it is rebuilt after loading and is never serialised.

mod access;
mod content;
mod digest;
mod digest_map;
mod hash_tree;
mod streams;
#[cfg(test)]
mod tests;

pub use access::{
    READ_STATE_LABELS_MAX, READ_STATE_PATHS_MAX, ReadStateRefused, ReadStateRequest, ReadStateTarget, check_read_state,
};
pub use content::{SELF_DESCRIBED_CBOR, request_status};
pub use digest::Digest;
pub use digest_map::{Change, DigestMap, LABEL_BYTES_MAX, Label};
pub use hash_tree::{HashTree, PathSet, Subtree};
pub use streams::{SliceError, read_stream_slice};

use crate::state::ReplicatedState;
use content::CanisterSummary;
use imbl::OrdMap;
use rayon::prelude::*;
use replicore_types::{CanisterId, IngressStatus, MessageId, SubnetId, Time};
use std::sync::Arc;

/// From this many changed statuses on their hashing is shared between threads.
const PARALLEL_STATUSES_MIN: usize = 64;

/// The certified tree of one state. A clone is cheap.
#[derive(Clone, Debug)]
pub struct CertifiedState {
    time: Time,
    subnet: Small,
    canister_ranges: Small,
    canisters: DigestMap,
    summaries: OrdMap<CanisterId, Arc<CanisterSummary>>,
    request_statuses: DigestMap,
    streams: OrdMap<SubnetId, streams::CertifiedStream>,
    root_hash: Digest,
    /// True where every update makes the whole tree anew, see [`CertifiedState::rebuild_always`].
    is_rebuilt: bool,
}

/// A subtree that is kept whole, with its digest: few certificates show it, and all of them hash it.
#[derive(Clone, Debug)]
struct Small {
    subtree: Arc<Subtree>,
    digest: Digest,
}

impl Small {
    fn new(subtree: Subtree) -> Self {
        Self {
            digest: subtree.digest(),
            subtree: Arc::new(subtree),
        }
    }
}

/// The witness of a request status without the status and the way to it: see [`CertifiedState::status_frame`].
#[derive(Clone, Debug)]
pub struct StatusFrame {
    bytes: Vec<u8>,
    /// Where the rest belongs.
    place: usize,
}

impl Default for CertifiedState {
    /// The tree of no state: all subtrees empty.
    fn default() -> Self {
        let nothing = Small::new(Subtree::Labels(Default::default()));
        let mut empty = Self {
            time: Time(0),
            subnet: nothing.clone(),
            canister_ranges: nothing,
            canisters: DigestMap::default(),
            summaries: OrdMap::new(),
            request_statuses: DigestMap::default(),
            streams: OrdMap::new(),
            root_hash: [0; 32],
            is_rebuilt: false,
        };
        empty.root_hash = empty.top_digest();
        empty
    }
}

impl CertifiedState {
    /// The tree of a whole state.
    pub fn rebuild(state: &ReplicatedState) -> Self {
        let canisters: Vec<_> = state.canisters.keys().copied().collect();
        let statuses: Vec<_> = state.ingress_history.iter().map(|(id, _)| *id).collect();
        let mut rebuilt = Self::default();
        rebuilt.update(state, &canisters, &statuses);
        rebuilt
    }

    /// From now on every update makes the whole tree anew, as if nothing of the one before could be used: what there is
    /// to measure the incremental tree against. The root is the same.
    pub fn rebuild_always(&mut self) {
        self.is_rebuilt = true;
    }

    /// Brings the tree from an earlier state to `state`: the arguments name every canister and request whose certified
    /// part may differ, those that are gone included. Naming more is harmless. Returns the root hash.
    pub fn update(
        &mut self,
        state: &ReplicatedState,
        changed_canisters: &[CanisterId],
        changed_statuses: &[MessageId],
    ) -> Digest {
        self.update_with(state, changed_canisters, changed_statuses, true)
    }

    /// [`CertifiedState::update`], on the threads of the calling pool only where `is_parallel`.
    pub(crate) fn update_with(
        &mut self,
        state: &ReplicatedState,
        changed_canisters: &[CanisterId],
        changed_statuses: &[MessageId],
        is_parallel: bool,
    ) -> Digest {
        if self.is_rebuilt {
            *self = Self::rebuild(state);
            self.is_rebuilt = true;
            return self.root_hash;
        }
        self.time = state.metadata.time;
        self.subnet = Small::new(content::subnet(&state.metadata));
        self.canister_ranges = Small::new(content::canister_ranges(&state.metadata));
        let changes = changed_canisters
            .iter()
            .filter_map(|id| self.summarize(state, id))
            .collect();
        self.canisters.update(changes, is_parallel);
        self.request_statuses
            .update(status_changes(state, changed_statuses, is_parallel), is_parallel);
        self.update_streams(&state.subnet.streams);
        self.root_hash = self.top_digest();
        self.root_hash
    }

    /// Brings the request statuses up to date, on the threads of the calling pool where `is_parallel`. The root is that
    /// of the next [`CertifiedState::update`].
    pub(crate) fn update_statuses(&mut self, statuses: &[(MessageId, Arc<IngressStatus>)], is_parallel: bool) {
        if self.is_rebuilt {
            // The update that follows takes them from the state.
            return;
        }
        let change = |(id, status): &(MessageId, Arc<IngressStatus>)| {
            (Label::of_request(id), Some(content::request_status_digest(status)))
        };
        let changes = match is_parallel {
            true => statuses.par_iter().map(change).collect(),
            false => statuses.iter().map(change).collect(),
        };
        self.request_statuses.update(changes, is_parallel);
    }

    /// The digest that the subnet signs.
    pub fn root_hash(&self) -> Digest {
        self.root_hash
    }

    /// The batch time that the tree certifies.
    pub fn time(&self) -> Time {
        self.time
    }

    /// What `paths` ask for, `/time` always included, with proofs of absence for what does not exist. `state` is the one
    /// that the tree was last updated with.
    pub fn witness(&self, state: &ReplicatedState, mut paths: PathSet) -> HashTree {
        paths.insert([&b"time"[..]]);
        let mut tree = self.top(&paths).witness(&paths);
        if let Some(below) = paths.children.get(CANISTER) {
            let subtree = map_witness(&self.canisters, below, |label, paths| {
                self.canister_subtree(state, label, paths)
            });
            graft(&mut tree, CANISTER, &mut Some(subtree));
        }
        if let Some(below) = paths.children.get(REQUEST_STATUS) {
            let subtree = map_witness(&self.request_statuses, below, |label, _| {
                let id = MessageId(label.as_slice().try_into().ok()?);
                state
                    .ingress_history
                    .get(&id)
                    .map(|status| content::request_status(status))
            });
            graft(&mut tree, REQUEST_STATUS, &mut Some(subtree));
        }
        tree
    }

    /// What the witnesses of all request statuses of this tree have in common.
    pub fn status_frame(&self) -> StatusFrame {
        let paths = PathSet::new([[REQUEST_STATUS], [&b"time"[..]]]);
        let mut bytes = Vec::new();
        let place = self
            .top(&paths)
            .witness(&paths)
            .encode_around(REQUEST_STATUS, &mut bytes);
        StatusFrame {
            place: place.unwrap_or(bytes.len()),
            bytes,
        }
    }

    /// Appends the CBOR form of the [`CertifiedState::witness`] of the status of `id`, with `frame` from this very tree and
    /// `state` the one that it was last updated with. Most certificates are of this kind, and each costs no more than the
    /// way to its status. False, with nothing appended, where there is no such status.
    pub fn encode_status(
        &self,
        frame: &StatusFrame,
        state: &ReplicatedState,
        id: &MessageId,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(status) = state.ingress_history.get(id) else {
            return false;
        };
        let start = out.len();
        out.extend_from_slice(&frame.bytes[..frame.place]);
        let content = |out: &mut Vec<u8>| content::encode_request_status(status, out);
        let exists = self.request_statuses.encode_one(&Label::of_request(id), content, out);
        match exists {
            true => out.extend_from_slice(&frame.bytes[frame.place..]),
            false => out.truncate(start),
        }
        exists
    }

    /// The change of a canister's digest, where there is one.
    fn summarize(&mut self, state: &ReplicatedState, id: &CanisterId) -> Option<Change> {
        let label = Label::new(id.as_slice())?;
        let Some(canister) = state.canister(id) else {
            self.summaries.remove(id);
            return Some((label, None));
        };
        let old = self.summaries.get(id);
        let summary = CanisterSummary::new(canister, old.map(|old| &**old));
        if old.is_some_and(|old| **old == summary) {
            return None;
        }
        let digest = summary.subtree().digest();
        self.summaries.insert(*id, Arc::new(summary));
        Some((label, Some(digest)))
    }

    /// The subtree at `/canister/<label>`, with the metadata at full length only where it is asked for.
    fn canister_subtree(&self, state: &ReplicatedState, label: &Label, paths: &PathSet) -> Option<Subtree> {
        let id = CanisterId(replicore_types::PrincipalId::try_from_slice(label.as_slice()).ok()?);
        let summary = self.summaries.get(&id)?;
        if !paths.whole && !paths.children.contains_key(&b"metadata"[..]) {
            return Some(summary.subtree());
        }
        let execution = state.canister(&id)?.execution.as_ref();
        Some(summary.subtree_with(execution.map(|execution| content::metadata(&execution.interface))))
    }

    /// The tree down to the large subtrees, with those of the small ones that `paths` ask for.
    fn top(&self, paths: &PathSet) -> Subtree {
        let shown = |label: &[u8], small: &Small| match paths.whole || paths.children.contains_key(label) {
            true => (*small.subtree).clone(),
            false => Subtree::Digest(small.digest),
        };
        self.top_with(
            shown(CANISTER_RANGES, &self.canister_ranges),
            shown(SUBNET, &self.subnet),
        )
    }

    /// The digest of the whole tree.
    fn top_digest(&self) -> Digest {
        self.top_with(
            Subtree::Digest(self.canister_ranges.digest),
            Subtree::Digest(self.subnet.digest),
        )
        .digest()
    }

    fn top_with(&self, canister_ranges: Subtree, subnet: Subtree) -> Subtree {
        let streams = self.streams_subtree();
        let streams = streams.map(|streams| (STREAMS, Subtree::Digest(streams.digest())));
        let always = [
            (CANISTER, Subtree::Digest(self.canisters.digest())),
            (CANISTER_RANGES, canister_ranges),
            (REQUEST_STATUS, Subtree::Digest(self.request_statuses.digest())),
            (SUBNET, subnet),
            (&b"time"[..], content::natural(self.time.as_nanos())),
        ];
        Subtree::labels(always.into_iter().chain(streams))
    }
}

const CANISTER: &[u8] = b"canister";
const CANISTER_RANGES: &[u8] = b"canister_ranges";
const REQUEST_STATUS: &[u8] = b"request_status";
const STREAMS: &[u8] = b"streams";
const SUBNET: &[u8] = b"subnet";

/// Digest changes of the requests in `ids`, which may repeat.
fn status_changes(state: &ReplicatedState, ids: &[MessageId], is_parallel: bool) -> Vec<Change> {
    let change = |id: &MessageId| {
        let digest = state
            .ingress_history
            .get(id)
            .map(|status| content::request_status_digest(status));
        (Label::of_request(id), digest)
    };
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    match is_parallel && ids.len() >= PARALLEL_STATUSES_MIN {
        true => ids.par_iter().map(change).collect(),
        false => ids.iter().map(change).collect(),
    }
}

/// Cuts what `paths` ask for out of a map whose content `content` gives.
fn map_witness(map: &DigestMap, paths: &PathSet, content: impl Fn(&Label, &PathSet) -> Option<Subtree>) -> HashTree {
    let nothing = PathSet::default();
    let mut shown = std::collections::BTreeMap::new();
    for (bytes, below) in &paths.children {
        // A longer label stands right after its beginning, whether that exists or not.
        let beginning = &bytes[..bytes.len().min(LABEL_BYTES_MAX)];
        let Some(label) = Label::new(beginning) else { continue };
        let exists = map.contains(&label);
        if exists && beginning.len() == bytes.len() {
            if let Some(subtree) = content(&label, below) {
                let tree = HashTree::Labeled(bytes.clone(), Box::new(subtree.witness(below)));
                shown.insert(label, tree);
            }
            continue;
        }
        let (before, after) = map.neighbours(&label);
        let before = if exists { Some(label) } else { before };
        for neighbour in before.into_iter().chain(after) {
            if let Some(subtree) = content(&neighbour, &nothing).filter(|_| !shown.contains_key(&neighbour)) {
                shown.insert(neighbour, HashTree::label_only(neighbour.as_slice(), subtree.digest()));
            }
        }
    }
    map.witness(&shown)
}

/// Puts `subtree` in place of the pruned content below `label`, which the top of `tree` shows.
fn graft(tree: &mut HashTree, label: &[u8], subtree: &mut Option<HashTree>) {
    match tree {
        HashTree::Fork(sides) => {
            graft(&mut sides.0, label, subtree);
            graft(&mut sides.1, label, subtree);
        }
        HashTree::Labeled(found, content) if found == label => {
            if let Some(subtree) = subtree.take() {
                **content = subtree;
            }
        }
        _ => {}
    }
}
