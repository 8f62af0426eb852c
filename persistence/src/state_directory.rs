//! The directory that a replica's state is in, and the lock that keeps a second process out.
//!
//! ```text
//! DIR/lock          the process that works here; locked as long as it lives
//!     format        which version of this layout it is
//!     log/          the batch log
//!     checkpoints/  the checkpoint store
//! ```

use crate::error::{PersistenceError, Result};
use crate::sys::files;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The layout that this program writes.
const LAYOUT_VERSION: u32 = 1;
const FORMAT_PREFIX: &str = "replicore state directory, format ";

/// An open state directory. Holding one proves that no other process of this machine does.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    /// The lock goes when this is closed, by the kernel too.
    _lock: File,
}

impl StateDirectory {
    /// Opens `path`, creating what is missing, and locks it until the value is dropped.
    ///
    /// # Errors
    /// [`PersistenceError::InUse`] where another process has it; a directory that holds other files; a layout of a
    /// later version; what the file system says.
    pub fn open(path: &Path) -> Result<Self> {
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
        let directory = Self {
            path: path.to_path_buf(),
            _lock: lock,
        };
        directory.check_format()?;
        for part in [directory.log(), directory.checkpoints()] {
            fs::create_dir_all(&part).map_err(PersistenceError::io(&part, "create"))?;
        }
        sync_directory(path)?;
        Ok(directory)
    }

    /// Opens a directory that is a state directory already; creates none.
    ///
    /// # Errors
    /// As for [`StateDirectory::open`], and [`PersistenceError::Refused`] where there is no state directory.
    pub fn open_existing(path: &Path) -> Result<Self> {
        if !path.join("format").is_file() {
            return Err(PersistenceError::refused(path, "there is no state directory here"));
        }
        Self::open(path)
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

    fn check_format(&self) -> Result<()> {
        let path = self.path.join("format");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let version = text
                    .trim_end()
                    .strip_prefix(FORMAT_PREFIX)
                    .and_then(|number| number.parse().ok());
                match version {
                    Some(LAYOUT_VERSION) => Ok(()),
                    Some(found) => Err(PersistenceError::NewerFormat {
                        file: path,
                        found,
                        supported: LAYOUT_VERSION,
                    }),
                    None => Err(PersistenceError::damaged(
                        &path,
                        0,
                        format!("expected '{FORMAT_PREFIX}' and a number"),
                    )),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.write_format(&path),
            Err(error) => Err(PersistenceError::io(&path, "read")(error)),
        }
    }

    /// Whole or not at all: written under another name first.
    fn write_format(&self, path: &Path) -> Result<()> {
        let new = self.path.join("format.new");
        let written = fs::write(&new, format!("{FORMAT_PREFIX}{LAYOUT_VERSION}\n"))
            .and_then(|()| File::open(&new)?.sync_all())
            .and_then(|()| fs::rename(&new, path));
        written.map_err(PersistenceError::io(path, "write"))
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
                    supported: 1,
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
            StateDirectory::open_existing(&missing),
            Err(PersistenceError::Refused { .. })
        ));
        assert!(!missing.exists());
        fs::write(other.path().join("thesis.tex"), "x").expect("written");
        let error = StateDirectory::open(other.path()).expect_err("not ours");
        assert!(error.to_string().contains("choose an empty"), "{error}");
    }
}
