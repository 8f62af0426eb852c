//! The outermost layer: plain Wasm or gzip.

use super::error::{Advice, WasmError};
use replicore_types::fees::WasmWidth;
use replicore_types::limits::WASM_MODULE_BYTES_MAX;
use std::borrow::Cow;
use std::io::Read;

const WASM_MAGIC: &[u8] = b"\0asm";
/// gzip with the only compression method there is.
const GZIP_MAGIC: &[u8] = b"\x1f\x8b\x08";
/// Header and footer of the shortest gzip stream.
const GZIP_BYTES_MIN: usize = 16;

/// How a module is packed, and its size unpacked as far as it says so itself.
enum Packing {
    Plain,
    Gzip { claimed_bytes: usize },
}

fn packing(bytes: &[u8]) -> Result<Packing, WasmError> {
    if bytes.starts_with(WASM_MAGIC) {
        return Ok(Packing::Plain);
    }
    if !bytes.starts_with(GZIP_MAGIC) {
        return Err(undecodable("unsupported canister module format"));
    }
    match bytes.last_chunk::<4>() {
        Some(footer) if bytes.len() >= GZIP_BYTES_MIN => Ok(Packing::Gzip {
            claimed_bytes: u32::from_le_bytes(*footer) as usize,
        }),
        _ => Err(undecodable("invalid Wasm module: gzip stream is too short")),
    }
}

/// The number of bytes that an attempt to install these bytes is charged for: those after unpacking, as claimed, if
/// that is more than was sent.
pub(super) fn charged_bytes(bytes: &[u8]) -> usize {
    match packing(bytes) {
        Ok(Packing::Gzip { claimed_bytes }) => claimed_bytes.max(bytes.len()),
        Ok(Packing::Plain) | Err(_) => bytes.len(),
    }
}

/// The Wasm in an uploaded module: the bytes themselves, or what they hold where they are gzip.
///
/// # Errors
/// IC0505 for other formats, damaged gzip, and modules above 100 MiB. No more than the claimed size is ever unpacked.
pub fn decode(bytes: &[u8]) -> Result<Cow<'_, [u8]>, WasmError> {
    match packing(bytes)? {
        Packing::Plain => {
            check_size(bytes.len())?;
            Ok(Cow::Borrowed(bytes))
        }
        Packing::Gzip { claimed_bytes } => {
            check_size(claimed_bytes)?;
            unpack(bytes, claimed_bytes).map(Cow::Owned)
        }
    }
}

fn check_size(size: usize) -> Result<(), WasmError> {
    if size <= WASM_MODULE_BYTES_MAX {
        return Ok(());
    }
    Err(WasmError::invalid_with(
        format_args!("Wasm module size of {size} exceeds the maximum allowed size of {WASM_MODULE_BYTES_MAX}."),
        Advice::User(
            "Try shrinking the module using tools like `ic-wasm` or splitting the logic across multiple canisters."
                .to_owned(),
            "wasm-module-too-large",
        ),
    ))
}

fn unpack(bytes: &[u8], claimed_bytes: usize) -> Result<Vec<u8>, WasmError> {
    let mut wasm = Vec::new();
    flate2::read::GzDecoder::new(bytes)
        .take(claimed_bytes as u64 + 1)
        .read_to_end(&mut wasm)
        .map_err(|error| undecodable(format_args!("failed to decode compressed Wasm module: {error}")))?;
    if wasm.len() == claimed_bytes {
        Ok(wasm)
    } else {
        Err(undecodable(format_args!(
            "specified uncompressed size {claimed_bytes} does not match extracted size {}",
            wasm.len()
        )))
    }
}

pub(super) fn undecodable(reason: impl std::fmt::Display) -> WasmError {
    WasmError::invalid(format_args!("Failed to decode wasm module: {reason}"))
}
/// The pointer width that a module's first memory declares, whether the module is valid or not.
pub fn declared_width(bytes: &[u8]) -> WasmWidth {
    let Ok(wasm) = decode(bytes) else {
        return WasmWidth::Wasm32;
    };
    for payload in wasmparser::Parser::new(0).parse_all(&wasm) {
        let memory = match payload {
            Ok(wasmparser::Payload::MemorySection(memories)) => memories.into_iter().next().and_then(Result::ok),
            // Memories come before code.
            Ok(wasmparser::Payload::CodeSectionStart { .. }) | Err(_) => break,
            Ok(_) => None,
        };
        if let Some(memory) = memory {
            return if memory.memory64 {
                WasmWidth::Wasm64
            } else {
                WasmWidth::Wasm32
            };
        }
    }
    WasmWidth::Wasm32
}
