//! What the certified paths hold, in the encodings of the interface specification ("The system state tree").

use crate::certified_state::digest::{Digest, fork_digest, labeled_digest, leaf_digest};
use crate::certified_state::hash_tree::{Subtree, WHOLE, WRITE_TO_MEMORY, begin_fork, begin_label, leaf};
use crate::state::{CanisterState, SubnetMetrics, SystemMetadata};
use minicbor::Encoder;
use minicbor::data::Tag;
use minicbor::encode::write::Write;
use replicore_engine::ModuleInterface;
use replicore_types::{CanisterId, IngressState, IngressStatus, Payload, PrincipalId, Time};
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

/// The tag by which a CBOR item says that it is CBOR.
pub const SELF_DESCRIBED_CBOR: Tag = Tag::new(55799);

/// What of a canister is certified, kept beside its digest: a round that changed none of it hashes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CanisterSummary {
    controllers: Arc<BTreeSet<PrincipalId>>,
    created_at: Time,
    code: Option<CodeSummary>,
}

/// The part that exists while a module is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CodeSummary {
    module_hash: Digest,
    certified_data: Payload,
    last_install_at: Option<Time>,
    /// Digest of `metadata`: custom sections may be a megabyte, and they change only with the module.
    metadata: Digest,
}

impl CanisterSummary {
    /// The summary of a canister; `old` is the one before, whose metadata digest holds while the module is the same.
    pub(crate) fn new(canister: &CanisterState, old: Option<&CanisterSummary>) -> Self {
        let code = canister.execution.as_ref().map(|execution| {
            let old = old.and_then(|old| old.code.as_ref());
            CodeSummary {
                module_hash: execution.module.hash,
                certified_data: canister.system.certified_data.clone(),
                last_install_at: canister.system.last_install_at,
                metadata: match old {
                    Some(old) if old.module_hash == execution.module.hash => old.metadata,
                    _ => metadata(&execution.interface).digest(),
                },
            }
        });
        Self {
            controllers: canister.system.settings.controllers.clone(),
            created_at: canister.system.created_at,
            code,
        }
    }

    /// The subtree at `/canister/<id>`; of the metadata only the digest.
    pub(crate) fn subtree(&self) -> Subtree {
        self.subtree_with(self.code.as_ref().map(|code| Subtree::Digest(code.metadata)))
    }

    /// The subtree at `/canister/<id>` with the metadata at full length.
    pub(crate) fn subtree_with(&self, metadata: Option<Subtree>) -> Subtree {
        let mut labels = vec![
            ("canister_creation_timestamp", natural(self.created_at.as_nanos())),
            ("controllers", Subtree::Leaf(principals(&self.controllers))),
        ];
        if let Some(code) = &self.code {
            labels.push(("certified_data", Subtree::Leaf(code.certified_data.to_vec())));
            labels.push(("module_hash", Subtree::Leaf(code.module_hash.to_vec())));
            labels.extend(
                code.last_install_at
                    .map(|at| ("last_install_timestamp", natural(at.as_nanos()))),
            );
            labels.extend(metadata.map(|metadata| ("metadata", metadata)));
        }
        Subtree::labels(labels)
    }
}

/// The subtree at `/canister/<id>/metadata`.
pub(crate) fn metadata(interface: &ModuleInterface) -> Subtree {
    Subtree::labels(
        interface
            .custom_sections
            .iter()
            .map(|(name, section)| (name.as_bytes(), Subtree::Leaf(section.content.to_vec()))),
    )
}

/// The subtree at `/request_status/<request id>`.
pub fn request_status(status: &IngressStatus) -> Subtree {
    let text = |text: &str| Subtree::Leaf(text.as_bytes().to_vec());
    match &status.state {
        IngressState::Received => Subtree::labels([("status", text("received"))]),
        IngressState::Processing => Subtree::labels([("status", text("processing"))]),
        IngressState::Done => Subtree::labels([("status", text("done"))]),
        IngressState::Completed(reply) => {
            Subtree::labels([("status", text("replied")), ("reply", Subtree::Leaf(reply.to_vec()))])
        }
        IngressState::Failed(error) => Subtree::labels([
            ("status", text("rejected")),
            ("reject_code", natural(error.code.reject_code() as u64)),
            ("reject_message", text(&error.description)),
            ("error_code", text(&error.code.to_string())),
        ]),
    }
}

/// Appends [`request_status`], shown whole, in CBOR: the usual ones without building the tree.
pub(crate) fn encode_request_status(status: &IngressStatus, out: &mut Vec<u8>) {
    match &status.state {
        IngressState::Completed(reply) => {
            begin_fork(out);
            begin_label(out, b"reply");
            leaf(out, reply);
            begin_label(out, b"status");
            leaf(out, b"replied");
        }
        IngressState::Received | IngressState::Processing | IngressState::Done | IngressState::Failed(_) => {
            request_status(status).witness(&WHOLE).encode_into(out);
        }
    }
}

/// The digest of [`request_status`]: that of the usual ones without building the tree.
pub(crate) fn request_status_digest(status: &IngressStatus) -> Digest {
    static REPLIED: LazyLock<Digest> = LazyLock::new(|| labeled_digest(b"status", &leaf_digest(b"replied")));
    match &status.state {
        IngressState::Completed(reply) => {
            // "reply" stands before "status".
            fork_digest(&labeled_digest(b"reply", &leaf_digest(reply)), &REPLIED)
        }
        IngressState::Received | IngressState::Processing | IngressState::Done | IngressState::Failed(_) => {
            request_status(status).digest()
        }
    }
}

/// The subtree at `/subnet`.
pub(crate) fn subnet(metadata: &SystemMetadata) -> Subtree {
    let nodes = metadata.nodes.iter().map(|(node, public_key)| {
        (
            node.as_slice(),
            Subtree::labels([("public_key", Subtree::Leaf(public_key.to_vec()))]),
        )
    });
    let subnet = Subtree::labels([
        (
            "canister_ranges",
            Subtree::Leaf(canister_ranges_value(metadata.canister_range)),
        ),
        ("metrics", Subtree::Leaf(metrics_value(&metadata.metrics))),
        ("node", Subtree::labels(nodes)),
        ("public_key", Subtree::Leaf(metadata.subnet_public_key.to_vec())),
        (
            "type",
            Subtree::Leaf(metadata.subnet.subnet_type.as_str().as_bytes().to_vec()),
        ),
    ]);
    Subtree::labels([(metadata.subnet_id.as_slice(), subnet)])
}

/// The subtree at `/canister_ranges`: one shard, because there is one range.
pub(crate) fn canister_ranges(metadata: &SystemMetadata) -> Subtree {
    let range = metadata.canister_range;
    let shard = Subtree::labels([(range.0.as_slice(), Subtree::Leaf(canister_ranges_value(range)))]);
    Subtree::labels([(metadata.subnet_id.as_slice(), shard)])
}

/// A natural number: LEB128.
pub(crate) fn natural(mut number: u64) -> Subtree {
    let mut bytes = Vec::with_capacity(10);
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    Subtree::Leaf(bytes)
}

type Encoded<'a> = Result<&'a mut Encoder<Vec<u8>>, minicbor::encode::Error<<Vec<u8> as Write>::Error>>;

/// Self-described CBOR of what `write` writes.
fn cbor(write: impl for<'a> FnOnce(&'a mut Encoder<Vec<u8>>) -> Encoded<'a>) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    encoder.tag(SELF_DESCRIBED_CBOR).and_then(write).expect(WRITE_TO_MEMORY);
    encoder.into_writer()
}

fn principals(principals: &BTreeSet<PrincipalId>) -> Vec<u8> {
    cbor(|encoder| {
        encoder.array(principals.len() as u64)?;
        principals
            .iter()
            .try_fold(encoder, |encoder, principal| encoder.bytes(principal.as_slice()))
    })
}

fn canister_ranges_value((first, last): (CanisterId, CanisterId)) -> Vec<u8> {
    cbor(|encoder| {
        encoder
            .array(1)?
            .array(2)?
            .bytes(first.as_slice())?
            .bytes(last.as_slice())
    })
}

fn metrics_value(metrics: &SubnetMetrics) -> Vec<u8> {
    let consumed = metrics.consumed_cycles.0;
    let (low, high) = (consumed as u64, (consumed >> 64) as u64);
    cbor(|encoder| {
        encoder.map(4)?;
        encoder.str("num_canisters")?.u64(metrics.canisters)?;
        encoder.str("canister_state_bytes")?.u64(metrics.canister_state_bytes)?;
        // Two halves under the keys 0 and 1; the upper one is null while it is zero.
        encoder.str("consumed_cycles_total")?.map(2)?.u8(0)?.u64(low)?.u8(1)?;
        if high == 0 {
            encoder.null()?
        } else {
            encoder.u64(high)?
        };
        encoder
            .str("update_transactions_total")?
            .u64(metrics.update_transactions)
    })
}
