//! Fetching from peers that change, break off and lie.

use super::{CheckpointSource, FetchReport, SyncError, SyncPiece, SyncSource, fetch};
use crate::checkpoint::{
    CheckpointItem, CheckpointItems, CheckpointOptions, CheckpointRequest, CheckpointStore, LoadedCheckpoint,
};
use crate::disk::SimDisk;
use crate::page_map::{PageDelta, PageIndex, PageMap};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use replicore_types::OS_PAGE_BYTES;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

type Items = BTreeMap<Vec<u8>, CheckpointItem>;

fn open(directory: &Path) -> (CheckpointStore, Option<LoadedCheckpoint>) {
    let options = CheckpointOptions {
        allocation_bytes: 16 << 10,
        slack_bytes: 64 << 10,
    };
    let (store, opened) = CheckpointStore::open(Arc::new(SimDisk::default()), directory, options).expect("a store");
    (store, opened.latest)
}

/// Pages in a few chunks, near ones and far ones; the first chunk can go.
fn write_pages(map: &mut PageMap, count: usize, rng: &mut ChaCha8Rng) {
    let mut delta = PageDelta::default();
    for _ in 0..count {
        let chunk = match rng.random_range(0..15) {
            14 => 1 << 20,
            near => near,
        };
        let mut page = [0; OS_PAGE_BYTES];
        if rng.random_bool(0.8) {
            page[..8].copy_from_slice(&rng.random::<u64>().to_le_bytes());
        }
        delta.insert(PageIndex(chunk * 256 + rng.random_range(0..256)), &page);
    }
    map.apply(delta);
}

fn some_items(rng: &mut ChaCha8Rng) -> Items {
    let mut items = Items::new();
    for number in 0..6_u8 {
        let mut memories = vec![PageMap::default(); 1 + usize::from(number % 3)];
        write_pages(&mut memories[0], 30 * usize::from(number), rng);
        let item = CheckpointItem {
            metadata: vec![number; 50].into(),
            blobs: vec![vec![number / 3; 900].into()],
            memories,
        };
        items.insert(vec![number], item);
    }
    // A memory of one page: its root is a leaf.
    let mut delta = PageDelta::default();
    delta.insert(PageIndex(3), &[5; OS_PAGE_BYTES]);
    items.get_mut([2].as_slice()).expect("made").memories[2].apply(delta);
    items
}

fn checkpoint(store: &CheckpointStore, height: u64, items: &Items) -> CheckpointSource {
    let request = CheckpointRequest {
        height,
        state_hash: [height as u8; 32],
        system: vec![height as u8; 20].into(),
        items: CheckpointItems::All(items.clone()),
    };
    store.write(request).expect("written");
    CheckpointSource::new(store.latest().expect("readable").expect("just written"))
}

fn assert_same(fetched: &LoadedCheckpoint, height: u64, items: &Items) {
    assert_eq!((fetched.height, fetched.state_hash), (height, [height as u8; 32]));
    assert_eq!(*fetched.system.bytes(), [height as u8; 20]);
    assert!(fetched.items.keys().eq(items.keys()));
    for (item, expected) in fetched.items.values().zip(items.values()) {
        assert_eq!(item.metadata.bytes(), expected.metadata.bytes());
        assert_eq!(item.blobs, expected.blobs);
        assert_eq!(item.memories.len(), expected.memories.len());
        for (memory, expected) in item.memories.iter().zip(&expected.memories) {
            assert!(memory.iter().eq(expected.iter()));
        }
    }
}

/// Gives so many answers, then none; the answer of one number has a wrong byte.
struct Unsteady<'a> {
    source: &'a CheckpointSource,
    answers_left: usize,
    wrong: Option<usize>,
    answered: usize,
}

impl SyncSource for Unsteady<'_> {
    fn pieces(&mut self, wanted: &[SyncPiece]) -> Result<Vec<Vec<u8>>, SyncError> {
        if self.answers_left == 0 {
            return Err(SyncError::Source("the connection broke".into()));
        }
        self.answers_left -= 1;
        let mut pieces = self.source.clone().pieces(wanted)?;
        for piece in &mut pieces {
            if self.wrong == Some(self.answered) {
                let place = piece.len() / 2;
                match piece.get_mut(place) {
                    Some(byte) => *byte ^= 4,
                    None => piece.push(0),
                }
            }
            self.answered += 1;
        }
        Ok(pieces)
    }
}

fn fetch_all(source: &CheckpointSource, local: Option<LoadedCheckpoint>) -> (LoadedCheckpoint, FetchReport) {
    let directory = tempfile::tempdir().expect("a directory");
    let (staging, staged) = open(directory.path());
    let fetched = fetch(&mut source.clone(), &source.manifest(), &staging, staged, local).expect("fetched");
    (fetched.checkpoint, fetched.report)
}

#[test]
fn what_is_fetched_is_what_the_peer_has_and_only_what_lacks_is_fetched() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let mut items = some_items(&mut rng);
    let first = checkpoint(&store, 1, &items);
    let (fetched, whole) = fetch_all(&first, None);
    assert_same(&fetched, 1, &items);
    for round in 2..8 {
        for item in items.values_mut() {
            write_pages(&mut item.memories[0], 2, &mut rng);
        }
        items.remove([round as u8 - 2].as_slice());
        if let Some(item) = items.get_mut([5].as_slice()) {
            item.memories[0].apply(PageMap::without_chunk(round));
        }
        let source = checkpoint(&store, round, &items);
        let (fetched_now, report) = fetch_all(&source, Some(fetched.clone()));
        assert_same(&fetched_now, round, &items);
        let (_, again) = fetch_all(&source, Some(fetched_now));
        assert!(report.bytes < whole.bytes, "{report:?} after {whole:?}");
        assert_eq!((again.pieces, again.bytes), (0, 0), "nothing lacks");
    }
}

#[test]
fn an_interrupted_fetch_goes_on_where_it_was() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let (directory, target) = (
        tempfile::tempdir().expect("a directory"),
        tempfile::tempdir().expect("a directory"),
    );
    let (store, _) = open(directory.path());
    let items = some_items(&mut rng);
    let source = checkpoint(&store, 9, &items);
    let (_, whole) = fetch_all(&source, None);
    let (mut received, mut attempts) = (0, 0);
    loop {
        let mut unsteady = Unsteady {
            source: &source,
            // Outlines, and one answer with chunks.
            answers_left: 2,
            wrong: None,
            answered: 0,
        };
        // As after a restart.
        let (staging, staged) = open(target.path());
        let result = fetch(&mut unsteady, &source.manifest(), &staging, staged, None);
        received += unsteady.answered as u64;
        attempts += 1;
        match result {
            Ok(fetched) => {
                assert_same(&fetched.checkpoint, 9, &items);
                break;
            }
            Err(SyncError::Source(_)) => assert!(attempts < 50, "no progress"),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(attempts > 2);
    // Outlines are asked for again, blobs and chunks are not.
    let outlines = items.values().map(|item| item.memories.len() as u64).sum::<u64>() * attempts;
    assert!(
        received <= whole.pieces + outlines,
        "{received} pieces instead of {whole:?}"
    );
}

#[test]
fn a_piece_with_a_wrong_byte_is_found_whichever_it_is() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let source = checkpoint(&store, 1, &some_items(&mut rng));
    let (_, whole) = fetch_all(&source, None);
    assert!(whole.pieces > 20);
    for wrong in 0..whole.pieces as usize {
        let target = tempfile::tempdir().expect("a directory");
        let mut lying = Unsteady {
            source: &source,
            answers_left: usize::MAX,
            wrong: Some(wrong),
            answered: 0,
        };
        let (staging, staged) = open(target.path());
        let error = fetch(&mut lying, &source.manifest(), &staging, staged, None).expect_err("a wrong piece");
        assert!(matches!(error, SyncError::Wrong(_)), "piece {wrong}: {error}");
    }
}
