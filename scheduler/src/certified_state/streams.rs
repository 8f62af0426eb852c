//! Streams in the certified tree, and slices of them: how one subnet reads what another one has agreed on to send it.
//!
//! ```text
//! /streams/<subnet>/header              begin, end and received, eight bytes each, big endian
//! /streams/<subnet>/messages/<index>    a message (postcard); the index as eight bytes, big endian
//! ```
//! The subtree exists once a subnet is connected to peers. A slice travels as a pruned tree with the header and some of the
//! messages: whoever trusts the root, by a certificate of the sending subnet, can trust what it shows.

use super::{CertifiedState, Change, Digest, DigestMap, HashTree, Label, PathSet, STREAMS, Subtree, graft};
use crate::certified_state::digest::leaf_digest;
use crate::state::{Peer, ReplicatedState, Streams};
use replicore_types::{StreamHeader, StreamMessage, StreamSlice, SubnetId};
use std::collections::BTreeMap;
use std::fmt;

const HEADER: &[u8] = b"header";
const MESSAGES: &[u8] = b"messages";

/// What of the streams to and from one peer is certified, with the digests of the messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct CertifiedStream {
    header: StreamHeader,
    messages: DigestMap,
}

/// Why a tree is no slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SliceError {
    /// It has another root than the one that is trusted.
    Root,
    /// It shows no stream to this subnet.
    NoStream,
    /// Header or messages are not in the form that subnets send them in, or do not follow each other.
    Malformed,
}

impl fmt::Display for SliceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "the slice belongs to another state than the certified one",
            Self::NoStream => "the slice shows no stream to this subnet",
            Self::Malformed => "the slice is malformed",
        })
    }
}

impl std::error::Error for SliceError {}

impl CertifiedStream {
    /// Brings the digests to the peer's streams as they are: what was added or discarded is hashed, nothing else.
    fn update(&mut self, peer: &Peer) {
        let (old, new) = (self.header, peer.header());
        if old == new {
            return;
        }
        let gone = (old.begin..new.begin.min(old.end)).map(|index| (index, None));
        let added = (old.end.max(new.begin)..new.end).map(|index| {
            let message = peer.outbox.get(&index);
            (index, message.map(|message| leaf_digest(&encode(message))))
        });
        let label = |(index, digest): (u64, Option<Digest>)| Some((Label::new(&index.to_be_bytes())?, digest));
        let changes: Vec<Change> = gone.chain(added).filter_map(label).collect();
        self.messages.update(changes, false);
        self.header = new;
    }

    fn subtree(&self) -> Subtree {
        Subtree::labels([
            (HEADER, Subtree::Leaf(header_bytes(&self.header))),
            (MESSAGES, Subtree::Digest(self.messages.digest())),
        ])
    }
}

impl CertifiedState {
    /// Brings the streams up to date.
    pub(super) fn update_streams(&mut self, streams: &Streams) {
        for (id, peer) in streams.peers() {
            self.streams.entry(*id).or_default().update(peer);
        }
    }

    /// The subtree below `/streams`; `None` where there are no peers.
    pub(super) fn streams_subtree(&self) -> Option<Subtree> {
        let peers = self.streams.iter();
        let peers: Vec<_> = peers
            .map(|(id, stream)| (id.0.as_slice().to_vec(), Subtree::Digest(stream.subtree().digest())))
            .collect();
        (!peers.is_empty()).then(|| Subtree::labels(peers))
    }

    /// A slice of the stream to `peer` that begins with message `begin`, or with the oldest one after it: as many messages
    /// as `bytes_max` allows, and one at least, where there are any. `state` is the one that the tree was last updated with.
    /// `None` where the peer is not connected.
    pub fn stream_slice(
        &self,
        state: &ReplicatedState,
        peer: &SubnetId,
        begin: u64,
        bytes_max: usize,
    ) -> Option<HashTree> {
        let stream = self.streams.get(peer)?;
        let outbox = &state.subnet.streams.peer(peer)?.outbox;
        let (mut shown, mut bytes) = (BTreeMap::new(), 0);
        for (index, message) in outbox.range(begin..) {
            let value = encode(message);
            bytes += value.len();
            if bytes > bytes_max && !shown.is_empty() {
                break;
            }
            let label = index.to_be_bytes();
            let leaf = HashTree::Labeled(label.to_vec(), Box::new(HashTree::Leaf(value)));
            shown.insert(Label::new(&label)?, leaf);
        }
        let mut below = stream.subtree().witness(&PathSet::new([[HEADER], [MESSAGES]]));
        graft(&mut below, MESSAGES, &mut Some(stream.messages.witness(&shown)));
        let name = peer.0.as_slice();
        let mut streams = self.streams_subtree()?.witness(&PathSet::new([[name]]));
        graft(&mut streams, name, &mut Some(below));
        let paths = PathSet::new([[STREAMS]]);
        let mut tree = self.top(&paths).witness(&paths);
        graft(&mut tree, STREAMS, &mut Some(streams));
        Some(tree)
    }
}

/// Reads a slice of the stream from `from` to `to` out of a tree whose root is certified by `from`.
///
/// # Errors
/// The tree has another root, or is no such slice.
pub fn read_stream_slice(
    tree: &HashTree,
    root: &Digest,
    from: SubnetId,
    to: SubnetId,
) -> Result<StreamSlice, SliceError> {
    if tree.digest() != *root {
        return Err(SliceError::Root);
    }
    let path = [STREAMS, to.0.as_slice()];
    let stream = path.iter().try_fold(tree, |tree, label| tree.below(label));
    let stream = stream.ok_or(SliceError::NoStream)?;
    let header = match stream.below(HEADER) {
        Some(HashTree::Leaf(bytes)) => read_header(bytes).ok_or(SliceError::Malformed)?,
        _ => return Err(SliceError::NoStream),
    };
    let mut slice = StreamSlice {
        from,
        header,
        begin: header.end,
        messages: Vec::new(),
    };
    for (label, content) in stream.below(MESSAGES).map(HashTree::labels).unwrap_or_default() {
        let HashTree::Leaf(value) = content else { continue };
        let index = label
            .try_into()
            .map(u64::from_be_bytes)
            .map_err(|_| SliceError::Malformed)?;
        if slice.messages.is_empty() {
            slice.begin = index;
        }
        let follows = slice.begin.checked_add(slice.messages.len() as u64) == Some(index);
        let message = postcard::from_bytes(value).ok().filter(|_| follows);
        slice.messages.push(message.ok_or(SliceError::Malformed)?);
    }
    Ok(slice)
}

fn encode(message: &StreamMessage) -> Vec<u8> {
    postcard::to_stdvec(message).expect("messages have a known length and encode into memory")
}

fn header_bytes(header: &StreamHeader) -> Vec<u8> {
    [header.begin, header.end, header.received]
        .map(u64::to_be_bytes)
        .concat()
}

fn read_header(bytes: &[u8]) -> Option<StreamHeader> {
    let (numbers, rest) = bytes.as_chunks::<8>();
    match (numbers, rest) {
        ([begin, end, received], []) => Some(StreamHeader {
            begin: u64::from_be_bytes(*begin),
            end: u64::from_be_bytes(*end),
            received: u64::from_be_bytes(*received),
        }),
        _ => None,
    }
}
