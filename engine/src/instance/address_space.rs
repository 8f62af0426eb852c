//! Where instances lie in the address space, and how many of the process's mappings they take.
//!
//! ```text
//! guard | heap    -> reserved for the heap to grow  | guard
//! guard | stack, marks      -> reserved for nothing | guard
//!       `--- writable ---'`----- no access -----'
//! ```
//! A process has a bounded number of mappings (`vm.max_map_count`), and the system answers "out of memory" beyond it. So
//! the marks of a heap lie directly above the stack on which the instance's code runs, and both are one mapping: a stack
//! grows down, and what the code of an instance reaches of a memory begins where the memory begins. Guards of neighbours
//! merge.

use replicore_types::{OS_PAGE_BYTES, WASM_PAGE_BYTES};
use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wasmtime::{LinearMemory, MemoryCreator, MemoryType, StackCreator, StackMemory};

/// Mappings of one reservation: what can be accessed, and what cannot.
const PER_RESERVATION: u64 = 2;
/// Mappings that one instance takes: its heap, and its marks with its stack.
pub(crate) const MAPPINGS_PER_INSTANCE: u64 = 2 * PER_RESERVATION;

/// What reservations are multiples of: Linux begins large ones at multiples of a huge page, and only those that touch have
/// guards that merge.
const GRANULE: usize = 2 << 20;

/// Counts the mappings of an engine's instances, within a bound.
#[derive(Debug)]
pub(crate) struct Mappings {
    taken: AtomicU64,
    max: u64,
    /// One growth is refused once so many were granted, for tests of what follows; [`NEVER`] refuses none.
    #[cfg(test)]
    growths_granted: AtomicU64,
}

/// No growth is refused.
#[cfg(test)]
const NEVER: u64 = u64::MAX;

impl Mappings {
    /// An account that gives out so many.
    pub(crate) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicU64::new(0),
            max,
            #[cfg(test)]
            growths_granted: AtomicU64::new(NEVER),
        })
    }

    /// Refuses one growth of a memory, after so many others.
    #[cfg(test)]
    pub(crate) fn refuse_growth_after(&self, granted: u64) {
        self.growths_granted.store(granted, Ordering::Relaxed);
    }

    /// True where the growth that was to be refused was.
    #[cfg(test)]
    pub(crate) fn all_refused(&self) -> bool {
        self.growths_granted.load(Ordering::Relaxed) == NEVER
    }

    #[cfg(test)]
    fn grant_growth(&self) -> io::Result<()> {
        // Down to zero, which refuses, and then to `NEVER`.
        match self.growths_granted.load(Ordering::Relaxed) {
            NEVER => Ok(()),
            left => {
                self.growths_granted.store(left.wrapping_sub(1), Ordering::Relaxed);
                if left == 0 {
                    Err(io::ErrorKind::OutOfMemory.into())
                } else {
                    Ok(())
                }
            }
        }
    }

    /// The mappings of one reservation, given back with what is returned.
    fn take(self: &Arc<Self>) -> io::Result<Taken> {
        let taken = Taken(Arc::clone(self));
        if self.taken.fetch_add(PER_RESERVATION, Ordering::Relaxed) + PER_RESERVATION > self.max {
            let text = format!("the instances of canisters may take {} memory mappings", self.max);
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
        }
        Ok(taken)
    }
}

/// Mappings that are in use.
struct Taken(Arc<Mappings>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(PER_RESERVATION, Ordering::Relaxed);
    }
}

/// Address space of its own, without access but where it was opened.
struct Reservation {
    base: NonNull<u8>,
    bytes: usize,
    /// Given back with the reservation.
    #[cfg_attr(not(test), expect(dead_code, reason = "held, so that it is given back"))]
    taken: Taken,
}

// SAFETY: a reservation is a range of addresses; what lies there is accessed by those that own the memories and stacks in
// it, each its own part.
unsafe impl Send for Reservation {}
// SAFETY: as above.
unsafe impl Sync for Reservation {}

impl Reservation {
    fn new(mappings: &Arc<Mappings>, bytes: usize) -> io::Result<Self> {
        let bytes = bytes.next_multiple_of(GRANULE);
        let taken = mappings.take()?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address that the system chooses touches no other.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
        match NonNull::new(base.cast::<u8>()) {
            Some(start) if base != libc::MAP_FAILED => Ok(Self {
                base: start,
                bytes,
                taken,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The address `offset` bytes from the start, which may be the end.
    fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset <= self.bytes, "outside the reservation");
        self.base.as_ptr().wrapping_add(offset)
    }

    /// Makes a part readable and writable; it holds zeros where it was never written.
    fn open(&self, part: Range<usize>) -> io::Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        assert!(part.end <= self.bytes, "outside the reservation");
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the part lies inside the mapping, which is our own.
        match unsafe { libc::mprotect(self.at(part.start).cast(), part.len(), access) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: the mapping is our own, and the memories and stacks in it hold the reservation while they are used.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
        debug_assert_eq!(result, 0, "a reservation cannot be given back");
    }
}

thread_local! {
    /// What is being made on this thread.
    static MAKING: RefCell<Making> = const { RefCell::new(Making::Nothing) };
}

/// The Wasm engine asks for a module's memories one after the other, the heap first, and for a stack when code runs for the
/// first time.
enum Making {
    /// Neither of what follows.
    Nothing,
    /// An instance: the next memory is its heap.
    Heap,
    /// The memory after it, which is that of its marks.
    Marks,
    /// The instance has them: this is its stack.
    Stack(Stack),
}

/// Sets what is being made, and resets it: also where `make` panics.
fn while_making<T>(what: Making, make: impl FnOnce() -> T) -> (T, Option<Stack>) {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            MAKING.replace(Making::Nothing);
        }
    }
    MAKING.replace(what);
    let _end = End;
    let made = make();
    match MAKING.replace(Making::Nothing) {
        Making::Stack(stack) => (made, Some(stack)),
        _ => (made, None),
    }
}

/// Makes an instance whose first two memories, if it has any, are a heap and its marks; with its stack, which lies below
/// the marks.
pub(super) fn with_marks_above_stack<T>(make: impl FnOnce() -> T) -> (T, Option<Stack>) {
    while_making(Making::Heap, make)
}

/// Lets code run for the first time, on this stack.
pub(super) fn on_stack<T>(stack: Stack, run: impl FnOnce() -> T) -> T {
    while_making(Making::Stack(stack), run).0
}

/// Gives the Wasm engine memories and stacks.
pub(super) struct AddressSpace {
    pub mappings: Arc<Mappings>,
    /// Bytes of every stack.
    pub stack_bytes: usize,
}

/// A memory in a reservation.
struct Part {
    reservation: Arc<Reservation>,
    /// Where it begins.
    start: usize,
    /// What can be accessed.
    bytes: usize,
    /// What it may grow to.
    capacity: usize,
}

impl Part {
    fn new(reservation: Arc<Reservation>, start: usize, bytes: usize, capacity: usize) -> io::Result<Self> {
        reservation.open(start..start + bytes)?;
        Ok(Self {
            reservation,
            start,
            bytes,
            capacity,
        })
    }
}

// SAFETY: a memory is `bytes` long from a base that never moves and is accessible as far; what follows up to its reserved
// size and the guard behind it belongs to the same reservation and is inaccessible.
unsafe impl LinearMemory for Part {
    fn byte_size(&self) -> usize {
        self.bytes
    }

    fn byte_capacity(&self) -> usize {
        self.capacity
    }

    fn grow_to(&mut self, new_size: usize) -> wasmtime::Result<()> {
        if new_size > self.capacity {
            return Err(wasmtime::Error::msg("the memory's reservation ends"));
        }
        #[cfg(test)]
        self.reservation.taken.0.grant_growth()?;
        self.reservation.open(self.start + self.bytes..self.start + new_size)?;
        self.bytes = new_size;
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.reservation.at(self.start)
    }
}

impl AddressSpace {
    /// A memory of so many bytes with room to grow to `reserved` and an inaccessible end.
    fn memory(&self, minimum: usize, reserved: usize, guard: usize) -> io::Result<Part> {
        let making = MAKING.replace(Making::Nothing);
        let is_marks = matches!(making, Making::Marks);
        let stack_bytes = if is_marks { self.stack_bytes() } else { 0 };
        let start = guard + stack_bytes;
        let reservation = Arc::new(Reservation::new(&self.mappings, start + reserved + guard)?);
        let next = match making {
            Making::Heap => Making::Marks,
            Making::Marks => Making::Stack(Stack::new(&reservation, guard..start)?),
            Making::Nothing | Making::Stack(_) => making,
        };
        MAKING.replace(next);
        Part::new(reservation, start, minimum, reserved)
    }

    fn stack_bytes(&self) -> usize {
        self.stack_bytes.next_multiple_of(OS_PAGE_BYTES)
    }

    fn stack(&self, bytes: usize) -> io::Result<Stack> {
        match MAKING.replace(Making::Nothing) {
            Making::Stack(stack) if stack.part.len() >= bytes => Ok(stack),
            _ => {
                let part = OS_PAGE_BYTES..OS_PAGE_BYTES + bytes.next_multiple_of(OS_PAGE_BYTES);
                let reservation = Reservation::new(&self.mappings, part.end)?;
                Stack::new(&Arc::new(reservation), part)
            }
        }
    }
}

// SAFETY: memories are new, hold zeros, belong to the Wasm engine alone and are guarded, see `Part`.
unsafe impl MemoryCreator for AddressSpace {
    fn new_memory(
        &self,
        _: MemoryType,
        minimum: usize,
        maximum: Option<usize>,
        reserved_size_in_bytes: Option<usize>,
        guard_size_in_bytes: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        let reserved = reserved_size_in_bytes.or(maximum).unwrap_or(minimum).max(minimum);
        match self.memory(minimum, reserved.next_multiple_of(WASM_PAGE_BYTES), guard_size_in_bytes) {
            Ok(memory) => Ok(Box::new(memory)),
            Err(error) => Err(format!("no address space for the memory of a canister: {error}")),
        }
    }
}

/// A part of a reservation, with at least a page below it that cannot be accessed.
pub(super) struct Stack {
    reservation: Arc<Reservation>,
    part: Range<usize>,
}

impl Stack {
    fn new(reservation: &Arc<Reservation>, part: Range<usize>) -> io::Result<Self> {
        reservation.open(part.clone())?;
        let reservation = Arc::clone(reservation);
        Ok(Self { reservation, part })
    }
}

// SAFETY: the part is nobody else's, stays as long as this lives, and has a guard below it.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        self.reservation.at(self.part.end)
    }

    fn range(&self) -> Range<usize> {
        self.reservation.at(self.part.start).addr()..self.top().addr()
    }

    fn guard_range(&self) -> Range<*mut u8> {
        self.reservation.at(self.part.start - OS_PAGE_BYTES)..self.reservation.at(self.part.start)
    }
}

// SAFETY: stacks are new, page aligned and hold zeros, see `Stack`.
unsafe impl StackCreator for AddressSpace {
    fn new_stack(&self, size: usize, _zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        Ok(Box::new(self.stack(size)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUARD: usize = 1 << 20;
    const PAGE: usize = WASM_PAGE_BYTES;

    fn space(mappings: u64) -> AddressSpace {
        AddressSpace {
            mappings: Mappings::new(mappings),
            stack_bytes: 100_000,
        }
    }

    /// Writes the first and the last byte.
    fn touch(base: *mut u8, bytes: usize) {
        // SAFETY: the memory or stack is so long.
        unsafe {
            assert_eq!(base.add(bytes - 1).read(), 0);
            base.add(bytes - 1).write(1);
            base.write(1);
        }
    }

    #[test]
    fn the_marks_of_a_heap_lie_above_the_stack() {
        let space = space(4);
        let ((mut heap, marks), stack) = with_marks_above_stack(|| {
            let heap = space.memory(2 * PAGE, 16 * PAGE, GUARD).unwrap();
            (heap, space.memory(3 * PAGE, 16 * PAGE, GUARD).unwrap())
        });
        assert!(space.memory(PAGE, PAGE, GUARD).is_err(), "no mapping is left");
        let stack = on_stack(stack.unwrap(), || space.stack(100_000).unwrap());
        assert_eq!(marks.as_ptr(), stack.top());
        assert_eq!((heap.byte_size(), marks.byte_size()), (2 * PAGE, 3 * PAGE));
        heap.grow_to(4 * PAGE).unwrap();
        touch(heap.as_ptr(), 4 * PAGE);
        touch(marks.as_ptr(), 3 * PAGE);
        let range = stack.range();
        touch(stack.top().wrapping_sub(range.len()), range.len());
        assert!(heap.grow_to(17 * PAGE).is_err());
        let apart = heap.as_ptr().addr().abs_diff(marks.as_ptr().addr());
        assert!(apart >= 16 * PAGE + GUARD, "neither reaches the other");
        drop((heap, marks));
        touch(stack.top().wrapping_sub(PAGE), 1);
        drop(stack);
        assert!(space.memory(PAGE, PAGE, GUARD).is_ok(), "they were given back");
    }

    #[test]
    fn an_instance_without_a_heap_gets_a_stack_of_its_own() {
        let space = space(2);
        assert!(with_marks_above_stack(|| ()).1.is_none());
        let stack = space.new_stack(100_000, true).unwrap();
        let range = stack.range();
        assert_eq!(range.len(), 100_000_usize.next_multiple_of(OS_PAGE_BYTES));
        assert_eq!(stack.top().addr(), range.end);
        assert_eq!(stack.guard_range().end.addr(), range.start);
        assert!(space.new_stack(1, true).is_err(), "no mapping is left");
    }
}
