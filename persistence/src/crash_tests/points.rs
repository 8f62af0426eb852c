//! A crash at every named point: what recovery finds there, beyond what holds at any moment.

use super::{Cipher, History, Machine, run_with};
use crate::disk::{CrashPoint, SimDisk};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// What the unsynced parts of the disk came to, at each point: this many ways.
const OUTCOMES: u64 = 2;

#[test]
fn a_crash_at_every_named_point_recovers_what_it_should() {
    check_points(21, None);
}

#[test]
fn a_crash_at_every_named_point_of_an_encrypted_directory_recovers_what_it_should() {
    check_points(22, Some(Cipher::new([6; 32])));
}

fn check_points(seed: u64, cipher: Option<Cipher>) {
    let is_sealed = cipher.is_some();
    // A large group, so that some of it is written ahead, and a small state, so that it is compacted.
    let history = run_with(seed, 90, cipher, |number| number == 87);
    let points = history.disk.points();
    let mut reached: BTreeMap<CrashPoint, usize> = BTreeMap::new();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for (point, count) in &points {
        *reached.entry(*point).or_default() += 1;
        for _ in 0..OUTCOMES {
            crash_and_recover(&history, *point, *count, &mut rng);
        }
    }
    for point in CrashPoint::ALL {
        // A sealed group is known only as a whole.
        let is_possible = !(is_sealed && point == CrashPoint::GroupWrittenAhead);
        assert_eq!(reached.contains_key(&point), is_possible, "{}", point.name());
    }
}

fn crash_and_recover(history: &History, point: CrashPoint, count: usize, rng: &mut ChaCha8Rng) {
    let target = tempfile::tempdir().expect("a directory");
    let choose = &mut |bound| rng.random_range(0..bound);
    history
        .disk
        .crash_at(count, history.source.path(), target.path(), choose)
        .expect("laid out");
    let name = point.name();
    let mut machine = history
        .open(&SimDisk::default(), target.path())
        .unwrap_or_else(|error| panic!("crash at {name}, operation {count}: {error}"));
    let acknowledged = history.acknowledged.iter().rfind(|(at, _)| *at <= count);
    let acknowledged = acknowledged.map_or(0, |(_, height)| *height);
    assert_eq!(machine.memory.digest(), history.digests[&machine.height], "{name}");
    match point {
        // What was written may have arrived.
        CrashPoint::GroupWritten => assert!(machine.height <= acknowledged + 1, "{name}: {}", machine.height),
        _ => assert_eq!(machine.height, acknowledged, "{name}"),
    }
    assert!(
        machine.height >= acknowledged,
        "{name}: {} of {acknowledged}",
        machine.height
    );
    check_checkpoint(history, &machine, point, count);
    machine.store.verify().expect("whole");
    machine.batch(rng).and_then(|()| machine.checkpoint()).expect("goes on");
}

/// The checkpoint that opens: the last one before the switch, the new one after it, and between them either.
fn check_checkpoint(history: &History, machine: &Machine, point: CrashPoint, count: usize) {
    let opened = machine.store.stats().height;
    let before = history.checkpoints.iter().rfind(|written| written.end <= count);
    let last = before.map(|written| written.height);
    let under_way = history
        .checkpoints
        .iter()
        .find(|written| (written.begin..written.end).contains(&count));
    let new = under_way.map(|written| written.height);
    match point {
        CrashPoint::SuperblockWritten => assert!(opened == last || opened == new, "{opened:?}"),
        // Log segments are retired after the switch, too.
        CrashPoint::AfterSwitch | CrashPoint::GenerationRemoved | CrashPoint::SegmentRetired => {
            assert_eq!(opened, new.or(last), "{}", point.name());
        }
        _ => assert_eq!(opened, last, "{}", point.name()),
    }
}
