//! State directories as earlier versions wrote them, kept in `golden/`: this version opens each, reads what it should
//! read, and goes on in it.
//!
//! A new format version adds a folder; none is ever changed. `REPLICORE_WRITE_GOLDEN=1` writes the folders of the present
//! versions where they are missing: format 1 is in clear, format 2 encrypted.

use replicore_persistence::{
    BatchLog, BatchLogOptions, CheckpointItem, CheckpointItems, CheckpointOptions, CheckpointRequest, CheckpointStore,
    FileDisk, OperatorKey, PageDelta, PageIndex, PageMap, StateDirectory,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LOG: BatchLogOptions = BatchLogOptions {
    segment_bytes: 12 << 10,
    salt: 9,
    prepare_ahead: false,
};
const CHECKPOINTS: CheckpointOptions = CheckpointOptions {
    allocation_bytes: 4 << 10,
    slack_bytes: 64 << 10,
};
/// What the encrypted directory was made with.
const OPERATOR_KEY: [u8; 32] = [3; 32];
const DATA_KEY: [u8; 32] = [4; 32];
/// Batches in the log; there are checkpoints of the third and the fifth.
const BATCHES: u64 = 7;

fn folder(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/format-{version}"))
}

fn record(height: u64) -> Vec<u8> {
    vec![height as u8; 100 * height as usize]
}

/// The canister's memory at a height: a far page, and pages that come and go.
fn memory(height: u64) -> PageMap {
    let mut map = PageMap::default();
    for number in 1..=height {
        let mut delta = PageDelta::default();
        delta.insert(PageIndex(number), &[number as u8; 4096]);
        delta.insert(PageIndex(1 << 30), &[100 + number as u8; 4096]);
        delta.insert(PageIndex(number / 2), &[0; 4096]);
        map.apply(delta);
    }
    map
}

fn items(height: u64) -> BTreeMap<Vec<u8>, CheckpointItem> {
    let item = |number: u8| CheckpointItem {
        metadata: vec![number; height as usize].into(),
        blobs: vec![b"a module".to_vec().into()],
        memories: vec![memory(height), PageMap::default()],
    };
    (0..height as u8)
        .map(|number| (vec![number, 1], item(number)))
        .collect()
}

fn open(directory: &StateDirectory) -> (BatchLog, CheckpointStore, replicore_persistence::OpenedCheckpoints) {
    let disk = Arc::new(FileDisk);
    let cipher = directory.cipher("log");
    let (log, _) = BatchLog::open_with(disk.clone(), &directory.log(), LOG, cipher.as_ref()).expect("a log");
    let cipher = directory.cipher("checkpoints");
    let opened = CheckpointStore::open_with(disk, &directory.checkpoints(), CHECKPOINTS, cipher.as_ref());
    let (store, opened) = opened.expect("checkpoints");
    (log, store, opened)
}

fn checkpoint(store: &CheckpointStore, height: u64) {
    let request = CheckpointRequest {
        height,
        state_hash: [height as u8; 32],
        system: vec![height as u8; 10].into(),
        items: CheckpointItems::All(items(height)),
    };
    store.write(request).expect("written");
}

fn write(version: u32, path: &Path) {
    let directory = match version {
        1 => StateDirectory::open(path),
        _ => StateDirectory::open_encrypted(path, &OperatorKey::new(OPERATOR_KEY), DATA_KEY),
    };
    let directory = directory.expect("created");
    let (mut log, store, _) = open(&directory);
    for height in 1..=BATCHES {
        log.append(height, &record(height)).expect("appended");
        if height != 2 {
            log.sync().expect("synced");
        }
        if [3, 5].contains(&height) {
            checkpoint(&store, height);
        }
    }
    fs::remove_file(path.join("lock")).expect("a lock file");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a golden directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

fn assert_item(item: &CheckpointItem, expected: &CheckpointItem) {
    assert_eq!(item.metadata.bytes(), expected.metadata.bytes());
    assert_eq!(item.blobs[0].bytes(), expected.blobs[0].bytes());
    assert_eq!(item.memories.len(), expected.memories.len());
    for (memory, expected) in item.memories.iter().zip(&expected.memories) {
        assert_eq!(memory.digest(), expected.digest());
        assert!(memory.iter().eq(expected.iter()));
    }
}

#[test]
fn a_directory_of_format_1_opens_and_goes_on() {
    open_and_go_on(1, None);
}

#[test]
fn a_directory_of_format_2_opens_with_its_key_and_goes_on() {
    open_and_go_on(2, Some(&OperatorKey::new(OPERATOR_KEY)));
}

/// Other bytes than those in the golden directory would be a new version.
#[test]
fn an_encrypted_directory_is_written_as_ever() {
    let written = tempfile::tempdir().expect("a directory");
    let path = written.path().join("state");
    write(2, &path);
    let mut compared = 0;
    let mut folders = vec![folder(2)];
    while let Some(golden) = folders.pop() {
        for entry in fs::read_dir(golden).expect("a golden directory") {
            let golden = entry.expect("an entry").path();
            if golden.is_dir() {
                folders.push(golden);
                continue;
            }
            let same = path.join(golden.strip_prefix(folder(2)).expect("below it"));
            assert!(
                fs::read(&golden).expect("golden") == fs::read(&same).expect("written"),
                "{golden:?}"
            );
            compared += 1;
        }
    }
    assert!(compared >= 6, "{compared} files");
}

fn open_and_go_on(version: u32, operator: Option<&OperatorKey>) {
    if std::env::var_os("REPLICORE_WRITE_GOLDEN").is_some() && !folder(version).exists() {
        write(version, &folder(version));
    }
    let copied = tempfile::tempdir().expect("a directory");
    let path = copied.path().join("state");
    copy(&folder(version), &path);
    let directory = StateDirectory::open_existing(&path, operator).expect("a state directory");
    let (mut log, store, opened) = open(&directory);
    let latest = opened.latest.expect("a checkpoint");
    assert_eq!((latest.height, latest.state_hash), (5, [5; 32]));
    assert_eq!(*latest.system.bytes(), [5; 10]);
    assert_eq!(latest.items.len(), 5);
    for (key, expected) in items(5) {
        assert_item(&latest.items[&key], &expected);
    }
    let previous = store.previous().expect("readable").expect("there is one");
    assert_eq!((previous.height, previous.items.len()), (3, 3));
    assert!(opened.skipped.is_empty());
    assert_eq!(store.verify().expect("whole").checkpoints, 2);
    let records: Vec<_> = log
        .read_from(0)
        .expect("readable")
        .map(|record| record.expect("whole"))
        .collect();
    assert_eq!(
        records,
        (1..=BATCHES).map(|height| (height, record(height))).collect::<Vec<_>>()
    );

    log.append(BATCHES + 1, b"the next")
        .and_then(|()| log.sync())
        .expect("the log goes on");
    checkpoint(&store, BATCHES + 1);
    let height = BATCHES + 1;
    drop((log, store, latest, previous));
    let (log, store, opened) = open(&directory);
    assert_eq!(opened.latest.expect("a checkpoint").height, height);
    assert_eq!(log.last_height(), Some(height));
    store.verify().expect("whole");
}
