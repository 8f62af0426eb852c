//! Representation-independent hashes: the same for the same data, however it was encoded.

use sha2::{Digest, Sha256};
use std::sync::LazyLock;

/// Entries of the largest map that is hashed.
const ENTRIES_MAX: usize = 12;

/// The hash of a map: of its entries' name and value hashes, in ascending order.
#[derive(Clone, Debug)]
pub struct HashOfMap {
    entries: [[u8; 64]; ENTRIES_MAX],
    count: usize,
}

impl Default for HashOfMap {
    fn default() -> Self {
        Self::new()
    }
}

impl HashOfMap {
    /// The map without entries.
    pub fn new() -> Self {
        Self {
            entries: [[0; 64]; ENTRIES_MAX],
            count: 0,
        }
    }

    /// Adds an entry whose name has the hash `name`. At most 12 entries fit.
    pub fn put(&mut self, name: &[u8; 32], value: [u8; 32]) {
        let entry = &mut self.entries[self.count];
        entry[..32].copy_from_slice(name);
        entry[32..].copy_from_slice(&value);
        self.count += 1;
    }

    /// The hash.
    pub fn finish(mut self) -> [u8; 32] {
        let entries = &mut self.entries[..self.count];
        entries.sort_unstable();
        Sha256::digest(entries.as_flattened()).into()
    }
}

/// The hash of a byte or text string.
pub fn hash_of_bytes(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The hash of a natural number: of its shortest LEB128 encoding.
pub(super) fn hash_of_nat(mut number: u64) -> [u8; 32] {
    let mut encoded = [0; 10];
    let mut length = 0;
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        encoded[length] = if number == 0 { low } else { low | 0x80 };
        length += 1;
        if number == 0 {
            return hash_of_bytes(&encoded[..length]);
        }
    }
}

/// The hash of an array, from the hashes of its items.
pub(super) fn hash_of_array(items: impl Iterator<Item = [u8; 32]>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    items.for_each(|item| hasher.update(item));
    hasher.finalize().into()
}

macro_rules! names {
    ($($name:ident)*) => {
        /// The hashes of field names.
        pub(super) struct Names { $(pub $name: [u8; 32],)* }

        static NAMES: LazyLock<Names> = LazyLock::new(|| Names { $($name: hash_of_bytes(stringify!($name).as_bytes()),)* });
    };
}

names! {
    request_type sender ingress_expiry nonce canister_id method_name arg sender_info paths info signer sig pubkey
    expiration targets permissions
}

pub(super) fn names() -> &'static Names {
    &NAMES
}
