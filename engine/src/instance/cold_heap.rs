//! Heaps that are brought in as they are touched.
//!
//! A cold canister's first message must not pay for its whole heap. The pages that the state holds are made
//! inaccessible; the first access to one faults, and the handler makes it accessible and fills it:
//! ```text
//! access -> SIGSEGV -> the Wasm engine's handler -> ColdHeap::bring_in -> access again
//! ```
//! That is so while the message runs and nowhere else: who touches the heap between messages asks
//! [`ColdHeap::is_present`] first. Once a page is in, it costs nothing any more, and a page that is not in has never
//! been written: it equals the state's.
//!
//! Every page brought in alone may split the mapping once more, and a process has a bounded number of mappings.
//! The more faults a heap has had, the more pages each brings in, and past a bound for the process the whole rest.

use replicore_persistence::{PageIndex, PageMap};
use replicore_types::OS_PAGE_BYTES;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use wasmtime::Store;
use wasmtime::unix::StoreExt;

/// Heaps with fewer pages than this are copied at once: a fault costs as much as several copies.
pub(super) const PAGES_MIN: u64 = 64;
/// After each so many faults of a heap, a fault brings in four times as many pages.
const FAULTS_PER_STEP: usize = 64;
/// Pages that one fault brings in at most: about a millisecond.
const PAGES_PER_FAULT_MAX: usize = 1_024;
/// Faults of all heaps that are not whole yet. Each makes at most two more mappings of the 65,530 that Linux gives a
/// process by default.
const FAULTS_MAX: usize = 12_000;

static FAULTS: AtomicUsize = AtomicUsize::new(0);

/// The part of an instance's heap that is brought in lazily. Must not outlive the instance's memory.
pub(super) struct ColdHeap {
    shared: Box<Shared>,
}

/// What the fault handler works on. It runs on the thread that executes the instance, within the execution, while
/// nobody else looks here: the instance is borrowed mutably by the execution.
struct Shared {
    base: *mut u8,
    pages: usize,
    state: UnsafeCell<State>,
}

struct State {
    /// Content of the pages that are not present.
    source: PageMap,
    /// A bit for every page.
    present: Box<[u64]>,
    present_count: usize,
    faults: usize,
    /// The host had no mapping for a page: the access traps, which is not the canister's doing.
    was_refused: bool,
}

// SAFETY: `base` points to memory that belongs to the instance which owns the `ColdHeap`; both travel together. Access
// to `state` is never concurrent, see `Shared`.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// The address of a `Shared` within a fault handler.
struct Handle(*const Shared);

// SAFETY: see `Shared`.
unsafe impl Send for Handle {}
// SAFETY: see `Shared`.
unsafe impl Sync for Handle {}

impl Handle {
    fn shared(&self) -> *const Shared {
        self.0
    }
}

impl ColdHeap {
    /// Makes the first `bytes` bytes from `base` inaccessible and fills them from `source` as they are touched. `None`
    /// where the kernel refuses; then nothing has changed.
    ///
    /// # Safety
    /// `base` is the start of the heap of the only instance of `store`; the heap is all zeros, never moves, is at
    /// least `bytes` long, and its pages are accessed outside of executions only after [`ColdHeap::is_present`]. The
    /// result is dropped with the store or after it.
    pub(super) unsafe fn new<T: 'static>(
        store: &mut Store<T>,
        base: *mut u8,
        bytes: usize,
        source: PageMap,
    ) -> Option<Self> {
        let pages = bytes / OS_PAGE_BYTES;
        let shared = Box::new(Shared {
            base,
            pages,
            state: UnsafeCell::new(State {
                source,
                present: vec![0; pages.div_ceil(64)].into(),
                present_count: 0,
                faults: 0,
                was_refused: false,
            }),
        });
        if !shared.protect(0..pages, libc::PROT_NONE) {
            return None;
        }
        let handle = Handle(&raw const *shared);
        // SAFETY: what the handler interrupts is an access to the heap, by Wasm code or by a host function that copies:
        // never an allocator, a page map or the holder of a lock, so that the handler may use them; and no host
        // function uses `Shared`. The box outlives the executions that the handler is called for, by the contract of
        // this function.
        unsafe {
            store.set_signal_handler(move |signal, information, _| {
                signal == libc::SIGSEGV && (*handle.shared()).handle((*information).si_addr() as usize)
            });
        }
        Some(Self { shared })
    }

    /// True where the page may be touched outside of an execution; elsewhere it equals the state's.
    pub(super) fn is_present(&self, page: PageIndex) -> bool {
        let Ok(page) = usize::try_from(page.0) else {
            return true;
        };
        // SAFETY: no execution runs, since `self` and the instance are borrowed.
        page >= self.shared.pages || unsafe { &*self.shared.state.get() }.is_present(page)
    }

    /// What pages that are not present hold from now on.
    pub(super) fn set_source(&mut self, source: PageMap) {
        self.shared.state.get_mut().source = source;
    }

    /// True where the host refused to bring in a page.
    pub(super) fn was_refused(&self) -> bool {
        // SAFETY: as in `is_present`.
        unsafe { &*self.shared.state.get() }.was_refused
    }

    /// Pages present.
    pub(super) fn present_count(&self) -> usize {
        // SAFETY: as in `is_present`.
        unsafe { &*self.shared.state.get() }.present_count
    }
}

impl Drop for ColdHeap {
    fn drop(&mut self) {
        FAULTS.fetch_sub(self.shared.state.get_mut().faults, Ordering::Relaxed);
    }
}

impl Shared {
    /// Brings in the page at `address`. False where the address is none of ours, or the page was present: then the
    /// fault is real.
    fn handle(&self, address: usize) -> bool {
        let Some(offset) = address.checked_sub(self.base.addr()) else {
            return false;
        };
        let page = offset / OS_PAGE_BYTES;
        // SAFETY: see `Shared`.
        let state = unsafe { &mut *self.state.get() };
        if page >= self.pages || state.is_present(page) {
            return false;
        }
        // The interrupted code may be about to read it.
        let error = errno();
        let done = self.bring_in(state, page) || self.bring_in_range(state, 0..self.pages);
        state.was_refused = !done;
        set_errno(error);
        done
    }

    fn bring_in(&self, state: &mut State, page: usize) -> bool {
        if FAULTS.load(Ordering::Relaxed) >= FAULTS_MAX {
            return false;
        }
        let step = (state.faults / FAULTS_PER_STEP) as u32;
        let count = 4_usize.saturating_pow(step).min(PAGES_PER_FAULT_MAX);
        let first = page - page % count;
        state.faults += 1;
        FAULTS.fetch_add(1, Ordering::Relaxed);
        self.bring_in_range(state, first..(first + count).min(self.pages))
    }

    /// Brings in what is missing of a range.
    fn bring_in_range(&self, state: &mut State, range: Range<usize>) -> bool {
        if !self.protect(range.clone(), libc::PROT_READ | libc::PROT_WRITE) {
            return false;
        }
        let whole = range.len() == self.pages;
        for page in range {
            if state.is_present(page) {
                continue;
            }
            if let Some(content) = state.source.get(PageIndex(page as u64)) {
                // SAFETY: `page` is one of the heap's, which is writable now, and no reference into it exists while
                // its first access faults.
                unsafe {
                    content
                        .as_ptr()
                        .copy_to_nonoverlapping(self.base.add(page * OS_PAGE_BYTES), OS_PAGE_BYTES)
                };
            }
            state.present[page / 64] |= 1 << (page % 64);
            state.present_count += 1;
        }
        if whole {
            FAULTS.fetch_sub(std::mem::take(&mut state.faults), Ordering::Relaxed);
        }
        true
    }

    fn protect(&self, pages: Range<usize>, protection: libc::c_int) -> bool {
        // SAFETY: the range lies within the heap, whose memory is a private mapping of its own.
        unsafe {
            let start = self.base.add(pages.start * OS_PAGE_BYTES);
            libc::mprotect(start.cast(), pages.len() * OS_PAGE_BYTES, protection) == 0
        }
    }
}

impl State {
    fn is_present(&self, page: usize) -> bool {
        self.present[page / 64] >> (page % 64) & 1 == 1
    }
}

fn errno() -> libc::c_int {
    // SAFETY: the C library gives every thread such a place.
    unsafe { *libc::__errno_location() }
}

fn set_errno(error: libc::c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = error };
}
