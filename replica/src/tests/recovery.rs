//! Crashes, damage and foreign files: what was durable comes back, and what does not fit is refused by name.

use super::script;
use crate::certification::{NODE_KEY_FILE, ROOT_KEY_FILE};
use crate::checkpoints::CheckpointWriter;
use crate::config::Config;
use crate::log_writer::{decode_record, encode_record};
use crate::offline;
use crate::outside::THRESHOLD_SEED_FILE;
use crate::recovery::{Recovered, RecoveryError, open};
use replicore_persistence::StateDirectory;
use replicore_types::Batch;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

fn config(state_dir: &Path) -> Config {
    Config {
        state_dir: state_dir.to_owned(),
        cores: 1,
        ..Config::default()
    }
}

/// Logs and executes a batch, as the commit thread and the round thread do together. Returns the root after it.
fn commit(replica: &mut Recovered, batch: Batch) -> [u8; 32] {
    let root_before = replica.machine.state().certified_root();
    append(replica, batch.height.0, &encode_record(&root_before, &batch).unwrap());
    replica.machine.execute_batch(batch).root_hash
}

fn append(replica: &mut Recovered, height: u64, record: &[u8]) {
    replica.log.append(height, record).unwrap();
    replica.log.sync().unwrap();
}

fn checkpoint(replica: &Recovered) {
    replica.writer.write(replica.machine.state()).unwrap();
}

/// What must be the same after recovery: certified root, hash of the whole state, number of statuses.
fn facts(replica: &Recovered) -> ([u8; 32], [u8; 32], usize) {
    let state = replica.machine.state();
    (state.certified_root(), state.state_hash(), state.ingress_history.len())
}

fn refusal(state_dir: &Path) -> RecoveryError {
    match open(&config(state_dir)) {
        Ok(_) => panic!("the directory must be refused"),
        Err(error) => error,
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn every_durable_batch_comes_back_after_a_crash_at_any_height() {
    let directory = tempfile::tempdir().unwrap();
    let (live, copies) = (directory.path().join("live"), directory.path().join("copies"));
    let mut replica = open(&config(&live)).unwrap();
    let mut expected = Vec::new();
    for batch in script::batches(7) {
        let height = batch.height.0;
        commit(&mut replica, batch);
        if height % 5 == 0 {
            checkpoint(&replica);
        }
        if height % 4 == 3 || height == script::BATCHES {
            // What a crash would leave at this moment; the process goes on.
            let copied = copies.join(height.to_string());
            copy(&live, &copied);
            expected.push((copied, facts(&replica)));
        }
    }
    for (copied, expected) in expected {
        let recovered = open(&config(&copied)).unwrap();
        assert_eq!(facts(&recovered), expected, "{}", copied.display());
    }
    // The process ends without a word, starts again, and goes on where it was.
    let expected = facts(&replica);
    drop(replica);
    let mut replica = open(&config(&live)).unwrap();
    assert_eq!(facts(&replica), expected);
    let mut batch = script::batches(7).remove(4);
    batch.height = replica.machine.state().metadata.height.next();
    batch.time = replica
        .machine
        .state()
        .metadata
        .time
        .plus(std::time::Duration::from_secs(1));
    commit(&mut replica, batch);
    let expected = facts(&replica);
    drop(replica);
    assert_eq!(facts(&open(&config(&live)).unwrap()), expected);
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let mut replica = open(&config(directory.path())).unwrap();
    let mut older = Vec::new();
    for batch in script::batches(8) {
        let height = batch.height.0;
        commit(&mut replica, batch);
        if height == 4 {
            checkpoint(&replica);
            older = fs::read(newest_records(directory.path())).unwrap();
        } else if height == 9 {
            checkpoint(&replica);
        }
    }
    let expected = facts(&replica);
    drop(replica);
    // A checkpoint is appended to its generation: what differs from before belongs to the newer one alone.
    let records = newest_records(directory.path());
    let mut bytes = fs::read(&records).unwrap();
    let differing = bytes.iter().zip(&older).position(|(new, old)| new != old);
    let start = differing.unwrap_or(older.len());
    assert!(start > 0 && start < bytes.len());
    bytes[start..].fill(0x55);
    fs::write(&records, bytes).unwrap();
    let (_, passed_to) = CheckpointWriter::open(&StateDirectory::open(directory.path()).unwrap()).unwrap();
    assert_eq!(passed_to.unwrap().metadata.height.0, 4);
    assert_eq!(facts(&open(&config(directory.path())).unwrap()), expected);
}

/// The records file of the newest generation of checkpoints.
fn newest_records(state_dir: &Path) -> PathBuf {
    let files = fs::read_dir(state_dir.join("checkpoints")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let is_records = |path: &PathBuf| path.to_string_lossy().contains("records-");
    paths.filter(is_records).max().unwrap()
}

#[test]
fn a_log_that_replays_to_another_root_is_never_served() {
    let directory = tempfile::tempdir().unwrap();
    let mut replica = open(&config(directory.path())).unwrap();
    let mut batches = script::batches(9).into_iter();
    for batch in batches.by_ref().take(3) {
        commit(&mut replica, batch);
    }
    let mut root = replica.machine.state().certified_root();
    root[0] ^= 1;
    let next = batches.next().unwrap();
    append(&mut replica, next.height.0, &encode_record(&root, &next).unwrap());
    drop(replica);
    for _ in 0..2 {
        let error = refusal(directory.path());
        assert!(
            matches!(error, RecoveryError::Diverged(height) if height == next.height),
            "{error}"
        );
        assert!(error.to_string().contains("height 4"), "{error}");
    }
}

#[test]
fn records_that_do_not_decode_or_do_not_follow_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let mut replica = open(&config(directory.path())).unwrap();
    append(&mut replica, 1, b"no batch");
    drop(replica);
    let error = refusal(directory.path());
    assert!(matches!(error, RecoveryError::Record(1, _)), "{error}");

    let directory = tempfile::tempdir().unwrap();
    let mut replica = open(&config(directory.path())).unwrap();
    let mut batches = script::batches(10).into_iter();
    commit(&mut replica, batches.next().unwrap());
    let (root, skipped) = (replica.machine.state().certified_root(), batches.nth(1).unwrap());
    append(&mut replica, skipped.height.0, &encode_record(&root, &skipped).unwrap());
    drop(replica);
    let error = refusal(directory.path());
    assert!(
        matches!(error, RecoveryError::Gap(needed, found) if needed.0 == 2 && found.0 == 3),
        "{error}"
    );
}

#[test]
fn the_keys_of_another_subnet_and_a_second_process_are_refused() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let replica = open(&config(first.path())).unwrap();
    let error = refusal(first.path());
    assert!(error.to_string().contains("in use"), "{error}");
    drop(replica);
    drop(open(&config(second.path())).unwrap());
    fs::copy(second.path().join(ROOT_KEY_FILE), first.path().join(ROOT_KEY_FILE)).unwrap();
    let error = refusal(first.path());
    assert!(matches!(error, RecoveryError::OtherSubnet(..)), "{error}");
}

#[test]
fn a_key_file_that_is_missing_or_damaged_is_named_and_not_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(&config(directory.path())).unwrap());
    let damage = || offline::verify(directory.path()).unwrap().damage;
    assert!(damage().is_empty());
    for name in [ROOT_KEY_FILE, NODE_KEY_FILE, THRESHOLD_SEED_FILE] {
        let path = directory.path().join(name);
        let key = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let error = refusal(directory.path()).to_string();
        assert!(error.contains(name) && error.contains("is missing"), "{error}");
        assert_eq!(damage(), [error]);
        assert!(!path.exists(), "{name} was made anew");
        let mut other = key.clone();
        other[16] ^= 1;
        for content in [other, key] {
            let mut file = fs::OpenOptions::new();
            let mut file = file
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)
                .unwrap();
            file.write_all(&content).unwrap();
            let is_whole = damage().is_empty();
            assert_eq!(is_whole, open(&config(directory.path())).is_ok());
            assert!(is_whole || damage()[0].contains(name), "{:?}", damage());
        }
        assert!(damage().is_empty());
    }
}

#[test]
fn a_replay_of_heights_that_are_not_there_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut replica = open(&config(directory.path())).unwrap();
    for batch in script::batches(5).into_iter().take(5) {
        commit(&mut replica, batch);
    }
    drop(replica);
    let replay = |from, to| offline::replay(directory.path(), from, to, &config(directory.path()));
    assert_eq!(replay(Some(5), None).unwrap().batches, 5);
    for (from, to, said) in [(6, None, "ends at height 5"), (4, Some(3), "after height 3")] {
        let error = replay(Some(from), to).unwrap_err();
        assert!(matches!(error, RecoveryError::NothingToReplay(_)), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn another_subnet_configuration_keeps_the_subnet_of_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(directory.path());
    config.subnet.size = 13;
    drop(open(&config).unwrap());
    config.subnet.size = 34;
    assert_eq!(open(&config).unwrap().machine.state().metadata.subnet.size, 13);
}

#[test]
fn records_survive_a_round_trip() {
    let batch = script::batches(11).remove(2);
    let bytes = encode_record(&[3; 32], &batch).unwrap();
    assert_eq!(decode_record(&bytes).unwrap(), ([3; 32], batch));
}
