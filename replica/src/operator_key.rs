//! The operator's key: from its file to the opened state directory.

use crate::certification::KeyError;
use crate::config::Config;
use crate::recovery::RecoveryError;
use replicore_persistence::{
    BatchLog, BatchLogOptions, FileDisk, LogTail, OperatorKey, PersistenceError, StateDirectory,
};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// Bytes of a key file that are read: 64 digits and generous white space.
const FILE_BYTES_MAX: u64 = 256;

/// Reads the operator's key: a file with 64 hexadecimal digits, accessible to its owner alone, and not in the directory
/// that it protects.
///
/// # Errors
/// [`KeyError`], which names the file.
pub fn load(path: &Path, state_dir: &Path) -> Result<OperatorKey, KeyError> {
    let failed = |error| KeyError::Io(path.to_owned(), error);
    let mut file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode(path.to_owned(), mode));
    }
    // Where there is no directory yet, the key is not in it.
    if let (Ok(path), Ok(directory)) = (path.canonicalize(), state_dir.canonicalize())
        && path.starts_with(directory)
    {
        return Err(KeyError::Inside(path));
    }
    let mut text = String::new();
    (&mut file)
        .take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    OperatorKey::parse(&text).ok_or_else(|| KeyError::Operator(path.to_owned()))
}

/// Opens the state directory of a configuration, with its key where one is configured; creates what is missing.
///
/// # Errors
/// [`RecoveryError`]; nothing was changed.
pub(crate) fn open_directory(config: &Config) -> Result<StateDirectory, RecoveryError> {
    let Some(path) = &config.encryption_key else {
        return Ok(StateDirectory::open(&config.state_dir)?);
    };
    let operator = load(path, &config.state_dir)?;
    let mut fresh = [0; 32];
    getrandom::fill(&mut fresh).map_err(KeyError::Randomness)?;
    Ok(StateDirectory::open_encrypted(&config.state_dir, &operator, fresh)?)
}

/// Opens the batch log of a directory.
///
/// # Errors
/// As for [`BatchLog::open_with`].
pub(crate) fn open_log(
    directory: &StateDirectory,
    options: BatchLogOptions,
) -> Result<(BatchLog, LogTail), PersistenceError> {
    let cipher = directory.cipher("log");
    BatchLog::open_with(Arc::new(FileDisk), &directory.log(), options, cipher.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_file_is_read_only_where_it_is_kept_well() {
        let directory = tempfile::tempdir().unwrap();
        let state_dir = directory.path().join("state");
        fs::create_dir(&state_dir).unwrap();
        let key = directory.path().join("key");
        fs::write(&key, format!("{}\n", "a7".repeat(32))).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(&key, &state_dir), Err(KeyError::Mode(_, 0o640))));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        load(&key, &state_dir).unwrap();
        assert!(matches!(load(&key, directory.path()), Err(KeyError::Inside(_))));
        for wrong in ["", "a7", &"g7".repeat(32), &"a7".repeat(33)] {
            fs::write(&key, wrong).unwrap();
            let error = load(&key, &state_dir).unwrap_err();
            assert!(matches!(error, KeyError::Operator(_)), "{wrong:?}: {error}");
        }
        assert!(matches!(
            load(&directory.path().join("other"), &state_dir),
            Err(KeyError::Io(..))
        ));
    }
}
