//! The equation of ZIP 215 over many signatures: `[8](-[Σ z·s]B + Σ [z]R + Σ [z·k]A) = 0`, where each signature has a
//! random `z` of its own. It holds if each of them does, and otherwise with a chance of 2^-128.
//!
//! The library that verifies single signatures has it, too, and computes the point of every key for it anew. Points of
//! recent keys are known here, so that a signature costs one square root instead of two.

use super::ed25519_keys::Ed25519Keys;
use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::CompressedEdwardsY;
use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
use curve25519_dalek::{EdwardsPoint, Scalar};
use sha2::{Digest, Sha512};
use std::collections::HashMap;

/// The sum over some signatures.
pub(super) struct Equation {
    /// Each point with its factor in `factors`; the base point comes first.
    points: Vec<EdwardsPoint>,
    factors: Vec<Scalar>,
    /// Where the point of a key is: signatures of one key share it.
    place_of_key: HashMap<[u8; 32], usize>,
}

impl Equation {
    /// One with room for so many signatures, and none yet.
    pub(super) fn with_capacity(signatures: usize) -> Self {
        let mut equation = Self {
            points: Vec::with_capacity(2 * signatures + 1),
            factors: Vec::with_capacity(2 * signatures + 1),
            place_of_key: HashMap::with_capacity(signatures),
        };
        equation.points.push(ED25519_BASEPOINT_POINT);
        equation.factors.push(Scalar::ZERO);
        equation
    }

    /// Adds a signature with the factor `random`, which nobody may be able to foresee. `None` if it has no form that could
    /// hold: a key or a commitment that is no point, or a response that is not below the group order.
    pub(super) fn add(
        &mut self,
        key: &[u8; 32],
        payload: &[u8],
        signature: &[u8; 64],
        random: u128,
        keys: &Ed25519Keys,
    ) -> Option<()> {
        let (commitment, response) = signature.split_first_chunk::<32>()?;
        let response = Option::<Scalar>::from(Scalar::from_canonical_bytes(response.try_into().ok()?))?;
        let challenge = Sha512::new()
            .chain_update(commitment)
            .chain_update(key)
            .chain_update(payload)
            .finalize();
        let challenge = Scalar::from_bytes_mod_order_wide(&challenge.into());
        let random = Scalar::from(random);
        let place = match self.place_of_key.get(key) {
            Some(place) => *place,
            None => {
                let place = self.push(keys.curve_point(key)?, Scalar::ZERO);
                self.place_of_key.insert(*key, place);
                place
            }
        };
        // Encodings that are not canonical count as what they denote.
        self.push(CompressedEdwardsY(*commitment).decompress()?, random);
        self.factors[0] -= random * response;
        self.factors[place] += random * challenge;
        Some(())
    }

    fn push(&mut self, point: EdwardsPoint, factor: Scalar) -> usize {
        self.points.push(point);
        self.factors.push(factor);
        self.points.len() - 1
    }

    /// True if all that were added are good.
    pub(super) fn holds(&self) -> bool {
        EdwardsPoint::vartime_multiscalar_mul(&self.factors, &self.points)
            .mul_by_cofactor()
            .is_identity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_zebra::{SigningKey, VerificationKeyBytes};

    /// One bad signature in whatever place, with few keys or many, and with points that are known or not.
    #[test]
    fn one_bad_signature_is_enough() {
        let keys = Ed25519Keys::new(true);
        for (count, users) in [(1_u8, 1_u8), (7, 7), (12, 3), (200, 5)] {
            let holds = |bad: Option<u8>| {
                let mut equation = Equation::with_capacity(usize::from(count));
                for number in 0..count {
                    let signer = SigningKey::from([number % users; 32]);
                    let mut signature = signer.sign(&[number]).to_bytes();
                    signature[33] ^= u8::from(bad == Some(number));
                    let key = VerificationKeyBytes::from(&signer).into();
                    let added = equation.add(&key, &[number], &signature, u128::from(number) << 70 | 1, &keys);
                    assert_eq!(added, Some(()), "the form is good");
                }
                equation.holds()
            };
            assert!(holds(None), "{count} signatures of {users}");
            for bad in [0, count / 2, count - 1] {
                assert!(!holds(Some(bad)), "{count} signatures of {users}, bad {bad}");
            }
        }
    }
}
