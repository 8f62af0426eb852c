//! A flipped byte anywhere in a state directory: it is named, or it changes nothing.

use super::script;
use crate::config::Config;
use crate::recovery::{Recovered, open};
use replicore_types::Batch;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Flips in one file, spread over what is written in it.
const FLIPS_PER_FILE: u64 = 14;

/// Certified root and hash of the whole state, by height.
type Facts = BTreeMap<u64, ([u8; 32], [u8; 32])>;

/// The key, where there is one, lies beside the directory.
fn config(state_dir: &Path) -> Config {
    let key = state_dir.with_file_name("key");
    Config {
        state_dir: state_dir.to_owned(),
        encryption_key: key.exists().then_some(key),
        cores: 1,
        ..Config::default()
    }
}

fn note(replica: &Recovered, facts: &mut Facts) {
    let state = replica.machine.state();
    facts.insert(state.metadata.height.0, (state.certified_root(), state.state_hash()));
}

/// A directory with two checkpoints and batches behind them, all but the last; what its state was at every height.
fn history(state_dir: &Path, batches: &[Batch]) -> Facts {
    let mut facts = Facts::new();
    let mut replica = open(&config(state_dir)).unwrap();
    for batch in batches {
        if (batch.height.0 as usize) < batches.len() {
            let root_before = replica.machine.state().certified_root();
            let record = crate::log_writer::encode_record(&root_before, batch).unwrap();
            replica.log.append(batch.height.0, &record).unwrap();
            replica.log.sync().unwrap();
        }
        replica.machine.execute_batch(batch.clone());
        note(&replica, &mut facts);
        if [4, 9].contains(&batch.height.0) {
            replica.writer.write(replica.machine.state()).unwrap();
        }
    }
    facts
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

/// Up to where a file holds anything but zeros.
fn written_len(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap();
    (bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count()) as u64
}

/// Changes one byte, for as long as the value lives.
struct Flip {
    file: File,
    position: u64,
    original: [u8; 1],
}

impl Flip {
    fn new(path: &Path, position: u64) -> Self {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut original = [0];
        file.read_exact_at(&mut original, position).unwrap();
        file.write_all_at(&[original[0] ^ 1 << (position % 8)], position)
            .unwrap();
        Self {
            file,
            position,
            original,
        }
    }
}

impl Drop for Flip {
    fn drop(&mut self) {
        self.file.write_all_at(&self.original, self.position).unwrap();
    }
}

/// Recovers the directory and executes the next batch. The height that was recovered, or what was said.
fn recover(state_dir: &Path, batches: &[Batch], facts: &Facts) -> Result<u64, String> {
    let attempt = || {
        let mut replica = open(&config(state_dir)).map_err(|error| error.to_string())?;
        let mut seen = Facts::new();
        note(&replica, &mut seen);
        let height = replica.machine.state().metadata.height.0;
        if let Some(next) = batches.get(height as usize) {
            replica.machine.execute_batch(next.clone());
            note(&replica, &mut seen);
        }
        let differing = seen.iter().find(|(height, seen)| facts[height] != **seen);
        assert_eq!(differing, None, "a state that never was");
        Ok(height)
    };
    catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        Err(said.expect("damage ends a replica with a sentence"))
    })
}

#[test]
fn a_flipped_byte_is_named_or_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    check_flips(&directory.path().join("state"));
}

#[test]
fn a_flipped_byte_of_an_encrypted_directory_is_named_or_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "5e".repeat(32)).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    check_flips(&directory.path().join("state"));
}

fn check_flips(state_dir: &Path) {
    let batches = script::batches(12);
    // The last batch is executed after recovery, so that pages are touched.
    let last = batches.len() as u64 - 1;
    let facts = history(state_dir, &batches);
    let (mut named, mut unaffected) = (BTreeMap::new(), 0);
    for path in files_below(state_dir) {
        let relative = path.strip_prefix(state_dir).unwrap().display().to_string();
        let written = written_len(&path);
        for number in 0..FLIPS_PER_FILE.min(written) {
            let flip = Flip::new(&path, number * written / FLIPS_PER_FILE.min(written));
            let recovered = recover(state_dir, &batches, &facts);
            let position = flip.position;
            drop(flip);
            let _left_by_damage = std::fs::remove_file(state_dir.join("checkpoints/suspect"));
            match recovered {
                Ok(height) => {
                    // The last group of the log can be what a crash cut off.
                    let is_tail = relative.starts_with("log/") && height + 1 == last;
                    assert!(height == last || is_tail, "{relative} at {position}: height {height}");
                    unaffected += 1;
                }
                Err(said) => {
                    let file = path.file_name().unwrap().to_string_lossy().into_owned();
                    assert!(said.contains(&file), "{relative} at {position}: {said}");
                    *named.entry(relative.clone()).or_insert(0) += 1;
                }
            }
        }
    }
    assert!(
        named.len() >= 5 && unaffected > 20,
        "{named:?}, {unaffected} unaffected"
    );
}
