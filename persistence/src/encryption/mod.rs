//! Encryption at rest: what a state directory with a key holds can be read and changed by nobody without it.
//!
//! ```text
//! operator's key (a file elsewhere) ── opens ──► DIR/data_key ── holds ──► the data key
//!                                                 data key ── derives ──► a key for every file and purpose
//!                                                               ├─ pages and records of each generation
//!                                                               ├─ groups of each log segment
//!                                                               └─ superblocks, small secret files
//! ```
//!
//! Everything is sealed with AES-256-GCM, and bound to its place: the key to directory, file and purpose, the additional
//! data to the offset. So nothing can be moved, swapped, or taken from another file without being noticed. Who can write
//! to the disk can still put back an older state of the whole directory; only a witness outside could tell.
//!
//! Nonces follow from what is sealed: a keyed hash of place and content. A crash, a cut-off file or a restored backup
//! makes this program write other bytes to a place that it wrote to before, and a nonce made of the place alone would
//! then be used twice. This way two different contents have different nonces, and the same content at the same place is
//! the same bytes, which tells nobody anything but that.

mod clear_pages;
mod data_key;
mod sealing;

pub(crate) use clear_pages::ClearPages;
pub use clear_pages::pages_decrypted;
pub use data_key::{DATA_KEY_FILE, OperatorKey};
pub(crate) use data_key::{create_data_key, read_data_key, write_data_key};
pub use sealing::{Cipher, SealingKey};
pub(crate) use sealing::{NONCE_BYTES, TAG_BYTES};

#[cfg(test)]
mod tests;
