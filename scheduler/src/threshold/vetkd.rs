//! Derivation of vetKD keys on BLS12-381: public keys in G2, vetKeys (BLS signatures on the input, message-augmented) in
//! G1.

use blstrs::{G1Affine, G1Projective, G2Affine, G2Projective, Scalar};
use group::Group;
use group::ff::Field;
use sha2::{Digest, Sha256};

/// Bytes of a public key.
pub const PUBLIC_KEY_BYTES: usize = 96;
/// Bytes of a transport public key, and of a vetKey.
pub const TRANSPORT_KEY_BYTES: usize = 48;

const CANISTER_DOMAIN: &[u8] = b"ic-vetkd-bls12-381-g2-canister-id";
const CONTEXT_DOMAIN: &[u8] = b"ic-vetkd-bls12-381-g2-context";
const VETKEY_DOMAIN: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_AUG_";

/// What canister and context lead to.
#[derive(Clone, Debug)]
pub struct Derived {
    /// The key.
    pub public_key: G2Affine,
    /// What is to be added to the master secret.
    pub tweak: Scalar,
}

/// The key of `canister` for `context`; an empty context is the key of the canister itself. `None` where `master` is no
/// point of G2.
pub fn derive(master: &[u8; PUBLIC_KEY_BYTES], canister: &[u8], context: &[u8]) -> Option<Derived> {
    let master = Option::<G2Affine>::from(G2Affine::from_compressed(master))?;
    let mut tweak = hash_to_scalar(CANISTER_DOMAIN, &master.to_compressed(), canister);
    let mut public_key = G2Affine::from(G2Projective::from(master) + G2Projective::generator() * tweak);
    if !context.is_empty() {
        let more = hash_to_scalar(CONTEXT_DOMAIN, &public_key.to_compressed(), context);
        public_key = G2Affine::from(G2Projective::from(public_key) + G2Projective::generator() * more);
        tweak += more;
    }
    Some(Derived { public_key, tweak })
}

/// True for a point of G1 in compressed form.
pub fn is_transport_key(bytes: &[u8; TRANSPORT_KEY_BYTES]) -> bool {
    G1Affine::from_compressed(bytes).is_some().into()
}

/// The point that the vetKey for `input` is a multiple of: the input is hashed together with the public key.
pub fn input_point(public_key: &G2Affine, input: &[u8]) -> G1Projective {
    G1Projective::hash_to_curve(input, VETKEY_DOMAIN, &public_key.to_compressed())
}

/// Two inputs, each after its length in eight bytes, hashed to a scalar (RFC 9380: `hash_to_field` with 48 bytes).
fn hash_to_scalar(domain: &[u8], first: &[u8], second: &[u8]) -> Scalar {
    let length = |input: &[u8]| (input.len() as u64).to_be_bytes();
    let message = [&length(first), first, &length(second), second].concat();
    wide_scalar(&expand_message(domain, &message))
}

/// Bytes, most significant first, as a number modulo the order of the group. Their number is a multiple of eight.
pub fn wide_scalar(bytes: &[u8]) -> Scalar {
    let (words, _) = bytes.as_chunks::<8>();
    let shift = Scalar::from(1 << 32).square();
    let words = words.iter().map(|word| Scalar::from(u64::from_be_bytes(*word)));
    words.fold(Scalar::ZERO, |sum, word| sum * shift + word)
}

/// `expand_message_xmd` of RFC 9380 with SHA-256, for 48 bytes.
fn expand_message(domain: &[u8], message: &[u8]) -> Vec<u8> {
    const BYTES: u16 = 48;
    // A domain has fewer than 256 bytes: all of them are above.
    let domain = [domain, &[domain.len() as u8]].concat();
    let block = [0; 64];
    let first = Sha256::digest([&block[..], message, &BYTES.to_be_bytes(), &[0], &domain].concat());
    let mut output: Vec<u8> = Vec::new();
    let mut previous = [0; 32];
    for number in 1..=2_u8 {
        let mixed: Vec<u8> = first.iter().zip(previous).map(|(left, right)| left ^ right).collect();
        previous = Sha256::digest([&mixed[..], &[number], &domain].concat()).into();
        output.extend(previous);
    }
    output.truncate(BYTES.into());
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    /// Master key, and the keys derived from it, as the tests of the client library `ic-vetkeys` have them.
    #[test]
    fn keys_are_those_of_the_client_library() {
        let master = bytes(
            "9183b871aa141d15ba2efc5bc58a49cb6a167741364804617f48dfe11e0285696b7018f172dad1a87ed81abf27ea4c320995041e2ee4a4\
             7b2226a2439d92a38557a7e2acc72fd157283b20f1f37ba872be235214c6a9cbba1eb2ef39deec72a5",
        );
        let master = master.try_into().unwrap();
        let canister = derive(&master, b"test-canister-id", b"").unwrap().public_key;
        assert_eq!(
            canister.to_compressed()[..],
            bytes(
                "af78a908589d332fc8b9d042807c483e73872e2aea7620bdb985b9289d5a99ebfd5ac0ec4844a4c542f6d0f12a716d941674953cef\
                 4f38dde601ce9792db8832557eaa051733c5541fa5017465d69b62cc4d93f2079fb8c050b4bd735ef75859"
            )[..]
        );
        let context = derive(&master, b"test-canister-id", b"test-context")
            .unwrap()
            .public_key;
        assert_eq!(
            context.to_compressed()[..],
            bytes(
                "a20125b8cdfc57f71b6f67e557e82c1307c1af9f728573f3b682f3b1816684f3f6aed5d8dd40a309b457a25dab7d8a1416fc0e0973\
                 000321c0c1dd844d80a5708e81fdd8338ea6433f175992fa05ef343b1e7f89a09f3b5b7c0766ccb3c624cd"
            )[..]
        );
    }

    #[test]
    fn the_tweak_leads_from_the_secret_to_the_same_key() {
        let secret = Scalar::from(77);
        let master = G2Affine::from(G2Projective::generator() * secret).to_compressed();
        let derived = derive(&master, b"canister", b"context").unwrap();
        let child = G2Affine::from(G2Projective::generator() * (secret + derived.tweak));
        assert_eq!(child, derived.public_key);
        assert!(derive(&[0; PUBLIC_KEY_BYTES], b"", b"").is_none());
        assert!(!is_transport_key(&[1; TRANSPORT_KEY_BYTES]));
    }
}
