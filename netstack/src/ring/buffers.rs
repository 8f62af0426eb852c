//! Memory that the kernel fills with what it receives.

use super::BufferId;
use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU16, Ordering};

/// The one group of provided buffers.
pub(super) const BUFFER_GROUP: u16 = 0;

/// `IOU_PBUF_RING_INC`: a buffer at the head of the ring stays there until it is full.
const INCREMENTAL: u16 = 2;

/// A ring of receive buffers shared with the kernel: it takes from the head, we put back at the tail.
///
/// An incremental ring fills a buffer by several receives. What it has put there is read piece by piece; the buffer goes
/// back to the kernel once it says that it is done with it and every piece has been given back.
pub(super) struct BufferRing {
    /// `entries` ring entries, page-aligned, followed by nothing.
    entries: Mapping,
    /// `count` buffers of `buffer_bytes` each.
    buffers: Mapping,
    count: u16,
    buffer_bytes: usize,
    tail: u16,
    usage: Vec<Usage>,
}

/// How far a buffer is used.
#[derive(Clone, Copy, Default)]
struct Usage {
    /// Bytes that the kernel has filled.
    filled: u32,
    /// Pieces that are being read.
    lent: u32,
    /// The kernel puts nothing more into it.
    finished: bool,
}

impl BufferRing {
    /// Makes `count` buffers and gives them to the kernel. The ring must be dropped before the result is.
    pub(super) fn register(ring: &IoUring, count: u16, buffer_bytes: usize, incremental: bool) -> io::Result<Self> {
        if !count.is_power_of_two() || count > 1 << 15 || buffer_bytes == 0 || buffer_bytes > 1 << 30 {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "receive_buffers must be a power of two up to 32768 and receive_buffer_bytes at least 1",
            ));
        }
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let buffers = Mapping::new(usize::from(count) * buffer_bytes)?;
        let register = |flags| {
            // SAFETY: the mapping holds `count` entries, is page-aligned, and outlives `ring` (field order of `Uring`,
            // and on an error here the registration did not take place).
            unsafe {
                ring.submitter()
                    .register_buf_ring_with_flags(entries.address as u64, count, BUFFER_GROUP, flags)
            }
        };
        match register(if incremental { INCREMENTAL } else { 0 }) {
            // Kernels before 6.12 know no incremental buffers.
            Err(error) if incremental && error.kind() == ErrorKind::InvalidInput => register(0)?,
            registered => registered?,
        }
        let mut this = Self {
            entries,
            buffers,
            count,
            buffer_bytes,
            tail: 0,
            usage: vec![Usage::default(); usize::from(count)],
        };
        for index in 0..count {
            this.give(index);
        }
        Ok(this)
    }

    /// Takes note of `length` bytes that the kernel has put into a buffer, and names them; `more` tells that it will put
    /// further ones behind them.
    pub(super) fn take(&mut self, index: u16, length: usize, more: bool) -> BufferId {
        let usage = &mut self.usage[usize::from(index)];
        let offset = usage.filled;
        usage.filled += length as u32;
        usage.lent += 1;
        usage.finished = !more;
        BufferId { index, offset }
    }

    /// What the kernel has put into a buffer.
    pub(super) fn bytes(&self, buffer: &BufferId, length: usize) -> &[u8] {
        let offset = buffer.offset as usize;
        assert!(buffer.index < self.count && offset + length <= self.buffer_bytes);
        // SAFETY: the range is inside the mapping; the kernel has filled it and does not write to it again before
        // the whole buffer has been given back by `recycle`, which needs `&mut self`.
        unsafe {
            std::slice::from_raw_parts(
                self.buffers
                    .address
                    .add(usize::from(buffer.index) * self.buffer_bytes + offset),
                length,
            )
        }
    }

    /// Takes a piece back, and gives its buffer to the kernel if it was the last one.
    pub(super) fn recycle(&mut self, buffer: &BufferId) {
        let usage = &mut self.usage[usize::from(buffer.index)];
        usage.lent -= 1;
        if usage.finished && usage.lent == 0 {
            self.give(buffer.index);
        }
    }

    fn give(&mut self, index: u16) {
        assert!(index < self.count);
        self.usage[usize::from(index)] = Usage::default();
        let base = self.entries.address.cast::<BufRingEntry>();
        let position = usize::from(self.tail & (self.count - 1));
        let address = self.buffers.address as u64 + u64::from(index) * self.buffer_bytes as u64;
        // SAFETY: `position` is below `count`, so the entry is inside the mapping; entries between head and tail are
        // the kernel's, this one is beyond the tail and hence ours. The setters do not touch the tail field, which
        // lies in the reserved part of the first entry.
        let entry = unsafe { &mut *base.add(position) };
        entry.set_addr(address);
        entry.set_len(self.buffer_bytes as u32);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is an aligned u16 in the mapping which the kernel only reads; the release store makes the
        // entry visible before it.
        unsafe {
            (*BufRingEntry::tail(base).cast::<AtomicU16>()).store(self.tail, Ordering::Release);
        }
    }

    /// Keeps the memory mapped for ever.
    pub(super) fn leak(&mut self) {
        self.entries.length = 0;
        self.buffers.length = 0;
    }
}

/// Anonymous memory, page-aligned and zeroed, unmapped on drop.
struct Mapping {
    address: *mut u8,
    /// Zero once the memory is given up.
    length: usize,
}

impl Mapping {
    fn new(length: usize) -> io::Result<Self> {
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no existing memory.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            address: address.cast(),
            length,
        })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: address and length are those of our own mapping, and no reference to it is left.
            unsafe { libc::munmap(self.address.cast(), self.length) };
        }
    }
}
