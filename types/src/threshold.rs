//! Names of threshold keys: which curve or algorithm, and which of the well-known key names.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The well-known key names. On the public network `key_1` is for production and `test_key_1` for tests; development
/// networks call theirs `dfx_test_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyName {
    /// `key_1`
    #[serde(rename = "key_1")]
    Key1,
    /// `test_key_1`
    #[serde(rename = "test_key_1")]
    TestKey1,
    /// `dfx_test_key`
    #[serde(rename = "dfx_test_key")]
    DfxTestKey,
}

impl KeyName {
    /// Every name.
    pub const ALL: [Self; 3] = [Self::Key1, Self::TestKey1, Self::DfxTestKey];

    /// The name in calls of the management canister.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key1 => "key_1",
            Self::TestKey1 => "test_key_1",
            Self::DfxTestKey => "dfx_test_key",
        }
    }

    /// The key with this name, if it is one of the well-known ones.
    pub fn from_bytes(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|key| key.as_str().as_bytes() == name)
    }
}

/// A set of key names; in the configuration a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<KeyName>", into = "Vec<KeyName>")]
pub struct KeyNames(u8);

impl KeyNames {
    /// No name.
    pub const NONE: Self = Self(0);
    /// Every name.
    pub const ALL: Self = Self((1 << KeyName::ALL.len()) - 1);

    /// The set of one name.
    pub const fn only(name: KeyName) -> Self {
        Self(1 << name as u8)
    }

    /// Whether the name is in the set.
    pub const fn contains(self, name: KeyName) -> bool {
        self.0 & Self::only(name).0 != 0
    }

    /// The names of the set.
    pub fn iter(self) -> impl Iterator<Item = KeyName> {
        KeyName::ALL.into_iter().filter(move |name| self.contains(*name))
    }
}

impl From<Vec<KeyName>> for KeyNames {
    fn from(names: Vec<KeyName>) -> Self {
        Self(names.into_iter().fold(0, |set, name| set | Self::only(name).0))
    }
}

impl From<KeyNames> for Vec<KeyName> {
    fn from(names: KeyNames) -> Self {
        names.iter().collect()
    }
}

/// What a threshold key signs or derives with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ThresholdAlgorithm {
    /// ECDSA on secp256k1.
    EcdsaSecp256k1,
    /// Schnorr signatures on secp256k1 as in BIP 340.
    SchnorrBip340,
    /// Schnorr signatures as Ed25519.
    SchnorrEd25519,
    /// vetKeys on BLS12-381, derived in G2.
    VetKdBls12381G2,
}

impl ThresholdAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 4] = [
        Self::EcdsaSecp256k1,
        Self::SchnorrBip340,
        Self::SchnorrEd25519,
        Self::VetKdBls12381G2,
    ];

    /// Scheme and curve or algorithm, as error texts name them.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaSecp256k1 => "ecdsa:Secp256k1",
            Self::SchnorrBip340 => "schnorr:Bip340Secp256k1",
            Self::SchnorrEd25519 => "schnorr:Ed25519",
            Self::VetKdBls12381G2 => "vetkd:Bls12_381_G2",
        }
    }
}

/// One threshold key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ThresholdKeyId {
    /// What it signs or derives with.
    pub algorithm: ThresholdAlgorithm,
    /// Its name.
    pub name: KeyName,
}

impl fmt::Display for ThresholdKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.name.as_str())
    }
}

/// The threshold keys of a subnet: the names held for each algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ThresholdKeys {
    /// ECDSA on secp256k1.
    pub ecdsa_secp256k1: KeyNames,
    /// Schnorr signatures as in BIP 340.
    pub schnorr_bip340secp256k1: KeyNames,
    /// Schnorr signatures as Ed25519.
    pub schnorr_ed25519: KeyNames,
    /// vetKeys on BLS12-381, derived in G2.
    pub vetkd_bls12_381_g2: KeyNames,
}

impl Default for ThresholdKeys {
    fn default() -> Self {
        Self::ALL
    }
}

impl ThresholdKeys {
    /// Every key.
    pub const ALL: Self = Self {
        ecdsa_secp256k1: KeyNames::ALL,
        schnorr_bip340secp256k1: KeyNames::ALL,
        schnorr_ed25519: KeyNames::ALL,
        vetkd_bls12_381_g2: KeyNames::ALL,
    };
    /// No key.
    pub const NONE: Self = Self {
        ecdsa_secp256k1: KeyNames::NONE,
        schnorr_bip340secp256k1: KeyNames::NONE,
        schnorr_ed25519: KeyNames::NONE,
        vetkd_bls12_381_g2: KeyNames::NONE,
    };

    /// The names held for an algorithm.
    pub const fn names(&self, algorithm: ThresholdAlgorithm) -> KeyNames {
        match algorithm {
            ThresholdAlgorithm::EcdsaSecp256k1 => self.ecdsa_secp256k1,
            ThresholdAlgorithm::SchnorrBip340 => self.schnorr_bip340secp256k1,
            ThresholdAlgorithm::SchnorrEd25519 => self.schnorr_ed25519,
            ThresholdAlgorithm::VetKdBls12381G2 => self.vetkd_bls12_381_g2,
        }
    }

    /// Whether the subnet holds the key.
    pub const fn holds(&self, key: ThresholdKeyId) -> bool {
        self.names(key.algorithm).contains(key.name)
    }

    /// Every key held.
    pub fn iter(&self) -> impl Iterator<Item = ThresholdKeyId> {
        let keys = *self;
        ThresholdAlgorithm::ALL.into_iter().flat_map(move |algorithm| {
            let names = keys.names(algorithm).iter();
            names.map(move |name| ThresholdKeyId { algorithm, name })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_names_hold_what_was_put_in() {
        let names = KeyNames::from(vec![KeyName::DfxTestKey, KeyName::Key1]);
        assert_eq!(names.iter().collect::<Vec<_>>(), [KeyName::Key1, KeyName::DfxTestKey]);
        assert!(!names.contains(KeyName::TestKey1));
        assert_eq!(KeyNames::ALL.iter().count(), KeyName::ALL.len());
        assert_eq!(KeyName::from_bytes(b"test_key_1"), Some(KeyName::TestKey1));
        assert_eq!(KeyName::from_bytes(b"test_key_2"), None);
    }

    #[test]
    fn a_subnet_holds_the_keys_it_lists() {
        let keys = ThresholdKeys {
            schnorr_ed25519: KeyNames::only(KeyName::TestKey1),
            ..ThresholdKeys::NONE
        };
        let listed: Vec<String> = keys.iter().map(|key| key.to_string()).collect();
        assert_eq!(listed, ["schnorr:Ed25519:test_key_1"]);
        assert!(keys.iter().all(|key| keys.holds(key)));
        assert_eq!(ThresholdKeys::ALL.iter().count(), 12);
    }
}
