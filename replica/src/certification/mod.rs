//! Keys, certificates and signed query responses: what makes clients believe.
//!
//! The subnet signs one digest a round, the root of the certified state; a certificate is that signature with the part
//! of the tree that a client asked for. The node signs each query response. The subnet is its own root of trust, so
//! certificates carry no delegation.

mod certificate;
mod keys;
mod query_response;
#[cfg(test)]
mod tests;

pub use certificate::{CertifiedRoot, data_certificate_paths, request_status_paths};
pub use keys::{BLS_SIGNATURE_BYTES, KeyError, KeyFolder, NODE_KEY_FILE, NodeKey, ROOT_KEY_FILE, RootKey};
pub(crate) use keys::{state_root_message, verify_subnet_signature};
pub use query_response::{QueryOutcome, query_response_hash, sign_query_response};
