//! Identifiers. Each is its own type, so that one cannot stand where another is meant.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;

/// A principal of up to 29 bytes with its textual form (interface specification, "Principals").
pub type PrincipalId = ic_principal::Principal;

macro_rules! principal_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub PrincipalId);

        impl $name {
            /// The principal behind the identifier.
            pub const fn principal(self) -> PrincipalId {
                self.0
            }

            /// The raw bytes, 0 to 29 of them.
            pub fn as_slice(&self) -> &[u8] {
                self.0.as_slice()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<PrincipalId> for $name {
            fn from(principal: PrincipalId) -> Self {
                Self(principal)
            }
        }
    };
}

principal_newtype!(
    /// A canister, or the management canister.
    CanisterId
);
principal_newtype!(
    /// A subnet: the self-authenticating principal of its public key.
    SubnetId
);
principal_newtype!(
    /// A node of the subnet: the self-authenticating principal of its public key.
    NodeId
);

impl CanisterId {
    /// `aaaaa-aa`, the management canister.
    pub const MANAGEMENT: Self = Self(PrincipalId::management_canister());

    /// The canister id with this number: eight bytes big endian, then `01 01`.
    pub fn from_index(index: u64) -> Self {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&index.to_be_bytes());
        bytes[8..].copy_from_slice(&[1, 1]);
        Self(PrincipalId::from_slice(&bytes))
    }

    /// The number of a canister id made by [`CanisterId::from_index`]; `None` for other principals.
    pub fn index(self) -> Option<u64> {
        match self.as_slice() {
            [number @ .., 1, 1] if number.len() == 8 => Some(u64::from_be_bytes(number.try_into().ok()?)),
            _ => None,
        }
    }
}

/// A request id: the representation-independent hash of an ingress message's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MessageId(pub [u8; 32]);

/// The order of the bytes, compared as numbers of eight of them: nearly always the first decides, and no comparison of
/// memory is called for it.
impl Ord for MessageId {
    fn cmp(&self, other: &Self) -> Ordering {
        let (words, others) = (self.0.as_chunks::<8>().0, other.0.as_chunks::<8>().0);
        let numbers = words.iter().zip(others);
        let unequal = numbers
            .map(|(word, other)| u64::from_be_bytes(*word).cmp(&u64::from_be_bytes(*other)))
            .find(|order| order.is_ne());
        unequal.unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for MessageId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl MessageId {
    /// The first eight bytes as a number: ids with different ones have the same order as these.
    pub fn beginning(&self) -> u64 {
        let (words, _) = self.0.as_chunks::<8>();
        words.first().map_or(0, |word| u64::from_be_bytes(*word))
    }

    /// The 32 hash bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// A call context of one canister; numbered from 1 in order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallContextId(pub u64);

/// A callback of one canister; numbered from 1 in order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallbackId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canister_id_index_round_trips() {
        let id = CanisterId::from_index(1);
        assert_eq!(id.as_slice(), [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(id.to_string(), "rrkah-fqaaa-aaaaa-aaaaq-cai");
        assert_eq!(id.index(), Some(1));
        assert_eq!(CanisterId::MANAGEMENT.to_string(), "aaaaa-aa");
        assert_eq!(CanisterId::MANAGEMENT.index(), None);
    }

    #[test]
    fn message_ids_have_the_order_of_their_bytes() {
        let mut ids = vec![[0; 32], [255; 32]];
        for place in 0..32 {
            ids.extend([1, 127, 128, 255].map(|byte| {
                let mut id = [0x80; 32];
                id[place] = byte;
                id
            }));
        }
        for left in &ids {
            for right in &ids {
                assert_eq!(
                    MessageId(*left).cmp(&MessageId(*right)),
                    left.cmp(right),
                    "{left:?} {right:?}"
                );
            }
        }
    }
}
