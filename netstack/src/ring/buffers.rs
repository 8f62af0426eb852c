//! Memory that the kernel fills with what it receives.

use super::BufferId;
use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicU16, Ordering};

/// The one group of provided buffers.
pub(super) const BUFFER_GROUP: u16 = 0;

/// A ring of receive buffers shared with the kernel: it takes from the head, we put back at the tail.
pub(super) struct BufferRing {
    /// `entries` ring entries, page-aligned, followed by nothing.
    entries: Mapping,
    /// `count` buffers of `buffer_bytes` each.
    buffers: Mapping,
    count: u16,
    buffer_bytes: usize,
    tail: u16,
}

impl BufferRing {
    /// Makes `count` buffers and gives them to the kernel. The ring must be dropped before the result is.
    pub(super) fn register(ring: &IoUring, count: u16, buffer_bytes: usize) -> io::Result<Self> {
        if !count.is_power_of_two() || count > 1 << 15 || buffer_bytes == 0 || buffer_bytes > 1 << 30 {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "receive_buffers must be a power of two up to 32768 and receive_buffer_bytes at least 1",
            ));
        }
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let buffers = Mapping::new(usize::from(count) * buffer_bytes)?;
        // SAFETY: the mapping holds `count` entries, is page-aligned, and outlives `ring` (field order of `Uring`, and
        // on an error here the registration did not take place).
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(entries.address as u64, count, BUFFER_GROUP, 0)?;
        }
        let mut this = Self {
            entries,
            buffers,
            count,
            buffer_bytes,
            tail: 0,
        };
        for index in 0..count {
            this.recycle(&BufferId(index));
        }
        Ok(this)
    }

    /// What the kernel has put into a buffer.
    pub(super) fn bytes(&self, buffer: &BufferId, length: usize) -> &[u8] {
        assert!(buffer.0 < self.count && length <= self.buffer_bytes);
        // SAFETY: the range is inside the mapping; the kernel has filled it and does not write to it again before
        // `recycle`, which needs `&mut self`.
        unsafe {
            std::slice::from_raw_parts(
                self.buffers.address.add(usize::from(buffer.0) * self.buffer_bytes),
                length,
            )
        }
    }

    /// Gives a buffer to the kernel.
    pub(super) fn recycle(&mut self, buffer: &BufferId) {
        assert!(buffer.0 < self.count);
        let base = self.entries.address.cast::<BufRingEntry>();
        let position = usize::from(self.tail & (self.count - 1));
        let address = self.buffers.address as u64 + u64::from(buffer.0) * self.buffer_bytes as u64;
        // SAFETY: `position` is below `count`, so the entry is inside the mapping; entries between head and tail are
        // the kernel's, this one is beyond the tail and hence ours. The setters do not touch the tail field, which
        // lies in the reserved part of the first entry.
        let entry = unsafe { &mut *base.add(position) };
        entry.set_addr(address);
        entry.set_len(self.buffer_bytes as u32);
        entry.set_bid(buffer.0);
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
