//! Page frames: 4 KiB of page-aligned memory each, from one arena of the process.
//!
//! Page alignment is worth its own arena: copying a page between buffers that differ modulo 4096 costs 2.8 times as
//! much, and a general allocator rounds an aligned page up to two. Chunks are never given back to the allocator;
//! beyond `IDLE_FRAMES_MAX` idle frames their memory goes back to the kernel, and who needs frames gets those with
//! memory first.

use crate::page_map::{Digest, Page};
use parking_lot::{Mutex, MutexGuard};
use replicore_types::{Lock, OS_PAGE_BYTES};
use std::alloc::{Layout, alloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Frames are carved from chunks of this many (2 MiB): large enough that the allocator is not on the path of a commit.
/// Asking for huge pages was tried and lost: filling fresh frames took 8.3 us a page instead of 3.0 us in a virtual
/// machine, and reused frames gained nothing.
const FRAMES_PER_CHUNK: usize = 512;
const CHUNK_BYTES: usize = FRAMES_PER_CHUNK * OS_PAGE_BYTES;

/// Idle frames that keep their memory (256 MiB): what a checkpoint frees, busy rounds take again without page faults.
const IDLE_FRAMES_MAX: usize = 65_536;

/// Surplus frames whose memory is given back together: neighbours with one system call, of which each makes every
/// processor of the program forget addresses.
const SURPLUS_FRAMES: usize = 1_024;

static IDLE: Mutex<Idle> = Mutex::new(Idle {
    filled_max: IDLE_FRAMES_MAX,
    filled: Vec::new(),
    surplus: Vec::new(),
    empty: Vec::new(),
});
static IN_USE: AtomicU64 = AtomicU64::new(0);

/// Frames that nobody holds.
struct Idle {
    /// How many keep their memory.
    filled_max: usize,
    /// They have their memory still, and are taken first, the last one first: a page fault costs more than six copies.
    filled: Vec<Slot>,
    /// Those beyond the bound, until there are enough of them to give their memory back.
    surplus: Vec<Slot>,
    /// Frames without memory: the kernel gives it with the first write.
    empty: Vec<Slot>,
}

/// A frame that nobody holds.
struct Slot(NonNull<Page>);

// SAFETY: a slot is the only pointer to its memory while it is in the idle list, and plain bytes have no thread.
unsafe impl Send for Slot {}

/// The content of one page in memory, immutable once made, and its digest once asked for.
pub(crate) struct Frame {
    bytes: NonNull<Page>,
    digest: OnceLock<Digest>,
}

// SAFETY: the frame owns its memory alone and nothing writes to it between its making and `drop` (as long as it is a
// `NewPage` it is borrowed exclusively for that), so that shared references from any thread see immutable bytes.
unsafe impl Send for Frame {}
// SAFETY: as above; the digest is a `OnceLock`, which is `Sync`.
unsafe impl Sync for Frame {}

impl Frame {
    /// A frame with the same bytes as `page`.
    pub(crate) fn copy_of(page: &Page) -> Self {
        let Slot(bytes) = take_idle();
        // SAFETY: `bytes` points to a whole page, aligned to one, that belongs to us alone (it left the idle list or is
        // new), and `page` is borrowed, hence elsewhere.
        unsafe { copy_page(page, bytes) };
        finish_copies();
        Self::at(bytes)
    }

    /// The same for several pages: they are on their way to memory together, and waited for once.
    pub(crate) fn copies_of(pages: &[&Page]) -> Vec<Self> {
        let slots = take_idle_frames(pages.len());
        let frames = slots.into_iter().zip(pages).map(|(Slot(bytes), page)| {
            // SAFETY: as in `copy_of`.
            unsafe { copy_page(page, bytes) };
            Self::at(bytes)
        });
        let frames = frames.collect();
        finish_copies();
        frames
    }

    /// A frame whose memory was written whole.
    fn at(bytes: NonNull<Page>) -> Self {
        Self {
            bytes,
            digest: OnceLock::new(),
        }
    }

    pub(crate) fn page(&self) -> &Page {
        // SAFETY: the memory was written whole when the frame was made and stays ours, unchanged, as long as `self` lives.
        unsafe { self.bytes.as_ref() }
    }

    /// BLAKE3 of the page, computed at most once.
    pub(crate) fn digest(&self) -> &Digest {
        self.digest.get_or_init(|| *blake3::hash(self.page()).as_bytes())
    }

    pub(crate) fn has_digest(&self) -> bool {
        self.digest.get().is_some()
    }

    /// Keeps the page's digest, which was computed beside those of others.
    pub(crate) fn note_digest(&self, digest: Digest) {
        self.digest.get_or_init(|| digest);
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        IN_USE.fetch_sub(1, Ordering::Relaxed);
        let surplus = idle_frames().put(Slot(self.bytes));
        if let Some(mut surplus) = surplus {
            // Nobody waits for the kernel: the list is free meanwhile.
            give_memory_back(&mut surplus);
            idle_frames().empty.append(&mut surplus);
        }
    }
}

/// A page that its owner still writes: the memory of a page map's frame before it belongs to one, so that
/// [`PageDelta::insert_new`](crate::PageDelta::insert_new) copies nothing.
#[derive(Debug)]
pub struct NewPage(Frame);

impl NewPage {
    /// A page with the same bytes as `page`. The copy stays in the cache, for the one who is about to write it.
    pub fn copy_of(page: &Page) -> Self {
        let Slot(bytes) = take_idle();
        // SAFETY: `bytes` is valid for writing a whole page that belongs to us alone (it left the idle list or is new), and
        // `page` is borrowed, hence elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(page.as_ptr(), bytes.as_ptr().cast::<u8>(), OS_PAGE_BYTES) };
        Self(Frame::at(bytes))
    }

    /// A page of zeros.
    pub fn zeros() -> Self {
        let Slot(bytes) = take_idle();
        // SAFETY: as in `copy_of`; zeros are a valid page.
        unsafe { std::ptr::write_bytes(bytes.as_ptr(), 0, 1) };
        Self(Frame::at(bytes))
    }

    /// The page as it is from now on.
    pub(crate) fn into_frame(self) -> Frame {
        self.0
    }
}

impl Deref for NewPage {
    type Target = Page;

    fn deref(&self) -> &Page {
        self.0.page()
    }
}

impl DerefMut for NewPage {
    fn deref_mut(&mut self) -> &mut Page {
        // SAFETY: the memory was written whole when the page was made and is ours alone; the frame is in nobody else's
        // hands yet, nobody has asked for its digest, and `self` is borrowed exclusively.
        unsafe { self.0.bytes.as_mut() }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:02x?}..)", &self.page()[..8])
    }
}

/// Page frames that this process holds in memory now, over all page maps; times 4096 it is bytes.
pub fn frames_in_use() -> u64 {
    IN_USE.load(Ordering::Relaxed)
}

/// Copies a page past the cache. A free frame was last written long ago, so that an ordinary copy would first read it
/// from memory: 650 ns a page instead of 400 where memories are larger than the cache, 140 instead of 260 where all of
/// them fit into it. [`finish_copies`] follows before anyone reads the copy.
///
/// # Safety
/// `target` is valid for writing a page, aligned to one, and does not overlap `page`. It need not be initialised.
#[cfg(target_arch = "x86_64")]
unsafe fn copy_page(page: &Page, target: NonNull<Page>) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_stream_si128};
    let (source, target) = (page.as_ptr().cast::<__m128i>(), target.as_ptr().cast::<__m128i>());
    for word in 0..OS_PAGE_BYTES / size_of::<__m128i>() {
        // SAFETY: `word` counts the 16-byte words of a page, the target is aligned to more than 16 bytes, loads need no
        // alignment, and SSE2 belongs to the architecture.
        unsafe { _mm_stream_si128(target.add(word), _mm_loadu_si128(source.add(word))) };
    }
}

/// Makes copies readable. Streaming stores are not ordered with those that publish a frame to other threads; this orders
/// them, and waits until they are done: 80 ns if done after every page.
#[cfg(target_arch = "x86_64")]
fn finish_copies() {
    // SAFETY: an instruction of the architecture without operands.
    unsafe { std::arch::x86_64::_mm_sfence() };
}

/// Copies a page.
///
/// # Safety
/// `target` is valid for writing a page and does not overlap `page`. It need not be initialised.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_page(page: &Page, target: NonNull<Page>) {
    // SAFETY: as the caller promises.
    unsafe { std::ptr::copy_nonoverlapping(page.as_ptr(), target.as_ptr().cast::<u8>(), OS_PAGE_BYTES) };
}

/// Ordinary copies are readable at once.
#[cfg(not(target_arch = "x86_64"))]
fn finish_copies() {}

fn idle_frames() -> MutexGuard<'static, Idle> {
    Lock::Frames.take(IDLE.try_lock(), || IDLE.lock())
}

fn take_idle() -> Slot {
    IN_USE.fetch_add(1, Ordering::Relaxed);
    idle_frames().take()
}

fn take_idle_frames(count: usize) -> Vec<Slot> {
    IN_USE.fetch_add(count as u64, Ordering::Relaxed);
    let mut idle = idle_frames();
    (0..count).map(|_| idle.take()).collect()
}

impl Idle {
    /// Takes a frame back. What it returns is to be rid of its memory, and is empty then.
    fn put(&mut self, slot: Slot) -> Option<Vec<Slot>> {
        if self.filled.len() < self.filled_max {
            self.filled.push(slot);
            return None;
        }
        self.surplus.push(slot);
        (self.surplus.len() >= SURPLUS_FRAMES).then(|| std::mem::take(&mut self.surplus))
    }

    fn take(&mut self) -> Slot {
        let idle = self.filled.pop().or_else(|| self.surplus.pop());
        idle.or_else(|| self.empty.pop()).unwrap_or_else(|| {
            self.add_chunk();
            self.empty.pop().expect("a chunk holds frames")
        })
    }

    fn add_chunk(&mut self) {
        let layout = Layout::from_size_align(CHUNK_BYTES, OS_PAGE_BYTES).expect("constant, valid");
        // SAFETY: the layout has a size other than zero.
        let chunk = unsafe { alloc(layout) };
        let Some(chunk) = NonNull::new(chunk) else {
            handle_alloc_error(layout)
        };
        // Backwards, so that frames are taken in ascending order and a large commit writes forwards.
        for number in (0..FRAMES_PER_CHUNK).rev() {
            // SAFETY: `number` is below the count of pages that the chunk was allocated for.
            let frame = unsafe { chunk.add(number * OS_PAGE_BYTES) };
            self.empty.push(Slot(frame.cast()));
        }
    }
}

/// Gives the memory of frames back to the kernel, and sorts them by address, descending.
fn give_memory_back(frames: &mut [Slot]) {
    frames.sort_unstable_by_key(|Slot(bytes)| std::cmp::Reverse(bytes.addr()));
    let are_neighbours = |one: &Slot, next: &Slot| next.0.addr().get() + OS_PAGE_BYTES == one.0.addr().get();
    for run in frames.chunk_by(are_neighbours) {
        let Some(Slot(lowest)) = run.last() else { continue };
        // SAFETY: the range is whole pages of chunks that are never returned to the allocator, and nobody else has them:
        // their owners were dropped and they are in no list. After the call they read as zeros, which any next owner
        // overwrites before reading. A refusal changes nothing but the memory in use, so the result doesn't matter.
        unsafe { libc::madvise(lowest.as_ptr().cast(), run.len() * OS_PAGE_BYTES, libc::MADV_DONTNEED) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_with_memory_are_taken_before_those_without() {
        let mut idle = Idle {
            filled_max: 10,
            filled: Vec::new(),
            surplus: Vec::new(),
            empty: Vec::new(),
        };
        let count = 10 + SURPLUS_FRAMES + 5;
        let mut frames: Vec<Slot> = (0..count).map(|_| idle.take()).collect();
        for Slot(bytes) in &mut frames {
            // SAFETY: a whole page of a chunk that only this test has.
            unsafe { bytes.as_mut()[7] = 1 };
        }
        let mut given_back = Vec::new();
        for frame in frames {
            if let Some(mut surplus) = idle.put(frame) {
                give_memory_back(&mut surplus);
                given_back.push(surplus.len());
                idle.empty.append(&mut surplus);
            }
        }
        assert_eq!(given_back, [SURPLUS_FRAMES]);
        // SAFETY: as above; memory that was given back reads as zeros.
        let has_memory = |Slot(bytes): Slot| unsafe { bytes.as_ref()[7] == 1 };
        let filled: Vec<bool> = (0..count).map(|_| has_memory(idle.take())).collect();
        assert_eq!(filled.iter().position(|has| !has), Some(15));
        assert!(!filled[15..].contains(&true));
    }
}
