//! The files of a store's directory.

use super::format::{SLOT_BYTES, SLOT_COUNT, Superblock};
use super::load::Loader;
use super::stored::{Generation, GenerationSeal, SUSPECT_FILE};
use crate::disk::{CrashPoint, Disk, DiskFile};
use crate::encryption::{Cipher, ClearPages, SealingKey};
use crate::error::{PersistenceError, Result};
use crate::sys::mapping::MappedFile;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Where a store is.
#[derive(Debug)]
pub(super) struct Layout {
    pub disk: Arc<dyn Disk>,
    pub directory: PathBuf,
    /// There where the store is encrypted.
    pub seal: Option<StoreSeal>,
}

/// The keys of a store.
#[derive(Debug)]
pub(super) struct StoreSeal {
    cipher: Cipher,
    /// Superblocks are not secret, but nobody else may write them.
    pub superblocks: SealingKey,
    clear_pages: Arc<ClearPages>,
}

impl StoreSeal {
    pub(super) fn new(cipher: &Cipher) -> Self {
        Self {
            cipher: cipher.clone(),
            superblocks: cipher.key("superblocks", 0),
            clear_pages: Arc::new(ClearPages::new()),
        }
    }
}

/// A generation's files, for appending and for reading.
#[derive(Clone, Debug)]
pub(super) struct GenerationFiles {
    pub generation: Arc<Generation>,
    pub pages: Arc<dyn DiskFile>,
    pub records: Arc<dyn DiskFile>,
}

impl Layout {
    /// The key that superblocks are written and read with.
    pub(super) fn superblock_key(&self) -> Option<&SealingKey> {
        self.seal.as_ref().map(|seal| &seal.superblocks)
    }

    /// The superblock file, made with two empty slots where there is none.
    pub(super) fn open_superblocks(&self) -> Result<Arc<dyn DiskFile>> {
        let path = self.superblocks_path();
        let file = match self.disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.disk.create(&path).map_err(PersistenceError::io(&path, "create"))?
            }
            Err(error) => return Err(PersistenceError::io(&path, "open")(error)),
        };
        let len = file.bytes_len().map_err(PersistenceError::io(&path, "read"))?;
        if len < SLOT_BYTES * SLOT_COUNT {
            file.allocate(SLOT_BYTES * SLOT_COUNT)
                .map_err(PersistenceError::io(&path, "reserve space for"))?;
            file.sync().map_err(PersistenceError::io(&path, "sync"))?;
            self.sync_directory()?;
        }
        Ok(file)
    }

    pub(super) fn create_generation(&self, number: u64) -> Result<GenerationFiles> {
        let create = |path: PathBuf| self.disk.create(&path).map_err(PersistenceError::io(&path, "create"));
        let (pages, records) = (create(self.pages_path(number))?, create(self.records_path(number))?);
        self.disk.reached(CrashPoint::GenerationCreated);
        self.sync_directory()?;
        self.with_mappings(number, pages, records, 0)
    }

    /// `found_pages_end` is where the pages end that a superblock names.
    pub(super) fn open_generation(&self, number: u64, found_pages_end: u64) -> Result<GenerationFiles> {
        let open = |path: PathBuf| {
            self.disk.open(&path).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => PersistenceError::damaged(&path, 0, "a checkpoint names this file"),
                _ => PersistenceError::io(&path, "open")(error),
            })
        };
        let (pages, records) = (open(self.pages_path(number))?, open(self.records_path(number))?);
        self.with_mappings(number, pages, records, found_pages_end)
    }

    fn with_mappings(
        &self,
        number: u64,
        pages: Arc<dyn DiskFile>,
        records: Arc<dyn DiskFile>,
        found_pages_end: u64,
    ) -> Result<GenerationFiles> {
        let mapped = |file: &Arc<dyn DiskFile>, path: PathBuf| {
            file.mappable()
                .map(MappedFile::new)
                .map_err(PersistenceError::io(&path, "map"))
        };
        let generation = Arc::new(Generation {
            number,
            pages: mapped(&pages, self.pages_path(number))?,
            records: mapped(&records, self.records_path(number))?,
            pages_file: Arc::clone(&pages),
            records_file: Arc::clone(&records),
            pages_path: self.pages_path(number),
            records_path: self.records_path(number),
            found_pages_end,
            seal: self
                .seal
                .as_ref()
                .map(|seal| GenerationSeal::new(&seal.cipher, number, &seal.clear_pages)),
        });
        Ok(GenerationFiles {
            generation,
            pages,
            records,
        })
    }

    /// Maps what a superblock covers.
    pub(super) fn map(&self, generation: &Generation, superblock: &Superblock) -> Result<()> {
        let parts = [
            (
                &generation.pages,
                superblock.pages_end,
                self.pages_path(generation.number),
            ),
            (
                &generation.records,
                superblock.records_end,
                self.records_path(generation.number),
            ),
        ];
        for (file, end, path) in parts {
            file.ensure(end).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => PersistenceError::damaged(&path, end, "the file ends before"),
                _ => PersistenceError::io(&path, "map")(error),
            })?;
        }
        Ok(())
    }

    pub(super) fn loader(&self, generation: &Arc<Generation>, superblock: Superblock) -> Arc<Loader> {
        Arc::new(Loader {
            generation: generation.clone(),
            superblock,
        })
    }

    /// True where a process met damage in a checkpoint while it served.
    pub(super) fn has_suspicion(&self) -> Result<bool> {
        Ok(self.names()?.iter().any(|name| name == SUSPECT_FILE))
    }

    pub(super) fn remove_suspicion(&self) -> Result<()> {
        let path = self.directory.join(SUSPECT_FILE);
        self.disk.remove(&path).map_err(PersistenceError::io(&path, "remove"))
    }

    /// The highest number of a generation's file, used or not.
    pub(super) fn last_generation(&self) -> Result<Option<u64>> {
        Ok(self.names()?.iter().filter_map(|name| generation_number(name)).max())
    }

    /// Removes the files of other generations. Mapped ones stay readable for those who hold them.
    pub(super) fn remove_generations_except(&self, kept: &BTreeSet<u64>) -> Result<()> {
        let mut any = false;
        for name in self.names()? {
            if generation_number(&name).is_some_and(|number| !kept.contains(&number)) {
                let path = self.directory.join(name);
                self.disk.remove(&path).map_err(PersistenceError::io(&path, "remove"))?;
                any = true;
            }
        }
        if !any {
            return Ok(());
        }
        self.disk.reached(CrashPoint::GenerationRemoved);
        self.sync_directory()
    }

    pub(super) fn pages_path(&self, generation: u64) -> PathBuf {
        self.directory.join(format!("pages-{generation:016x}"))
    }

    pub(super) fn records_path(&self, generation: u64) -> PathBuf {
        self.directory.join(format!("records-{generation:016x}"))
    }

    pub(super) fn superblocks_path(&self) -> PathBuf {
        self.directory.join("superblocks")
    }

    fn names(&self) -> Result<Vec<String>> {
        self.disk
            .list(&self.directory)
            .map_err(PersistenceError::io(&self.directory, "list"))
    }

    fn sync_directory(&self) -> Result<()> {
        self.disk
            .sync_directory(&self.directory)
            .map_err(PersistenceError::io(&self.directory, "sync"))
    }
}

fn generation_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("pages-").or_else(|| name.strip_prefix("records-"))?;
    u64::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 16)
}
