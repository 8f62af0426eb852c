//! What the fuzz targets begin with: a golden state directory with bytes changed.

use replicore_persistence::{OperatorKey, StateDirectory};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The key of the encrypted golden directory.
const OPERATOR_KEY: [u8; 32] = [3; 32];

/// A copy of a golden directory in which the files of one part are changed as `data` says. The first byte chooses the
/// directory: even in clear, odd encrypted. Changes follow: file (1), position (3), new byte (1); a file of 250 and above
/// is cut off there instead.
pub fn changed_directory(data: &[u8], part: &str) -> Option<(TempDir, StateDirectory)> {
    let (kind, changes) = data.split_first()?;
    let is_sealed = kind % 2 == 1;
    let golden = match is_sealed {
        false => "../golden/format-1",
        true => "../golden/format-2",
    };
    let directory = tempfile::tempdir().expect("a directory");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join(golden), directory.path());
    let files = files_of(&directory.path().join(part));
    let mut contents: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).expect("a file")).collect();
    for change in changes.chunks_exact(5) {
        let file = usize::from(change[0]) % files.len();
        let content = &mut contents[file];
        let position = u32::from_le_bytes([change[1], change[2], change[3], 0]) as usize % content.len().max(1);
        match change[0] < 250 {
            true => content.get_mut(position).into_iter().for_each(|byte| *byte = change[4]),
            false => content.truncate(position),
        }
    }
    for (path, content) in files.iter().zip(&contents) {
        fs::write(path, content).expect("written");
    }
    let key = OperatorKey::new(OPERATOR_KEY);
    let opened = StateDirectory::open_existing(directory.path(), is_sealed.then_some(&key)).expect("opened");
    Some((directory, opened))
}

fn files_of(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for path in files_of(from) {
        let target = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(fs::copy(&path, target).expect("copied")),
        }
    }
}
