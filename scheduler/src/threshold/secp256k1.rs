//! Derivation on secp256k1: BIP 32 without hardening, with path elements of any length.

use ring::hmac;
use secp256k1::{PublicKey, Scalar};

/// What a path leads to.
#[derive(Clone, Debug)]
pub struct Derived {
    /// The key.
    pub public_key: PublicKey,
    /// Entropy of the next derivation.
    pub chain_code: [u8; 32],
    /// What is to be added to the secret key, one after the other.
    pub tweaks: Vec<Scalar>,
}

/// Follows `path` from the key `master` (SEC1, compressed). `None` where that is no point of the curve.
pub fn derive(master: &[u8; 33], chain_code: [u8; 32], path: &[Vec<u8>]) -> Option<Derived> {
    let mut derived = Derived {
        public_key: PublicKey::from_byte_array_compressed(*master).ok()?,
        chain_code,
        tweaks: Vec::with_capacity(path.len()),
    };
    for element in path {
        derived.step(element);
    }
    Some(derived)
}

impl Derived {
    /// One derivation. The tweak is the left half of an HMAC; where that is no scalar, or leads to no key (in one of
    /// 2^127 cases), the right half takes the place of the key in another try, as in SLIP 10.
    fn step(&mut self, element: &[u8]) {
        let key = hmac::Key::new(hmac::HMAC_SHA512, &self.chain_code);
        let mut input = self.public_key.serialize();
        loop {
            let tag = hmac::sign(&key, &[&input, element].concat());
            let (mut left, mut right) = ([0; 32], [0; 32]);
            left.copy_from_slice(&tag.as_ref()[..32]);
            right.copy_from_slice(&tag.as_ref()[32..]);
            if let Ok(tweak) = Scalar::from_be_bytes(left)
                && let Ok(public_key) = self.public_key.add_exp_tweak(&tweak)
            {
                self.public_key = public_key;
                self.chain_code = right;
                self.tweaks.push(tweak);
                return;
            }
            input[0] = 1;
            input[1..].copy_from_slice(&right);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secp256k1::SecretKey;

    /// The second test vector of BIP 32, from `m` to `m/0`.
    #[test]
    fn four_byte_elements_are_those_of_bip_32() {
        let bytes = |text: &str| -> Vec<u8> {
            let digits = text.as_bytes().chunks(2);
            digits
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect()
        };
        let parent = bytes("03cbcaa9c98c877a26977d00825c956a238e8dddfbd322cce4f74b0b5bd6ace4a7");
        let chain_code = bytes("60499f801b896d83179a4374aeb7822aaeaceaa0db1f85ee3e904c4defbd9689");
        let derived = derive(
            &parent.try_into().unwrap(),
            chain_code.try_into().unwrap(),
            &[vec![0, 0, 0, 0]],
        );
        let derived = derived.unwrap();
        let child = bytes("02fc9e5af0ac8d9b3cecfe2a888e2117ba3d089d8585886c9c826b6b22a98d12ea");
        let child_code = bytes("f0909affaa7ee7abe5dd4e100598d4dc53cd709d5a5c2cac40e7412f232f7c9c");
        assert_eq!(derived.public_key.serialize()[..], child[..]);
        assert_eq!(derived.chain_code[..], child_code[..]);
    }

    #[test]
    fn tweaks_lead_from_the_secret_to_the_same_key() {
        let secret = SecretKey::from_secret_bytes([5; 32]).unwrap();
        let path = [vec![], b"any length at all".to_vec(), vec![0xff; 300]];
        let derived = derive(&secret.public_key().serialize(), [0; 32], &path).unwrap();
        let tweaks = derived.tweaks.iter();
        let child = tweaks.fold(secret, |key, tweak| key.add_tweak(tweak).unwrap());
        assert_eq!(child.public_key(), derived.public_key);
        assert!(derive(&[2; 33], [0; 32], &path[..1]).is_some_and(|other| other.public_key != derived.public_key));
        assert!(derive(&[9; 33], [0; 32], &[]).is_none());
    }
}
