//! Write tracking by page protection: what the barrier in the code is measured against.
//!
//! ```text
//! between messages   the whole heap is read-only
//! first write        SIGSEGV -> the Wasm engine's handler -> the page is noted and made writable -> write again
//! after a message    the noted pages are looked at, kept or undone, and made read-only again
//! ```
//! The code needs no instructions for it; every first write to a page costs a fault, and two calls of the kernel change
//! its protection.

use replicore_types::OS_PAGE_BYTES;
use std::cell::UnsafeCell;
use std::ops::Range;
use wasmtime::Store;
use wasmtime::unix::StoreExt;

/// The protection of an instance's heap. Must not outlive the instance's memory.
pub(super) struct WriteFaults {
    shared: Box<Shared>,
}

/// What the fault handler works on, under the rules of `cold_heap`: it runs within the execution, on its thread, while
/// nobody else looks here.
struct Shared {
    base: *mut u8,
    state: UnsafeCell<State>,
}

struct State {
    /// Pages from the start of the heap that are protected; what grew since is not.
    pages: usize,
    /// Those of them that were written, in the order of their first write.
    written: Vec<u64>,
    /// The host had no mapping for a page: the write traps, which is not the canister's doing.
    was_refused: bool,
}

// SAFETY: `base` points to memory that belongs to the instance which owns the `WriteFaults`; both travel together.
// Access to `state` is never concurrent, see `Shared`.
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

impl WriteFaults {
    /// Notes writes to a heap from now on; its pages are writable until [`WriteFaults::protect`].
    ///
    /// # Safety
    /// `base` is the start of the heap of the only instance of `store`, which never moves, and the heap is written
    /// outside of executions only between [`WriteFaults::open`] and [`WriteFaults::protect`], or to pages that
    /// [`WriteFaults::take_written`] gave and that are not protected again yet. The result is dropped with the store or
    /// after it.
    pub(super) unsafe fn new<T: 'static>(store: &mut Store<T>, base: *mut u8) -> Self {
        let shared = Box::new(Shared {
            base,
            state: UnsafeCell::new(State {
                pages: 0,
                written: Vec::new(),
                was_refused: false,
            }),
        });
        let handle = Handle(&raw const *shared);
        // SAFETY: what the handler interrupts is a write to the heap, by Wasm code or by a host function that copies:
        // never an allocator, and no host function uses `Shared`. The box outlives the executions that the handler is
        // called for, by the contract of this function.
        unsafe {
            store.set_signal_handler(move |signal, information, _| {
                signal == libc::SIGSEGV && (*handle.shared()).handle((*information).si_addr() as usize)
            });
        }
        Self { shared }
    }

    /// True where the host refused to make a page writable.
    pub(super) fn was_refused(&self) -> bool {
        // SAFETY: no execution runs, since `self` and the instance are borrowed.
        unsafe { &*self.shared.state.get() }.was_refused
    }

    /// Makes the whole heap writable, so that another state can be put in.
    pub(super) fn open(&mut self) -> bool {
        let state = self.shared.state.get_mut();
        let pages = std::mem::take(&mut state.pages);
        state.written.clear();
        self.shared.set_protection(0..pages, libc::PROT_READ | libc::PROT_WRITE)
    }

    /// Makes a heap of so many bytes read-only, after [`WriteFaults::open`].
    pub(super) fn protect(&mut self, bytes: usize) {
        let pages = bytes / OS_PAGE_BYTES;
        if self.shared.set_protection(0..pages, libc::PROT_READ) {
            self.shared.state.get_mut().pages = pages;
        }
    }

    /// The pages that may have been written, ascending: those that were noted, and what a heap of now `bytes` bytes has
    /// grown by.
    pub(super) fn take_written(&mut self, bytes: usize, pages: &mut Vec<u64>) {
        let state = self.shared.state.get_mut();
        pages.clear();
        pages.append(&mut state.written);
        pages.sort_unstable();
        pages.extend(state.pages as u64..(bytes / OS_PAGE_BYTES) as u64);
    }

    /// Makes these pages read-only again; `bytes` is the size of the heap.
    pub(super) fn protect_again(&mut self, bytes: usize, pages: &[u64]) {
        self.shared.state.get_mut().pages = bytes / OS_PAGE_BYTES;
        let mut runs = pages.chunk_by(|page, next| page + 1 == *next);
        let protected = runs.all(|run| {
            let first = run[0] as usize;
            self.shared.set_protection(first..first + run.len(), libc::PROT_READ)
        });
        if !protected {
            // A process has a bounded number of mappings. A heap without protection counts as written, all of it.
            self.open();
        }
    }
}

impl Shared {
    /// Notes the page at `address` and makes it writable. False where the address is none of ours or the page was
    /// writable: then the fault is real.
    fn handle(&self, address: usize) -> bool {
        let Some(offset) = address.checked_sub(self.base.addr()) else {
            return false;
        };
        let page = offset / OS_PAGE_BYTES;
        // SAFETY: see `Shared`.
        let state = unsafe { &mut *self.state.get() };
        if page >= state.pages || state.written.last() == Some(&(page as u64)) {
            return false;
        }
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        if self.set_protection(page..page + 1, writable) {
            state.written.push(page as u64);
            return true;
        }
        // A process has a bounded number of mappings: one for the whole heap is always possible.
        state.written = (0..state.pages as u64).collect();
        state.was_refused = !self.set_protection(0..state.pages, writable);
        !state.was_refused
    }

    fn set_protection(&self, pages: Range<usize>, protection: libc::c_int) -> bool {
        if pages.is_empty() {
            return true;
        }
        // SAFETY: the range lies within the heap, whose memory is a private mapping of its own. No references into it
        // exist that the new protection would contradict: between messages by the contract of `new`, and in a message
        // the write that faults makes its page writable.
        unsafe {
            let start = self.base.add(pages.start * OS_PAGE_BYTES);
            libc::mprotect(start.cast(), pages.len() * OS_PAGE_BYTES, protection) == 0
        }
    }
}
