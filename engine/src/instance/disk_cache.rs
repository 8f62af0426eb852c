//! Machine code on disk: one file a module, named by everything that the code depends on.
//!
//! A file that is absent, unreadable or made by another engine is compiled again; a full disk costs time, nothing else.

use sha2::{Digest, Sha256};
use std::hash::{Hash, Hasher};
use std::path::PathBuf;
use wasmtime::{Engine, Module};

/// Changes when instrumentation changes, so that code made from differently instrumented modules is not found.
const INSTRUMENTATION_VERSION: u32 = 3;

/// A folder of machine code that only this program writes.
pub(super) struct DiskCache {
    folder: PathBuf,
    engine_key: u64,
}

impl DiskCache {
    pub(super) fn new(folder: PathBuf, engine: &Engine) -> Self {
        let mut hasher = std::collections::hash_map::DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        INSTRUMENTATION_VERSION.hash(&mut hasher);
        Self {
            folder,
            engine_key: hasher.finish(),
        }
    }

    pub(super) fn load(&self, engine: &Engine, module_hash: &[u8; 32]) -> Option<Module> {
        let path = self.path(module_hash);
        if !path.exists() {
            return None;
        }
        // SAFETY: the folder belongs to this process, which writes into it nothing but the output of
        // `Module::serialize` under names that hold the engine's settings, and whole files only (written aside, then
        // renamed). The file is not changed while it is mapped: a name is written once and never truncated.
        unsafe { Module::deserialize_file(engine, path) }.ok()
    }

    pub(super) fn store(&self, module: &Module, module_hash: &[u8; 32]) {
        let Ok(bytes) = module.serialize() else { return };
        let path = self.path(module_hash);
        let aside = path.with_extension(format!("{:?}.part", std::thread::current().id()));
        let written = std::fs::create_dir_all(&self.folder)
            .and_then(|()| std::fs::write(&aside, bytes))
            .and_then(|()| std::fs::rename(&aside, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&aside);
        }
    }

    fn path(&self, module_hash: &[u8; 32]) -> PathBuf {
        let mut hasher = Sha256::new();
        hasher.update(module_hash);
        hasher.update(self.engine_key.to_le_bytes());
        let name: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(name)
    }
}
