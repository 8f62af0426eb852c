//! Public keys as clients send them: DER-encoded `SubjectPublicKeyInfo` of one of the specification's schemes.

use crate::envelope::{DecodeError, NumberOrBytes, Reader};
use replicore_types::PrincipalId;
use std::borrow::Cow;

/// Content octets of the object identifiers that tell the schemes apart.
mod oid {
    /// 1.3.101.112
    pub(super) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    /// 1.2.840.10045.2.1
    pub(super) const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    /// 1.2.840.10045.3.1.7
    pub(super) const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    /// 1.3.132.0.10
    pub(super) const SECP256K1: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x0a];
    /// 1.3.6.1.4.1.56387.1.1
    pub(super) const COSE: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xb8, 0x43, 0x01, 0x01];
    /// 1.3.6.1.4.1.56387.1.2
    pub(super) const CANISTER_SIGNATURE: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xb8, 0x43, 0x01, 0x02];
    /// 1.3.6.1.4.1.44668.5.3.1.2.1
    pub(super) const BLS: &[u8] = &[
        0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xdc, 0x7c, 0x05, 0x03, 0x01, 0x02, 0x01,
    ];
    /// 1.3.6.1.4.1.44668.5.3.2.1
    pub(super) const BLS_CURVE: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xdc, 0x7c, 0x05, 0x03, 0x02, 0x01];
}

/// A well-formed key; whether its curve point exists turns out when it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PublicKey<'a> {
    Ed25519([u8; 32]),
    /// Uncompressed points: `04`, x, y.
    P256([u8; 65]),
    Secp256k1([u8; 65]),
    WebAuthn(CoseKey<'a>),
    Canister(CanisterKey<'a>),
}

/// The keys that authenticators have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CoseKey<'a> {
    Es256([u8; 65]),
    Rs256 {
        modulus: Cow<'a, [u8]>,
        exponent: Cow<'a, [u8]>,
    },
    EdDsa([u8; 32]),
}

/// The key of a canister that signs by certified data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CanisterKey<'a> {
    pub canister: PrincipalId,
    pub seed: &'a [u8],
}

impl<'a> PublicKey<'a> {
    /// Reads a key.
    pub(super) fn from_der(der: &'a [u8]) -> Result<Self, &'static str> {
        let info = SubjectPublicKeyInfo::read(der).ok_or("it is not a DER-encoded SubjectPublicKeyInfo")?;
        let key = match (info.algorithm, info.parameters) {
            (oid::ED25519, None) => info.key.try_into().ok().map(Self::Ed25519),
            (oid::EC_PUBLIC_KEY, Some(oid::P256)) => uncompressed(info.key).map(Self::P256),
            (oid::EC_PUBLIC_KEY, Some(oid::SECP256K1)) => uncompressed(info.key).map(Self::Secp256k1),
            (oid::COSE, None) => return CoseKey::read(info.key).map(Self::WebAuthn),
            (oid::CANISTER_SIGNATURE, None) => CanisterKey::read(info.key).map(Self::Canister),
            _ => return Err("its algorithm is not supported"),
        };
        key.ok_or("its key bytes have the wrong form")
    }
}

/// The 96 bytes of a DER-encoded BLS12-381 key, as a subnet has it.
pub(super) fn bls_key_from_der(der: &[u8]) -> Option<&[u8; 96]> {
    let info = SubjectPublicKeyInfo::read(der)?;
    (info.algorithm == oid::BLS && info.parameters == Some(oid::BLS_CURVE)).then_some(())?;
    info.key.try_into().ok()
}

/// An uncompressed point: the specification allows no other form.
fn uncompressed(key: &[u8]) -> Option<[u8; 65]> {
    key.try_into().ok().filter(|point: &[u8; 65]| point[0] == 4)
}

impl<'a> CoseKey<'a> {
    fn read(cose: &'a [u8]) -> Result<Self, &'static str> {
        Self::read_fields(cose)
            .map_err(|_| "its COSE key is malformed")?
            .ok_or("its COSE key is not supported")
    }

    /// By the rules of the production replica: fields in any order, unknown ones ignored, `key_ops` either absent or the
    /// text "verify".
    fn read_fields(cose: &'a [u8]) -> Result<Option<Self>, DecodeError> {
        use NumberOrBytes::{Bytes, Number};
        let (mut kind, mut algorithm, mut usable) = (None, None, true);
        let (mut first, mut second, mut third) = (None, None, None);
        let mut reader = Reader::new(cose)?;
        reader.integer_map(|reader, label| {
            match label {
                1 => kind = Some(reader.integer()?),
                3 => algorithm = Some(reader.integer()?),
                4 => usable = reader.text()? == "verify",
                -1 => first = Some(reader.number_or_bytes()?),
                -2 => second = Some(reader.number_or_bytes()?),
                -3 => third = Some(reader.number_or_bytes()?),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        reader.end()?;
        if !usable {
            return Ok(None);
        }
        Ok(match (kind, algorithm, first, second, third) {
            // Curve P-256, x, y.
            (Some(2), Some(-7), Some(Number(1)), Some(Bytes(x)), Some(Bytes(y))) => point(&x, &y).map(Self::Es256),
            // Modulus, exponent.
            (Some(3), Some(-257), Some(Bytes(modulus)), Some(Bytes(exponent)), _) => {
                Some(Self::Rs256 { modulus, exponent })
            }
            // Curve Ed25519, x.
            (Some(1), Some(-8), Some(Number(6)), Some(Bytes(key)), _) => key.as_ref().try_into().ok().map(Self::EdDsa),
            _ => None,
        })
    }
}

fn point(x: &[u8], y: &[u8]) -> Option<[u8; 65]> {
    let mut point = [4; 65];
    point[1..33].copy_from_slice(x.try_into().ok().filter(|x: &&[u8; 32]| x.len() == 32)?);
    point[33..].copy_from_slice(y.try_into().ok().filter(|y: &&[u8; 32]| y.len() == 32)?);
    Some(point)
}

impl<'a> CanisterKey<'a> {
    fn read(key: &'a [u8]) -> Option<Self> {
        let (&length, rest) = key.split_first()?;
        let (canister, seed) = rest.split_at_checked(usize::from(length))?;
        Some(Self {
            canister: PrincipalId::try_from_slice(canister).ok()?,
            seed,
        })
    }
}

/// `SEQUENCE { SEQUENCE { OBJECT IDENTIFIER, OBJECT IDENTIFIER? }, BIT STRING }`
struct SubjectPublicKeyInfo<'a> {
    algorithm: &'a [u8],
    parameters: Option<&'a [u8]>,
    key: &'a [u8],
}

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const OBJECT_IDENTIFIER: u8 = 0x06;

impl<'a> SubjectPublicKeyInfo<'a> {
    fn read(der: &'a [u8]) -> Option<Self> {
        let (info, rest) = element(der, SEQUENCE)?;
        let (algorithm, info) = element(info, SEQUENCE)?;
        let (key, info) = element(info, BIT_STRING)?;
        let (identifier, parameters) = element(algorithm, OBJECT_IDENTIFIER)?;
        let parameters = if parameters.is_empty() {
            None
        } else {
            let (identifier, rest) = element(parameters, OBJECT_IDENTIFIER)?;
            rest.is_empty().then_some(Some(identifier))?
        };
        // The first byte of a bit string counts the unused bits of its last one.
        let key = key.strip_prefix(&[0])?;
        (rest.is_empty() && info.is_empty()).then_some(Self {
            algorithm: identifier,
            parameters,
            key,
        })
    }
}

/// The contents of the DER element with this tag at the front, and what follows it. Lengths must be as short as they
/// can be: two encodings of one key would be two principals.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let shortest = match first {
        0x81 => length >= 0x80,
        0x82 => length >= 0x100,
        _ => true,
    };
    (found == tag && shortest).then(|| rest.split_at_checked(length))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_of_every_scheme_are_read() {
        let read = |text: &str| {
            let der = hex::decode(text).unwrap();
            PublicKey::from_der(&der).map(|key| format!("{key:?}").split(['(', ' ', '{']).next().map(str::to_string))
        };
        let point = "04".to_string() + &"11".repeat(64);
        let kind = |text: &str| read(text).unwrap().unwrap();
        assert_eq!(
            kind(&("302a300506032b6570032100".to_string() + &"22".repeat(32))),
            "Ed25519"
        );
        assert_eq!(
            kind(&("3059301306072a8648ce3d020106082a8648ce3d030107034200".to_string() + &point)),
            "P256"
        );
        assert_eq!(
            kind(&("3056301006072a8648ce3d020106052b8104000a034200".to_string() + &point)),
            "Secp256k1"
        );
        assert_eq!(
            kind(&("301a300c060a2b0601040183b8430102030a00".to_string() + "0000000000000000ff")),
            "Canister"
        );
        let cose = "a5010203262001215820".to_string() + &"33".repeat(32) + "225820" + &"44".repeat(32);
        assert_eq!(
            kind(&("305e300c060a2b0601040183b8430101034e00".to_string() + &cose)),
            "WebAuthn"
        );
    }

    #[test]
    fn other_forms_are_refused() {
        let refused = |text: &str| PublicKey::from_der(&hex::decode(text).unwrap()).expect_err("read");
        assert!(refused("").contains("SubjectPublicKeyInfo"));
        let ed25519 = "302a300506032b6570032100".to_string() + &"22".repeat(32);
        assert!(refused(&(ed25519.clone() + "00")).contains("SubjectPublicKeyInfo"));
        assert!(refused(&ed25519.replacen("302a", "30812a", 1)).contains("SubjectPublicKeyInfo"));
        assert!(refused(&ed25519.replacen("2b6570", "2b6571", 1)).contains("algorithm"));
        let compressed = "3039301306072a8648ce3d020106082a8648ce3d030107032200".to_string() + "02" + &"11".repeat(32);
        assert!(refused(&compressed).contains("form"));
    }

    #[test]
    fn cose_keys_are_read_as_in_production() {
        let (x, y) = (
            "215820".to_string() + &"33".repeat(32),
            "225820".to_string() + &"44".repeat(32),
        );
        let read = |fields: &[&str]| {
            let cose = format!("{:02x}{}", 0xa0 + fields.len(), fields.concat());
            CoseKey::read(&hex::decode(cose).unwrap()).map(|key| matches!(key, CoseKey::Es256(_)))
        };
        assert_eq!(read(&["0102", "0326", "2001", &x, &y]), Ok(true));
        assert_eq!(read(&[&y, "2001", &x, "0326", "0102"]), Ok(true), "in any order");
        assert_eq!(
            read(&["0102", "0326", "2001", &x, &y, "02420102", "616105"]),
            Ok(true),
            "with unknown fields"
        );
        assert_eq!(
            read(&["0102", "0326", "2001", &x, &y, "0466766572696679"]),
            Ok(true),
            "to verify with"
        );
        assert!(
            read(&["0102", "0326", "2001", &x, &y, "04647369676e"]).is_err(),
            "to sign with"
        );
        assert!(
            read(&["0102", "0326", "2001", &x, &y, "048102"]).is_err(),
            "operations in an array"
        );
        assert!(read(&["0102", "0326", "2002", &x, &y]).is_err(), "another curve");
        assert!(read(&["0102", "0327", "2001", &x, &y]).is_err(), "another algorithm");
        assert!(
            read(&["0102", "0326", "2001", &x, "22f5"]).is_err(),
            "a compressed point"
        );
        let short = "22581f".to_string() + &"44".repeat(31);
        assert!(
            read(&["0102", "0326", "2001", &x, &short]).is_err(),
            "a coordinate without its leading zero"
        );
    }

    #[test]
    fn the_root_key_is_read() {
        let der =
            "308182301d060d2b0601040182dc7c0503010201060c2b0601040182dc7c05030201036100".to_string() + &"55".repeat(96);
        assert_eq!(bls_key_from_der(&hex::decode(der).unwrap()), Some(&[0x55; 96]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = PublicKey::from_der(&bytes);
        }
    }
}
