//! Real files under a recorder: an operation can be made to fail, and every directory that a crash might have left is
//! laid out from the record.
//!
//! The model of a crash: what was synced is there; of what was not, any 512-byte sectors may be, in any order, and
//! files may be shorter; names that were not synced may be there or not, and a renamed file has one of its names.

use super::{CrashPoint, Disk, DiskFile, FileDisk};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SECTOR_BYTES: u64 = 512;

/// Something that changed files, or made a change durable. Paths are as the caller gave them.
#[derive(Clone, Debug)]
pub enum Operation {
    /// A new empty file.
    Create(PathBuf),
    /// Bytes at an offset.
    Write(PathBuf, u64, Vec<u8>),
    /// Space reserved up to a length.
    Allocate(PathBuf, u64),
    /// Content made durable.
    Sync(PathBuf),
    /// A name removed.
    Remove(PathBuf),
    /// A name replaced by another.
    Rename(PathBuf, PathBuf),
    /// Names made durable.
    SyncDirectory(PathBuf),
}

/// The recorder. Clones share the record.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    record: Arc<Mutex<Record>>,
}

#[derive(Debug, Default)]
struct Record {
    operations: Vec<Operation>,
    /// Points that were reached, each with the number of operations before it.
    points: Vec<(CrashPoint, usize)>,
    /// Operations that still succeed; then every one fails as on a full disk.
    until_failure: Option<usize>,
    /// Reads that still succeed; then every one fails as on a disk with a defect.
    reads_until_failure: Option<usize>,
}

impl SimDisk {
    /// Number of operations recorded.
    pub fn operation_count(&self) -> usize {
        self.record.lock().operations.len()
    }

    /// The points that were reached, each with the number of operations before it.
    pub fn points(&self) -> Vec<(CrashPoint, usize)> {
        self.record.lock().points.clone()
    }

    /// From now on `count` operations succeed and all later ones fail with a full disk; `None` lets all succeed.
    pub fn fail_after(&self, count: Option<usize>) {
        self.record.lock().until_failure = count;
    }

    /// From now on `count` reads succeed and all later ones fail; `None` lets all succeed.
    pub fn fail_reads_after(&self, count: Option<usize>) {
        self.record.lock().reads_until_failure = count;
    }

    /// The operations so far.
    pub fn operations(&self) -> Vec<Operation> {
        self.record.lock().operations.clone()
    }

    /// Lays out in `target` what is left of `source` at the end if the disk had put the write that is operation `number`
    /// to offset `elsewhere` of the same file, or nowhere, and said nothing.
    ///
    /// # Errors
    /// What writing to `target` says.
    pub fn lay_out_misdirected(
        &self,
        number: usize,
        elsewhere: Option<u64>,
        source: &Path,
        target: &Path,
    ) -> io::Result<()> {
        let mut operations = self.operations();
        if let Operation::Write(path, offset, bytes) = &operations[number] {
            operations[number] = match elsewhere {
                Some(elsewhere) => Operation::Write(path.clone(), elsewhere, bytes.clone()),
                None => Operation::Write(path.clone(), *offset, Vec::new()),
            };
        }
        let mut files: BTreeMap<PathBuf, CrashFile> = BTreeMap::new();
        for operation in &operations {
            replay(&mut files, operation);
        }
        for (path, mut file) in files.into_iter().filter(|(_, file)| !file.removed) {
            file.sync();
            lay_out(&path, &file.synced, source, target)?;
        }
        Ok(())
    }

    /// Lays out in `target` what might be left of `source` if the machine had stopped after the first
    /// `operation_count` operations. `choose(n)` returns a number below n and decides what of the unsynced survives.
    ///
    /// # Errors
    /// What writing to `target` says.
    pub fn crash_at(
        &self,
        operation_count: usize,
        source: &Path,
        target: &Path,
        choose: &mut dyn FnMut(u64) -> u64,
    ) -> io::Result<()> {
        let mut files = BTreeMap::new();
        for operation in &self.record.lock().operations[..operation_count] {
            replay(&mut files, operation);
        }
        for (path, file) in &files {
            if let Some(content) = file.after_crash(choose) {
                let name = match &file.former_name {
                    Some(former) if choose(2) == 0 => former,
                    _ => path,
                };
                lay_out(name, &content, source, target)?;
            }
        }
        Ok(())
    }

    fn note(&self, operation: Operation) -> io::Result<()> {
        let mut record = self.record.lock();
        if let Some(left) = &mut record.until_failure {
            if *left == 0 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            *left -= 1;
        }
        record.operations.push(operation);
        Ok(())
    }
}

fn lay_out(path: &Path, content: &[u8], source: &Path, target: &Path) -> io::Result<()> {
    let relative = path.strip_prefix(source).map_err(io::Error::other)?;
    let path = target.join(relative);
    fs::create_dir_all(path.parent().unwrap_or(target))?;
    fs::write(path, content)
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = FileDisk.open(path)?;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            path: path.to_path_buf(),
            file,
        }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.note(Operation::Create(path.to_path_buf()))?;
        let file = FileDisk.create(path)?;
        Ok(Arc::new(SimFile {
            disk: self.clone(),
            path: path.to_path_buf(),
            file,
        }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.note(Operation::Remove(path.to_path_buf()))?;
        FileDisk.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(Operation::Rename(from.to_path_buf(), to.to_path_buf()))?;
        FileDisk.rename(from, to)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        FileDisk.list(directory)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.note(Operation::SyncDirectory(directory.to_path_buf()))?;
        FileDisk.sync_directory(directory)
    }

    fn reached(&self, point: CrashPoint) {
        let mut record = self.record.lock();
        let count = record.operations.len();
        record.points.push((point, count));
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl DiskFile for SimFile {
    fn bytes_len(&self) -> io::Result<u64> {
        self.file.bytes_len()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if let Some(left) = &mut self.disk.record.lock().reads_until_failure {
            if *left == 0 {
                return Err(io::Error::other("the simulated disk has a defect"));
            }
            *left -= 1;
        }
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk
            .note(Operation::Write(self.path.clone(), offset, bytes.to_vec()))?;
        self.file.write_at(bytes, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk.note(Operation::Allocate(self.path.clone(), len))?;
        self.file.allocate(len)
    }

    fn sync(&self) -> io::Result<()> {
        // The real sync is left out: the record says what would be durable.
        self.disk.note(Operation::Sync(self.path.clone()))
    }

    fn mappable(&self) -> io::Result<File> {
        self.file.mappable()
    }
}

/// A file as the disk has it, and what is on its way there.
#[derive(Default)]
struct CrashFile {
    synced: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
    unsynced_len: u64,
    name_synced: bool,
    /// The name that a crash may bring back.
    former_name: Option<PathBuf>,
    removed: bool,
}

fn replay(files: &mut BTreeMap<PathBuf, CrashFile>, operation: &Operation) {
    match operation {
        Operation::Create(path) => {
            files.insert(path.clone(), CrashFile::default());
        }
        Operation::Write(path, offset, bytes) => {
            let file = files.entry(path.clone()).or_default();
            file.unsynced.push((*offset, bytes.clone()));
            file.unsynced_len = file.unsynced_len.max(offset + bytes.len() as u64);
        }
        Operation::Allocate(path, len) => {
            let file = files.entry(path.clone()).or_default();
            file.unsynced_len = file.unsynced_len.max(*len);
        }
        Operation::Sync(path) => files.entry(path.clone()).or_default().sync(),
        Operation::Remove(path) => {
            let file = files.entry(path.clone()).or_default();
            file.removed = true;
        }
        Operation::Rename(from, to) => {
            let mut file = files.remove(from).unwrap_or_default();
            file.former_name.get_or_insert_with(|| from.clone());
            files.insert(to.clone(), file);
        }
        Operation::SyncDirectory(directory) => {
            files.retain(|path, file| !(file.removed && path.parent() == Some(directory)));
            for (path, file) in files.iter_mut() {
                if path.parent() == Some(directory) {
                    file.name_synced = true;
                    file.former_name = None;
                }
            }
        }
    }
}

impl CrashFile {
    fn sync(&mut self) {
        let len = self.unsynced_len as usize;
        if len > self.synced.len() {
            self.synced.resize(len, 0);
        }
        for (offset, bytes) in self.unsynced.drain(..) {
            self.synced[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
    }

    /// The content after a crash, or `None` where the name is not there.
    fn after_crash(&self, choose: &mut dyn FnMut(u64) -> u64) -> Option<Vec<u8>> {
        if (self.removed || !self.name_synced) && choose(2) == 0 {
            return None;
        }
        let mut content = self.synced.clone();
        let longer = self.unsynced_len.saturating_sub(content.len() as u64);
        let survives = if choose(2) == 0 { longer } else { choose(longer + 1) };
        content.resize(content.len() + survives as usize, 0);
        // All, nothing, or sector by sector.
        let mode = choose(3);
        for (offset, bytes) in &self.unsynced {
            for (position, byte_run) in sectors(*offset, bytes) {
                let kept = mode == 0 || (mode == 2 && choose(2) == 0);
                let end = (position as usize + byte_run.len()).min(content.len());
                if kept && (position as usize) < end {
                    let start = position as usize;
                    content[start..end].copy_from_slice(&byte_run[..end - start]);
                }
            }
        }
        Some(content)
    }
}

/// `bytes` cut at sector boundaries, each piece with its offset.
fn sectors(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut position = offset;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let len = ((SECTOR_BYTES - position % SECTOR_BYTES) as usize).min(rest.len());
        let (piece, beyond) = rest.split_at(len);
        let here = position;
        position += len as u64;
        rest = beyond;
        Some((here, piece))
    })
}
