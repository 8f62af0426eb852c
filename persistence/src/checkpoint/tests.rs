//! Checkpoints against a plain model, through crashes and damage.

use super::{CheckpointItem, CheckpointItems, CheckpointOptions, CheckpointRequest, CheckpointStore};
use super::{LoadedCheckpoint, OpenedCheckpoints, WrittenCheckpoint};
use crate::disk::{Disk, FileDisk, SimDisk};
use crate::encryption::Cipher;
use crate::error::{PersistenceError, Result};
use crate::page_map::{Page, PageDelta, PageIndex, PageMap};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use replicore_types::OS_PAGE_BYTES;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

const SMALL: CheckpointOptions = CheckpointOptions {
    allocation_bytes: 16 << 10,
    slack_bytes: 64 << 10,
};

type Key = Vec<u8>;
type Items = BTreeMap<Key, CheckpointItem>;
/// What a state reads as: per item its metadata, blobs and memories' pages.
type Content = BTreeMap<Key, (Vec<u8>, Vec<Vec<u8>>, Vec<BTreeMap<u64, u8>>)>;

/// What a test runs over: a store in clear, or an encrypted one.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Clear,
    Sealed,
}

impl Kind {
    fn open_on(self, disk: impl Disk + 'static, directory: &Path) -> Result<(CheckpointStore, OpenedCheckpoints)> {
        let cipher = match self {
            Self::Clear => None,
            Self::Sealed => Some(Cipher::new([6; 32])),
        };
        CheckpointStore::open_with(Arc::new(disk), directory, SMALL, cipher.as_ref())
    }

    fn open(self, directory: &Path) -> Result<(CheckpointStore, OpenedCheckpoints)> {
        // Real files, without waiting for the real disk.
        self.open_on(SimDisk::default(), directory)
    }
}

fn open_on(disk: impl Disk + 'static, directory: &Path) -> Result<(CheckpointStore, OpenedCheckpoints)> {
    Kind::Clear.open_on(disk, directory)
}

fn open(directory: &Path) -> Result<(CheckpointStore, OpenedCheckpoints)> {
    Kind::Clear.open(directory)
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn page_of(byte: u8) -> Page {
    let mut page = [byte; OS_PAGE_BYTES];
    page[9] = 1;
    page
}

fn content_of(items: &Items) -> Content {
    let pages = |map: &PageMap| map.iter().map(|(index, page)| (index.0, page[0])).collect();
    let content = |item: &CheckpointItem| {
        let blobs = item.blobs.iter().map(|blob| blob.bytes().to_vec()).collect();
        (
            item.metadata.bytes().to_vec(),
            blobs,
            item.memories.iter().map(pages).collect(),
        )
    };
    items.iter().map(|(key, item)| (key.clone(), content(item))).collect()
}

fn request(height: u64, items: CheckpointItems) -> CheckpointRequest {
    CheckpointRequest {
        height,
        state_hash: [height as u8; 32],
        system: vec![height as u8; 50].into(),
        items,
    }
}

fn assert_loaded(loaded: &LoadedCheckpoint, height: u64, content: &Content) {
    assert_eq!(loaded.height, height);
    assert_eq!(loaded.state_hash, [height as u8; 32]);
    assert_eq!(*loaded.system.bytes(), vec![height as u8; 50]);
    assert_eq!(content_of(&loaded.items), *content);
    let frames: u64 = loaded
        .items
        .values()
        .flat_map(|item| &item.memories)
        .map(PageMap::frame_count)
        .sum();
    assert_eq!(frames, 0, "a loaded state holds no page in memory");
}

fn write_pages(map: &mut PageMap, rng: &mut ChaCha8Rng) {
    let mut delta = PageDelta::default();
    for _ in 0..rng.random_range(1..12) {
        let bound = if rng.random_bool(0.05) { 100_000 } else { 20 };
        let page = if rng.random_bool(0.2) {
            [0; OS_PAGE_BYTES]
        } else {
            page_of(rng.random())
        };
        delta.insert(PageIndex(rng.random_range(0..bound)), &page);
    }
    map.apply(delta);
}

/// Changes a few items and says which.
fn change_some(items: &mut Items, rng: &mut ChaCha8Rng) -> BTreeMap<Key, Option<CheckpointItem>> {
    let mut changed = BTreeMap::new();
    for _ in 0..rng.random_range(0..4) {
        let key = vec![rng.random_range(0..4)];
        if rng.random_bool(0.15) {
            items.remove(&key);
        } else {
            let item = items.entry(key.clone()).or_insert_with(|| CheckpointItem {
                metadata: vec![].into(),
                blobs: vec![],
                memories: vec![PageMap::default(); 2],
            });
            item.metadata = vec![rng.random(); rng.random_range(0..40)].into();
            item.blobs = vec![vec![rng.random_range(0..3); 700].into()];
            write_pages(&mut item.memories[rng.random_range(0..2)], rng);
        }
        changed.insert(key.clone(), items.get(&key).cloned());
    }
    changed
}

/// Lets go of what `written` holds, as the replica does.
fn rebase(items: &mut Items, written: &WrittenCheckpoint) {
    for memory in &written.memories {
        if let Some(map) = items
            .get_mut(&memory.key)
            .and_then(|item| item.memories.get_mut(memory.position))
        {
            let rebased = map.rebase(&memory.snapshot, &memory.stored);
            assert_eq!(rebased.digest(), map.digest());
            assert!(rebased.iter().eq(map.iter()));
            assert!(rebased.frame_count() <= map.frame_count());
            assert!(rebased.changes_since(map).is_empty());
            *map = rebased;
        }
    }
}

#[test]
fn checkpoints_read_back_what_was_written_through_any_history() {
    check_history(Kind::Clear, 16);
}

#[test]
fn encrypted_checkpoints_read_back_what_was_written_through_any_history() {
    check_history(Kind::Sealed, 6);
}

fn check_history(kind: Kind, seeds: u64) {
    for seed in 0..seeds {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let directory = directory();
        let (mut store, opened) = kind.open(directory.path()).expect("an empty store");
        assert!(opened.latest.is_none() && opened.skipped.is_empty());
        let (mut items, mut compactions) = (Items::new(), 0);
        for height in 1..40 {
            let changed = change_some(&mut items, &mut rng);
            let snapshot = items.clone();
            let content = content_of(&snapshot);
            let what = if height == 1 || rng.random_bool(0.3) {
                CheckpointItems::All(snapshot)
            } else {
                CheckpointItems::Since {
                    height: height - 1,
                    changed,
                }
            };
            let written = store.write(request(height, what)).expect("written");
            compactions += u32::from(written.compacted);
            // Meanwhile the state went on, but not in this checkpoint.
            if rng.random() {
                for item in items.values_mut() {
                    let mut ahead = item.memories[0].clone();
                    write_pages(&mut ahead, &mut rng);
                    let stored = written
                        .memories
                        .iter()
                        .find(|memory| memory.snapshot.is_same_version(&item.memories[0]));
                    if let Some(memory) = stored {
                        let rebased = ahead.rebase(&memory.snapshot, &memory.stored);
                        assert!(rebased.iter().eq(ahead.iter()));
                        assert_eq!(rebased.digest(), ahead.digest());
                        assert!(rebased.frame_count() <= 12, "only what was written since is in memory");
                        let parts = memory.clone().divide(3);
                        assert_eq!(parts.iter().map(|part| part.frames).sum::<u64>(), memory.frames);
                        let in_parts = parts.iter().fold(ahead.clone(), |map, part| part.rebase(&map));
                        assert_eq!(in_parts.frame_count(), rebased.frame_count());
                        assert_eq!(in_parts.digest(), ahead.digest());
                    }
                }
            }
            if rng.random_bool(0.8) {
                rebase(&mut items, &written);
            }
            if rng.random_bool(0.3) {
                let opened = {
                    drop(store);
                    let (reopened, opened) = kind.open(directory.path()).expect("reopened");
                    store = reopened;
                    opened
                };
                assert!(opened.skipped.is_empty());
                let latest = opened.latest.expect("a checkpoint");
                assert_loaded(&latest, height, &content);
                if rng.random() {
                    items = latest.items;
                }
            }
            let stats = store.stats();
            assert_eq!(stats.height, Some(height));
            assert_eq!(stats.previous_height, (height > 1).then(|| height - 1));
        }
        assert!(compactions > 0, "seed {seed} never compacted");
        assert_eq!(store.verify().expect("whole").checkpoints, 2);
        assert!(files_of(directory.path()).len() <= 5, "old files are gone");
    }
}

#[test]
fn only_what_changed_is_written() {
    let directory = directory();
    let (store, _) = open(directory.path()).expect("an empty store");
    let mut items = Items::new();
    for number in 0..300_u32 {
        let mut delta = PageDelta::default();
        for index in 0..20 {
            delta.insert(PageIndex(index), &page_of(number as u8));
        }
        let memories = vec![PageMap::default().update(delta)];
        let item = CheckpointItem {
            metadata: vec![1; 100].into(),
            blobs: vec![vec![7; 5000].into()],
            memories,
        };
        items.insert(number.to_le_bytes().to_vec(), item);
    }
    let first = store
        .write(request(1, CheckpointItems::All(items.clone())))
        .expect("written");
    assert_eq!(first.pages_written, 6000);
    // Nothing changed: a root and a system blob.
    let second = store
        .write(request(2, CheckpointItems::All(items.clone())))
        .expect("written");
    assert_eq!(second.pages_written, 0);
    assert!(second.bytes_written < 5000, "{}", second.bytes_written);
    assert!(second.memories.is_empty());
    // One page of one item, though no version was rebased.
    let key = 17_u32.to_le_bytes().to_vec();
    let mut delta = PageDelta::default();
    delta.insert(PageIndex(3), &page_of(200));
    items.get_mut(&key).expect("item 17").memories[0].apply(delta);
    let third = store
        .write(request(3, CheckpointItems::All(items.clone())))
        .expect("written");
    assert_eq!(third.pages_written, 1);
    assert!(third.bytes_written < 4096 + 8000, "{}", third.bytes_written);
    rebase(&mut items, &third);
    assert_eq!(items[&key].memories[0].frame_count(), 0);
    let wrong_base = CheckpointItems::Since {
        height: 2,
        changed: BTreeMap::new(),
    };
    assert!(matches!(
        store.write(request(4, wrong_base)),
        Err(PersistenceError::Refused { .. })
    ));
    assert!(matches!(
        store.write(request(3, CheckpointItems::All(Items::new()))),
        Err(PersistenceError::Refused { .. })
    ));
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_or_the_new_checkpoint() {
    check_crashes(Kind::Clear, 0..4);
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_or_the_new_encrypted_checkpoint() {
    check_crashes(Kind::Sealed, 4..6);
}

fn check_crashes(kind: Kind, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let source = directory();
        let disk = SimDisk::default();
        let (store, _) = kind.open_on(disk.clone(), source.path()).expect("an empty store");
        let mut items = Items::new();
        // For each checkpoint the operation count when it was acknowledged, and its content.
        let mut history = vec![(disk.operation_count(), Content::new())];
        for height in 1..14 {
            change_some(&mut items, &mut rng);
            let written = store
                .write(request(height, CheckpointItems::All(items.clone())))
                .expect("written");
            history.push((disk.operation_count(), content_of(&items)));
            rebase(&mut items, &written);
        }
        for point in 0..=disk.operation_count() {
            let target = directory();
            disk.crash_at(point, source.path(), target.path(), &mut |bound| {
                rng.random_range(0..bound)
            })
            .expect("laid out");
            let (store, opened) = kind
                .open(target.path())
                .unwrap_or_else(|error| panic!("seed {seed}, {point}: {error}"));
            let acknowledged = history.iter().rposition(|(at, _)| *at <= point).unwrap_or(0) as u64;
            let height = opened.latest.as_ref().map_or(0, |latest| latest.height);
            assert!(
                height == acknowledged || height == acknowledged + 1,
                "seed {seed}, {point}: {height}"
            );
            if let Some(latest) = &opened.latest {
                assert_loaded(latest, height, &history[height as usize].1);
            }
            store
                .verify()
                .unwrap_or_else(|error| panic!("seed {seed}, {point}: {error}"));
            // And the store goes on from there.
            let mut items = opened.latest.map_or_else(Items::new, |latest| latest.items);
            change_some(&mut items, &mut rng);
            store
                .write(request(height + 1, CheckpointItems::All(items.clone())))
                .expect("written");
            let (_, again) = kind.open(target.path()).expect("reopened");
            assert_loaded(&again.latest.expect("a checkpoint"), height + 1, &content_of(&items));
        }
    }
}

#[test]
fn after_a_failure_nothing_more_is_written_and_the_last_checkpoint_stays() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut failures = 0;
    for failing in 0..12 {
        let directory = directory();
        let disk = SimDisk::default();
        let (store, _) = open_on(disk.clone(), directory.path()).expect("an empty store");
        let mut items = Items::new();
        change_some(&mut items, &mut rng);
        store
            .write(request(1, CheckpointItems::All(items.clone())))
            .expect("written");
        let content = content_of(&items);
        change_some(&mut items, &mut rng);
        disk.fail_after(Some(failing));
        let result = store.write(request(2, CheckpointItems::All(items.clone())));
        disk.fail_after(None);
        if result.is_err() {
            failures += 1;
            let again = store.write(request(3, CheckpointItems::All(items.clone())));
            assert!(matches!(again, Err(PersistenceError::Poisoned { .. })));
            let (_, opened) = open(directory.path()).expect("reopened");
            let latest = opened.latest.expect("a checkpoint");
            match latest.height {
                1 => assert_loaded(&latest, 1, &content),
                height => assert_loaded(&latest, height, &content_of(&items)),
            }
        }
    }
    assert!(failures > 3);
}

/// Two checkpoints in one directory, and what each reads as.
fn two_checkpoints(kind: Kind, directory: &Path) -> [Content; 2] {
    let (store, _) = kind.open(directory).expect("an empty store");
    let mut items = Items::new();
    let mut contents = Vec::new();
    for height in 1..=2_u8 {
        for key in [1, height + 1] {
            let mut delta = PageDelta::default();
            delta.insert(PageIndex(u64::from(height)), &page_of(height));
            delta.insert(PageIndex(40), &page_of(key));
            let item = items.entry(vec![key]).or_insert_with(|| CheckpointItem {
                metadata: vec![].into(),
                blobs: vec![vec![5; 30].into()],
                memories: vec![PageMap::default()],
            });
            item.metadata = vec![height; 20].into();
            item.memories[0].apply(delta);
        }
        store
            .write(request(u64::from(height), CheckpointItems::All(items.clone())))
            .expect("written");
        contents.push(content_of(&items));
    }
    contents.try_into().expect("two")
}

fn files_of(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let names = FileDisk.list(directory).expect("a directory");
    names
        .into_iter()
        .map(|name| (name.clone(), fs::read(directory.join(name)).expect("a file")))
        .collect()
}

#[test]
fn any_flipped_byte_is_detected_or_changes_nothing() {
    check_flips(Kind::Clear);
}

#[test]
fn any_flipped_byte_of_an_encrypted_store_is_detected_or_changes_nothing() {
    check_flips(Kind::Sealed);
}

fn check_flips(kind: Kind) {
    let directory = directory();
    let contents = two_checkpoints(kind, directory.path());
    let (mut fallbacks, mut unaffected, mut found_by_verify, mut refused) = (0, 0, 0, 0);
    for (name, bytes) in files_of(directory.path()) {
        let path = directory.path().join(&name);
        let written = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        let step = if name.starts_with("records") { 3 } else { 37 };
        for position in (0..written + 20).step_by(step).chain((0..80).filter(|_| step > 1)) {
            let Some(mut flipped) = Some(bytes.clone()).filter(|bytes| position < bytes.len()) else {
                continue;
            };
            flipped[position] ^= 1 << (position % 8);
            fs::write(&path, &flipped).expect("written");
            let (store, opened) = match kind.open(directory.path()) {
                Ok(opened) => opened,
                Err(PersistenceError::Damaged { .. }) => {
                    refused += 1;
                    continue;
                }
                Err(other) => panic!("{name} at {position}: {other}"),
            };
            let verified = store.verify();
            let latest = opened.latest.expect("a checkpoint");
            let content = &contents[latest.height as usize - 1];
            if verified.is_ok() {
                assert_loaded(&latest, latest.height, content);
            }
            match (latest.height, opened.skipped.is_empty(), verified) {
                (2, true, Ok(_)) => unaffected += 1,
                (2, true, Err(PersistenceError::Damaged { file, .. })) => {
                    assert_eq!(file, path, "{name} at {position}");
                    found_by_verify += 1;
                }
                (1, false, _) | (2, false, _) => fallbacks += 1,
                (height, clean, verified) => panic!("{name} at {position}: {height}, {clean}, {verified:?}"),
            }
        }
        fs::write(&path, &bytes).expect("written");
    }
    let counts = [fallbacks, unaffected, found_by_verify, refused];
    assert!(
        counts.iter().all(|count| *count > 10),
        "fallback, unaffected, found by verify, refused: {counts:?}"
    );
}

#[test]
fn truncated_files_open_the_older_checkpoint_or_say_what_is_wrong() {
    check_truncated(Kind::Clear);
    check_truncated(Kind::Sealed);
}

fn check_truncated(kind: Kind) {
    let directory = directory();
    let contents = two_checkpoints(kind, directory.path());
    for (name, bytes) in files_of(directory.path()) {
        let path = directory.path().join(&name);
        for len in (0..bytes.len()).step_by(97) {
            fs::write(&path, &bytes[..len]).expect("written");
            match kind.open(directory.path()) {
                Ok((_, opened)) => {
                    if let Some(latest) = opened.latest {
                        assert_loaded(&latest, latest.height, &contents[latest.height as usize - 1]);
                    }
                }
                Err(PersistenceError::Damaged { .. }) => {}
                Err(other) => panic!("{name} at {len}: {other}"),
            }
        }
        fs::write(&path, &bytes).expect("written");
    }
}

#[test]
fn after_a_fallback_the_next_checkpoint_touches_no_byte_of_the_damaged_one() {
    let directory = directory();
    let contents = two_checkpoints(Kind::Clear, directory.path());
    let (name, mut bytes) = files_of(directory.path())
        .into_iter()
        .find(|(name, _)| name.starts_with("records"))
        .expect("records");
    let last = bytes.iter().rposition(|byte| *byte != 0).expect("content");
    bytes[last] ^= 1;
    fs::write(directory.path().join(&name), &bytes).expect("written");
    let (store, opened) = open(directory.path()).expect("the older one");
    let latest = opened.latest.expect("a checkpoint");
    assert_loaded(&latest, 1, &contents[0]);
    assert_eq!(opened.skipped.len(), 1);
    let written = store
        .write(request(2, CheckpointItems::All(latest.items.clone())))
        .expect("written");
    assert!(written.compacted);
    assert_eq!(fs::read(directory.path().join(&name)).expect("a file"), bytes);
    let (_, opened) = open(directory.path()).expect("the new one");
    assert_loaded(&opened.latest.expect("a checkpoint"), 2, &contents[0]);
    assert!(opened.skipped.is_empty());
}

#[test]
fn the_format_is_pinned() {
    let digest = "27ba24e0afb068b1d7c273ba02758c551d64b0e6076334cac655fcb09c675bae";
    check_format(Kind::Clear, digest);
}

#[test]
fn the_encrypted_format_is_pinned() {
    let digest = "2458037aadbf7f74434a43d71ec179135bc40ff1daa07810de8ab1257342e12e";
    check_format(Kind::Sealed, digest);
}

fn check_format(kind: Kind, expected: &str) {
    let directory = directory();
    two_checkpoints(kind, directory.path());
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in files_of(directory.path()) {
        hasher.update(name.as_bytes());
        hasher.update(&bytes);
    }
    // A change here is a new format version: FORMAT.md, `VERSION`, and a reader for the old one.
    assert_eq!(hasher.finalize().to_hex().as_str(), expected);
}

/// Damage that opening has no time to look for ends the process that meets it; the next one looks for it.
#[test]
fn damage_met_while_serving_has_the_next_start_fall_back() {
    let directory = directory();
    let (store, _) = open(directory.path()).expect("an empty store");
    let mut items = Items::from([(
        vec![1],
        CheckpointItem {
            metadata: vec![].into(),
            blobs: vec![],
            memories: vec![PageMap::default()],
        },
    )]);
    let content = content_of(&items);
    store
        .write(request(1, CheckpointItems::All(items.clone())))
        .expect("written");
    let (mut delta, many) = (PageDelta::default(), super::open::PAGES_CHECKED_MAX + 40);
    (0..many).for_each(|index| delta.insert(PageIndex(index), &page_of(index as u8)));
    items.get_mut([1].as_slice()).expect("the item").memories[0].apply(delta);
    store.write(request(2, CheckpointItems::All(items))).expect("written");
    drop(store);

    let pages = directory.path().join("pages-0000000000000000");
    let mut bytes = fs::read(&pages).expect("pages");
    let offset = (many as usize - 1) * OS_PAGE_BYTES;
    bytes[offset] ^= 1;
    fs::write(&pages, &bytes).expect("written");
    let latest = open(directory.path()).expect("not looked at").1.latest.expect("one");
    assert_eq!(latest.height, 2);
    let memory = latest.items[[1].as_slice()].memories[0].clone();
    let met = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        memory.get(PageIndex(many - 1)).map(|page| page[0])
    }));
    let said = met.expect_err("damage").downcast::<String>().expect("a sentence");
    assert!(said.contains(&format!("at byte {offset}")), "{said}");

    for _ in 0..2 {
        let (_, opened) = open(directory.path()).expect("the older one");
        assert_loaded(&opened.latest.expect("a checkpoint"), 1, &content);
        let skipped = opened.skipped[0].to_string();
        for part in ["pages-0", &format!("at byte {offset}"), "memory 0 of canister "] {
            assert!(skipped.contains(part), "{skipped}");
        }
    }
    let (store, opened) = open(directory.path()).expect("the older one");
    let items = opened.latest.expect("a checkpoint").items;
    store.write(request(2, CheckpointItems::All(items))).expect("written");
    assert!(!directory.path().join("suspect").exists());
    assert!(open(directory.path()).expect("the new one").1.skipped.is_empty());
}

#[test]
fn a_checkpoint_of_many_pages_goes_past_the_cache_and_reads_as_it_was() {
    let directory = directory();
    let (store, _) = open_on(FileDisk, directory.path()).expect("a new store");
    let count = super::write::PAST_CACHE_PAGES_MIN + 300;
    let mut memory = PageMap::default();
    let mut check = |store: &CheckpointStore, height: u64, changed: std::ops::Range<u64>| {
        let mut delta = PageDelta::default();
        for index in changed.clone() {
            let mut page = page_of(height as u8);
            page[..8].copy_from_slice(&index.to_le_bytes());
            delta.insert(PageIndex(index), &page);
        }
        memory.apply(delta);
        let item = CheckpointItem {
            metadata: Vec::new().into(),
            blobs: Vec::new(),
            memories: vec![memory.clone()],
        };
        let request = CheckpointRequest {
            height,
            state_hash: [0; 32],
            system: Vec::new().into(),
            items: CheckpointItems::All(BTreeMap::from([(vec![1], item)])),
        };
        let written = store.write(request).expect("written");
        assert_eq!(written.pages_written, changed.end - changed.start);
        for stored in &written.memories {
            memory = memory.rebase(&stored.snapshot, &stored.stored);
        }
        assert_eq!(memory.frame_count(), 0);
        for index in (0..count).step_by(97) {
            let page = memory.get(PageIndex(index)).expect("a page");
            assert_eq!(page[..8], index.to_le_bytes());
        }
        memory.digest()
    };
    check(&store, 1, 0..count);
    // The next one goes through it, behind what went past.
    check(&store, 2, 0..100);
    let digest = check(&store, 3, 0..count);
    drop(store);
    let (_, opened) = open_on(FileDisk, directory.path()).expect("opened");
    let loaded = opened.latest.expect("a checkpoint");
    let memory = &loaded.items[&vec![1]].memories[0];
    assert_eq!(memory.digest(), digest);
    assert!(memory.iter().all(|(index, page)| page[..8] == index.0.to_le_bytes()));
}
