//! The file that tells others which port a replica has bound.

use std::io;
use std::path::{Path, PathBuf};

/// A port file that exists as long as the replica serves. After a crash it stays behind until the next start.
pub struct PortFile(PathBuf);

impl PortFile {
    /// Removes what a crash has left. The caller holds the state directory, so that no live replica's file is meant.
    ///
    /// # Errors
    /// What the file system says, except that there is no such file.
    pub fn remove_stale(path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes the port and a newline, so that a reader never sees half of it.
    ///
    /// # Errors
    /// What the file system says, and of which path.
    pub fn write(path: &Path, port: u16) -> io::Result<Self> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(format!(".{}.new", std::process::id()));
        std::fs::write(&unfinished, format!("{port}\n"))
            .and_then(|()| std::fs::rename(&unfinished, path))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PortFile {
    fn drop(&mut self) {
        // A file that somebody else has removed is removed.
        let _gone = std::fs::remove_file(&self.0);
    }
}
