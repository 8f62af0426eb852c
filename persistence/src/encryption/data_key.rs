//! The operator's key, and the file that holds the data key under it.
//!
//! A new operator's key seals the data key anew and changes nothing else: no page is written again.

use super::sealing::{Cipher, NONCE_BYTES, TAG_BYTES};
use crate::error::{PersistenceError, Result};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// File of an encrypted state directory: the data key, sealed with the operator's key.
pub const DATA_KEY_FILE: &str = "data_key";

const MAGIC: &[u8; 8] = b"RCDATKEY";
const VERSION: u32 = 1;
/// The envelope is there twice, so that a sector that is lost does not cost the state.
const COPIES: usize = 2;
const COPY_BYTES: usize = 4096;
/// Nonce, sealed key, tag begin here.
const SEALED_FROM: usize = 16;
const SEALED_BYTES: usize = NONCE_BYTES + 32 + TAG_BYTES;

/// The key that the operator keeps and gives at every start.
#[derive(Clone)]
pub struct OperatorKey([u8; 32]);

impl OperatorKey {
    /// A key of these bytes, which nobody can guess.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key as its file has it: 64 hexadecimal digits, with white space around. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim().as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Some(Self(key))
    }

    /// The envelope of a data key.
    fn wrap(&self, data_key: &[u8; 32]) -> Vec<u8> {
        let mut envelope = vec![0; COPY_BYTES];
        envelope[..8].copy_from_slice(MAGIC);
        envelope[8..12].copy_from_slice(&VERSION.to_le_bytes());
        let sealed = Cipher::new(self.0)
            .key("data key", 0)
            .seal_file(DATA_KEY_FILE, data_key);
        envelope[SEALED_FROM..SEALED_FROM + SEALED_BYTES].copy_from_slice(&sealed);
        let checksum = crc32fast::hash(&envelope);
        envelope[12..16].copy_from_slice(&checksum.to_le_bytes());
        envelope
    }

    /// The data key of an intact envelope; `None` where it is that of another key.
    fn unwrap(&self, envelope: &[u8]) -> Option<[u8; 32]> {
        let sealed = &envelope[SEALED_FROM..SEALED_FROM + SEALED_BYTES];
        let key = Cipher::new(self.0)
            .key("data key", 0)
            .open_file(DATA_KEY_FILE, sealed)?;
        key.try_into().ok()
    }
}

impl fmt::Debug for OperatorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OperatorKey(..)")
    }
}

/// The data key of a directory that has one.
///
/// # Errors
/// Another key, a damaged file, what the file system says.
pub(crate) fn read_data_key(directory: &Path, operator: &OperatorKey) -> Result<[u8; 32]> {
    let path = directory.join(DATA_KEY_FILE);
    let bytes = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PersistenceError::damaged(&path, 0, "the file with the data key is missing"),
        _ => PersistenceError::io(&path, "read")(error),
    })?;
    let intact = bytes.chunks_exact(COPY_BYTES).find(|copy| is_intact(copy));
    let Some(envelope) = intact else {
        return Err(PersistenceError::damaged(&path, 0, "expected the sealed data key"));
    };
    let version = u32::from_le_bytes(envelope[8..12].try_into().expect("four bytes"));
    if version != VERSION {
        return Err(PersistenceError::NewerFormat {
            file: path,
            found: version,
            supported: VERSION,
        });
    }
    operator
        .unwrap(envelope)
        .ok_or(PersistenceError::WrongKey { file: path })
}

/// Puts the data key under an operator's key: whole or not at all, and durable.
///
/// # Errors
/// What the file system says.
pub(crate) fn write_data_key(directory: &Path, operator: &OperatorKey, data_key: &[u8; 32]) -> Result<()> {
    let path = directory.join(DATA_KEY_FILE);
    let new = directory.join("data_key.new");
    let written = fs::write(&new, operator.wrap(data_key).repeat(COPIES))
        .and_then(|()| File::open(&new)?.sync_all())
        .and_then(|()| fs::rename(&new, &path))
        .and_then(|()| File::open(directory)?.sync_all());
    written.map_err(PersistenceError::io(&path, "write"))
}

/// The data key of a directory that is being created; that of an attempt before, where there was one.
///
/// # Errors
/// As for [`read_data_key`] and [`write_data_key`].
pub(crate) fn create_data_key(directory: &Path, operator: &OperatorKey, fresh: &[u8; 32]) -> Result<[u8; 32]> {
    if directory.join(DATA_KEY_FILE).exists() {
        return read_data_key(directory, operator);
    }
    write_data_key(directory, operator, fresh)?;
    Ok(*fresh)
}

fn is_intact(envelope: &[u8]) -> bool {
    let mut unsealed = envelope.to_vec();
    unsealed[12..16].fill(0);
    envelope[..8] == *MAGIC && crc32fast::hash(&unsealed).to_le_bytes() == envelope[12..16]
}
