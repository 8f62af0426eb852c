//! The directory that a replica's state is in, and the lock that keeps a second process out.
//!
//! ```text
//! DIR/lock          the process that works here; locked as long as it lives
//!     format        which version of this layout it is
//!     data_key      there where the directory is encrypted: the key of everything else, sealed with the operator's
//!     log/          the batch log
//!     checkpoints/  the checkpoint store
//! ```

use crate::encryption::{Cipher, DATA_KEY_FILE, OperatorKey, create_data_key, read_data_key, write_data_key};
use crate::error::{PersistenceError, Result};
use crate::sys::files;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The layout of a directory in clear.
const CLEAR_VERSION: u32 = 1;
/// The layout of an encrypted directory, and the newest that this program knows.
const ENCRYPTED_VERSION: u32 = 2;
const FORMAT_PREFIX: &str = "replicore state directory, format ";

/// An open state directory. Holding one proves that no other process of this machine does.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    /// There where the directory is encrypted.
    cipher: Option<Cipher>,
    /// The lock goes when this is closed, by the kernel too.
    _lock: File,
}

/// What opens an encrypted directory, or makes a new one such.
#[derive(Clone, Copy, Debug)]
struct Key<'a> {
    operator: &'a OperatorKey,
    /// Becomes the data key of a new directory.
    fresh: [u8; 32],
}

impl StateDirectory {
    /// Opens `path`, creating what is missing, and locks it until the value is dropped.
    ///
    /// # Errors
    /// [`PersistenceError::InUse`] where another process has it; a directory that holds other files, or is encrypted; a
    /// layout of a later version; what the file system says.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_as(path, None)
    }

    /// Opens an encrypted directory, or creates one. `fresh` becomes the key of a new one: bytes that nobody can guess
    /// and that are used for nothing else.
    ///
    /// # Errors
    /// As for [`StateDirectory::open`]; [`PersistenceError::WrongKey`], and [`PersistenceError::UnneededKey`] for a
    /// directory in clear.
    pub fn open_encrypted(path: &Path, operator: &OperatorKey, fresh: [u8; 32]) -> Result<Self> {
        Self::open_as(path, Some(Key { operator, fresh }))
    }

    fn open_as(path: &Path, key: Option<Key<'_>>) -> Result<Self> {
        fs::create_dir_all(path).map_err(PersistenceError::io(path, "create"))?;
        let lock_path = path.join("lock");
        check_is_ours_or_empty(path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut lock = options
            .open(&lock_path)
            .map_err(PersistenceError::io(&lock_path, "open"))?;
        if !files::try_lock(&lock).map_err(PersistenceError::io(&lock_path, "lock"))? {
            let mut text = String::new();
            // The number only helps the reader; without it the message is still true.
            let _ = lock.read_to_string(&mut text);
            return Err(PersistenceError::InUse {
                directory: path.to_path_buf(),
                pid: text.trim().parse().ok(),
            });
        }
        let write_pid = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        write_pid.map_err(PersistenceError::io(&lock_path, "write"))?;
        let mut directory = Self {
            path: path.to_path_buf(),
            cipher: None,
            _lock: lock,
        };
        directory.cipher = directory.check_format(key)?.map(Cipher::new);
        for part in [directory.log(), directory.checkpoints()] {
            fs::create_dir_all(&part).map_err(PersistenceError::io(&part, "create"))?;
        }
        sync_directory(path)?;
        Ok(directory)
    }

    /// Opens a directory that is a state directory already, with the key where it is encrypted; creates none.
    ///
    /// # Errors
    /// As for [`StateDirectory::open_encrypted`], and [`PersistenceError::Refused`] where there is no state directory.
    pub fn open_existing(path: &Path, operator: Option<&OperatorKey>) -> Result<Self> {
        if !path.join("format").is_file() {
            return Err(PersistenceError::refused(path, "there is no state directory here"));
        }
        // The directory exists, so that its own data key counts.
        let fresh = [0; 32];
        Self::open_as(path, operator.map(|operator| Key { operator, fresh }))
    }

    /// Puts an encrypted directory under another operator's key. The data key stays, so that this writes one small file:
    /// either key opens the directory before it, and only the new one after.
    ///
    /// # Errors
    /// As for [`StateDirectory::open_existing`].
    pub fn rekey(path: &Path, old: &OperatorKey, new: &OperatorKey) -> Result<()> {
        let directory = Self::open_existing(path, Some(old))?;
        let data_key = read_data_key(&directory.path, old)?;
        write_data_key(&directory.path, new, &data_key)
    }

    /// The cipher of a part of an encrypted directory: its log, its checkpoints, files of the caller's.
    pub fn cipher(&self, part: &str) -> Option<Cipher> {
        self.cipher.as_ref().map(|cipher| cipher.part(part))
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory for [`crate::BatchLog`].
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The directory for [`crate::CheckpointStore`].
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The data key, where the directory has one.
    fn check_format(&self, key: Option<Key<'_>>) -> Result<Option<[u8; 32]>> {
        let path = self.path.join("format");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.create_format(&path, key),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
            Err(error) => return Err(PersistenceError::io(&path, "read")(error)),
        };
        let version = text
            .trim_end()
            .strip_prefix(FORMAT_PREFIX)
            .and_then(|number| number.parse().ok());
        let has_data_key = self.path.join(DATA_KEY_FILE).exists();
        match (version, key) {
            (Some(CLEAR_VERSION), _) if has_data_key => {
                let what = format!("a data key lies beside it, and it says format {CLEAR_VERSION}");
                Err(PersistenceError::damaged(&path, 0, what))
            }
            (Some(CLEAR_VERSION), None) => Ok(None),
            (Some(CLEAR_VERSION), Some(_)) => Err(PersistenceError::UnneededKey {
                directory: self.path.clone(),
            }),
            (Some(ENCRYPTED_VERSION), None) => Err(self.no_key()),
            (Some(ENCRYPTED_VERSION), Some(key)) => read_data_key(&self.path, key.operator).map(Some),
            (Some(found), _) => Err(PersistenceError::NewerFormat {
                file: path,
                found,
                supported: ENCRYPTED_VERSION,
            }),
            (None, _) => {
                let what = format!("expected '{FORMAT_PREFIX}' and a number");
                Err(PersistenceError::damaged(&path, 0, what))
            }
        }
    }

    /// Makes a new directory one of the kind that the key asks for. The data key is there before the format says so.
    fn create_format(&self, path: &Path, key: Option<Key<'_>>) -> Result<Option<[u8; 32]>> {
        let (version, data_key) = match key {
            None if self.path.join(DATA_KEY_FILE).exists() => return Err(self.no_key()),
            None => (CLEAR_VERSION, None),
            Some(key) => {
                let data_key = create_data_key(&self.path, key.operator, &key.fresh)?;
                (ENCRYPTED_VERSION, Some(data_key))
            }
        };
        // Whole or not at all: written under another name first.
        let new = self.path.join("format.new");
        let written = fs::write(&new, format!("{FORMAT_PREFIX}{version}\n"))
            .and_then(|()| File::open(&new)?.sync_all())
            .and_then(|()| fs::rename(&new, path));
        written.map_err(PersistenceError::io(path, "write"))?;
        Ok(data_key)
    }

    fn no_key(&self) -> PersistenceError {
        PersistenceError::NoKey {
            file: self.path.clone(),
        }
    }
}

/// A directory with a lock file is ours, and an empty one may become so. Keys that the replica puts here come later.
fn check_is_ours_or_empty(path: &Path) -> Result<()> {
    let names = fs::read_dir(path).map_err(PersistenceError::io(path, "list"))?;
    let mut is_empty = true;
    for entry in names {
        let name = entry.map_err(PersistenceError::io(path, "list"))?.file_name();
        if name == "lock" || name == "format" {
            return Ok(());
        }
        is_empty &= name == "lost+found";
    }
    if is_empty {
        return Ok(());
    }
    let what = "it holds files that are not a replica's state; choose an empty or a new directory";
    Err(PersistenceError::refused(path, what))
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(PersistenceError::io(path, "sync"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_open_is_refused_and_names_the_directory_and_the_process() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("new/state");
        let first = StateDirectory::open(&path).expect("created");
        assert!(first.log().is_dir() && first.checkpoints().is_dir());
        let error = StateDirectory::open(&path).expect_err("in use");
        let text = error.to_string();
        assert!(text.contains(&path.display().to_string()), "{text}");
        assert!(text.contains(&std::process::id().to_string()), "{text}");
        assert!(matches!(error, PersistenceError::InUse { pid: Some(_), .. }));
        drop(first);
        StateDirectory::open(&path).expect("free again");
    }

    #[test]
    fn other_formats_and_other_directories_are_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        drop(StateDirectory::open(directory.path()).expect("created"));
        let format = directory.path().join("format");
        fs::write(&format, "replicore state directory, format 9\n").expect("written");
        let error = StateDirectory::open(directory.path()).expect_err("a later format");
        assert!(
            matches!(
                error,
                PersistenceError::NewerFormat {
                    found: 9,
                    supported: 2,
                    ..
                }
            ),
            "{error}"
        );
        fs::write(&format, "?").expect("written");
        assert!(matches!(
            StateDirectory::open(directory.path()),
            Err(PersistenceError::Damaged { .. })
        ));
        let other = tempfile::tempdir().expect("a directory");
        let missing = other.path().join("missing");
        assert!(matches!(
            StateDirectory::open_existing(&missing, None),
            Err(PersistenceError::Refused { .. })
        ));
        assert!(!missing.exists());
        fs::write(other.path().join("thesis.tex"), "x").expect("written");
        let error = StateDirectory::open(other.path()).expect_err("not ours");
        assert!(error.to_string().contains("choose an empty"), "{error}");
    }
}
