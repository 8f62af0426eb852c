//! What is read back after crashes, damage and failures.

use super::{BatchLog, BatchLogOptions, LogTail};
use crate::disk::{Disk, FileDisk, Operation, SimDisk};
use crate::encryption::Cipher;
use crate::error::{PersistenceError, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs;
use std::path::Path;
use std::sync::Arc;

const SMALL: BatchLogOptions = BatchLogOptions {
    segment_bytes: 16 << 10,
    salt: 77,
    prepare_ahead: false,
};

type Records = Vec<(u64, Vec<u8>)>;

/// What a test runs over: a log in clear, or an encrypted one.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Clear,
    Sealed,
}

impl Kind {
    fn open_on(self, disk: impl Disk + 'static, directory: &Path) -> Result<(BatchLog, LogTail)> {
        let cipher = match self {
            Self::Clear => None,
            Self::Sealed => Some(Cipher::new([6; 32])),
        };
        BatchLog::open_with(Arc::new(disk), directory, SMALL, cipher.as_ref())
    }

    fn open(self, directory: &Path) -> Result<(BatchLog, LogTail)> {
        // Real files, without waiting for the real disk.
        self.open_on(SimDisk::default(), directory)
    }

    fn read_all(self, directory: &Path) -> Result<Records> {
        let (log, _) = self.open(directory)?;
        log.read_from(0)?.collect()
    }
}

fn open(directory: &Path) -> Result<(BatchLog, LogTail)> {
    Kind::Clear.open(directory)
}

fn read_all(directory: &Path) -> Result<Records> {
    Kind::Clear.read_all(directory)
}

fn record(height: u64) -> Vec<u8> {
    (0..height % 7 * 300 + 1).map(|at| (at * 31 + height) as u8).collect()
}

/// Twelve records in groups of one to three over several segments.
fn write_sample(kind: Kind, directory: &Path) -> Records {
    let (mut log, _) = kind.open_on(FileDisk, directory).expect("an empty log");
    let mut records = Records::new();
    for height in 1..=12 {
        log.append(height, &record(height)).expect("appended");
        records.push((height, record(height)));
        if height % 4 != 1 {
            log.sync().expect("synced");
        }
    }
    assert!(log.segments.len() > 2);
    records
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn files_of(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry"))
        .map(|entry| {
            (
                entry.file_name().into_string().expect("a name"),
                fs::read(entry.path()).expect("a file"),
            )
        })
        .collect();
    files.sort();
    files
}

#[test]
fn what_was_synced_is_read_back_and_the_rest_is_not() {
    check_read_back(Kind::Clear);
    check_read_back(Kind::Sealed);
}

fn check_read_back(kind: Kind) {
    let directory = directory();
    let mut records = write_sample(kind, directory.path());
    let (mut log, tail) = kind.open(directory.path()).expect("reopened");
    assert!(!tail.torn);
    assert_eq!(log.last_height(), Some(12));
    assert_eq!(kind.read_all(directory.path()).expect("read"), records);
    log.append(20, b"lost").expect("appended");
    assert_eq!(kind.read_all(directory.path()).expect("read"), records);
    let report = log.sync().expect("synced").expect("a group");
    assert_eq!(
        (report.record_count, report.last_height, report.bytes_written),
        (1, 20, 4096)
    );
    assert_eq!(log.sync().expect("nothing to sync"), None);
    records.push((20, b"lost".to_vec()));
    assert_eq!(kind.read_all(directory.path()).expect("read"), records);
    let from = log
        .read_from(12)
        .expect("a reader")
        .collect::<Result<Records>>()
        .expect("read");
    assert_eq!(from, records[11..]);
    assert!(matches!(
        log.append(20, b"again"),
        Err(PersistenceError::Refused { .. })
    ));
    // A group larger than a segment gets its own.
    let large = vec![9; 40_000];
    log.append(21, &large).expect("appended");
    log.sync().expect("synced");
    assert_eq!(
        kind.read_all(directory.path()).expect("read").last(),
        Some(&(21, large))
    );
}

#[test]
fn truncation_deletes_whole_segments_and_keeps_what_is_needed() {
    let directory = directory();
    let records = write_sample(Kind::Clear, directory.path());
    let (mut log, _) = open(directory.path()).expect("reopened");
    let before = log.segments.len();
    for height in 1..=13 {
        log.truncate_before(height).expect("truncated");
        let kept = read_all(directory.path()).expect("read");
        assert!(records.ends_with(&kept));
        let needed: Records = records.iter().filter(|(at, _)| *at >= height).cloned().collect();
        assert!(kept.ends_with(&needed));
    }
    assert!(log.segments.len() < before);
    log.append(13, b"goes on").expect("appended");
    log.sync().expect("synced");
    assert_eq!(
        read_all(directory.path()).expect("read").last(),
        Some(&(13, b"goes on".to_vec()))
    );
}

#[test]
fn any_flipped_byte_gives_a_prefix_or_an_error() {
    check_flips(Kind::Clear);
}

#[test]
fn any_flipped_byte_of_an_encrypted_log_gives_a_prefix_or_an_error() {
    check_flips(Kind::Sealed);
}

fn check_flips(kind: Kind) {
    let directory = directory();
    let records = write_sample(kind, directory.path());
    let (mut prefixes, mut errors) = (0, 0);
    for (name, bytes) in files_of(directory.path()) {
        let path = directory.path().join(name);
        let written = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        for position in (0..bytes.len()).filter(|at| at % 4096 < 80 || (at % 29 == 0 && *at < written) || at % 511 == 0)
        {
            let mut flipped = bytes.clone();
            flipped[position] ^= 1 << (position % 8);
            fs::write(&path, &flipped).expect("written");
            match kind.read_all(directory.path()) {
                Ok(read) => {
                    assert!(records.starts_with(&read), "{path:?} at {position}");
                    prefixes += 1;
                }
                Err(PersistenceError::Damaged { file, .. }) => {
                    assert_eq!(file, path, "at {position}");
                    errors += 1;
                }
                Err(other) => panic!("{other} at {position}"),
            }
        }
        fs::write(&path, &bytes).expect("written");
    }
    assert!(prefixes > 100 && errors > 100, "{prefixes} prefixes, {errors} errors");
}

#[test]
fn damage_before_the_tail_is_never_taken_for_a_torn_tail() {
    let directory = directory();
    write_sample(Kind::Clear, directory.path());
    let (name, bytes) = files_of(directory.path()).swap_remove(0);
    let path = directory.path().join(name);
    for position in [4096, 4100, 4096 + 64, 4096 + 90] {
        let mut flipped = bytes.clone();
        flipped[position] ^= 4;
        fs::write(&path, &flipped).expect("written");
        let Err(error) = open(directory.path()) else {
            panic!("damage at {position} was not seen")
        };
        assert!(
            matches!(&error, PersistenceError::Damaged { file, offset: 4096, .. } if *file == path),
            "{error}"
        );
    }
    fs::remove_file(directory.path().join("0000000000000001.segment")).expect("removed");
    fs::write(&path, &bytes).expect("written");
    assert!(
        matches!(open(directory.path()), Err(PersistenceError::Damaged { .. })),
        "a missing segment is damage"
    );
}

#[test]
fn a_truncated_last_file_gives_a_prefix_and_the_log_goes_on() {
    check_truncated(Kind::Clear);
    check_truncated(Kind::Sealed);
}

fn check_truncated(kind: Kind) {
    let directory = directory();
    let records = write_sample(kind, directory.path());
    let (name, bytes) = files_of(directory.path()).pop().expect("a segment");
    let path = directory.path().join(name);
    for len in (0..bytes.len()).step_by(61) {
        fs::write(&path, &bytes[..len]).expect("written");
        // Shorter than its header, a segment can only be one that was being created.
        let (mut log, _) = kind
            .open(directory.path())
            .unwrap_or_else(|error| panic!("{len}: {error}"));
        let read = log
            .read_from(0)
            .expect("a reader")
            .collect::<Result<Records>>()
            .expect("read");
        assert!(records.starts_with(&read), "{len}");
        log.append(100, b"next").expect("appended");
        log.sync().expect("synced");
        assert_eq!(
            kind.read_all(directory.path()).expect("read"),
            [read, vec![(100, b"next".to_vec())]].concat()
        );
        for (name, _) in files_of(directory.path()) {
            if directory.path().join(&name) > path {
                fs::remove_file(directory.path().join(name)).expect("removed");
            }
        }
    }
}

#[test]
fn a_crash_at_any_operation_keeps_what_was_acknowledged() {
    check_crashes(Kind::Clear, 0..8);
}

#[test]
fn a_crash_at_any_operation_keeps_what_an_encrypted_log_acknowledged() {
    check_crashes(Kind::Sealed, 8..11);
}

fn check_crashes(kind: Kind, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let source = directory();
        let disk = SimDisk::default();
        let (mut log, _) = kind.open_on(disk.clone(), source.path()).expect("an empty log");
        // Records appended, and for each operation count how many were acknowledged by then.
        let (mut records, mut acknowledged, mut truncated) = (Records::new(), vec![(0, 0)], vec![(0, 0)]);
        for height in 1..=30 {
            log.append(height, &record(rng.random_range(0..40))).expect("appended");
            records.push((height, Vec::new()));
            if rng.random_bool(0.6) {
                log.sync().expect("synced");
                acknowledged.push((disk.operation_count(), height));
            }
            if rng.random_bool(0.1) {
                truncated.push((disk.operation_count(), height / 2));
                log.truncate_before(height / 2).expect("truncated");
            }
        }
        for point in 0..=disk.operation_count() {
            let target = directory();
            disk.crash_at(point, source.path(), target.path(), &mut |bound| {
                rng.random_range(0..bound)
            })
            .expect("laid out");
            let heights: Vec<u64> = kind
                .read_all(target.path())
                .unwrap_or_else(|error| panic!("seed {seed}, crash after {point}: {error}"))
                .iter()
                .map(|(height, _)| *height)
                .collect();
            let by_then = |events: &[(usize, u64)]| {
                events
                    .iter()
                    .filter(|(at, _)| *at <= point)
                    .map(|(_, height)| *height)
                    .max()
                    .unwrap_or(0)
            };
            let last = heights.last().copied().unwrap_or(0);
            assert!(
                last >= by_then(&acknowledged),
                "seed {seed}, crash after {point}: lost acknowledged batches"
            );
            let first = heights.first().copied().unwrap_or(1);
            assert!(
                first <= by_then(&truncated).max(1),
                "seed {seed}, crash after {point}: truncated too much"
            );
            assert!(
                heights.iter().copied().eq(first..first + heights.len() as u64),
                "consecutive heights"
            );
        }
    }
}

/// Appends records of one block each, every one a group of its own.
fn append_blocks(log: &mut BatchLog, heights: std::ops::RangeInclusive<u64>) {
    for height in heights {
        log.append(height, &[height as u8; 3_000]).expect("appended");
        log.sync().expect("synced");
    }
}

fn heights_of(records: impl IntoIterator<Item = Result<(u64, Vec<u8>)>>) -> Vec<u64> {
    let records = records.into_iter().map(|record| record.expect("read"));
    let checked = records.map(|(height, record)| (height, record == [height as u8; 3_000]));
    checked
        .map(|(height, is_whole)| if is_whole { height } else { u64::MAX })
        .collect()
}

#[test]
fn files_of_truncated_segments_are_used_again() {
    for kind in [Kind::Clear, Kind::Sealed] {
        let directory = directory();
        let (mut log, _) = kind.open(directory.path()).expect("an empty log");
        let (mut counts, mut reused) = (Vec::new(), 0);
        for round in 0..6 {
            append_blocks(&mut log, round * 30 + 1..=round * 30 + 30);
            assert_eq!(heights_of(log.read_from(round * 30 + 1).expect("a reader")).len(), 30);
            reused += log.segments.iter().filter(|segment| segment.header.is_reused).count();
            log.truncate_before(round * 30 + 28).expect("truncated");
            counts.push(files_of(directory.path()).len());
            if round == 3 {
                let (reopened, tail) = kind.open(directory.path()).expect("reopened");
                assert!(!tail.torn, "what an earlier segment left is not a cut-off write");
                log = reopened;
            }
        }
        assert!(reused > 3, "{reused} reused segments");
        // Some are kept, the others are removed: the directory does not grow.
        assert!(counts.iter().all(|count| *count <= counts[0] + 1), "{counts:?} files");
        assert_eq!(heights_of(log.read_from(178).expect("a reader")), [178, 179, 180]);
    }
}

#[test]
fn a_cut_off_write_to_a_file_used_again_is_seen() {
    let directory = directory();
    let (mut log, _) = open(directory.path()).expect("an empty log");
    append_blocks(&mut log, 1..=8);
    log.truncate_before(8).expect("truncated");
    append_blocks(&mut log, 9..=10);
    log.append(11, &[11; 10_000]).expect("appended");
    log.sync().expect("synced");
    let segment = log.segments.back().expect("a segment");
    assert!(segment.header.is_reused);
    let path = segment.path.clone();
    drop(log);
    let mut bytes = fs::read(&path).expect("read");
    let last = bytes.len()
        - bytes
            .iter()
            .rev()
            .position(|byte| *byte == 11)
            .expect("the last record");
    bytes[last - 4_096..last].fill(0);
    fs::write(&path, bytes).expect("written");
    let (log, tail) = open(directory.path()).expect("opened");
    assert!(tail.torn);
    assert_eq!(heights_of(log.read_from(9).expect("a reader")), [9, 10]);
}

#[test]
fn a_reader_under_way_keeps_the_files_it_reads() {
    let directory = directory();
    let (mut log, _) = open(directory.path()).expect("an empty log");
    append_blocks(&mut log, 1..=20);
    let mut records = log.read_from(1).expect("a reader");
    let first = records.next().expect("a record").expect("read");
    assert_eq!(first.0, 1);
    log.truncate_before(20).expect("truncated");
    append_blocks(&mut log, 21..=60);
    // It goes on into what was appended meanwhile to the segment that it knew as the last.
    let heights = heights_of(records);
    assert!(
        heights.len() >= 19 && heights.iter().copied().eq(2..2 + heights.len() as u64),
        "{heights:?}"
    );
}

/// A log whose segments hold a few mebibytes.
fn open_wide(disk: impl Disk + 'static, directory: &Path, segment_bytes: u64) -> BatchLog {
    let options = BatchLogOptions {
        segment_bytes,
        salt: 78,
        prepare_ahead: false,
    };
    BatchLog::open(Arc::new(disk), directory, options).expect("opened").0
}

#[test]
fn a_large_group_is_on_its_way_before_the_sync_and_readable_only_after() {
    // In the second case the group outgrows the segment that it was begun in.
    for (segment_bytes, outgrows) in [(8 << 20, false), (2 << 20, true)] {
        let (directory, disk) = (directory(), SimDisk::default());
        let mut log = open_wide(disk.clone(), directory.path(), segment_bytes);
        append_blocks(&mut log, 1..=2);
        let before = disk.operation_count();
        for height in 3..=10 {
            log.append(height, &vec![height as u8; 500_000]).expect("appended");
        }
        assert!(disk.operation_count() > before, "nothing was written ahead");
        let readable = open_wide(SimDisk::default(), directory.path(), segment_bytes);
        assert_eq!(readable.last_height(), Some(2));
        log.sync().expect("synced");
        let read: Records = log
            .read_from(3)
            .expect("a reader")
            .collect::<Result<_>>()
            .expect("read");
        assert!(read.iter().map(|(height, _)| *height).eq(3..=10));
        assert!(
            read.iter()
                .all(|(height, record)| *record == vec![*height as u8; 500_000])
        );
        assert_eq!(log.segment_count(), 1 + usize::from(outgrows));
    }
}

#[test]
fn a_crash_while_a_large_group_is_gathered_keeps_what_was_acknowledged() {
    let (source, disk) = (directory(), SimDisk::default());
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut log = open_wide(disk.clone(), source.path(), 4 << 20);
    let mut acknowledged = vec![(0, 0)];
    for height in 1..=12 {
        log.append(height, &vec![height as u8; 900_000]).expect("appended");
        if height % 3 == 0 {
            log.sync().expect("synced");
            acknowledged.push((disk.operation_count(), height));
            log.truncate_before(height).expect("truncated");
        }
    }
    for point in 0..=disk.operation_count() {
        let target = directory();
        disk.crash_at(point, source.path(), target.path(), &mut |bound| {
            rng.random_range(0..bound)
        })
        .expect("laid out");
        let log = open_wide(SimDisk::default(), target.path(), 4 << 20);
        let by_then = acknowledged
            .iter()
            .rfind(|(at, _)| *at <= point)
            .map_or(0, |(_, height)| *height);
        let last = log.last_height().unwrap_or(0);
        assert!(
            [by_then, by_then + 3].contains(&last),
            "crash after {point}: {last} instead of {by_then}"
        );
    }
}

#[test]
fn after_a_failure_nothing_more_is_written() {
    for failing in 0..7 {
        let directory = directory();
        let disk = SimDisk::default();
        let (mut log, _) = BatchLog::open(Arc::new(disk.clone()), directory.path(), SMALL).expect("an empty log");
        disk.fail_after(Some(failing));
        log.append(1, b"one").expect("appended");
        let error = log.sync().expect_err("the disk is full");
        assert!(error.to_string().contains("Free space"), "{error}");
        disk.fail_after(None);
        assert!(matches!(log.append(2, b"two"), Err(PersistenceError::Poisoned { .. })));
        assert!(matches!(log.sync(), Err(PersistenceError::Poisoned { .. })));
        assert!(matches!(log.truncate_before(9), Err(PersistenceError::Poisoned { .. })));
        read_all(directory.path()).expect("the log opens again");
    }
}

#[test]
fn the_format_is_pinned() {
    let digest = "06183c4f171868f4c9abda12f6f9cf2448ef6408a4fbdb401f6490d0bd02aa2b";
    check_format(Kind::Clear, digest);
}

#[test]
fn the_encrypted_format_is_pinned() {
    let digest = "d5295baa7d14d3110f130ac5c5c30815834012cb165058188b7e31a35ae6a7b7";
    check_format(Kind::Sealed, digest);
}

fn check_format(kind: Kind, expected: &str) {
    let directory = directory();
    write_sample(kind, directory.path());
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in files_of(directory.path()) {
        hasher.update(name.as_bytes());
        hasher.update(&bytes);
    }
    // A change here is a new format version: FORMAT.md, `VERSION`, and a reader for the old one.
    assert_eq!(hasher.finalize().to_hex().as_str(), expected);
}

fn open_prepared(disk: &SimDisk, directory: &Path) -> BatchLog {
    let options = BatchLogOptions {
        prepare_ahead: true,
        ..SMALL
    };
    BatchLog::open(Arc::new(disk.clone()), directory, options)
        .expect("opened")
        .0
}

/// Appends blocks, and lets whatever is being prepared be ready before the next: the disk is the same in every run.
fn append_patiently(log: &mut BatchLog, heights: std::ops::RangeInclusive<u64>) {
    for height in heights {
        append_blocks(log, height..=height);
        while log
            .preparation
            .as_ref()
            .is_some_and(|preparation| !preparation.is_finished())
        {
            std::thread::yield_now();
        }
    }
}

#[test]
fn segments_are_made_of_files_that_were_written_ahead() {
    let (directory, disk) = (directory(), SimDisk::default());
    let mut log = open_prepared(&disk, directory.path());
    append_patiently(&mut log, 1..=20);
    let operations = disk.operations();
    let named = |path: &Path, part: &str| path.to_string_lossy().contains(part);
    let became_segments = operations.iter().filter(
        |operation| matches!(operation, Operation::Rename(from, to) if named(from, "prepared") && named(to, "segment")),
    );
    assert_eq!(became_segments.count(), log.segments.len() - 1);
    assert!(log.segments.iter().all(|segment| !segment.header.is_reused));
    // One that is used again is written to its end, too, whatever an earlier process left of it.
    log.truncate_before(20).expect("truncated");
    drop(log);
    let mut log = open_prepared(&disk, directory.path());
    append_patiently(&mut log, 21..=60);
    let later = log.segments.iter().rev().take(8);
    assert!(later.clone().all(|segment| segment.written_end == 16 << 10));
    assert!(log.segments.iter().any(|segment| segment.header.is_reused));
    assert_eq!(
        heights_of(log.read_from(20).expect("a reader")),
        (20..=60).collect::<Vec<_>>()
    );
}

#[test]
fn a_file_that_was_written_ahead_is_found_by_the_next_process() {
    let (directory, disk) = (directory(), SimDisk::default());
    let mut log = open_prepared(&disk, directory.path());
    append_patiently(&mut log, 1..=1);
    drop(log);
    fs::write(directory.path().join("preparing-0.spare"), [0; 100]).expect("what another end left");
    let mut log = open_prepared(&disk, directory.path());
    append_patiently(&mut log, 2..=2);
    let segment = log.segments.back().expect("a segment");
    assert!(segment.written_end == 16 << 10 && !segment.header.is_reused);
    append_patiently(&mut log, 3..=30);
    assert_eq!(heights_of(log.read_from(1).expect("a reader")).len(), 30);
}

#[test]
fn no_crash_and_no_full_disk_while_files_are_prepared_loses_a_batch() {
    let (directory, disk) = (directory(), SimDisk::default());
    let mut log = open_prepared(&disk, directory.path());
    let mut synced = Vec::new();
    for height in 1..=24 {
        append_patiently(&mut log, height..=height);
        if height == 12 {
            log.truncate_before(8).expect("truncated");
        }
        synced.push((disk.operation_count(), height));
    }
    drop(log);
    let mut random = ChaCha8Rng::seed_from_u64(31);
    for crash in 0..disk.operation_count() {
        let target = tempfile::tempdir().expect("a directory");
        disk.crash_at(crash, directory.path(), target.path(), &mut |bound| {
            random.random_range(0..bound)
        })
        .expect("laid out");
        let acknowledged = synced
            .iter()
            .filter(|(count, _)| *count <= crash)
            .map(|(_, height)| *height)
            .max();
        let mut log = open_prepared(&SimDisk::default(), target.path());
        assert!(log.last_height() >= acknowledged, "after {crash} operations");
        let next = log.last_height().unwrap_or(0) + 1;
        append_blocks(&mut log, next..=next);
    }
    disk.fail_after(Some(3));
    let mut log = open_prepared(&disk, directory.path());
    let failed = (25..60).try_for_each(|height| log.append(height, &[1; 3_000]).and_then(|()| log.sync().map(drop)));
    assert!(failed.is_err());
}
