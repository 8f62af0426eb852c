//! Stable memory during one message: the committed pages below, the pages written by this message above.
//!
//! Every operation costs what it touches. A page that is overwritten whole is never read before.

use crate::WasmMemory;
use replicore_persistence::{NewPage, PageDelta, PageIndex, PageMap};
use replicore_types::{OS_PAGE_BYTES, WASM_PAGE_BYTES};
use std::collections::BTreeMap;

/// Committed stable memory and what the message wrote over it.
#[derive(Default)]
pub(crate) struct StableMemory {
    committed: PageMap,
    size_wasm_pages: u64,
    written: BTreeMap<PageIndex, NewPage>,
    /// Pages read or written.
    accessed: PageSet,
}

/// A set of pages that costs little for runs of them: a bit for each of 64 neighbours.
#[derive(Default)]
struct PageSet {
    words: BTreeMap<u64, u64>,
    count: u64,
}

impl PageSet {
    /// Pages of the range that are not in the set.
    fn missing(&self, first: PageIndex, last: PageIndex) -> u64 {
        let held = self.words.range(first.0 / 64..=last.0 / 64);
        let held: u32 = held
            .map(|(word, bits)| (bits & mask(*word, first, last)).count_ones())
            .sum();
        last.0 - first.0 + 1 - u64::from(held)
    }

    fn insert(&mut self, first: PageIndex, last: PageIndex) {
        for word in first.0 / 64..=last.0 / 64 {
            let bits = self.words.entry(word).or_default();
            let added = mask(word, first, last) & !*bits;
            *bits |= added;
            self.count += u64::from(added.count_ones());
        }
    }
}

/// The bits of a word that stand for pages of the range, which reaches into the word.
fn mask(word: u64, first: PageIndex, last: PageIndex) -> u64 {
    let low = first.0.saturating_sub(word * 64);
    let high = (last.0 - word * 64).min(63);
    u64::MAX << low & u64::MAX >> (63 - high)
}

/// The part of a byte range that lies in one page.
struct Piece {
    page: PageIndex,
    in_page: std::ops::Range<usize>,
    in_buffer: std::ops::Range<usize>,
}

impl StableMemory {
    pub(crate) fn new(committed: &WasmMemory) -> Self {
        Self {
            committed: committed.pages.clone(),
            size_wasm_pages: committed.size_wasm_pages,
            written: BTreeMap::new(),
            accessed: PageSet::default(),
        }
    }

    pub(crate) fn size_wasm_pages(&self) -> u64 {
        self.size_wasm_pages
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_wasm_pages * WASM_PAGE_BYTES as u64
    }

    pub(crate) fn grow_to(&mut self, size_wasm_pages: u64) {
        self.size_wasm_pages = size_wasm_pages;
    }

    /// True where committing would make another memory than `memory`, that the message began with.
    pub(crate) fn has_changed(&self, memory: &WasmMemory) -> bool {
        !self.written.is_empty() || self.size_wasm_pages != memory.size_wasm_pages
    }

    /// Pages that this message wrote.
    pub(crate) fn pages_written(&self) -> u64 {
        self.written.len() as u64
    }

    /// Pages of `offset..offset + size` that this message did not write before. `size` is not zero.
    pub(crate) fn pages_not_yet_written(&self, offset: u64, size: u64) -> u64 {
        let (first, last) = pages_of(offset, size);
        (last.0 - first.0 + 1) - self.written.range(first..=last).count() as u64
    }

    /// Pages that this message read or wrote.
    pub(crate) fn pages_accessed(&self) -> u64 {
        self.accessed.count
    }

    /// Pages of `offset..offset + size` that this message did not read or write before. `size` is not zero.
    pub(crate) fn pages_not_yet_accessed(&self, offset: u64, size: u64) -> u64 {
        let (first, last) = pages_of(offset, size);
        self.accessed.missing(first, last)
    }

    /// Notes that `offset..offset + size` is read or written. `size` is not zero.
    pub(crate) fn note_access(&mut self, offset: u64, size: u64) {
        let (first, last) = pages_of(offset, size);
        self.accessed.insert(first, last);
    }

    /// Reads `target.len()` bytes at `offset`, which must lie inside the memory.
    pub(crate) fn read(&self, offset: u64, target: &mut [u8]) {
        for piece in pieces(offset, target.len()) {
            let target = &mut target[piece.in_buffer];
            if let Some(page) = self.written.get(&piece.page) {
                target.copy_from_slice(&page[piece.in_page]);
                continue;
            }
            match self.committed.get(piece.page) {
                Some(page) => target.copy_from_slice(&page[piece.in_page]),
                None => target.fill(0),
            }
        }
    }

    /// Writes `bytes` at `offset`, which must lie inside the memory.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for piece in pieces(offset, bytes.len()) {
            let committed = &self.committed;
            let whole = piece.in_page.len() == OS_PAGE_BYTES;
            let page = self
                .written
                .entry(piece.page)
                .or_insert_with(|| match committed.get(piece.page) {
                    Some(page) if !whole => NewPage::copy_of(&page),
                    _ => NewPage::zeros(),
                });
            page[piece.in_page].copy_from_slice(&bytes[piece.in_buffer]);
        }
    }

    /// Makes `memory`, that the message began with, what the next message finds. Returns the number of pages written.
    pub(crate) fn commit(self, memory: &mut WasmMemory) -> u64 {
        memory.size_wasm_pages = self.size_wasm_pages;
        if self.written.is_empty() {
            return 0;
        }
        let pages_written = self.pages_written();
        let mut delta = PageDelta::default();
        for (index, page) in self.written {
            delta.insert_new(index, page);
        }
        // Let go of, so that what no snapshot holds changes in place.
        drop(self.committed);
        memory.pages.apply(delta);
        pages_written
    }
}

/// The first and the last page of a range that is not empty.
fn pages_of(offset: u64, size: u64) -> (PageIndex, PageIndex) {
    let page_bytes = OS_PAGE_BYTES as u64;
    (
        PageIndex(offset / page_bytes),
        PageIndex((offset + size - 1) / page_bytes),
    )
}

fn pieces(offset: u64, size: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == size {
            return None;
        }
        let position = offset + done as u64;
        let start = (position % OS_PAGE_BYTES as u64) as usize;
        let length = (OS_PAGE_BYTES - start).min(size - done);
        let piece = Piece {
            page: PageIndex(position / OS_PAGE_BYTES as u64),
            in_page: start..start + length,
            in_buffer: done..done + length,
        };
        done += length;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reads_what_a_plain_buffer_would_hold(
            operations in proptest::collection::vec((0u64..60_000, 0usize..9_000, any::<u8>(), any::<bool>()), 1..40)
        ) {
            let mut model = vec![0u8; WASM_PAGE_BYTES];
            let mut memory = WasmMemory { size_wasm_pages: 1, ..WasmMemory::default() };
            for (offset, size, value, commit) in operations {
                let size = size.min(WASM_PAGE_BYTES - offset as usize);
                let mut stable = StableMemory::new(&memory);
                stable.write(offset, &vec![value; size]);
                let mut seen = vec![0; WASM_PAGE_BYTES];
                stable.read(0, &mut seen);
                let mut expected = model.clone();
                expected[offset as usize..offset as usize + size].fill(value);
                prop_assert_eq!(&seen, &expected);
                if commit {
                    stable.commit(&mut memory);
                    model = expected;
                }
            }
        }
    }

    #[test]
    fn accessed_pages_are_counted_once() {
        let mut set = PageSet::default();
        let page = PageIndex;
        assert_eq!(set.missing(page(3), page(3)), 1);
        set.insert(page(3), page(3));
        set.insert(page(60), page(200));
        assert_eq!(set.count, 142);
        assert_eq!(set.missing(page(0), page(255)), 256 - 142);
        assert_eq!(set.missing(page(63), page(64)), 0);
        set.insert(page(0), page(255));
        assert_eq!((set.count, set.missing(page(0), page(256))), (256, 1));
    }

    #[test]
    fn counts_fresh_pages_once() {
        let mut stable = StableMemory::new(&WasmMemory {
            size_wasm_pages: 1,
            ..WasmMemory::default()
        });
        assert_eq!(stable.pages_not_yet_written(4090, 30_000), 9);
        stable.write(4090, &[1; 30_000]);
        assert_eq!(stable.pages_not_yet_written(4090, 30_000), 0);
        assert_eq!(stable.pages_written(), 9);
    }
}
