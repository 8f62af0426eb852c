//! Prepared modules on disk, named by everything that they depend on: two files a module, its facts and its machine
//! code, so that a module that was here before is neither validated nor compiled again. The facts hold the digest of the
//! code: a damaged file is never executed.
//!
//! What is absent, unreadable or made by another engine is prepared again; a full disk costs time, nothing else.

use super::prepared::Prepared;
use crate::module::WriteTracking;
use sha2::{Digest, Sha256};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use wasmtime::{Engine, Module};

/// Changes when validation or instrumentation change, so that modules prepared otherwise are not found.
const INSTRUMENTATION_VERSION: u32 = 10;

/// Bytes of each of the two hashes at the start of a file of facts: of all that follows, and of the code.
const HASH_BYTES: usize = 32;

/// A folder of prepared modules that only this program writes.
pub(super) struct DiskCache {
    folder: PathBuf,
    engine_key: u64,
}

impl DiskCache {
    pub(super) fn new(folder: PathBuf, engine: &Engine, tracking: WriteTracking) -> Self {
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        INSTRUMENTATION_VERSION.hash(&mut hasher);
        tracking.hash(&mut hasher);
        Self {
            folder,
            engine_key: hasher.finish(),
        }
    }

    /// Machine code and the encoded facts, which [`DiskCache::facts`] reads.
    pub(super) fn load(&self, engine: &Engine, module_hash: &[u8; 32]) -> Option<(Module, Vec<u8>)> {
        let name = self.name(module_hash);
        let facts = std::fs::read(self.folder.join(&name).with_extension("facts")).ok()?;
        let path = self.folder.join(&name).with_extension("code");
        let code_hash = checked(&facts)?.get(..HASH_BYTES)?;
        if blake3::hash(&std::fs::read(&path).ok()?).as_bytes() != code_hash {
            return None;
        }
        // SAFETY: the folder belongs to this process, which writes into it nothing but the output of
        // `Engine::precompile_module` under names that hold the engine's settings, and whole files only (written aside, then
        // renamed); what the disk has made of it since was compared with its digest above. The file is not changed while
        // it is mapped: a name is written once and never truncated.
        let code = unsafe { Module::deserialize_file(engine, path) }.ok()?;
        Some((code, facts))
    }

    /// Reads what [`DiskCache::load`] gave; `None` where it is damaged.
    pub(super) fn facts(bytes: &[u8]) -> Option<Prepared<'_>> {
        postcard::from_bytes(checked(bytes)?.get(HASH_BYTES..)?).ok()
    }

    /// Keeps what the engine of this cache made of a module.
    pub(super) fn store(&self, code: &[u8], module_hash: &[u8; 32], facts: &Prepared<'_>) {
        let Ok(encoded) = postcard::to_stdvec(facts) else {
            return;
        };
        let content = [&blake3::hash(code).as_bytes()[..], &encoded].concat();
        let facts = [&Sha256::digest(&content)[..], &content].concat();
        let path = self.folder.join(self.name(module_hash));
        write(&path.with_extension("facts"), &facts);
        write(&path.with_extension("code"), code);
    }

    fn name(&self, module_hash: &[u8; 32]) -> String {
        let mut hasher = Sha256::new();
        hasher.update(module_hash);
        hasher.update(self.engine_key.to_le_bytes());
        hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// What follows the first hash of a file of facts; `None` where it is not what was written.
fn checked(facts: &[u8]) -> Option<&[u8]> {
    let (hash, content) = facts.split_at_checked(HASH_BYTES)?;
    (Sha256::digest(content).as_slice() == hash).then_some(content)
}

/// Writes a whole file or none.
fn write(path: &Path, bytes: &[u8]) {
    let aside = path.with_extension(format!("{:?}.part", std::thread::current().id()));
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&aside, bytes))
        .and_then(|()| std::fs::rename(&aside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
}
