//! What a key opens, and what nobody without it can do.

use super::data_key::{DATA_KEY_FILE, OperatorKey};
use super::{Cipher, ClearPages};
use crate::batch_log::{BatchLog, BatchLogOptions};
use crate::checkpoint::{CheckpointItem, CheckpointItems, CheckpointOptions, CheckpointRequest, CheckpointStore};
use crate::disk::SimDisk;
use crate::error::{PersistenceError, Result};
use crate::page_map::{PageDelta, PageIndex, PageMap};
use crate::state_directory::StateDirectory;
use replicore_types::OS_PAGE_BYTES;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const KEY: [u8; 32] = [3; 32];
const FRESH: [u8; 32] = [4; 32];
/// Stands for everything secret; long enough never to come by chance.
const SECRET: &[u8] = b"nobody should read this";

fn operator(byte: u8) -> OperatorKey {
    OperatorKey::new([byte; 32])
}

fn create(path: &Path) -> StateDirectory {
    StateDirectory::open_encrypted(path, &OperatorKey::new(KEY), FRESH).expect("created")
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

fn open_store(directory: &StateDirectory) -> Result<CheckpointStore> {
    let options = CheckpointOptions {
        allocation_bytes: 16 << 10,
        slack_bytes: 64 << 10,
    };
    let cipher = directory.cipher("checkpoints");
    let disk = Arc::new(SimDisk::default());
    Ok(CheckpointStore::open_with(disk, &directory.checkpoints(), options, cipher.as_ref())?.0)
}

fn open_log(directory: &StateDirectory) -> Result<BatchLog> {
    let options = BatchLogOptions {
        segment_bytes: 16 << 10,
        salt: 5,
        prepare_ahead: false,
    };
    let cipher = directory.cipher("log");
    let disk = Arc::new(SimDisk::default());
    Ok(BatchLog::open_with(disk, &directory.log(), options, cipher.as_ref())?.0)
}

/// A page that begins with the secret.
fn secret_page(number: u8) -> [u8; OS_PAGE_BYTES] {
    let mut page = [number; OS_PAGE_BYTES];
    page[..SECRET.len()].copy_from_slice(SECRET);
    page
}

/// A log and a checkpoint full of secrets.
fn fill(directory: &StateDirectory) {
    let mut log = open_log(directory).expect("a log");
    for height in 1..=3 {
        log.append(height, SECRET).expect("appended");
        log.sync().expect("synced");
    }
    let mut delta = PageDelta::default();
    (0..20).for_each(|index| delta.insert(PageIndex(index), &secret_page(index as u8)));
    let item = CheckpointItem {
        metadata: SECRET.to_vec().into(),
        blobs: vec![[SECRET, b" at all"].concat().into()],
        memories: vec![PageMap::default().update(delta)],
    };
    let request = CheckpointRequest {
        height: 3,
        state_hash: SECRET.repeat(2)[..32].try_into().expect("32 bytes"),
        system: SECRET.to_vec().into(),
        items: CheckpointItems::All(BTreeMap::from([(SECRET.to_vec(), item)])),
    };
    open_store(directory).expect("a store").write(request).expect("written");
}

#[test]
fn what_is_sealed_opens_with_its_key_at_its_place_only() {
    let cipher = Cipher::new([1; 32]);
    let key = cipher.part("a").key("pages", 7);
    let mut sealed = SECRET.to_vec();
    let (nonce, tag) = key.seal(b"place", &mut sealed);
    sealed.extend_from_slice(&tag);
    let opened = |key: &super::SealingKey, place: &[u8], bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        key.open(place, nonce, &mut bytes).map(<[u8]>::to_vec)
    };
    assert_eq!(opened(&key, b"place", &sealed).as_deref(), Some(SECRET));
    assert_eq!(opened(&key, b"plase", &sealed), None);
    for other in [
        cipher.part("b").key("pages", 7),
        cipher.part("a").key("records", 7),
        cipher.part("a").key("pages", 8),
        Cipher::new([2; 32]).part("a").key("pages", 7),
    ] {
        assert_eq!(opened(&other, b"place", &sealed), None);
    }
    for position in 0..sealed.len() {
        let mut flipped = sealed.clone();
        flipped[position] ^= 1 << (position % 8);
        assert_eq!(opened(&key, b"place", &flipped), None, "byte {position}");
    }
    assert_eq!(opened(&key, b"place", &sealed[..10]), None);
}

#[test]
fn another_content_or_another_place_has_another_nonce() {
    let key = Cipher::new([1; 32]).key("pages", 0);
    let nonce = |place: &[u8], content: &[u8]| key.seal(place, &mut content.to_vec()).0;
    let nonces = [
        nonce(b"p", b"one"),
        nonce(b"p", b"two"),
        nonce(b"q", b"one"),
        nonce(b"po", b"ne"),
        nonce(b"", b"pone"),
    ];
    let distinct: std::collections::BTreeSet<_> = nonces.iter().collect();
    assert_eq!(distinct.len(), nonces.len());
    assert_eq!(nonce(b"p", b"one"), nonces[0]);
}

#[test]
fn no_file_of_an_encrypted_directory_shows_what_it_holds() {
    let parent = tempfile::tempdir().expect("a directory");
    let has_secret = |path: &Path| {
        let bytes = fs::read(path).expect("a file");
        bytes.windows(SECRET.len()).any(|window| window == SECRET)
    };
    let clear = StateDirectory::open(&parent.path().join("clear")).expect("created");
    fill(&clear);
    let shown = files_below(clear.path()).iter().filter(|path| has_secret(path)).count();
    assert!(shown >= 3, "the test looks where there is something: {shown}");
    let sealed = create(&parent.path().join("sealed"));
    fill(&sealed);
    for path in files_below(sealed.path()) {
        assert!(!has_secret(&path), "{}", path.display());
    }
    let store = open_store(&sealed).expect("readable");
    let latest = store.latest().expect("whole").expect("a checkpoint");
    let item = &latest.items[SECRET];
    assert_eq!((&*latest.system.bytes(), &*item.metadata.bytes()), (SECRET, SECRET));
    assert_eq!(item.memories[0].get(PageIndex(9)).as_deref(), Some(&secret_page(9)));
    assert_eq!(store.verify().expect("whole").pages, 20);
}

#[test]
fn the_same_state_has_the_same_digests_with_and_without_a_key() {
    let parent = tempfile::tempdir().expect("a directory");
    let (clear, sealed) = (
        StateDirectory::open(&parent.path().join("clear")).expect("created"),
        create(&parent.path().join("sealed")),
    );
    let digests = [clear, sealed].map(|directory| {
        fill(&directory);
        let latest = open_store(&directory).expect("a store").latest();
        let latest = latest.expect("whole").expect("a checkpoint");
        let item = &latest.items[SECRET];
        (
            item.memories[0].digest(),
            *item.metadata.digest(),
            item.memories[0].outline(),
        )
    });
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_missing_a_wrong_and_an_unneeded_key_are_told_apart() {
    let parent = tempfile::tempdir().expect("a directory");
    let (clear, sealed) = (parent.path().join("clear"), parent.path().join("sealed"));
    drop(StateDirectory::open(&clear).expect("created"));
    drop(create(&sealed));
    let before: Vec<_> = files_below(&sealed)
        .iter()
        .map(|path| fs::read(path).expect("a file"))
        .collect();
    let missing = StateDirectory::open(&sealed).expect_err("encrypted");
    assert!(matches!(missing, PersistenceError::NoKey { .. }), "{missing}");
    assert!(missing.to_string().contains("--encryption-key"), "{missing}");
    let wrong = StateDirectory::open_encrypted(&sealed, &operator(9), FRESH).expect_err("another key");
    assert!(matches!(wrong, PersistenceError::WrongKey { .. }), "{wrong}");
    let unneeded = StateDirectory::open_encrypted(&clear, &operator(3), FRESH).expect_err("in clear");
    assert!(matches!(unneeded, PersistenceError::UnneededKey { .. }), "{unneeded}");
    let after: Vec<_> = files_below(&sealed)
        .iter()
        .map(|path| fs::read(path).expect("a file"))
        .collect();
    assert_eq!(before, after, "nothing changed");
    StateDirectory::open_existing(&sealed, Some(&operator(3))).expect("the right key");
}

#[test]
fn parts_of_a_directory_without_or_with_another_key_are_refused() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = create(parent.path());
    fill(&directory);
    let disk = || Arc::new(SimDisk::default());
    let log = BatchLog::open(disk(), &directory.log(), BatchLogOptions::default());
    assert!(matches!(log, Err(PersistenceError::NoKey { .. })));
    let store = CheckpointStore::open(disk(), &directory.checkpoints(), CheckpointOptions::default());
    assert!(matches!(store, Err(PersistenceError::NoKey { .. })));
    let other = Cipher::new([8; 32]);
    let log = BatchLog::open_with(disk(), &directory.log(), BatchLogOptions::default(), Some(&other));
    assert!(matches!(log, Err(PersistenceError::Damaged { .. })));
    // Somebody without the key puts files in clear in place of the sealed ones.
    let clear = StateDirectory::open(&parent.path().join("clear")).expect("created");
    fill(&clear);
    for part in ["log", "checkpoints"] {
        for path in files_below(&clear.path().join(part)) {
            fs::copy(
                &path,
                directory.path().join(part).join(path.file_name().expect("a name")),
            )
            .expect("copied");
        }
    }
    assert!(matches!(open_log(&directory), Err(PersistenceError::Damaged { .. })));
    assert!(matches!(open_store(&directory), Err(PersistenceError::Damaged { .. })));
}

#[test]
fn pages_cannot_be_swapped_or_taken_from_elsewhere() {
    const STRIDE: u64 = OS_PAGE_BYTES as u64 + 16;
    let parent = tempfile::tempdir().expect("a directory");
    let directory = create(parent.path());
    fill(&directory);
    let path = directory.checkpoints().join("pages-0000000000000000");
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .expect("pages");
    let (mut one, mut another) = ([0; STRIDE as usize], [0; STRIDE as usize]);
    file.read_exact_at(&mut one, 2 * STRIDE).expect("a page");
    file.read_exact_at(&mut another, 5 * STRIDE).expect("a page");
    file.write_all_at(&one, 5 * STRIDE).expect("written");
    file.write_all_at(&another, 2 * STRIDE).expect("written");
    let error = open_store(&directory).expect_err("two pages are swapped").to_string();
    assert!(error.contains("not what was sealed here"), "{error}");
}

#[test]
fn another_operators_key_takes_over_without_a_page_written() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = create(parent.path());
    fill(&directory);
    drop(directory);
    let parts = |path: &Path| {
        let paths = files_below(path)
            .into_iter()
            .filter(|path| path.parent() != Some(parent.path()));
        paths.map(|path| fs::read(path).expect("a file")).collect::<Vec<_>>()
    };
    let before = parts(parent.path());
    assert!(matches!(
        StateDirectory::rekey(parent.path(), &operator(9), &operator(5)),
        Err(PersistenceError::WrongKey { .. })
    ));
    StateDirectory::rekey(parent.path(), &operator(3), &operator(5)).expect("changed");
    assert_eq!(parts(parent.path()), before);
    assert!(matches!(
        StateDirectory::open_existing(parent.path(), Some(&operator(3))),
        Err(PersistenceError::WrongKey { .. })
    ));
    let directory = StateDirectory::open_existing(parent.path(), Some(&operator(5))).expect("the new key");
    assert_eq!(
        open_store(&directory).expect("readable").verify().expect("whole").pages,
        20
    );
}

#[test]
fn a_damaged_data_key_is_read_from_its_copy_or_named() {
    let parent = tempfile::tempdir().expect("a directory");
    drop(create(parent.path()));
    let path = parent.path().join(DATA_KEY_FILE);
    let bytes = fs::read(&path).expect("a data key");
    let open = || StateDirectory::open_existing(parent.path(), Some(&operator(3)));
    for position in (0..100).chain((100..4096).step_by(331)) {
        let mut flipped = bytes.clone();
        flipped[position] ^= 1 << (position % 8);
        fs::write(&path, &flipped).expect("written");
        open().unwrap_or_else(|error| panic!("the copy is whole, byte {position}: {error}"));
        flipped[4096 + position] ^= 1;
        fs::write(&path, &flipped).expect("written");
        assert!(
            matches!(open(), Err(PersistenceError::Damaged { .. })),
            "byte {position}"
        );
    }
    fs::write(&path, &bytes[..3000]).expect("written");
    assert!(matches!(open(), Err(PersistenceError::Damaged { .. })));
    fs::remove_file(&path).expect("removed");
    assert!(matches!(open(), Err(PersistenceError::Damaged { .. })));
}

#[test]
fn a_creation_that_was_cut_off_goes_on_with_the_same_data_key() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = create(parent.path());
    fill(&directory);
    drop(directory);
    fs::remove_file(parent.path().join("format")).expect("removed");
    assert!(matches!(
        StateDirectory::open(parent.path()),
        Err(PersistenceError::NoKey { .. })
    ));
    let again = StateDirectory::open_encrypted(parent.path(), &operator(3), [77; 32]).expect("goes on");
    assert_eq!(open_store(&again).expect("readable").verify().expect("whole").pages, 20);
    drop(again);
    fs::write(parent.path().join("format"), "replicore state directory, format 1\n").expect("written");
    let error = StateDirectory::open_existing(parent.path(), Some(&operator(3))).expect_err("a data key lies there");
    assert!(matches!(error, PersistenceError::Damaged { .. }), "{error}");
}

#[test]
fn keys_are_read_as_hexadecimal_digits() {
    let text = format!(" {}\n", "0fA1".repeat(16));
    assert!(OperatorKey::parse(&text).is_some());
    for wrong in [
        "",
        "0f",
        &"0g".repeat(32),
        &"0f".repeat(31),
        &"+f".repeat(32),
        &"é".repeat(32),
    ] {
        assert!(OperatorKey::parse(wrong).is_none(), "{wrong}");
    }
    assert_eq!(format!("{:?}", operator(1)), "OperatorKey(..)");
}

#[test]
fn decrypted_pages_are_kept_by_place_and_put_out_by_others() {
    let pages = ClearPages::new();
    let page = |byte: u8| Arc::new([byte; OS_PAGE_BYTES]);
    let beside = 16_384 * OS_PAGE_BYTES as u64;
    pages.put(0, 0, &page(1));
    assert_eq!(pages.get(0, 0).map(|page| page[0]), Some(1));
    assert!(pages.get(1, 0).is_none() && pages.get(0, beside).is_none());
    pages.put(0, beside, &page(2));
    assert_eq!(pages.get(0, beside).map(|page| page[0]), Some(2));
    assert!(pages.get(0, 0).is_none(), "one page at one place");
}
