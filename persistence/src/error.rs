//! What can go wrong with files, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An error of this crate's files. Its text names the place and ends with what to do.
#[derive(Debug)]
pub enum PersistenceError {
    /// The operating system refused.
    Io {
        /// The file or directory.
        file: PathBuf,
        /// What was tried, as a verb phrase: "write", "create".
        action: &'static str,
        /// The refusal.
        source: io::Error,
    },
    /// Bytes on disk are not what was written there.
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What was expected.
        what: String,
    },
    /// A later version of this program wrote the file.
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// The format version in it.
        found: u32,
        /// The newest version that this program reads.
        supported: u32,
    },
    /// Another process works on the state directory.
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The other process, where it left its number.
        pid: Option<u32>,
    },
    /// An earlier write failed, so that what is on disk is unknown; nothing more is written before a restart.
    Poisoned {
        /// The file or directory of the earlier failure.
        file: PathBuf,
        /// The earlier failure.
        earlier: String,
    },
    /// The state directory is encrypted, and no key was given.
    NoKey {
        /// The directory, or the file in it.
        file: PathBuf,
    },
    /// The key that was given is not the one that the state directory was encrypted with.
    WrongKey {
        /// The file that the key does not open.
        file: PathBuf,
    },
    /// A key was given for a state directory that is not encrypted.
    UnneededKey {
        /// The directory.
        directory: PathBuf,
    },
    /// The caller asked for what the format cannot hold.
    Refused {
        /// The file or directory.
        file: PathBuf,
        /// Which rule was broken.
        what: String,
    },
}

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, PersistenceError>;

impl PersistenceError {
    /// Wraps a refusal of the operating system; for `map_err`.
    pub(crate) fn io(file: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_path_buf();
        move |source| Self::Io { file, action, source }
    }

    pub(crate) fn damaged(file: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged {
            file: file.to_path_buf(),
            offset,
            what: what.into(),
        }
    }

    /// The same error, saying what in the state it concerns.
    pub(crate) fn in_place(self, place: &str) -> Self {
        match self {
            Self::Damaged { file, offset, what } => Self::Damaged {
                file,
                offset,
                what: format!("{place}: {what}"),
            },
            other => other,
        }
    }

    pub(crate) fn refused(file: &Path, what: impl Into<String>) -> Self {
        Self::Refused {
            file: file.to_path_buf(),
            what: what.into(),
        }
    }
}

impl fmt::Display for PersistenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { file, action, source } => {
                write!(f, "cannot {action} {}: {source}. ", file.display())?;
                f.write_str(match source.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        "Free space on this file system and start again; nothing acknowledged is lost."
                    }
                    io::ErrorKind::PermissionDenied => "Give this user read and write access and start again.",
                    io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                        "Check the path of the state directory."
                    }
                    _ => "Check the disk and the kernel's log, then start again.",
                })
            }
            Self::Damaged { file, offset, what } => write!(
                f,
                "{} is damaged at byte {offset}: {what}. Restore the state directory from a backup or another replica.",
                file.display()
            ),
            Self::NewerFormat { file, found, supported } => write!(
                f,
                "{} has format version {found}, this program reads up to {supported}. Start the newer program.",
                file.display()
            ),
            Self::InUse { directory, pid } => {
                write!(f, "the state directory {} is in use", directory.display())?;
                if let Some(pid) = pid {
                    write!(f, " by process {pid}")?;
                }
                f.write_str(". Stop that replica or choose another directory.")
            }
            Self::Poisoned { file, earlier } => write!(
                f,
                "nothing more is written to {} after this failure: {earlier} Start the replica again.",
                file.display()
            ),
            Self::NoKey { file } => write!(
                f,
                "{} is encrypted: give the key that it was created with (--encryption-key FILE, or encryption_key in the \
                 configuration).",
                file.display()
            ),
            Self::WrongKey { file } => write!(
                f,
                "{} was sealed with another key: give the key that the state directory was created with, or changed to \
                 by `replicore rekey`; nothing was changed.",
                file.display()
            ),
            Self::UnneededKey { directory } => write!(
                f,
                "the state directory {} is not encrypted, and a key was given: leave the key away, or choose a new \
                 directory, which will be encrypted.",
                directory.display()
            ),
            Self::Refused { file, what } => write!(f, "{} cannot take this: {what}.", file.display()),
        }
    }
}

impl std::error::Error for PersistenceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
