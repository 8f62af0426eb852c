//! Keys that follow from keys, and sealing with them.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use std::fmt;

/// Bytes of a nonce.
pub(crate) const NONCE_BYTES: usize = 12;
/// Bytes of a tag, which what is sealed is longer by.
pub(crate) const TAG_BYTES: usize = 16;

/// The data key of a state directory, or one that follows from it for a part of the directory.
#[derive(Clone)]
pub struct Cipher([u8; 32]);

impl Cipher {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The cipher of a part of the directory: parts cannot read each other's files.
    #[must_use]
    pub fn part(&self, name: &str) -> Self {
        Self(derive("replicore state directory: key of a part", &self.0, name, 0))
    }

    /// The key for one purpose within the part; `number` tells files apart.
    pub fn key(&self, purpose: &str, number: u64) -> SealingKey {
        let key = derive("replicore state directory: sealing key", &self.0, purpose, number);
        let nonces = derive("replicore state directory: nonce key", &self.0, purpose, number);
        let unbound = UnboundKey::new(&AES_256_GCM, &key).expect("a key of this cipher has 32 bytes");
        SealingKey {
            aead: LessSafeKey::new(unbound),
            nonces,
        }
    }
}

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(..)")
    }
}

/// Seals and opens bytes of one file and purpose.
pub struct SealingKey {
    aead: LessSafeKey,
    /// Key of the hash that nonces are.
    nonces: [u8; 32],
}

impl SealingKey {
    /// Encrypts `bytes` in place; the nonce and the tag are needed to open them again.
    pub(crate) fn seal(&self, place: &[u8], bytes: &mut [u8]) -> ([u8; NONCE_BYTES], [u8; TAG_BYTES]) {
        let nonce = self.nonce(place, bytes);
        (nonce, self.seal_with(nonce, place, bytes))
    }

    /// The same for bytes that have a digest which the reader knows: it knows the nonce too.
    pub(crate) fn seal_known(&self, place: &[u8], digest: &[u8; 32], bytes: &mut [u8]) -> [u8; TAG_BYTES] {
        self.seal_with(self.nonce(place, digest), place, bytes)
    }

    /// Opens what [`SealingKey::seal`] made, the tag behind it. `None` where it is not what was sealed at this place.
    pub(crate) fn open<'a>(&self, place: &[u8], nonce: [u8; NONCE_BYTES], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.aead.open_in_place(nonce, Aad::from(place), sealed);
        opened.ok().map(|bytes| &*bytes)
    }

    /// Opens what [`SealingKey::seal_known`] made, the tag behind it.
    pub(crate) fn open_known<'a>(&self, place: &[u8], digest: &[u8; 32], sealed: &'a mut [u8]) -> Option<&'a [u8]> {
        self.open(place, self.nonce(place, digest), sealed)
    }

    /// Nonce, sealed bytes, tag: for what lies in a file of its own. `name` is that of the file.
    pub fn seal_file(&self, name: &str, bytes: &[u8]) -> Vec<u8> {
        let mut sealed = bytes.to_vec();
        let (nonce, tag) = self.seal(name.as_bytes(), &mut sealed);
        [&nonce[..], &sealed, &tag].concat()
    }

    /// What [`SealingKey::seal_file`] sealed under this name; `None` where it is something else.
    pub fn open_file(&self, name: &str, file: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = file.split_first_chunk()?;
        self.open(name.as_bytes(), *nonce, &mut sealed.to_vec())
            .map(<[u8]>::to_vec)
    }

    fn seal_with(&self, nonce: [u8; NONCE_BYTES], place: &[u8], bytes: &mut [u8]) -> [u8; TAG_BYTES] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.aead.seal_in_place_separate_tag(nonce, Aad::from(place), bytes);
        let tag = tag.expect("no piece is as long as the cipher's bound, 64 GiB");
        tag.as_ref().try_into().expect("a tag of this cipher has 16 bytes")
    }

    /// Two contents at one place, or one content at two, have different nonces but for an accident in 2^96.
    fn nonce(&self, place: &[u8], content: &[u8]) -> [u8; NONCE_BYTES] {
        let mut hasher = blake3::Hasher::new_keyed(&self.nonces);
        hasher.update(&(place.len() as u64).to_le_bytes());
        hasher.update(place);
        hasher.update(content);
        *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer")
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

fn derive(context: &str, key: &[u8; 32], purpose: &str, number: u64) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(key);
    hasher.update(&number.to_le_bytes());
    hasher.update(purpose.as_bytes());
    *hasher.finalize().as_bytes()
}
