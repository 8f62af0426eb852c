//! Which heap pages a message changed.
//!
//! The code marks the pages that it stores into, or the kernel names those whose first write faulted; a page counts as
//! changed where its content differs from the committed one.

use super::{Instance, ZERO_PAGE, is_present, page_at};
use crate::module::symbols;
use replicore_persistence::{Page, PageIndex, PageRef};
use replicore_types::OS_PAGE_BYTES;

/// What the heap went through in a message.
pub(crate) struct HeapChanges {
    /// Pages whose content differs from the committed one, ascending.
    pub(crate) pages: Vec<PageIndex>,
}

/// Marked pages that are compared together.
const COMPARED_TOGETHER: usize = 16;

/// Marks that are looked at together: pages of 256 KiB of heap.
const STRIDE: usize = 64;

impl Instance {
    /// Reads and clears the marks, and finds the pages whose content changed.
    pub(crate) fn heap_changes(&mut self) -> HeapChanges {
        self.collect_marks();
        let mut pages = Vec::new();
        if self.marked.is_empty() {
            return HeapChanges { pages };
        }
        let Some(heap) = self.store.data().exports.heap else {
            return HeapChanges { pages };
        };
        let memory = heap.data(&self.store);
        let mut compared = Vec::with_capacity(2 * self.marked.len().min(COMPARED_TOGETHER));
        let mut rest = &self.marked[..];
        while !rest.is_empty() {
            let (marked, behind) = rest.split_at(rest.len().min(COMPARED_TOGETHER));
            for (position, &mark) in marked.iter().enumerate() {
                if let Some(page) = self.compare(memory, mark, OS_PAGE_BYTES) {
                    compared.push(page);
                }
                // The last store into a page may reach into the next one.
                let next = mark + 1;
                if marked.get(position + 1).or(behind.first()) != Some(&next)
                    && is_present(self.cold.as_ref(), PageIndex(next))
                    && let Some(page) = self.compare(memory, next, symbols::STRADDLE_BYTES)
                {
                    compared.push(page);
                }
            }
            // None of them is in the cache, and a comparison waits for both of its sides: asked for together they come
            // together.
            let mut first_bytes = 0;
            for page in &compared {
                first_bytes ^= page.now[0] ^ page.committed()[0];
            }
            std::hint::black_box(first_bytes);
            for page in &compared {
                if *page.now != page.committed()[..page.now.len()] {
                    pages.push(PageIndex(page.index));
                }
            }
            compared.clear();
            rest = behind;
        }
        // A fault-based mechanism may name a page for two reasons.
        pages.dedup();
        HeapChanges { pages }
    }

    /// The first `bytes` bytes of a page, now and committed; `None` outside the memory.
    fn compare<'a>(&'a self, memory: &'a [u8], index: u64, bytes: usize) -> Option<Compared<'a>> {
        Some(Compared {
            index,
            now: &page_at(memory, PageIndex(index))?[..bytes],
            committed: self.committed_heap.pages.get(PageIndex(index)),
        })
    }

    fn collect_marks(&mut self) {
        self.marked.clear();
        let exports = self.store.data().exports;
        if let (Some(faults), Some(heap)) = (&mut self.faults, exports.heap) {
            faults.take_written(heap.data_size(&self.store), &mut self.marked);
        }
        let (Some(heap), Some(marks)) = (exports.heap, exports.marks) else {
            return;
        };
        let pages = heap.data_size(&self.store) / OS_PAGE_BYTES;
        let marks = marks.data_mut(&mut self.store);
        // A heap is whole Wasm pages, hence a multiple of 16 OS pages, and so are the marks.
        let in_use = pages.next_multiple_of(STRIDE).min(marks.len());
        for (word_index, word) in marks[..in_use].as_chunks_mut::<STRIDE>().0.iter_mut().enumerate() {
            if is_unmarked(word) {
                continue;
            }
            for (offset, mark) in word.iter_mut().enumerate() {
                if std::mem::take(mark) != 0 {
                    self.marked.push((word_index * STRIDE + offset) as u64);
                }
            }
        }
    }
}

/// True where no mark of these is set. Written over machine words, so that the scan of a large heap's marks is as fast
/// as memory.
fn is_unmarked(marks: &[u8; STRIDE]) -> bool {
    let words = marks.as_chunks::<8>().0;
    words.iter().fold(0, |any, word| any | u64::from_ne_bytes(*word)) == 0
}

/// The beginning of a page as it is now, beside the committed page.
struct Compared<'a> {
    index: u64,
    now: &'a [u8],
    committed: Option<PageRef<'a>>,
}

impl Compared<'_> {
    fn committed(&self) -> &Page {
        match &self.committed {
            Some(page) => page,
            None => &ZERO_PAGE,
        }
    }
}
