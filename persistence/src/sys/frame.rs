//! Page frames: 4 KiB of page-aligned memory each, from one arena of the process.
//!
//! Page alignment is worth its own arena: copying a page between buffers that differ modulo 4096 costs 2.8 times as
//! much, and a general allocator rounds an aligned page up to two. Chunks are never given back to the allocator;
//! beyond `IDLE_FRAMES_MAX` idle frames their memory goes back to the kernel page by page.

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

static IDLE: Mutex<Vec<Slot>> = Mutex::new(Vec::new());
static IN_USE: AtomicU64 = AtomicU64::new(0);

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
        let bytes = take_idle().0;
        // SAFETY: `bytes` points to a whole page, aligned to one, that belongs to us alone (it left the idle list or is
        // new), and `page` is borrowed, hence elsewhere.
        unsafe { copy_page(page, bytes) };
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
        let mut idle = idle_frames();
        if idle.len() >= IDLE_FRAMES_MAX {
            give_memory_back(self.bytes);
        }
        idle.push(Slot(self.bytes));
    }
}

/// A page that its owner still writes: the memory of a page map's frame before it belongs to one, so that
/// [`PageDelta::insert_new`](crate::PageDelta::insert_new) copies nothing.
#[derive(Debug)]
pub struct NewPage(Frame);

impl NewPage {
    /// A page with the same bytes as `page`. The copy stays in the cache, for the one who is about to write it.
    pub fn copy_of(page: &Page) -> Self {
        let bytes = take_idle().0;
        // SAFETY: `bytes` is valid for writing a whole page that belongs to us alone (it left the idle list or is new), and
        // `page` is borrowed, hence elsewhere.
        unsafe { std::ptr::copy_nonoverlapping(page.as_ptr(), bytes.as_ptr().cast::<u8>(), OS_PAGE_BYTES) };
        Self::at(bytes)
    }

    /// A page of zeros.
    pub fn zeros() -> Self {
        let bytes = take_idle().0;
        // SAFETY: as in `copy_of`; zeros are a valid page.
        unsafe { std::ptr::write_bytes(bytes.as_ptr(), 0, 1) };
        Self::at(bytes)
    }

    fn at(bytes: NonNull<Page>) -> Self {
        Self(Frame {
            bytes,
            digest: OnceLock::new(),
        })
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
/// them fit into it.
///
/// # Safety
/// `target` is valid for writing a page, aligned to one, and does not overlap `page`. It need not be initialised.
#[cfg(target_arch = "x86_64")]
unsafe fn copy_page(page: &Page, target: NonNull<Page>) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    let (source, target) = (page.as_ptr().cast::<__m128i>(), target.as_ptr().cast::<__m128i>());
    for word in 0..OS_PAGE_BYTES / size_of::<__m128i>() {
        // SAFETY: `word` counts the 16-byte words of a page, the target is aligned to more than 16 bytes, loads need no
        // alignment, and SSE2 belongs to the architecture.
        unsafe { _mm_stream_si128(target.add(word), _mm_loadu_si128(source.add(word))) };
    }
    // SAFETY: an instruction of the architecture without operands. Streaming stores are not ordered with those that
    // publish the frame to other threads; the fence orders them.
    unsafe { _mm_sfence() };
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

fn idle_frames() -> MutexGuard<'static, Vec<Slot>> {
    Lock::Frames.take(IDLE.try_lock(), || IDLE.lock())
}

fn take_idle() -> Slot {
    IN_USE.fetch_add(1, Ordering::Relaxed);
    let mut idle = idle_frames();
    match idle.pop() {
        Some(slot) => slot,
        None => {
            add_chunk(&mut idle);
            idle.pop().expect("a chunk holds frames")
        }
    }
}

fn add_chunk(idle: &mut Vec<Slot>) {
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
        idle.push(Slot(frame.cast()));
    }
}

fn give_memory_back(frame: NonNull<Page>) {
    // SAFETY: the range is one whole page of a chunk that is never returned to the allocator; its owner is being
    // dropped, and after the call it reads as zeros, which any next owner overwrites before reading.
    // A refusal changes nothing but the memory in use, so the result doesn't matter.
    unsafe { libc::madvise(frame.as_ptr().cast(), OS_PAGE_BYTES, libc::MADV_DONTNEED) };
}
