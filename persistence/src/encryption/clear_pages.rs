//! Decrypted pages that are likely to be read again, bounded.

use crate::page_map::Page;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Pages kept decrypted by a store (64 MiB): canisters read the same pages of stable memory again and again, and their
/// heaps are copied once.
const PAGES_MAX: usize = 16_384;

static DECRYPTED: AtomicU64 = AtomicU64::new(0);

/// Pages that this process has decrypted so far.
pub fn pages_decrypted() -> u64 {
    DECRYPTED.load(Ordering::Relaxed)
}

/// One place for each page, chosen by where it lies: a page that comes in puts out the one that was there.
pub(crate) struct ClearPages {
    places: Box<[Mutex<Option<Kept>>]>,
}

struct Kept {
    generation: u64,
    offset: u64,
    page: Arc<Page>,
}

impl ClearPages {
    pub(crate) fn new() -> Self {
        Self {
            places: (0..PAGES_MAX).map(|_| Mutex::new(None)).collect(),
        }
    }

    /// The page at `offset` of a generation's pages, if it is here.
    pub(crate) fn get(&self, generation: u64, offset: u64) -> Option<Arc<Page>> {
        let place = self.place(generation, offset).lock();
        let kept = place.as_ref()?;
        (kept.generation == generation && kept.offset == offset).then(|| Arc::clone(&kept.page))
    }

    pub(crate) fn put(&self, generation: u64, offset: u64, page: &Arc<Page>) {
        DECRYPTED.fetch_add(1, Ordering::Relaxed);
        let kept = Kept {
            generation,
            offset,
            page: Arc::clone(page),
        };
        // Dropped after the lock is released.
        let _put_out = self.place(generation, offset).lock().replace(kept);
    }

    /// Pages that were written together lie in places beside each other.
    fn place(&self, generation: u64, offset: u64) -> &Mutex<Option<Kept>> {
        let number = offset / size_of::<Page>() as u64 + generation * 7_919;
        &self.places[number as usize % PAGES_MAX]
    }
}

impl fmt::Debug for ClearPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClearPages(at most {PAGES_MAX})")
    }
}
