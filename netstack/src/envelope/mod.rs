//! Request bodies: a content map, and who vouches for it.
//!
//! [`Envelope::decode`] checks shape only (fields, types, sizes) and borrows everything from the body. That the envelope
//! is *genuine* is another matter, and another type: [`crate::verify::VerifiedEnvelope`].

mod decode;
mod reader;
mod request_id;

pub use decode::{Content, DecodeError, Delegation, Endpoint, Envelope, Permissions, SenderInfo, SignedDelegation};
pub(crate) use reader::{NumberOrBytes, Reader};
pub use request_id::{HashOfMap, hash_of_bytes};

#[cfg(test)]
mod tests;
