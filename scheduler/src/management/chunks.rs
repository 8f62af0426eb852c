//! The chunk store: pieces of modules too large for one message.

use super::error;
use super::footprint::{self, Footprint, Growth};
use super::types::{self, CanisterIdArgs, ChunkHash, UploadChunkArgs};
use super::work::{Reply, Work};
use crate::state::ChunkStore;
use replicore_types::limits::{CHUNK_BYTES_MAX, CHUNKS_MAX};
use replicore_types::{CanisterId, NumBytes, NumInstructions, SubnetType, UserError};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Charged for every upload, refused ones included.
const UPLOAD_INSTRUCTIONS: NumInstructions = NumInstructions(200_000_000);

/// `upload_chunk`
pub(crate) fn upload<E>(work: &mut Work<'_, E>, args: &UploadChunkArgs) -> Result<Reply, UserError> {
    let id = CanisterId(args.canister_id);
    work.check_controller_or_self(id)?;
    let subnet = work.subnet();
    if subnet.subnet_type != SubnetType::System {
        footprint::charge_instructions(work.canister_mut(id)?, UPLOAD_INSTRUCTIONS, &subnet)
            .map_err(|cause| error::chunk_store(format!("Error charging for 'upload_chunk': {}", cause.description)))?;
        work.instructions += UPLOAD_INSTRUCTIONS;
    }
    let canister = work.canister(id)?;
    if args.chunk.len() > CHUNK_BYTES_MAX {
        return Err(error::chunk_store(format!(
            "Wasm chunk size {} exceeds the maximum chunk size of {CHUNK_BYTES_MAX}",
            args.chunk.len()
        )));
    }
    let hash: [u8; 32] = Sha256::digest(&args.chunk).into();
    if !canister.system.chunk_store.chunks.contains_key(&hash) {
        if canister.system.chunk_store.chunks.len() >= CHUNKS_MAX {
            return Err(error::chunk_store(format!(
                "Wasm chunk store has already reached maximum capacity of {} bytes",
                CHUNKS_MAX * CHUNK_BYTES_MAX
            )));
        }
        let before = Footprint::of(canister).total();
        let growth = Growth::new(work.state, before, before + NumBytes(CHUNK_BYTES_MAX as u64));
        let system = &mut work.canister_mut(id)?.system;
        growth.pay(system, &subnet)?;
        Arc::make_mut(&mut system.chunk_store.chunks).insert(hash, Arc::from(args.chunk.as_slice()));
    }
    types::encode(ChunkHash {
        hash: ByteBuf::from(hash),
    })
    .map(Reply::Now)
}

/// `stored_chunks`
pub(crate) fn stored<E>(work: &mut Work<'_, E>, args: &CanisterIdArgs) -> Result<Reply, UserError> {
    let canister = work.check_controller_or_self(CanisterId(args.canister_id))?;
    types::encode(hashes(&canister.system.chunk_store)).map(Reply::Now)
}

/// The hashes of the chunks in `store`, ascending.
pub(crate) fn hashes(store: &ChunkStore) -> Vec<ChunkHash> {
    store
        .chunks
        .keys()
        .map(|hash| ChunkHash {
            hash: ByteBuf::from(*hash),
        })
        .collect()
}

/// `clear_chunk_store`
pub(crate) fn clear<E>(work: &mut Work<'_, E>, args: &CanisterIdArgs) -> Result<Reply, UserError> {
    let id = CanisterId(args.canister_id);
    work.check_controller_or_self(id)?;
    work.canister_mut(id)?.system.chunk_store = ChunkStore::default();
    Ok(Reply::empty())
}
