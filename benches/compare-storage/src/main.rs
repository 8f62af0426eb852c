//! Dirty pages to durable storage: checkpoints of replicore beside redb, fjall, LMDB and, with the feature, RocksDB, with the
//! same durability, each in every round, so that what else the disk does meets all.
//!
//! `compare-storage [ROUNDS]` prints a table: median time from so many changed pages of a memory of 256 MiB to the disk,
//! and how many times that of a checkpoint and that of the batch log it is.
//!
//! What each has done when it answers: redb and LMDB have changed their trees, of which a checkpoint does the like and
//! hashes the pages and the tree above them too. fjall and RocksDB have synced a journal and will write their tables later;
//! that is what the batch log does.

mod peers;
#[cfg(feature = "rocksdb")]
mod rocksdb;

use peers::Store;
use std::time::{Duration, Instant};

/// Pages of the memory.
const MEMORY_PAGES: u64 = 65_536;
/// Pages that are made between two commits while a store is filled.
const FILL_PAGES: u64 = 8_192;

pub const PAGE_BYTES: usize = 4096;
pub type Page = [u8; PAGE_BYTES];

/// Page numbers with their new content, ascending.
pub type Changes = Vec<(u64, Box<Page>)>;

/// Numbers that are the same in every run.
struct Sequence(u64);

impl Sequence {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 20
    }

    /// Pages that nothing compresses.
    fn changes(&mut self, places: impl Iterator<Item = u64>) -> Changes {
        let mut changes = Changes::new();
        for place in places {
            let mut page = Box::new([0; PAGE_BYTES]);
            for word in page.chunks_exact_mut(8) {
                word.copy_from_slice(&self.next().wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
            }
            changes.push((place, page));
        }
        changes
    }

    fn random(&mut self, count: u64) -> Changes {
        let mut places: Vec<u64> = (0..count).map(|_| self.next() % MEMORY_PAGES).collect();
        places.sort_unstable();
        places.dedup();
        self.changes(places.into_iter())
    }
}

fn main() {
    let rounds = std::env::args()
        .nth(1)
        .map_or(11, |text| text.parse().expect("a number of rounds"));
    let directory = tempfile::tempdir().expect("a directory");
    let mut sequence = Sequence(7);
    let mut stores = peers::all(directory.path());
    for first in (0..MEMORY_PAGES).step_by(FILL_PAGES as usize) {
        let changes = sequence.changes(first..first + FILL_PAGES);
        for store in &mut stores {
            store.commit(&changes);
            store.settle();
        }
    }
    println!("| changed pages | store | median ms | times a checkpoint | times the batch log |");
    println!("|---|---|---|---|---|");
    for pages in [256, 4_096, 16_384] {
        let mut times: Vec<Vec<Duration>> = stores.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            let changes = sequence.random(pages);
            for (store, times) in stores.iter_mut().zip(&mut times) {
                let start = Instant::now();
                store.commit(&changes);
                times.push(start.elapsed());
            }
            check(&mut stores, &changes);
            stores.iter_mut().for_each(|store| store.settle());
        }
        for (store, own) in stores.iter().zip(&times) {
            let median_ms = median(own.iter().map(|time| time.as_secs_f64() * 1e3));
            // The checkpoint store and the log come first.
            let [checkpoint, log] = [&times[0], &times[1]].map(|base| median_ratio(own, base));
            println!(
                "| {pages} | {} | {median_ms:.2} | {checkpoint:.1} | {log:.1} |",
                store.name()
            );
        }
    }
}

/// The median of what one took over what another took in the same round.
fn median_ratio(times: &[Duration], base: &[Duration]) -> f64 {
    let pairs = times.iter().zip(base);
    median(pairs.map(|(time, base)| time.as_secs_f64() / base.as_secs_f64()))
}

/// Every store has what it was given.
fn check(stores: &mut [Box<dyn Store>], changes: &Changes) {
    for store in stores {
        for (place, page) in changes.iter().step_by(97) {
            assert!(store.read(*place) == **page, "{} lost page {place}", store.name());
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
