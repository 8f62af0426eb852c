//! What goes over a connection between a follower and the replica that it follows.
//!
//! Frames: length (4 bytes, little-endian), then a message in postcard. The follower asks, the other side answers; after
//! [`Ask::Follow`] it goes on answering until either side hangs up.

use crate::certification::{BLS_SIGNATURE_BYTES, RootKey, verify_subnet_signature};
use replicore_persistence::sync::{SyncManifest, SyncPiece};
use replicore_scheduler::state::{ItemKey, item_digest, state_hash_of_digests};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};

/// The version of these messages.
pub const WIRE_VERSION: u32 = 1;
/// The longest frame: a piece is a blob at most, and the store holds none above a gibibyte.
const FRAME_BYTES_MAX: u32 = (1 << 30) + (1 << 20);
/// The longest question. Who asks may be anybody: a stranger must not make the other side hold more.
const ASK_BYTES_MAX: u32 = 1 << 20;
/// Domain of signatures on checkpoints.
const CHECKPOINT_DOMAIN: &[u8; 21] = b"\x14replicore-checkpoint";

/// What a follower says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// The first message: the version that it speaks.
    Hello(u32),
    /// The newest checkpoint that batches can be had after.
    Checkpoint,
    /// Pieces of the checkpoint asked for last: one answer each.
    Pieces(Vec<SyncPiece>),
    /// Every batch after this height, as long as the connection lasts.
    Follow(u64),
}

/// What it is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::Hello`]: DER encoding of the subnet's key.
    Welcome(Vec<u8>),
    /// To [`Ask::Checkpoint`]: what it consists of, and the subnet's signature.
    Manifest(SyncManifest, Vec<u8>),
    /// To [`Ask::Pieces`].
    Piece(Vec<u8>),
    /// To [`Ask::Follow`], again and again.
    Entry(WireEntry),
    /// That cannot be had, and why.
    Refused(String),
}

/// A batch that is durable and certified.
#[derive(Debug, Serialize, Deserialize)]
pub struct WireEntry {
    /// Its height.
    pub height: u64,
    /// As in the batch log.
    pub record: Vec<u8>,
    /// The root of the certified state after it.
    pub root: [u8; 32],
    /// The subnet's signature on the root.
    pub signature: Vec<u8>,
}

/// Sends one message.
///
/// # Errors
/// The connection, or a message that is too long.
pub fn send(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    let len = u32::try_from(bytes.len()).ok().filter(|len| *len <= FRAME_BYTES_MAX);
    let len = len.ok_or_else(|| io::Error::other("a message that is too long"))?;
    stream.write_all(&len.to_le_bytes())?;
    stream.write_all(&bytes)?;
    stream.flush()
}

/// Receives a question.
///
/// # Errors
/// The connection, or bytes that are no question.
pub fn receive_ask(stream: &mut impl Read) -> io::Result<Ask> {
    receive(stream, ASK_BYTES_MAX)
}

/// Receives an answer.
///
/// # Errors
/// The connection, or bytes that are no answer.
pub fn receive_answer(stream: &mut impl Read) -> io::Result<Answer> {
    receive(stream, FRAME_BYTES_MAX)
}

/// Memory is taken as bytes arrive, not as they are announced.
fn receive<T: DeserializeOwned>(stream: &mut impl Read, bytes_max: u32) -> io::Result<T> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len);
    let broken = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    if len > bytes_max {
        return Err(broken("a message that is too long"));
    }
    let mut bytes = Vec::new();
    stream.take(u64::from(len)).read_to_end(&mut bytes)?;
    if bytes.len() != len as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    postcard::from_bytes(&bytes).map_err(|error| broken(&format!("not a message of this protocol: {error}")))
}

/// The subnet's word for a checkpoint.
pub fn sign_checkpoint(key: &RootKey, manifest: &SyncManifest) -> [u8; BLS_SIGNATURE_BYTES] {
    key.sign(&checkpoint_message(manifest))
}

/// True where the manifest lists a state with the hash that it names, and the subnet with this key has signed that.
pub fn is_genuine(manifest: &SyncManifest, signature: &[u8], root_key_der: &[u8]) -> bool {
    let digests = manifest.items.iter().map(|item| {
        let key = ItemKey::from_bytes(&item.key)?;
        Some((key, item_digest(&item.metadata, &item.memories)))
    });
    let Some(mut digests) = digests.collect::<Option<Vec<_>>>() else {
        return false;
    };
    digests.sort_unstable_by_key(|(key, _)| *key);
    state_hash_of_digests(&manifest.system, digests) == manifest.state_hash
        && verify_subnet_signature(root_key_der, &checkpoint_message(manifest), signature)
}

fn checkpoint_message(manifest: &SyncManifest) -> Vec<u8> {
    [
        &CHECKPOINT_DOMAIN[..],
        &manifest.height.to_be_bytes(),
        &manifest.state_hash,
    ]
    .concat()
}
