//! The two keys of a replica: the subnet's BLS key, which signs state roots, and the node's Ed25519 key, which signs
//! query responses. Both are made at the first start and stay in the state directory, sealed where that is encrypted.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use blst::BLST_ERROR;
use blst::min_sig::{PublicKey, SecretKey, Signature};
use replicore_persistence::StateDirectory;
use replicore_persistence::encryption::SealingKey;
use replicore_types::{NodeId, PrincipalId, SubnetId};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// File name of the subnet's key inside the state directory: 32 bytes, big endian; sealed where that is encrypted.
pub const ROOT_KEY_FILE: &str = "root_key";
/// File name of the node's key inside the state directory: the 32-byte seed.
pub const NODE_KEY_FILE: &str = "node_key";
/// Bytes of a BLS signature: a compressed point of G1.
pub const BLS_SIGNATURE_BYTES: usize = 48;

/// Why a key could not be had. The text says what to do about it.
#[derive(Debug)]
pub enum KeyError {
    /// The file could not be read or written.
    Io(PathBuf, io::Error),
    /// There is no such file, and the state in the directory was made with its key.
    Missing(PathBuf),
    /// Others than the owner may access the file; the permission bits found.
    Mode(PathBuf, u32),
    /// The file does not hold exactly one key.
    Length(PathBuf),
    /// The bytes are no key.
    Value(PathBuf),
    /// The file was not sealed with the key of its directory.
    Seal(PathBuf),
    /// The file holds no operator's key.
    Operator(PathBuf),
    /// The operator's key lies in the directory that it protects.
    Inside(PathBuf),
    /// The operating system gave no randomness.
    Randomness(getrandom::Error),
}

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "key file {}: {error}", path.display()),
            Self::Missing(path) => write!(
                f,
                "key file {} is missing, and clients trust the state by it: put the original back",
                path.display()
            ),
            Self::Mode(path, mode) => {
                write!(
                    f,
                    "key file {} has mode {mode:04o}: only its owner may access it (chmod 600)",
                    path.display()
                )
            }
            Self::Length(path) => write!(f, "key file {} is damaged: it must hold 32 bytes", path.display()),
            Self::Value(path) => write!(f, "key file {} is damaged: its bytes are no key", path.display()),
            Self::Seal(path) => write!(
                f,
                "key file {} is damaged, or was not written by this replica: put the original back",
                path.display()
            ),
            Self::Operator(path) => write!(
                f,
                "key file {} must hold 64 hexadecimal digits (make one: openssl rand -hex 32)",
                path.display()
            ),
            Self::Inside(path) => write!(
                f,
                "the encryption key {} lies in the state directory, where it protects nothing: keep it elsewhere",
                path.display()
            ),
            Self::Randomness(error) => write!(f, "no randomness for a new key: {error}"),
        }
    }
}

impl std::error::Error for KeyError {}

/// Where key files lie, and how: in clear, or sealed.
#[derive(Debug)]
pub struct KeyFolder<'a> {
    path: &'a Path,
    seal: Option<SealingKey>,
    /// Whether a key that is not there is made.
    makes_keys: bool,
}

impl<'a> From<&'a Path> for KeyFolder<'a> {
    /// Key files in clear.
    fn from(path: &'a Path) -> Self {
        Self {
            path,
            seal: None,
            makes_keys: true,
        }
    }
}

impl<'a> From<&'a StateDirectory> for KeyFolder<'a> {
    /// Key files of a state directory, sealed where it is encrypted.
    fn from(directory: &'a StateDirectory) -> Self {
        let cipher = directory.cipher("keys");
        Self {
            path: directory.path(),
            seal: cipher.map(|cipher| cipher.key("file", 0)),
            makes_keys: true,
        }
    }
}

impl KeyFolder<'_> {
    /// The same folder, beside a state that was made with its keys: one that is missing is an error. A new one would
    /// be another key, and lie in the place where the original belongs.
    #[must_use]
    pub fn of_a_state(self) -> Self {
        Self {
            makes_keys: false,
            ..self
        }
    }

    /// The 32 bytes of a key file; where there is none, it is made from a random seed.
    pub(crate) fn load_or_create(
        &self,
        name: &str,
        derive: impl FnOnce(&[u8; 32]) -> [u8; 32],
    ) -> Result<[u8; 32], KeyError> {
        let path = self.path.join(name);
        match File::open(&path) {
            Ok(file) => self.unseal(name, &path, load(&path, file)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.makes_keys => Err(KeyError::Missing(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed).map_err(KeyError::Randomness)?;
                let key = derive(&seed);
                let content = match &self.seal {
                    Some(seal) => seal.seal_file(name, &key),
                    None => key.to_vec(),
                };
                create(&path, &content).map_err(|error| KeyError::Io(path.clone(), error))?;
                Ok(key)
            }
            Err(error) => Err(KeyError::Io(path, error)),
        }
    }

    fn unseal(&self, name: &str, path: &Path, content: Vec<u8>) -> Result<[u8; 32], KeyError> {
        let key = match &self.seal {
            Some(seal) => seal
                .open_file(name, &content)
                .ok_or_else(|| KeyError::Seal(path.to_owned()))?,
            None => content,
        };
        key.try_into().map_err(|_| KeyError::Length(path.to_owned()))
    }
}

/// The subnet's key: BLS12-381 with signatures in G1. Holding one proves that its public key was derived from it.
pub struct RootKey {
    secret: SecretKey,
    public_key_der: Vec<u8>,
}

impl RootKey {
    /// The key of the state directory; made at the first call.
    pub fn load_or_create<'a>(folder: impl Into<KeyFolder<'a>>) -> Result<Self, KeyError> {
        let folder = folder.into();
        let bytes = folder.load_or_create(ROOT_KEY_FILE, |seed| {
            // The key derivation of the BLS standard spreads the seed evenly over the scalars.
            let Ok(secret) = SecretKey::key_gen(seed, &[]) else {
                return *seed;
            };
            secret.to_bytes()
        })?;
        let secret =
            SecretKey::from_bytes(&bytes).map_err(|_: BLST_ERROR| KeyError::Value(folder.path.join(ROOT_KEY_FILE)))?;
        Ok(Self::new(secret))
    }

    /// A key that follows from a seed: for tests and transcripts, whose certificates nobody trusts.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        let path = PathBuf::from("(seed)");
        SecretKey::key_gen(seed, &[])
            .map(Self::new)
            .map_err(|_: BLST_ERROR| KeyError::Value(path))
    }

    fn new(secret: SecretKey) -> Self {
        let public_key_der = [&BLS_DER_PREFIX[..], &secret.sk_to_pk().compress()].concat();
        Self { secret, public_key_der }
    }

    /// DER encoding of the public key, 133 bytes: the `root_key` that clients trust.
    pub fn public_key_der(&self) -> &[u8] {
        &self.public_key_der
    }

    /// The subnet whose key this is.
    pub fn subnet_id(&self) -> SubnetId {
        SubnetId(PrincipalId::self_authenticating(&self.public_key_der))
    }

    /// Signs the root of a state tree. About 0.2 ms.
    pub fn sign_root(&self, root_hash: &[u8; 32]) -> [u8; BLS_SIGNATURE_BYTES] {
        self.sign(&state_root_message(root_hash))
    }

    /// Signs bytes; the caller has put their domain in front.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; BLS_SIGNATURE_BYTES] {
        self.secret.sign(message, BLS_CIPHERSUITE, &[]).compress()
    }
}

/// What is signed of the root of a state tree.
pub(crate) fn state_root_message(root_hash: &[u8; 32]) -> Vec<u8> {
    [&STATE_ROOT_DOMAIN[..], root_hash].concat()
}

/// True where the subnet with this key has signed these bytes. About 1 ms.
pub(crate) fn verify_subnet_signature(public_key_der: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Some(public_key) = public_key_der.strip_prefix(&BLS_DER_PREFIX) else {
        return false;
    };
    let (Ok(public_key), Ok(signature)) = (
        PublicKey::key_validate(public_key),
        Signature::sig_validate(signature, true),
    ) else {
        return false;
    };
    let result = signature.verify(true, message, BLS_CIPHERSUITE, &[], &public_key, false);
    result == BLST_ERROR::BLST_SUCCESS
}

/// The node's key: Ed25519.
pub struct NodeKey {
    key: Ed25519KeyPair,
    public_key_der: Vec<u8>,
    node_id: NodeId,
}

impl NodeKey {
    /// The key of the state directory; made at the first call.
    pub fn load_or_create<'a>(folder: impl Into<KeyFolder<'a>>) -> Result<Self, KeyError> {
        let folder = folder.into();
        let seed = folder.load_or_create(NODE_KEY_FILE, |seed| *seed)?;
        let key =
            Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Value(folder.path.join(NODE_KEY_FILE)))?;
        let public_key_der = [&ED25519_DER_PREFIX[..], key.public_key().as_ref()].concat();
        Ok(Self {
            key,
            node_id: NodeId(PrincipalId::self_authenticating(&public_key_der)),
            public_key_der,
        })
    }

    /// DER encoding of the public key, 44 bytes.
    pub fn public_key_der(&self) -> &[u8] {
        &self.public_key_der
    }

    /// The node whose key this is.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Signs bytes; the caller has put their domain in front. About 8 µs, which is half of what a short query costs
    /// (decision 31).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        // An Ed25519 signature has 64 bytes.
        signature.copy_from_slice(self.key.sign(message).as_ref());
        signature
    }
}

fn load(path: &Path, mut file: File) -> Result<Vec<u8>, KeyError> {
    let failed = |error| KeyError::Io(path.to_owned(), error);
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode(path.to_owned(), mode));
    }
    let mut bytes = Vec::new();
    // One byte more than the longest that is right.
    (&mut file).take(65).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Writes a key so that the file either does not exist or is whole, whenever the machine stops.
fn create(path: &Path, key: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(key)?;
    file.sync_all()?;
    // A link fails where the key has come to exist meanwhile; a rename would replace it.
    std::fs::hard_link(&unfinished, path)?;
    std::fs::remove_file(&unfinished)?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

/// The BLS suite of the Internet Computer: signatures in G1, basic scheme.
pub(crate) const BLS_CIPHERSUITE: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";
/// Domain of signatures on state roots.
pub(crate) const STATE_ROOT_DOMAIN: &[u8; 14] = b"\x0dic-state-root";
/// SubjectPublicKeyInfo of a BLS key: algorithm 1.3.6.1.4.1.44668.5.3.1.2.1, curve 1.3.6.1.4.1.44668.5.3.2.1.
pub(crate) const BLS_DER_PREFIX: [u8; 37] = [
    0x30, 0x81, 0x82, 0x30, 0x1d, 0x06, 0x0d, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xdc, 0x7c, 0x05, 0x03, 0x01, 0x02,
    0x01, 0x06, 0x0c, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xdc, 0x7c, 0x05, 0x03, 0x02, 0x01, 0x03, 0x61, 0x00,
];
/// SubjectPublicKeyInfo of an Ed25519 key (RFC 8410).
pub(crate) const ED25519_DER_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
