//! Derivation for Ed25519: the scheme of the interface specification, "Ed25519 hierarchical key derivation". It knows
//! no clamping, so secret keys are plain scalars.

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use ring::hkdf;

/// What a path leads to.
#[derive(Clone, Debug)]
pub struct Derived {
    /// The key.
    pub public_key: [u8; 32],
    /// Entropy of the next derivation.
    pub chain_code: [u8; 32],
    /// What is to be added to the secret scalar.
    pub tweak: Scalar,
}

/// Follows `path` from the key `master`. `None` where that is no point of the curve.
pub fn derive(master: &[u8; 32], chain_code: [u8; 32], path: &[Vec<u8>]) -> Option<Derived> {
    let mut point = CompressedEdwardsY(*master).decompress()?;
    let mut derived = Derived {
        public_key: *master,
        chain_code,
        tweak: Scalar::ZERO,
    };
    for element in path {
        let (tweak, chain_code) = step(&derived.public_key, &derived.chain_code, element)?;
        point += EdwardsPoint::mul_base(&tweak);
        derived = Derived {
            public_key: point.compress().0,
            chain_code,
            tweak: derived.tweak + tweak,
        };
    }
    Some(derived)
}

/// Bytes of HKDF output for one step: a tweak of 64, most significant first, and a chain code of 32.
struct Output;

impl hkdf::KeyType for Output {
    fn len(&self) -> usize {
        96
    }
}

/// Tweak and next chain code. Never `None`: the output is shorter than HKDF can give.
fn step(public_key: &[u8; 32], chain_code: &[u8; 32], element: &[u8]) -> Option<(Scalar, [u8; 32])> {
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA512, chain_code).extract(&[public_key, element].concat());
    let mut output = [0; 96];
    secret.expand(&[b"Ed25519"], Output).ok()?.fill(&mut output).ok()?;
    let (mut tweak, mut next) = ([0; 64], [0; 32]);
    tweak.copy_from_slice(&output[..64]);
    next.copy_from_slice(&output[64..]);
    // The library reads the least significant byte first.
    tweak.reverse();
    Some((Scalar::from_bytes_mod_order_wide(&tweak), next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tweak_leads_from_the_secret_to_the_same_key() {
        let secret = Scalar::from_bytes_mod_order([9; 32]);
        let master = EdwardsPoint::mul_base(&secret).compress().0;
        let path = [b"canister".to_vec(), vec![], vec![7; 100]];
        let derived = derive(&master, [0; 32], &path).unwrap();
        let child = EdwardsPoint::mul_base(&(secret + derived.tweak));
        assert_eq!(child.compress().0, derived.public_key);
        let parent = derive(&master, [0; 32], &path[..2]).unwrap();
        let rest = derive(&parent.public_key, parent.chain_code, &path[2..]).unwrap();
        assert_eq!(
            rest.public_key, derived.public_key,
            "derivation goes element by element"
        );
    }

    /// Expected values: a separate implementation of the specification's text with plain integers (Python).
    #[test]
    fn keys_are_those_of_the_specification() {
        let master = EdwardsPoint::mul_base(&Scalar::from(5_u64)).compress().0;
        let derived = derive(&master, [0; 32], &[vec![1, 2, 3], vec![]]).unwrap();
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        assert_eq!(
            hex(&derived.public_key),
            "229e806e7bf2b2d91be17b61246e36e22206edd106ee441449734628efb63ca1"
        );
        assert_eq!(
            hex(&derived.chain_code),
            "3bb88e4ea21fd07a1dc81169a2613896730d049e167077044314f4ec0e8dd722"
        );
    }
}
