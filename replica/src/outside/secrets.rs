//! The secrets behind the subnet's threshold keys, all derived from one seed, and what is made with them.
//!
//! One process holds what the nodes of a public subnet hold in shares. Keys and results are those that any client
//! library verifies; the security is that of one file.

use crate::certification::{KeyError, KeyFolder};
use blstrs::{G1Affine, G1Projective, G2Affine, G2Projective};
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar as EdScalar;
use group::Group;
use replicore_scheduler::management::threshold_reply;
use replicore_scheduler::threshold::{
    self, MASTER_CHAIN_CODE, MasterPublicKeys, ThresholdOperation, ThresholdRequest, ed25519, secp256k1 as derivation,
    vetkd,
};
use replicore_types::{CanisterId, Payload, ThresholdAlgorithm, ThresholdKeyId, ThresholdKeys};
use secp256k1::{Keypair, Message, Scalar, SecretKey};
use sha2::{Digest, Sha256, Sha512};

/// File name of the seed inside the state directory: 32 bytes, sealed where that is encrypted.
pub const THRESHOLD_SEED_FILE: &str = "threshold_seed";
/// Separates what is derived from the seed from all other uses of hashes.
const DOMAIN: &[u8] = b"replicore threshold key\x01";

/// The seed of all threshold keys of a subnet.
pub struct ThresholdSecrets {
    seed: [u8; 32],
}

impl ThresholdSecrets {
    /// The secrets of the state directory; the seed is made at the first call.
    ///
    /// # Errors
    /// As for the other key files: the file cannot be read or made, or others than its owner may access it.
    pub fn load_or_create<'a>(folder: impl Into<KeyFolder<'a>>) -> Result<Self, KeyError> {
        let seed = folder.into().load_or_create(THRESHOLD_SEED_FILE, |seed| *seed)?;
        Ok(Self::from_seed(seed))
    }

    /// The secrets that follow from a seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { seed }
    }

    /// The public keys of `keys`: what the state of the subnet begins with.
    pub fn public_keys(&self, keys: &ThresholdKeys) -> MasterPublicKeys {
        let public_key = |key: ThresholdKeyId| match key.algorithm {
            ThresholdAlgorithm::EcdsaSecp256k1 | ThresholdAlgorithm::SchnorrBip340 => {
                self.secp256k1(key).public_key().serialize().to_vec()
            }
            ThresholdAlgorithm::SchnorrEd25519 => EdwardsPoint::mul_base(&self.ed25519(key)).compress().0.to_vec(),
            ThresholdAlgorithm::VetKdBls12381G2 => g2(self.bls(key)).to_vec(),
        };
        keys.iter().map(|key| (key, public_key(key).into())).collect()
    }

    /// Makes what `caller` asked for, as Candid. `None` where it cannot be made, which the checks before rule out.
    pub fn answer(&self, caller: CanisterId, request: &ThresholdRequest) -> Option<Payload> {
        let key = request.key;
        let bytes = match (&request.operation, key.algorithm) {
            (ThresholdOperation::SignHash { path, message_hash }, ThresholdAlgorithm::EcdsaSecp256k1) => {
                let secret = self.derived_secp256k1(key, caller, path)?;
                secret
                    .sign_ecdsa(Message::from_digest(*message_hash))
                    .serialize_compact()
                    .to_vec()
            }
            (
                ThresholdOperation::SignMessage {
                    path,
                    message,
                    merkle_root,
                },
                ThresholdAlgorithm::SchnorrBip340,
            ) => {
                let secret = self.derived_secp256k1(key, caller, path)?;
                sign_bip340(secret, message, merkle_root.as_deref())?
            }
            (ThresholdOperation::SignMessage { path, message, .. }, ThresholdAlgorithm::SchnorrEd25519) => {
                self.sign_ed25519(key, caller, path, message)?
            }
            (
                ThresholdOperation::DeriveVetKey {
                    context,
                    input,
                    transport_public_key,
                },
                ThresholdAlgorithm::VetKdBls12381G2,
            ) => self.encrypted_vetkey(key, caller, context, input, transport_public_key)?,
            _ => return None,
        };
        threshold_reply(&request.operation, bytes).ok()
    }

    /// 64 bytes that follow from the seed, the key's name and a number.
    fn material(&self, key: ThresholdKeyId, number: u32) -> [u8; 64] {
        let mut hash = Sha512::new();
        hash.update(DOMAIN);
        hash.update(self.seed);
        hash.update(number.to_be_bytes());
        hash.update(key.to_string());
        hash.finalize().into()
    }

    fn secp256k1(&self, key: ThresholdKeyId) -> SecretKey {
        // All but one of 2^127 tries give a key.
        (0..)
            .find_map(|number| {
                let mut bytes = [0; 32];
                bytes.copy_from_slice(&self.material(key, number)[..32]);
                SecretKey::from_secret_bytes(bytes).ok()
            })
            .expect("one of 2^32 hashes is a scalar")
    }

    fn ed25519(&self, key: ThresholdKeyId) -> EdScalar {
        EdScalar::from_bytes_mod_order_wide(&self.material(key, 0))
    }

    fn bls(&self, key: ThresholdKeyId) -> blstrs::Scalar {
        vetkd::wide_scalar(&self.material(key, 0))
    }

    fn derived_secp256k1(&self, key: ThresholdKeyId, caller: CanisterId, path: &[Vec<u8>]) -> Option<SecretKey> {
        let master = self.secp256k1(key);
        let path = threshold::with_canister(caller, path);
        let derived = derivation::derive(&master.public_key().serialize(), MASTER_CHAIN_CODE, &path)?;
        let mut tweaks = derived.tweaks.iter();
        tweaks.try_fold(master, |secret, tweak| secret.add_tweak(tweak).ok())
    }

    /// RFC 8032, 5.1.6, from a scalar instead of a seed: the nonce is a hash of a secret prefix and the message.
    fn sign_ed25519(
        &self,
        key: ThresholdKeyId,
        caller: CanisterId,
        path: &[Vec<u8>],
        message: &[u8],
    ) -> Option<Vec<u8>> {
        let master = self.ed25519(key);
        let public = EdwardsPoint::mul_base(&master).compress().0;
        let derived = ed25519::derive(&public, MASTER_CHAIN_CODE, &threshold::with_canister(caller, path))?;
        let secret = master + derived.tweak;
        let hashed = |parts: &[&[u8]]| {
            let digest: [u8; 64] = Sha512::digest(parts.concat()).into();
            EdScalar::from_bytes_mod_order_wide(&digest)
        };
        let nonce = hashed(&[&self.material(key, 1), secret.as_bytes(), message]);
        let commitment = EdwardsPoint::mul_base(&nonce).compress().0;
        let challenge = hashed(&[&commitment, &derived.public_key, message]);
        let response = nonce + challenge * secret;
        Some([&commitment[..], response.as_bytes()].concat())
    }

    /// `E1 · E2 · E3` with `E1 = g1^r`, `E2 = g2^r`, `E3 = tpk^r * vetkey`. The blinding `r` follows from the secret and
    /// everything that the key depends on: it repeats only where the whole result does.
    fn encrypted_vetkey(
        &self,
        key: ThresholdKeyId,
        caller: CanisterId,
        context: &[u8],
        input: &[u8],
        transport_key: &[u8],
    ) -> Option<Vec<u8>> {
        let master = self.bls(key);
        let derived = vetkd::derive(&g2(master), caller.as_slice(), context)?;
        let transport: G1Affine = Option::from(G1Affine::from_compressed(transport_key.try_into().ok()?))?;
        let secret = master + derived.tweak;
        let vetkey = vetkd::input_point(&derived.public_key, input) * secret;
        let mut hash = Sha512::new();
        hash.update(self.material(key, 1));
        hash.update(secret.to_bytes_be());
        hash.update(transport_key);
        hash.update(input);
        let blinding = vetkd::wide_scalar(&hash.finalize());
        let first = G1Affine::from(G1Projective::generator() * blinding);
        let third = G1Affine::from(G1Projective::from(transport) * blinding + vetkey);
        Some([&first.to_compressed()[..], &g2(blinding), &third.to_compressed()].concat())
    }
}

/// BIP 340; with a root of a script tree, by the key tweaked as BIP 341 has it.
fn sign_bip340(secret: SecretKey, message: &[u8], merkle_root: Option<&[u8]>) -> Option<Vec<u8>> {
    let mut keys = Keypair::from_secret_key(&secret);
    if let Some(root) = merkle_root {
        let (internal, _) = keys.x_only_public_key();
        let tag = Sha256::digest(b"TapTweak");
        let tweak = Sha256::digest([&tag[..], &tag, &internal.to_byte_array(), root].concat());
        keys = keys.add_xonly_tweak(&Scalar::from_be_bytes(tweak.into()).ok()?).ok()?;
    }
    Some(keys.sign_schnorr_no_aux_rand(message).to_byte_array().to_vec())
}

/// The generator of G2 times a scalar, compressed.
fn g2(scalar: blstrs::Scalar) -> [u8; vetkd::PUBLIC_KEY_BYTES] {
    G2Affine::from(G2Projective::generator() * scalar).to_compressed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicore_types::KeyName;

    fn secrets() -> ThresholdSecrets {
        ThresholdSecrets::from_seed([3; 32])
    }

    fn key(algorithm: ThresholdAlgorithm) -> ThresholdKeyId {
        ThresholdKeyId {
            algorithm,
            name: KeyName::TestKey1,
        }
    }

    fn caller() -> CanisterId {
        CanisterId::from_index(7)
    }

    fn public_key(algorithm: ThresholdAlgorithm, path: &[Vec<u8>]) -> Vec<u8> {
        let master = &secrets().public_keys(&ThresholdKeys::ALL)[&key(algorithm)];
        threshold::extended_public_key(algorithm, master, caller(), path)
            .unwrap()
            .public_key
    }

    #[derive(candid::CandidType, candid::Deserialize)]
    struct Signed {
        signature: serde_bytes::ByteBuf,
    }

    #[derive(candid::CandidType, candid::Deserialize)]
    struct Derived {
        encrypted_key: serde_bytes::ByteBuf,
    }

    fn sign(algorithm: ThresholdAlgorithm, operation: ThresholdOperation) -> Vec<u8> {
        let key = key(algorithm);
        let reply = secrets()
            .answer(caller(), &ThresholdRequest { key, operation })
            .unwrap();
        candid::decode_one::<Signed>(&reply).unwrap().signature.into_vec()
    }

    #[test]
    fn ecdsa_signatures_verify_with_the_derived_key() {
        let path = vec![b"one".to_vec(), vec![]];
        let algorithm = ThresholdAlgorithm::EcdsaSecp256k1;
        let message_hash = Sha256::digest(b"message").into();
        let operation = ThresholdOperation::SignHash {
            path: path.clone(),
            message_hash,
        };
        let signature = sign(algorithm, operation);
        let public_key = secp256k1::PublicKey::from_slice(&public_key(algorithm, &path)).unwrap();
        let mut compact = secp256k1::ecdsa::Signature::from_compact(&signature).unwrap();
        assert!(public_key.verify(Message::from_digest(message_hash), &compact).is_ok());
        assert!(public_key.verify(Message::from_digest([0; 32]), &compact).is_err());
        compact.normalize_s();
        assert_eq!(
            compact.serialize_compact()[..],
            signature[..],
            "s is the lower of the two"
        );
    }

    #[test]
    fn bip340_signatures_verify_with_and_without_a_script_tree() {
        let algorithm = ThresholdAlgorithm::SchnorrBip340;
        let public_key = secp256k1::PublicKey::from_slice(&public_key(algorithm, &[])).unwrap();
        let (internal, _) = public_key.x_only_public_key();
        for root in [None, Some(vec![]), Some(vec![5; 32])] {
            let operation = ThresholdOperation::SignMessage {
                path: vec![],
                message: b"of any length"[..].into(),
                merkle_root: root.clone(),
            };
            let signature: [u8; 64] = sign(algorithm, operation).try_into().unwrap();
            let signature = secp256k1::schnorr::Signature::from_byte_array(signature);
            let key = match root {
                None => internal,
                Some(root) => {
                    let tag = Sha256::digest(b"TapTweak");
                    let tweak = Sha256::digest([&tag[..], &tag, &internal.to_byte_array(), &root].concat());
                    let tweak = Scalar::from_be_bytes(tweak.into()).unwrap();
                    internal.add_tweak(&tweak).unwrap().0
                }
            };
            assert!(key.verify(b"of any length", &signature).is_ok());
            assert!(key.verify(b"of any lengtH", &signature).is_err());
        }
    }

    #[test]
    fn ed25519_signatures_verify_with_the_derived_key() {
        let algorithm = ThresholdAlgorithm::SchnorrEd25519;
        let path = vec![vec![1, 2, 3]];
        let operation = ThresholdOperation::SignMessage {
            path: path.clone(),
            message: b"message"[..].into(),
            merkle_root: None,
        };
        let signature: [u8; 64] = sign(algorithm, operation).try_into().unwrap();
        let key: [u8; 32] = public_key(algorithm, &path).try_into().unwrap();
        let key = ed25519_zebra::VerificationKey::try_from(key).unwrap();
        assert!(key.verify(&signature.into(), b"message").is_ok());
        assert!(key.verify(&signature.into(), b"massage").is_err());
    }

    #[test]
    fn vetkeys_decrypt_and_verify_as_bls_signatures() {
        let algorithm = ThresholdAlgorithm::VetKdBls12381G2;
        let transport = blstrs::Scalar::from(12_345);
        let operation = ThresholdOperation::DeriveVetKey {
            context: b"context"[..].into(),
            input: b"input"[..].into(),
            transport_public_key: G1Affine::from(G1Projective::generator() * transport).to_compressed()[..].into(),
        };
        let key = key(algorithm);
        let reply = secrets()
            .answer(caller(), &ThresholdRequest { key, operation })
            .unwrap();
        let encrypted = candid::decode_one::<Derived>(&reply).unwrap().encrypted_key;
        let point = |bytes: &[u8]| G1Affine::from_compressed(bytes.try_into().unwrap()).unwrap();
        let (first, third) = (point(&encrypted[..48]), point(&encrypted[144..]));
        let vetkey = G1Affine::from(G1Projective::from(third) - G1Projective::from(first) * transport);
        let master = secrets().public_keys(&ThresholdKeys::ALL)[&key].to_vec();
        let derived = vetkd::derive(&master.try_into().unwrap(), caller().as_slice(), b"context").unwrap();
        let public_key = derived.public_key.to_compressed();
        // The verifier of another library: a BLS signature in the message-augmentation scheme.
        let signature = blst::min_sig::Signature::from_bytes(&vetkey.to_compressed()).unwrap();
        let verifier = blst::min_sig::PublicKey::from_bytes(&public_key).unwrap();
        let domain = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_AUG_";
        let verify = |input: &[u8]| signature.verify(true, input, domain, &public_key, &verifier, true);
        assert_eq!(verify(b"input"), blst::BLST_ERROR::BLST_SUCCESS);
        assert_ne!(verify(b"other"), blst::BLST_ERROR::BLST_SUCCESS);
    }

    #[test]
    fn every_key_is_another_one() {
        let keys = secrets().public_keys(&ThresholdKeys::ALL);
        let different: std::collections::BTreeSet<_> = keys.values().collect();
        assert_eq!((keys.len(), different.len()), (12, 12));
        assert_eq!(keys, secrets().public_keys(&ThresholdKeys::ALL));
        assert_ne!(
            keys,
            ThresholdSecrets::from_seed([4; 32]).public_keys(&ThresholdKeys::ALL)
        );
    }
}
